//! Deployments: they run until they are told to end, and their containers do not notice each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use integration::{Instance, kill_now, sources, status_of};
use nix::sys::signal::Signal;
use serde_json::Value;

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
