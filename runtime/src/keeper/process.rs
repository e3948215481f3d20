//! The keeper's process: one thread, one loop, next to no memory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{BINARY, MESSAGE_MAX_BYTES};
use crate::descriptors;
use crate::sys::process::{Reaped, collect, peek};

/// What may be held: two FIFOs and a start pipe a container, and a few more.
const HELD_MAX: usize = 512;
/// How many shims in a row may die before they have taken the pod on.
const STILLBORN_MAX: u32 = 8;
/// How many of them may say that they cannot.
const FAILURES_MAX: u32 = 3;
/// The first of these deaths costs no time, then each costs twice as much.
const PAUSE: Duration = Duration::from_millis(10);
/// A shim that has lived so long is no part of a row.
const LONG: Duration = Duration::from_secs(5);
/// After so many in a row each pause is as long as the longest.
const ROW_MAX: u32 = 100;

/// How often a shim is tried to be started, and after what time again.
const START_TRIES: u32 = 120;
const START_PAUSE: Duration = Duration::from_millis(500);

struct Held {
    label: String,
    fd: OwnedFd,
}

/// The keeper of one pod.
struct Process {
    pod_dir: OsString,
    /// The channel to the pod's owner.
    channel: Option<OwnedFd>,
    signals: SignalFd,
    ours: OwnedFd,
    theirs: OwnedFd,
    held: Vec<Held>,
    /// What waits to be said to the shim.
    answers: Vec<u8>,
    /// Children wait to be told of: nobody has read what was told before.
    stuck: bool,
    shim: i32,
    born: Instant,
    /// It has taken the pod on.
    took_on: bool,
    /// Deaths in a row.
    row: u32,
    /// Those of them before the pod was taken on, and those of these with an exit code.
    stillborn: u32,
    failures: u32,
}

/// Keeps the pod in `pod_dir` until a shim ends by itself, or none can be kept alive. With `owned`,
/// standard input is the channel to the pod's owner, which every shim gets. Answers with the exit code.
///
/// # Errors
/// The process cannot be set up, or no shim can be started.
pub fn run(pod_dir: &OsStr, owned: bool) -> io::Result<i32> {
    rustix::thread::set_name(c"podshim-keeper")?;
    // Fails only if this process leads a session already, which is as good.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    let blocked = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    blocked.into_iter().collect::<SigSet>().thread_block()?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&children, flags)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let channel = owned.then(|| io::stdin().as_fd().try_clone_to_owned()).transpose()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let mut process = Process {
        pod_dir: pod_dir.to_owned(),
        channel,
        signals,
        ours,
        theirs,
        held: Vec::new(),
        answers: Vec::new(),
        stuck: false,
        shim: 0,
        born: Instant::now(),
        took_on: false,
        row: 0,
        stillborn: 0,
        failures: 0,
    };
    process.start()?;
    process.keep()
}

impl Process {
    fn start(&mut self) -> io::Result<()> {
        // What the pod was upgraded to; else what this process is.
        let newer = self.held.iter().find(|held| held.label == BINARY);
        let mut command = match newer {
            Some(held) => Command::new(format!("/proc/self/fd/{}", held.fd.as_raw_fd())),
            None => Command::new("/proc/self/exe"),
        };
        command.arg0("podshim").arg("shim").env_clear();
        if self.channel.is_some() {
            command.arg("--owned");
        }
        command.arg("--keeper").arg(self.theirs.as_raw_fd().to_string());
        for held in &self.held {
            command.arg("--held").arg(format!("{}={}", held.label, held.fd.as_raw_fd()));
        }
        let channel = self.channel.as_ref().map(OwnedFd::try_clone).transpose()?;
        command.arg(&self.pod_dir).stdin(channel.map_or_else(Stdio::null, Stdio::from));
        (self.born, self.took_on) = (Instant::now(), false);
        self.shim = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        Ok(())
    }

