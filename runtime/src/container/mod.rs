//! Containers: created by libcontainer in forked creators, started, killed and removed by us.
//!
//! The shim has one thread and never does the slow half itself. It forks a **creator** (no exec, no
//! dynamic linking, nothing parsed again), which mounts the root filesystem, writes the OCI bundle
//! and runs libcontainer with the container's init as *its sibling*: the init is the shim's own
//! child, several creators run side by side, and what libcontainer changes in its own process (cwd,
//! oom score, dumpable flag, descriptors of a failed create) ends with the creator.
//!
//! Starting is one connect to the waiting init's socket, and idempotent: a connection is refused if
//! it was started before. libcontainer's own start, delete and state are not used; what is true of a
//! container the shim knows from its journal and its pidfd.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::sys::process::{Fork, exit_of, fork, of_status, send_signal};

mod create;
mod diagnosis;
pub(crate) mod executor;

pub use create::{CreateOrder, cgroup_name, machine_dir};

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// A creator cannot be forked.
    #[error("cannot fork a creator for container {container}")]
    Fork {
        /// Its name.
        container: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The waiting init cannot be told to start.
    #[error("cannot start container through {}", socket.display())]
    Start {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process cannot be watched.
    #[error("cannot open a pidfd of process {pid}")]
    Watch {
        /// Its pid.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A creator under way.
#[derive(Debug)]
pub struct Creator {
    /// Its pid.
    pub pid: i32,
    /// Readable when it has sent its one message. Never wait for its end-of-file: the init that it
    /// made holds the other end too.
    pub message: OwnedFd,
    /// Hangs up when the payload is executed, or holds a [`StartFailure`].
    pub started: OwnedFd,
}

/// What a creator reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CreatorMessage {
    /// The container's init waits to be started; it is a child of the shim.
    Created {
        /// Its pid.
        pid: i32,
    },
    /// Nothing came of it.
    Failed {
        /// Kubernetes' reason: `CreateContainerConfigError` or `CreateContainerError`.
        reason: String,
        /// What was tried, on what, and every cause.
        message: String,
    },
}

/// What the init sends through the start pipe if it cannot execute its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// What was tried, on what, and the cause.
    pub message: String,
    /// The errno of execve(2), if that is what failed.
    pub errno: Option<i32>,
}

impl StartFailure {
    /// With a message that fits into one [`MESSAGE_MAX_BYTES`] whatever is in it: a program's name may
    /// be of any length.
    pub(crate) fn short(&self) -> StartFailure {
        const CHARACTERS: usize = 500;
        let mut message = self.message.clone();
        if let Some((end, _)) = message.char_indices().nth(CHARACTERS) {
            message.truncate(end);
            message.push('…');
        }
        StartFailure { message, errno: self.errno }
    }
}

/// A message is one write(2) and one read(2): at most what a pipe takes in one piece (PIPE_BUF).
const MESSAGE_MAX_BYTES: usize = 4096;

/// Forks a creator for one incarnation.
///
/// # Errors
/// [`ContainerError::Fork`].
pub fn spawn_creator(order: &CreateOrder<'_>) -> Result<Creator, ContainerError> {
    let failed = |source: io::Error| ContainerError::Fork {
        container: order.container.name.clone(),
        source,
    };
    let (message, message_end) = pipe().map_err(failed)?;
    let (started, started_end) = pipe().map_err(failed)?;
    let shim = rustix::process::getpid();
    match fork().map_err(failed)? {
        Fork::Parent(pid) => Ok(Creator { pid, message, started }),
        Fork::Child => create::creator(order, shim, message_end, started_end),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Reads a creator's message; call it when `message` is readable.
///
/// # Errors
/// The message is not one of ours.
pub fn read_message(message: &OwnedFd) -> io::Result<CreatorMessage> {
    Ok(serde_json::from_slice(&read_once(message.as_fd())?)?)
}

/// Reads what an init said of its start: `None` if it hung up, which means that its program runs
/// (or that it was killed before; its pidfd tells).
///
/// # Errors
/// The pipe cannot be read.
pub fn read_start(started: &OwnedFd) -> io::Result<Option<StartFailure>> {
    let bytes = read_once(started.as_fd())?;
    if bytes.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&bytes)?)) }
}

fn read_once(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; MESSAGE_MAX_BYTES];
    let n = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer))?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Tells a waiting init to execute its program. `true` if this call did it, `false` if it had been
