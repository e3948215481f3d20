//! `podshim exec`: one more program in a running container.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::relay::{Input, Output, until_over, window_size};
use super::terminal::complain;
use super::{Connection, ExecArgs, default_container, find_pod};
use crate::protocol::{Reply, Request};

/// The size of a terminal that cannot say its own.
const PLAIN_SIZE: (u16, u16) = (24, 80);

/// Runs it to its end; its exit code is ours.
pub fn exec(layout: &Layout, args: &ExecArgs) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let mut connection = Connection::open(layout, &pod)?;
    let object = connection.object()?;
    let container = default_container(&args.pod, args.container.as_deref(), &object)?;
    let connection = connection.patient()?;
    let command = args.command.clone();
    if args.tty {
        in_terminal(connection, container, command, args.stdin)
    } else {
        with_pipes(connection, container, command, args.stdin)
    }
}

fn with_pipes(
    mut connection: Connection,
    container: String,
    command: Vec<String>,
    with_input: bool,
) -> anyhow::Result<i32> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
    let ((input, to), (from_out, out), (from_err, err)) = (pipe()?, pipe()?, pipe()?);
    let request = Request::Exec { container, command, terminal: None };
    connection.send_with(&request, &[input.as_fd(), out.as_fd(), err.as_fd()])?;
    drop((input, out, err));
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let mut input = Input::new(to, false, with_input)?;
    let mut outputs = [
        Output { from: from_out, to: stdout.as_fd(), open: true },
        Output { from: from_err, to: stderr.as_fd(), open: true },
    ];
    result(until_over(&mut connection, &mut input, &mut outputs, None)?)
}

fn in_terminal(
    mut connection: Connection,
    container: String,
    command: Vec<String>,
    with_input: bool,
) -> anyhow::Result<i32> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a channel for the terminal")?;
    let terminal = Some(window_size().unwrap_or(PLAIN_SIZE));
    connection.send_with(&Request::Exec { container, command, terminal }, &[theirs.as_fd()])?;
    drop(theirs);
    // Either the terminal comes, or the channel is closed and an answer says why.
    let mut byte = [0; 1];
    let (_, fds) = runtime::descriptors::receive(ours.as_fd(), &mut byte)
        .context("cannot take the terminal over")?;
    let Some(terminal) = fds.into_iter().next() else { return result(connection.receive()?) };
    let changes = window_changes().context("cannot watch the window's size")?;
    let stdout = io::stdout();
    let mut input = Input::new(copy(&terminal)?, true, with_input)?;
    let mut outputs = [Output { from: copy(&terminal)?, to: stdout.as_fd(), open: true }];
    let raw = Raw::begin().context("cannot set the terminal up")?;
    let window = Some((&changes, terminal.as_fd()));
    let reply = until_over(&mut connection, &mut input, &mut outputs, window);
    drop(raw);
    result(reply?)
}

fn copy(terminal: &OwnedFd) -> anyhow::Result<OwnedFd> {
    terminal.try_clone().context("cannot copy a descriptor")
}

fn window_changes() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGWINCH);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn result(reply: Option<Reply>) -> anyhow::Result<i32> {
    match reply {
        Some(Reply::Exited { code, failure }) => {
            if let Some(why) = failure {
                complain(&why);
            }
            Ok(code)
        }
        Some(Reply::Error(text)) => bail!(text),
        Some(other) => bail!("unexpected answer: {other:?}"),
        None => bail!("the pod ended before the program did"),
    }
}

/// The user's terminal while a program's is shown in it; as it was when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> io::Result<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // If the terminal is gone there is nothing to restore.
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
