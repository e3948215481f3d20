//! Looking at pods and waiting for them: `get`, `wait`, `explain` and `events` as kubectl's users know
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::process::{Child, Stdio};

use integration::{Instance, Running, Said, kill_now, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The main waits for the sidecar, which is started once it has a file `/ready`.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web, 'example.com/tier': front}}
spec:
  terminationGracePeriodSeconds: 2
  initContainers:
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sleep, '1000']
    startupProbe: {periodSeconds: 1, failureThreshold: 1000, exec: {command: [cat, /ready]}}
  containers:
  - {name: main, image: alpine:latest, command: [sleep, '1000']}
";

/// A pod whose main ends with `code` when it has a file `/go`.
fn ending(name: &str, namespace: &str, code: u32) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: main, image: alpine:latest, command: [sh, -c, 'while [ ! -e /go ]; do sleep 0.05; done; exit {code}']}}
"
    )
}

fn ok(podshim: &Instance, args: &[&str]) -> String {
    let said = podshim.podshim(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}

/// Waits until the pod `p` is there and its sidecar runs.
fn until_side_runs(podshim: &Instance) {
    ok(podshim, &["wait", "p", "--for=create"]);
    let path = "--for=jsonpath={.status.initContainerStatuses[?(@.name==\"side\")].state.running}";
    ok(podshim, &["wait", "pod", "p", path]);
}

/// The shim itself, and not what it forked: the child of its `podshim run`.
fn end(running: Running<'_>) {
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().0, 130);
}

/// Starts a command and waits until it hears the pod's shim.
fn listening(podshim: &Instance, args: &[&str]) -> Child {
    let mut child =
        podshim.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it listens", || {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{args:?} ended with {status}");
        }
        let proc = format!("/proc/{}", child.id());
        let fds = fs::read_dir(format!("{proc}/fd")).unwrap().flatten();
        let connected = fds
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|to| to.to_string_lossy().starts_with("socket:"));
        let sleeps = fs::read_to_string(format!("{proc}/stat")).unwrap().contains(") S ");
        if connected && sleeps { Ok(()) } else { Err("not yet") }
    });
    child
}

fn said(child: Child) -> Said {
    let pid = i32::try_from(child.id()).unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    let output = end.recv_timeout(integration::PATIENCE).unwrap_or_else(|_| {
        kill_now(pid);
        panic!("it does not end: {:?}", end.recv());
    });
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_wait_ends_when_its_condition_is_met_and_not_before() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    assert_eq!(ok(&podshim, &["wait", "p", "--for=create"]), "pod/p condition met\n");
    let ready = ["wait", "p", "--for=condition=Ready", "--timeout=10m"];
    let mut waiting = listening(&podshim, &ready);
    ok(&podshim, &["wait", "pod/p", "--for=condition=ready=FALSE"]);
    until_side_runs(&podshim);
    assert!(waiting.try_wait().unwrap().is_none(), "it is not ready, and the wait has ended");

    for (args, err) in [
        (
            &["wait", "p", "--for=condition=Ready", "--timeout=0"][..],
            "error: condition not met for pods/p\n",
        ),
        (&["wait", "p", "--for=delete", "--timeout=0s"], "error: condition not met for pods/p\n"),
        (
            &["wait", "p", "--for=condition=Ready", "--timeout=300ms"],
            "error: timed out waiting for the condition on pods/p\n",
        ),
        (
            &["wait", "p", "--for=jsonpath={.status.conditions[*].type}=Ready"],
            "error: pods/p: given jsonpath expression matches more than one value\n",
        ),
    ] {
        let said = podshim.podshim(args);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (1, "", err), "{args:?}");
    }
    ok(&podshim, &["exec", "p", "-c", "side", "--", "touch", "/ready"]);
    let said = said(waiting);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/p condition met\n"), "{}", said.err);
    let template = "{.status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(ok(&podshim, &["get", "pod", "p", "-o", &format!("jsonpath={template}")]), "True");
    ok(&podshim, &["wait", "p", "--for=condition=Ready", "--timeout", "-1s"]);
    end(running);
}

