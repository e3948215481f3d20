//! Shims and keepers are killed at any moment, and pods live on: nothing is lost, said twice or started
//! twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use integration::{Instance, is_slow, kill_now, linux_version, pod, status_of, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Main counts to its log without end.
const COUNTING: &str = "  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done']}
";

/// In how many moments of its life a pod loses its shim.
fn steps() -> u32 {
    if is_slow() { 8 } else { 30 }
}

/// An init container, a sidecar and a main that ends with 7.
const SHORT: &str = "  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  initContainers:
  - {name: first, image: alpine:latest, command: [echo, once]}
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; echo once; while :; do sleep 0.02; done']}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.003; done; exit 7']}
";

/// Waits for a shim other than `before`. What the dead one had forked looks like one for a moment.
fn next_shim(podshim: &Instance, before: i32) -> i32 {
    let mut last = Vec::new();
    until("another shim", || {
        let found = podshim.processes("shim");
        let same = std::mem::replace(&mut last, found.clone()) == found;
        match found[..] {
            [one] if one != before && same => Ok(one),
            _ => Err(format!("{found:?}")),
        }
    })
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

fn numbers(text: &str, prefix: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.strip_prefix(prefix)?.trim().parse().ok()).collect()
}

fn counts_from_zero(numbers: &[u32]) -> bool {
    numbers.iter().zip(0..).all(|(number, expected)| *number == expected)
}

