//! Deployments: they run until they are told to end, and their containers do not notice each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use integration::{Instance, kill_now, position, sources, status_of, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A deployment `web` with pods of this `spec`, which is indented by six.
fn deployment(replicas: u32, pod: &str) -> String {
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
{pod}"
    )
}

/// A container that says when it can hear TERM, and does this when it does.
fn container(name: &str, on_term: &str) -> String {
    format!(
        "      - name: {name}
        image: alpine:latest
        command: [sh, -c, 'trap \"{on_term}\" TERM; echo {name} listens; while :; do sleep 0.1; done']
"
    )
}

fn sidecar(name: &str, on_term: &str) -> String {
    container(name, on_term) + "        restartPolicy: Always\n"
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

fn main_is_ready(pod: &Value) -> bool {
    status_of(pod, "main")["ready"] == true
}

/// What `podshim get deployments` says of the only one, without its age.
fn shown(podshim: &Instance) -> Vec<String> {
    let table = podshim.podshim(&["get", "deployments"]).out;
    let row = table.lines().nth(1).unwrap_or_default().split_whitespace();
    row.take(4).map(str::to_owned).collect()
}

#[test]
fn the_examples_run_as_they_are_a_crash_of_one_container_is_not_the_others_business() {
    let podshim = Instance::new();
    let example = sources().join("examples/deployment.yaml");
    let running = podshim.start_file(example.to_str().unwrap());
    let is_ready = |p: &Value| {
        status_of(p, "logshipper")["ready"] == true && status_of(p, "myapp")["ready"] == true
    };
    podshim.until("both containers run", is_ready);
    let before = podshim.pids();

    kill_now(before["logshipper"]);
    let pod = podshim.until("the sidecar runs again", |p| {
        is_ready(p) && status_of(p, "logshipper")["restartCount"] == 1
    });
    let died = &status_of(&pod, "logshipper")["lastState"]["terminated"];
    assert_eq!(died["exitCode"], 137, "{pod:#}");
    let between = podshim.pids();
    assert_ne!(between["logshipper"], before["logshipper"]);
    assert_eq!(between["myapp"], before["myapp"]);

    kill_now(between["myapp"]);
    podshim.until("main runs again", |p| is_ready(p) && status_of(p, "myapp")["restartCount"] == 1);
    let after = podshim.pids();
    assert_ne!(after["myapp"], between["myapp"]);
    assert_eq!(after["logshipper"], between["logshipper"]);

    running.until_printed("logshipper | logging");
    running.signal(Signal::SIGINT);
    // The second one is for the impatient: the example's shells ignore TERM for 30 s.
    running.until_printed("again: kills at once");
    running.signal(Signal::SIGINT);
    let (code, text) = running.wait();
    assert_eq!(code, 130, "{text}");
}

#[test]
fn ctrl_c_ends_mains_before_sidecars_and_these_in_reverse_order() {
    let podshim = Instance::new();
    // Each takes longer than those that are to end after it: told together, they would end in the
    // wrong order.
    let running = podshim.start_like_a_shell(&deployment(
        1,
        &[
            "      initContainers:\n",
            &sidecar("first", "echo first ends; exit 0"),
            &sidecar("second", "sleep 0.5; echo second ends; exit 0"),
            "      containers:\n",
            &container("main", "sleep 1; echo main ends; exit 0"),
        ]
        .concat(),
    ));
    for name in ["first", "second", "main"] {
        running.until_printed(&format!("| {name} listens"));
    }
    running.ctrl_c();
    let (code, text) = running.wait();
    assert_eq!(code, 130, "{text}");
    let objects: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let events = integration::events(&objects);
    let ends: Vec<usize> =
        ["main", "second", "first"].iter().map(|c| position(&events, "Exited", c)).collect();
    assert!(ends.is_sorted(), "{events:?}");
    for name in ["first", "second", "main"] {
        assert!(text.contains(&format!("| {name} ends")), "{text}");
        // All in one moment.
        assert!(events.contains(&("Killing".to_owned(), name.to_owned())), "{name}: {events:?}");
    }
}

#[test]
fn sigterm_ends_it_and_the_code_says_so() {
    let podshim = Instance::new();
    let running = podshim.start(&deployment(
        1,
        &[
            "      initContainers:\n",
            &sidecar("side", "exit 0"),
            "      containers:\n",
            &container("main", "exit 0"),
        ]
        .concat(),
    ));
    running.until_printed("side | side listens");
    running.until_printed("main | main listens");
    running.signal(Signal::SIGTERM);
    let (code, text) = running.wait();
    assert_eq!(code, 143, "{text}");
}

#[test]
fn replicas_are_pods_with_names_of_their_own_and_one_that_is_deleted_is_replaced() {
    let podshim = Instance::new();
    let pod = format!("      containers:\n{}", container("main", "exit 0"));
    let running = podshim.start(&deployment(3, &pod));
    let three_are_ready = |pods: &[Value]| pods.len() == 3 && pods.iter().all(main_is_ready);
    let is_shown = || match shown(&podshim) {
        row if row == ["web", "3/3", "3", "3"] => Ok(()),
        row => Err(format!("{row:?}")),
    };
    let before = podshim.until_pods("three pods are ready", three_are_ready);
    assert!(before.iter().all(|pod| name(pod).starts_with("web-")), "{before:#?}");
    let all_listen = |pods: &[Value]| {
        for pod in pods {
            running.until_printed(&format!("{}/main | main listens", name(pod)));
        }
    };
    all_listen(&before);
    until("the table says so", is_shown);

    let [victim, others @ ..] = before.as_slice() else { unreachable!("there are three") };
    assert_eq!(podshim.podshim(&["delete", "pod", name(victim)]).code, 0);
    let after = podshim.until_pods("three pods are ready again", three_are_ready);
    all_listen(&after);
    let after: Vec<&str> = after.iter().map(name).collect();
    assert!(!after.contains(&name(victim)), "{after:?}");
    assert!(
        others.iter().all(|pod| after.contains(&name(pod))),
        "{after:?} had to keep {others:#?}"
    );
    until("the table says so again", is_shown);

    running.signal(Signal::SIGINT);
    let (code, text) = running.wait();
    assert_eq!(code, 130, "{text}");
}
