//! `podshim daemon`: what it is given is made, kept and told, whoever dies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use integration::api::try_request;
use integration::notify::NotifySocket;
use integration::{Instance, is_ready, pod, status_of, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A sidecar, and a main that counts to its log without end.
const COUNTING: &str = "  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: log, image: alpine:latest, imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}
  containers:
  - {name: main, image: alpine:latest, imagePullPolicy: Never, command: [sh, -c, 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done']}
";

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Of a kind with a template, whose main runs `command`.
fn workload(version: &str, kind: &str, name: &str, spec: &str, command: &str) -> String {
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      restartPolicy: {policy}
      terminationGracePeriodSeconds: 1
      initContainers:
      - {{name: side, image: 'alpine:latest', imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}}
      containers:
      - {{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sh, -c, '{command}']}}
",
        policy = if kind == "Job" { "Never" } else { "Always" }
    )
}

fn deployment(replicas: u32) -> String {
    let spec = format!("  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n");
    workload(
        "apps/v1",
        "Deployment",
        "web",
        &spec,
        "trap \"exit 0\" TERM; while :; do sleep 0.1; done",
    )
}

fn delete(podshim: &Instance, what: &[&str]) {
    let said = podshim.podshim(&[&["delete"], what].concat());
    assert_eq!(said.code, 0, "{}", said.err);
}

fn numbers(podshim: &Instance, pod: &str) -> Vec<u32> {
    let said = podshim.podshim(&["logs", pod, "-c", "main"]);
    said.out.lines().map(|line| line.parse().unwrap()).collect()
}

fn counts_from_zero(numbers: &[u32]) -> bool {
    numbers.iter().zip(0..).all(|(number, expected)| *number == expected)
}

fn uids(pods: &[Value]) -> Vec<String> {
    pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect()
}

#[test]
fn what_is_applied_is_made_changed_only_where_it_changed_and_deleted() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let manifest =
        format!("{}---\n{}", deployment(2), workload("batch/v1", "Job", "once", "", "echo done"),);
    assert_eq!(podshim.apply(&manifest), "deployment.apps/web created\njob.batch/once created\n");
    let pods = podshim.until_pods("all is as it is to be", |pods| {
        pods.len() == 3
            && pods.iter().filter(|pod| is_ready(pod)).count() == 2
            && pods.iter().any(|pod| pod["status"]["phase"] == "Succeeded")
    });
    let wait = |what: &[&str]| {
        let said = podshim.podshim(&[&["wait", "--timeout=60s"], what].concat());
        assert_eq!(said.code, 0, "{what:?}: {}", said.err);
        said.out
    };
    assert_eq!(wait(&["--for=condition=complete", "job/once"]), "job.batch/once condition met\n");
    assert_eq!(
        wait(&["--for=jsonpath={.status.readyReplicas}=2", "deployment", "web"]),
        "deployment.apps/web condition met\n"
    );
    let said = podshim.podshim(&["get", "job", "once", "-o", "jsonpath={.status.succeeded}"]);
    assert_eq!(said.out, "1", "{}", said.err);
    let said = podshim.podshim(&["get", "deployment"]);
    assert!(said.out.contains("2/2"), "{}", said.out);
    let job = pods.iter().find(|pod| pod["status"]["phase"] == "Succeeded").unwrap();
    let name = job["metadata"]["name"].as_str().unwrap();
    assert_eq!(podshim.podshim(&["logs", name]).out, "done\n");
    let all = podshim.podshim(&["get", "deploy,pods,jobs", "--no-headers"]).out;
    let tables: Vec<&str> = all.split("\n\n").collect();
    assert!(tables.len() == 3 && tables[0].starts_with("deployment.apps/web "), "{all}");
    assert!(all.contains("\npod/web-") && tables[2].starts_with("job.batch/once "), "{all}");
    let all = podshim.podshim(&["get", "all", "-o", "json"]).out;
    let all: Value = serde_json::from_str(&all).unwrap();
    // A deployment and its set, a job, and their three pods.
    assert_eq!(all["items"].as_array().map(Vec::len), Some(6), "{all:#}");
    let text = podshim.podshim(&["describe", "job/once"]).out;
    assert!(text.contains("0 Active (0 Ready) / 1 Succeeded / 0 Failed"), "{text}");
    // It has ended, and the daemon still has it.
    let met = wait(&["--for=jsonpath={.status.phase}=Succeeded", "pod", name]);
    assert_eq!(met, format!("pod/{name} condition met\n"));
    let said = podshim.podshim(&["wait", "--for=condition=failed", "--timeout=0", "job/once"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("timed out waiting"), "{}", said.err);
    // The same again changes nothing.
    let again = podshim.apply(&manifest);
    assert_eq!(again, "deployment.apps/web unchanged\njob.batch/once unchanged\n");
    let said = podshim.podshim(&["create", "-f", &podshim.manifest(&manifest)]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("deployments \"web\" already exists"), "{}", said.err);
    assert_eq!(uids(&podshim.pods()), uids(&pods));
    // More, and fewer: those that were there stay.
    assert_eq!(podshim.apply(&deployment(3)), "deployment.apps/web configured\n");
    let more =
        podshim.until_pods("one more", |pods| pods.iter().filter(|p| is_ready(p)).count() == 3);
    assert!(uids(&pods).iter().all(|uid| uids(&more).contains(uid)));
    let said = podshim.podshim(&["scale", "deployment", "web", "--replicas", "1"]);
    assert_eq!((said.code, said.out.as_str()), (0, "deployment.apps/web scaled\n"), "{}", said.err);
    podshim.until_pods("one, and the job's", |pods| pods.len() == 2);
    // What a deployment of the daemon loses comes again.
    let pods = podshim.pods();
    let pod = pods.iter().find(|pod| is_ready(pod)).unwrap()["metadata"]["name"].as_str().unwrap();
    delete(&podshim, &["pod", pod]);
    podshim.until_pods("another one", |pods| {
        pods.iter().any(|p| is_ready(p) && p["metadata"]["name"] != pod)
    });
    delete(&podshim, &["deployment", "web"]);
    delete(&podshim, &["job/once"]);
    // Its pods have ten minutes of grace, unless told otherwise.
    let deaf = deployment(1)
        .replace("trap \"exit 0\" TERM; while", "trap \"\" TERM; while")
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 600");
    podshim.apply(&deaf);
    podshim.until("ready", is_ready);
    delete(&podshim, &["deployment", "web", "--grace-period=1"]);
    assert_eq!(podshim.pods(), Vec::<Value>::new());
    let said = podshim.podshim(&["delete", "job", "once"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("jobs \"once\" not found"), "{}", said.err);
    podshim.end_daemon(daemon);
}

#[test]
fn daemon_and_shims_and_keepers_are_killed_at_once_and_a_pod_counts_on() {
    let podshim = Instance::new();
    let mut daemon = podshim.daemon();
    assert_eq!(podshim.apply(&pod(COUNTING)), "pod/p created\n");
    podshim.until("ready", is_ready);
    let pids = podshim.pids();
    for kinds in [&["shim"][..], &["keep", "shim"], &[]] {
        daemon.kill();
        for kind in kinds {
            podshim.processes(kind).into_iter().for_each(integration::kill_now);
        }
        thread::sleep(Duration::from_millis(200));
        daemon = podshim.daemon();
        let before = numbers(&podshim, "p").len();
        until("it counts on", || {
            let now = numbers(&podshim, "p").len();
            if now > before + 5 { Ok(()) } else { Err(format!("{now}")) }
        });
        assert!(counts_from_zero(&numbers(&podshim, "p")));
        assert_eq!(podshim.pids(), pids);
        let pod = podshim.until("it is told as it is", is_ready);
        for name in ["log", "main"] {
            assert_eq!(status_of(&pod, name)["restartCount"], 0, "{pod:#}");
        }
    }
    delete(&podshim, &["pod", "p"]);
    podshim.end_daemon(daemon);
}

#[test]
fn what_happens_while_no_daemon_is_there_is_told_by_the_next_one() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let short = "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 0";
    podshim.apply(&workload("batch/v1", "Job", "once", "", short));
    let pod = podshim.until("ready", is_ready);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let (code, text) = daemon.end();
    assert_eq!(code, 0, "{text}");
    // Nobody but the pod's own shim sees its end.
    let said = podshim.podshim(&["exec", name, "-c", "main", "--", "touch", "/tmp/go"]);
    assert_eq!(said.code, 0, "{}", said.err);
    until("it has ended", || match podshim.processes("shim") {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    // `prune` leaves it for the daemon.
    assert_eq!(podshim.podshim(&["prune", "--keep-logs"]).code, 0);
    let daemon = podshim.daemon();
    let pod = podshim.until("it is told", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(status_of(&pod, "main")["state"]["terminated"]["exitCode"], 0, "{pod:#}");
    until("the job is told", || {
        let path = "jsonpath={.status.conditions[*].type}";
        let said = podshim.podshim(&["get", "job", "once", "-o", path]);
        if said.out == "SuccessCriteriaMet Complete" { Ok(()) } else { Err(said.out) }
    });
    // One that is deleted by its shim while no daemon is there does not come again.
    podshim.apply(&integration::pod(COUNTING));
    podshim.until_pods("it runs", |pods| {
        pods.iter().any(|p| p["metadata"]["name"] == "p" && is_ready(p))
    });
    daemon.kill();
    delete(&podshim, &["pod", "p"]);
    let daemon = podshim.daemon();
    podshim.until_pods("only the job's", |pods| pods.len() == 1);
    delete(&podshim, &["job", "once"]);
    podshim.end_daemon(daemon);
}

#[test]
fn a_pod_is_changed_where_it_changed_and_stays_so() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let before = pod(COUNTING);
    assert_eq!(podshim.apply(&before), "pod/p created\n");
    podshim.until("ready", is_ready);
    let main = podshim.pids()["main"];
    assert_eq!(podshim.apply(&before), "pod/p unchanged\n");
    let after = before.replacen("{name: log,", "{name: log, env: [{name: WORD, value: x}],", 1);
    assert_eq!(podshim.apply(&after), "pod/p configured\n");
    podshim.until("the sidecar is another one", |pod| {
        is_ready(pod) && status_of(pod, "log")["restartCount"] == 1
    });
    assert_eq!(podshim.pids()["main"], main);
    // What cannot be changed is refused with its reason, and nothing is.
    let path = podshim.manifest(&after.replace("terminationGracePeriodSeconds: 1", "hostname: h"));
    let said = podshim.podshim(&["apply", "-f", &path]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("hostname"), "{}", said.err);
    daemon.kill();
    let daemon = podshim.daemon();
    assert_eq!(podshim.apply(&after), "pod/p unchanged\n");
    let (_, object) = daemon.ask("GET", &format!("{PODS}/p"), "");
    assert_eq!(object["spec"]["initContainers"][0]["env"][0]["value"], "x", "{object:#}");
    delete(&podshim, &["pod", "p"]);
    podshim.end_daemon(daemon);
}

#[test]
fn a_pod_whose_shim_cannot_live_says_why_and_can_be_deleted() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&pod(COUNTING));
    let pod = podshim.until("ready", is_ready);
    daemon.kill();
    podshim.kill_shims();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let journal = podshim.state().join("pods").join(uid).join("journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("\"accepted\"}", "\"ACCEPTED\"}", 1)).unwrap();
    let daemon = podshim.daemon();
    let message = || daemon.ask("GET", &format!("{PODS}/p"), "").1["status"]["message"].to_string();
    until("it is said", || {
        let text = message();
        if text.contains("dies each time it is started") { Ok(()) } else { Err(text) }
    });
    assert!(message().contains("journal"), "{}", message());
    delete(&podshim, &["pod", "p"]);
    podshim.end_daemon(daemon);
}

