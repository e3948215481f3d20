//! Reading a container's logs: all of them, the last lines, or what is new.
//!
//! A [`Follower`] reads what was rotated of a run, then `<n>.log`, and when the container was restarted goes
//! on with the next number's files. It joins parts (`P`) to lines, each stream by itself. It does not wait: whoever
//! uses it (`podshim logs`, `podshim run`) is told by inotify or a timer to [`poll`](Follower::poll)
//! again. It does not escape control characters; that is for whoever knows about the terminal.

use std::ffi::OsStr;
use std::io::{BufRead as _, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use plan::Wall;
use rustix::fs::Dir;
use rustix::io::{Errno, pread};

use super::files::{self, FileError, How, Identity};
use super::format::{Stream, newline};
use super::parse::{Entry, entry};
use super::rotation::{self, Key, Rotated};

/// Longest line that is joined from parts; what is longer comes in pieces of about this length.
pub const MAX_JOINED: usize = 1 << 20;

/// How much is read at once; a longer line in a file is no log line.
const BLOCK: usize = 64 << 10;

/// Enough of a line to see its tag.
const HEAD: usize = 128;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A compressed file could not be read.
    #[error("cannot read {}: it is not whole", path.display())]
    Packed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A line that a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which run of the container: 0 is the first, 1 the one after the first restart, ….
    pub restart: u32,
    /// Which stream.
    pub stream: Stream,
    /// When its first part was written.
    pub time: Wall,
    /// Without the newline.
    pub bytes: &'a [u8],
    /// Whether it ended with a newline; else the container ended first, or it is longer than
    /// [`MAX_JOINED`] and the next piece follows.
    pub ended: bool,
}

/// Where a [`Follower`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest run that is there.
    Oldest,
    /// With the newest run that is there when it is first polled.
    Newest,
    /// With this run.
    Restart(u32),
}

/// Reads one container's logs, and what is added to them.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    start: Start,
    tail: Option<usize>,
    within: u64,
    current: Option<Current>,
    joining: [Joining; 2],
    malformed: u64,
    /// Of the last log line that was read.
    last: Wall,
}

#[derive(Debug)]
struct Current {
    restart: u32,
    path: PathBuf,
    file: OwnedFd,
    identity: Identity,
    offset: u64,
    /// In the middle of something that is too long for a log line.
    skipping: bool,
    /// Of a file that was rotated when it was opened: later than all that is in it.
    until: Option<Key>,
    /// What had been rotated by then is not later.
    after: Option<Key>,
    /// It is compressed, and so complete.
    packed: Option<Packed>,
}

/// What is to be left out of a compressed file.
#[derive(Clone, Copy, Debug)]
enum Packed {
    /// Whatever is not later: it was read before the file was compressed.
    Until(Wall),
    /// As many whole lines.
    Lines(usize),
}

/// The parts of a line so far.
#[derive(Debug, Default)]
struct Joining {
    since: Option<Wall>,
    bytes: Vec<u8>,
}

impl Follower {
    /// Follows the logs in `directory` (`<log directory>/<pod>/<container>`), which need not be
    /// there yet. Opens nothing.
    #[must_use]
    pub fn new(directory: &Path, start: Start) -> Follower {
        Follower {
            directory: directory.to_owned(),
            start,
            tail: None,
            within: u64::MAX,
            current: None,
            joining: Default::default(),
            malformed: 0,
            last: Wall(0),
        }
    }

    /// Of the first run, only the last `lines` lines.
    #[must_use]
    pub fn tail(mut self, lines: usize) -> Follower {
        self.tail = Some(lines);
        self
    }

    /// And of these only what its last `bytes` bytes hold, however long the lines are: both together
    /// bound what is read.
    #[must_use]
    pub fn within(mut self, bytes: u64) -> Follower {
        self.within = bytes;
        self
    }

