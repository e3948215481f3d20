//! An attempt in a process of its own, so that the shim neither waits nor grows: a copy of it, which drops
//! all that the shim has open, asks, writes one line and ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};

use super::{Check, Outcome, attempt};
use crate::container::executor;
use crate::sys::process::{Fork, close_all_but, exit_now, fork, reset_signals};

/// More than the longest line: an outcome is legible, and two bytes of JSON for each of its own.
const LINE_MAX_BYTES: usize = 4096;

/// An attempt under way.
#[derive(Debug)]
pub struct Prober {
    /// The child. It ends by itself soon after the timeout at the latest, with status 0 unless it could
    /// not even report; who cannot wait kills it. It must be reaped.
    pub pid: i32,
    /// Readable when it has something to say, or ended: see [`read_outcome`]. Does not block.
    pub message: OwnedFd,
}

/// Forks a child that makes one attempt, in this process's network namespace or in `netns`. Its outcome
/// is [`Outcome::legible`].
///
/// # Errors
/// Those of pipe2(2), and of [`fork`]: this process must have one thread only.
pub fn spawn(
    check: &Check,
    timeout: Option<Duration>,
    netns: Option<BorrowedFd<'_>>,
) -> io::Result<Prober> {
    let (message, message_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&message, true)?;
    let parent = rustix::process::getpid();
    match fork()? {
        Fork::Parent(pid) => Ok(Prober { pid, message }),
        Fork::Child => {
            let outcome = match settle(parent, &message_end, netns) {
                Ok(()) => attempt(check, timeout),
                Err(message) => Outcome::Error { message },
            };
            let sent = send(&message_end, &outcome.legible());
            exit_now(i32::from(sent.is_err()))
        }
    }
}

/// Reads the outcome; `None` as long as there is none.
///
/// # Errors
/// `UnexpectedEof` if the child ended without one (it was killed); others if the pipe cannot be read or
/// holds what is not ours.
pub fn read_outcome(message: &OwnedFd) -> io::Result<Option<Outcome>> {
    let mut buffer = [0; LINE_MAX_BYTES];
    loop {
        match rustix::io::read(message, &mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // It is written in one piece.
            Ok(n) => return Ok(Some(serde_json::from_slice(&buffer[..n])?)),
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn send(pipe: &OwnedFd, outcome: &Outcome) -> io::Result<()> {
    let mut line = serde_json::to_vec(outcome)?;
    line.push(b'\n');
    rustix::io::write(pipe, &line)?;
    Ok(())
}

/// In the child: makes it a process that has nothing of the shim's but the pipe, and ends with it.
fn settle(
    parent: rustix::process::Pid,
    message: &OwnedFd,
    netns: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let step = |what: &'static str| move |e: io::Error| format!("cannot {what}: {e}");
    executor::hide_memory().map_err(|failure| failure.message)?;
    // A hook may have no timeout of its own.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| step("be bound to the shim")(e.into()))?;
    if rustix::process::getppid() != Some(parent) {
        return Err("the shim has ended".into());
    }
    if let Some(netns) = netns {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| step("enter the pod's network namespace")(e.into()))?;
    }
    // The number of the shim's log will be another file's.
    crate::diagnostics::end();
    drop_streams().map_err(step("close its streams"))?;
    close_all_but(&[message.as_raw_fd()]).map_err(step("close inherited descriptors"))?;
    reset_signals().map_err(step("reset signals"))?;
    // A server that closes early is an error to be told, not a signal to die of.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block().map_err(|e| step("block a signal")(e.into()))
}

/// Standard streams may be a terminal or a pipe that somebody waits on. An ended pipe takes their places.
fn drop_streams() -> io::Result<()> {
    let (ended, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::stdio::dup2_stdin(&ended)?;
    rustix::stdio::dup2_stdout(&ended)?;
    rustix::stdio::dup2_stderr(&ended)?;
    Ok(())
}
