//! Logs as they are on disk, read in every way.

use std::fs::OpenOptions;
use std::io::Write;

use super::*;

struct Logs(tempfile::TempDir);

impl Logs {
    fn new() -> Logs {
        let logs = Logs(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(logs.path()).unwrap();
        logs
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pod/main")
    }

    fn append(&self, restart: u32, lines: &[&str]) {
        let path = self.path().join(format!("{restart}.log"));
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        for line in lines {
            writeln!(file, "2026-11-24T16:40:15.5Z {line}").unwrap();
        }
    }
}

/// `<restart><o|e> <text>`, with a `|` where a newline was.
fn poll(follower: &mut Follower) -> Vec<String> {
    let mut seen = Vec::new();
    follower.poll(&mut |line| seen.push(show(line))).unwrap();
    seen
}

fn show(line: Line<'_>) -> String {
    let text = String::from_utf8_lossy(line.bytes);
    let end = if line.ended { "|" } else { "" };
    format!("{}{} {text}{end}", line.restart, &line.stream.name()[3..4])
}

#[test]
fn each_poll_gives_what_is_new_and_goes_on_over_restarts() {
    let logs = Logs::new();
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    assert!(poll(&mut follower).is_empty());
    logs.append(0, &["stdout F one", "stderr F two"]);
    assert_eq!(poll(&mut follower), ["0o one|", "0e two|"]);
    assert!(poll(&mut follower).is_empty());
    logs.append(0, &["stdout P cut off"]);
    logs.append(1, &["stdout F again"]);
    logs.append(3, &["stdout F and again"]);
    assert_eq!(poll(&mut follower), ["0o cut off", "1o again|", "3o and again|"]);
}

#[test]
fn a_run_whose_log_is_being_rotated_is_still_the_newest_and_is_read_alone() {
    let logs = Logs::new();
    logs.append(0, &["stdout F old"]);
    logs.append(1, &["stdout F new"]);
    let path = logs.path();
    let to = rotation::rotated_name(OsStr::new("1.log"), Wall(1_795_538_416_000_000_000));
    std::fs::rename(path.join("1.log"), path.join(to)).unwrap();
    let mut seen = Vec::new();
    let mut newest = Follower::new(&path, Start::Newest);
    newest.read_run(&mut |line| seen.push(show(line))).unwrap();
    assert_eq!(seen, ["1o new|"]);
    let mut seen = Vec::new();
    let mut first = Follower::new(&path, Start::Restart(0));
    first.read_run(&mut |line| seen.push(show(line))).unwrap();
    assert_eq!(seen, ["0o old|"]);
}

#[test]
fn parts_are_joined_each_stream_by_itself() {
    let logs = Logs::new();
    logs.append(0, &["stdout P a", "stderr P x", "stdout F b", "nonsense", "stderr F y"]);
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    assert_eq!(poll(&mut follower), ["0o ab|", "0e xy|"]);
    assert_eq!(follower.malformed(), 1);
}

#[test]
fn a_line_that_is_still_being_written_is_left_for_the_next_poll() {
    let logs = Logs::new();
    logs.append(0, &[]);
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    let path = logs.path().join("0.log");
    std::fs::write(&path, "2026-11-24T16:40:15Z stdout F hal").unwrap();
    assert!(poll(&mut follower).is_empty());
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"f\n").unwrap();
    assert_eq!(poll(&mut follower), ["0o half|"]);
}

#[test]
fn the_last_lines_are_found_from_the_end_whatever_the_length() {
    let logs = Logs::new();
    for n in 0..3_000 {
        logs.append(0, &[&format!("stdout F {n:050}")]);
    }
    logs.append(0, &["stdout P the last ", "stdout F one"]);
    for wanted in [0, 1, 2, 1_500, 3_000, 3_001, 9_999] {
        let mut follower = Follower::new(&logs.path(), Start::Newest).tail(wanted);
        let seen = poll(&mut follower);
        assert_eq!(seen.len(), wanted.min(3_001));
        assert!(wanted == 0 || seen.last().unwrap() == "0o the last one|");
    }
}

#[test]
fn of_a_line_without_an_end_only_the_end_is_read() {
    let logs = Logs::new();
    for n in 0..3_000 {
        logs.append(0, &[&format!("stdout P {n:050}")]);
    }
    for (bytes, wanted) in [(0, 0), (100, 50), (1_000, 600), (u64::MAX, 150_000)] {
        let mut follower = Follower::new(&logs.path(), Start::Newest).tail(80).within(bytes);
        let mut seen = 0;
        follower.read_run(&mut |line| seen += line.bytes.len()).unwrap();
        assert_eq!(seen, wanted, "of {bytes} bytes");
    }
    // What begins in the window is whole, and the line limit still holds.
    logs.append(0, &["stdout F last", "stdout F of all"]);
    let mut follower = Follower::new(&logs.path(), Start::Newest).tail(1).within(500);
    assert_eq!(poll(&mut follower), ["0o of all|"]);
}

#[test]
fn one_run_can_be_read_alone() {
    let logs = Logs::new();
    logs.append(0, &["stdout F first", "stdout P unfinished"]);
    logs.append(1, &["stdout F second"]);
    let mut seen = Vec::new();
    let mut previous = Follower::new(&logs.path(), Start::Restart(0));
    previous.read_run(&mut |line| seen.push(show(line))).unwrap();
    assert_eq!(seen, ["0o first|", "0o unfinished"]);
    assert_eq!(poll(&mut Follower::new(&logs.path(), Start::Newest)), ["1o second|"]);
}

