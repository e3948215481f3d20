//! A copy of the shim that does one thing and ends: asks a container's server, compresses a log. It has
//! nothing of what the shim has open, so that the shim neither waits nor grows.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};

use crate::container::executor;
use crate::sys::process::{close_all_but, reset_signals};

/// In the child: makes it a process that has nothing of the shim's but the descriptors to `keep`, and ends
/// with it; in this network namespace, if one is given.
pub(crate) fn settle(
    parent: rustix::process::Pid,
    keep: &[RawFd],
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
    close_all_but(keep).map_err(step("close inherited descriptors"))?;
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
