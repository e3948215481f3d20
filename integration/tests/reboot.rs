//! Everything of the pods that lived is gone, as after a reboot of the host: what is on disk is enough to go
//! on. (`scripts/package.d/check` boots a real machine anew.)

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use integration::api::Daemon;
use integration::{Instance, is_ready, pod, run, status_of, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// One of each kind; all write into a volume on disk and one in memory.
const CHAIN: &str = "  terminationGracePeriodSeconds: 1
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  initContainers:
  - name: seed
    image: alpine:latest
    imagePullPolicy: Never
    command: [sh, -c, 'echo seed >> /disk/ran; echo seed >> /memory/ran']
    volumeMounts: &mounts [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  - name: side
    image: alpine:latest
    imagePullPolicy: Never
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; echo side >> /disk/ran; while :; do sleep 0.1; done']
    startupProbe: {exec: {command: [grep, side, /disk/ran]}, periodSeconds: 1, timeoutSeconds: 20}
    volumeMounts: *mounts
  containers:
  - name: main
    image: alpine:latest
    imagePullPolicy: Never
    command: [sh, -c, 'trap \"exit 0\" TERM; echo main >> /disk/ran; echo in memory: $(cat /memory/ran); while :; do sleep 0.1; done']
    volumeMounts: *mounts
";

const PODS: &str = "/api/v1/namespaces/default/pods";

/// The processes in a pod's control groups.
fn containers(podshim: &Instance) -> Vec<i32> {
    let pods = fs::read_dir(podshim.state().join("pods")).unwrap();
    let uids: Vec<String> =
        pods.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let is_in = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        uids.iter().any(|uid| groups.contains(&format!("pod{uid}/")))
    };
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_in).collect()
}