#[test]
fn the_api_answers_as_kubernetes_does() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let object = |name: &str, image: &str| {
        json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "1000"]},
            ]},
        })
        .to_string()
    };
    let refused = |(code, body): (u16, Value), expected: u16, reason: &str, words: &str| {
        assert_eq!((code, &body["reason"]), (expected, &json!(reason)), "{body:#}");
        assert!(body["kind"] == "Status" && body["code"] == expected, "{body:#}");
        assert!(body["message"].as_str().unwrap().contains(words), "{body:#}");
    };
    let one = format!("{PODS}/a");
    let (code, made) = daemon.ask("POST", PODS, &object("a", "alpine:latest"));
    assert_eq!((code, &made["kind"]), (201, &json!("Pod")), "{made:#}");
    assert_eq!(made["spec"]["dnsPolicy"], "ClusterFirst", "{made:#}");
    refused(daemon.ask("POST", PODS, &object("a", "alpine:latest")), 409, "AlreadyExists", "\"a\"");
    refused(daemon.ask("GET", &format!("{PODS}/b"), ""), 404, "NotFound", "pods \"b\" not found");
    refused(daemon.ask("PATCH", &one, ""), 405, "MethodNotAllowed", "PATCH");
    refused(daemon.ask("GET", "/api/v1/nodes", ""), 404, "NotFound", "path");
    for namespace in ["", "..", "a_b", "..%2F..%2Fx", "UP"] {
        let (code, body) = daemon.ask(
            "POST",
            &format!("/api/v1/namespaces/{namespace}/pods"),
            &object("b", "alpine:latest"),
        );
        assert!(code == 404 || code == 422, "{namespace}: {body:#}");
    }
    refused(daemon.ask("POST", PODS, "{"), 400, "BadRequest", "not an object in JSON");
    let misspelt = object("b", "alpine:latest").replace("containers", "kontainers");
    refused(daemon.ask("POST", PODS, &misspelt), 422, "Invalid", "kontainers");
    let long = format!("\"{}\"", "x".repeat(4 << 20));
    refused(daemon.ask("POST", PODS, &long), 413, "RequestEntityTooLarge", "bytes");
    let elsewhere = "/api/v1/namespaces/other/pods";
    let here = object("b", "alpine:latest")
        .replace("\"name\":\"b\"", "\"name\":\"b\",\"namespace\":\"default\"");
    refused(daemon.ask("POST", elsewhere, &here), 400, "BadRequest", "namespace");

    // A list's version is where a watch goes on; each change comes once, in order.
    let (_, list) = daemon.ask("GET", &format!("{PODS}?labelSelector=app%3Da"), "");
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("PodList"), 1));
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    podshim.until("ready", is_ready);
    let (code, gone) = daemon.ask("DELETE", &one, "{\"gracePeriodSeconds\": 0}");
    assert_eq!(code, 200, "{gone:#}");
    assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{gone:#}");
    until("it is gone", || match daemon.ask("GET", &one, "").0 {
        404 => Ok(()),
        code => Err(code.to_string()),
    });
    let path = format!("{PODS}?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let changes = daemon.watch(&path);
    let types: Vec<&str> = changes.iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(types.last(), Some(&"DELETED"), "{types:?}");
    assert!(types[..types.len() - 1].iter().all(|t| *t == "MODIFIED"), "{types:?}");
    let versions: Vec<u64> = changes
        .iter()
        .map(|c| c["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(versions.is_sorted() && versions[0] > version.parse().unwrap(), "{versions:?}");
    assert!(changes.iter().any(|c| is_ready(&c["object"])));

    // What was read is replaced only if nobody else has.
    let maps = "/api/v1/namespaces/default/configmaps";
    let (_, map) =
        daemon.ask("POST", maps, "{\"metadata\": {\"name\": \"m\"}, \"data\": {\"k\": \"1\"}}");
    let mut newer = map.clone();
    newer["data"]["k"] = json!("2");
    let (code, replaced) = daemon.ask("PUT", &format!("{maps}/m"), &newer.to_string());
    assert_eq!((code, &replaced["data"]["k"]), (200, &json!("2")), "{replaced:#}");
    assert_eq!(replaced["metadata"]["uid"], map["metadata"]["uid"]);
    refused(
        daemon.ask("PUT", &format!("{maps}/m"), &map.to_string()),
        409,
        "Conflict",
        "has changed",
    );

    // A pod that reads it is given it; its log comes over the wire.
    let reader = json!({
        "metadata": {"name": "reader"},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "main", "image": "alpine:latest", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo one; echo $K"],
            "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}],
        }]},
    });
    assert_eq!(daemon.ask("POST", PODS, &reader.to_string()).0, 201);
    until("it has ended", || {
        let (_, pod) = daemon.ask("GET", &format!("{PODS}/reader/status"), "");
        if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(format!("{pod:#}")) }
    });
    let log = |query: &str| daemon.ask("GET", &format!("{PODS}/reader/log{query}"), "");
    assert_eq!(log(""), (200, json!("one\n2\n")));
    // A number is JSON too.
    assert_eq!(log("?tailLines=1"), (200, json!(2)));
    refused(log("?container=other"), 400, "BadRequest", "other");
    refused(log("?previous=true"), 400, "BadRequest", "previous terminated container");
    assert_eq!(daemon.ask("DELETE", &format!("{PODS}/reader"), "").0, 200);
    assert!(daemon.text().contains("DELETE /api/v1/namespaces/default/pods/reader by process"));

    // Another daemon remembers no changes, and says so to who wants those since then.
    daemon.kill();
    let daemon = podshim.daemon();
    let path = format!("{PODS}?watch=1&resourceVersion={version}");
    refused(daemon.ask("GET", &path, ""), 410, "Expired", "too old");

    // The socket is root's alone.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(podshim.daemon_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = podshim.podshim(&["daemon"]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains("a daemon of this root runs already"), "{}", second.err);
    let said = podshim.podshim(&["prune", "--all"]);
    assert!(said.code == 1 && said.err.contains("a daemon of this root runs"), "{}", said.err);
    podshim.end_daemon(daemon);
}

