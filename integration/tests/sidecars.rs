//! The main job: pods with native sidecars, as a user sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use integration::{Instance, count, kill_now, of_kind, pod, position, status_of};
use nix::sys::signal::Signal;

#[test]
fn sidecars_with_startup_probes_start_one_after_another() {
    let podshim = Instance::new();
    let sidecar = |n: u32| {
        format!(
            "  - name: s{n}
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; sleep 0.3; touch /d/s{n}; while :; do sleep 0.1; done']
    startupProbe: {{periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60, exec: {{command: [test, -e, /d/s{n}]}}}}
    volumeMounts: [{{name: d, mountPath: /d}}]
"
        )
    };
    let manifest = pod(&format!(
        "  restartPolicy: Never
  initContainers:
{}{}{}  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'ls /d; true']
    volumeMounts: [{{name: d, mountPath: /d}}]
  volumes: [{{name: d, emptyDir: {{medium: Memory}}}}]
",
        sidecar(1),
        sidecar(2),
        sidecar(3)
    ));
    let (code, events) = podshim.events(&manifest);
    assert_eq!(code, 0);
    let order: Vec<usize> =
        ["s1", "s2", "s3", "main"].iter().map(|c| position(&events, "Started", c)).collect();
    assert!(order.is_sorted(), "{events:?}");
    let stops: Vec<usize> =
        ["s3", "s2", "s1"].iter().map(|c| position(&events, "Exited", c)).collect();
    assert!(stops.is_sorted(), "{events:?}");
}

#[test]
fn another_terminal_sees_the_pod_its_logs_and_may_end_it() {
    let podshim = Instance::new();
    let manifest = pod("  terminationGracePeriodSeconds: 2
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; echo from log; while :; do sleep 0.1; done']}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo from main; sleep 1000']}
");
    let running = podshim.start(&manifest);
    podshim.until("ready", |p| status_of(p, "main")["ready"] == true);
    let table = podshim.podshim(&["get", "pods"]).out;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(&row[..4], ["p", "2/2", "Running", "0"], "{table}");
    assert_eq!(podshim.podshim(&["logs", "p", "-c", "log"]).out, "from log\n");
    assert_eq!(podshim.podshim(&["logs", "p"]).out, "from main\n");

    let twin = podshim.run(&manifest);
    assert_eq!(twin.code, 125);
    assert!(twin.err.contains("already exists"), "{}", twin.err);

    assert_eq!(podshim.podshim(&["restart", "p", "-c", "log"]).code, 0);
    podshim.until("restarted", |p| {
        let log = status_of(p, "log");
        log["restartCount"] == 1 && log["ready"] == true
    });
    assert_eq!(podshim.podshim(&["logs", "p", "-c", "log", "--previous"]).out, "from log\n");
    assert_eq!(podshim.podshim(&["delete", "pod", "p", "--grace-period=1"]).code, 0);
    let (code, text) = running.wait();
    assert_eq!(code, 137, "{text}");
}

#[test]
fn a_container_gets_what_kubernetes_gives_it_and_no_more() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  restartPolicy: Never
  containers:
  - name: main
    image: alpine:latest
    env:
    - {name: WHO, value: world}
    - {name: GREETING, value: 'hello $(WHO) $$(WHO)'}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    command: [sh, -c]
    args:
    - |
      echo \"$GREETING from $POD on $(hostname)\"
      grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status | tr -d '\\t' | tr '\\n' ' '; echo
      echo fds $(ls /proc/self/fd | tr '\\n' ' ')
      ip -o link | wc -l
      tail -1 /etc/hosts | cut -f1
      mknod /tmp/disk b 254 0 && cat /tmp/disk 2>&1 | head -c 60; echo
      unshare -m true 2>&1 | head -c 60
"));
    assert_eq!(said.code, 0, "{}", said.err);
    let expect = |text: &str| assert!(said.out.contains(text), "{text:?} in {}", said.out);
    expect("hello world $(WHO) from p on p");
    expect("CapEff:00000000a80425fb NoNewPrivs:0 Seccomp:2");
    // 3 is the directory that ls itself reads.
    expect("fds 0 1 2 3");
    expect("| 2\n");
    expect("open '/tmp/disk': ");
    expect("Operation not permitted");
}

#[test]
fn a_restricted_container_has_nothing_left_and_can_still_write_its_output() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true}
  containers:
  - name: main
    image: alpine:latest
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    command: [sh, -c, 'id -u > /dev/stdout; grep -E \"CapBnd|NoNewPrivs|Seccomp:\" /proc/self/status | tr -d \"\\t\"; touch /x || echo read-only']
"));
    assert_eq!(said.code, 0, "{}", said.err);
    for text in ["| 1000", "CapBnd:0000000000000000", "NoNewPrivs:1", "Seccomp:2", "| read-only"] {
        assert!(said.out.contains(text), "{text:?} in {}", said.out);
    }
}

