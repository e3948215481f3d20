//! Things are killed while they run, and nothing stays behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use integration::{Instance, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sleep, '1000']}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '1000']}
";

fn is_running(pod: &serde_json::Value) -> bool {
    pod["status"]["phase"] == "Running"
}

#[test]
fn a_run_that_is_killed_takes_its_pods_down() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    podshim.until("running", is_running);
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().0, 137);
    let pod = podshim.until("deleted", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 1, "{pod}");
    let shown = podshim.podshim(&["get", "pods"]);
    assert!(shown.out.contains(" Terminating "), "{}", shown.out);
    podshim.nothing_is_left();
}

#[test]
fn who_looks_at_the_moment_of_the_end_leaves_no_mount() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    podshim.until("running", is_running);
    let look = File::open(podshim.state()).unwrap();
    let shim = podshim.shim();
    running.signal(Signal::SIGTERM);
    // The shim has nothing left to do but to unmount what is being looked at.
    let pods = podshim.state().join("pods");
    until("the pod is gone", || {
        let left = fs::read_dir(&pods).unwrap().count();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
    });
    drop(look);
    running.wait();
    assert!(!Path::new(&format!("/proc/{shim}")).exists());
    podshim.nothing_is_left();
}

#[test]
fn when_all_of_podshim_is_killed_prune_removes_the_rest() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    podshim.until("running", is_running);
    podshim.kill_podshim(running);
    for args in [&["get", "pods"][..], &["top", "pod"]] {
        let said = podshim.podshim(args);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{args:?}: {}", said.err);
        assert!(said.err.starts_with("podshim: ") && said.err.lines().count() == 1, "{}", said.err);
    }
    assert_eq!(podshim.podshim(&["prune"]).code, 0);
    podshim.nothing_is_left();
}

#[test]
fn ctrl_c_at_whatever_moment_of_its_start_ends_a_pod_and_does_not_kill_its_shim() {
    let podshim = Instance::new();
    for step in 0..12 {
        let running = podshim.start_like_a_shell(POD);
        std::thread::sleep(Duration::from_millis(20 + step * 14));
        running.ctrl_c();
        let (code, text) = running.wait();
        // Before it listens to signals, it ends by this one as any program.
        assert_eq!(code, 130, "step {step}: {text}");
        assert!(!text.contains("the shim of pod"), "step {step}: {text}");
        podshim.podshim(&["prune"]);
        podshim.nothing_is_left();
    }
}

#[test]
fn at_whatever_moment_of_its_start_everything_is_killed_prune_removes_the_rest() {
    let podshim = Instance::new();
    for step in 0..12 {
        let running = podshim.start(POD);
        std::thread::sleep(Duration::from_millis(step * 8));
        let state = podshim.state().to_str().unwrap().to_owned();
        running.signal(Signal::SIGSTOP);
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(cmdline) = fs::read(entry.path().join("cmdline")) else { continue };
            if String::from_utf8_lossy(&cmdline).contains(&state)
                && let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            {
                // It may have ended by itself in between.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        running.signal(Signal::SIGKILL);
        running.wait();
        let pruned = podshim.podshim(&["prune"]);
        assert_eq!(pruned.code, 0, "after {step} steps: {}", pruned.err);
        podshim.nothing_is_left();
    }
}
