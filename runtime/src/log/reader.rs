//! Reading a container's logs: all of them, the last lines, or what is new.
//!
//! A [`Follower`] reads `<n>.log`, and when the container was restarted goes on with the next
//! number's file. It joins parts (`P`) to lines, each stream by itself. It does not wait: whoever
//! uses it (`podshim logs`, `podshim run`) is told by inotify or a timer to [`poll`](Follower::poll)
//! again. It does not escape control characters; that is for whoever knows about the terminal.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use plan::Wall;
use rustix::fs::Dir;
use rustix::io::{Errno, pread};

use super::files::{self, FileError, How, Identity};
use super::format::{Stream, newline};
use super::parse::entry;

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
}

#[derive(Debug)]
struct Current {
    restart: u32,
    file: OwnedFd,
    identity: Identity,
    offset: u64,
    /// In the middle of something that is too long for a log line.
    skipping: bool,
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
        }
    }

    /// Of the first file, only the last `lines` lines.
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
            // What comes next is asked for before the rest is read: a file is complete when the
            // next one is there.
            let next = self.next_file()?;
            self.read_rest(sink)?;
            let Some(next) = next else { return Ok(()) };
            self.finish(sink);
            self.current = Some(next);
        }
    }

    /// Reads the rest of the current run's file alone, without going on to the next run, and
    /// hands out an unfinished last line too: `podshim logs` without `-f`, and `--previous`.
    ///
    /// # Errors
    /// As [`Follower::poll`].
    pub fn read_run(&mut self, sink: &mut dyn FnMut(Line<'_>)) -> Result<(), ReadError> {
        if self.current.is_some() || self.open_first()? {
            self.read_rest(sink)?;
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
        let Some(mut current) = self.open(restart)? else { return Ok(false) };
        if let Some(lines) = self.tail.take() {
            let floor = current.identity.size.saturating_sub(self.within);
            current.offset = tail_offset(&current, lines, floor, &self.path(restart))?;
            current.skipping = current.offset > 0 && current.offset == floor;
        }
        self.current = Some(current);
        Ok(true)
    }

    fn open(&self, restart: u32) -> Result<Option<Current>, ReadError> {
        let path = self.path(restart);
        let name = OsString::from(format!("{restart}.log"));
        let opened = files::directory(&self.directory)
            .and_then(|directory| files::open(directory, &name, &path, How::Read));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let identity = files::identify(&file, &path)?;
        Ok(Some(Current { restart, file, identity, offset: 0, skipping: false }))
    }

    /// The file that takes the current one's place: of the next run, or of the same run if the
    /// current one was renamed or removed.
    fn next_file(&self) -> Result<Option<Current>, ReadError> {
        let Some(current) = &self.current else { return Ok(None) };
        if let Some(again) = self.open(current.restart)? {
            let same = |identity: &Identity| (identity.ino, identity.btime);
            if same(&again.identity) != same(&current.identity) {
                return Ok(Some(again));
            }
        }
        match restarts(&self.directory)?.into_iter().find(|&n| n > current.restart) {
            Some(next) => self.open(next),
            None => Ok(None),
        }
    }

    fn path(&self, restart: u32) -> PathBuf {
        self.directory.join(format!("{restart}.log"))
    }

    fn read_rest(&mut self, sink: &mut dyn FnMut(Line<'_>)) -> Result<(), ReadError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let path = self.path(current.restart);
        if files::identify(&current.file, &path)?.size < current.offset {
            current.offset = 0; // truncated: what is there now is new
        }
        let mut block = vec![0; BLOCK];
        loop {
            let read = read_at(&current, &mut block, current.offset, &path)?;
            let used = self.lines(&mut current, &block[..read], sink);
            current.offset += used as u64;
            if used == 0 {
                break;
            }
        }
        self.current = Some(current);
        Ok(())
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
                Some(entry) => {
                    let joining = &mut self.joining[entry.stream as usize];
                    joining.since.get_or_insert(entry.time);
                    joining.bytes.extend_from_slice(entry.content);
                    if entry.full || joining.bytes.len() >= MAX_JOINED {
                        self.hand_out_of(current.restart, entry.stream, entry.full, sink);
                    }
                }
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
        found.extend(name.strip_suffix(".log").and_then(|n| n.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Where the last `lines` lines begin: behind the end of the line before them. Reads blocks from
/// the end, so that the length of the file does not matter, and none before `floor`.
fn tail_offset(current: &Current, lines: usize, floor: u64, path: &Path) -> Result<u64, ReadError> {
    let mut block = vec![0; BLOCK + HEAD];
    let (mut end, mut seen, mut after) = (current.identity.size, 0, current.identity.size);
    while end > floor {
        let begin = end.saturating_sub(BLOCK as u64).max(floor);
        // One byte before the block tells whether it begins with a line's first byte; HEAD bytes
        // behind it are for the head of a line that begins in its last bytes.
        let from = begin.saturating_sub(1);
        let read = read_at(current, &mut block, from, path)?;
        let starts = (begin..end)
            .rev()
            .filter(|&at| at == 0 || block[..read].get((at - from) as usize - 1) == Some(&b'\n'));
        for at in starts {
            if is_full(&block[(at - from) as usize..read]) {
                if seen == lines {
                    return Ok(after);
                }
                seen += 1;
            }
            after = at;
        }
        end = begin;
    }
    Ok(floor)
}

/// Whether a line ends in the log line that begins here.
fn is_full(head: &[u8]) -> bool {
    let tags = head[..head.len().min(HEAD)].split(|&b| b == b' ').nth(2);
    tags.is_some_and(|tags| tags.first() == Some(&b'F'))
}

fn read_at(
    current: &Current,
    buffer: &mut [u8],
    mut at: u64,
    path: &Path,
) -> Result<usize, ReadError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(&current.file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(ReadError::Read { path: path.to_owned(), source }),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_planted_link_is_refused() {
        let logs = Logs::new();
        std::os::unix::fs::symlink("/etc/passwd", logs.path().join("0.log")).unwrap();
        let mut follower = Follower::new(&logs.path(), Start::Oldest);
        assert!(follower.poll(&mut |_| {}).is_err());
    }
}
