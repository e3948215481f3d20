//! An attempt in a process of its own, so that the shim neither waits nor grows: a copy of it, which drops
//! all that the shim has open, asks, writes one line and ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::{Check, Outcome, attempt};
use crate::child::settle;
use crate::sys::process::{Fork, exit_now, fork};

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
            let outcome = match settle(parent, &[message_end.as_raw_fd()], netns) {
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
