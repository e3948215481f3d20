//! What is printed, where, and what happens when nobody can read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::process::{Output, Stdio};

use integration::Instance;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo hello; sleep 1000']}
";

/// A pipe whose reader has gone.
fn nobody() -> Stdio {
    let (_, writer) = nix::unistd::pipe().unwrap();
    writer.into()
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_reader_that_has_gone_is_no_fault_and_a_full_disk_is_one() {
    let podshim = Instance::new();
    let running = podshim.start(POD);
    podshim.until("running", |p| p["status"]["phase"] == "Running");
    let manifest = podshim.manifest(POD);
    let check = ["check", manifest.as_str()];
    let commands: [(&[&str], i32); 5] = [
        (&["get", "pods"], 1),
        (&["get", "pods", "-o", "yaml"], 1),
        (&["get", "pods", "-o", "name"], 1),
        (&["logs", "p"], 1),
        (&check, 125),
    ];
    for (args, failed) in commands {
        let run = |stdout: Stdio, stderr: Stdio| -> Output {
            podshim
                .command(args)
                .stdout(stdout)
                .stderr(stderr)
                .spawn()
                .unwrap()
                .wait_with_output()
                .unwrap()
        };
        let gone = run(nobody(), Stdio::piped());
        assert_eq!(gone.status.code(), Some(0), "{args:?}: {gone:?}");
        assert!(gone.stderr.is_empty(), "{args:?}: {gone:?}");
        let full = run(full_disk(), Stdio::piped());
        assert_eq!(full.status.code(), Some(failed), "{args:?}: {full:?}");
        let why = String::from_utf8(full.stderr).unwrap();
        assert!(why.contains("cannot write to standard output: No space left"), "{args:?}: {why}");
        // Not even the complaint can be written.
        assert_eq!(run(full_disk(), full_disk()).status.code(), Some(failed), "{args:?}");
    }
    let wrong = podshim.command(&["get", "cats"]).stderr(nobody()).status().unwrap();
    assert_eq!(wrong.code(), Some(1));
    assert_eq!(podshim.podshim(&["delete", "pod", "p"]).code, 0);
    running.wait();
}

#[test]
fn what_an_image_or_a_program_says_cannot_steer_the_terminal() {
    let podshim = Instance::new();
    podshim.load_variant("odd:name", |config| {
        config["config"]["User"] = "no\u{1b}[2Jbody\nWarning: all is lost".into();
    });
    // Its main cannot be created, its sidecar's probe fails with a message of its own.
    let said = podshim.run(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  activeDeadlineSeconds: 6
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: slow
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'printf \"output \\033[31mstays\\n\"; sleep 1000']
    startupProbe: {periodSeconds: 1, failureThreshold: 100, exec: {command: [sh, -c, 'printf \"\\033[2Jwiped\\nWarning: lies\"; false']}}
  - {name: odd, image: 'odd:name', restartPolicy: Always}
  containers:
  - {name: main, image: alpine:latest, command: ['true']}
",
    );
    assert_ne!(said.code, 0);
    for told in ["\u{fffd}[2Jwiped\\nWarning: lies", "no\\u{1b}[2Jbody\\n"] {
        assert!(said.err.contains(told), "{told}: {}", said.err);
    }
    assert!(!said.err.contains('\u{1b}') && !said.err.contains("\nWarning"), "{}", said.err);
    // What a container writes is its own business, as with kubectl logs.
    assert!(said.out.contains("output \u{1b}[31mstays"), "{}", said.out);
}