    fn keep(&mut self) -> io::Result<i32> {
        loop {
            let waits = self.stuck || !self.answers.is_empty();
            let talk = if waits { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut fds =
                [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.ours, talk)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // There is no memory to wait with: it is looked without waiting, and not all the time.
                Err(_) => std::thread::sleep(PAUSE),
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.listen();
            self.answer();
            let Some(ended) = self.reap() else { continue };
            // What it said before it died.
            self.listen();
            self.answers.clear();
            if (ended.code, ended.signal) == (0, None) {
                return Ok(0);
            }
            if !self.again(ended) {
                return Ok(ended.code);
            }
            self.start_again()?;
        }
    }

    /// There may be no memory or no process to be had for a while.
    fn start_again(&mut self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match self.start() {
                Err(e) if tries == START_TRIES => return Err(e),
                Err(_) => std::thread::sleep(START_PAUSE),
                Ok(()) => return Ok(()),
            }
            tries += 1;
        }
    }

    /// Whether another shim is to be started; waits before one that will hardly live longer.
    fn again(&mut self, ended: Reaped) -> bool {
        self.row = if self.born.elapsed() >= LONG { 1 } else { self.row + 1 };
        if self.took_on {
            (self.stillborn, self.failures) = (0, 0);
        } else {
            self.stillborn += 1;
            self.failures += u32::from(ended.signal.is_none());
        }
        if self.stillborn > STILLBORN_MAX || self.failures > FAILURES_MAX {
            return false;
        }
        let longest = PAUSE * 2_u32.pow(STILLBORN_MAX - 2);
        match self.stillborn {
            _ if self.row > ROW_MAX => std::thread::sleep(longest),
            0 | 1 => {}
            n => std::thread::sleep(PAUSE * 2_u32.pow(n - 2)),
        }
        true
    }

    /// Tells what has ended, and only then reaps it: whoever kills this process in between loses nothing.
    /// Gives the shim, if it is that.
    fn reap(&mut self) -> Option<Reaped> {
        // First: if it is dead nobody reads what is told of the others.
        let shim = collect(self.shim);
        self.stuck = false;
        while let Some(child) = peek() {
            if child.pid == self.shim {
                // It has died in this moment: the signal of it is still to come.
                break;
            }
            if !self.tell(child) {
                // It stays a zombie until there is room for it.
                self.stuck = true;
                break;
            }
            collect(child.pid);
        }
        shim
    }

    fn tell(&self, child: Reaped) -> bool {
        let numbers = [child.pid, child.code, child.signal.unwrap_or(0)];
        let message: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        descriptors::send(self.ours.as_fd(), &message, &[]).is_ok()
    }

    fn answer(&mut self) {
        while let Some(answer) = self.answers.first() {
            if descriptors::send(self.ours.as_fd(), &[*answer], &[]).is_err() {
                return;
            }
            self.answers.remove(0);
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; MESSAGE_MAX_BYTES];
        while let Ok((n, fds)) = descriptors::receive(self.ours.as_fd(), &mut buffer) {
            let Ok(text) = std::str::from_utf8(&buffer[..n]) else { continue };
            let Some(what) = text.chars().next() else { return };
            let rest = &text[what.len_utf8()..];
            match what {
                '+' => {
                    self.held.retain(|held| held.label != rest);
                    let room = HELD_MAX.saturating_sub(self.held.len());
                    for fd in fds.into_iter().take(room.min(1)) {
                        // Every shim inherits it.
                        if fcntl_setfd(&fd, FdFlags::empty()).is_ok() {
                            self.held.push(Held { label: rest.to_owned(), fd });
                        }
                    }
                }
                '*' => self.took_on = true,
                '-' => self.held.retain(|held| held.label != rest),
                '@' => {
                    // If it fails, the shim finds this process where it was.
                    let _ = std::fs::write(rest, "0");
                    self.answers.push(b'@');
                }
                '!' => {
                    self.held.retain(|held| held.label == BINARY);
                    self.answers.push(b'!');
                }
                _ => {}
            }
        }
    }
}

/// What a message of [`Process::tell`] says.
pub(super) fn record(message: &[u8]) -> Option<Reaped> {
    let number = |at: usize| message.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    let (pid, code, signal) = (number(0)?, number(4)?, number(8)?);
    Some(Reaped { pid, code, signal: (signal != 0).then_some(signal) })
}
