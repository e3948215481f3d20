//! A pod's journal: what happened, one checksummed record a line.
//!
//! ```text
//! 9ae0daaf {"mono":12,"wall":34,"fact":{"fact":"created","c":0,…}}
//! ```
//!
//! The checksum is CRC-32 of everything behind the blank. A record is one write(2) of an append-only
//! file on tmpfs, written *before* the action that it announces and *after* the fact that it
//! reports. There is no fsync: the file dies with the host's boot, as the pod's processes do. A last
//! record without its newline was torn by our own death and is dropped; any other damage is an
//! error, never guessed over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plan::{At, Fact, Mono, Wall};
use serde::{Deserialize, Serialize};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, on the clock that decides.
    pub mono: Mono,
    /// When, on the clock that is shown.
    pub wall: Wall,
    /// What.
    pub fact: Fact,
}

impl Record {
    /// When, on both clocks.
    #[must_use]
    pub fn at(&self) -> At {
        At { mono: self.mono, wall: self.wall }
    }
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be opened, read or written.
    #[error("cannot {verb} the journal {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A record other than a torn last one is damaged.
    #[error("record {line} of the journal {} is damaged; `podshim prune` removes the pod", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
    },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
}

impl Journal {
    /// Opens the journal for appending; it is made if it is not there.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(|source| io_error("open", path, source))?;
        Ok(Journal { file, path: path.into(), line: Vec::with_capacity(256) })
    }

    /// Opens a journal to go on with it, and gives the records that it has. A last record that was torn is
    /// cut off.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn take_on(path: &Path) -> Result<(Journal, Vec<Record>), JournalError> {
        let (records, whole) = read_whole(path)?;
        let journal = Journal::open(path)?;
        journal.file.set_len(whole).map_err(|source| io_error("cut", path, source))?;
        Ok((journal, records))
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`JournalError::Io`], `ENOSPC` for one. A record that was written in part has been cut off
    /// again, so that the next one does not follow a torn one.
    pub fn append(&mut self, at: At, fact: &Fact) -> Result<(), JournalError> {
        let record = Record { mono: at.mono, wall: at.wall, fact: fact.clone() };
        self.line.clear();
        self.line.extend_from_slice(b"00000000 ");
        serde_json::to_writer(&mut self.line, &record)
            .map_err(|e| io_error("encode a record of", &self.path, e.into()))?;
        let sum = format!("{:08x}", crc32fast::hash(&self.line[9..]));
        self.line[..8].copy_from_slice(sum.as_bytes());
        self.line.push(b'\n');
        let before = self.file.metadata().map(|m| m.len());
        self.file.write_all(&self.line).map_err(|source| {
            if let Ok(length) = before {
                // If this fails too, reading reports the damage.
                let _ = self.file.set_len(length);
            }
            io_error("write", &self.path, source)
        })
    }
}

/// All whole records of a journal; a torn last one is dropped.
///
/// # Errors
/// [`JournalError`]; a journal that does not exist has no records.
pub fn read(path: &Path) -> Result<Vec<Record>, JournalError> {
    Ok(read_whole(path)?.0)
}

/// The same, and how many bytes they are.
fn read_whole(path: &Path) -> Result<(Vec<Record>, u64), JournalError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(e) => return Err(io_error("read", path, e)),
    };
    let (mut records, mut whole) = (Vec::new(), 0);
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let record = parse(line)
            .ok_or_else(|| JournalError::Damaged { path: path.into(), line: index + 1 })?;
        records.push(record);
        whole += line.len() as u64 + 1;
    }
    Ok((records, whole))
}

fn parse(line: &[u8]) -> Option<Record> {
    if *line.get(8)? != b' ' {
        return None;
    }
    let (sum, body) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(body)).then(|| serde_json::from_slice(body).ok())?
}

fn io_error(verb: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { verb, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).expect("open");
        for (n, fact) in [Fact::Accepted, Fact::SandboxMaking, Fact::Creating { c: 0, inc: 0 }]
            .iter()
            .enumerate()
        {
            let at = At { mono: Mono(n as u64), wall: Wall(9) };
            journal.append(at, fact).expect("append");
        }
        let bytes = std::fs::read(&path).expect("read");
        (dir, path, bytes)
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let (_dir, path, _) = written();
        let facts: Vec<_> = read(&path).expect("read").into_iter().map(|r| r.fact).collect();
        assert_eq!(facts, [Fact::Accepted, Fact::SandboxMaking, Fact::Creating { c: 0, inc: 0 }]);
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_whole_records_before_it() {
        let (_dir, path, bytes) = written();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("write");
            let whole = bytes[..length].iter().filter(|b| **b == b'\n').count();
            assert_eq!(read(&path).expect("read").len(), whole, "cut at {length}");
        }
    }

    #[test]
    fn a_changed_byte_is_reported_and_never_read_over() {
        let (_dir, path, bytes) = written();
        let last = bytes.len() - 1;
        for at in 0..last {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).expect("write");
            assert!(
                matches!(read(&path), Err(JournalError::Damaged { .. })),
                "byte {at} was changed"
            );
        }
    }
}
