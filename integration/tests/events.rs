//! What the daemon's controllers do is told as events, which outlive the daemon, and can be watched.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use integration::{Instance, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const EVENTS: &str = "/api/v1/namespaces/default/events";

fn web(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sleep, '1000']}}
"
    )
}

fn job(name: &str, code: u32) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sh, -c, exit {code}]}}
"
    )
}

/// Reason, object and message of each line, in order.
fn told(text: &str) -> Vec<String> {
    let lines = text.lines().skip(1);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let shown = lines.map(|line| {
        let words = words(line);
        let kind = words.iter().position(|word| word == "Normal" || word == "Warning").unwrap();
        words[kind + 1..].join(" ")
    });
    shown.collect()
}

fn reasons(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, at: &str| event.pointer(at).unwrap().as_str().unwrap().to_owned();
    let shown = events
        .iter()
        .map(|event| format!("{} {}", text(event, "/involvedObject/kind"), text(event, "/reason")));
    shown.collect()
}

#[test]
fn what_controllers_do_is_told_once_and_outlives_the_daemon() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&web(2));
    let pods =
        podshim.until_pods("two", |pods| pods.len() == 2 && pods.iter().all(integration::is_ready));
    let set = pods[0]["metadata"]["ownerReferences"][0]["name"].as_str().unwrap();
    podshim.apply(&web(1));
    podshim.until_pods("one", |pods| pods.len() == 1);
    let scaled = [
        format!("ScalingReplicaSet Deployment/web Scaled up replica set {set} from 0 to 2"),
        format!("ScalingReplicaSet Deployment/web Scaled down replica set {set} from 2 to 1"),
    ];
    let said = podshim.podshim(&["events", "deployment/web"]);
    assert_eq!(told(&said.out), scaled, "{}{}", said.out, said.err);
    let said = podshim.podshim(&["events", "--for", &format!("rs/{set}")]);
    let mut of_set = told(&said.out);
    let deleted = of_set.pop().unwrap();
    assert!(deleted.starts_with(&format!("SuccessfulDelete ReplicaSet/{set} Deleted pod: {set}-")));
    let mut made: Vec<String> = pods
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap())
        .map(|pod| format!("SuccessfulCreate ReplicaSet/{set} Created pod: {pod}"))
        .collect();
    made.sort();
    of_set.sort();
    assert_eq!(of_set, made, "{}", said.out);

    // Another daemon tells nothing again.
    daemon.kill();
    let daemon = podshim.daemon();
    podshim.apply(&format!("{}---\n{}", job("good", 0), job("bad", 3)));
    for (name, condition) in [("good", "complete"), ("bad", "failed")] {
        let condition = format!("--for=condition={condition}");
        let said = podshim.podshim(&["wait", &format!("job/{name}"), &condition, "--timeout=60s"]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let said = podshim.podshim(&["events", "job/good"]);
    let good = told(&said.out);
    assert!(good.len() == 2 && good[0].starts_with("SuccessfulCreate Job/good Created pod: good-"));
    assert_eq!(good[1], "Completed Job/good Job completed");
    let said = podshim.podshim(&["describe", "job", "bad"]);
    let failed = "BackoffLimitExceeded";
    let line = said.out.lines().find(|line| line.contains(failed) && line.contains("Warning"));
    assert!(line.unwrap().ends_with("Job has reached the specified backoff limit"), "{}", said.out);
    let said = podshim.podshim(&["describe", "deploy", "web"]);
    assert_eq!(said.out.matches("ScalingReplicaSet").count(), 2, "{}", said.out);

    // It is known for a while of what is gone; a name that never was is said to be none.
    assert_eq!(podshim.podshim(&["delete", "deployment", "web"]).code, 0);
    let said = podshim.podshim(&["events", "deployment/web"]);
    assert_eq!(told(&said.out), scaled, "{}", said.err);
    let said = podshim.podshim(&["events", "deployment/other"]);
    assert!(said.code == 1 && said.err.contains("deployments \"other\" not found"), "{}", said.err);
    let said = podshim.podshim(&["events", "configmap/c"]);
    assert!(said.code == 1 && said.err.contains("deployments and replicasets"), "{}", said.err);
    podshim.end_daemon(daemon);
}

#[test]
fn a_watch_goes_on_where_a_list_ended_and_tells_each_event_once() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&job("first", 0));
    let completed = ["wait", "job/first", "--for=condition=complete", "--timeout=60s"];
    assert_eq!(podshim.podshim(&completed).code, 0);
    let (code, list) = daemon.ask("GET", EVENTS, "");
    let items = list["items"].as_array().unwrap();
    assert!(code == 200 && reasons(items).contains(&"Job Completed".to_owned()), "{list:#}");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();

    let at = format!("{EVENTS}?watch=1&resourceVersion={version}");
    let is_last = |change: &Value| change["object"]["reason"] == "Completed";
    let watched = std::thread::scope(|scope| {
        let watched = scope.spawn(|| daemon.watch_until(&at, is_last));
        podshim.apply(&job("second", 0));
        watched.join().unwrap()
    });
    let events: Vec<Value> = watched.iter().map(|change| change["object"].clone()).collect();
    let told = reasons(&events);
    for wanted in ["Job SuccessfulCreate", "Pod Created", "Pod Started", "Job Completed"] {
        let count = told.iter().filter(|reason| *reason == wanted).count();
        assert_eq!(count, 1, "{wanted}: {told:?}");
    }
    let name = |event: &Value| event["involvedObject"]["name"].as_str().unwrap().to_owned();
    assert!(events.iter().all(|event| name(event).starts_with("second")), "{events:#?}");
    // The same again is what was told; a watch for a field tells only of that.
    let only = format!(
        "{at}&timeoutSeconds=1&fieldSelector=involvedObject.kind%3DJob,involvedObject.name%3Dsecond"
    );
    let again: Vec<Value> =
        daemon.watch(&only).iter().map(|change| change["object"].clone()).collect();
    assert_eq!(reasons(&again), ["Job SuccessfulCreate", "Job Completed"]);

    podshim.apply(&job("third", 0));
    let watching = podshim.start_command(podshim.command(&["events", "-w", "job/third"]));
    until("the job's events are shown", || {
        let text = watching.text();
        if text.contains("Job completed") { Ok(()) } else { Err(text) }
    });
    watching.signal(Signal::SIGKILL);
    watching.wait();
    podshim.end_daemon(daemon);
}