#[test]
fn who_waits_for_an_end_hears_of_it_and_who_waits_for_more_hears_that_it_cannot_come() {
    let podshim = Instance::new();
    let running = podshim.start(&ending("p", "default", 0));
    ok(&podshim, &["wait", "p", "--for=create"]);
    ok(&podshim, &["wait", "p", "--for=jsonpath={.status.phase}=Running"]);
    let wait = |condition: &str| listening(&podshim, &["wait", "p", condition, "--timeout", "10m"]);
    let succeeded = wait("--for=jsonpath={.status.phase}=Succeeded");
    let gone = wait("--for=delete");
    let never = wait("--for=condition=Ready=Unknown");
    ok(&podshim, &["exec", "pod/p", "--", "touch", "/go"]);
    for waiting in [succeeded, gone] {
        let said = said(waiting);
        assert_eq!((said.code, said.out.as_str()), (0, "pod/p condition met\n"), "{}", said.err);
    }
    // Who was told that it is gone finds nothing of it.
    assert_eq!(podshim.podshim(&["get", "pods"]).err, "No resources found in default namespace.\n");
    let never = said(never);
    let why = "error: pods/p ended before the condition was met; its last phase was Succeeded\n";
    assert_eq!((never.code, never.out.as_str(), never.err.as_str()), (1, "", why));
    assert_eq!(running.wait().0, 0);

    let absent = podshim.podshim(&["wait", "p", "--for=delete"]);
    assert_eq!((absent.code, absent.out.as_str(), absent.err.as_str()), (0, "", ""));
    for (args, why) in [
        (&["wait", "p", "--for=condition=Ready"][..], "pods \"p\" not found"),
        (&["wait", "--all", "--for=condition=Ready"], "error: no matching resources found"),
        (
            &["wait", "p", "--for=create", "--timeout=100ms"],
            "error: timed out waiting for the condition on pods/p",
        ),
        (&["wait", "p", "--for=Ready"], "unrecognized condition"),
        (&["wait", "p", "--for=jsonpath={.status.phase"], "is not closed"),
        (&["wait", "p", "--for=delete", "--timeout=30"], "has no unit"),
        (&["wait", "job/p", "--for=delete"], "no daemon listens"),
        (&["wait", "node/p", "--for=delete"], "only pods"),
        (&["wait", "--for=delete"], "required"),
        (&["wait", "p", "--all", "--for=delete"], "not both"),
    ] {
        let said = podshim.podshim(args);
        assert_eq!(said.code, 1, "{args:?}: {}", said.err);
        assert!(said.err.contains(why), "{args:?}: {}", said.err);
    }
}

#[test]
fn several_pods_are_waited_for_and_chosen_by_name_label_and_namespace() {
    let podshim = Instance::new();
    let pods = [ending("a", "default", 0), ending("b", "default", 0), ending("c", "other", 0)];
    let running = podshim.start(&pods.join("---\n"));
    let running_phase = "--for=jsonpath={.status.phase}=Running";
    ok(&podshim, &["wait", "b", "a", "--for=create"]);
    let met = ok(&podshim, &["wait", "a", "b", running_phase]);
    let mut lines: Vec<&str> = met.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["pod/a condition met", "pod/b condition met"]);
    assert_eq!(ok(&podshim, &["wait", "pods", "--all", running_phase]).lines().count(), 2);
    assert_eq!(ok(&podshim, &["wait", "-l", "app=b", running_phase]), "pod/b condition met\n");
    ok(&podshim, &["wait", "c", "-n", "other", "--for=create"]);
    ok(&podshim, &["wait", "c", "-n", "other", running_phase]);

    for (args, names) in [
        (&["get", "pods"][..], "pod/a pod/b"),
        (&["get", "pods", "-A"], "pod/a pod/b pod/c"),
        (&["get", "po", "-n", "other"], "pod/c"),
        (&["get", "pod", "b", "a"], "pod/b pod/a"),
        (&["get", "pod/b"], "pod/b"),
        (&["get", "pods", "-l", "app in (a, c)"], "pod/a"),
        (&["get", "pods", "-A", "-l", "app!=a,app"], "pod/b pod/c"),
        (&["get", "pods", "-l", "none"], ""),
    ] {
        let said = ok(&podshim, &[args, &["-o", "name"]].concat());
        assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), names, "{args:?}");
    }
    let nowhere = podshim.podshim(&["get", "pods", "-n", "empty"]);
    assert_eq!(
        nowhere.err,
        "No resources found in empty namespace. (3 in other namespaces: -A shows them)\n"
    );
    let some = podshim.podshim(&["get", "pods", "a", "nobody", "-o", "name"]);
    assert_eq!((some.code, some.out.as_str()), (1, "pod/a\n"));
    assert!(
        some.err.contains("pods \"nobody\" not found in namespace \"default\""),
        "{}",
        some.err
    );
    for args in [
        &["get", "pods", "-o", "table"][..],
        &["get", "pods", "-o", "jsonpath={.a"],
        &["get", "pods", "-l", "a in b"],
        &["get", "pods", "a", "-A"],
        &["get", "pods", "a", "-l", "app"],
    ] {
        let said = podshim.podshim(args);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{args:?}");
    }
    assert_eq!(
        ok(
            &podshim,
            &[
                "get",
                "pods",
                "-A",
                "-o",
                "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.phase}{\"\\n\"}{end}"
            ]
        ),
        "default/a Running\ndefault/b Running\nother/c Running\n"
    );
    end(running);
}

