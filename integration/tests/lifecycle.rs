//! Probes, hooks and restart rules, as a user sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use integration::{Instance, count, of_kind, pod, position, status_of};
use serde_json::Value;

fn condition(pod: &Value, kind: &str) -> String {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.rfind(|c| c["type"] == *kind);
    found.map(|c| c["status"].as_str().unwrap().to_owned()).unwrap_or_default()
}

fn messages(objects: &[Value], reason: &str) -> Vec<String> {
    let events = of_kind(objects, "Event").into_iter().filter(|e| e["reason"] == *reason);
    events.map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_readiness_probe_decides_of_the_pods_readiness_and_of_nothing_else() {
    let podshim = Instance::new();
    let running = podshim.start(&pod("  terminationGracePeriodSeconds: 1
  initContainers:
  - name: log
    image: alpine:latest
    restartPolicy: Always
    command: [sleep, '1000']
    readinessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1, exec: {command: [test, -e, /tmp/ready]}}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '1000']}
"));
    let pod = podshim.until("running", |p| status_of(p, "main")["ready"] == true);
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(status_of(&pod, "log")["started"], true);
    let exec = |command: &[&str]| {
        let said = podshim.podshim(&[&["exec", "p", "-c", "log", "--"], command].concat());
        assert_eq!(said.code, 0, "{}", said.err);
    };
    exec(&["touch", "/tmp/ready"]);
    podshim.until("ready", |p| condition(p, "Ready") == "True");
    exec(&["rm", "/tmp/ready"]);
    let pod = podshim.until("not ready", |p| condition(p, "Ready") == "False");
    assert_eq!(status_of(&pod, "log")["restartCount"], 0);
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    running.wait();
}

#[test]
fn a_liveness_probe_that_fails_restarts_its_container_alone() {
    let podshim = Instance::new();
    let running = podshim.start(&pod("  terminationGracePeriodSeconds: 1
  initContainers:
  - name: log
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 3\" TERM; touch /tmp/alive; while :; do sleep 0.1; done']
    livenessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2, exec: {command: [test, -e, /tmp/alive]}}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '1000']}
"));
    podshim.until("ready", |p| condition(p, "Ready") == "True");
    std::thread::sleep(Duration::from_millis(1500));
    let pod = podshim.pod().unwrap();
    assert_eq!(status_of(&pod, "log")["restartCount"], 0, "{pod:#}");
    podshim.podshim(&["exec", "p", "-c", "log", "--", "rm", "/tmp/alive"]);
    let pod = podshim.until("restarted", |p| {
        let log = status_of(p, "log");
        log["restartCount"] == 1 && log["ready"] == true
    });
    assert_eq!(status_of(&pod, "log")["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(status_of(&pod, "main")["restartCount"], 0);
    let events = podshim.podshim(&["events", "p"]).out;
    assert!(events.contains("Init container log failed liveness probe"), "{events}");
    assert!(events.contains("Liveness probe failed"), "{events}");
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    running.wait();
}

/// Each of the three is probed once a minute only, and listens after 50 ms.
#[test]
fn a_chain_of_slow_probes_starts_long_before_their_periods_are_over() {
    let podshim = Instance::new();
    let sidecar = |n: u32| {
        format!(
            "  - name: s{n}
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; sleep 0.05; touch /tmp/up; while :; do sleep 0.1; done']
    startupProbe: {{periodSeconds: 60, timeoutSeconds: 20, exec: {{command: [test, -e, /tmp/up]}}}}
"
        )
    };
    let manifest = pod(&format!(
        "  restartPolicy: Never\n  initContainers:\n{}{}{}  containers:
  - {{name: main, image: alpine:latest, command: ['true']}}\n",
        sidecar(1),
        sidecar(2),
        sidecar(3)
    ));
    let began = Instant::now();
    let (code, events) = podshim.events(&manifest);
    assert_eq!(code, 0, "{events:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let order: Vec<usize> =
        ["s1", "s2", "s3", "main"].iter().map(|c| position(&events, "Started", c)).collect();
    assert!(order.is_sorted(), "{events:?}");
    // Only what is tried at a period's tick is told.
    for sidecar in ["s1", "s2", "s3"] {
        assert!(count(&events, "Unhealthy", sidecar) <= 1, "{events:?}");
    }
}

#[test]
fn hooks_run_where_and_when_kubernetes_says() {
    let podshim = Instance::new();
    let (code, objects) = podshim.objects(&pod("  restartPolicy: Never
  terminationGracePeriodSeconds: 10
  initContainers:
  - name: log
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"echo log stopped >>/d/story; exit 0\" TERM; while :; do sleep 0.05; done']
    volumeMounts: [{name: d, mountPath: /d}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'sleep 0.3; echo log hooked by $(hostname) >>/d/story']}}
      preStop: {exec: {command: [sh, -c, 'sleep 0.3; echo log is about to stop >>/d/story']}}
  - name: late
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"echo late stopped >>/d/story; cat /d/story; exit 0\" TERM; while :; do sleep 0.05; done']
    volumeMounts: [{name: d, mountPath: /d}]
    lifecycle: {preStop: {sleep: {seconds: 1}}}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'echo main runs >>/d/story; sleep 0.2; echo main ends >>/d/story']
    volumeMounts: [{name: d, mountPath: /d}]
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo never >>/d/story']}}}
  volumes: [{name: d, emptyDir: {}}]
"));
    assert_eq!(code, 0, "{objects:#?}");
    let said = podshim.podshim(&["logs", "p", "-c", "late"]);
    let story: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        story,
        ["log hooked by p", "main runs", "main ends", "log is about to stop", "late stopped",],
        "{}",
        said.err
    );
}

