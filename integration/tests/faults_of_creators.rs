//! The kernel refuses a call of whoever makes containers: in each process of podshim and in each container
//! the N-th of its kind. The pod ends as it would have, or it is told why not in the kernel's words and can be
//! ended; nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who reads of a failure wants to know which case it was")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use integration::strace::{
    BUSY, Calls, DISK_FULL, Fault, NO_DESCRIPTORS, NO_MEMORY, NO_PIDS, each,
};
use integration::{Instance, PATIENCE, pod};
use nix::sys::signal::Signal;

/// Everything that creators do, and nothing that a container's own program does.
const WHOLE: &str = "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  initContainers:
  - {name: side, image: alpine:latest, imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.02; done']}
  containers:
  - name: main
    image: alpine:latest
    imagePullPolicy: Never
    command: [sh, -c, 'exit 7']
    securityContext: {runAsUser: 65534, runAsGroup: 65534, readOnlyRootFilesystem: true, seccompProfile: {type: RuntimeDefault}}
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory, readOnly: true}]
";

/// One pod's life; `false` if nobody makes so many such calls.
fn live(podshim: &Instance, fault: Fault) -> bool {
    println!("{fault:?}");
    let trace = podshim.root().join("trace");
    let mut strace = Command::new("strace");
    // `podshim run` itself is the child, and ends as it likes.
    strace.args(["-D", "-f", "-o"]).arg(&trace).args(fault.options()).arg(integration::binary());
    let manifest = podshim.manifest(&pod(WHOLE));
    let mut running = podshim.start_command(podshim.command_by(strace, &["run", &manifest]));
    // libcontainer takes what it cannot open for what is not there, makes it, and tells how that ended.
    let is_misread = |output: &str| {
        fault.call == "openat2"
            && output.contains("pathrs create_file failed")
            && output.contains("File exists")
    };
    let is_told = |output: &str| output.contains(fault.wrong.words) || is_misread(output);
    let deadline = Instant::now() + PATIENCE;
    while !running.has_ended() {
        let output = running.text();
        if is_told(&output) {
            running.signal(Signal::SIGTERM);
            break;
        }
        assert!(Instant::now() < deadline, "{fault:?}: nothing is told\n{output}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, output) = running.wait();
    let struck = fault.find(&fs::read_to_string(&trace).unwrap());
    let when = format!("{fault:?}: {code}: {struck:?}\n{output}");
    assert!(code == 7 || is_told(&output), "{when}");
    podshim.nothing_is_left();
    struck.is_some()
}

fn check(calls: &Calls<'_>) {
    let podshim = Instance::new();
    each("each process", 2, calls, |fault| live(&podshim, fault));
}

#[test]
fn nothing_can_be_mounted() {
    check(&[
        ("mount", &[NO_MEMORY]),
        ("fsconfig", &[NO_MEMORY]),
        ("fsmount", &[NO_DESCRIPTORS]),
        ("move_mount", &[BUSY]),
        ("mount_setattr", &[BUSY]),
        ("open_tree", &[NO_DESCRIPTORS]),
        ("pivot_root", &[BUSY]),
        ("umount2", &[BUSY]),
    ]);
}

#[test]
fn nothing_can_be_made() {
    check(&[
        ("mknodat", &[DISK_FULL]),
        ("symlink", &[DISK_FULL]),
        ("mkdirat", &[DISK_FULL]),
        ("clone3", &[NO_PIDS]),
        ("socketpair", &[NO_DESCRIPTORS]),
        ("openat2", &[NO_DESCRIPTORS]),
    ]);
}

#[test]
fn nobody_can_become_another() {
    check(&[
        ("setns", &[NO_MEMORY]),
        ("unshare", &[NO_MEMORY]),
        ("setgroups", &[NO_MEMORY]),
        ("setresuid", &[NO_PIDS]),
        ("capset", &[NO_MEMORY]),
        ("seccomp", &[NO_MEMORY]),
        ("prctl", &[NO_MEMORY]),
    ]);
}
