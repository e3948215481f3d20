//! Runs one more program in a running container: exec probes and `podshim exec`.
//!
//! The program gets what the container's own process has: namespaces (through its pidfd), control
//! group, user, groups, limits, oom score, environment, working directory, seccomp filter and
//! capabilities. It also gets a control group of its own below the container's, so that all that it
//! starts can be found and killed when its time is over.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use bundles::oci::FinalProcess;
use caps::CapSet;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::PosixRlimitType;
use serde::{Deserialize, Serialize};

use crate::cgroup::ExecHome;
use crate::container::{Process, StartFailure, executor};
use crate::seccomp::Filter;
use crate::sys::process::{Fork, close_all_but, exit_now, fork, fork_of_fork, reset_signals};

/// What is to be run, and where.
#[derive(Debug)]
pub struct ExecOrder<'a> {
    /// The container's process.
    pub init: &'a Process,
    /// `process.json` of its bundle.
    pub process_file: PathBuf,
    /// The program and its arguments.
    pub args: &'a [String],
    /// Its standard streams.
    pub io: &'a ExecIo,
    /// The container's seccomp filter.
    pub filter: Option<Arc<Filter>>,
    /// The control groups that it enters.
    pub home: &'a ExecHome,
}

/// The standard streams of a program.
#[derive(Debug)]
pub enum ExecIo {
    /// No input; output and errors together are for the shim to read.
    Captured,
    /// These: input, output, errors.
    Given([OwnedFd; 3]),
    /// A terminal of the container's own, which the program controls.
    Terminal {
        /// A unix socket on which the terminal's other side is sent to whoever looks at it.
        channel: OwnedFd,
        /// Lines and columns.
        size: (u16, u16),
    },
}

/// An exec under way.
#[derive(Debug)]
pub struct Exec {
    /// The helper that enters the container; it ends as soon as the program has been forked.
    pub helper: i32,
    /// Readable when the helper or the program has something to say: [`ExecMessage`]s, one a line.
    pub message: OwnedFd,
    /// The program's standard output and error, if they are captured.
    pub output: Option<OwnedFd>,
}

/// What the helper and the forked program report before the program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecMessage {
    /// The program's pid in the host's namespace; it becomes a child of the shim.
    Pid(i32),
    /// It cannot be run.
    Failed(StartFailure),
}

/// Forks the helper.
///
/// # Errors
/// Those of pipe2(2) and fork(2).
pub fn spawn(order: &ExecOrder<'_>) -> io::Result<Exec> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (message, message_end) = rustix::pipe::pipe_with(flags)?;
    rustix::io::ioctl_fionbio(&message, true)?;
    let (output, output_end) = match order.io {
        ExecIo::Captured => {
            let (output, end) = rustix::pipe::pipe_with(flags)?;
            rustix::io::ioctl_fionbio(&output, true)?;
            (Some(output), Some(end))
        }
        _ => (None, None),
    };
    match fork()? {
        Fork::Parent(helper) => Ok(Exec { helper, message, output }),
        Fork::Child => {
            if let Err(failure) = enter(order, &message_end, output_end.as_ref()) {
                send(&message_end, &ExecMessage::Failed(failure.short()));
            }
            exit_now(0)
        }
    }
}

/// Reads what has been reported so far; empty when there is nothing more to come.
///
/// # Errors
/// The pipe cannot be read, or holds what is not ours.
pub fn read_messages(message: &OwnedFd) -> io::Result<Vec<ExecMessage>> {
    let mut buffer = [0; 8192];
    let n = match rustix::io::retry_on_intr(|| rustix::io::read(message, &mut buffer)) {
        Ok(n) => n,
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(e) => return Err(e.into()),
    };
    buffer[..n]
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}

fn send(pipe: &OwnedFd, message: &ExecMessage) {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    // Nobody reads: the shim is gone, and the control group tells what is left.
    let _ = rustix::io::write(pipe, &line);
}

fn step<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> StartFailure {
    move |e| StartFailure { message: format!("cannot {what}: {e}"), errno: None }
}