#[test]
fn a_replaced_or_truncated_file_is_read_from_its_beginning() {
    let logs = Logs::new();
    let path = logs.path().join("0.log");
    logs.append(0, &["stdout F one", "stdout F two"]);
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    assert_eq!(poll(&mut follower).len(), 2);
    logs.append(0, &["stdout F three"]);
    std::fs::rename(&path, path.with_file_name("rotated")).unwrap();
    logs.append(0, &["stdout F four"]);
    assert_eq!(poll(&mut follower), ["0o three|", "0o four|"]);
    std::fs::write(&path, "").unwrap();
    assert!(poll(&mut follower).is_empty());
    logs.append(0, &["stdout F five"]);
    assert_eq!(poll(&mut follower), ["0o five|"]);
}

impl Logs {
    /// As the pump does it, `second` being later than the lines in the file.
    fn rotate(&self, run: u32, second: u32) {
        let name = format!("{run}.log.20261124-1640{second}.000000000");
        let log = self.path().join(format!("{run}.log"));
        std::fs::rename(log, self.path().join(name)).unwrap();
    }

    fn say(&self, run: u32, seconds: std::ops::Range<u32>) {
        let path = self.path().join(format!("{run}.log"));
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        for second in seconds {
            writeln!(file, "2026-11-24T16:40:{second}Z stdout F {second}").unwrap();
        }
    }

    fn pack(&self) {
        super::super::packing::pack(&self.path()).unwrap();
    }
}

fn said(run: u32, seconds: std::ops::Range<u32>) -> Vec<String> {
    seconds.map(|second| format!("{run}o {second}|")).collect()
}

#[test]
fn what_was_rotated_is_read_in_its_order_packed_or_not() {
    let logs = Logs::new();
    for (from, to) in [(10, 13), (13, 16), (16, 18)] {
        logs.say(0, from..to);
        logs.rotate(0, to);
    }
    logs.say(0, 18..20);
    logs.pack();
    assert_eq!(poll(&mut Follower::new(&logs.path(), Start::Oldest)), said(0, 10..20));
    let mut one = Follower::new(&logs.path(), Start::Newest);
    let mut seen = Vec::new();
    one.read_run(&mut |line| seen.push(show(line))).unwrap();
    assert_eq!(seen, said(0, 10..20));
    for lines in 0..=11 {
        let mut follower = Follower::new(&logs.path(), Start::Newest).tail(lines);
        let from = 20 - u32::try_from(lines.min(10)).unwrap();
        assert_eq!(poll(&mut follower), said(0, from..20), "{lines} lines");
    }
    // And the next run after it.
    logs.say(1, 30..31);
    logs.rotate(1, 31);
    logs.say(1, 31..32);
    let all = [said(0, 10..20), said(1, 30..32)].concat();
    assert_eq!(poll(&mut Follower::new(&logs.path(), Start::Oldest)), all);
    assert_eq!(poll(&mut Follower::new(&logs.path(), Start::Newest)), said(1, 30..32));
}

#[test]
fn a_follower_misses_and_doubles_nothing_however_often_is_rotated_between_two_looks() {
    for (rotations, packs) in (0..5).flat_map(|n| [(n, false), (n, true)]) {
        for tail in [None, Some(0), Some(1)] {
            let logs = Logs::new();
            logs.say(0, 10..12);
            logs.rotate(0, 12);
            logs.say(0, 12..14);
            let mut follower = Follower::new(&logs.path(), Start::Newest);
            let mut expected = said(0, 10..14);
            if let Some(lines) = tail {
                follower = follower.tail(lines);
                expected.drain(..4 - lines);
            }
            assert_eq!(poll(&mut follower), expected);
            for n in 0..rotations {
                logs.say(0, 14 + 2 * n..16 + 2 * n);
                logs.rotate(0, 16 + 2 * n);
                if packs {
                    logs.pack();
                }
            }
            let mut new = 14 + 2 * rotations;
            assert_eq!(poll(&mut follower), said(0, 14..new), "{rotations} {packs} {tail:?}");
            logs.say(0, new..new + 1);
            new += 1;
            assert_eq!(poll(&mut follower), said(0, new - 1..new));
            assert!(poll(&mut follower).is_empty());
        }
    }
}

#[test]
fn what_is_removed_before_it_was_read_is_not_waited_for() {
    let logs = Logs::new();
    logs.say(0, 10..11);
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    assert_eq!(poll(&mut follower), said(0, 10..11));
    for n in 11..14 {
        logs.say(0, n..n + 1);
        logs.rotate(0, n + 1);
    }
    std::fs::remove_file(logs.path().join("0.log.20261124-164012.000000000")).unwrap();
    std::fs::remove_file(logs.path().join("0.log.20261124-164013.000000000")).unwrap();
    logs.say(0, 14..15);
    // It had the first open.
    assert_eq!(poll(&mut follower), ["0o 11|", "0o 13|", "0o 14|"]);
}

#[test]
fn a_packed_file_that_is_not_whole_is_named() {
    let logs = Logs::new();
    logs.say(0, 10..11);
    let name = "0.log.20261124-164009.000000000.gz";
    std::fs::write(logs.path().join(name), b"\x1f\x8b\x08").unwrap();
    let error = Follower::new(&logs.path(), Start::Oldest).poll(&mut |_| {}).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
}

#[test]
fn a_planted_link_is_refused() {
    let logs = Logs::new();
    std::os::unix::fs::symlink("/etc/passwd", logs.path().join("0.log")).unwrap();
    let mut follower = Follower::new(&logs.path(), Start::Oldest);
    assert!(follower.poll(&mut |_| {}).is_err());
}