    /// Hands what is new to `sink`, over restarts, and returns when there is no more now.
    ///
    /// # Errors
    /// What cannot be opened or read. A directory or file that is not there (yet) is no error.
    pub fn poll(&mut self, sink: &mut dyn FnMut(Line<'_>)) -> Result<(), ReadError> {
        loop {
            if self.current.is_none() && !self.open_first()? {
                return Ok(());
            }
            // Whether it is complete is asked for before the rest is read.
            let superseded = self.is_superseded()?;
            let next_run = if superseded { None } else { self.next_run()? };
            self.read_rest(sink)?;
            if superseded && let Some(next) = self.next_of_run()? {
                self.current = Some(next);
                continue;
            }
            // A run may have ended in the moment between two of its files.
            let next_run = if superseded { self.next_run()? } else { next_run };
            let Some(next) = next_run else { return Ok(()) };
            self.finish(sink);
            self.current = Some(next);
        }
    }

    /// Reads the rest of the current run alone, without going on to the next one, and
    /// hands out an unfinished last line too: `podshim logs` without `-f`, and `--previous`.
    ///
    /// # Errors
    /// As [`Follower::poll`].
    pub fn read_run(&mut self, sink: &mut dyn FnMut(Line<'_>)) -> Result<(), ReadError> {
        if self.current.is_some() || self.open_first()? {
            loop {
                let superseded = self.is_superseded()?;
                self.read_rest(sink)?;
                match superseded.then(|| self.next_of_run()).transpose()?.flatten() {
                    Some(next) => self.current = Some(next),
                    None => break,
                }
            }
            self.finish(sink);
        }
        Ok(())
    }

    /// Hands out lines that were begun and will not be finished.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Line<'_>)) {
        for stream in Stream::ALL {
            self.hand_out(stream, false, sink);
        }
    }

    /// The run that is being read.
    #[must_use]
    pub fn restart(&self) -> Option<u32> {
        self.current.as_ref().map(|current| current.restart)
    }

    /// How many lines were passed over because they are not in the log format.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    fn open_first(&mut self) -> Result<bool, ReadError> {
        let restarts = restarts(&self.directory)?;
        let wanted = match self.start {
            Start::Oldest => restarts.first().copied(),
            Start::Newest => restarts.last().copied(),
            Start::Restart(n) => restarts.contains(&n).then_some(n),
        };
        let Some(restart) = wanted else { return Ok(false) };
        self.current = match self.tail {
            None => self.oldest_of(restart)?,
            Some(lines) => self.last_lines(restart, lines)?,
        };
        if self.current.is_some() {
            self.tail = None;
        }
        Ok(self.current.is_some())
    }

    fn oldest_of(&self, restart: u32) -> Result<Option<Current>, ReadError> {
        let (log, rotated) = self.files(restart)?;
        self.oldest_after(log, &rotated, None, None)
    }

    /// The log of a run, and what was rotated of it. It is opened before the others are listed: if it is
    /// rotated in between, it is listed, too.
    fn files(&self, restart: u32) -> Result<(Option<Current>, Vec<Rotated>), ReadError> {
        let log = self.open(restart)?;
        let rotated = self.rotated(restart)?;
        let after = rotated.last().map(|file| file.until.clone());
        Ok((log.map(|log| Current { after, ..log }), rotated))
    }

    /// The oldest of these that holds something later than `passed`. Of a compressed one, what is not
    /// later than `read` is left out.
    fn oldest_after(
        &self,
        log: Option<Current>,
        rotated: &[Rotated],
        passed: Option<&Key>,
        read: Option<Wall>,
    ) -> Result<Option<Current>, ReadError> {
        for file in rotated.iter().filter(|file| Some(&file.until) > passed) {
            if let Some(current) = self.open_rotated(file, read)? {
                return Ok(Some(current));
            }
        }
        Ok(log)
    }

    /// The file in which the last `lines` lines of a run begin, at their beginning.
    fn last_lines(&self, restart: u32, lines: usize) -> Result<Option<Current>, ReadError> {
        let mut left = lines;
        let mut found = None;
        let (log, rotated) = self.files(restart)?;
        if let Some(mut current) = log {
            let floor = current.identity.size.saturating_sub(self.within);
            let (offset, seen) = tail_offset(&current, left, floor)?;
            current.offset = offset;
            current.skipping = offset > 0 && offset == floor;
            found = Some(current);
            left -= seen;
            // Of a bounded read, older files are no part.
            if offset > 0 || self.within != u64::MAX {
                return Ok(found);
            }
        }
        let log = found.as_ref().map(|log| log.identity.ino);
        let rotated = rotated.into_iter().rev().take_while(|_| lines > 0);
        // The log itself, if it was rotated in this moment.
        for file in rotated.filter(|file| file.packed || Some(file.ino) != log) {
            let Some(mut current) = self.open_rotated(&file, None)? else { break };
            let (seen, cut) = if current.packed.is_some() {
                let all = count_packed(&current)?;
                current.packed = Some(Packed::Lines(all.saturating_sub(left)));
                (all.min(left), all > left)
            } else {
                let (offset, seen) = tail_offset(&current, left, 0)?;
                current.offset = offset;
                (seen, offset > 0)
            };
            left -= seen;
            found = Some(current);
            if cut {
                break;
            }
        }
        Ok(found)
    }

