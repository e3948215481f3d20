//! `podshim cp`: files into a container and out of it, through `tar` in the container, as kubectl
//! does it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use bundles::layout::Layout;
use rustix::pipe::{PipeFlags, pipe_with};

use super::terminal::complain;
use super::{Connection, CpArgs, default_container, find_pod};
use crate::protocol::{Reply, Request};

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

/// Runs `tar` in the container with these streams; standard errors are ours.
struct Tar {
    connection: Connection,
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
        let (from_err, err) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        let request = Request::Exec { container, command, terminal: None };
        connection.send_with(&request, &[stdin.as_fd(), stdout.as_fd(), err.as_fd()])?;
        // Not our own standard error: a container gets no descriptor of the user's.
        std::thread::spawn(move || io::copy(&mut File::from(from_err), &mut io::stderr()));
        Ok(Tar { connection })
    }

    fn end(mut self) -> anyhow::Result<i32> {
        match self.connection.receive()? {
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

fn null() -> anyhow::Result<File> {
    File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")
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
    let (from, stdout) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let command = ["tar", "cf", "-", "-C", &parent, "--", &name];
    let tar = Tar::start(layout, args, pod, &command, null()?, &stdout)?;
    drop(stdout);
    let unpacked = unpack(&mut File::from(from), &name, &destination(to, &name));
    let code = tar.end()?;
    unpacked?;
    Ok(code)
}

/// As with cp(1): into a directory that is there, else under the new name.
fn destination(to: &Path, name: &str) -> PathBuf {
    if to.is_dir() { to.join(name) } else { to.to_owned() }
}

/// Unpacks what a container sent, which is to be trusted no more than an image: nothing is written
/// outside of `to`, no link, device or owner is taken over.
fn unpack(from: &mut impl Read, name: &str, to: &Path) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(from);
    let mut skipped = 0_usize;
    let entries = archive.entries().context("cannot read what tar sent")?;
    for entry in entries {
        let mut entry = entry.context("cannot read what tar sent")?;
        let path = entry.path().context("cannot read what tar sent")?.into_owned();
        let Some(below) = below(&path, name) else {
            bail!("tar sent {}, which is not below what was asked for", path.display());
        };
        // Joining nothing would add a slash.
        let target = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        match entry.header().entry_type() {
            tar::EntryType::Directory => std::fs::create_dir_all(&target)
                .with_context(|| format!("cannot make {}", target.display()))?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                write(&mut entry, &target)
                    .with_context(|| format!("cannot write {}", target.display()))?;
            }
            _ => skipped += 1,
        }
    }
    if skipped > 0 {
        complain(&format!("{skipped} links and special files were not copied"));
    }
    Ok(())
}

/// No link is ever made below the destination, so a path of plain names leads nowhere else.
fn write(entry: &mut tar::Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = File::options();
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    options.write(true).create(true).truncate(true).mode(mode).custom_flags(flags);
    io::copy(entry, &mut options.open(target)?)?;
    Ok(())
}

/// The path below `name`, if it is plain and there.
fn below(path: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    if parts.next()? != Component::Normal(OsStr::new(name)) {
        return None;
    }
    parts.try_fold(PathBuf::new(), |below, part| match part {
        Component::Normal(part) => Some(below.join(part)),
        _ => None,
    })
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
    let (stdin, to) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    // Owners are the container's user, as with kubectl.
    let command = ["tar", "xmf", "-", "-C", &parent];
    let tar = Tar::start(layout, args, pod, &command, &stdin, null()?)?;
    drop(stdin);
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

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Set as they are: the builder would refuse what a hostile container may send.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            if *kind == tar::EntryType::Symlink {
                header.set_link_name("/etc").expect("link");
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("entry");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn what_a_container_sends_stays_below_its_destination() {
        use std::os::unix::fs::PermissionsExt;
        use tar::EntryType::{Directory, Regular, Symlink};
        let dir = tempfile::tempdir().expect("directory");
        let to = dir.path().join("to");
        let good = archive(&[
            ("d/", Directory, ""),
            ("d/link", Symlink, ""),
            ("d/sub/file", Regular, "text"),
        ]);
        unpack(&mut good.as_slice(), "d", &to).expect("unpacked");
        assert_eq!(std::fs::read_to_string(to.join("sub/file")).expect("file"), "text");
        let mode = std::fs::metadata(to.join("sub/file")).expect("file").permissions().mode();
        assert_eq!(mode & 0o7000, 0, "no setuid");
        assert!(std::fs::symlink_metadata(to.join("link")).is_err());
        for path in ["e/x", "/d/x", "d/../../x", "../x"] {
            let bad = archive(&[(path, Regular, "evil")]);
            assert!(unpack(&mut bad.as_slice(), "d", &to).is_err(), "{path}");
        }
        // A link that was there before is not written through.
        std::os::unix::fs::symlink(dir.path().join("victim"), to.join("old")).expect("link");
        let through = archive(&[("d/old", Regular, "evil")]);
        assert!(unpack(&mut through.as_slice(), "d", &to).is_err());
        assert!(!dir.path().join("victim").exists());
    }
}