/// As of a pod: who deletes once more may have less patience, never more.
#[test]
fn what_has_no_owner_any_more_goes_unless_the_owner_may_be_what_is_damaged() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&deployment(1));
    let pod = podshim.until("ready", is_ready);
    let objects = podshim.root().join("objects");
    let owner = objects.join("deployments/default_web.json");
    assert_eq!(daemon.end().0, 0);
    let whole = std::fs::read(&owner).unwrap();
    std::fs::write(&owner, &whole[..whole.len() / 2]).unwrap();
    let daemon = podshim.daemon();
    assert_eq!(podshim.pod().unwrap()["metadata"]["uid"], pod["metadata"]["uid"]);
    assert!(daemon.text().contains("is damaged"), "{}", daemon.text());
    assert_eq!(daemon.end().0, 0);
    assert!(is_ready(&podshim.pod().unwrap()));
    // As if it had been deleted, and the disk had kept the rest.
    std::fs::remove_file(owner.with_extension("damaged")).unwrap();
    for set in std::fs::read_dir(objects.join("replicasets")).unwrap() {
        std::fs::remove_file(set.unwrap().path()).unwrap();
    }
    let daemon = podshim.daemon();
    podshim.until_pods("it is deleted", <[Value]>::is_empty);
    assert!(daemon.text().contains("has no owner any more"), "{}", daemon.text());
    podshim.end_daemon(daemon);
}