/// told before.
///
/// The socket's path may be longer than the 108 bytes of a socket address, so it is named through a
/// descriptor of its directory.
///
/// # Errors
/// [`ContainerError::Start`].
pub fn start(machine: &std::path::Path, id: &str) -> Result<bool, ContainerError> {
    let dir = machine.join(id);
    let failed =
        |source: io::Error| ContainerError::Start { socket: dir.join("notify.sock"), source };
    let opened = File::open(&dir).map_err(failed)?;
    match UnixStream::connect(format!("/proc/self/fd/{}/notify.sock", opened.as_raw_fd())) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

/// A process, held by its pidfd.
#[derive(Debug)]
pub struct Process {
    /// Its pid in the host's namespace.
    pub pid: i32,
    /// `None` if it was reaped before anybody took hold of it.
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// Takes hold of a process that has not been reaped.
    ///
    /// # Errors
    /// [`ContainerError::Watch`].
    pub fn open(pid: i32) -> Result<Process, ContainerError> {
        let failed = |source: io::Error| ContainerError::Watch { pid, source };
        let raw =
            Pid::from_raw(pid).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ESRCH)))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(Process { pid, pidfd: Some(pidfd) })
    }

    /// One that is not there any more.
    #[must_use]
    pub fn gone(pid: i32) -> Process {
        Process { pid, pidfd: None }
    }

    /// The pidfd.
    #[must_use]
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Whether it has ended, reaped or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.polled().is_none_or(|events| !events.is_empty())
    }

    /// How it ended, by whosever child it was: exit code and signal. To be asked once it [is
    /// over](Process::is_over). `None` if nobody knows it any more: before Linux 6.15 the kernel tells it of a
    /// zombie only.
    #[must_use]
    pub fn end(&self) -> Option<(i32, Option<i32>)> {
        // While it is being reaped it is no zombie any more and not gone yet. That takes microseconds, and on
        // kernels before 6.9 nothing tells of its end.
        const LOOKS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(1);
        let pidfd = self.pidfd.as_ref()?;
        for _ in 0..LOOKS {
            let was_reaped = self.is_reaped();
            let told = exit_of(pidfd.as_fd()).or_else(|| self.zombie_status().map(of_status));
            if told.is_some() || was_reaped {
                return told;
            }
            std::thread::sleep(PAUSE);
        }
        None
    }

    /// Whether it has been reaped: its pidfd belongs to no process then (proc_pid_fdinfo(5), "Pid").
    fn is_reaped(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return true };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
        info.is_ok_and(|info| info.lines().any(|line| line == "Pid:\t-1"))
    }

    fn polled(&self) -> Option<PollFlags> {
        let mut fds = [PollFd::new(self.pidfd.as_ref()?, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).ok()?;
        Some(fds[0].revents())
    }

    /// The wait status of a zombie (wait(2)): field 52 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    fn zombie_status(&self) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The second field, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let is_over = matches!(fields.next(), Some("Z" | "X"));
        let status = fields.nth(48)?.parse().ok()?;
        // The number may have been given to somebody else while that was read.
        (is_over && !self.is_reaped()).then_some(status)
    }

    /// Its parent (proc_pid_stat(5)).
    #[must_use]
    pub fn parent(&self) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// The pidfd's inode: on pidfs (Linux ≥ 6.9) unique for the machine's life, so that a successor
    /// can tell this process from a later one with its pid. 0 where all pidfds share one inode.
    #[must_use]
    pub fn inode(&self) -> u64 {
        const PIDFS_MAGIC: u64 = 0x5049_4446;
        let Some(pidfd) = &self.pidfd else { return 0 };
        let on_pidfs =
            rustix::fs::fstatfs(pidfd).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(PIDFS_MAGIC));
        if !on_pidfs {
            return 0;
        }
        rustix::fs::fstat(pidfd).map_or(0, |s| s.st_ino)
    }

    /// Sends a signal by its number; a process that is gone is no error.
    pub fn signal(&self, number: i32) {
        // ESRCH: it is dead already, and that is what was wanted. EPERM cannot be: we are root.
        let _ = self.pidfd.as_ref().map(|pidfd| send_signal(pidfd.as_fd(), number));
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL.as_raw());
    }

    /// Whether the process has a handler for a signal (`SigCgt` of `/proc/<pid>/status`). Pid 1 of
    /// a namespace never gets a signal that it does not handle (pid_namespaces(7)). `None` if it
    /// cannot be told.
    #[must_use]
    pub fn handles(&self, signal: i32) -> Option<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        let bit = u32::try_from(signal).ok()?.checked_sub(1)?;
        Some(mask.checked_shr(bit)? & 1 == 1)
    }
}