#[test]
fn a_watch_outlives_all_of_podshim_and_tells_what_happened_once() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&web(1));
    let pods = podshim.until_pods("one", |pods| pods.len() == 1 && integration::is_ready(&pods[0]));
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let watching = podshim.start_command(podshim.command(&["events", "-w"]));
    let started = |text: &str| {
        let of_main = format!("Pod/{name}/main");
        text.lines().filter(|l| l.contains(" Started ") && l.contains(&of_main)).count()
    };
    let until_started = |wanted: usize| {
        until("the main's start is shown", || {
            let text = watching.text();
            if started(&text) >= wanted { Ok(()) } else { Err(text) }
        });
    };
    let restart = || {
        podshim.until_said(&["get", "pods"], "1/1     Running");
        let said = podshim.podshim(&["restart", name, "-c", "main"]);
        assert_eq!(said.code, 0, "{}", said.err);
    };
    until_started(1);
    integration::kill_now(podshim.shim());
    restart();
    until_started(2);

    daemon.kill();
    podshim.kill_shims();
    // Long enough for whoever watches to find nobody.
    std::thread::sleep(Duration::from_millis(1500));
    let daemon = podshim.daemon();
    restart();
    until_started(3);
    let text = watching.text();
    assert_eq!(started(&text), 3, "{text}");
    assert_eq!(text.matches("ScalingReplicaSet").count(), 1, "{text}");
    watching.signal(Signal::SIGKILL);
    watching.wait();
    assert_eq!(podshim.podshim(&["delete", "deployment", "web"]).code, 0);
    podshim.end_daemon(daemon);
}
