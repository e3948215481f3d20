//! One container's way from its FIFOs to its log, every byte exactly once whenever it is killed.
//!
//! A batch is the range `[done, next)` of a stream's stage. Its text is a pure function of those
//! bytes, the stream and the first line's time. All of that, with the log's identity and size, is
//! stored as the *intent* before the log is touched, so whoever comes next (a successor, or
//! ourselves when a full disk has room again) makes the same text and goes on at the right byte:
//! [`Lane::resume`]. The kernel stores the count of bytes taken (`sys::splice`), so that they are
//! either still in the FIFO or in the stage, never in between.
//!
//! What is called when is the pump's business.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plan::Wall;
use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::failpoint;
use super::files::{self, How, Identity};
use super::format::{HEADER, MAX_CONTENT, Rest, Stream, format, newline};
use super::pump::PumpError;
use super::record::{Field, Record};
use super::rotation::{self, Rotation};
use crate::sys::shared_memory::Bytes;
use crate::sys::splice::splice_counted;

/// Most that is taken from a FIFO at once, so that streams get their turns: a default pipeful.
pub(super) const CHUNK: usize = 64 << 10;

/// A stream's part of the stage file: when less than a chunk is free, more than `MAX_CONTENT` of it
/// is done with, which is what an unfinished line needs at most.
pub(super) const STAGE: usize = CHUNK + 3 * MAX_CONTENT;

/// Most text of one batch. A successor makes the same text, so it must have as much room.
pub(super) const TEXT: usize = 128 << 10;

const _: () = assert!(TEXT > HEADER + MAX_CONTENT, "a line must fit into a batch");

/// A container's log file: where it is to be, and the file if it is open.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    directory: PathBuf,
    name: OsString,
    file: Option<OwnedFd>,
    /// It was said that it cannot be rotated.
    told: bool,
}

impl Log {
    pub(super) fn new(path: &Path) -> Result<Log, PumpError> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(files::FileError::Path { path: path.to_owned() }.into());
        };
        Ok(Log {
            path: path.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
            file: None,
            told: false,
        })
    }

    pub(super) fn is(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Which file it is; opened if it was not.
    pub(super) fn identify(&mut self) -> Result<Identity, PumpError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.directory, &self.name, &self.path)?,
        };
        Ok(files::identify(self.file.insert(file), &self.path)?)
    }

    /// The same, but a file that somebody deleted is no use: then a new one.
    fn identify_linked(&mut self) -> Result<Identity, PumpError> {
        let found = self.identify()?;
        if found.linked {
            return Ok(found);
        }
        self.file = None;
        self.identify()
    }

    /// Gives the file, which is full, a name of its own, and removes the oldest such files. `false`, and one
    /// warning, if that cannot be: then it grows on.
    fn rotate(&mut self, until: Wall, rotation: Rotation) -> bool {
        failpoint::point();
        match self.try_rotate(until, rotation) {
            Ok(()) => {
                self.told = false;
                true
            }
            Err(e) => {
                // Each batch tries again.
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!("cannot rotate {}: {e}", self.path.display());
                }
                false
            }
        }
    }

    fn try_rotate(&mut self, until: Wall, rotation: Rotation) -> Result<(), Errno> {
        let directory = files::directory(&self.directory).map_err(|_| Errno::NOTDIR)?;
        let to = rotation::rotated_name(&self.name, until);
        match renameat_with(&directory, &self.name, &directory, &to, RenameFlags::NOREPLACE) {
            // Without a name of its own the file is somebody else's now.
            Ok(()) | Err(Errno::NOENT) => self.file = None,
            Err(errno) => return Err(errno),
        }
        failpoint::point();
        let run = self.name.to_str().and_then(rotation::run_of);
        let rotated: Vec<_> =
            rotation::list(&directory)?.into_iter().filter(|f| Some(f.run) == run).collect();
        let keep = rotation.max_files.saturating_sub(1) as usize;
        for old in &rotated[..rotated.len().saturating_sub(keep)] {
            // It may have been compressed in this moment.
            for name in [old.name.clone(), rotation::packed_name(&old.name)] {
                match unlinkat(&directory, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            failpoint::point();
        }
        Ok(())
    }

    /// Appends to the file that was identified last.
    fn append(&self, text: &[u8]) -> Result<(), PumpError> {
        match &self.file {
            Some(file) => write(file.as_fd(), text, &self.path),
            None => Err(PumpError::Write { path: self.path.clone(), source: Errno::BADF }),
        }
    }
}

fn open(directory: &Path, name: &OsStr, path: &Path) -> Result<OwnedFd, PumpError> {
    Ok(files::open(files::make_directory(directory)?, name, path, How::Make)?)
}

/// One container and what it shares with the others, for the time of a call.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    pub record: Record<'a>,
    pub stage: &'a mut Bytes,
    pub text: &'a mut Vec<u8>,
    pub fifos: &'a [OwnedFd; 2],
    pub log: &'a mut Log,
    /// Up to where a stream's unfinished line is known to hold no newline.
    pub scanned: &'a mut [u64; 2],
    /// Where each stream's part of the stage begins.
    pub base: [u64; 2],
    pub rotation: Option<Rotation>,
    /// Set when the log was rotated.
    pub rotated: &'a mut bool,
}

