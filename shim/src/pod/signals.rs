//! Signals, read from a descriptor: the children's, and those that end the pod.

use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{EventData, EventFlags};

use super::tokens;
use super::watch;

/// The shim's signal descriptor.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals that are read from now on, in this thread: the only one.
    pub fn open(epoll: &OwnedFd) -> anyhow::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).context("cannot make a signal descriptor")?;
        watch::add(epoll, &fd, EventData::new_u64(tokens::SIGNALS), EventFlags::IN)?;
        Ok(Signals(fd))
    }

    /// Forgets what has come so far. A shim begins in its owner's session: what was meant for that
    /// one's whole process group (Ctrl-C) is the owner's to act on.
    pub fn forget(&self) {
        while let Ok(Some(_)) = self.0.read_signal() {}
    }

    /// What came: whether a child did something, and how often the pod was asked to end.
    pub fn read(&mut self) -> Received {
        let mut received = Received::default();
        while let Ok(Some(info)) = self.0.read_signal() {
            match i32::try_from(info.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => received.child = true,
                Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) => received.end += 1,
                // The terminal is not the shim's; it has no configuration to read again.
                _ => {}
            }
        }
        received
    }
}

/// See [`Signals::read`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// At least one child changed its state.
    pub child: bool,
    /// TERM and INT to the shim itself.
    pub end: u32,
}
