//! Forking, and what a forked child must do before it does anything else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::ForkResult;
use rustix::process::{WaitOptions, WaitStatus};

/// Who returned from [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The caller, with its child's pid.
    Parent(i32),
    /// The child.
    Child,
}

/// fork(2) of a single-threaded process: the child may go on in ordinary code.
///
/// # Errors
/// That of fork(2), and `EDEADLK` if this process has more than one thread (a lock that another
/// thread holds, malloc's for one, would stay locked in the child for ever).
pub fn fork() -> io::Result<Fork> {
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: this process has exactly one thread (checked above; only a thread could start
    // another), so no lock is held by somebody who does not exist in the child.
    let who = unsafe { nix::unistd::fork() }?;
    Ok(match who {
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
        ForkResult::Child => Fork::Child,
    })
}

/// fork(2) of a process that was itself forked by [`fork`] and has started no thread since. It does
/// not look, because after entering a container `/proc` is another one.
///
/// # Errors
/// That of fork(2).
pub fn fork_of_fork() -> io::Result<Fork> {
    // SAFETY: a forked child begins with one thread, and callers start none.
    let who = unsafe { nix::unistd::fork() }?;
    Ok(match who {
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
        ForkResult::Child => Fork::Child,
    })
}

/// How many threads this process has: the link count of `/proc/self/task`, less `.` and `..`.
fn threads() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// _exit(2): ends a forked child without running destructors or flushing what the parent buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on, except those given. What a waiting init inherits it holds
/// until its execve: a lock, a listening socket, another container's FIFO.
///
/// # Errors
/// That of close_range(2).
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if from < fd {
            close_range(from, fd - 1, 0)?;
        }
        from = fd + 1;
    }
    close_range(from, RawFd::MAX, 0)
}

/// Marks every descriptor from 3 on close-on-exec.
///
/// # Errors
/// That of close_range(2).
pub fn cloexec_all() -> io::Result<()> {
    close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    let (first, last) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: close_range takes no pointers. Closing descriptors that a value still owns would be
    // wrong, so callers are forked children that keep none but the listed ones, or only set a flag.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the process the signal state that a program expects to start with: nothing blocked,
/// nothing ignored. (Rust ignores SIGPIPE; a signalfd needs blocked signals; both are inherited
/// through execve.)
///
/// # Errors
/// That of sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, Signal};
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Reaps one finished child, if there is one (`waitpid(-1, WNOHANG)`); `None` if there is none, or no
/// child at all.
///
/// The exit code is a shell's: the exit status, or 128 plus the signal's number.
pub fn reap() -> Option<Reaped> {
    loop {
        return match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => match ended(status) {
                Some((code, signal)) => {
                    Some(Reaped { pid: pid.as_raw_nonzero().get(), code, signal })
                }
                // Stopped or continued: asked for by nobody.
                None => continue,
            },
            Err(rustix::io::Errno::INTR) => continue,
            Ok(None) | Err(_) => None,
        };
    }
}

/// One finished child, if there is one, which stays a zombie (waitid(2), `WNOWAIT`): whoever has to
/// write its end down does so before [`collect`] makes the kernel forget it.
pub fn peek() -> Option<Reaped> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: the kernel fills in the structure, or leaves it zeroed if no child has finished.
        let r = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) };
        if r == 0 {
            break;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
    // SAFETY: zeroes are a valid value of it, and the call was successful.
    let info = unsafe { info.assume_init() };
    // SAFETY: of a child's state this field is set; without one it is zero.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as the other.
    let status = unsafe { info.si_status() };
    let (code, signal) = match info.si_code {
        libc::CLD_EXITED => (status, None),
        _ => (128 + status, Some(status)),
    };
    (pid != 0).then_some(Reaped { pid, code, signal })
}

/// Reaps one child, if it has finished: one that [`peek`] told of, or another.
pub fn collect(pid: i32) -> Option<Reaped> {
    let of = rustix::process::Pid::from_raw(pid)?;
    let waited =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(of), WaitOptions::NOHANG));
    let (code, signal) = ended(waited.ok()??.1)?;
    Some(Reaped { pid, code, signal })
}

/// How a process ended that is or was somebody else's child, by its pidfd: the kernel tells once it has
/// been reaped (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15). `None` before that, and on older
/// kernels.
pub fn exit_of(pidfd: BorrowedFd<'_>) -> Option<(i32, Option<i32>)> {
    /// The first version of `struct pidfd_info` (linux/pidfd.h).
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    const SIZE: u64 = size_of::<Info>() as u64;
    // _IOWR(0xff, 11, struct pidfd_info)
    const GET_INFO: u64 = 3 << 30 | SIZE << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel reads and writes as many bytes as the number of the call says: the structure's.
    let r = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (r == 0 && info.mask & EXIT != 0).then(|| of_status(info.exit_code))
}

/// A shell's exit code, and the signal, from a wait status (wait(2)).
pub fn of_status(status: i32) -> (i32, Option<i32>) {
    match status & 0x7f {
        0 => ((status >> 8) & 0xff, None),
        signal => (128 + signal, Some(signal)),
    }
}

/// Takes over descriptors that this process was started with, by their numbers; closed on exec from now on.
///
/// # Errors
/// One is not open, or is a standard stream's.
pub fn inherited(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    let take = |number: &RawFd| {
        if *number < 3 || numbers.iter().filter(|n| *n == number).count() != 1 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        // SAFETY: fcntl takes any number; it fails for one that is not open.
        let r = unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, nobody in this process has opened it, as the caller has opened nothing yet,
        // and it is taken only once.
        Ok(unsafe { OwnedFd::from_raw_fd(*number) })
    };
    numbers.iter().map(take).collect()
}

/// The signal is any number: a type of named signals would not know the real-time ones, and an exit
/// that cannot be told is lost for ever.
fn ended(status: WaitStatus) -> Option<(i32, Option<i32>)> {
    let by_itself = status.exit_status().map(|code| (code, None));
    by_itself.or_else(|| status.terminating_signal().map(|signal| (128 + signal, Some(signal))))
}

/// Sends a signal, of any number, to the process that a pidfd holds.
///
/// # Errors
/// That of pidfd_send_signal(2).
pub fn send_signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the call, and no siginfo means that the kernel makes one.
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0_u32)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid.
    pub pid: i32,
    /// Its exit status, or 128 plus the signal's number.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test harness runs every test in a thread of its own.
        assert_eq!(fork().map_err(|e| e.raw_os_error()), Err(Some(libc::EDEADLK)));
    }
}
