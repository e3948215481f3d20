//! A deployment of the daemon gets another template: as its strategy says, whoever dies, and back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::api::{Daemon, try_request};
use integration::{Instance, is_ready, until};
use serde_json::Value;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// `web`, whose main says that it is of this version. What else its spec has is indented by two.
fn web(version: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {{kubernetes.io/change-cause: the {version}}}
spec:
{spec}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web, version: {version}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      initContainers:
      - {{name: side, image: 'alpine:latest', imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}}
      containers:
      - name: main
        image: alpine:latest
        imagePullPolicy: Never
        command: [sh, -c, 'trap \"exit 0\" TERM; echo {version}; while :; do sleep 0.1; done']
        readinessProbe: {{exec: {{command: [sh, -c, 'test {version} != broken']}}, periodSeconds: 1, timeoutSeconds: 20}}
"
    )
}

fn version(pod: &Value) -> &str {
    pod["metadata"]["labels"]["version"].as_str().unwrap()
}

fn is_leaving(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

fn uids(pods: &[Value]) -> Vec<&str> {
    let mut uids: Vec<_> =
        pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap()).collect();
    uids.sort_unstable();
    uids
}

/// Waits until there are so many pods, all ready and of this version.
fn until_all(podshim: &Instance, wanted: &str, count: usize) -> Vec<Value> {
    podshim.until_pods(&format!("{count} of {wanted}"), |pods| {
        let fits = |pod: &Value| version(pod) == wanted && is_ready(pod) && !is_leaving(pod);
        pods.len() == count && pods.iter().all(fits)
    })
}

fn say(podshim: &Instance, args: &[&str]) -> String {
    let said = podshim.podshim(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}

fn refused(podshim: &Instance, args: &[&str]) -> String {
    let said = podshim.podshim(args);
    assert_eq!(said.code, 1, "{args:?}: {}", said.out);
    said.err
}

/// Looks at the pods as often as it can while `deed` is done.
fn watching<T>(podshim: &Instance, seen: impl Fn(&[Value]) + Sync, deed: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    let socket = podshim.daemon_socket();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !is_done.load(Ordering::Relaxed) {
                // A daemon that has been killed says nothing.
                if let Ok((200, text)) = try_request(&socket, "GET", PODS, "") {
                    let list: Value = serde_json::from_str(&text).unwrap();
                    seen(list["items"].as_array().unwrap());
                    looks += 1;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            looks
        });
        let done = deed();
        is_done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 5);
        done
    })
}

/// The daemon dies when it has written down the `n`-th step of the rollout, and another one goes on.
fn die_at_step<'a>(podshim: &'a Instance, daemon: Daemon<'a>) -> Daemon<'a> {
    let armed = podshim.root().join("failpoint");
    until("the daemon dies", || {
        if armed.exists() { Err("not yet") } else { Ok(()) }.map_err(str::to_owned)
    });
    daemon.kill();
    podshim.daemon()
}

#[test]
fn pods_are_replaced_one_by_one_the_daemon_dies_meanwhile_and_the_way_back_is_known() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let spec = "  replicas: 3\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}";
    podshim.apply(&web("first", spec));
    let first = until_all(&podshim, "first", 3);
    let status = ["rollout", "status", "deployment/web", "--timeout=60s"];
    assert_eq!(say(&podshim, &status), "deployment \"web\" successfully rolled out\n");

    // Never fewer than three that are ready, nor more than four that are not leaving.
    let in_bounds = |pods: &[Value]| {
        let staying = pods.iter().filter(|pod| !is_leaving(pod));
        let ready = staying.clone().filter(|pod| is_ready(pod)).count();
        assert!(ready >= 3 && staying.count() <= 4, "{pods:#?}");
    };
    let daemon = watching(&podshim, in_bounds, || {
        fs::write(podshim.root().join("failpoint"), "daemon:rolled daemon").unwrap();
        let _ = podshim.podshim(&["apply", "-f", &podshim.manifest(&web("second", spec))]);
        let daemon = die_at_step(&podshim, daemon);
        podshim.apply(&web("second", spec));
        let said = say(&podshim, &["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert!(said.ends_with("deployment \"web\" successfully rolled out\n"), "{said}");
        daemon
    });
    until_all(&podshim, "second", 3);
    assert_eq!(
        say(&podshim, &["apply", "-f", &podshim.manifest(&web("second", spec))]),
        "deployment.apps/web unchanged\n"
    );
    let renamed = web("second", spec).replace("the second", "better");
    assert_eq!(podshim.apply(&renamed), "deployment.apps/web configured\n");
    podshim.until_said(&["rollout", "history", "deployment/web"], "2         better\n");
    let nasty = web("second", spec).replace("the second", "\"x\\e[2Jy\"");
    podshim.apply(&nasty);
    podshim.until_said(&["rollout", "history", "deployment/web"], "2         x\\u{1b}[2Jy\n");
    podshim.apply(&web("second", spec));
    podshim.until_said(&["rollout", "history", "deployment/web"], "2         the second\n");
    assert_eq!(podshim.pods().len(), 3);
    let history = say(&podshim, &["rollout", "history", "deployment", "web"]);
    assert_eq!(
        history,
        "deployment.apps/web\nREVISION  CHANGE-CAUSE\n1         the first\n2         the second\n"
    );
    let shown = say(&podshim, &["rollout", "history", "deployment/web", "--revision=1"]);
    assert!(shown.contains("echo first;"), "{shown}");

    assert_eq!(
        say(&podshim, &["rollout", "undo", "deployment/web"]),
        "deployment.apps/web rolled back\n"
    );
    let back = until_all(&podshim, "first", 3);
    assert!(uids(&back).iter().all(|uid| !uids(&first).contains(uid)));
    let history = say(&podshim, &["rollout", "history", "deployment/web"]);
    assert!(history.ends_with("2         the second\n3         the first\n"), "{history}");
    let rows = say(&podshim, &["get", "rs", "--no-headers"]);
    let sizes: Vec<Vec<&str>> =
        rows.lines().map(|row| row.split_whitespace().skip(1).take(3).collect()).collect();
    assert!(sizes.contains(&vec!["3"; 3]) && sizes.contains(&vec!["0"; 3]), "{rows}");
    let text = say(&podshim, &["describe", "deployment", "web"]);
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    assert!(line("Replicas:").contains("3 desired | 3 updated | 3 total | 3 available"), "{text}");
    assert!(line("NewReplicaSet:").contains("(3/3 replicas created)"), "{text}");
    assert!(line("OldReplicaSets:").contains("(0/0 replicas created)"), "{text}");
    let said = refused(&podshim, &["rollout", "undo", "deployment/web", "--to-revision=1"]);
    assert!(said.contains("unable to find the revision 1: there are 2, 3"), "{said}");

    // All anew, of the same template; to apply that is not another change.
    say(&podshim, &["rollout", "restart", "deployment/web"]);
    podshim.until_pods("other pods", |pods| {
        let uids = uids(pods);
        pods.len() == 3
            && pods.iter().all(is_ready)
            && !self::uids(&back).iter().any(|uid| uids.contains(uid))
    });
    assert_eq!(podshim.apply(&web("first", spec)), "deployment.apps/web unchanged\n");
    say(&podshim, &["delete", "deployment", "web"]);
    assert_eq!(say(&podshim, &["get", "rs"]), "");
    podshim.end_daemon(daemon);
}

