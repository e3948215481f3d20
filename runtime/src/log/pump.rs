//! The pump: a pod's container output, from FIFOs into CRI log files, every byte exactly once
//! across `kill -9` of the pumping process.
//!
//! ```text
//! FIFO ──splice──▶ stage (shared memory) ──format──▶ text ──write──▶ log (O_APPEND)
//! ```
//!
//! One thread's: the shim's event loop, which waits for the FIFOs ([`Pump::fds`], level-triggered),
//! calls [`Pump::take`], and while something is [blocked](Pump::blocked) calls [`Pump::retry`] every
//! 100 ms. The state lives in the pod's directory on tmpfs; whoever opens it next goes on where the
//! last one died. It reads no clock and starts no thread. Files are rotated if [`Pump::rotate`] says how.
//!
//! What it needs from its process: `RLIMIT_FSIZE` unlimited (or SIGXFSZ ignored), and somebody else
//! who holds the FIFOs open, or what is in them dies with the last of pump and container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plan::Wall;
use rustix::fs::{
    CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, mkfifoat, openat,
};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;

use super::files::FileError;
use super::format::{Rest, Stream};
use super::lane::{Lane, Log, STAGE, TEXT};
use super::record::{Field, Found, Records};
use super::rotation::Rotation;
use crate::sys::shared_memory::Bytes;

/// What the pump could not do.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// Its directory, or a file in it, could not be made or opened.
    #[error("cannot open the log pump's {}", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Another pump works here.
    #[error("another process pumps the logs of {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The records are of another version of podshim, or of other containers.
    #[error("the log pump's records in {} are of another version or pod", path.display())]
    Other {
        /// The directory.
        path: PathBuf,
    },
    /// Something that is no FIFO is where one should be.
    #[error("{} is not a FIFO", path.display())]
    NotFifo {
        /// Where.
        path: PathBuf,
    },
    /// A container has no log file yet: [`Pump::open_log`] comes first.
    #[error("container {container:?} has no log file yet")]
    NoLog {
        /// Which.
        container: String,
    },
    /// The log file cannot be switched before the batch that is being appended is in it.
    #[error("the log of container {container:?} is still being written")]
    Unfinished {
        /// Which.
        container: String,
        /// Why it is not finished.
        source: Box<PumpError>,
    },
    /// A log file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// A log file takes no more.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The stage takes no more: the state directory's file system is full.
    #[error("cannot stage container output in the state directory")]
    Stage {
        /// Why.
        source: Errno,
    },
    /// The kernel took output but could not store how much: it is lost.
    #[error("container output was lost: the log pump's record cannot be written")]
    Lost,
    /// The record contradicts itself. Nothing is guessed over: the container's log stops here.
    #[error("the log pump's record is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

impl PumpError {
    /// Whether trying again can help.
    fn passes(&self) -> bool {
        !matches!(self, PumpError::Lost | PumpError::Damaged { .. } | PumpError::NoLog { .. })
    }
}

/// Which stream of which container a descriptor of [`Pump::fds`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Its place in the list that was given to [`Pump::open`].
    pub container: usize,
    /// Which of its streams.
    pub stream: Stream,
}

/// What [`Pump::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The FIFO was empty.
    Nothing,
    /// This many bytes left the FIFO; there may be more.
    Bytes(usize),
    /// The log takes no more now: stop waiting for this container's two FIFOs, and call
    /// [`Pump::retry`] in 100 ms. No byte was lost.
    Blocked,
}

/// Whether a container's log takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Free,
    /// Not now: as [`Taken::Blocked`].
    Blocked,
}

/// The log pump of one pod.
#[derive(Debug)]
pub struct Pump {
    directory: PathBuf,
    records: Records,
    stage: Bytes,
    /// One batch's text; shared, so that an idle container costs nothing.
    text: Vec<u8>,
    containers: Vec<Container>,
    rotation: Option<Rotation>,
}

