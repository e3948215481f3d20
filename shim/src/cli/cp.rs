//! `podshim cp`: files into a container and out of it, through `tar` in the container, as kubectl
//! does it.

mod destination;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::terminal::{complain, printable, tell};
use super::{Connection, CpArgs, default_container, find_pod};
use crate::protocol::{Reply, Request};
use destination::Destination;

/// What is shown as one line of what `tar` says, in bytes.
const MAX_LINE: usize = 4096;

/// Copies; the exit code is 0, or `tar`'s.
pub fn cp(layout: &Layout, args: &CpArgs) -> anyhow::Result<i32> {
    match (remote(&args.from), remote(&args.to)) {
        (Some((pod, path)), None) => out(layout, args, pod, path, Path::new(&args.to)),
        (None, Some((pod, path))) => into(layout, args, Path::new(&args.from), pod, path),
        (Some(_), Some(_)) => bail!("one of the two must be a path of this host"),
        (None, None) => bail!("one of the two must be POD:PATH"),
    }
}

/// A local path with a colon is written `./a:b`, as for kubectl and scp.
fn remote(text: &str) -> Option<(&str, &str)> {
    let (pod, path) = text.split_once(':')?;
    (!pod.is_empty() && !pod.contains('/') && !pod.starts_with('.')).then_some((pod, path))
}

/// `tar` in the container with these streams; what it complains of is shown.
struct Tar {
    connection: Connection,
    /// Closed when it has ended.
    running: OwnedFd,
    errors: JoinHandle<rustix::io::Result<()>>,
}

impl Tar {
    fn start(
        layout: &Layout,
        args: &CpArgs,
        pod: &str,
        command: &[&str],
        stdin: impl AsFd,
        stdout: impl AsFd,
    ) -> anyhow::Result<Tar> {
        let pod_ref = find_pod(layout, &args.namespace, pod)?;
        let mut connection = Connection::open(layout, &pod_ref)?;
        let object = connection.object()?;
        let container = default_container(pod, args.container.as_deref(), &object)?;
        let mut connection = connection.patient()?;
        let command = command.iter().map(ToString::to_string).collect();
        let (from_err, err) = pipe()?;
        let request = Request::Exec { container, command, terminal: None };
        connection.send_with(&request, &[stdin.as_fd(), stdout.as_fd(), err.as_fd()])?;
        let (over, running) = pipe()?;
        let errors = std::thread::spawn(move || show_errors(&from_err, &over));
        Ok(Tar { connection, running, errors })
    }

    fn end(mut self) -> anyhow::Result<i32> {
        let reply = self.connection.receive()?;
        drop(self.running);
        // That the errors cannot be shown is not worth another one.
        let _ = self.errors.join();
        match reply {
            Some(Reply::Exited { code, failure }) => {
                if let Some(why) = failure {
                    complain(&format!("{why} (cp takes a `tar` in the container)"));
                }
                Ok(code)
            }
            Some(Reply::Error(text)) => bail!(text),
            Some(other) => bail!("unexpected answer: {other:?}"),
            None => bail!("the pod ended before the files were copied"),
        }
    }
}

/// A container gets no descriptor of the user's nor of a node of the host, `/dev/null` included: it
/// may change what it belongs to.
fn pipe() -> anyhow::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")
}

/// Shows what `tar` complains of, line by line, until it has ended and all that it wrote is here. What
/// it may have left running is not waited for: `over` is closed.
fn show_errors(from: &OwnedFd, over: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::ioctl_fionbio(from, true)?;
    let show = |line: &[u8]| tell(&format!("{}\n", printable(&String::from_utf8_lossy(line))));
    let (mut pending, mut buffer, mut is_over) = (Vec::new(), [0; MAX_LINE], false);
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => break,
            Ok(n) => pending.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if is_over => break,
            Err(Errno::AGAIN) => {
                let wanted = |fd| PollFd::new(fd, PollFlags::IN);
                let mut fds = [wanted(from), wanted(over)];
                rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
                is_over = !fds[1].revents().is_empty();
            }
            Err(e) => return Err(e),
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            show(&pending[..end]);
            pending.drain(..=end);
        }
        if pending.len() >= MAX_LINE {
            show(&pending);
            pending.clear();
        }
    }
    if !pending.is_empty() {
        show(&pending);
    }
    Ok(())
}

/// The parent and the last part of a path in a container.
fn parts(path: &str) -> anyhow::Result<(String, String)> {
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
    if matches!(name, "" | "." | "..") {
        bail!("{path:?} does not name a file or directory");
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((parent.to_owned(), name.to_owned()))
}

fn out(layout: &Layout, args: &CpArgs, pod: &str, path: &str, to: &Path) -> anyhow::Result<i32> {
    let (parent, name) = parts(path)?;
    // Before anything runs in the container, which may be able to write there.
    let destination = Destination::open(to, &name)?;
    let ((no_input, _), (from, stdout)) = (pipe()?, pipe()?);
    let command = ["tar", "cf", "-", "-C", &parent, "--", &name];
    let tar = Tar::start(layout, args, pod, &command, &no_input, &stdout)?;
    drop(stdout);
    let unpacked = destination.unpack(File::from(from), &name);
    let code = tar.end()?;
    unpacked?;
    Ok(code)
}

fn into(layout: &Layout, args: &CpArgs, from: &Path, pod: &str, path: &str) -> anyhow::Result<i32> {
    let metadata =
        std::fs::metadata(from).with_context(|| format!("cannot copy {}", from.display()))?;
    let own_name = from.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends with a slash is a directory, as for kubectl.
    let (parent, name) = match own_name.filter(|_| path.ends_with('/')) {
        Some(name) => (path.trim_end_matches('/').to_owned() + "/", name),
        None => parts(path)?,
    };
    let ((stdin, to), (_, stdout)) = (pipe()?, pipe()?);
    // Owners are the container's user, as with kubectl.
    let command = ["tar", "xmf", "-", "-C", &parent];
    let tar = Tar::start(layout, args, pod, &command, &stdin, &stdout)?;
    drop((stdin, stdout));
    let packed = pack(File::from(to), from, &name, &metadata);
    let code = tar.end()?;
    // If tar ended early its exit code says more than our broken pipe.
    if code == 0 {
        packed?;
    }
    Ok(code)
}

fn pack(to: File, from: &Path, name: &str, metadata: &std::fs::Metadata) -> anyhow::Result<()> {
    let mut builder = tar::Builder::new(to);
    builder.follow_symlinks(false);
    let packed = if metadata.is_dir() {
        builder.append_dir_all(name, from)
    } else {
        File::open(from).and_then(|mut file| builder.append_file(name, &mut file))
    };
    packed
        .and_then(|()| builder.finish())
        .with_context(|| format!("cannot copy {}", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_stands_before_a_colon_and_a_path_may_have_one() {
        assert_eq!(remote("pod:/a"), Some(("pod", "/a")));
        assert_eq!(remote("pod:a:b"), Some(("pod", "a:b")));
        for local in ["/a", "a", "./a:b", "/x/a:b", ":a"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }
}