    fn rotated(&self, restart: u32) -> Result<Vec<Rotated>, ReadError> {
        let failed = |source| ReadError::Read { path: self.directory.clone(), source };
        let directory = match files::directory(&self.directory) {
            Ok(directory) => directory,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut found = rotation::list(directory).map_err(failed)?;
        found.retain(|file| file.run == restart);
        Ok(found)
    }

    /// Opens a rotated file, in its other form if it has been compressed meanwhile; `None` if it is gone.
    /// Of a compressed one, what is not later than `read` is left out.
    fn open_rotated(
        &self,
        file: &Rotated,
        read: Option<Wall>,
    ) -> Result<Option<Current>, ReadError> {
        if !file.packed
            && let Some(plain) = self.open_named(file.run, &file.name, Some(&file.until))?
        {
            return Ok(Some(plain));
        }
        let name = match file.packed {
            true => file.name.clone(),
            false => rotation::packed_name(&file.name),
        };
        let packed = self.open_named(file.run, &name, Some(&file.until))?;
        let packed = packed.map(|current| Current {
            packed: Some(read.map_or(Packed::Lines(0), Packed::Until)),
            ..current
        });
        Ok(packed)
    }

    fn open(&self, restart: u32) -> Result<Option<Current>, ReadError> {
        self.open_named(restart, OsStr::new(&format!("{restart}.log")), None)
    }

    fn open_named(
        &self,
        restart: u32,
        name: &OsStr,
        until: Option<&Key>,
    ) -> Result<Option<Current>, ReadError> {
        let path = self.directory.join(name);
        let opened = files::directory(&self.directory)
            .and_then(|directory| files::open(directory, name, &path, How::Read));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let identity = files::identify(&file, &path)?;
        Ok(Some(Current {
            restart,
            path,
            file,
            identity,
            offset: 0,
            skipping: false,
            until: until.cloned(),
            after: None,
            packed: None,
        }))
    }

    /// Whether the current file is not its run's log any more: it was renamed or removed.
    fn is_superseded(&self) -> Result<bool, ReadError> {
        let Some(current) = &self.current else { return Ok(false) };
        if current.until.is_some() {
            return Ok(true);
        }
        let same = |identity: &Identity| (identity.ino, identity.btime);
        Ok(match self.open(current.restart)? {
            Some(log) => same(&log.identity) != same(&current.identity),
            // Between its rename and the next log's first line.
            None => !self.rotated(current.restart)?.is_empty(),
        })
    }

    /// What follows the current file in its run: the oldest rotated file that comes after it, or the log.
    fn next_of_run(&self) -> Result<Option<Current>, ReadError> {
        let Some(current) = &self.current else { return Ok(None) };
        let (log, rotated) = self.files(current.restart)?;
        let same = |file: &&Rotated| !file.packed && file.ino == current.identity.ino;
        // One that was compressed since has lost its inode: then what was read last tells where it ends.
        let own = rotated.iter().find(same).map(|file| &file.until);
        let last = Key::of(self.last);
        let passed = current.until.as_ref().or(own);
        let passed = passed.or(current.after.as_ref().max(Some(&last)));
        self.oldest_after(log, &rotated, passed, Some(self.last))
    }

    fn next_run(&self) -> Result<Option<Current>, ReadError> {
        let Some(current) = &self.current else { return Ok(None) };
        match restarts(&self.directory)?.into_iter().find(|&n| n > current.restart) {
            Some(next) => self.oldest_of(next),
            None => Ok(None),
        }
    }

    fn read_rest(&mut self, sink: &mut dyn FnMut(Line<'_>)) -> Result<(), ReadError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let read = match current.packed {
            Some(leave_out) => self.read_packed(&mut current, leave_out, sink),
            None => self.read_plain(&mut current, sink),
        };
        self.current = Some(current);
        read
    }

    fn read_packed(
        &mut self,
        current: &mut Current,
        mut leave_out: Packed,
        sink: &mut dyn FnMut(Line<'_>),
    ) -> Result<(), ReadError> {
        // Nothing comes after it.
        if std::mem::replace(&mut current.offset, u64::MAX) == u64::MAX {
            return Ok(());
        }
        each_packed(current, &mut |line| {
            let Some(entry) = entry(line) else {
                self.malformed += 1;
                return;
            };
            let skip = match &mut leave_out {
                Packed::Until(read) => entry.time <= *read,
                Packed::Lines(0) => false,
                Packed::Lines(left) => {
                    *left -= usize::from(entry.full);
                    true
                }
            };
            if !skip {
                self.add(current.restart, &entry, sink);
            }
        })
    }

    fn read_plain(
        &mut self,
        current: &mut Current,
        sink: &mut dyn FnMut(Line<'_>),
    ) -> Result<(), ReadError> {
        if files::identify(&current.file, &current.path)?.size < current.offset {
            current.offset = 0; // truncated: what is there now is new
        }
        let mut block = vec![0; BLOCK];
        loop {
            let read = read_at(current, &mut block, current.offset)?;
            let used = self.lines(current, &block[..read], sink);
            current.offset += used as u64;
            if used == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the complete lines of a block; returns how many bytes they are.
    fn lines(
        &mut self,
        current: &mut Current,
        block: &[u8],
        sink: &mut dyn FnMut(Line<'_>),
    ) -> usize {
        let mut used = 0;
        while let Some(len) = newline(&block[used..]) {
            let line = &block[used..used + len];
            used += len + 1;
            if std::mem::take(&mut current.skipping) {
                continue;
            }
            match entry(line) {
                Some(entry) => self.add(current.restart, &entry, sink),
                None => self.malformed += 1,
            }
        }
        if used == 0 && block.len() == BLOCK {
            self.malformed += u64::from(!current.skipping);
            current.skipping = true;
            used = BLOCK;
        }
        used
    }

    fn add(&mut self, restart: u32, entry: &Entry<'_>, sink: &mut dyn FnMut(Line<'_>)) {
        self.last = self.last.max(entry.time);
        let joining = &mut self.joining[entry.stream as usize];
        joining.since.get_or_insert(entry.time);
        joining.bytes.extend_from_slice(entry.content);
        if entry.full || joining.bytes.len() >= MAX_JOINED {
            self.hand_out_of(restart, entry.stream, entry.full, sink);
        }
    }

    fn hand_out(&mut self, stream: Stream, ended: bool, sink: &mut dyn FnMut(Line<'_>)) {
        if let Some(restart) = self.restart() {
            self.hand_out_of(restart, stream, ended, sink);
        }
    }

    fn hand_out_of(
        &mut self,
        restart: u32,
        stream: Stream,
        ended: bool,
        sink: &mut dyn FnMut(Line<'_>),
    ) {
        let joining = &mut self.joining[stream as usize];
        if let Some(time) = joining.since.take() {
            sink(Line { restart, stream, time, bytes: &joining.bytes, ended });
            joining.bytes.clear();
        }
    }
}

/// The runs whose logs are there, in order; none if the directory is not there.
///
/// # Errors
/// If the directory cannot be opened safely, or not be read.
pub fn restarts(directory: &Path) -> Result<Vec<u32>, ReadError> {
    let failed = |source| ReadError::Read { path: directory.to_owned(), source };
    let opened = match files::directory(directory) {
        Ok(opened) => opened,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(opened).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_str().unwrap_or("");
        // A log that is being rotated has for a moment no file of its own name.
        found.extend(rotation::run_of(name).or_else(|| rotation::run_of_rotated(name)));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Hands out the lines of a compressed file, without their newlines.
fn each_packed(current: &Current, line: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
    let failed = |source| ReadError::Packed { path: current.path.clone(), source };
    let file = current.file.try_clone().map_err(failed)?;
    let mut file = std::fs::File::from(file);
    file.rewind().map_err(failed)?;
    let mut lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file));
    let mut text = Vec::new();
    loop {
        text.clear();
        // Nothing that is longer is a log line.
        let read = (&mut lines).take(BLOCK as u64).read_until(b'\n', &mut text).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        line(text.strip_suffix(b"\n").unwrap_or(&text));
    }
}

fn count_packed(current: &Current) -> Result<usize, ReadError> {
    let mut count = 0;
    each_packed(current, &mut |line| count += usize::from(is_full(line)))?;
    Ok(count)
}

/// Where the last `lines` lines begin: behind the end of the line before them. Reads blocks from
/// the end, so that the length of the file does not matter, and none before `floor`. Also how many lines
/// that are, if the file has fewer.
fn tail_offset(current: &Current, lines: usize, floor: u64) -> Result<(u64, usize), ReadError> {
    let mut block = vec![0; BLOCK + HEAD];
    let (mut end, mut seen, mut after) = (current.identity.size, 0, current.identity.size);
    while end > floor {
        let begin = end.saturating_sub(BLOCK as u64).max(floor);
        // One byte before the block tells whether it begins with a line's first byte; HEAD bytes
        // behind it are for the head of a line that begins in its last bytes.
        let from = begin.saturating_sub(1);
        let read = read_at(current, &mut block, from)?;
        let starts = (begin..end)
            .rev()
            .filter(|&at| at == 0 || block[..read].get((at - from) as usize - 1) == Some(&b'\n'));
        for at in starts {
            if is_full(&block[(at - from) as usize..read]) {
                if seen == lines {
                    return Ok((after, seen));
                }
                seen += 1;
            }
            after = at;
        }
        end = begin;
    }
    Ok((floor, seen))
}

/// Whether a line ends in the log line that begins here.
fn is_full(head: &[u8]) -> bool {
    let tags = head[..head.len().min(HEAD)].split(|&b| b == b' ').nth(2);
    tags.is_some_and(|tags| tags.first() == Some(&b'F'))
}

fn read_at(current: &Current, buffer: &mut [u8], mut at: u64) -> Result<usize, ReadError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(&current.file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(ReadError::Read { path: current.path.clone(), source }),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