#[test]
fn a_shim_that_is_killed_is_replaced_and_no_container_notices() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(COUNTING));
    podshim.until("running", is_running);
    let (pids, keeper) = (podshim.pids(), podshim.processes("keep"));
    let mut shim = podshim.shim();
    let times = if is_slow() { 5 } else { 20 };
    for _ in 0..times {
        kill_now(shim);
        shim = next_shim(&podshim, shim);
        // Who asks in the meantime waits, and is not told that nobody is there.
        let said = podshim.podshim(&["get", "pod", "p"]);
        assert!(said.out.contains("2/2"), "{} {}", said.out, said.err);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(podshim.pids(), pids);
    assert_eq!(podshim.processes("keep"), keeper);
    let pod = podshim.pod().unwrap();
    for name in ["log", "main"] {
        assert_eq!(status_of(&pod, name)["restartCount"], 0, "{pod:#}");
    }
    let events = podshim.podshim(&["events", "p"]).out;
    assert!(
        events.lines().any(|l| l.contains("Adopted") && l.contains(&format!("x{times}"))),
        "{events}"
    );
    assert_eq!(events.matches(" Started ").count(), 2, "{events}");
    let logs = numbers(&podshim.podshim(&["logs", "p", "-c", "main"]).out, "");
    assert!(logs.len() > 2 * times && counts_from_zero(&logs), "{logs:?}");
    let said = podshim.podshim(&["exec", "p", "-c", "main", "--", "true"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    let (code, output) = running.wait();
    assert_eq!(code, 137, "{output}");
    let shown = numbers(&output, "main | ");
    assert!(shown.len() >= logs.len() && counts_from_zero(&shown), "{shown:?}");
    assert_eq!(output.matches("Started").count(), 2, "{output}");
    podshim.nothing_is_left();
}

#[test]
fn at_whatever_moment_of_its_life_its_shim_is_killed_a_pod_ends_as_it_would_have() {
    let podshim = Instance::new();
    let manifest = pod(SHORT);
    // A life is as long as its shim is there, whatever the machine takes to start and end a command.
    let born = |running: &integration::Running<'_>| {
        until("a shim", || podshim.processes("shim").first().copied().ok_or_else(|| running.text()))
    };
    let one_life = || {
        let running = podshim.start(&manifest);
        let shim = born(&running);
        let begun = Instant::now();
        while std::path::Path::new(&format!("/proc/{shim}")).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let life = begun.elapsed();
        assert_eq!(running.wait().0, 7);
        life
    };
    // The first of all reads everything from the disk.
    let life = (0..3).map(|_| one_life()).min().unwrap();
    let mut killed = 0;
    let steps = steps();
    for step in 0..steps {
        let running = podshim.start(&manifest);
        let shim = born(&running);
        std::thread::sleep(life * step / steps);
        // To look for it once more would take as long as its life, on a slow machine.
        killed += u32::from(kill(Pid::from_raw(shim), Signal::SIGKILL).is_ok());
        let (code, output) = running.wait();
        assert_eq!(code, 7, "step {step}: {output}");
        let shown = numbers(&output, "main  | ");
        assert!(shown.len() == 30 && counts_from_zero(&shown), "step {step}: {output}");
        assert_eq!(output.matches("| once").count(), 2, "step {step}: {output}");
        for (what, times) in [("first Started", 1), ("log   Started", 1), ("main  Started", 1)] {
            assert_eq!(output.matches(what).count(), times, "step {step}: {output}");
        }
        podshim.nothing_is_left();
    }
    assert!(killed > steps / 2, "{killed} were killed");
}

#[test]
fn shims_that_are_killed_again_and_again_lose_no_restart() {
    let podshim = Instance::new();
    // Each run says which it is, and ends: as many runs as lines, as the counter says.
    let running = podshim.start(&pod("  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'echo run >> /v/log; sleep 0.05; exit 1'], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'], volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, emptyDir: {}}]
"));
    podshim.until("running", is_running);
    let mut shim = podshim.shim();
    let mut pause = 3;
    for _ in 0..if is_slow() { 10 } else { 40 } {
        kill_now(shim);
        shim = next_shim(&podshim, shim);
        // Every moment of what follows, from the takeover to the next restart.
        std::thread::sleep(Duration::from_millis(pause));
        pause = (pause * 7) % 101;
        let said = podshim.podshim(&["restart", "p", "-c", "log"]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let settled = |pod: &Value| {
        let status = status_of(pod, "log");
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = podshim.until("in back-off", settled);
    let runs = status_of(&pod, "log")["restartCount"].as_u64().unwrap() + 1;
    let said = podshim.podshim(&["exec", "p", "-c", "main", "--", "cat", "/v/log"]);
    assert_eq!(said.out.lines().count() as u64, runs, "{} {pod:#}", said.err);
    assert_eq!(status_of(&pod, "main")["restartCount"], 0);
    running.signal(Signal::SIGTERM);
    running.wait();
    podshim.nothing_is_left();
}

#[test]
fn without_its_keeper_a_pod_goes_on_and_run_finds_it_new_ones() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(COUNTING));
    podshim.until("running", is_running);
    let pids = podshim.pids();
    let [keeper] = podshim.processes("keep")[..] else { panic!("one keeper") };
    kill_now(keeper);
    let shim = podshim.shim();
    let said = podshim.podshim(&["exec", "p", "-c", "main", "--", "true"]);
    assert_eq!(said.code, 0, "{}", said.err);
    kill_now(shim);
    next_shim(&podshim, shim);
    podshim.until("running again", is_running);
    // And both at once.
    for _ in 0..5 {
        let ([keeper], [shim]) = (&podshim.processes("keep")[..], &podshim.processes("shim")[..])
        else {
            panic!("a keeper and a shim");
        };
        kill_now(*keeper);
        kill_now(*shim);
        next_shim(&podshim, *shim);
        podshim.until("running again", is_running);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(podshim.pids(), pids);
    let logs = numbers(&podshim.podshim(&["logs", "p", "-c", "main"]).out, "");
    assert!(logs.len() > 20 && counts_from_zero(&logs), "{logs:?}");
    // A child of nobody whom podshim knows is still seen to end.
    let before = podshim.pids()["log"];
    kill_now(before);
    let pod = podshim.until("restarted", |pod| status_of(pod, "log")["restartCount"] == 1);
    let last = &status_of(&pod, "log")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{pod:#}");
    let known = last["reason"] == "Error";
    // Since Linux 6.15 the kernel remembers for whoever has the process open.
    assert!(known || linux_version() < (6, 15), "{pod:#}");
    running.signal(Signal::SIGTERM);
    let (code, output) = running.wait();
    assert_eq!(code, 143, "{output}");
    assert!(counts_from_zero(&numbers(&output, "main | ")), "{output}");
    podshim.nothing_is_left();
}

#[test]
fn an_exit_that_nobody_could_see_is_told_once_as_unknown() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(SHORT.replace("-lt 30", "-lt 3000").as_str()));
    podshim.until("running", is_running);
    let main = podshim.pids()["main"];
    let ([keeper], [shim]) = (&podshim.processes("keep")[..], &podshim.processes("shim")[..])
    else {
        panic!("a keeper and a shim");
    };
    running.signal(Signal::SIGSTOP);
    kill_now(*keeper);
    kill_now(*shim);
    kill_now(main);
    until("it is reaped", || {
        let there = std::path::Path::new(&format!("/proc/{main}")).exists();
        if there { Err("it is there".to_owned()) } else { Ok(()) }
    });
    running.signal(Signal::SIGCONT);
    let (code, output) = running.wait();
    assert_eq!(code, 137, "{output}");
    let told =
        "main  Warning Exited: container ended while nobody of podshim's was there to see how";
    assert_eq!(output.matches(told).count(), 1, "{output}");
    podshim.nothing_is_left();
}

#[test]
fn hooks_probes_notifications_and_changes_survive_a_shim() {
    let podshim = Instance::new();
    let manifest = pod("  terminationGracePeriodSeconds: 20
  initContainers:
  - name: hooked
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo begun >> /v/hook; sleep 2; echo ended >> /v/hook']}}
      preStop: {sleep: {seconds: 1}}
  - name: probed
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
    startupProbe: {exec: {command: [test, -e, /v/open]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
    readinessProbe: {exec: {command: [test, -e, /v/ready]}, periodSeconds: 1, timeoutSeconds: 20}
  volumes: [{name: v, emptyDir: {}}]
");
    let running = podshim.start(&manifest);
    let replace = || {
        let shim = podshim.shim();
        kill_now(shim);
        next_shim(&podshim, shim)
    };
    let of = |name: &str| podshim.pods().first().map(|pod| status_of(pod, name).clone());
    until("the hook runs", || {
        let pods = podshim.pods();
        let uid = pods.first().and_then(|pod| pod["metadata"]["uid"].as_str()).unwrap_or_default();
        let hook = format!("pods/{uid}/volumes/kubernetes.io~empty-dir/v/hook");
        let text = fs::read_to_string(podshim.root().join(hook)).unwrap_or_default();
        if text == "begun\n" { Ok(()) } else { Err(text) }
    });
    replace();
    // It ran again, and once to its end.
    podshim.until("probed", |pod| status_of(pod, "probed")["state"]["running"].is_object());
    let in_main = |command: &str| {
        let said = podshim.podshim(&["exec", "p", "-c", "hooked", "--", "sh", "-c", command]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    assert_eq!(in_main("cat /v/hook"), "begun\nbegun\nended\n");
    replace();
    in_main("touch /v/open");
    podshim.until("main runs", |pod| status_of(pod, "main")["state"]["running"].is_object());
    replace();
    in_main("touch /v/ready");
    podshim.until("ready", |pod| status_of(pod, "main")["ready"] == true);
    // A change whose old incarnation is being stopped.
    let changed =
        manifest.replace("name: probed", "name: probed\n    env: [{name: NEW, value: x}]");
    let path = podshim.manifest(&changed);
    assert_eq!(podshim.podshim(&["apply", "-f", &path]).code, 0);
    replace();
    podshim.until("changed", |pod| status_of(pod, "probed")["restartCount"] == 1);
    for name in ["hooked", "main"] {
        assert_eq!(of(name).unwrap()["restartCount"], 0);
    }
    // The sleep of the hook before the stop goes on where it was.
    running.signal(Signal::SIGTERM);
    podshim.until("ending", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    replace();
    let (code, output) = running.wait();
    assert_eq!(code, 143, "{output}");
    assert!(!output.contains("Failed"), "{output}");
    podshim.nothing_is_left();
}

#[test]
fn a_pod_goes_on_as_another_version_and_nobody_notices() {
    let podshim = Instance::new();
    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    let older = elsewhere.path().join("older");
    fs::copy(integration::binary(), &older).unwrap();
    let manifest = podshim.manifest(&pod(COUNTING));
    let running = podshim.start_copy(&older, &["run", "--pull=never", &manifest]);
    podshim.until("running", is_running);
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let (shim, pids) = (podshim.shim(), podshim.pids());
    assert!(program(shim).ends_with("older"), "{:?}", program(shim));
    for round in 1..=3 {
        let said = podshim.podshim(&["upgrade", "--all"]);
        assert_eq!((said.code, said.out.as_str()), (0, "pod \"p\" upgraded\n"), "{}", said.err);
        assert_eq!((podshim.shim(), podshim.pids()), (shim, pids.clone()), "round {round}");
        assert!(program(shim).ends_with("podshim"), "{:?}", program(shim));
    }
    let said = podshim.podshim(&["upgrade", "q"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("not found"), "{}", said.err);
    // Its children are its own as before.
    kill_now(pids["log"]);
    let pod = podshim.until("restarted", |pod| status_of(pod, "log")["restartCount"] == 1);
    let last = &status_of(&pod, "log")["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&137.into(), &"Error".into()), "{pod:#}");
    // The next shim is started from the newer binary, and hears how those end that this one started.
    kill_now(shim);
    let next = next_shim(&podshim, shim);
    assert!(program(next).ends_with("podshim"), "{:?}", program(next));
    kill_now(podshim.pids()["log"]);
    podshim.until("restarted again", |pod| status_of(pod, "log")["restartCount"] == 2);
    // An upgrade with children of a dead shim.
    assert_eq!(podshim.podshim(&["upgrade", "p"]).code, 0);
    assert_eq!(podshim.pids()["main"], pids["main"]);
    running.signal(Signal::SIGTERM);
    let (code, output) = running.wait();
    assert_eq!(code, 143, "{output}");
    assert!(counts_from_zero(&numbers(&output, "main | ")), "{output}");
    assert_eq!(output.matches("Upgraded").count(), 4, "{output}");
    podshim.nothing_is_left();
}

#[test]
fn a_pod_whose_journal_is_damaged_is_not_guessed_at() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(COUNTING));
    let pod = podshim.until("running", is_running);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let journal = podshim.state().join("pods").join(uid).join("journal");
    let shim = podshim.shim();
    let text = fs::read_to_string(&journal).unwrap();
    let damaged = text.replacen("\"accepted\"}", "\"accepteD\"}", 1);
    assert_ne!(text, damaged);
    fs::write(&journal, damaged).unwrap();
    kill_now(shim);
    let (code, text) = running.wait();
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("the shim of pod p died"), "{text}");
    assert!(text.contains("record 2 of the journal"), "{text}");
    podshim.nothing_is_left();
}