#[test]
fn a_daemon_that_is_stopped_does_not_hide_what_lives() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&pod(COUNTING));
    podshim.until("it runs", is_ready);
    let pid = nix::unistd::Pid::from_raw(daemon.pid());
    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
    let said = podshim.podshim(&["get", "pods"]);
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(said.code, 1);
    assert!(said.out.contains("Running"), "{}", said.out);
    assert!(said.err.contains("it does not answer"), "{}", said.err);
    delete(&podshim, &["pod", "p"]);
    podshim.end_daemon(daemon);
}

#[test]
fn prune_all_takes_nothing_from_a_daemon_that_runs_or_has_a_pod() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&deployment(1));
    let before = podshim.until_pods("it is ready", |pods| pods.len() == 1 && is_ready(&pods[0]));
    let said = podshim.podshim(&["prune", "--all"]);
    assert!(said.code != 0 && said.err.contains("stop it first"), "{}", said.err);
    daemon.kill();
    let said = podshim.podshim(&["prune", "--all"]);
    assert!(said.code != 0 && said.err.contains("1 pod lives"), "{}", said.err);

    let daemon = podshim.daemon();
    let found = podshim.podshim(&["get", "deployments", "-o", "name"]);
    assert_eq!(found.out, "deployment.apps/web\n");
    assert_eq!(uids(&podshim.pods()), uids(&before));
    delete(&podshim, &["deployment", "web"]);
    podshim.end_daemon(daemon);
}

