//! Pods that are changed while they run, and sidecars that are stopped and started.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use integration::{Instance, Said, pod, status_of, until};
use nix::sys::signal::Signal;

/// A sidecar and two mains, of which one obeys.
fn shop(log: &str, app: &str, rest: &str) -> String {
    let serve = "command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']";
    pod(&format!(
        "  restartPolicy: Never
{rest}  volumes: [{{name: v, emptyDir: {{}}}}]
  initContainers:
  - {{name: init, image: alpine:latest, command: ['true']}}
  - {{name: log, image: alpine:latest, restartPolicy: Always, {serve}, volumeMounts: [{{name: v, mountPath: /v}}]{log}}}
  containers:
  - {{name: app, image: alpine:latest, {serve}, volumeMounts: [{{name: v, mountPath: /v}}]{app}}}
  - {{name: web, image: alpine:latest, {serve}}}
"
    ))
}

fn apply(podshim: &Instance, manifest: &str) -> Said {
    podshim.podshim(&["apply", "-f", &podshim.manifest(manifest)])
}

fn applied(podshim: &Instance, manifest: &str, what: &str) {
    let said = apply(podshim, manifest);
    assert_eq!((said.code, said.out.as_str()), (0, what), "{}", said.err);
}

fn ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn restarted(podshim: &Instance, container: &str, count: u64) {
    podshim.until(&format!("{container} restarted"), |pod| {
        status_of(pod, container)["restartCount"] == count && ready(pod)
    });
}

#[test]
fn a_changed_container_restarts_alone_whatever_the_policy_and_is_stopped_as_what_it_was() {
    let podshim = Instance::new();
    let hook = |word: &str| {
        format!(
            ", lifecycle: {{preStop: {{exec: {{command: [sh, -c, 'echo {word} >> /v/hook']}}}}}}"
        )
    };
    let running = podshim.start(&shop(&hook("first"), "", ""));
    podshim.until("ready", ready);
    let before = podshim.pids();

    applied(&podshim, &shop(&hook("first"), "", ""), "pod/p unchanged\n");
    assert_eq!(podshim.pids(), before);

    applied(&podshim, &shop(&hook("second"), "", ""), "pod/p configured\n");
    restarted(&podshim, "log", 1);
    let after = podshim.pids();
    assert_ne!(after["log"], before["log"]);
    assert_eq!((after["app"], after["web"]), (before["app"], before["web"]));

    // A main too, under Never; its environment is the new one.
    let env = ", env: [{name: WORD, value: new}]";
    applied(&podshim, &shop(&hook("second"), env, ""), "pod/p configured\n");
    restarted(&podshim, "app", 1);
    let last = podshim.pids();
    assert_eq!((last["log"], last["web"]), (after["log"], after["web"]));
    let said =
        podshim.podshim(&["exec", "p", "-c", "app", "--", "sh", "-c", "echo $WORD; cat /v/hook"]);
    assert_eq!(said.out, "new\nfirst\n", "{}", said.err);
    let said = podshim.podshim(&["get", "pod", "p", "-o", "yaml"]);
    assert!(said.out.contains("echo second") && said.out.contains("value: new"), "{}", said.out);

    let said = podshim.podshim(&["events", "p"]);
    for text in [
        "Init container log definition changed",
        "Container app definition changed, will be restarted",
    ] {
        assert!(said.out.contains(text), "{}", said.out);
    }
    for reader in [["timeline", "p"], ["explain", "p"]] {
        let said = podshim.podshim(&reader);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    // Read back, it is what runs.
    let yaml = podshim.podshim(&["get", "pod", "p", "-o", "yaml"]).out;
    assert!(yaml.contains("name: p"), "{yaml}");

    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().0, 143);
    podshim.nothing_is_left();
}