#[test]
fn exit_codes_are_the_programs_and_the_shells() {
    let podshim = Instance::new();
    let with = |command: &str| {
        podshim.run(&pod(&format!(
            "  restartPolicy: Never\n  containers:\n  - {{name: main, image: alpine:latest, command: [{command}]}}\n"
        )))
    };
    assert_eq!(with("sh, -c, 'exit 3'").code, 3);
    let missing = with("/no/such/program");
    assert_eq!(missing.code, 127, "{}", missing.err);
    assert!(missing.err.contains("/no/such/program"), "{}", missing.err);
    assert_eq!(with("/etc/passwd").code, 126);
}

#[test]
fn a_failing_init_container_ends_the_pod_with_its_code_and_main_never_starts() {
    let podshim = Instance::new();
    let (code, events) = podshim.events(&pod("  restartPolicy: Never
  initContainers:
  - {name: one, image: alpine:latest, command: ['true']}
  - {name: two, image: alpine:latest, command: [sh, -c, 'exit 5']}
  containers:
  - {name: main, image: alpine:latest, command: ['true']}
"));
    assert_eq!(code, 5);
    assert!(position(&events, "Exited", "one") < position(&events, "Started", "two"));
    assert!(!events.iter().any(|(r, c)| r == "Started" && c == "main"), "{events:?}");
}

#[test]
fn a_probe_that_hangs_is_killed_whole() {
    let podshim = Instance::new();
    let manifest = pod("  terminationGracePeriodSeconds: 1
  initContainers:
  - name: slow
    image: alpine:latest
    restartPolicy: Always
    command: [sleep, '1000']
    startupProbe: {periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 100, exec: {command: [sh, -c, 'setsid sleep 987654 & sleep 987654']}}
  containers:
  - {name: main, image: alpine:latest, command: ['true']}
");
    let running = podshim.start(&manifest);
    podshim.until("the sidecar runs", |p| status_of(p, "slow")["state"]["running"].is_object());
    std::thread::sleep(Duration::from_millis(4500));
    let sleepers = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| fs::read(e.ok()?.path().join("cmdline")).ok())
        .filter(|c| c.windows(6).any(|w| w == b"987654") && c.starts_with(b"sleep"))
        .count();
    // One attempt may be under way; none of the earlier ones left anything.
    assert!(sleepers <= 2, "{sleepers} programs of probes that timed out");
    running.signal(Signal::SIGTERM);
    let (code, text) = running.wait();
    assert_eq!(code, 143, "{text}");
    assert!(text.contains("timed out after 1s"), "{text}");
}

#[test]
fn a_standby_sidecar_is_there_before_it_is_needed() {
    let podshim = Instance::new();
    let manifest = "apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {podshim.dev/standby: log}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sleep, '1000']}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '1000']}
";
    let running = podshim.start(manifest);
    let pod = podshim.until("ready", |p| status_of(p, "main")["ready"] == true);
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let spare = |podshim: &Instance| {
        podshim.facts(&uid).iter().filter(|f| f["fact"] == "created" && f["c"] == 0).count()
    };
    while spare(&podshim) < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_now(podshim.pids()["log"]);
    podshim.until("again", |p| {
        let log = status_of(p, "log");
        log["restartCount"] == 1 && log["ready"] == true
    });
    let facts = podshim.facts(&uid);
    let at = |what: &str, inc: u64| {
        facts.iter().position(|f| f["fact"] == what && f["c"] == 0 && f["inc"] == inc).unwrap()
    };
    assert!(at("created", 1) < at("exited", 0) && at("exited", 0) < at("started", 1));
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().0, 130);
}

#[test]
fn a_probe_that_dies_of_a_real_time_signal_has_failed() {
    let podshim = Instance::new();
    let (code, events) = podshim.events(&pod("  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  activeDeadlineSeconds: 8
  initContainers:
  - name: slow
    image: alpine:latest
    restartPolicy: Always
    command: [sleep, '1000']
    startupProbe: {periodSeconds: 1, timeoutSeconds: 100, failureThreshold: 100, exec: {command: [sh, -c, 'kill -37 $$$$; true']}}
  containers:
  - {name: main, image: alpine:latest, command: ['true']}
"));
    assert_ne!(code, 0);
    let failures = events.iter().filter(|(r, c)| r == "Unhealthy" && c == "slow").count();
    assert!(failures >= 2, "each attempt is told: {events:?}");
    assert!(!events.iter().any(|(r, _)| r == "LogBlocked"), "main never ran: {events:?}");
}

#[test]
fn an_image_that_wants_a_real_time_signal_is_stopped_by_it() {
    let podshim = Instance::new();
    podshim.load_variant("systemd:like", |config| {
        config["config"]["StopSignal"] = "SIGRTMIN+3".into();
    });
    let said = podshim.run(&pod("  restartPolicy: Never
  terminationGracePeriodSeconds: 100
  initContainers:
  - {name: side, image: 'systemd:like', restartPolicy: Always, command: [sh, -c, 'trap \"echo by 37; exit 0\" 37; while :; do sleep 0.1; done']}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '0.5']}
"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("side | by 37"), "{}{}", said.out, said.err);
    assert!(!said.err.contains("SIGKILL"), "{}", said.err);
}

#[test]
fn output_has_its_containers_name_and_lifecycle_is_on_standard_error_unless_quiet() {
    let podshim = Instance::new();
    let manifest = pod("  restartPolicy: Never
  initContainers:
  - name: log
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; echo from log; touch /d/up; while :; do sleep 0.1; done']
    volumeMounts: [{name: d, mountPath: /d}]
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'until [ -e /d/up ]; do sleep 0.1; done; echo from main; echo trouble >&2']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
");
    let output = |said: &integration::Said| {
        let mut lines: Vec<String> = said.out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let expected = ["log  | from log", "main | from main", "main | trouble"];
    let said = podshim.run(&manifest);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(output(&said), expected);
    assert!(said.err.contains(" log  Started: Container started"), "{}", said.err);
    assert!(said.err.contains(" main Exited: container exited with code 0"), "{}", said.err);
    assert!(!said.err.contains("from "), "{}", said.err);

    let quiet = podshim.run_with(&["--quiet"], &manifest);
    assert_eq!(quiet.code, 0, "{}", quiet.err);
    assert_eq!(output(&quiet), expected);
    assert_eq!(quiet.err, "");
}

#[test]
fn on_failure_a_main_is_tried_again_until_it_succeeds_and_its_sidecar_runs_on() {
    let podshim = Instance::new();
    let (code, objects) = podshim.objects(&pod("  restartPolicy: OnFailure
  initContainers:
  - {name: side, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'echo >> /d/tries; [ `wc -l < /d/tries` = 3 ] || exit 9']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
"));
    assert_eq!(code, 0);
    let pod = of_kind(&objects, "Pod")[0];
    let main = status_of(pod, "main");
    assert_eq!(main["restartCount"], 2, "{main:#}");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 9, "{main:#}");
    assert_eq!(status_of(pod, "side")["restartCount"], 0, "{pod:#}");
    let events = integration::events(&objects);
    assert_eq!(count(&events, "Started", "main"), 3, "{events:?}");
    assert_eq!(count(&events, "Started", "side"), 1, "{events:?}");
}

#[test]
fn with_never_a_main_that_fails_stays_down_and_a_sidecar_comes_back_all_the_same() {
    let podshim = Instance::new();
    // `other` keeps the pod alive until the sidecar's second life, and then long enough for a
    // second life of `main`, of which there must be none.
    let (code, objects) = podshim.objects(&pod("  restartPolicy: Never
  initContainers:
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'echo >> /d/lives; [ `wc -l < /d/lives` = 2 ] || exit 0; trap \"exit 0\" TERM; touch /d/second; while :; do sleep 0.1; done']
    volumeMounts: [{name: d, mountPath: /d}]
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'exit 7']}
  - name: other
    image: alpine:latest
    command: [sh, -c, 'until [ -e /d/second ]; do sleep 0.1; done; sleep 2']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
"));
    assert_eq!(code, 7);
    let pod = of_kind(&objects, "Pod")[0];
    assert_eq!(pod["status"]["phase"], "Failed", "{pod:#}");
    assert_eq!(status_of(pod, "main")["restartCount"], 0, "{pod:#}");
    assert_eq!(status_of(pod, "side")["restartCount"], 1, "{pod:#}");
    let events = integration::events(&objects);
    assert_eq!(count(&events, "Started", "main"), 1, "{events:?}");
    assert_eq!(count(&events, "Started", "side"), 2, "{events:?}");
}

#[test]
fn the_hosts_network_is_there_if_asked_for_and_otherwise_a_loopback_and_one_interface() {
    let podshim = Instance::new();
    let seen = |spec: &str| {
        let said = podshim.run(&pod(&format!(
            "  restartPolicy: Never\n{spec}  containers:
  - {{name: main, image: alpine:latest, command: [sh, -c, 'readlink /proc/self/ns/net; ip -o link']}}
"
        )));
        assert_eq!(said.code, 0, "{}", said.err);
        let lines = said.out.lines().map(|line| line.trim_start_matches("main | ").to_owned());
        lines.collect::<Vec<String>>()
    };
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let interfaces = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let interfaces: Vec<&str> =
        interfaces.lines().skip(2).filter_map(|line| line.trim().split(':').next()).collect();

    let host = seen("  hostNetwork: true\n");
    assert_eq!(host[0], own.to_str().unwrap());
    for name in &interfaces {
        let is_named = |line: &String| line.split([' ', ':', '@']).any(|word| word == *name);
        assert!(host[1..].iter().any(is_named), "{name} in {host:#?}");
    }
    let alone = seen("");
    assert_ne!(alone[0], own.to_str().unwrap());
    assert_eq!(alone.len(), 3, "{alone:#?}");
    assert!(alone[1].contains(" lo: <LOOPBACK,UP"), "{alone:#?}");
    assert!(
        alone[2].contains(" eth0@") && alone[2].contains("<BROADCAST,MULTICAST,UP"),
        "{alone:#?}"
    );
}
