//! Logs that grow: rotated, compressed, removed, and read as if they were one file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use integration::{Instance, status_of, until};
use nix::sys::signal::Signal;

const LINES: u32 = 6_000;

/// Counts to [`LINES`], and again after each restart; ends when `/v/end` is there.
fn counting() -> String {
    let count = format!(
        "i=1; while [ $i -le {LINES} ]; do echo \"$i and some words more\"; i=$((i+1)); done"
    );
    integration::pod(&format!(
        "  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: app, image: alpine:latest, command: [sh, -c, 'trap \"exit 0\" TERM; {count}; while :; do sleep 0.1; done']}}
"
    ))
}

/// The names of the container's log files.
fn files(podshim: &Instance) -> Vec<String> {
    let pods = fs::read_dir(podshim.root().join("logs")).unwrap();
    let dirs: Vec<_> = pods.map(|pod| pod.unwrap().path().join("app")).collect();
    let [dir] = &dirs[..] else { panic!("{dirs:?}") };
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn numbers(text: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once(" and some")?.0.rsplit(' ').next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

fn all_logged(podshim: &Instance) {
    until("all is logged", || {
        let said = podshim.podshim(&["logs", "p", "--tail=1"]);
        let last = numbers(&said.out);
        if last == [LINES] { Ok(()) } else { Err(format!("{last:?} {}", said.err)) }
    });
}

#[test]
fn a_log_of_many_files_is_read_as_one() {
    let podshim = Instance::new();
    let flags = ["--container-log-max-size=8Ki", "--container-log-max-files=1000"];
    let running = podshim.start_with(&flags, &counting());
    all_logged(&podshim);
    let all: Vec<u32> = (1..=LINES).collect();
    let said = podshim.podshim(&["logs", "p"]);
    assert!(numbers(&said.out) == all, "{} lines, {}", numbers(&said.out).len(), said.err);
    for count in [1, 300, 3000, LINES + 1] {
        let said = podshim.podshim(&["logs", "p", &format!("--tail={count}")]);
        assert!(numbers(&said.out) == all[(LINES.saturating_sub(count)) as usize..], "{count}");
    }
    // All but the newest that is full are compressed, as soon as there is time.
    until("all are compressed", || {
        let names = files(&podshim);
        let packed = names.iter().filter(|name| name.ends_with(".gz")).count();
        let right = packed > 0 && packed + 2 == names.len();
        if right { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let said = podshim.podshim(&["logs", "p"]);
    assert!(numbers(&said.out) == all, "{} lines, {}", numbers(&said.out).len(), said.err);

    // The run before is another log.
    let said = podshim.podshim(&["restart", "p", "-c", "app"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.until("restarted", |pod| status_of(pod, "app")["restartCount"] == 1);
    until("the next log is there", || {
        let names = files(&podshim);
        if names.iter().any(|name| name == "1.log") { Ok(()) } else { Err(format!("{names:?}")) }
    });
    all_logged(&podshim);
    for previous in [false, true] {
        let args: &[&str] = if previous { &["logs", "p", "--previous"] } else { &["logs", "p"] };
        let said = podshim.podshim(args);
        assert!(numbers(&said.out) == all, "{previous}: {} lines", numbers(&said.out).len());
    }
    // Who follows from the beginning has seen everything once.
    running.signal(Signal::SIGTERM);
    let (code, output) = running.wait();
    assert_eq!(code, 143);
    let seen = numbers(&output);
    assert!(seen == [&all[..], &all[..]].concat(), "{} lines were followed", seen.len());
    podshim.nothing_is_left();
}

#[test]
fn a_log_takes_no_more_room_than_it_may() {
    let podshim = Instance::new();
    let flags = ["--container-log-max-size=10Ki", "--container-log-max-files=3"];
    let running = podshim.start_with(&flags, &counting());
    all_logged(&podshim);
    // One that is being compressed is there twice for a moment.
    let found = files(&podshim);
    let whole = |name: &String| name.trim_end_matches(".gz").trim_end_matches(".tmp").to_owned();
    let mut runs: Vec<_> = found.iter().map(whole).collect();
    runs.retain(|name| name.starts_with("0.log"));
    runs.dedup();
    assert_eq!(runs.len(), 3, "{found:?}");
    let said = podshim.podshim(&["logs", "p"]);
    let left = numbers(&said.out);
    let end: Vec<u32> = (1..=LINES).rev().take(left.len()).collect();
    assert!(left.len() > 100 && left.iter().rev().eq(&end), "{} lines", left.len());
    running.signal(Signal::SIGTERM);
    running.wait();
    podshim.nothing_is_left();
    for (flag, why) in [
        ("--container-log-max-size=0", "at least a byte is needed"),
        ("--container-log-max-size=-1", "at least a byte is needed"),
        ("--container-log-max-size=much", "quantities are written like"),
        ("--container-log-max-files=1", "at least 2 are needed"),
    ] {
        let (code, output) = podshim.start_with(&[flag], &counting()).wait();
        assert!(code != 0 && output.contains(why), "{flag}: {code} {output}");
    }
}
