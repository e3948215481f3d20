//! The kernel refuses: in the middle of a pod's life one system call of its shim fails, or takes long.
//!
//! `strace` lets the N-th call of a kind fail as the kernel would (strace(1), "Tampering"); the call is not
//! made. The pod ends as it would have, or it is told why not in the kernel's words, and nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who reads of a failure wants to know which case it was")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::{Instance, is_full, is_slow, pod, tabulate, until};

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
    startupProbe: {exec: {command: ['true']}, periodSeconds: 1}
    lifecycle: {postStart: {exec: {command: ['true']}}, preStop: {exec: {command: ['true']}}}
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo once; sleep 0.1; exit 7']}
";

/// How a system call goes wrong, and the kernel's words for it.
#[derive(Clone, Copy)]
struct Wrong {
    how: &'static str,
    words: &'static str,
}

const fn error(how: &'static str, words: &'static str) -> Wrong {
    Wrong { how, words }
}

const NO_DESCRIPTORS: Wrong = error("error=EMFILE", "Too many open files");
const DISK_FULL: Wrong = error("error=ENOSPC", "No space left on device");
const BUSY: Wrong = error("error=EBUSY", "Device or resource busy");
const BROKEN: Wrong = error("error=EIO", "Input/output error");
const NO_MEMORY: Wrong = error("error=ENOMEM", "Cannot allocate memory");
const NO_PIDS: Wrong = error("error=EAGAIN", "Resource temporarily unavailable");
const INTERRUPTED: Wrong = error("error=EINTR", "Interrupted system call");
/// 0.2 s, which nobody has to tell.
const SLOW: Wrong = error("delay_enter=200000", "");

/// One pod's life with one call of its shim that goes wrong; `false` if it makes no so many.
fn live(podshim: &Instance, call: &str, wrong: Wrong, number: usize) -> bool {
    let marks = podshim.root().join("marks");
    fs::create_dir_all(&marks).unwrap();
    println!("{call} {number} {}", wrong.how);
    let running = podshim.start(&pod(&WHOLE.replace("MARKS", marks.to_str().unwrap())));
    running.until_printed("gate Started");
    let trace = podshim.root().join("trace");
    let mut strace = attach(podshim.shim(), call, wrong, number, trace.to_str().unwrap());
    fs::write(marks.join("go"), "").unwrap();
    let (code, output) = running.wait();
    // It ends with whom it traces.
    let ended = until("strace ends", || strace.try_wait().unwrap().ok_or_else(String::new));
    assert!(ended.code().is_some(), "{ended}");
    let mark = if wrong.words.is_empty() { "(DELAYED)" } else { "(INJECTED)" };
    let traced = fs::read_to_string(&trace).unwrap();
    let struck = traced.lines().find(|line| line.contains(mark));
    let when = format!("{call} {number} {}: {code}: {struck:?}\n{output}", wrong.how);
    let told = output.lines().any(|line| {
        (line.contains("Warning") || line.starts_with("podshim:")) && line.contains(wrong.words)
    });
    assert!(code == 7 || (told && !wrong.words.is_empty()), "{when}");
    if code == 7 {
        // Of a hook that could not be run, or a start that could not be seen, it is told, and the container
        // runs again.
        let again = ["Warning FailedPostStartHook", "Warning Failed: "];
        let again: usize = again.iter().map(|what| output.matches(what).count()).sum();
        let ran = output.matches("| once").count();
        assert!((2..=2 + again).contains(&ran), "{when}");
    }
    fs::remove_dir_all(&marks).unwrap();
    fs::remove_file(&trace).unwrap();
    podshim.nothing_is_left();
    struck.is_some()
}

fn attach(pid: i32, call: &str, wrong: Wrong, number: usize, trace: &str) -> Child {
    let strace = Command::new("strace")
        .args(["-o", trace, "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:{}:when={number}", wrong.how)])
        .args(["-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace (a Debian package)");
    until("strace traces", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
        if tracer.trim() == "0" { Err(status) } else { Ok(()) }
    });
    strace
}

/// A few of the calls of each kind, or all of them.
fn check(calls: &[(&str, &[Wrong])]) {
    let podshim = Instance::new();
    for (call, wrongs) in calls.iter().take(if is_slow() { 2 } else { usize::MAX }) {
        for wrong in wrongs.iter().take(if is_slow() { 1 } else { usize::MAX }) {
            let (mut lives, mut longest) = (0, Duration::ZERO);
            // Further and further apart, but for who has the time to try all.
            let (mut number, mut step) = (1, 1);
            loop {
                let begun = Instant::now();
                let struck = live(&podshim, call, *wrong, number);
                if !struck {
                    break;
                }
                lives += 1;
                longest = longest.max(begun.elapsed());
                if is_slow() {
                    break;
                }
                if !is_full() {
                    step *= 3;
                }
                number += step;
            }
            assert!(lives > 0, "the shim makes no {call}");
            let what = format!("{call}, {}", wrong.how);
            tabulate("one system call of the shim goes wrong", &what, lives, longest);
        }
    }
}

#[test]
fn files_cannot_be_opened() {
    check(&[("openat", &[NO_DESCRIPTORS, BROKEN, SLOW]), ("openat2", &[NO_DESCRIPTORS])]);
}

#[test]
fn what_is_written_is_refused() {
    check(&[
        ("write", &[DISK_FULL, BROKEN, INTERRUPTED, SLOW]),
        ("mkdir", &[DISK_FULL]),
        ("renameat2", &[BROKEN]),
        ("splice", &[DISK_FULL, BROKEN]),
    ]);
}

#[test]
fn nothing_can_be_read_or_removed() {
    check(&[
        ("read", &[BROKEN, INTERRUPTED]),
        ("unlinkat", &[BROKEN]),
        ("umount2", &[BROKEN]),
        ("rmdir", &[BUSY]),
        ("sendmsg", &[BROKEN]),
    ]);
}

#[test]
fn there_are_no_processes_descriptors_and_memory_left() {
    check(&[
        ("clone", &[NO_PIDS, NO_MEMORY, SLOW]),
        ("pipe2", &[NO_DESCRIPTORS]),
        ("socket", &[NO_DESCRIPTORS]),
        ("epoll_ctl", &[NO_MEMORY]),
        ("epoll_pwait", &[INTERRUPTED]),
        ("waitid", &[INTERRUPTED]),
    ]);
}