/// In the helper: into the control groups and namespaces, then fork again, because a PID namespace
/// is entered by one's children only.
fn enter(
    order: &ExecOrder<'_>,
    message: &OwnedFd,
    captured: Option<&OwnedFd>,
) -> Result<(), StartFailure> {
    let gone = || step("enter the container")("its process is gone");
    let init = order.init.pidfd().ok_or_else(gone)?;
    let mut kept = vec![init.as_raw_fd(), message.as_raw_fd()];
    kept.extend(captured.map(AsRawFd::as_raw_fd));
    match order.io {
        ExecIo::Captured => {}
        ExecIo::Given(streams) => kept.extend(streams.iter().map(AsRawFd::as_raw_fd)),
        ExecIo::Terminal { channel, .. } => kept.push(channel.as_raw_fd()),
    }
    executor::hide_memory()?;
    close_all_but(&kept).map_err(step("close inherited descriptors"))?;
    reset_signals().map_err(step("reset signals"))?;
    let text = fs::read(&order.process_file).map_err(step("read the container's process"))?;
    let mut process: FinalProcess =
        serde_json::from_slice(&text).map_err(step("read the container's process"))?;
    process.argv = order.args.to_vec();
    let is_terminal = matches!(order.io, ExecIo::Terminal { .. });
    if is_terminal && !process.env.iter().any(|v| v.starts_with("TERM=")) {
        process.env.push("TERM=xterm".into());
    }
    redirect(order.io, captured).map_err(step("redirect its streams"))?;
    fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string())
        .map_err(step("set its oom score"))?;
    order.home.enter().map_err(step("enter the container's control group"))?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(init, namespaces).map_err(step("enter the container"))?;
    match fork_of_fork().map_err(step("fork in the container"))? {
        Fork::Parent(pid) => {
            send(message, &ExecMessage::Pid(pid));
            Ok(())
        }
        Fork::Child => {
            let failure = match become_program(&process, order) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            send(message, &ExecMessage::Failed(failure.short()));
            exit_now(128)
        }
    }
}

/// No input is a pipe that has ended, not the host's `/dev/null`: whoever has a descriptor of that may
/// change the mode and owner of the host's node. A terminal is the container's and comes later.
fn redirect(io: &ExecIo, captured: Option<&OwnedFd>) -> io::Result<()> {
    let (ended, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let [stdin, stdout, stderr] = match io {
        ExecIo::Captured => {
            let output = captured.unwrap_or(&ended);
            [&ended, output, output]
        }
        ExecIo::Given([stdin, stdout, stderr]) => [stdin, stdout, stderr],
        ExecIo::Terminal { .. } => [&ended, &ended, &ended],
    };
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

/// In the container, as root still: makes a terminal of the container's own devpts, sends its other
/// side out, and makes it this session's. The container may have put anything in place of its
/// `/dev/ptmx`: no link is followed, and only a devpts will do.
fn open_terminal(channel: &OwnedFd, size: (u16, u16), process: &FinalProcess) -> io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat2};
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
    const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let outer = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), how)?;
    if u64::try_from(fstatfs(&outer)?.f_type) != Ok(DEVPTS_SUPER_MAGIC) {
        return Err(io::Error::other("the container's /dev/pts is not a devpts"));
    }
    unlockpt(&outer)?;
    let (rows, columns) = size;
    let window =
        rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&outer, window)?;
    let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    std::os::unix::fs::fchown(&inner, Some(process.uid), None)?;
    rustix::process::ioctl_tiocsctty(&inner)?;
    crate::descriptors::send(channel.as_fd(), b"t", &[outer.as_fd()])?;
    rustix::stdio::dup2_stdin(&inner)?;
    rustix::stdio::dup2_stdout(&inner)?;
    rustix::stdio::dup2_stderr(&inner)?;
    Ok(())
}

/// In the forked program: the container's limits and identity, then the same last steps as the
/// container's own process.
fn become_program(
    process: &FinalProcess,
    order: &ExecOrder<'_>,
) -> Result<std::convert::Infallible, StartFailure> {
    rustix::process::setsid().map_err(step("begin a session"))?;
    if let ExecIo::Terminal { channel, size } = order.io {
        open_terminal(channel, *size, process).map_err(step("open a terminal"))?;
    }
    for limit in &process.rlimits {
        let value =
            rustix::process::Rlimit { current: Some(limit.soft), maximum: Some(limit.hard) };
        rustix::process::setrlimit(resource(limit.kind)?, value)
            .map_err(step("set a resource limit"))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(process.umask));
    nix::unistd::chdir(process.cwd.as_str()).map_err(step("enter the working directory"))?;
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    }
    // Capabilities must survive the change of user until the filter is loaded and their final sets
    // are set; the kernel clears the effective ones all the same.
    rustix::thread::set_keep_capabilities(true).map_err(step("keep capabilities"))?;
    let groups: Vec<Gid> = process.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups).map_err(step("set its groups"))?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    nix::unistd::setresgid(gid, gid, gid).map_err(step("set its group"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(step("set its user"))?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(step("read capabilities"))?;
    caps::set(None, CapSet::Effective, &permitted).map_err(step("set capabilities"))?;
    executor::run(process, order.filter.as_deref())
}

/// Open files are the only limit that podshim sets.
fn resource(kind: PosixRlimitType) -> Result<rustix::process::Resource, StartFailure> {
    match kind {
        PosixRlimitType::RlimitNofile => Ok(rustix::process::Resource::Nofile),
        other => Err(StartFailure { message: format!("cannot limit {other:?}"), errno: None }),
    }
}