/// A file of the control group of a process, or of the pod's above it.
fn group_file(pid: i32, of_pod: bool, v1: (&str, &str), v2: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |wanted: &str| {
        let line = text.lines().find(|line| {
            line.split(':').nth(1).unwrap().split(',').any(|controller| controller == wanted)
        });
        line.unwrap().split(':').nth(2).unwrap().to_owned()
    };
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (root, path, file) = match unified {
        true => ("/sys/fs/cgroup".to_owned(), path(""), v2),
        false => (format!("/sys/fs/cgroup/{}", v1.0), path(v1.0), v1.1),
    };
    let mut group = PathBuf::from(format!("{root}{path}"));
    if of_pod {
        group.pop();
    }
    group.join(file)
}

/// Memory limit and processor time of a container, or of its pod.
fn limits(pid: i32, of_pod: bool) -> (String, String) {
    let memory = group_file(pid, of_pod, ("memory", "memory.limit_in_bytes"), "memory.max");
    let cpu = group_file(pid, of_pod, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let first = |text: String| text.split_whitespace().next().unwrap().to_owned();
    (first(read(memory)), first(read(cpu)))
}

fn sized(cpu: &str, memory: &str, policy: &str) -> String {
    let resources = |cpu: &str, memory: &str| {
        format!(
            "resources: {{limits: {{cpu: {cpu}, memory: {memory}}}, requests: {{cpu: 10m, memory: 8Mi}}}}"
        )
    };
    pod(&format!(
        "  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: app, image: alpine:latest, {}, command: [sh, -c, 'trap \"exit 0\" TERM; dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; while :; do sleep 0.1; done']{policy}}}
  - {{name: web, image: alpine:latest, {}, command: [sleep, '1000']}}
",
        resources(cpu, memory),
        resources("100m", "16Mi"),
    ))
}

#[test]
fn resources_change_in_place_and_what_the_kernel_cannot_give_is_refused() {
    const MIB: u64 = 1 << 20;
    let podshim = Instance::new();
    let running = podshim.start(&sized("200m", "64Mi", ""));
    podshim.until("ready", ready);
    until("40 MiB are in use", || {
        let said =
            podshim.podshim(&["exec", "p", "-c", "app", "--", "sh", "-c", "stat -c %s /dev/shm/x"]);
        if said.out.trim() == "41943040" { Ok(()) } else { Err(said.out) }
    });
    let pids = podshim.pids();
    let is = |memory: u64, cpu: u64| {
        let shown = |memory: u64, cpu: u64| ((memory * MIB).to_string(), cpu.to_string());
        assert_eq!(limits(pids["app"], false), shown(memory, cpu));
        assert_eq!(limits(pids["web"], false), shown(16, 10_000));
        assert_eq!(limits(pids["app"], true), shown(memory + 16, cpu + 10_000));
    };
    is(64, 20_000);
    // Up and down, both together and each against the other.
    for (cpu, memory, quota, mebibytes) in
        [("500m", "96Mi", 50_000, 96), ("150m", "128Mi", 15_000, 128), ("300m", "56Mi", 30_000, 56)]
    {
        applied(&podshim, &sized(cpu, memory, ""), "pod/p configured\n");
        is(mebibytes, quota);
    }
    let said = apply(&podshim, &sized("400m", "16Mi", ""));
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("memory limit of container \"app\" cannot become 16Mi: 4")
            && said.err.contains("Mi are in use"),
        "{}",
        said.err
    );
    is(56, 30_000);
    let pod = podshim.until("still ready", ready);
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["memory"], "56Mi");
    assert_eq!(status_of(&pod, "app")["restartCount"], 0);
    assert_eq!(podshim.pids(), pids);
    // As its manifest wants it, for memory only: with the restart comes room for less.
    let policy = ", resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]";
    applied(&podshim, &sized("200m", "56Mi", policy), "pod/p configured\n");
    assert_eq!(podshim.pids(), pids);
    applied(&podshim, &sized("200m", "48Mi", policy), "pod/p configured\n");
    restarted(&podshim, "app", 1);
    let now = podshim.pids();
    assert_eq!(now["web"], pids["web"]);
    until("the limits have followed", || {
        let seen = (limits(now["app"], false), limits(now["app"], true));
        let wanted = |memory: u64, cpu: &str| ((memory * MIB).to_string(), cpu.to_owned());
        if seen == (wanted(48, "20000"), wanted(64, "30000")) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    let said = podshim.podshim(&["events", "p"]);
    assert!(said.out.contains("Container app has other resources now"), "{}", said.out);
    running.signal(Signal::SIGTERM);
    running.wait();
    podshim.nothing_is_left();
}

#[test]
fn what_a_pod_is_cannot_be_changed_and_then_nothing_is() {
    let podshim = Instance::new();
    let running = podshim.start(&shop("", "", ""));
    podshim.until("ready", ready);
    let pids = podshim.pids();
    let env = ", env: [{name: A, value: b}]";
    let without = shop("", env, "").replace("name: web", "name: www");
    for (manifest, expected) in [
        (
            shop("", env, "  terminationGracePeriodSeconds: 3\n"),
            "spec.terminationGracePeriodSeconds: Forbidden",
        ),
        (shop("", env, "  hostNetwork: true\n"), "spec.hostNetwork: Forbidden"),
        (
            shop("", env, "").replace("emptyDir: {}", "emptyDir: {medium: Memory}"),
            "spec.volumes[0].emptyDir.medium: Forbidden",
        ),
        (
            shop("", env, "").replace("Policy: Never", "Policy: OnFailure"),
            "spec.restartPolicy: Forbidden",
        ),
        (
            without,
            "pod updates may not add or remove containers (added: \"www\"; removed: \"web\")",
        ),
        (shop("", ", resources: {limits: {cpu: 1}}", ""), "Pod QoS Class may not change"),
        (
            shop("", env, "").replace("name: p}", "name: q}"),
            "pods \"q\" does not run in namespace \"default\"; to run it: `podshim run",
        ),
        (shop("", ", image: 7", ""), "image"),
    ] {
        let said = apply(&podshim, &manifest);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{expected}");
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    let both =
        format!("{}---\n{}", shop("", env, ""), shop("", "", "").replace("name: p}", "name: q}"));
    assert_eq!(apply(&podshim, &both).code, 1);
    let job = "apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: m, image: alpine:latest}]}}}
";
    let said = apply(&podshim, job);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("Job \"j\": only pods are changed") && said.err.contains("podshim run"),
        "{}",
        said.err
    );

    assert_eq!(podshim.pids(), pids);
    applied(&podshim, &shop("", "", ""), "pod/p unchanged\n");

    // The deadline may come, and then the pod ends by it.
    applied(&podshim, &shop("", "", "  activeDeadlineSeconds: 500\n"), "pod/p configured\n");
    let said = apply(&podshim, &shop("", "", "  activeDeadlineSeconds: 501\n"));
    assert!(said.err.contains("must be less than or equal to previous value"), "{}", said.err);
    applied(&podshim, &shop("", "", "  activeDeadlineSeconds: 1\n"), "pod/p configured\n");
    assert_eq!(running.wait().0, 1);
    podshim.nothing_is_left();
}

#[test]
fn a_container_gets_another_image() {
    let podshim = Instance::new();
    podshim.load_variant("other:1", |config| {
        config["config"]["Env"] = serde_json::json!(["PATH=/bin", "WORD=other"]);
    });
    let running = podshim.start(&shop(", lifecycle: {preStop: {sleep: {seconds: 2}}}", "", ""));
    podshim.until("ready", ready);
    let before = podshim.pids();
    let first = status_of(&podshim.pod().unwrap(), "log")["imageID"].clone();
    for (args, expected) in [
        (["p", "nobody=other:1"], "unable to find container named \"nobody\""),
        (["p", "log=Other:1"], "\"Other:1\" is not an image's name"),
        (["p", "log"], "\"log\" is not CONTAINER=IMAGE"),
        (["q", "log=other:1"], "pods \"q\" not found"),
    ] {
        let said = podshim.podshim(&[&["set", "image"], &args[..]].concat());
        assert_eq!(said.code, 1);
        assert!(said.err.contains(expected), "{}", said.err);
    }
    let said = podshim.podshim(&["set", "image", "pod/p", "log=other:1"]);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/p configured\n"), "{}", said.err);
    restarted(&podshim, "log", 1);
    let pod = podshim.pod().unwrap();
    let log = status_of(&pod, "log");
    assert_eq!(log["image"], "other:1");
    assert_ne!(log["imageID"], first);
    assert_eq!(status_of(&pod, "app")["imageID"], first);
    let said = podshim.podshim(&["exec", "p", "-c", "log", "--", "sh", "-c", "echo $WORD"]);
    assert_eq!(said.out, "other\n", "{}", said.err);
    let after = podshim.pids();
    assert_eq!((after["app"], after["web"]), (before["app"], before["web"]));
    // An image that is nowhere: only who wants it waits, and the old one brings it back.
    podshim.podshim(&["set", "image", "p", "log=nowhere:1"]);
    let said = podshim.podshim(&["rmi", "other:1"]);
    assert!(said.code == 1 && said.err.contains("is used by pod"), "{}", said.err);
    let pod = podshim.until("waits for its image", |pod| {
        status_of(pod, "log")["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
    assert_eq!(status_of(&pod, "app")["ready"], true);
    let said = podshim.podshim(&["rmi", "other:1"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.podshim(&["set", "image", "p", "log=alpine:latest"]);
    restarted(&podshim, "log", 2);
    assert_eq!(podshim.pids()["app"], before["app"]);
    running.signal(Signal::SIGTERM);
    running.wait();
    podshim.nothing_is_left();
}

#[test]
fn a_stopped_sidecar_stays_down_until_it_is_started_and_the_pod_completes_without_it() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(
        "  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: log, image: alpine:latest, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}
  containers:
  - {name: app, image: alpine:latest, command: [sh, -c, 'until test -e /v/end; do sleep 0.1; done'], volumeMounts: [{name: v, mountPath: /v}]}
",
    ));
    podshim.until("ready", ready);
    let before = podshim.pids();
    for (args, expected) in [
        (
            ["stop", "p", "-c", "app"],
            "container \"app\" of pod \"p\": only sidecars can be stopped",
        ),
        (["start", "p", "-c", "log"], "nobody has stopped it"),
        (["stop", "p", "-c", "lag"], "has no container \"lag\""),
    ] {
        let said = podshim.podshim(&args);
        assert_eq!(said.code, 1);
        assert!(said.err.contains(expected), "{}", said.err);
    }
    let stop = || {
        assert_eq!(podshim.podshim(&["stop", "p", "-c", "log"]).code, 0);
        podshim.until("down", |pod| {
            let waiting = &status_of(pod, "log")["state"]["waiting"];
            waiting["reason"] == "Stopped"
                && waiting["message"] == "stopped by a user; `podshim start` starts it again"
                && !ready(pod)
        })
    };
    let pod = stop();
    assert_eq!(status_of(&pod, "log")["lastState"]["terminated"]["exitCode"], 0);
    assert_eq!(pod["status"]["phase"], "Running");
    let said = podshim.podshim(&["stop", "p", "-c", "log"]);
    assert!(said.err.contains("it is stopped already"), "{}", said.err);
    let said = podshim.podshim(&["explain", "p"]);
    assert!(said.out.contains("was stopped by a user"), "{}", said.out);

    assert_eq!(podshim.podshim(&["start", "p", "-c", "log"]).code, 0);
    restarted(&podshim, "log", 1);
    let after = podshim.pids();
    assert_ne!(after["log"], before["log"]);
    assert_eq!(after["app"], before["app"]);

    stop();
    podshim.podshim(&["exec", "p", "-c", "app", "--", "touch", "/v/end"]);
    assert_eq!(running.wait().0, 0);
    podshim.nothing_is_left();
}