#[derive(Debug)]
struct Container {
    name: String,
    fifos: [OwnedFd; 2],
    log: Option<Log>,
    scanned: [u64; 2],
    blocked: Option<PumpError>,
    rotated: bool,
}

impl Pump {
    /// Opens the pump of the pod whose containers these are; the list must be the same for as long
    /// as the directory lives. What is missing is made: the directory (0700) and in it a FIFO a
    /// stream (`<container>.out`, `<container>.err`; 0600), the stage and the records.
    ///
    /// What a predecessor left unfinished is finished by [`Pump::open_log`], which must be called
    /// for a container before anything is taken from it.
    ///
    /// # Errors
    /// [`PumpError::Busy`] if another pump works in the directory, [`PumpError::Other`] if the records are
    /// not this pod's, else whatever could not be made or opened.
    pub fn open(directory: &Path, containers: &[String]) -> Result<Pump, PumpError> {
        let failed = |source| PumpError::Open { path: directory.to_owned(), source };
        match mkdirat(CWD, directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, directory, flags, Mode::empty()).map_err(failed)?;
        let file = |name: &str| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|source| PumpError::Open { path: directory.join(name), source })
        };
        let records = file("records")?;
        flock(&records, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| PumpError::Busy { path: directory.to_owned() })?;
        let (records, found) = Records::map(records, containers).map_err(failed)?;
        let stage = Bytes::map(file("stage")?, 2 * STAGE * containers.len()).map_err(failed)?;
        if !records.is_locked() {
            tracing::warn!("the log pump's records may be swapped out: no right to lock memory");
        }
        let containers_open = containers
            .iter()
            .map(|name| Container::open(&dir, directory, name))
            .collect::<Result<_, _>>()?;
        let mut pump = Pump {
            directory: directory.to_owned(),
            records,
            stage,
            text: Vec::with_capacity(TEXT),
            containers: containers_open,
            rotation: None,
        };
        match found {
            Found::Fresh => pump.initialise(containers),
            Found::Ours => pump.take_over()?,
            Found::Other => return Err(PumpError::Other { path: directory.to_owned() }),
        }
        Ok(pump)
    }

    fn initialise(&mut self, containers: &[String]) {
        for (container, stream) in tokens(containers.len()) {
            let begin = base(container)[stream as usize];
            self.records.of(container).set(Field::Pos(stream), begin);
            self.records.of(container).set(Field::Done(stream), begin);
        }
        self.records.complete(containers);
    }

    fn take_over(&mut self) -> Result<(), PumpError> {
        for (container, stream) in tokens(self.containers.len()) {
            let record = self.records.of(container);
            let begin = base(container)[stream as usize];
            let pos = record.get(Field::Pos(stream));
            if record.get(Field::Done(stream)) > pos {
                // Only dying in the middle of a compaction leaves this.
                record.set(Field::Done(stream), begin);
            }
            let done = record.get(Field::Done(stream));
            if begin > done || done > pos || pos > begin + STAGE as u64 {
                return Err(PumpError::Damaged { what: "counters outside their stage" });
            }
        }
        Ok(())
    }

    /// From now on files are rotated.
    pub fn rotate(&mut self, rotation: Rotation) {
        self.rotation = Some(rotation);
    }

    /// The containers whose logs were rotated since this was asked last.
    pub fn take_rotated(&mut self) -> Vec<usize> {
        let all = self.containers.iter_mut().enumerate();
        all.filter_map(|(at, c)| std::mem::take(&mut c.rotated).then_some(at)).collect()
    }

    /// Where a stream's FIFO is. Whoever makes the container opens it read-write, so that the
    /// application meets no SIGPIPE when the pump is dead.
    #[must_use]
    pub fn fifo_path(&self, container: usize, stream: Stream) -> PathBuf {
        self.directory.join(fifo_name(&self.containers[container].name, stream))
    }

    /// The FIFOs to wait for (readable, level-triggered). They stay the same for the pump's life.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Token)> {
        self.containers.iter().enumerate().flat_map(|(container, c)| {
            Stream::ALL
                .map(|stream| (c.fifos[stream as usize].as_fd(), Token { container, stream }))
        })
    }

    /// Sets or switches a container's log file, `<log directory>/<pod>/<container>/<n>.log`;
    /// directories (0755) and file (0640) are made, under the umask. What the stage holds of
    /// complete lines goes to the log that was set before; after an exit, [`Pump::drain`] first.
    ///
    /// After [`Pump::open`] set the log that the predecessor had: its open batch is finished then.
    ///
    /// [`Flow::Blocked`]: the log is set, but cannot be opened or written now; go on as after
    /// [`Taken::Blocked`].
    ///
    /// # Errors
    /// [`PumpError::Unfinished`] if the log that was set before is blocked in the middle of a batch:
    /// retry until it is free. [`PumpError::File`] if something planted is in the log's place;
    /// [`PumpError::Damaged`] if the record is.
    pub fn open_log(
        &mut self,
        container: usize,
        path: &Path,
        now: Wall,
    ) -> Result<Flow, PumpError> {
        if self.containers[container].log.as_ref().is_some_and(|log| !log.is(path)) {
            self.flush(container, now).map_err(|source| PumpError::Unfinished {
                container: self.containers[container].name.clone(),
                source: Box::new(source),
            })?;
        }
        let side = &mut self.containers[container];
        if !side.log.as_ref().is_some_and(|log| log.is(path)) {
            let mut log = Log::new(path)?;
            match log.identify() {
                Err(error @ PumpError::File(FileError::Foreign { .. })) => return Err(error),
                Err(PumpError::File(error @ FileError::Path { .. })) => return Err(error.into()),
                _ => side.log = Some(log),
            }
        }
        let flushed = self.flush(container, now);
        self.note(container, flushed)
    }

    /// Takes one chunk (64 KiB at most) from a FIFO, and appends the lines that are complete.
    /// `now` becomes their time, unless the log is ahead of it already: times in it only rise.
    ///
    /// # Errors
    /// [`PumpError::NoLog`], or what no retry can mend: [`PumpError::Lost`], [`PumpError::Damaged`].
    pub fn take(&mut self, token: Token, now: Wall) -> Result<Taken, PumpError> {
        if self.containers[token.container].blocked.is_some() {
            return Ok(Taken::Blocked);
        }
        let mut taken = Taken::Nothing;
        let result = self.lane(token.container).and_then(|mut lane| lane.take(token.stream, now));
        let result = result.map(|bytes| {
            if bytes > 0 {
                taken = Taken::Bytes(bytes);
            }
        });
        Ok(match self.note(token.container, result)? {
            Flow::Free => taken,
            Flow::Blocked => Taken::Blocked,
        })
    }

    /// After a container's exit: everything that its FIFOs hold goes into the log, a line that it
    /// did not finish as a part. At most a pipeful a stream, for a process that outlives its
    /// container may write forever.
    ///
    /// [`Flow::Blocked`]: drain again when [`Pump::retry`] has freed the container.
    ///
    /// # Errors
    /// As [`Pump::take`].
    pub fn drain(&mut self, container: usize, now: Wall) -> Result<Flow, PumpError> {
        if self.containers[container].blocked.is_some() {
            return Ok(Flow::Blocked);
        }
        let result = self.lane(container).and_then(|mut lane| {
            Stream::ALL.into_iter().try_for_each(|stream| drain(&mut lane, stream, now))
        });
        self.note(container, result)
    }

    /// Whether any container's log takes no more.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.containers.iter().any(|c| c.blocked.is_some())
    }

    /// Why a container's log takes no more, for people.
    #[must_use]
    pub fn blocked_on(&self, container: usize) -> Option<&PumpError> {
        self.containers[container].blocked.as_ref()
    }

    /// Tries a blocked log again. If it is free its FIFOs are to be waited for again.
    ///
    /// # Errors
    /// As [`Pump::take`].
    pub fn retry(&mut self, container: usize, now: Wall) -> Result<Flow, PumpError> {
        if self.containers[container].blocked.is_none() {
            return Ok(Flow::Free);
        }
        let flushed = self.flush(container, now);
        self.note(container, flushed)
    }

    /// Finishes an open batch, and then what is complete in the stage: no event will come for it.
    fn flush(&mut self, container: usize, now: Wall) -> Result<(), PumpError> {
        let mut lane = self.lane(container)?;
        lane.log.identify()?;
        lane.resume()?;
        Stream::ALL.into_iter().try_for_each(|stream| lane.emit(stream, Rest::Keep, now))
    }

    /// A failure that may pass blocks the container; another is the caller's.
    fn note(&mut self, container: usize, result: Result<(), PumpError>) -> Result<Flow, PumpError> {
        let (flow, blocked) = match result {
            Ok(()) => (Flow::Free, None),
            Err(error) if error.passes() => (Flow::Blocked, Some(error)),
            Err(error) => {
                self.containers[container].blocked = None;
                return Err(error);
            }
        };
        self.containers[container].blocked = blocked;
        Ok(flow)
    }

    fn lane(&mut self, container: usize) -> Result<Lane<'_>, PumpError> {
        let side = &mut self.containers[container];
        let Some(log) = &mut side.log else {
            return Err(PumpError::NoLog { container: side.name.clone() });
        };
        Ok(Lane {
            record: self.records.of(container),
            stage: &mut self.stage,
            text: &mut self.text,
            fifos: &side.fifos,
            log,
            scanned: &mut side.scanned,
            base: base(container),
            rotation: self.rotation,
            rotated: &mut side.rotated,
        })
    }
}

