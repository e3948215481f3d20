//! A shim, or shim and keeper, are killed at every point of a pod's life that has a name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use integration::{Instance, is_full, is_slow, kill_now, pod, tabulate, until};

/// Everything that podshim does for a pod, in half a second.
const WHOLE: &str = "  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  initContainers:
  - {name: first, image: alpine:latest, command: [echo, once]}
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; echo once; while :; do sleep 0.02; done']
    lifecycle: {postStart: {exec: {command: ['true']}}, preStop: {exec: {command: ['true']}}}
    startupProbe: {exec: {command: ['true']}, timeoutSeconds: 20}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'for i in 0 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.01; done; exit 7']}
";

/// One that does not stop by itself.
const STUBBORN: &str = "  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']}
";

/// Points that only such a pod comes to.
const OF_DELETION: [&str; 3] = ["deleteAsked", "killed", "Kill"];
/// Points that only a shim comes to that has taken the pod over.
const OF_TAKEOVER: [&str; 2] = ["adopt", "adopted"];

/// Whom a point kills: in turn, or with `PODSHIM_TEST_FULL` the one and the other. Where time is short, five points
/// of six kill nobody.
fn whom(number: usize) -> &'static [&'static str] {
    if is_slow() && !number.is_multiple_of(6) {
        return &[];
    }
    match (is_full(), (number + number / 2) % 2) {
        (true, _) => &["shim", "both"],
        (false, 0) => &["shim"],
        (false, _) => &["both"],
    }
}

fn points(podshim: &Instance) -> Vec<String> {
    let said = podshim.podshim(&["failpoints"]);
    assert_eq!(said.code, 0, "{}", said.err);
    // Those of the daemon are in `daemon_killed.rs`.
    said.out.lines().filter(|p| !p.starts_with("daemon:")).map(str::to_owned).collect()
}

fn is_of(point: &str, names: &[&str]) -> bool {
    point.split_once(':').is_some_and(|(name, _)| names.contains(&name))
}

fn arm(podshim: &Instance, point: &str, whom: &str) {
    fs::write(podshim.root().join("failpoint"), format!("{point} {whom}")).unwrap();
}

/// Nobody has come to the point if the file is still there.
fn has_struck(podshim: &Instance) -> bool {
    !podshim.root().join("failpoint").exists()
}

fn check_whole(point: &str, whom: &str, code: i32, output: &str) {
    let when = format!("{point} {whom}: {code}\n{output}");
    let lost = output.contains("nobody of podshim's was there to see how");
    // Nobody sees the exit of what ends while neither is there.
    assert!(code == 7 || (code == 137 && lost && whom == "both"), "{when}");
    if code == 7 {
        let lines: Vec<_> =
            output.lines().filter_map(|l| l.strip_prefix("main  | line ")).collect();
        assert_eq!(lines, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "{when}");
        // What is in a pipe goes with its last descriptor: that of a container that ends while neither
        // is there.
        let once = output.matches("| once").count();
        assert!(once == 2 || (once < 2 && whom == "both"), "{when}");
        for started in ["first Started", "side  Started", "main  Started"] {
            assert_eq!(output.matches(started).count(), 1, "{when}");
        }
    }
}

#[test]
fn a_pod_ends_as_it_would_have_at_whatever_point_podshim_is_killed() {
    let podshim = Instance::new();
    let manifest = pod(WHOLE);
    let own = |point: &String| !is_of(point, &OF_DELETION) && !is_of(point, &OF_TAKEOVER);
    let mut missed = Vec::new();
    let (mut cases, mut longest) = (0, Duration::ZERO);
    for (n, point) in points(&podshim).into_iter().filter(own).enumerate() {
        for whom in whom(n) {
            arm(&podshim, &point, whom);
            let begun = Instant::now();
            let (code, output) = podshim.start(&manifest).wait();
            check_whole(&point, whom, code, &output);
            if !has_struck(&podshim) {
                missed.push(point.clone());
            }
            podshim.nothing_is_left();
            (cases, longest) = (cases + 1, longest.max(begun.elapsed()));
        }
    }
    tabulate("a fault point kills", "shim; shim and keeper", cases, longest);
    assert_eq!(missed, [] as [String; 0], "nobody came there");
}

#[test]
fn whoever_takes_a_pod_over_may_be_killed_too() {
    let podshim = Instance::new();
    let manifest = pod(&WHOLE.replace("sleep 0.01", "sleep 0.05"));
    let of_takeover = |point: &String| is_of(point, &OF_TAKEOVER);
    for (n, point) in points(&podshim).into_iter().filter(of_takeover).enumerate() {
        for whom in whom(n) {
            arm(&podshim, &point, whom);
            let running = podshim.start(&manifest);
            running.until_printed("main  | line 0");
            kill_now(podshim.shim());
            let (code, output) = running.wait();
            check_whole(&point, whom, code, &output);
            assert!(has_struck(&podshim), "{point}");
            podshim.nothing_is_left();
        }
    }
}

#[test]
fn a_deletion_that_was_taken_is_carried_out_at_whatever_point_podshim_is_killed() {
    let podshim = Instance::new();
    let manifest = pod(STUBBORN);
    let of_deletion = |point: &String| is_of(point, &OF_DELETION);
    for (n, point) in points(&podshim).into_iter().filter(of_deletion).enumerate() {
        for whom in whom(n) {
            arm(&podshim, &point, whom);
            let running = podshim.start(&manifest);
            podshim.until("running", |pod| pod["status"]["phase"] == "Running");
            // Whoever is not told that it was taken asks again.
            until("deleted", || {
                let said = podshim.podshim(&["delete", "pod", "p"]);
                if said.code == 0 || said.err.contains("not found") {
                    Ok(())
                } else {
                    Err(said.err)
                }
            });
            let (code, output) = running.wait();
            assert_eq!(code, 137, "{point} {whom}: {output}");
            assert!(has_struck(&podshim), "{point}");
            podshim.nothing_is_left();
        }
    }
}
