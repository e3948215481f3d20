//! Rotation: when a log file has reached its size it takes a name of its own, and a new one begins.
//!
//! `0.log` becomes `0.log.20261128-182209.123456789`: the run, and a time later than all that is in the
//! file and not later than the first line of the next one. So names tell the order, are never given
//! twice (times in a log only rise), and say which file holds what comes after a line. As with a kubelet
//! (`containerLogMaxSize`, `containerLogMaxFiles`) the oldest are removed, and all but the newest of
//! them are compressed (`….gz`, [`super::packing`]).

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use plan::Wall;
use rustix::fs::Dir;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// How long and how many the files of one run's log may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// A file that would become longer than this many bytes is rotated; a single batch of lines (128 KiB
    /// at most) may be longer.
    pub max_bytes: u64,
    /// How many files, with the one that is being written; at least 2.
    pub max_files: u32,
}

/// A kubelet's: 10 MiB, five files.
impl Default for Rotation {
    fn default() -> Rotation {
        Rotation { max_bytes: 10 << 20, max_files: 5 }
    }
}

impl Rotation {
    /// Whether a file of `size` bytes is full when `more` bytes are to be appended.
    pub(super) fn is_due(self, size: u64, more: usize) -> bool {
        size > 0 && size.saturating_add(more as u64) > self.max_bytes
    }
}

/// A file that was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rotated {
    /// Of which run.
    pub run: u32,
    /// A time later than all that is in it.
    pub until: Key,
    /// Whether it is compressed.
    pub packed: bool,
    pub ino: u64,
    pub name: OsString,
}

const PACKED: &str = ".gz";

/// A time as it stands in names, `20261128-182209.123456789`: in the order of the alphabet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn of(time: Wall) -> Key {
        let date: String = time.rfc3339().chars().filter(char::is_ascii_digit).collect();
        let (day, seconds) = date.split_at(date.len().saturating_sub(6));
        Key(format!("{day}-{seconds}.{:09}", time.0 % 1_000_000_000))
    }

    fn read(text: &str) -> Option<Key> {
        let fits = |(at, byte): (usize, u8)| match at {
            8 => byte == b'-',
            15 => byte == b'.',
            _ => byte.is_ascii_digit(),
        };
        let is_key = text.len() == 25 && text.bytes().enumerate().all(fits);
        is_key.then(|| Key(text.to_owned()))
    }
}

/// The name that the log of this name takes.
pub(super) fn rotated_name(name: &OsStr, until: Wall) -> OsString {
    let mut rotated = name.to_owned();
    rotated.push(".");
    rotated.push(Key::of(until).0);
    rotated
}

/// The name of a compressed file.
pub(super) fn packed_name(name: &OsStr) -> OsString {
    let mut packed = name.to_owned();
    packed.push(PACKED);
    packed
}

/// The number of a run, by the name of its log.
pub(super) fn run_of(name: &str) -> Option<u32> {
    name.strip_suffix(".log").and_then(|n| n.parse().ok())
}

/// The number of a run, by the name of what was rotated of its log.
pub(super) fn run_of_rotated(name: &str) -> Option<u32> {
    rotated(OsStr::new(name), 0).map(|file| file.run)
}

fn rotated(name: &OsStr, ino: u64) -> Option<Rotated> {
    let text = name.to_str()?;
    let (text, packed) = match text.strip_suffix(PACKED) {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (run, key) = text.split_once(".log.")?;
    let (run, until) = (run.parse().ok()?, Key::read(key)?);
    Some(Rotated { run, until, packed, ino, name: name.to_owned() })
}

/// What was rotated and is still there, oldest first; of a file that is there in both forms (it is
/// being compressed) only the plain one.
pub(super) fn list(directory: impl AsFd) -> Result<Vec<Rotated>, Errno> {
    let mut found = Vec::new();
    // readdir(3) may miss a file that changes its name in this moment, under its old name and its new one.
    // What does so while it is read once is read the other time.
    for _ in 0..2 {
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            found.extend(rotated(name, entry.ino()));
        }
    }
    found.sort_by(|a, b| (a.run, &a.until, a.packed).cmp(&(b.run, &b.until, b.packed)));
    found.dedup_by(|a, b| (a.run, &a.until) == (b.run, &b.until));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_run_and_time_and_others_are_none_of_ours() {
        let until = Wall(1_795_538_415_000_000_007);
        let name = rotated_name(OsStr::new("3.log"), until);
        assert_eq!(name, "3.log.20261124-164015.000000007");
        let file = rotated(&name, 9).expect("ours");
        assert_eq!((file.run, file.until, file.packed, file.ino), (3, Key::of(until), false, 9));
        assert!(Key::of(until) < Key::of(Wall(until.0 + 1)) && Key::of(Wall(0)) < Key::of(until));
        assert!(rotated(&packed_name(&name), 9).is_some_and(|file| file.packed));
        for other in [
            "3.log",
            "3.log.gz",
            "3.log.1",
            "x.log.20261124-164015.000000007",
            "3.log.20261124-164015.00000000x",
            "3.log.20261124x164015.000000007",
            "3.log.20261124-164015.000000007.tmp",
        ] {
            assert_eq!(rotated(OsStr::new(other), 9), None, "{other}");
        }
    }

    #[test]
    fn files_are_listed_in_the_order_of_what_is_in_them_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let name = |run: &str, s: u64| rotated_name(OsStr::new(run), Wall(s * 1_000_000_000));
        for name in [
            name("1.log", 5),
            packed_name(&name("0.log", 9)),
            name("0.log", 1_000_000_000),
            packed_name(&name("0.log", 1_000_000_000)),
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let opened = std::fs::File::open(directory.path()).unwrap();
        let found: Vec<_> = list(&opened).unwrap().into_iter().map(|f| (f.run, f.packed)).collect();
        assert_eq!(found, [(0, true), (0, false), (1, false)]);
    }

    #[test]
    fn a_file_is_full_when_it_would_be_longer_but_never_when_it_is_empty() {
        let rotation = Rotation { max_bytes: 100, max_files: 2 };
        assert!(!rotation.is_due(0, 200));
        assert!(!rotation.is_due(60, 40));
        assert!(rotation.is_due(60, 41));
    }
}