#[test]
fn a_post_start_hook_that_fails_ends_its_container_and_says_why() {
    let podshim = Instance::new();
    let (code, objects) = podshim.objects(&pod("  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'trap \"exit 5\" TERM; while :; do sleep 0.05; done']
    lifecycle: {postStart: {exec: {command: [sh, -c, 'echo no such luck; exit 3']}}}
"));
    assert_eq!(code, 5, "{objects:#?}");
    assert_eq!(messages(&objects, "FailedPostStartHook"), ["PostStartHook failed"]);
    assert!(messages(&objects, "Killing").contains(&"FailedPostStartHook".to_owned()));
}

#[test]
fn a_container_is_stopped_by_the_signal_that_its_manifest_names() {
    let podshim = Instance::new();
    let running = podshim.start(&pod("  os: {name: linux}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'trap \"exit 7\" USR1; trap \"exit 8\" TERM; while :; do sleep 0.05; done']
    lifecycle: {stopSignal: SIGUSR1}
"));
    podshim.until("running", |p| status_of(p, "main")["ready"] == true);
    podshim.until("its handlers", |_| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", podshim.pids()["main"]));
        let status = status.unwrap_or_default();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:\t")).unwrap_or("0");
        // USR1 and TERM.
        u64::from_str_radix(caught, 16).unwrap() & 0x4200 == 0x4200
    });
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    let (code, text) = running.wait();
    assert_eq!(code, 7, "{text}");
}

#[test]
fn rules_restart_one_container_or_all() {
    let podshim = Instance::new();
    // The third time it is well: 42 restarts the container, 43 everything.
    let (code, objects) = podshim.objects(&pod("  restartPolicy: Never
  initContainers:
  - name: seed
    image: alpine:latest
    command: [sh, -c, 'echo seed >>/d/story']
    volumeMounts: [{name: d, mountPath: /d}]
  - name: log
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'echo log >>/d/story; sleep 1000']
    volumeMounts: [{name: d, mountPath: /d}]
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook >>/d/story']}}}
  containers:
  - name: main
    image: alpine:latest
    restartPolicy: Never
    restartPolicyRules:
    - {action: Restart, exitCodes: {operator: In, values: [42]}}
    - {action: RestartAllContainers, exitCodes: {operator: In, values: [43]}}
    command:
    - sh
    - -c
    - |
      echo main >>/d/story
      case $(grep -c main /d/story) in 1) exit 42;; 2) exit 43;; esac
      tr '\\n' ' ' </d/story
    volumeMounts: [{name: d, mountPath: /d}]
  terminationGracePeriodSeconds: 1
  volumes: [{name: d, emptyDir: {}}]
"));
    assert_eq!(code, 0, "{objects:#?}");
    let pod = of_kind(&objects, "Pod").pop().unwrap().clone();
    assert_eq!(
        podshim.podshim(&["logs", "p", "-c", "main"]).out,
        "seed log main main seed log main \n"
    );
    assert_eq!(status_of(&pod, "main")["restartCount"], 2);
    assert_eq!(status_of(&pod, "seed")["restartCount"], 1);
    assert_eq!(status_of(&pod, "log")["restartCount"], 1);
    let before = &status_of(&pod, "log")["lastState"]["terminated"];
    assert_eq!(before["reason"], "RestartingAllContainers", "{pod:#}");
    assert_eq!(condition(&pod, "AllContainersRestarting"), "False");
}

/// systemd-notify(1) is in no small image: busybox' nc cannot send datagrams either, so the socket is
/// spoken to from outside, through the container's root.
#[test]
fn a_sidecar_that_is_to_notify_is_started_when_it_has() {
    let podshim = Instance::new();
    let running = podshim.start(
        "apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {podshim.dev/notify: log}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: log
    image: alpine:latest
    restartPolicy: Always
    securityContext: {runAsUser: 1000}
    command: [sh, -c, 'echo $NOTIFY_SOCKET; sleep 1000']
  containers:
  - {name: main, image: alpine:latest, command: ['true']}
",
    );
    podshim.until("running", |p| status_of(p, "log")["state"]["running"].is_object());
    assert_eq!(status_of(&podshim.pod().unwrap(), "log")["started"], false);
    let socket = podshim.podshim(&["logs", "p", "-c", "log"]).out;
    assert_eq!(socket, "/dev/podshim-notify\n");
    let at = format!("/proc/{}/root{}", podshim.pids()["log"], socket.trim());
    let ours = UnixDatagram::unbound().unwrap();
    ours.send_to(b"STATUS=warming up\nMAINPID=1", &at).unwrap();
    ours.send_to(&[0xff; 6000], &at).unwrap();
    ours.send_to(b"READY=0", &at).unwrap();
    assert_eq!(status_of(&podshim.pod().unwrap(), "log")["started"], false);
    // A flood waits in the socket, costs the shim next to nothing, and the word is heard all the same.
    // Main's process waits to be executed and is still a copy of the shim, which is log's parent.
    let log = std::fs::read_to_string(format!("/proc/{}/status", podshim.pids()["log"])).unwrap();
    let shim = log.lines().find_map(|l| l.strip_prefix("PPid:\t")).unwrap().to_owned();
    let wake_ups = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (before, began) = (wake_ups(), Instant::now());
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(3) {
        ours.send_to(b"STATUS=again", &at).unwrap();
        sent += 1;
    }
    // Twenty looks a second, sixteen messages a look, and what the socket holds.
    assert!(sent <= 5 * 20 * 16, "{sent} messages were taken");
    let looks = wake_ups() - before;
    assert!(looks <= 5 * 60, "{looks} wake-ups for {sent} messages");
    ours.send_to(b"X=1\nREADY=1\n", &at).unwrap();
    let (code, text) = running.wait();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn servers_are_asked_at_the_pods_address_from_outside() {
    let podshim = Instance::new();
    let sidecar = |name: &str, listen: &str, port: u32| {
        format!(
            "  - name: {name}
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; mkdir /tmp/w; echo up >/tmp/w/health; sleep 0.05; httpd -p {listen}{port} -h /tmp/w; while :; do sleep 0.1; done']
    ports: [{{name: web, containerPort: {port}}}]
"
        )
    };
    let manifest = pod(&format!(
        "  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  initContainers:
{}    startupProbe: {{periodSeconds: 60, timeoutSeconds: 20, httpGet: {{path: /health, port: web}}}}
    lifecycle: {{preStop: {{httpGet: {{path: /nowhere, port: web}}}}}}
{}    startupProbe: {{periodSeconds: 60, timeoutSeconds: 20, tcpSocket: {{port: 8002}}}}
{}    readinessProbe: {{periodSeconds: 1, httpGet: {{path: /health, port: 8003}}}}
{}    readinessProbe: {{periodSeconds: 1, httpGet: {{path: /nothing, port: 8004}}}}
{}    readinessProbe: {{periodSeconds: 1, grpc: {{port: 8005}}}}
{}    readinessProbe: {{periodSeconds: 1, httpGet: {{port: nameless}}}}
  containers:
  - {{name: main, image: alpine:latest, command: [sleep, '4']}}
",
        sidecar("http", "", 8001),
        sidecar("tcp", "", 8002),
        sidecar("hidden", "127.0.0.1:", 8003),
        sidecar("missing", "", 8004),
        sidecar("nogrpc", "", 8005),
        sidecar("lost", "", 8006),
    ));
    let began = Instant::now();
    let (code, objects) = podshim.objects(&manifest);
    assert_eq!(code, 0, "{objects:#?}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let said = messages(&objects, "Unhealthy");
    let expect = |text: &str| assert!(said.iter().any(|m| m.contains(text)), "{text} in {said:#?}");
    expect(":8003/health\": dial tcp ");
    expect("connect: connection refused");
    expect("Readiness probe failed: HTTP probe failed with statuscode: 404");
    expect(
        "Readiness probe errored and resulted in unknown state: couldn't find port: \"nameless\"",
    );
    assert!(!said.iter().any(|m| m.starts_with("Startup") && !m.contains("refused")), "{said:#?}");
    let pod = of_kind(&objects, "Pod").pop().unwrap().clone();
    assert_eq!(status_of(&pod, "http")["restartCount"], 0);
    // Whatever is answered, the hook has run.
    assert_eq!(messages(&objects, "FailedPreStopHook"), [""; 0]);
}

#[test]
fn the_example_with_slow_probes_is_quick() {
    let podshim = Instance::new();
    let path = integration::sources().join("examples/probes.yaml");
    let said = podshim.podshim(&["run", "--pull=never", path.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    // Each listens 50 ms after its first attempt: had one waited for its next tick, that were a period.
    let started: Vec<f64> = ["first", "second", "third", "main"]
        .iter()
        .map(|name| {
            let is = |line: &&str| line.contains(&format!("s {name} ")) && line.contains("Started");
            let line = said.err.lines().find(is).unwrap_or_else(|| panic!("{name}: {}", said.err));
            line.trim().split('s').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(started.windows(2).all(|pair| pair[1] - pair[0] < 10.0), "{}", said.err);
    assert!(said.out.contains("main runs") && said.out.contains("draining"), "{}", said.out);
}
