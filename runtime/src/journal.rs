//! A pod's journal: what happened, one checksummed record a line.
//!
//! ```text
//! 1f0c22d1 {"journal":1,"life":"…","boot":"…","ahead":0,"mono":11,"wall":33,"past":{…}}
//! 9ae0daaf {"mono":12,"wall":34,"fact":{"fact":"created","c":0,…}}
//! ```
//!
//! The checksum is CRC-32 of everything behind the blank. The first line, its opening, says in which format
//! the file is and what was known before its first record; when the records have become many, a new file
//! takes its place that opens with all that is known now. A record is one write(2) to the end of the file,
//! *before* the action that it announces and *after* the fact that it reports. There is no fsync for one:
//! what lived goes with the host's boot, and what a power cut takes of a file that outlives it (a pod of the
//! daemon's) is its last seconds. A last record without its newline was torn by our own death, and one
//! with a NUL in it stands where the disk was never written: that and what follows is dropped. Any other
//! damage is an error, never guessed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plan::{At, Fact, Mono, Pod, State, Wall};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format that is written. Fields may be added within one; whoever does not know them skips them.
pub const FORMAT: u32 = 1;
/// The format of journals without an opening.
const BARE: u32 = 0;

/// What a journal opens with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// The format of what follows.
    pub journal: u32,
    /// Which making of the pod's live directory it belongs to: with another one, all that lived is gone.
    pub life: String,
    /// The host's boot (random(4), `boot_id`).
    pub boot: String,
    /// How far the clock of its records is ahead of `CLOCK_BOOTTIME`, in nanoseconds: it goes on over boots.
    pub ahead: i64,
    /// When it was written.
    #[serde(flatten)]
    pub at: At,
    /// What had happened by then.
    pub past: Box<Past>,
}

/// All that is known of a pod at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// The pod as it was then.
    pub pod: Pod,
    /// What was folded.
    pub state: State,
    /// What its writer had told by then; the journal keeps it and does not look into it.
    pub told: Value,
}

/// What stands in a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// `None` in a file of format 0.
    pub opening: Option<Opening>,
    /// What happened since.
    pub records: Vec<Record>,
    /// How many bytes the opening is, and all that is whole.
    opening_length: u64,
    length: u64,
}

impl Contents {
    /// When the last of it was written.
    #[must_use]
    pub fn latest(&self) -> Option<At> {
        let last = self.records.last().map(Record::at);
        last.or(self.opening.as_ref().map(|opening| opening.at))
    }

    /// See [`Opening::ahead`].
    #[must_use]
    pub fn ahead(&self) -> i64 {
        self.opening.as_ref().map_or(0, |opening| opening.ahead)
    }
}

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
    /// A record is whole and means nothing to this version.
    #[error(
        "record {line} of the journal {} is not understood ({why}): another version of podshim wrote it, \
         and can go on with it",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is not understood.
        why: String,
    },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
    /// How long its opening is, and all of it.
    opening: u64,
    length: u64,
    /// Up to where the disk has room for it; `None` in memory.
    room: Option<u64>,
    /// It is not to be opened anew before its records are so long.
    put_off: u64,
}

/// What a journal on disk has as room ahead of it, so that a disk that is full can be told of.
const ROOM: u64 = 64 << 10;

