//! Where pods are in the host's tree of control groups, and that they stay there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use integration::{Instance, is_ready, kill_now, run, until};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: side, image: alpine:latest, restartPolicy: Always, command: [sleep, '1000']}
  containers:
  - name: main
    image: alpine:latest
    resources: {limits: {cpu: 250m, memory: 64Mi}}
    command: [sleep, '1000']
";

fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let is_ours = |line: &&str| line.starts_with("0::") || line.contains(":pids:");
    text.lines().find(is_ours).unwrap().rsplit(':').next().unwrap().to_owned()
}

fn has_scopes() -> bool {
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    has_systemd && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn scope_of(uid: &str) -> String {
    format!("/podshim.slice/podshim-pods.slice/podshim-{uid}.scope")
}

/// Ends the podshim that has the only pod, and all that lives of the pod.
fn kill_pod(podshim: &Instance, owner: impl FnOnce()) {
    let pids = podshim.pids();
    owner();
    podshim.kill_shims();
    pids.into_values().for_each(kill_now);
}

/// What systemd has of a pod whose processes were dying when it moved them into their scope: an active unit
/// with nobody in it, and no event to come. Nothing where there are no scopes.
fn empty_scope(uid: &str) {
    if !has_scopes() {
        return;
    }
    let directory = format!("/sys/fs/cgroup{}", scope_of(uid));
    until("the scope that was there is gone", || {
        if Path::new(&directory).exists() { Err(String::new()) } else { Ok(()) }
    });
    let dead = std::process::Command::new("true").spawn().unwrap().id();
    let dead = Pid::from_raw(dead.cast_signed());
    waitid(Id::Pid(dead), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    run(&format!(
        "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
         org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' podshim-{uid}.scope replace \
         4 Slice s podshim-pods.slice PIDs au 1 {dead} Delegate b true CollectMode s inactive-or-failed 0"
    ));
    until("there is a scope", || {
        if Path::new(&directory).exists() { Ok(()) } else { Err(String::new()) }
    });
    let shown = run(&format!("systemctl is-active podshim-{uid}.scope"));
    assert_eq!(shown.trim(), "active");
    waitpid(dead, None).unwrap();
    let events = fs::read_to_string(format!("{directory}/cgroup.events")).unwrap();
    assert!(events.contains("populated 0"), "{events}");
}

fn scope_is_gone(uid: &str) {
    assert!(!Path::new(&format!("/sys/fs/cgroup{}", scope_of(uid))).exists());
}

/// Who is killed while systemd makes the scope leaves one that systemd keeps for ever. A successor has its own
/// pod's place all the same, and whoever removes a dead pod removes that too.
#[test]
fn a_scope_that_nobody_ever_was_in_goes() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    podshim.apply(POD);
    let uid_of = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let uid = uid_of(&podshim.until("ready", is_ready));
    let place = cgroup_of(podshim.shim());
    kill_pod(&podshim, || daemon.kill());
    empty_scope(&uid);
    let daemon = podshim.daemon();
    podshim.until("started again", |pod| {
        is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
    });
    assert_eq!(cgroup_of(podshim.shim()), place);
    let said = podshim.podshim(&["events", "p"]);
    assert!(!said.out.contains("NoScope"), "{}", said.out);
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    podshim.end_daemon(daemon);

    let image = integration::image();
    assert_eq!(podshim.podshim(&["load", "-i", image.to_str().unwrap()]).code, 0);
    let running = podshim.start(POD);
    let uid = uid_of(&podshim.until("ready", is_ready));
    kill_pod(&podshim, || podshim.kill_podshim(running));
    empty_scope(&uid);
    let said = podshim.podshim(&["prune"]);
    assert_eq!((said.code, said.out.lines().next()), (0, Some(&*format!("removed pod p ({uid})"))));
    scope_is_gone(&uid);

    // Of a pod that this root does not know: as long as there is a group in it, it is somebody's.
    let uid = "0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a77";
    empty_scope(uid);
    if has_scopes() {
        let inside = format!("/sys/fs/cgroup{}/pod{uid}", scope_of(uid));
        fs::create_dir(&inside).unwrap();
        let said = podshim.podshim(&["prune"]);
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
        fs::remove_dir(&inside).unwrap();
    }
    let said = podshim.podshim(&["prune"]);
    let told = format!("removed the empty scope of pod {uid}\n");
    assert_eq!((said.code, said.out), (0, if has_scopes() { told } else { String::new() }));
    scope_is_gone(uid);
}

/// On a host with systemd and one tree, in scopes of it; elsewhere in a directory of our own.
#[test]
fn pods_are_where_their_limits_last_whatever_systemd_does() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    let pod = podshim.until("running", |p| p["status"]["phase"] == "Running");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let (main, shim) = (cgroup_of(podshim.pids()["main"]), cgroup_of(podshim.shim()));
    if has_scopes() {
        let scope = scope_of(uid);
        assert_eq!(main, format!("{scope}/pod{uid}/main-0"));
        assert_eq!(shim, format!("{scope}/shim"));
        let limit = format!("/sys/fs/cgroup{main}/cpu.max");
        assert_eq!(fs::read_to_string(&limit).unwrap(), "25000 100000\n");
        // What made an unmanaged directory lose its limits, and what kills other processes.
        run(
            "systemctl daemon-reload; systemctl daemon-reexec; systemd-run --wait -q -p Delegate=yes true",
        );
        assert_eq!(fs::read_to_string(&limit).unwrap(), "25000 100000\n");
        let shown =
            run(&format!("systemctl show -p ActiveState,Delegate,TasksMax podshim-{uid}.scope"));
        for line in ["ActiveState=active", "Delegate=yes", "TasksMax=infinity"] {
            assert!(shown.lines().any(|l| l == line), "{line}: {shown}");
        }
        assert_eq!(podshim.pod().unwrap()["status"]["phase"], "Running");
    } else {
        assert!(main.starts_with("/podshim/burstable/pod"), "{main}");
    }
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().0, 130);
    podshim.nothing_is_left();
    assert!(!Path::new(&format!("/sys/fs/cgroup{main}")).exists());
    assert_eq!(podshim.podshim(&["prune", "--all"]).code, 0);
    let slices_are_gone = || {
        until("the slices of pods are gone", || {
            if Path::new("/sys/fs/cgroup/podshim.slice").exists() {
                Err(String::new())
            } else {
                Ok(())
            }
        });
    };
    slices_are_gone();
    if has_scopes() {
        // Directories that systemd has forgotten: something was in them when it stopped the slices.
        fs::create_dir_all("/sys/fs/cgroup/podshim.slice/podshim-pods.slice").unwrap();
        let said = podshim.podshim(&["prune", "--all"]);
        assert_eq!(said.code, 0, "{}", said.err);
        slices_are_gone();
    }
}
