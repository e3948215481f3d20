//! The daemon's disk loses its power at any moment: what was acknowledged is there afterwards, and each object is
//! whole, as it was before or after what was asked for last.
//!
//! An ext4 of the test's own on a loop device; its journal is aborted (ext4(5), `abort`), so that nothing of what
//! is not on the disk yet arrives there, and it is mounted again, which replays the journal as after a crash.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::api::try_request;
use integration::{Instance, is_full, run, tabulate, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Names that are made, replaced and deleted in turn.
const NAMES: usize = 8;

/// A file system whose power can be cut.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Disk {
        if !Path::new("/dev/loop-control").exists() {
            run("modprobe loop");
        }
        let disk = Disk { image: dir.join("disk"), at: dir.join("mounted") };
        fs::create_dir(&disk.at).unwrap();
        run(&format!("truncate -s 24M {0} && mkfs.ext4 -q {0}", disk.image.display()));
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(&format!("mount -o loop {} {}", self.image.display(), self.at.display()));
    }

    fn cut(&self) {
        // It says that it is read-only now, and fails.
        let _ = std::process::Command::new("mount")
            .args(["-o", "remount,abort"])
            .arg(&self.at)
            .output()
            .unwrap();
    }

    fn unmount(&self) {
        until("the disk is free", || {
            let done = std::process::Command::new("umount").arg(&self.at).output().unwrap();
            if done.status.success() { Ok(()) } else { Err(format!("{done:?}")) }
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-q").arg(&self.at).output();
    }
}

/// What may be in an object: what was acknowledged, or what was asked for and not answered.
#[derive(Default)]
struct Known {
    certain: Option<u64>,
    asked: Option<Option<u64>>,
}

/// Changes objects until the daemon does not answer any more.
fn write(
    socket: &Path,
    known: &mut BTreeMap<String, Known>,
    next: &mut u64,
    end: &AtomicBool,
    done: &AtomicU64,
) {
    while !end.load(Ordering::SeqCst) {
        *next += 1;
        let name = format!("m{}", usize::try_from(*next).unwrap() % NAMES);
        let one = known.entry(name.clone()).or_default();
        let object =
            json!({"metadata": {"name": name}, "data": {"n": next.to_string()}}).to_string();
        let path = format!("{MAPS}/{name}");
        let (wanted, said) = match (one.certain, *next % 5) {
            (None, _) => (Some(*next), try_request(socket, "POST", MAPS, &object)),
            (Some(_), 0) => (None, try_request(socket, "DELETE", &path, "")),
            (Some(_), _) => (Some(*next), try_request(socket, "PUT", &path, &object)),
        };
        match said {
            // An aborted ext4 says yes to fsync once it is read-only: what is acknowledged while the power
            // goes tells nothing.
            Ok((200 | 201, _)) if !end.load(Ordering::SeqCst) => {
                one.certain = wanted;
                done.fetch_add(1, Ordering::SeqCst);
            }
            Ok((200 | 201, _)) => {
                one.asked = Some(wanted);
                return;
            }
            // A disk that is no more is said, or the daemon is no more.
            Ok((500, _)) | Err(_) => {
                one.asked = Some(wanted);
                return;
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
}

fn there(socket: &Path) -> BTreeMap<String, u64> {
    let (code, text) = try_request(socket, "GET", MAPS, "").unwrap();
    assert_eq!(code, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let each = list["items"].as_array().unwrap().iter().map(|map| {
        let name = map["metadata"]["name"].as_str().unwrap().to_owned();
        (name, map["data"]["n"].as_str().unwrap().parse().unwrap())
    });
    each.collect()
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    let podshim = Instance::new();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = Disk::new(dir.path());
    let root = disk.at.join("root");
    let socket = podshim.daemon_socket();
    let cuts = if is_full() { 10_000 } else { 25 };
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let (mut next, mut lost) = (0, 0);
    let mut longest = Duration::ZERO;
    for cut in 0..cuts {
        let begun = Instant::now();
        let daemon = podshim.start_daemon(&root);
        until("the daemon serves", || match try_request(&socket, "GET", "/readyz", "") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?} {}", daemon.text())),
        });
        let found = there(&socket);
        for (name, one) in &mut known {
            let now = found.get(name).copied();
            let may_be = now == one.certain || one.asked == Some(now);
            assert!(may_be, "cut {cut}: {name} is {now:?}: {:?} {:?}", one.certain, one.asked);
            (one.certain, one.asked) = (now, None);
        }
        assert!(!daemon.text().contains("damaged"), "cut {cut}: {}", daemon.text());
        // Written like all others, but not synced: to see that power is really cut.
        let unsynced = disk.at.join("unsynced");
        lost += u32::from(cut > 0 && fs::read(&unsynced).unwrap_or_default().is_empty());
        let _ = fs::remove_file(&unsynced);
        let (end, done) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| write(&socket, &mut known, &mut next, &end, &done));
            until("something is acknowledged", || match done.load(Ordering::SeqCst) {
                enough if enough > 3 => Ok(()),
                few => Err(few.to_string()),
            });
            thread::sleep(Duration::from_millis(5 + (cut * 7) % 60));
            fs::write(&unsynced, "here").unwrap();
            end.store(true, Ordering::SeqCst);
            disk.cut();
            daemon.signal(Signal::SIGKILL);
        });
        daemon.wait();
        disk.unmount();
        disk.mount();
        longest = longest.max(begun.elapsed());
    }
    let cases = usize::try_from(cuts).unwrap();
    tabulate("power cuts", "the daemon's store", cases, longest);
    disk.unmount();
    assert!(u64::from(lost) > cuts / 2, "power was cut in {lost} of {cuts}");
    fs::remove_file(socket).unwrap();
}
