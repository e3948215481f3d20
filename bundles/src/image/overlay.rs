//! Overlayfs' own forms for what the image-spec says with files: whiteouts, opaque directories; and
//! directories that a layer has no entry for.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::parents::MARK;

/// Makes a directory that the layer has no entry for (yet).
pub(super) fn make_parent(at: &OwnedFd, name: &[u8], found: Errno) -> rustix::io::Result<OwnedFd> {
    let mut hides = false;
    if let Ok(there) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        // Only a whiteout makes way. A file is not a directory, and a link that leads nowhere
        // in this layer is not ours to follow.
        if !is_whiteout(&there) {
            return Err(found);
        }
        rustix::fs::unlinkat(at, name, AtFlags::empty())?;
        hides = true;
    }
    rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(at, name, flags, Mode::empty())?;
    // Whatever the umask is, and whatever a set-group-id directory hands down.
    rustix::fs::fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT))?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    rustix::fs::fsetxattr(&made, MARK, b"y", XattrFlags::empty())?;
    if hides {
        set_opaque(&made)?;
    }
    Ok(made)
}

/// Hides the lower layers' `name`. What this layer itself has of that name stays (image-spec:
/// whiteouts apply to lower layers only).
pub(super) fn whiteout(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
        }
        Err(error) => Err(error),
        Ok(there) if is_directory(&there) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            set_opaque(&rustix::fs::openat(parent, name, flags, Mode::empty())?)
        }
        Ok(_) => Ok(()),
    }
}

/// Hides all that the lower layers have in a directory (kernel documentation, overlayfs).
pub(super) fn set_opaque(directory: &OwnedFd) -> rustix::io::Result<()> {
    let directory = reopen(directory.as_fd())?;
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// The same directory, with a descriptor that attributes can be set through (not O_PATH).
pub(super) fn reopen(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, ".", flags, Mode::empty())
}

/// Says that the layer has an entry for a directory.
pub(super) fn unmark(directory: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fremovexattr(directory, MARK) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
