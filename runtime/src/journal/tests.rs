//! Journals that are cut, damaged, of other formats.

use plan::{Container, Kind, RestartPolicy};

use super::*;

fn pod() -> Pod {
    Pod {
        namespace: "default".into(),
        name: "p".into(),
        uid: "u".into(),
        restart_policy: RestartPolicy::Always,
        grace_s: 30,
        active_deadline_s: None,
        restart_delay_max_s: 300,
        gates: Vec::new(),
        containers: vec![Container::new("main", Kind::Main, "image")],
    }
}

fn opening() -> Opening {
    let past = Past { state: State::new(&pod()), pod: pod(), told: Value::Null };
    Opening {
        journal: FORMAT,
        life: "life".into(),
        boot: "boot".into(),
        ahead: -7,
        at: At { mono: Mono(1), wall: Wall(2) },
        past: Box::new(past),
    }
}

fn facts() -> [Fact; 3] {
    [Fact::Accepted, Fact::SandboxMaking, Fact::Creating { c: 0, inc: 0 }]
}

fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal");
    let mut journal = Journal::begin(&path, &opening(), &[]).expect("begin");
    for (n, fact) in facts().iter().enumerate() {
        let at = At { mono: Mono(n as u64), wall: Wall(9) };
        journal.append(at, fact).expect("append");
    }
    let bytes = fs::read(&path).expect("read");
    (dir, path, bytes)
}

fn facts_in(path: &Path) -> Vec<Fact> {
    read(path).expect("read").records.into_iter().map(|r| r.fact).collect()
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'\n').count()
}

#[test]
fn what_was_appended_is_read_again() {
    let (_dir, path, bytes) = written();
    let contents = read(&path).expect("read");
    assert_eq!(contents.opening, Some(opening()));
    assert_eq!(contents.ahead(), -7);
    assert_eq!(contents.latest(), Some(At { mono: Mono(2), wall: Wall(9) }));
    assert_eq!(facts_in(&path), facts());
    let journal = Journal::go_on(&path, &contents).expect("open");
    assert_eq!(journal.length, bytes.len() as u64);
    assert_eq!(
        journal.of_records(),
        bytes.split(|b| *b == b'\n').skip(1).map(|l| l.len() as u64 + 1).sum::<u64>() - 1
    );
}

#[test]
fn a_cut_at_any_byte_leaves_the_whole_records_before_it_and_the_next_follows_them() {
    let (_dir, path, bytes) = written();
    for length in 0..bytes.len() {
        // What a power cut leaves of a file's end is missing, or was never written.
        for tail in [0, 1, 5000] {
            let mut cut = bytes[..length].to_vec();
            cut.extend(std::iter::repeat_n(0, tail));
            fs::write(&path, &cut).expect("write");
            let contents = read(&path).expect("read");
            let whole = lines(&bytes[..length]);
            assert_eq!(contents.opening.is_some(), whole > 0, "cut at {length}");
            assert_eq!(contents.records.len(), whole.saturating_sub(1), "cut at {length}");
            if whole > 0 {
                let mut journal = Journal::go_on(&path, &contents).expect("open");
                journal.append(At::default(), &Fact::TornDown).expect("append");
                assert_eq!(facts_in(&path).last(), Some(&Fact::TornDown), "cut at {length}");
            }
        }
    }
}

#[test]
fn a_changed_byte_is_reported_and_never_read_over() {
    let (_dir, path, bytes) = written();
    let last = bytes.len() - 1;
    for at in 0..last {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).expect("write");
        let read = read(&path);
        assert!(matches!(read, Err(JournalError::Damaged { .. })), "byte {at}: {read:?}");
    }
}

#[test]
fn a_journal_that_opens_anew_has_all_that_was_known_and_nothing_of_a_beginning_is_left() {
    let (dir, path, before) = written();
    let known = read(&path).expect("read");
    let mut state = State::new(&pod());
    known.records.iter().for_each(|r| plan::fold(&pod(), &mut state, r.at(), &r.fact));
    let past = Past { pod: pod(), state: state.clone(), told: serde_json::json!(["event"]) };
    let again = Opening { past: Box::new(past), life: "next".into(), ..opening() };
    let first = Record { mono: Mono(5), wall: Wall(5), fact: Fact::SandboxLost };
    let mut journal = Journal::begin(&path, &again, std::slice::from_ref(&first)).expect("begin");
    journal.append(At::default(), &Fact::SandboxMaking).expect("append");
    let contents = read(&path).expect("read");
    assert_eq!(contents.opening.as_ref().map(|o| &o.past.state), Some(&state));
    assert_eq!(facts_in(&path), [Fact::SandboxLost, Fact::SandboxMaking]);
    assert_ne!(fs::read(&path).expect("read"), before);
    let names = fs::read_dir(dir.path()).expect("directory").count();
    assert_eq!(names, 1);
}

#[test]
fn a_link_leads_to_where_the_journal_is_kept() {
    let (kept, live) = (tempfile::tempdir().expect("kept"), tempfile::tempdir().expect("live"));
    let (file, link) = (kept.path().join("journal"), live.path().join("journal"));
    std::os::unix::fs::symlink(&file, &link).expect("link");
    assert_eq!(read(&link).expect("read").latest(), None);
    for _ in 0..2 {
        let mut journal = Journal::begin(&link, &opening(), &[]).expect("begin");
        journal.append(At::default(), &Fact::Accepted).expect("append");
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
        assert_eq!(facts_in(&file), [Fact::Accepted]);
        assert_eq!(facts_in(&link), [Fact::Accepted]);
    }
}

#[test]
fn the_format_before_is_read_and_one_that_is_not_known_is_named() {
    let (_dir, path, bytes) = written();
    let bare: Vec<u8> = bytes.split_inclusive(|b| *b == b'\n').skip(1).flatten().copied().collect();
    fs::write(&path, bare).expect("write");
    assert_eq!(read(&path).expect("read").opening, None);
    assert_eq!(facts_in(&path), facts());

    let newer = Opening { journal: FORMAT + 1, ..opening() };
    Journal::begin(&path, &newer, &[]).expect("begin");
    let error = read(&path).expect_err("a format from the future").to_string();
    assert!(error.contains("format 2") && error.contains("another version"), "{error}");
}

#[test]
fn fields_that_a_later_version_adds_are_skipped_and_a_fact_that_it_adds_is_named() {
    let (_dir, path, _) = written();
    let mut richer = serde_json::to_value(opening()).expect("json");
    richer["more"] = serde_json::json!({"a": 1});
    richer["past"]["state"]["more"] = serde_json::json!(1);
    let record = |fact: Value| serde_json::json!({"mono": 1, "wall": 1, "more": 1, "fact": fact});
    let mut text = Vec::new();
    push_line(&mut text, &richer).expect("line");
    push_line(&mut text, &record(serde_json::json!({"fact": "accepted", "more": 1})))
        .expect("line");
    fs::write(&path, &text).expect("write");
    assert_eq!(read(&path).expect("read").opening, Some(opening()));
    assert_eq!(facts_in(&path), [Fact::Accepted]);

    push_line(&mut text, &record(serde_json::json!({"fact": "teleported"}))).expect("line");
    fs::write(&path, &text).expect("write");
    let error = read(&path).expect_err("an unknown fact").to_string();
    assert!(error.contains("record 3") && error.contains("teleported"), "{error}");
}
