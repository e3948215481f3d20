//! Copies between this process's streams and a program's, until the program has ended and all that
//! it had written is here.
//!
//! A container is never given the user's own terminal or files: with such a descriptor it could push
//! input into the terminal or open the file anew. It gets pipes, or a terminal of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use super::Connection;
use crate::protocol::Reply;

/// What tells a program behind a terminal that there is no more input: ^D.
const END_OF_TRANSMISSION: &[u8] = b"\x04";

/// From standard input to the program.
#[derive(Debug)]
pub struct Input {
    /// Dropped at the end, unless it is a terminal.
    to: Option<OwnedFd>,
    is_terminal: bool,
    /// Whether standard input is still read.
    open: bool,
    /// Read and not taken yet.
    pending: Vec<u8>,
}

impl Input {
    /// `to` is made non-blocking.
    pub fn new(to: OwnedFd, is_terminal: bool, wanted: bool) -> io::Result<Input> {
        rustix::io::ioctl_fionbio(&to, true)?;
        let mut input = Input { to: Some(to), is_terminal, open: wanted, pending: Vec::new() };
        if !wanted && !is_terminal {
            input.to = None;
        }
        Ok(input)
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) => self.end(),
            Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.end(),
        }
    }

    fn end(&mut self) {
        self.open = false;
        if self.is_terminal {
            self.pending.extend_from_slice(END_OF_TRANSMISSION);
        } else if self.pending.is_empty() {
            self.to = None;
        }
    }

    fn write(&mut self) {
        let Some(to) = &self.to else { return };
        match rustix::io::write(to, &self.pending) {
            Ok(n) => drop(self.pending.drain(..n)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The program reads no more.
            Err(_) => {
                self.pending.clear();
                self.open = false;
            }
        }
        if self.pending.is_empty() && !self.open && !self.is_terminal {
            self.to = None;
        }
    }
}

/// From the program to one of our streams.
#[derive(Debug)]
pub struct Output<'a> {
    /// What the program writes into; for a terminal, its other side.
    pub from: OwnedFd,
    /// Ours.
    pub to: BorrowedFd<'a>,
    /// `false` at its end.
    pub open: bool,
}

impl Output<'_> {
    fn copy(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 64 << 10];
        match rustix::io::read(&self.from, &mut buffer) {
            // Of a terminal the end is an error: everybody has closed it.
            Ok(0) | Err(Errno::IO) => self.open = false,
            Ok(n) => {
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    match rustix::io::write(self.to, rest) {
                        Ok(n) => rest = &rest[n..],
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(e).context("cannot write the program's output"),
                    }
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot read the program's output"),
        }
        Ok(())
    }
}

/// Copies until the answer is there and nothing more to show; what a program left in the background
/// still writes is not waited for.
pub fn until_over(
    connection: &mut Connection,
    input: &mut Input,
    outputs: &mut [Output<'_>],
    window: Option<(&SignalFd, BorrowedFd<'_>)>,
) -> anyhow::Result<Option<Reply>> {
    let stdin = io::stdin();
    let mut reply: Option<Option<Reply>> = None;
    loop {
        let wanted = |open: bool, flags: PollFlags| if open { flags } else { PollFlags::empty() };
        let is_pending = !input.pending.is_empty();
        let mut fds = vec![
            PollFd::new(&stdin, wanted(input.open && !is_pending, PollFlags::IN)),
            PollFd::from_borrowed_fd(connection.socket(), wanted(reply.is_none(), PollFlags::IN)),
        ];
        if let Some((changes, _)) = window {
            fds.push(PollFd::new(changes, PollFlags::IN));
        }
        let first_output = fds.len();
        fds.extend(outputs.iter().filter(|o| o.open).map(|o| PollFd::new(&o.from, PollFlags::IN)));
        let first_input = fds.len();
        if let Some(to) = input.to.as_ref().filter(|_| is_pending) {
            fds.push(PollFd::new(to, PollFlags::OUT));
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, reply.is_some().then_some(&now)) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e).context("cannot wait for the program"),
        }
        // What was not asked for is not ready, but for errors, which reading tells.
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if let Some((changes, terminal)) = window
            && ready[2]
        {
            while let Ok(Some(_)) = changes.read_signal() {}
            if let Ok(size) = tcgetwinsize(&stdin) {
                // The program may have ended meanwhile.
                let _ = tcsetwinsize(terminal, size);
            }
        }
        let mut shown = false;
        let open = outputs.iter_mut().filter(|o| o.open);
        for (output, ready) in open.zip(&ready[first_output..first_input]) {
            if *ready {
                output.copy()?;
                shown = true;
            }
        }
        if ready.get(first_input) == Some(&true) {
            input.write();
        }
        if input.open && !is_pending && ready[0] {
            input.read();
        }
        if reply.is_none() && ready[1] {
            reply = Some(connection.receive()?);
        } else if let Some(reply) = &mut reply
            && !shown
        {
            return Ok(reply.take());
        }
    }
}

/// The user's terminal's size: lines and columns.
pub fn window_size() -> Option<(u16, u16)> {
    tcgetwinsize(io::stdin().as_fd()).ok().map(|w| (w.ws_row, w.ws_col))
}
