//! What the shim does with its keeper: has things held that must outlive it, and hears how those have
//! ended that a shim before it had started.

use std::os::fd::{BorrowedFd, OwnedFd};

use plan::Exit;
use runtime::keeper::Keeper;
use runtime::log::Stream;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::machine::Machine;
use super::tokens;
use super::watch;

/// The pod's lock.
pub const LOCK: &str = "lock";
/// The socket that the pod is talked to at.
pub const LISTENER: &str = "listener";

pub use runtime::keeper::BINARY;

/// A container's notification socket.
pub fn notifier(c: usize) -> String {
    format!("notify-{c}")
}

/// The pipe that tells whether an incarnation was executed.
pub fn start_pipe(c: usize, inc: u32) -> String {
    format!("start-{c}-{inc}")
}

/// What keeps a container's image in the store.
pub fn image(c: usize) -> String {
    format!("image-{c}")
}

fn fifo(c: usize, stream: Stream) -> String {
    format!("{}-{c}", stream.name())
}

impl Machine {
    /// Has a descriptor outlive this process.
    pub(super) fn hold(&self, label: &str, fd: BorrowedFd<'_>) {
        let Some(keeper) = &self.keeper else { return };
        if let Err(e) = keeper.hold(label, fd) {
            tracing::warn!("the keeper does not hold {label}: {e}");
        }
    }

    /// Nobody needs it any more.
    pub(super) fn release(&self, label: &str) {
        let Some(keeper) = &self.keeper else { return };
        if let Err(e) = keeper.release(label) {
            tracing::warn!("the keeper does not release {label}: {e}");
        }
    }

    /// Output in a FIFO whose container has ended would go with the last descriptor.
    pub(super) fn hold_output(&self) {
        let Some(pump) = &self.pump else { return };
        for (fd, token) in pump.fds() {
            self.hold(&fifo(token.container, token.stream), fd);
        }
    }

    pub(super) fn release_output(&self) {
        for c in 0..self.pod.containers.len() {
            Stream::ALL.into_iter().for_each(|stream| self.release(&fifo(c, stream)));
        }
    }

    /// The state directory is about to be unmounted, which whatever is open in it prevents.
    pub(super) fn release_all(&mut self) {
        if let Some(keeper) = &mut self.keeper
            && let Err(e) = keeper.release_all()
        {
            tracing::warn!("the keeper does not let go of the pod: {e}");
        }
    }

    /// Hears how children of dead shims have ended.
    pub(super) fn on_keeper(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        match keeper.ended() {
            Ok(ended) => {
                for child in ended {
                    let exit = exit(child.code, child.signal);
                    // Not every child is a container's, and a number may have been another's before.
                    let is = |i: &super::children::Incarnation| {
                        i.adopted && i.process.pid == child.pid && i.process.is_over()
                    };
                    if let Some(at) = self.living.iter().position(is) {
                        self.on_exit(at, exit);
                    }
                }
            }
            Err(e) => {
                tracing::warn!("the pod has lost its keeper ({e}), and goes on without one");
                let _ = epoll::delete(&self.epoll, keeper.socket());
                self.keeper = None;
                // It was the parent of these: from now on their ends are looked for.
                let orphans = self.living.iter().filter(|i| i.adopted).map(|i| i.process.pid);
                for pid in orphans.collect::<Vec<_>>() {
                    self.look_after(pid);
                }
            }
        }
    }

    /// Watches the process of an incarnation that is nobody's child whom we hear of.
    pub(super) fn look_after(&mut self, pid: i32) {
        let Some(found) = self.living.iter().find(|i| i.process.pid == pid) else { return };
        let Some(pidfd) = found.process.pidfd() else { return self.on_orphan(pid) };
        let data = EventData::new_u64(tokens::orphan(pid));
        if let Err(e) = watch::add(&self.epoll, pidfd, data, EventFlags::IN) {
            tracing::error!("cannot watch process {pid}: {e}");
        }
    }

    /// A process has ended whose parent does not talk to us.
    pub(super) fn on_orphan(&mut self, pid: i32) {
        let Some(at) = self.living.iter().position(|i| i.process.pid == pid) else { return };
        let told = self.living[at].process.end();
        let exit = told.map_or_else(lost, |(code, signal)| exit(code, signal));
        self.on_exit(at, exit);
    }
}

/// How something ended that somebody saw.
pub fn exit(code: i32, signal: Option<i32>) -> Exit {
    Exit { code, signal, ..Exit::default() }
}

/// How something ended of which nobody knows.
pub fn lost() -> Exit {
    Exit { code: 137, lost: true, ..Exit::default() }
}

/// The keeper's socket becomes an event source.
pub fn listen(epoll: &OwnedFd, keeper: &Keeper) -> anyhow::Result<()> {
    watch::add(epoll, keeper.socket(), EventData::new_u64(tokens::KEEPER), EventFlags::IN)?;
    Ok(())
}
