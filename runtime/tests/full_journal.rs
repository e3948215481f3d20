//! A journal on a disk that is full: what happens can still be written, for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use plan::{At, Fact, Mono, Pod, RestartPolicy, State, Wall};
use runtime::journal::{self, FORMAT, Journal, Opening, Past};
use serde_json::Value;

/// Half of what is taken ahead is there at any moment: as many records of 90 bytes at least.
const RECORDS: usize = 300;

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn opening() -> Opening {
    let pod = Pod {
        namespace: "default".into(),
        name: "p".into(),
        uid: "u".into(),
        restart_policy: RestartPolicy::Always,
        grace_s: 30,
        active_deadline_s: None,
        restart_delay_max_s: 300,
        gates: Vec::new(),
        containers: Vec::new(),
    };
    let past = Past { state: State::new(&pod), pod, told: Value::Null };
    let (life, boot, at) = (String::new(), String::new(), At::default());
    Opening { journal: FORMAT, life, boot, ahead: 0, at, past: Box::new(past) }
}

#[test]
fn a_journal_on_a_full_disk_has_room_and_says_when_it_has_none() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (image, at) = (dir.path().join("disk"), dir.path().join("mounted"));
    fs::create_dir(&at).unwrap();
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    if !Path::new("/dev/loop-control").exists() {
        run("modprobe", &["loop"]);
    }
    run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
    let _mounted = Mounted(&at);
    let link = dir.path().join("journal");
    std::os::unix::fs::symlink(at.join("journal"), &link).unwrap();
    let mut journal = Journal::begin(&link, &opening(), &[]).unwrap();

    let mut filler = File::create(at.join("filler")).unwrap();
    for size in [1 << 20, 4096, 1] {
        while filler.write_all(&vec![b'x'; size]).and_then(|()| filler.sync_data()).is_ok() {}
    }
    let record =
        |n: usize| (At { mono: Mono(n as u64), wall: Wall(0) }, Fact::RestartAsked { c: n });
    for n in 0..RECORDS {
        // A successor takes it on in between, and the room stays.
        if n == RECORDS / 2 {
            journal = Journal::go_on(&link, &journal::read(&link).unwrap()).unwrap();
        }
        let (at, fact) = record(n);
        journal.append(at, &fact).unwrap();
    }
    let mut written = RECORDS;
    let failure = loop {
        let (at, fact) = record(written);
        match journal.append(at, &fact) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
        assert!(written < 10_000, "it has room for ever");
    };
    assert!(format!("{failure:?}").contains("StorageFull"), "{failure:?}");
    // Nothing is torn, and it goes on when there is room again.
    fs::remove_file(at.join("filler")).unwrap();
    drop(filler);
    let (at, fact) = record(written);
    journal.append(at, &fact).unwrap();
    let records = journal::read(&link).unwrap().records;
    assert_eq!(records.len(), written + 1);
    assert_eq!(records.last().map(|r| &r.fact), Some(&record(written).1));
}