impl Container {
    fn open(dir: &OwnedFd, directory: &Path, name: &str) -> Result<Container, PumpError> {
        let [out, err] = Stream::ALL.map(|stream| fifo(dir, directory, &fifo_name(name, stream)));
        Ok(Container {
            name: name.to_owned(),
            fifos: [out?, err?],
            log: None,
            scanned: [0; 2],
            blocked: None,
            rotated: false,
        })
    }
}

fn drain(lane: &mut Lane<'_>, stream: Stream, now: Wall) -> Result<(), PumpError> {
    let fifo = &lane.fifos[stream as usize];
    let mut budget = fcntl_getpipe_size(fifo).map_err(|source| PumpError::Stage { source })?;
    while budget > 0 {
        match lane.take(stream, now)? {
            0 => break,
            taken => budget = budget.saturating_sub(taken),
        }
    }
    lane.emit(stream, Rest::Flush, now)
}

/// Opens (and makes) a FIFO, read-write: with ourselves as a writer it never ends.
fn fifo(dir: &OwnedFd, directory: &Path, name: &str) -> Result<OwnedFd, PumpError> {
    let failed = |source| PumpError::Open { path: directory.join(name), source };
    match mkfifoat(dir, name, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let kind = FileType::from_raw_mode(fstat(&fifo).map_err(failed)?.st_mode);
    if kind == FileType::Fifo {
        Ok(fifo)
    } else {
        Err(PumpError::NotFifo { path: directory.join(name) })
    }
}

fn fifo_name(container: &str, stream: Stream) -> String {
    let end = match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    format!("{container}.{end}")
}

/// Where a container's two streams begin in the stage file.
fn base(container: usize) -> [u64; 2] {
    let begin = (2 * STAGE * container) as u64;
    [begin, begin + STAGE as u64]
}

fn tokens(containers: usize) -> impl Iterator<Item = (usize, Stream)> {
    (0..containers).flat_map(|container| Stream::ALL.map(|stream| (container, stream)))
}
