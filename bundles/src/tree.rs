//! Removing what strangers have filled.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes a file, or a directory with all that is in it; see [`remove_at`].
///
/// # Errors
/// Those of [`remove_at`].
pub fn remove(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Err(Errno::INVAL.into()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty()) {
        Ok(parent) => remove_at(parent, name.as_bytes()),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes `name` and, if it is a directory, all that is in it, following no link.
///
/// An image or a container may nest directories deeper than there are descriptors or stack for, so
/// this does not descend: it moves each directory's directories up into the top one until nothing is
/// left. What is mounted there is left alone. Nothing there is no error.
///
/// # Errors
/// The file system's; `EXDEV` or `EBUSY` at a mount point.
pub fn remove_at(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open(parent, name)?;
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            is_empty = false;
            match rustix::fs::unlinkat(&top, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            let child = open(top.as_fd(), name)?;
            flatten(&child, &top, &mut moved)?;
            match rustix::fs::unlinkat(&top, name, AtFlags::REMOVEDIR) {
                // Some file systems skip entries while others are removed: the next round has them.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if is_empty {
            break;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the files of `from` and moves its directories into `to`.
fn flatten(from: &OwnedFd, to: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(from, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            *moved += 1;
            let fresh = format!("{moved}");
            match rustix::fs::renameat_with(from, name, to, &fresh, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// A directory in another, and not one that is mounted there.
fn open(parent: BorrowedFd<'_>, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(parent, name, flags, Mode::empty(), how)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let deep = tmp.path().join("deep");
        fs::create_dir(&deep).unwrap();
        let top = rustix::fs::open(tmp.path(), OFlags::PATH, Mode::empty()).unwrap();
        let mut at = open(top.as_fd(), "deep").unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "1", Mode::from_raw_mode(0o700)).unwrap();
            at = open(at.as_fd(), "1").unwrap();
        }
        remove(&deep).unwrap();
        assert!(!deep.exists());
        remove(&deep).unwrap();
    }

    #[test]
    fn no_link_is_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let (other, tree) = (tmp.path().join("other"), tmp.path().join("tree"));
        fs::create_dir_all(other.join("kept")).unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for at in ["link", "a/link", "a/b/link"] {
            std::os::unix::fs::symlink(&other, tree.join(at)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists() && other.join("kept").exists());
    }
}