impl Lane<'_> {
    /// One chunk from the FIFO to the stage, and what is complete of it to the log. Returns how
    /// many bytes were taken.
    pub(super) fn take(&mut self, stream: Stream, now: Wall) -> Result<usize, PumpError> {
        self.compact(stream);
        failpoint::point();
        let fifo = self.fifos[stream as usize].as_fd();
        let pos = self.record.word(Field::Pos(stream));
        let taken = match splice_counted(fifo, self.stage, pos, CHUNK) {
            Ok(0) => return Err(PumpError::Stage { source: Errno::IO }),
            Ok(taken) => taken,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(Errno::FAULT) => return Err(PumpError::Lost),
            Err(source) => return Err(PumpError::Stage { source }),
        };
        failpoint::point();
        self.emit(stream, Rest::Keep, now)?;
        Ok(taken)
    }

    /// Brings what is in the stage into the log.
    pub(super) fn emit(&mut self, stream: Stream, rest: Rest, now: Wall) -> Result<(), PumpError> {
        let pos = self.record.get(Field::Pos(stream));
        let mut done = self.record.get(Field::Done(stream));
        if rest == Rest::Keep && !self.has_more(stream, done, pos) {
            self.scanned[stream as usize] = pos;
            return Ok(());
        }
        while done < pos {
            let first = Wall(now.0.max(self.record.get(Field::NextTime)));
            let input = &self.stage.as_slice()[done as usize..pos as usize];
            self.text.clear();
            let batch = format(input, stream, rest, first, TEXT, self.text);
            if batch.used == 0 {
                break;
            }
            let next = done + batch.used as u64;
            self.begin(stream, next, first, Wall(first.0.saturating_add(batch.lines)))?;
            self.log.append(self.text)?;
            self.end(stream);
            done = next;
        }
        self.scanned[stream as usize] = pos;
        Ok(())
    }

    /// Whether the stage holds a line or a part of full length. Looks at each byte once: output
    /// without newlines would else cost the square of its length.
    fn has_more(&self, stream: Stream, done: u64, pos: u64) -> bool {
        let from = self.scanned[stream as usize].clamp(done, pos);
        pos - done > MAX_CONTENT as u64
            || newline(&self.stage.as_slice()[from as usize..pos as usize]).is_some()
    }

    /// Makes room for a chunk, if need be by moving an unfinished line to the beginning. Only with
    /// no intent open.
    fn compact(&mut self, stream: Stream) {
        let base = self.base[stream as usize];
        let (pos, done) =
            (self.record.get(Field::Pos(stream)), self.record.get(Field::Done(stream)));
        let left = pos - done;
        let roomy = pos + CHUNK as u64 <= base + STAGE as u64;
        if done == base || (left > 0 && roomy) {
            return;
        }
        debug_assert!(base + left < done, "the line would be moved onto itself");
        failpoint::point();
        self.stage.copy_within(done as usize..pos as usize, base as usize);
        // Dying between these two leaves done > pos, which nothing else does.
        self.record.set(Field::Pos(stream), base + left);
        self.record.set(Field::Done(stream), base);
        self.scanned[stream as usize] = base + left;
    }

    /// Opens the intent to append `self.text`.
    fn begin(
        &mut self,
        stream: Stream,
        next: u64,
        first: Wall,
        after: Wall,
    ) -> Result<(), PumpError> {
        let mut log = self.log.identify_linked()?;
        if let Some(rotation) = self.rotation.filter(|r| r.is_due(log.size, self.text.len())) {
            *self.rotated |= self.log.rotate(first, rotation);
            log = self.log.identify_linked()?;
        }
        self.record.set(Field::Next, next);
        self.record.set(Field::Time, first.0);
        self.record.set(Field::NextTime, after.0);
        self.record.name(&log);
        self.record.set(Field::LogLen, self.text.len() as u64);
        self.record.set(Field::Intent, 1 + stream as u64);
        Ok(())
    }

    /// Closes the intent, whose text is in the log. Dying between the two stores, a successor finds
    /// the text complete and comes here again.
    fn end(&mut self, stream: Stream) {
        self.record.set(Field::Done(stream), self.record.get(Field::Next));
        self.record.set(Field::Intent, 0);
    }

    /// The stream whose batch is being appended.
    fn intent(&self) -> Result<Option<Stream>, PumpError> {
        match self.record.get(Field::Intent) {
            0 => Ok(None),
            1 => Ok(Some(Stream::Stdout)),
            2 => Ok(Some(Stream::Stderr)),
            _ => Err(PumpError::Damaged { what: "an intent of no stream" }),
        }
    }

    /// Carries out an open intent: after a takeover, and when a full disk is tried again.
    pub(super) fn resume(&mut self) -> Result<(), PumpError> {
        let Some(stream) = self.intent()? else { return Ok(()) };
        let (elsewhere, found) = self.intended_file()?;
        if found.size < self.record.get(Field::LogSize) {
            // Somebody truncated it, and the batch's beginning with it: all of it again.
            self.record.set(Field::LogSize, found.size);
        }
        let len = self.record.get(Field::LogLen);
        let written = found.size - self.record.get(Field::LogSize);
        if written < len {
            self.format_again(stream, len)?;
            let missing = &self.text[written as usize..];
            match &elsewhere {
                Some(file) => write(file.as_fd(), missing, &self.log.directory)?,
                None => self.log.append(missing)?,
            }
        }
        self.end(stream);
        Ok(())
    }

    /// The file that the open batch was begun in: the log, or (`Some`) a file that was renamed
    /// since. If it is gone, and the batch with it, then the log is recorded in its place.
    fn intended_file(&mut self) -> Result<(Option<OwnedFd>, Identity), PumpError> {
        let log = self.log.identify()?;
        if log.linked && self.record.names(&log) {
            return Ok((None, log));
        }
        let (ino, btime) = (self.record.get(Field::LogIno), self.record.get(Field::LogBtime));
        let directory = files::make_directory(&self.log.directory)?;
        if let Some((file, found)) = files::find(directory, &self.log.directory, ino, btime)? {
            return Ok((Some(file), found));
        }
        let log = self.log.identify_linked()?;
        self.record.name(&log);
        Ok((None, log))
    }

    fn format_again(&mut self, stream: Stream, len: u64) -> Result<(), PumpError> {
        let (from, to) = (self.record.get(Field::Done(stream)), self.record.get(Field::Next));
        let damaged = PumpError::Damaged { what: "an intent that does not fit its stage" };
        if from > to || to > self.record.get(Field::Pos(stream)) {
            return Err(damaged);
        }
        let input = &self.stage.as_slice()[from as usize..to as usize];
        let first = Wall(self.record.get(Field::Time));
        self.text.clear();
        // The range ends where the first pass stopped, so flushing cuts nothing else.
        let again = format(input, stream, Rest::Flush, first, TEXT, self.text);
        let same = again.used == input.len() && self.text.len() as u64 == len;
        if same { Ok(()) } else { Err(damaged) }
    }
}

fn write(file: BorrowedFd<'_>, mut text: &[u8], path: &Path) -> Result<(), PumpError> {
    let failed = |source| PumpError::Write { path: path.to_owned(), source };
    while !text.is_empty() {
        failpoint::point();
        match rustix::io::write(file, &text[..failpoint::write_at_most(text.len())]) {
            Ok(0) => return Err(failed(Errno::IO)),
            Ok(written) => text = &text[written..],
            Err(Errno::INTR) => {}
            Err(source) => return Err(failed(source)),
        }
        failpoint::point();
    }
    Ok(())
}