#[test]
fn objects_are_kubernetes_objects_and_tables_are_kubectls() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    until_side_runs(&podshim);
    let object = |args: &[&str]| -> Value { serde_json::from_str(&ok(&podshim, args)).unwrap() };
    for ready in [false, true] {
        if ready {
            ok(&podshim, &["exec", "p", "-c", "side", "--", "touch", "/ready"]);
            ok(&podshim, &["wait", "p", "--for=condition=Ready"]);
        }
        let pod = object(&["get", "pod", "p", "-o", "json"]);
        let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), pod);
        let list = object(&["get", "pods", "-o", "json"]);
        assert_eq!((&list["kind"], &list["apiVersion"]), (&"List".into(), &"v1".into()));
        assert_eq!(list["items"][0]["metadata"]["uid"], pod["metadata"]["uid"]);
    }
    // What is printed as YAML is a manifest again.
    let yaml = ok(&podshim, &["get", "pod", "p", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    ok(&podshim, &["check", &podshim.manifest(&yaml)]);
    assert!(ok(&podshim, &["get", "pods", "-o", "yaml"]).contains("\nkind: List\n"));

    let node = nix::unistd::gethostname().unwrap().into_string().unwrap().to_lowercase();
    let ip = object(&["get", "pod", "p", "-o", "json"])["status"]["podIP"].clone();
    let rows = |args: &[&str]| -> Vec<Vec<String>> {
        let words = |line: &str| {
            line.split("   ").map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
        };
        ok(&podshim, args).lines().map(words).collect()
    };
    let wide = rows(&["get", "pods", "-o", "wide", "-A"]);
    let head = [
        "NAMESPACE",
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED NODE",
        "READINESS GATES",
    ];
    assert_eq!(wide[0], head);
    let ip = ip.as_str().unwrap_or("<none>");
    assert_eq!(wide[1][..5], ["default", "p", "2/2", "Running", "0"]);
    assert_eq!(wide[1][6..], [ip, &node, "<none>", "<none>"]);
    let bare = rows(&["get", "pods", "--no-headers"]);
    assert_eq!((bare.len(), bare[0][0].as_str()), (1, "p"));
    end(running);
}

#[test]
fn a_watch_prints_each_change_and_what_is_new_and_what_goes() {
    let podshim = Instance::new();
    let dir = tempfile::tempdir().unwrap();
    let (table, log) = (dir.path().join("pods"), dir.path().join("events"));
    let watch = |args: &[&str], to| {
        podshim.command(args).stdout(File::create(to).unwrap()).spawn().unwrap()
    };
    let mut watching =
        [watch(&["get", "pods", "-w"], &table), watch(&["events", "-w", "--types=Warning"], &log)];
    let until_shown = |path, wanted: &str| {
        until(wanted, || {
            let text = fs::read_to_string(path).unwrap();
            let squeezed: Vec<String> =
                text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            if squeezed.iter().any(|l| l.contains(wanted)) { Ok(()) } else { Err(text) }
        });
    };
    let running = podshim.start(POD);
    until_shown(&table, "p 0/2 Init:0/1");
    // Repeated, and counted.
    until_shown(&log, "(x2 over");
    ok(&podshim, &["exec", "p", "-c", "side", "--", "touch", "/ready"]);
    until_shown(&table, "p 2/2 Running 0");
    ok(&podshim, &["delete", "pod/p", "--no-wait"]);
    until_shown(&table, "Terminating 0");
    running.wait();
    // The next one of this name is another one.
    let running = podshim.start(POD);
    let twice = || {
        let text = fs::read_to_string(&table).unwrap();
        if text.matches("Init:0/1").count() > 1 { Ok(()) } else { Err(text) }
    };
    until("the next pod is shown", twice);
    for child in &mut watching {
        assert!(child.try_wait().unwrap().is_none(), "a watch has ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let log = fs::read_to_string(&log).unwrap();
    let rows: Vec<&str> = log.lines().skip(1).collect();
    assert!(rows.iter().all(|row| row.contains("Warning   Unhealthy   Pod/p/side")), "{log}");
    assert_eq!(log.matches("LAST SEEN").count(), 1, "{log}");
    end(running);
}

#[test]
fn what_a_pod_waits_for_is_explained_while_it_lives_and_what_is_known_afterwards() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    ok(&podshim, &["wait", "p", "--for=create"]);
    let explained = |wanted: &[&str]| {
        until(&format!("{wanted:?} is explained"), || {
            let said = podshim.podshim(&["explain", "p"]);
            let all = said.code == 0 && wanted.iter().all(|text| said.out.contains(text));
            if all { Ok(said.out) } else { Err(format!("{said:?}")) }
        })
    };
    let text = explained(&[
        "pod p: Init:0/1, ready 0/2, restarts 0, age ",
        "\nside: startup probe of \"side\" has not succeeded (",
        "can't open '/ready'",
        "\nmain: waits for sidecar \"side\" to be started; since ",
    ]);
    let side = text.lines().find(|line| line.starts_with("side:")).unwrap();
    assert!(side.contains("; since "), "{text}");
    explained(&["; next attempt "]);
    let events = ok(&podshim, &["describe", "pod", "p"]);
    let counted = |line: &&str| line.contains("Unhealthy") && line.contains("(x");
    until("the failures are counted", || {
        let text = ok(&podshim, &["describe", "pod", "p"]);
        if text.lines().filter(counted).count() == 1 { Ok(()) } else { Err(text) }
    });
    assert!(events.contains("\n  Type "), "{events}");

    ok(&podshim, &["exec", "p", "-c", "side", "--", "touch", "/ready"]);
    ok(&podshim, &["wait", "p", "--for=condition=Ready"]);
    let text = ok(&podshim, &["why", "pod/p"]);
    assert!(text.ends_with("\nnothing is waiting: side, main running and ready\n"), "{text}");
    // A main that exits goes into back-off at once the second time.
    kill_now(podshim.pids()["main"]);
    ok(&podshim, &["wait", "p", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"]);
    ok(&podshim, &["wait", "p", "--for=condition=Ready"]);
    kill_now(podshim.pids()["main"]);
    explained(&[
        "\nmain: back-off 10s restarting failed container; since ",
        "; next try in ",
        "\n  last run: Error, exit code 137, ",
    ]);

    // Its shim and keeper are killed while its owner cannot see it.
    running.signal(Signal::SIGSTOP);
    podshim.kill_shims();
    let text = explained(&[
        "its shim does not answer",
        "removes the pod\n",
        "when it was last heard of: ",
    ]);
    assert!(text.contains("side running and ready; main waited (CrashLoopBackOff)"), "{text}");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    assert_eq!(running.wait().0, 143);
    let text = explained(&["pod p has ended", "(main, side)", "`podshim logs p -c CONTAINER`"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let unknown = podshim.podshim(&["explain", "nobody"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""));
    assert!(unknown.err.contains("not found"), "{}", unknown.err);
}

#[test]
fn who_waits_for_the_removal_of_a_pod_whose_shim_died_waits_for_its_remains() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    until_side_runs(&podshim);
    let waiting = listening(&podshim, &["wait", "p", "--for=delete", "--timeout=10m"]);
    let hoping = listening(&podshim, &["wait", "p", "--for=condition=Ready", "--timeout=10m"]);
    running.signal(Signal::SIGSTOP);
    podshim.kill_shims();
    let hoping = said(hoping);
    assert_eq!(hoping.code, 1);
    assert!(hoping.err.contains("pods/p ended before the condition was met"), "{}", hoping.err);
    let short = podshim.podshim(&["wait", "p", "--for=delete", "--timeout=200ms"]);
    assert_eq!(short.code, 1);
    assert!(
        short.err.contains("timed out") && short.err.contains("podshim prune"),
        "{}",
        short.err
    );
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    let said = said(waiting);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/p condition met\n"), "{}", said.err);
    assert_eq!(running.wait().0, 143);
}