#[test]
fn a_second_deletion_of_a_deployment_is_sooner() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let stubborn = "trap \"\" TERM; while :; do sleep 0.1; done";
    let spec = "  replicas: 2\n  selector: {matchLabels: {app: web}}\n";
    let manifest = workload("apps/v1", "Deployment", "web", spec, stubborn)
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 600");
    assert!(manifest.contains("600") && manifest.contains("trap"), "{manifest}");
    podshim.apply(&manifest);
    podshim.until_pods("both run", |pods| pods.len() == 2 && pods.iter().all(is_ready));
    let at = "/apis/apps/v1/namespaces/default/deployments/web";
    let grace = |s: u32| format!("{{\"gracePeriodSeconds\": {s}}}");
    for (asked, is) in [(300, 300), (500, 300), (200, 200)] {
        let (code, object) = daemon.ask("DELETE", at, &grace(asked));
        assert_eq!(code, 200, "{object:#}");
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], is, "{object:#}");
        until("its pods have as much time", || {
            let (_, list) = daemon.ask("GET", PODS, "");
            let pods = list["items"].as_array().unwrap();
            let has = |pod: &Value| pod["metadata"]["deletionGracePeriodSeconds"] == is;
            if pods.len() == 2 && pods.iter().all(has) { Ok(()) } else { Err(format!("{list:#}")) }
        });
    }
    delete(&podshim, &["deployment", "web", "--grace-period=0"]);
    podshim.end_daemon(daemon);
}

