//! Opening log files so that whoever can write near them does not choose what is opened.
//!
//! A pod whose hostPath volume reaches the log directory could plant a symbolic link, a FIFO or
//! somebody else's file there, and root's log reader would follow (the class of CVE-2021-25743's
//! neighbours and CVE-2026-53489). So below the log directory no link is followed, and only regular
//! files of root's or of ours are read or written. The log directory itself is the administrator's
//! and may be a link.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, mkdirat, openat,
    openat2, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Why a log file or its directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A directory could not be made.
    #[error("cannot make the log directory {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Why; `ELOOP` if a symbolic link is where none should be.
        source: Errno,
    },
    /// A file or directory could not be looked at.
    #[error("cannot examine {}", path.display())]
    Examine {
        /// What.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Something that podshim did not make is where a log file should be.
    #[error("{} is {what}, not a log file of podshim; remove it", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The path is not that of a container's log directory.
    #[error("{} does not end in <pod>/<container>", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
}

impl FileError {
    /// Whether the file or directory is not there (yet).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, FileError::Open { source: Errno::NOENT, .. })
    }
}

/// Which file this is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub ino: u64,
    /// When it was made, in nanoseconds: inode numbers are used again at once. 0 where the file
    /// system does not tell.
    pub btime: u64,
    pub size: u64,
    /// Whether it still has a name.
    pub linked: bool,
}

const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a container's log directory, `<log directory>/<pod>/<container>`.
pub(super) fn directory(path: &Path) -> Result<OwnedFd, FileError> {
    let (root, pod, container) = split(path)?;
    let open = |source| FileError::Open { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).map_err(open)?;
    openat2(root, Path::new(pod).join(container), flags, Mode::empty(), BELOW).map_err(open)
}

/// Makes what is missing of a container's log directory (0755) and opens it.
pub(super) fn make_directory(path: &Path) -> Result<OwnedFd, FileError> {
    let (root, pod, container) = split(path)?;
    let failed = |source| FileError::Create { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, root, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    for name in [pod, container] {
        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        at = openat2(&at, name, flags, Mode::empty(), BELOW).map_err(|e| failed(e.into()))?;
    }
    Ok(at)
}

fn split(path: &Path) -> Result<(&Path, &OsStr, &OsStr), FileError> {
    let parts = || {
        let pod = path.parent()?;
        let root = pod.parent()?;
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        Some((root, pod.file_name()?, path.file_name()?))
    };
    parts().ok_or_else(|| FileError::Path { path: path.to_owned() })
}

/// How a log file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// To append, made (0640) if it is not there.
    Make,
    /// To append, if it is there.
    Append,
    /// To read, if it is there.
    Read,
}

/// Opens the log file `name` of a directory; `path` is its name in messages.
pub(super) fn open(
    directory: impl AsFd,
    name: &OsStr,
    path: &Path,
    how: How,
) -> Result<OwnedFd, FileError> {
    let flags = match how {
        How::Make => OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE,
        How::Append => OFlags::WRONLY | OFlags::APPEND,
        How::Read => OFlags::RDONLY,
    };
    // NONBLOCK: a FIFO planted here must not hold us up; it means nothing for regular files.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = if how == How::Make { Mode::from_raw_mode(0o640) } else { Mode::empty() };
    let file = openat2(directory, name, flags, mode, BELOW)
        .map_err(|source| FileError::Open { path: path.to_owned(), source })?;
    let stat =
        fstat(&file).map_err(|source| FileError::Examine { path: path.to_owned(), source })?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let foreign = |what| FileError::Foreign { path: path.to_owned(), what };
    if kind != FileType::RegularFile {
        return Err(foreign(format!("a {kind:?}")));
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return Err(foreign(format!("a file of user {}", stat.st_uid)));
    }
    Ok(file)
}

/// Tells which file is open.
pub(super) fn identify(file: impl AsFd, path: &Path) -> Result<Identity, FileError> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = statx(file, "", AtFlags::EMPTY_PATH, wanted)
        .map_err(|source| FileError::Examine { path: path.to_owned(), source })?;
    let born = found.stx_btime;
    let seconds = u64::try_from(born.tv_sec).unwrap_or(0);
    Ok(Identity {
        ino: found.stx_ino,
        btime: seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::from(born.tv_nsec)),
        size: found.stx_size,
        linked: found.stx_nlink > 0,
    })
}

/// The file with this inode number and birth time, under whatever name it has in the directory now.
pub(super) fn find(
    directory: impl AsFd,
    path: &Path,
    ino: u64,
    btime: u64,
) -> Result<Option<(OwnedFd, Identity)>, FileError> {
    let failed = |source| FileError::Examine { path: path.to_owned(), source };
    for entry in Dir::read_from(directory.as_fd()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.ino() != ino {
            continue;
        }
        let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
        let path = path.join(Path::new::<OsStr>(name));
        let file = match open(&directory, name, &path, How::Append) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let found = identify(&file, &path)?;
        if (found.ino, found.btime) == (ino, btime) {
            return Ok(Some((file, found)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn open_in(directory: &Path, how: How) -> Result<OwnedFd, FileError> {
        let path = directory.join("0.log");
        open(make_directory(directory)?, OsStr::new("0.log"), &path, how)
    }

    #[test]
    fn directories_and_files_are_made_with_kubernetes_modes() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pods/ns_pod_uid/main");
        open_in(&directory, How::Make).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&directory), 0o755);
        assert_eq!(mode(&directory.join("0.log")), 0o640);
    }

    #[test]
    fn what_was_planted_is_neither_read_nor_written() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pod/main");
        std::fs::create_dir_all(&directory).unwrap();
        let (secret, log) = (root.path().join("secret"), directory.join("0.log"));
        std::fs::write(&secret, "secret").unwrap();

        symlink(&secret, &log).unwrap();
        for how in [How::Make, How::Append, How::Read] {
            assert!(matches!(
                open_in(&directory, how),
                Err(FileError::Open { source: Errno::LOOP, .. })
            ));
        }
        std::fs::remove_file(&log).unwrap();
        rustix::fs::mkfifoat(CWD, &log, Mode::RWXU).unwrap();
        assert!(matches!(open_in(&directory, How::Read), Err(FileError::Foreign { .. })));
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, "mine").unwrap();
        chown(&log, Some(1000), None).unwrap();
        assert!(matches!(open_in(&directory, How::Make), Err(FileError::Foreign { .. })));
    }

    #[test]
    fn a_link_in_place_of_the_pods_directory_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("elsewhere/main")).unwrap();
        symlink("elsewhere", root.path().join("pod")).unwrap();
        assert!(directory(&root.path().join("pod/main")).is_err());
        assert!(make_directory(&root.path().join("pod/main")).is_err());
        symlink(root.path(), root.path().join("root")).unwrap();
        assert!(
            directory(&root.path().join("root/elsewhere/main")).is_ok(),
            "the log directory itself may be a link: it is the administrator's"
        );
    }
}