impl Journal {
    /// Begins a journal, in place of the one that is there if there is one. Whatever cuts this short, the
    /// file is the old one or the new one.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn begin(
        path: &Path,
        opening: &Opening,
        first: &[Record],
    ) -> Result<Journal, JournalError> {
        let is_link = path.is_symlink();
        let path = &target(path);
        let mut text = Vec::with_capacity(4096);
        push_line(&mut text, opening).map_err(|e| io_error("encode", path, e))?;
        let length = text.len() as u64;
        for record in first {
            push_line(&mut text, record).map_err(|e| io_error("encode", path, e))?;
        }
        let beside = path.with_extension("new");
        let written = File::create(&beside).and_then(|mut file| {
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600))?;
            file.write_all(&text)?;
            // A name that is on the disk before what it names would be an empty journal after a power cut, in
            // place of one that was not. Of a pod that is new nothing can be lost.
            if path.exists() {
                file.sync_data()?;
            }
            fs::rename(&beside, path)
        });
        written.map_err(|source| {
            let _ = fs::remove_file(&beside);
            io_error("begin", path, source)
        })?;
        Ok(Journal::of(open(path)?, path.into(), is_link, length, text.len() as u64))
    }

    fn of(file: File, path: PathBuf, on_disk: bool, opening: u64, length: u64) -> Journal {
        let (line, room) = (Vec::with_capacity(256), on_disk.then_some(0));
        let mut journal = Journal { file, path, line, opening, length, room, put_off: 0 };
        journal.take_room();
        journal
    }

    /// Without room on the disk there is none to take; records still find what was taken before.
    fn take_room(&mut self) {
        let Some(room) = self.room.filter(|room| self.length + ROOM / 2 > *room) else { return };
        let from = room.max(self.length);
        let taken =
            rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::KEEP_SIZE, from, ROOM);
        if taken.is_ok() {
            self.room = Some(from + ROOM);
        }
    }

    /// Opens a journal that [`read`] has read, to go on with it: what was torn of it is cut off.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn go_on(path: &Path, contents: &Contents) -> Result<Journal, JournalError> {
        let file = open(path)?;
        let is_whole = file.metadata().is_ok_and(|meta| meta.len() == contents.length);
        if !is_whole {
            file.set_len(contents.length).map_err(|source| io_error("cut", path, source))?;
        }
        let (opening, length) = (contents.opening_length, contents.length);
        Ok(Journal::of(file, path.into(), path.is_symlink(), opening, length))
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`JournalError::Io`], `ENOSPC` for one. A record that was written in part has been cut off
    /// again, so that the next one does not follow a torn one.
    pub fn append(&mut self, at: At, fact: &Fact) -> Result<(), JournalError> {
        let record = Record { mono: at.mono, wall: at.wall, fact: fact.clone() };
        self.line.clear();
        push_line(&mut self.line, &record)
            .map_err(|e| io_error("encode a record of", &self.path, e))?;
        let written = self.file.write_all(&self.line);
        written.map_err(|source| {
            // If this fails too, reading reports the damage.
            let _ = self.file.set_len(self.length);
            io_error("write", &self.path, source)
        })?;
        self.length += self.line.len() as u64;
        self.take_room();
        Ok(())
    }

    /// Whether its records are longer than that.
    #[must_use]
    pub fn is_longer_than(&self, most: u64) -> bool {
        self.of_records() > most.max(self.put_off)
    }

    /// It cannot be opened anew now: it is not tried again at each record.
    pub fn put_off(&mut self) {
        self.put_off = self.of_records() + ROOM;
    }

    fn of_records(&self) -> u64 {
        self.length.saturating_sub(self.opening)
    }
}

fn open(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new().append(true).open(path);
    file.map_err(|source| io_error("open", path, source))
}

/// The file itself: one that outlives a boot is a link to where it lies on disk, which may not be there yet.
fn target(path: &Path) -> PathBuf {
    fs::read_link(path).unwrap_or_else(|_| path.into())
}

/// Checksum, blank, JSON, newline.
fn push_line(to: &mut Vec<u8>, what: &impl Serialize) -> io::Result<()> {
    let begin = to.len();
    to.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *to, what)?;
    let sum = format!("{:08x}", crc32fast::hash(&to[begin + 9..]));
    to[begin..begin + 8].copy_from_slice(sum.as_bytes());
    to.push(b'\n');
    Ok(())
}

/// What stands in a journal; what was torn of it is left out.
///
/// # Errors
/// [`JournalError`]; a journal that does not exist is empty, and so is one without a whole line.
pub fn read(path: &Path) -> Result<Contents, JournalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io_error("read", path, e)),
    };
    let mut contents =
        Contents { opening: None, records: Vec::new(), opening_length: 0, length: 0 };
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let whole = line.strip_suffix(b"\n").filter(|line| !line.contains(&0));
        let Some(text) = whole else { break };
        let at = || (path.to_path_buf(), index + 1);
        let body = checked(text).ok_or_else(|| {
            let (path, line) = at();
            JournalError::Damaged { path, line }
        })?;
        let foreign = |why: String| {
            let (path, line) = at();
            JournalError::Foreign { path, line, why }
        };
        contents.length += line.len() as u64;
        if index == 0 && format(body) != BARE {
            if format(body) != FORMAT {
                return Err(foreign(format!("format {}", format(body))));
            }
            let opening = serde_json::from_slice(body).map_err(|e| foreign(e.to_string()))?;
            contents.opening = Some(opening);
            contents.opening_length = contents.length;
        } else {
            let record = serde_json::from_slice(body).map_err(|e| foreign(e.to_string()))?;
            contents.records.push(record);
        }
    }
    Ok(contents)
}

/// The format that the first line says the file is in.
fn format(body: &[u8]) -> u32 {
    #[derive(Deserialize)]
    struct Format {
        journal: u32,
    }
    serde_json::from_slice(body).map_or(BARE, |format: Format| format.journal)
}

/// What the checksum is of, if it is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    if *line.get(8)? != b' ' {
        return None;
    }
    let (sum, body) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(body)).then_some(body)
}

fn io_error(verb: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { verb, path: path.into(), source }
}

#[cfg(test)]
mod tests;
