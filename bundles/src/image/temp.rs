//! Temporary directories and locks of the store, and what becomes of them when their owner dies.
//!
//! Everything that is half done lies in a [`Temp`] below the store's `tmp`, on the same file
//! system as its final place. A lock (flock) on the directory itself says that its owner lives;
//! whoever gets the lock may remove it ([`clean`]). A [`Lock`] is a file in `tmp` under the same rule.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::tree;

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// A directory of our own that is removed with all that is in it when it is dropped, and by others
/// when we die.
#[derive(Debug)]
pub(crate) struct Temp {
    parent: OwnedFd,
    name: String,
    fd: OwnedFd,
    path: PathBuf,
}

impl Temp {
    /// A new directory below `tmp`.
    pub(crate) fn new(tmp: &Path) -> io::Result<Temp> {
        let parent = open_directory(tmp)?;
        loop {
            let name = format!("d{:016x}", random()?);
            match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            // A cleaner may come between any two of these lines; then we take another name.
            let fd = match rustix::fs::openat(&parent, &name, DIRECTORY, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if try_lock(&fd)? && is_at(&parent, &name, &fd)? {
                let path = tmp.join(&name);
                return Ok(Temp { parent, name, fd, path });
            }
        }
    }

    /// Its path, for what has no call that takes a descriptor.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Temp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // What cannot be removed now is tried again by the next process that opens the store.
        let _ = tree::remove_at(&self.parent, self.name.as_bytes());
    }
}

/// One process at a time holds the lock of a name.
#[derive(Debug)]
pub(crate) struct Lock {
    parent: OwnedFd,
    name: String,
    // Closing it gives the lock up.
    _file: OwnedFd,
}

impl Lock {
    /// Takes the lock `name`; `waiting` is called before it waits for another's.
    pub(crate) fn take(tmp: &Path, name: &str, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
        let parent = open_directory(tmp)?;
        let name = format!("l{name}");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let file = rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o600))?;
            if !try_lock(&file)? {
                waiting();
                rustix::io::retry_on_intr(|| {
                    rustix::fs::flock(&file, FlockOperation::LockExclusive)
                })?;
            }
            // Its last owner removes it, and then it locks nothing.
            if is_at(&parent, &name, &file)? {
                return Ok(Lock { parent, name, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If it stays, it is as good as new: the next one to come takes it.
        let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty());
    }
}

/// Removes what dead processes left in `tmp`.
pub(crate) fn clean(tmp: &Path) -> io::Result<()> {
    let parent = open_directory(tmp)?;
    for entry in Dir::read_from(&parent)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if try_lock(&fd)? && is_at(&parent, name, &fd)? {
            tree::remove_at(&parent, name)?;
        }
    }
    Ok(())
}

/// A directory, to be used by its descriptor.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, DIRECTORY, Mode::empty())?)
}

/// A directory in another.
pub(crate) fn open_directory_at(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?)
}

fn try_lock(fd: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether `name` is still the file that `fd` is.
fn is_at(parent: &OwnedFd, name: impl rustix::path::Arg, fd: &OwnedFd) -> io::Result<bool> {
    let ours = rustix::fs::fstat(fd)?;
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok(same_file(&ours, &there)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether two records are of one file.
pub(crate) fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// A number that nobody has yet.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_keeps_its_directory_and_a_dead_ones_goes() {
        let tmp = tempfile::tempdir().unwrap();
        let living = Temp::new(tmp.path()).unwrap();
        std::fs::write(living.path().join("file"), "x").unwrap();
        let dead = tmp.path().join("d0");
        std::fs::create_dir_all(dead.join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("/etc", dead.join("a/link")).unwrap();
        clean(tmp.path()).unwrap();
        assert!(living.path().join("file").exists());
        assert!(!dead.exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_lock_is_held_by_one_and_leaves_no_file() {
        let tmp = tempfile::tempdir().unwrap();
        let mut counter = 0_u32;
        let counter = std::sync::Mutex::new(&mut counter);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = Lock::take(tmp.path(), "x", &mut || {}).unwrap();
                        // Fails if two are here at once.
                        **counter.try_lock().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(**counter.lock().unwrap(), 200);
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