/// A pod that has ended, and one that was deleted, can still be asked about.
#[test]
fn what_happened_to_a_pod_is_told_after_its_end_and_after_it_was_deleted() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let fails = "apiVersion: v1\nkind: Pod\nmetadata: {name: fails}\nspec:
  restartPolicy: Never
  containers:
  - name: main
    image: alpine:latest
    imagePullPolicy: Never
    command: [sh, -c, 'sleep 2; exit 3']
    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}
";
    let lives = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: lives}\nspec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sleep, '1000']}]
";
    podshim.apply(&format!("{fails}{lives}"));
    until("it has failed", || {
        let (_, pod) = daemon.ask("GET", &format!("{PODS}/fails"), "");
        if pod["status"]["phase"] == "Failed" { Ok(()) } else { Err(format!("{pod:#}")) }
    });
    until("the other one is ready", || {
        let (_, pod) = daemon.ask("GET", &format!("{PODS}/lives"), "");
        if is_ready(&pod) { Ok(()) } else { Err(format!("{pod:#}")) }
    });
    let reasons = |text: &str| {
        let lines = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let object = |row: &[&str]| row.iter().position(|cell| cell.starts_with("Pod/")).unwrap();
        lines.map(|row| row[object(&row) - 1..=object(&row)].join(" ")).collect::<Vec<_>>()
    };
    let wanted = ["Created Pod/fails/main", "Started Pod/fails/main", "Unhealthy Pod/fails/main"];
    for deleted in [false, true] {
        let said = podshim.podshim(&["events", "fails"]);
        let told = reasons(&said.out);
        assert!(wanted.iter().all(|line| told.contains(&(*line).to_owned())), "{}", said.out);
        assert!(told.iter().all(|line| line.contains("/fails")), "{}", said.out);
        // All of them, the oldest first, also over the wire.
        let said = podshim.podshim(&["events"]);
        let told = reasons(&said.out);
        assert!(told.contains(&"Started Pod/lives/main".to_owned()), "{}", said.out);
        assert!(told.contains(&"Started Pod/fails/main".to_owned()), "{}", said.out);
        let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dfails,reason%3DUnhealthy";
        let (code, list) = daemon.ask("GET", path, "");
        assert_eq!((code, &list["kind"]), (200, &json!("EventList")), "{list:#}");
        let items = list["items"].as_array().unwrap();
        assert!(!items.is_empty(), "{list:#}");
        for event in items {
            assert_eq!(event["involvedObject"]["name"], "fails", "{event:#}");
            assert_eq!(
                (&event["reason"], &event["type"]),
                (&json!("Unhealthy"), &json!("Warning"))
            );
        }
        let said = podshim.podshim(&["explain", "fails"]);
        let why = if deleted { "it was deleted and is gone" } else { "it has ended" };
        for words in
            [why, "main ended with exit code 3 (Error)", "main: Unhealthy: Readiness probe"]
        {
            assert!(said.out.contains(words), "{words}: {}{}", said.out, said.err);
        }
        let said = podshim.podshim(&["describe", "pod", "fails"]);
        if deleted {
            assert_eq!(said.code, 1, "{}", said.out);
            assert!(said.err.contains("\"fails\" not found"), "{}", said.err);
            break;
        }
        for words in ["Failed", "Exit Code:", "Unhealthy"] {
            assert!(said.out.contains(words), "{words}: {}{}", said.out, said.err);
        }
        let all = podshim.podshim(&["describe", "pods"]);
        let names: Vec<_> = all.out.lines().filter(|line| line.starts_with("Name:")).collect();
        assert!(names.len() == 2 && names[0].ends_with("fails"), "{}", all.out);
        let watching = podshim.start_command(podshim.command(&["get", "pods", "-w"]));
        until("the one that has ended is shown", || {
            let text = watching.text();
            let rows: Vec<_> = text.lines().filter(|line| line.contains("/1")).collect();
            let shown = |row: &&&str| row.starts_with("fails ") && row.contains("Error");
            if rows.len() == 2 && rows.iter().any(|row| shown(&row)) { Ok(()) } else { Err(text) }
        });
        watching.signal(Signal::SIGKILL);
        watching.wait();
        delete(&podshim, &["pod", "fails"]);
    }
    let said = podshim.podshim(&["events", "other"]);
    assert!(said.code == 1 && said.err.contains("\"other\" not found"), "{}", said.err);
    // Another daemon remembers it, too, and does not take it for one that lives.
    daemon.kill();
    let daemon = podshim.daemon();
    let said = podshim.podshim(&["events", "fails"]);
    assert!(reasons(&said.out).contains(&wanted[1].to_owned()), "{}", said.out);
    delete(&podshim, &["pod", "lives"]);
    podshim.end_daemon(daemon);
}

