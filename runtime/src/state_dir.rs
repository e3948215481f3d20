//! The state directory: a private tmpfs in the host's mount namespace, there while pods of this
//! root live.
//!
//! It is mounted when the first pod of a root comes and unmounted when the last has gone, so the
//! host's mount table has one line a root in use and none at rest. It must be private: a pod's pin
//! cannot be bound on a shared mount (it would propagate into the pod that it pins). Mounting,
//! unmounting and the question whether this is the last pod happen under flock on `<root>/lock`,
//! which lies on disk.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bundles::layout::Layout;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct StateDirError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> StateDirError {
    move |e| StateDirError { verb, path: path.into(), source: e.into() }
}

/// `<root>/lock`, held. Dropping it lets go.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

/// Waits for the root's lock. It is held for milliseconds, by whoever makes or ends a pod.
///
/// # Errors
/// The root cannot be made, or its lock cannot be opened.
pub fn lock(layout: &Layout) -> Result<RootLock, StateDirError> {
    make_dir(&layout.root, 0o700)?;
    let path = layout.lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(failed("lock", &path))?;
    Ok(RootLock { _file: file })
}

/// Mounts the state directory unless it is mounted, and makes its first level.
///
/// # Errors
/// A directory or the mount cannot be made.
pub fn enter(layout: &Layout, _held: &RootLock) -> Result<(), StateDirError> {
    make_dir(&layout.state, 0o700)?;
    if !is_mounted(&layout.state)? {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("podshim", &layout.state, "tmpfs", flags, c"mode=700").map_err(|e| {
            // Empty, it is of no use to anybody.
            let _ = fs::remove_dir(&layout.state);
            failed("mount a tmpfs on", &layout.state)(e)
        })?;
    }
    mount_change(&layout.state, MountPropagationFlags::PRIVATE)
        .map_err(failed("make private", &layout.state))?;
    for dir in [layout.pods(), layout.pins(), layout.names(), layout.objects()] {
        make_dir(&dir, 0o700)?;
    }
    Ok(())
}

/// How long the last one waits for those who only look: a `podshim get`, or the end of processes that had
/// the pod's copy of this mount.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Unmounts the state directory if no pod is in it any more. Says whether it did. Where somebody stays in
/// it, it is left to the next pod or to `prune`, after two seconds.
///
/// # Errors
/// The table of mounts cannot be read, or the unmount fails for another reason than use.
pub fn leave_if_last(layout: &Layout, _held: &RootLock) -> Result<bool, StateDirError> {
    let users = [layout.pods(), layout.pins(), layout.objects()];
    if !is_mounted(&layout.state)? {
        // Somebody was killed between making it and mounting it. What is not empty is not ours, and stays.
        let _ = fs::remove_dir(&layout.state);
        return Ok(false);
    }
    if !users.iter().all(|dir| is_empty(dir)) {
        return Ok(false);
    }
    let began = Instant::now();
    loop {
        match unmount(&layout.state, UnmountFlags::NOFOLLOW) {
            Ok(()) => {
                // Ours only if we made it; a directory with something else in it stays.
                let _ = fs::remove_dir(&layout.state);
                return Ok(true);
            }
            Err(rustix::io::Errno::BUSY) if began.elapsed() < BUSY_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::BUSY) => return Ok(false),
            Err(e) => return Err(failed("unmount", &layout.state)(e)),
        }
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// Whether a mount point stands at exactly this path (or where its links lead).
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
pub fn is_mounted(path: &Path) -> Result<bool, StateDirError> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(failed("read", table))?;
    Ok(text.lines().filter_map(mount_point).any(|at| at == real))
}

/// The fifth field of a mountinfo line, with its octal escapes undone (proc_pid_mountinfo(5)).
#[must_use]
pub fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// `mkdir -p` with the mode for what is new.
///
/// # Errors
/// That of mkdir(2).
pub fn make_dir(path: &Path, mode: u32) -> Result<(), StateDirError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_a_mount_point_are_undone() {
        let line = r"36 35 98:0 / /run/a\040b\134c rw - tmpfs x rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/run/a b\c")));
    }

    #[test]
    fn the_root_of_the_file_system_is_mounted_and_a_file_is_not() {
        assert!(is_mounted(Path::new("/proc")).expect("mounts"));
        assert!(!is_mounted(Path::new("/proc/self/status")).expect("mounts"));
    }
}
