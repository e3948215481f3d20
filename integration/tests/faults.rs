//! The kernel refuses: in the middle of a pod's life one system call of its shim or keeper fails, or takes long.
//!
//! The pod ends as it would have, or it is told why not in the kernel's words, and nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who reads of a failure wants to know which case it was")]

use std::fs;

use integration::strace::{
    BROKEN, BUSY, Calls, DISK_FULL, Fault, INTERRUPTED, NO_DESCRIPTORS, NO_MEMORY, NO_PIDS, SLOW,
    each,
};
use integration::{Instance, pod};

/// Everything that podshim does for a pod, once somebody has opened the gate.
const WHOLE: &str = "  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  volumes: [{name: marks, hostPath: {path: MARKS}}, {name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  initContainers:
  - {name: gate, image: alpine:latest, command: [sh, -c, 'while [ ! -e /marks/go ]; do sleep 0.02; done'], volumeMounts: [{name: marks, mountPath: /marks}]}
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; echo once; while :; do sleep 0.02; done']
    startupProbe: {exec: {command: ['true']}, periodSeconds: 1, timeoutSeconds: 20}
    lifecycle: {postStart: {exec: {command: ['true']}}, preStop: {exec: {command: ['true']}}}
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo once; sleep 0.1; exit 7']}
";

/// Whose call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Shim,
    /// And the shim is killed, so that there is something to do for it.
    Keeper,
}

/// One pod's life with one call that goes wrong; `false` if there are no so many.
fn live(podshim: &Instance, whose: Whose, fault: Fault) -> bool {
    let marks = podshim.root().join("marks");
    fs::create_dir_all(&marks).unwrap();
    println!("{whose:?} {fault:?}");
    let running = podshim.start(&pod(&WHOLE.replace("MARKS", marks.to_str().unwrap())));
    running.until_printed("gate Started");
    let pid = match whose {
        Whose::Shim => podshim.shim(),
        Whose::Keeper => podshim.processes("keep")[0],
    };
    let traced = fault.attach(pid, false, podshim.root().join("trace"));
    if whose == Whose::Keeper {
        integration::kill_now(podshim.shim());
    }
    fs::write(marks.join("go"), "").unwrap();
    let (code, output) = running.wait();
    let struck = fault.find(&traced.wait());
    let when = format!("{fault:?}: {code}: {struck:?}\n{output}");
    let words = fault.wrong.words;
    let told = output.lines().any(|line| {
        (line.contains("Warning") || line.starts_with("podshim:")) && line.contains(words)
    });
    assert!(code == 7 || (told && !words.is_empty()), "{when}");
    if code == 7 {
        // Of a hook that could not be run, or a start that could not be seen, it is told, and the container
        // runs again.
        let again = ["Warning FailedPostStartHook", "Warning Failed: "];
        let again: usize = again.iter().map(|what| output.matches(what).count()).sum();
        let ran = output.matches("| once").count();
        assert!((2..=2 + again).contains(&ran), "{when}");
    }
    fs::remove_dir_all(&marks).unwrap();
    podshim.nothing_is_left();
    struck.is_some()
}

fn check(whose: Whose, calls: &Calls<'_>) {
    let podshim = Instance::new();
    let name = match whose {
        Whose::Shim => "the shim",
        Whose::Keeper => "the keeper",
    };
    each(name, 2, calls, |fault| live(&podshim, whose, fault));
}

#[test]
fn files_cannot_be_opened() {
    check(
        Whose::Shim,
        &[("openat", &[NO_DESCRIPTORS, BROKEN, SLOW]), ("openat2", &[NO_DESCRIPTORS])],
    );
}

#[test]
fn what_is_written_is_refused() {
    check(
        Whose::Shim,
        &[
            ("write", &[DISK_FULL, BROKEN, INTERRUPTED, SLOW]),
            ("mkdir", &[DISK_FULL]),
            ("renameat2", &[BROKEN]),
            ("splice", &[DISK_FULL, BROKEN]),
        ],
    );
}

#[test]
fn nothing_can_be_read_or_removed() {
    check(
        Whose::Shim,
        &[
            ("read", &[BROKEN, INTERRUPTED]),
            ("unlinkat", &[BROKEN]),
            ("umount2", &[BROKEN]),
            ("rmdir", &[BUSY]),
            ("sendmsg", &[BROKEN]),
        ],
    );
}

#[test]
fn there_are_no_processes_descriptors_and_memory_left() {
    check(
        Whose::Shim,
        &[
            ("clone", &[NO_PIDS, NO_MEMORY, SLOW]),
            ("pipe2", &[NO_DESCRIPTORS]),
            ("socket", &[NO_DESCRIPTORS]),
            ("epoll_ctl", &[NO_MEMORY]),
            ("epoll_pwait", &[INTERRUPTED]),
            ("waitid", &[INTERRUPTED]),
        ],
    );
}

#[test]
fn the_keeper_cannot_start_another_shim_as_it_wants_to() {
    check(
        Whose::Keeper,
        &[
            ("clone3", &[NO_PIDS, NO_MEMORY, SLOW]),
            ("ppoll", &[INTERRUPTED, NO_MEMORY]),
            ("read", &[INTERRUPTED, BROKEN]),
            ("recvmsg", &[INTERRUPTED, NO_MEMORY]),
            ("waitid", &[INTERRUPTED]),
        ],
    );
}