#[test]
fn one_that_never_gets_ready_is_told_and_costs_no_old_pod() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let spec = "  replicas: 2\n  progressDeadlineSeconds: 2";
    podshim.apply(&web("good", spec));
    let good = until_all(&podshim, "good", 2);
    podshim.apply(&web("broken", spec));
    let said = refused(&podshim, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(said.contains("deployment \"web\" exceeded its progress deadline"), "{said}");
    assert!(said.contains("podshim rollout undo deployment/web"), "{said}");
    let pods = podshim.pods();
    let old: Vec<Value> = pods.iter().filter(|pod| version(pod) == "good").cloned().collect();
    assert_eq!(uids(&old), uids(&good));
    assert_eq!(pods.len(), 3, "{pods:#?}");
    say(&podshim, &["rollout", "undo", "deployment/web"]);
    assert_eq!(uids(&until_all(&podshim, "good", 2)), uids(&good));
    say(&podshim, &["delete", "deployment", "web"]);
    podshim.end_daemon(daemon);
}

#[test]
fn recreate_makes_no_new_pod_while_an_old_one_is_there() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let spec = "  replicas: 2\n  strategy: {type: Recreate}";
    podshim.apply(&web("old", spec));
    until_all(&podshim, "old", 2);
    let apart = |pods: &[Value]| {
        assert!(pods.windows(2).all(|pair| version(&pair[0]) == version(&pair[1])), "{pods:#?}");
    };
    watching(&podshim, apart, || {
        podshim.apply(&web("new", spec));
        until_all(&podshim, "new", 2);
    });
    say(&podshim, &["delete", "deployment", "web"]);
    podshim.end_daemon(daemon);
}

#[test]
fn a_paused_deployment_is_scaled_and_waits_with_its_template() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&web("old", "  replicas: 1"));
    until_all(&podshim, "old", 1);
    assert_eq!(
        say(&podshim, &["rollout", "pause", "deployment/web"]),
        "deployment.apps/web paused\n"
    );
    let said = refused(&podshim, &["rollout", "restart", "deployment/web"]);
    assert!(said.contains("can't restart paused deployment (run rollout resume first)"), "{said}");
    say(&podshim, &["set", "image", "deployment/web", "main=busybox:none"]);
    say(&podshim, &["scale", "deployment/web", "--replicas=2"]);
    until_all(&podshim, "old", 2);
    say(&podshim, &["set", "image", "deployment/web", "main=alpine:latest"]);
    say(&podshim, &["rollout", "resume", "deployment/web"]);
    say(&podshim, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(say(&podshim, &["get", "rs", "--no-headers"]).lines().count(), 1);
    // What is a replica set's is its deployment's to change.
    let set = say(&podshim, &["get", "rs", "-o", "name"]);
    let path = format!(
        "/apis/apps/v1/namespaces/default/replicasets/{}",
        set.trim().rsplit('/').next().unwrap()
    );
    let (code, refusal) = daemon.ask("DELETE", &path, "");
    assert_eq!((code, refusal["reason"].as_str()), (405, Some("MethodNotAllowed")));
    let moved = web("old", "  replicas: 2")
        .replace("{matchLabels: {app: web}}", "{matchLabels: {version: old}}");
    let said = refused(&podshim, &["apply", "-f", &podshim.manifest(&moved)]);
    assert!(said.contains("spec.selector: field is immutable"), "{said}");
    say(&podshim, &["delete", "deployment", "web"]);
    podshim.end_daemon(daemon);
}