/// What a reboot takes: processes, and what lay in memory. `survivors` are left, as if only the state
/// directory had been emptied.
fn lose<'a>(podshim: &'a Instance, daemon: Daemon<'a>, survivors: bool) {
    daemon.kill();
    podshim.kill_shims();
    if !survivors {
        until("they are gone", || {
            let left = containers(podshim);
            for pid in &left {
                // One that has ended in this moment needs no killing.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
    run(&format!("umount -R -l {}", podshim.state().display()));
    fs::remove_dir_all(podshim.state()).unwrap();
}

fn restarts(pod: &Value) -> [u64; 3] {
    ["seed", "side", "main"].map(|name| status_of(pod, name)["restartCount"].as_u64().unwrap())
}

/// What happened to containers since the pod was lost last: verb and container, in order.
fn since_lost(podshim: &Instance, uid: &str) -> Vec<(String, u64)> {
    let facts = podshim.facts(uid);
    let lost = facts.iter().rposition(|fact| fact["fact"] == "sandboxLost").expect("lost");
    let told = facts[lost..].iter().filter_map(|fact| {
        let verb = fact["fact"].as_str().unwrap();
        let is_told = matches!(verb, "started" | "exited");
        is_told.then(|| (verb.to_owned(), fact["c"].as_u64().unwrap()))
    });
    told.collect()
}

fn ran(podshim: &Instance, uid: &str) -> String {
    let volumes = podshim.root().join("pods").join(uid).join("volumes/kubernetes.io~empty-dir");
    fs::read_to_string(volumes.join("disk/ran")).unwrap()
}

#[test]
fn a_pod_goes_on_after_a_reboot_with_its_counts_and_its_volumes_in_its_order() {
    let podshim = Instance::new();
    let mut daemon = podshim.daemon();
    podshim.apply(&pod(CHAIN));
    let first = podshim.until("ready", is_ready);
    let uid = first["metadata"]["uid"].as_str().unwrap().to_owned();
    let said = podshim.podshim(&["restart", "p", "-c", "main"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.until("restarted", |pod| is_ready(pod) && restarts(pod) == [0, 0, 1]);
    // It is stored as it is now: ready, which it is not after a boot.
    podshim.apply(&pod(CHAIN).replace("metadata: {", "metadata: {labels: {of: chain}, "));
    assert!(is_ready(&podshim.pod().unwrap()));
    for n in 1..=2 {
        lose(&podshim, daemon, n == 1);
        // It is not garbage.
        let said = podshim.podshim(&["prune"]);
        assert!(said.code == 0 && !said.out.contains("removed"), "{} {}", said.out, said.err);
        daemon = podshim.daemon();
        let (code, now) = daemon.ask("GET", &format!("{PODS}/p"), "");
        assert!(code == 200 && (!is_ready(&now) || restarts(&now)[0] == n), "{now:#}");
        let again = podshim.until("ready again", is_ready);
        assert_eq!(again["metadata"]["uid"], uid.as_str());
        assert_eq!(restarts(&again), [n, n, n + 1], "{again:#}");
        assert_eq!(again["status"]["startTime"], first["status"]["startTime"]);
        for name in ["side", "main"] {
            let last = &status_of(&again, name)["lastState"]["terminated"];
            assert_eq!(last["exitCode"], 137, "{again:#}");
            assert_eq!(last["reason"], "ContainerStatusUnknown", "{again:#}");
        }
        let told = since_lost(&podshim, &uid);
        let told: Vec<_> = told.iter().map(|(verb, c)| (verb.as_str(), *c)).collect();
        assert_eq!(told, [("started", 0), ("exited", 0), ("started", 1), ("started", 2)]);
    }
    let chain = "seed\nside\nmain\n";
    assert_eq!(ran(&podshim, &uid), format!("{chain}main\n{chain}{chain}"));
    // What lay in memory began anew each time.
    let said = podshim.podshim(&["logs", "p", "-c", "main"]);
    assert_eq!(said.out, "in memory: seed\n", "{}", said.err);
    let said = podshim.podshim(&["logs", "p", "-c", "main", "--previous"]);
    assert_eq!(said.out, "in memory: seed\n", "{}", said.err);
    let said = podshim.podshim(&["events", "p"]);
    let changed = "Pod sandbox changed, it will be killed and re-created.";
    assert!(said.out.contains("SandboxChanged") && said.out.contains(changed), "{}", said.out);
    // What is known is known to a shim that comes after.
    podshim.kill_shims();
    let adopted = podshim.until("adopted", |pod| is_ready(pod) && restarts(pod) == [2, 2, 3]);
    assert_eq!(adopted["status"]["startTime"], first["status"]["startTime"]);
    let said = podshim.podshim(&["delete", "pod", "p"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.end_daemon(daemon);
}

fn job(name: &str, policy: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  activeDeadlineSeconds: 300
  template:
    spec:
      restartPolicy: {policy}
      terminationGracePeriodSeconds: 1
      volumes: [{{name: disk, emptyDir: {{}}}}]
      containers:
      - name: main
        image: alpine:latest
        imagePullPolicy: Never
        command: [sh, -c, 'echo >> /disk/ran; until [ -e /marks/go ]; do sleep 0.05; done; wc -l < /disk/ran']
        volumeMounts: [{{name: disk, mountPath: /disk}}, {{name: marks, mountPath: /marks}}]
"
    )
}

/// Jobs resume: one whose pods may not run again counts the lost one as failed and makes another.
#[test]
fn jobs_and_deployments_go_on_after_a_reboot() {
    let podshim = Instance::new();
    let marks = podshim.root().join("marks");
    fs::create_dir_all(&marks).unwrap();
    let volume = format!("{{name: marks, hostPath: {{path: {}}}}}, {{name: disk", marks.display());
    let of = |name, policy| {
        job(name, policy).replace("{name: disk, emptyDir", &format!("{volume}, emptyDir"))
    };
    let daemon = podshim.daemon();
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}
";
    let all = [of("never", "Never"), of("again", "OnFailure"), deployment.to_owned()].join("---\n");
    podshim.apply(&all);
    let names = |pods: &[Value]| {
        let mut names: Vec<_> =
            pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let of_job = |pods: &[Value], job: &str| {
        let is = |pod: &&Value| pod["metadata"]["labels"]["job-name"] == job;
        pods.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let before = podshim.until_pods("all run", |pods| pods.len() == 4 && pods.iter().all(is_ready));
    let stored = |daemon: &Daemon<'_>| {
        daemon.ask("GET", PODS, "").1["items"].as_array().cloned().unwrap_or_default()
    };
    lose(&podshim, daemon, false);
    let daemon = podshim.daemon();
    let again =
        podshim.until_pods("again", |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 4);
    let [lost] = &of_job(&before, "never")[..] else { panic!("{before:#?}") };
    let stays = |pods: &[Value]| {
        names(pods).into_iter().filter(|name| !name.starts_with("never-")).collect::<Vec<_>>()
    };
    assert_eq!(stays(&before), stays(&again));
    let all = stored(&daemon);
    let lost = all.iter().find(|pod| pod["metadata"]["uid"] == lost["metadata"]["uid"]).unwrap();
    assert_eq!(lost["status"]["phase"], "Failed", "{lost:#}");
    let ended = &status_of(lost, "main")["state"]["terminated"];
    assert_eq!(ended["reason"], "ContainerStatusUnknown", "{lost:#}");
    fs::write(marks.join("go"), "").unwrap();
    for (job, failed, lines) in [("never", json!(1), "1\n"), ("again", json!(0), "2\n")] {
        let said = podshim.podshim(&[
            "wait",
            "--for=condition=complete",
            "--timeout=60s",
            &format!("job/{job}"),
        ]);
        assert_eq!(said.code, 0, "{job}: {}", said.err);
        let (_, object) =
            daemon.ask("GET", &format!("/apis/batch/v1/namespaces/default/jobs/{job}"), "");
        assert_eq!(object["status"]["failed"], failed, "{object:#}");
        assert_eq!(object["status"]["succeeded"], 1, "{object:#}");
        let pods = of_job(&stored(&daemon), job);
        let done = pods.iter().find(|pod| pod["status"]["phase"] == "Succeeded").unwrap();
        let said = podshim.podshim(&["logs", done["metadata"]["name"].as_str().unwrap()]);
        assert_eq!(said.out, lines, "{job}: {}", said.err);
    }
    for what in [["job", "never"], ["job", "again"], ["deployment", "web"]] {
        let said = podshim.podshim(&["delete", what[0], what[1]]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    podshim.end_daemon(daemon);
}

#[test]
fn what_was_deleted_before_a_reboot_does_not_come_back() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let stubborn = CHAIN
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 60")
        .replace("trap \"exit 0\" TERM; echo main", "trap \"\" TERM; echo main");
    assert!(stubborn.contains("trap \"\" TERM"), "{stubborn}");
    podshim.apply(&pod(&stubborn));
    let uid = podshim.until("ready", is_ready)["metadata"]["uid"].as_str().unwrap().to_owned();
    let said = podshim.podshim(&["delete", "pod", "p", "--no-wait"]);
    assert_eq!(said.code, 0, "{}", said.err);
    lose(&podshim, daemon, true);
    let daemon = podshim.daemon();
    until("it is gone", || match daemon.ask("GET", &format!("{PODS}/p"), "") {
        (404, _) => Ok(()),
        (_, pod) => Err(pod.to_string()),
    });
    assert!(!podshim.root().join("pods").join(uid).exists());
    podshim.end_daemon(daemon);
}

/// A record that changes nothing: it is of a container that the pod does not have.
fn filler() -> String {
    let fact = json!({"fact": "probeErrored", "c": 99, "inc": 0, "kind": "Startup", "message": "x".repeat(900)});
    let body = json!({"mono": 1, "wall": 1, "fact": fact}).to_string();
    format!("{:08x} {body}\n", crc32fast::hash(body.as_bytes()))
}

/// A pod to which much has happened: what its journal forgets is known all the same.
#[test]
fn a_long_journal_is_shortened_and_nothing_of_it_is_lost() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&pod(CHAIN));
    let pod = podshim.until("ready", is_ready);
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let journal = podshim.root().join("pods").join(&uid).join("journal");
    let length = || fs::metadata(&journal).unwrap().len();
    daemon.kill();
    podshim.kill_shims();
    let filler = filler();
    let mut text = fs::read_to_string(&journal).unwrap();
    while text.len() < 253 << 10 {
        text += &filler;
    }
    fs::write(&journal, text).unwrap();
    let daemon = podshim.daemon();
    podshim.until("adopted", is_ready);
    let (mut count, mut longest) = (0, length());
    assert!(longest > 253 << 10, "{longest}");
    while length() >= longest {
        longest = length();
        count += 1;
        assert!(count < 100, "it is {longest} long");
        let said = podshim.podshim(&["restart", "p", "-c", "main"]);
        assert_eq!(said.code, 0, "{}", said.err);
        podshim.until("restarted", |pod| is_ready(pod) && restarts(pod) == [0, 0, count]);
    }
    assert!(longest < 300 << 10, "{longest}");
    let (events, pid) = (podshim.podshim(&["events", "p", "-o", "json"]).out, podshim.shim());
    podshim.kill_shims();
    podshim.until("adopted", |pod| is_ready(pod) && restarts(pod) == [0, 0, count]);
    assert_ne!(podshim.shim(), pid);
    let told = |text: &str| {
        let events = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let events = events.map(Result::unwrap).filter(|e| e["reason"] != "Adopted");
        events.map(|e| (e["reason"].clone(), e["count"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(told(&podshim.podshim(&["events", "p", "-o", "json"]).out), told(&events));
    let said = podshim.podshim(&["timeline", "p"]);
    assert!(said.code == 0 && said.out.contains("main"), "{} {}", said.out, said.err);
    let said = podshim.podshim(&["delete", "pod", "p"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.end_daemon(daemon);
}

/// Whoever ends all processes (a host that shuts down) stops the pods in order, and they go on after it.
#[test]
fn a_pod_whose_shim_is_told_to_end_is_stopped_in_order_and_goes_on_with_the_next_daemon() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(&pod(CHAIN));
    let first = podshim.until("ready", is_ready);
    let uid = first["metadata"]["uid"].as_str().unwrap().to_owned();
    daemon.kill();
    kill(Pid::from_raw(podshim.shim()), Signal::SIGTERM).unwrap();
    until("nothing of it lives", || {
        if podshim.state().exists() { Err("it does") } else { Ok(()) }.map_err(str::to_owned)
    });
    let journal = podshim.root().join("pods").join(&uid).join("journal");
    let told = fs::read_to_string(&journal).unwrap();
    let exited: Vec<&str> = told.lines().filter(|line| line.contains("\"exited\"")).collect();
    assert!(
        exited.len() == 3 && exited[1].contains("\"c\":2") && exited[2].contains("\"c\":1"),
        "{exited:#?}"
    );
    let daemon = podshim.daemon();
    let again = podshim.until("ready again", is_ready);
    assert_eq!(again["metadata"]["uid"], uid.as_str());
    assert_eq!(restarts(&again), [1, 1, 1]);
    let last = &status_of(&again, "main")["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(0), &json!("Completed")));
    assert_eq!(ran(&podshim, &uid), "seed\nside\nmain\nseed\nside\nmain\n");
    // With a daemon that lives on it is started again, after a while.
    kill(Pid::from_raw(podshim.shim()), Signal::SIGTERM).unwrap();
    until("it is explained", || {
        let said = podshim.podshim(&["explain", "p"]);
        let wanted = "nothing of it runs at this moment: it was stopped from outside";
        if said.out.contains(wanted) { Ok(()) } else { Err(format!("{}{}", said.out, said.err)) }
    });
    podshim.until("ready once more", |pod| is_ready(pod) && restarts(pod) == [2, 2, 2]);
    let said = podshim.podshim(&["delete", "pod", "p"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.end_daemon(daemon);
}
