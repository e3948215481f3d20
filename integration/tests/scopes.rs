//! Where pods are in the host's tree of control groups, and that they stay there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use integration::{Instance, run, until};
use nix::sys::signal::Signal;

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

/// On a host with systemd and one tree, in scopes of it; elsewhere in a directory of our own.
#[test]
fn pods_are_where_their_limits_last_whatever_systemd_does() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    let pod = podshim.until("running", |p| p["status"]["phase"] == "Running");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let (main, shim) = (cgroup_of(podshim.pids()["main"]), cgroup_of(podshim.shim()));
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if has_systemd && v2 {
        let scope = format!("/podshim.slice/podshim-pods.slice/podshim-{uid}.scope");
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
    if has_systemd && v2 {
        // Directories that systemd has forgotten: something was in them when it stopped the slices.
        fs::create_dir_all("/sys/fs/cgroup/podshim.slice/podshim-pods.slice").unwrap();
        let said = podshim.podshim(&["prune", "--all"]);
        assert_eq!(said.code, 0, "{}", said.err);
        slices_are_gone();
    }
}
