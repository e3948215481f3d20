//! Becoming another version of podshim, in place: the same process, the same children.
//!
//! The binary is a client's own, so it has shown that it runs on this host. What is open stays so under
//! the labels that the keeper knows; all else is found again as after a death, but for children, which are
//! still this process' own.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};

use super::kept;
use super::machine::Machine;

impl Machine {
    /// Becomes `binary`, and comes back only if that cannot be.
    pub(super) fn become_another(&mut self, binary: &OwnedFd) -> io::Result<Infallible> {
        let keeper = self.keeper.as_ref();
        let keeper = keeper.ok_or_else(|| io::Error::other("the pod has no keeper any more"))?;
        // The next one is started from it, too.
        keeper.hold(kept::BINARY, binary.as_fd())?;
        let socket = keeper.socket();
        let mut kept: Vec<(String, BorrowedFd<'_>)> = Vec::new();
        kept.extend(self.lock().map(|fd| (kept::LOCK.to_owned(), fd)));
        kept.extend(self.clients.listener().map(|fd| (kept::LISTENER.to_owned(), fd)));
        kept.extend(self.notifiers.iter().map(|n| (kept::notifier(n.container()), n.socket())));
        kept.extend(
            self.living
                .iter()
                .filter_map(|i| Some((kept::start_pipe(i.c, i.inc), i.started.as_ref()?.as_fd()))),
        );
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.arg0("podshim").arg("shim").arg("--upgraded");
        if let Some(owner) = self.clients.owner() {
            rustix::stdio::dup2_stdin(owner)?;
            command.arg("--owned");
        }
        command.arg("--keeper").arg(socket.as_raw_fd().to_string());
        for (label, fd) in &kept {
            command.arg("--held").arg(format!("{label}={}", fd.as_raw_fd()));
        }
        command.arg(&self.dir.dir).env_clear();
        let open: Vec<BorrowedFd<'_>> = kept.iter().map(|(_, fd)| *fd).chain([socket]).collect();
        for fd in &open {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        // It takes the mount namespace that it finds itself in for the host's.
        let sandbox = self.sandbox.as_ref();
        let back = sandbox.map(runtime::sandbox::Sandbox::step_out).transpose();
        let back = back.map_err(io::Error::other)?;
        let failed = command.exec();
        if let Some(back) = back {
            back.step_in().map_err(io::Error::other)?;
        }
        for fd in &open {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        Err(failed)
    }
}