#[test]
fn a_service_manager_hears_when_it_serves_and_that_it_is_well_and_may_hold_its_socket() {
    let podshim = Instance::new();
    let manager = NotifySocket::new();
    let hear = || manager.hear();
    // As systemd passes it: descriptor 3, and the pid that is to take it.
    let listener = UnixListener::bind(podshim.daemon_socket()).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" daemon"]);
    shell.arg(integration::binary());
    let mut command = podshim.command_by(shell, &[]);
    command
        .stdin(OwnedFd::from(listener))
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", "400000");
    // A client that comes before the daemon does waits for it.
    let at = podshim.daemon_socket();
    let early = thread::spawn(move || try_request(&at, "GET", "/readyz", ""));
    let running = podshim.start_command(command);
    assert_eq!(hear(), "READY=1 STATUS=serves");
    assert_eq!(early.join().unwrap().unwrap().0, 200);
    assert_eq!((hear(), hear()), ("WATCHDOG=1".into(), "WATCHDOG=1".into()));
    // What pods are started with has none of it.
    podshim.apply(&pod(COUNTING));
    podshim.until("ready", is_ready);
    for pid in podshim.processes("keep").into_iter().chain([podshim.shim()]) {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(environment, "");
    }
    delete(&podshim, &["pod", "p"]);
    running.signal(Signal::SIGTERM);
    let last = std::iter::repeat_with(hear).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.unwrap(), "STOPPING=1");
    assert_eq!(running.wait().0, 0);
    // The socket is systemd's.
    assert!(podshim.daemon_socket().exists());
    assert_eq!(podshim.podshim(&["prune", "--all"]).code, 0);
}

#[test]
fn a_long_log_is_sent_whole_and_neither_fills_the_daemon_nor_stops_it() {
    const BYTES: usize = 20_000_000;
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let line = "x".repeat(99);
    podshim.apply(
        &pod(&format!(
            "  restartPolicy: Never
  containers:
  - {{name: main, image: alpine:latest, imagePullPolicy: Never, command: [sh, -c, 'yes {line} | head -c {BYTES}']}}
"
        )),
    );
    podshim.until("it has ended", |pod| pod["status"]["phase"] == "Succeeded");
    let peak = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = peak();
    // A client that does not read, and others meanwhile.
    let mut slow = UnixStream::connect(podshim.daemon_socket()).unwrap();
    write!(slow, "GET {PODS}/p/log HTTP/1.0\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(daemon.ask("GET", "/readyz", "").0, 200);
    let mut text = Vec::new();
    slow.read_to_end(&mut text).unwrap();
    let body = text.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(text.len() - body, BYTES);
    let grown = peak() - before;
    assert!(grown < 12 << 10, "{grown} KiB more");
    delete(&podshim, &["pod", "p"]);
    podshim.end_daemon(daemon);
}
