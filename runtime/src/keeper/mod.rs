//! The keeper: a pod's hold on life while its shim is dead.
//!
//! It is the shim's parent and does four things: it starts a shim, and another one when that dies; as a
//! subreaper it becomes the parent of what the dead one leaves, and tells the next one how they ended; it
//! holds descriptors that must outlive a shim (FIFOs with output in them, sockets that others have the
//! other end of, the pod's lock); and it ends when a shim ends by itself. It knows nothing of pods, so
//! there is little in it that can fail or grow.
//!
//! Both talk over one `SOCK_SEQPACKET` pair. The keeper keeps the shim's end as well, so what a dead
//! shim has not read is the next one's.
//!
//! ```text
//! shim → keeper   +LABEL and a descriptor   hold this, in place of what had the label
//!                 -LABEL                    close it
//!                 *                         the pod is taken on
//!                 @PATH                     move yourself into the control group of this file
//!                 !                         close all of it but the binary: the state directory is to be
//!                                           unmounted
//! keeper → shim   12 bytes                  a child that a dead shim left has ended: pid, code, signal
//!                 @ or !                    done
//! ```

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::descriptors;
use crate::sys::process::{Reaped, inherited};

pub mod process;

/// Longest message: a path, or a label.
const MESSAGE_MAX_BYTES: usize = 4096 + 1;

/// The label of the binary that shims are started from, if it is another one than the keeper's own.
pub const BINARY: &str = "binary";

/// How long the keeper may take for what is answered. It does nothing slow.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shim's end.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    /// What came while an answer was waited for.
    early: Vec<Reaped>,
}

/// What a shim begins with.
#[derive(Debug)]
pub struct Inheritance {
    /// Its keeper.
    pub keeper: Keeper,
    /// What the keeper held, by its label.
    pub held: HashMap<String, OwnedFd>,
}

/// Takes what the keeper left open for this process: the number of the socket, and `LABEL=NUMBER` for what
/// it holds, as they stand in the arguments. To be called once, and before any descriptor is opened.
///
/// # Errors
/// An argument is not of that form, or the descriptor is not open.
pub fn inherit(socket: RawFd, held: &[String]) -> io::Result<Inheritance> {
    let bad = |text: &str| io::Error::other(format!("{text:?} is not LABEL=NUMBER"));
    let mut labels = Vec::new();
    let mut numbers = vec![socket];
    for text in held {
        let (label, number) = text.rsplit_once('=').ok_or_else(|| bad(text))?;
        numbers.push(number.parse().map_err(|_| bad(text))?);
        labels.push(label.to_owned());
    }
    let mut fds = inherited(&numbers)?.into_iter();
    let socket = fds.next().ok_or_else(|| bad("the socket"))?;
    Ok(Inheritance {
        keeper: Keeper { socket, early: Vec::new() },
        held: labels.into_iter().zip(fds).collect(),
    })
}

impl Keeper {
    /// Readable when there is something for [`Keeper::ended`]; hung up when the keeper is dead.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Tells that the pod is taken on: who dies from now on has not died of it.
    ///
    /// # Errors
    /// As [`Keeper::hold`].
    pub fn took_on(&self) -> io::Result<()> {
        self.say('*', "", &[])
    }

    /// Has a descriptor held until a shim takes the label back.
    ///
    /// # Errors
    /// The keeper is dead, or does not read.
    pub fn hold(&self, label: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.say('+', label, &[fd])
    }

    /// Has one closed; one that is not held is no error.
    ///
    /// # Errors
    /// As [`Keeper::hold`].
    pub fn release(&self, label: &str) -> io::Result<()> {
        self.say('-', label, &[])
    }

    /// Has the keeper move itself into the control group whose `cgroup.procs` this is, and waits for it.
    ///
    /// # Errors
    /// As [`Keeper::hold`], or it has not answered in time.
    pub fn move_to(&mut self, procs: &str) -> io::Result<()> {
        self.say('@', procs, &[])?;
        self.wait_for(b'@')
    }

    /// Has everything closed that is held, and waits for it.
    ///
    /// # Errors
    /// As [`Keeper::move_to`].
    pub fn release_all(&mut self) -> io::Result<()> {
        self.say('!', "", &[])?;
        self.wait_for(b'!')
    }

    /// The children of dead shims that have ended, the first to end at the beginning.
    ///
    /// # Errors
    /// `UnexpectedEof` if the keeper is dead.
    pub fn ended(&mut self) -> io::Result<Vec<Reaped>> {
        let mut ended = std::mem::take(&mut self.early);
        while let Some(message) = self.receive()? {
            ended.extend(process::record(&message));
        }
        Ok(ended)
    }

    fn say(&self, what: char, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let message = format!("{what}{text}");
        if message.len() > MESSAGE_MAX_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        descriptors::send(self.socket.as_fd(), message.as_bytes(), fds).map(drop)
    }

    /// The next message; `None` if there is none now.
    fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 64];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(Some(buffer[..n].to_vec())),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(rustix::io::Errno::INTR) => self.receive(),
            // Its end was closed with messages unread.
            Err(rustix::io::Errno::CONNRESET) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) => Err(e.into()),
        }
    }

    fn wait_for(&mut self, answer: u8) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(message) = self.receive()? {
                if message == [answer] {
                    return Ok(());
                }
                self.early.extend(process::record(&message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
