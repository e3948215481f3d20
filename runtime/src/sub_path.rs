//! Parts of volumes (`subPath`) as sources of mounts.
//!
//! Every container that has the volume can change what is in it at any moment, also into links to
//! the host's files. So a part is opened beneath the volume's root by openat2(2), which follows no
//! link out of it, and what was opened is bound by its descriptor: nothing is looked up twice.
//! (CVE-2017-1002101, CVE-2021-25741.)

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use bundles::mounts::SubPath;
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::state_dir::make_dir;

/// What can go wrong with a part of a volume.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// It cannot be opened or made within the volume.
    #[error(
        "cannot open subPath {path:?} of the volume{}",
        if *escapes { ": it leads out of it (a link in the volume?)" } else { "" }
    )]
    Open {
        /// The path below the volume.
        path: PathBuf,
        /// Whether a link would lead out.
        escapes: bool,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be bound.
    #[error("cannot bind a part of a volume on {}", at.display())]
    Bind {
        /// Where.
        at: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Binds a part of a volume where its container's mount has its source. The caller is in the pod's
/// mount namespace.
///
/// # Errors
/// [`SubPathError`].
pub fn bind(part: &SubPath) -> Result<(), SubPathError> {
    let opened = open(part)?;
    let failed = |source: io::Error| SubPathError::Bind { at: part.at.clone(), source };
    let found = fstat(&opened).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        make_dir(&part.at, 0o755).map_err(|e| failed(io::Error::other(e)))?;
    } else {
        if let Some(parent) = part.at.parent() {
            make_dir(parent, 0o755).map_err(|e| failed(io::Error::other(e)))?;
        }
        File::create(&part.at).map_err(failed)?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&opened, "", flags).map_err(|e| failed(e.into()))?;
    move_mount(&tree, "", CWD, &part.at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| failed(e.into()))
}

/// Sees to it that a part of a volume is there, for who mounts it by its path.
///
/// # Errors
/// [`SubPathError::Open`].
pub fn make_missing(part: &SubPath) -> Result<(), SubPathError> {
    open(part).map(drop)
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

fn beneath(dir: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, FLAGS, Mode::empty(), how)
}

fn open(part: &SubPath) -> Result<OwnedFd, SubPathError> {
    let failed = |e: Errno| SubPathError::Open {
        path: part.path.clone(),
        escapes: e == Errno::XDEV,
        source: e.into(),
    };
    let root = openat(CWD, &part.volume, FLAGS, Mode::empty()).map_err(failed)?;
    match beneath(&root, &part.path) {
        Err(Errno::NOENT) => make(&root, &part.path).map_err(failed),
        other => other.map_err(failed),
    }
}

/// Makes the directories that are missing, with the mode of the volume's root, as a kubelet does.
fn make(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let mut sofar = PathBuf::from(".");
    let mut dir = beneath(root, &sofar)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        sofar.push(name);
        let made = match mkdirat(&dir, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(e),
        };
        dir = beneath(root, &sofar)?;
        if made {
            // Whatever the umask. A container may have put something else there: only a directory
            // is touched, and through its descriptor.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fchmod(openat(&dir, ".", flags, Mode::empty())?, mode)?;
        }
    }
    Ok(dir)
}

/// Unbinds the parts of volumes of an incarnation. None is no error.
pub fn remove(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What cannot be unbound goes with the pod's mount namespace.
        while unmount(entry.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
    // Not into what is still bound.
    let _ = bundles::tree::remove(dir);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn part(volume: &Path, path: &str) -> SubPath {
        SubPath { volume: volume.into(), path: path.into(), at: PathBuf::new() }
    }

    #[test]
    fn what_is_missing_becomes_directories_with_the_volumes_mode() {
        let volume = tempfile::tempdir().expect("directory");
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2777)).expect("mode");
        open(&part(volume.path(), "a/b")).expect("made");
        for made in ["a", "a/b"] {
            let mode = fs::metadata(volume.path().join(made)).expect(made).mode();
            assert_eq!(mode & 0o7777, 0o2777, "{made}");
        }
        fs::write(volume.path().join("file"), "x").expect("file");
        open(&part(volume.path(), "file")).expect("a file");
        assert!(matches!(open(&part(volume.path(), "file/x")), Err(SubPathError::Open { .. })));
    }

    #[test]
    fn a_link_is_followed_within_the_volume_and_never_out_of_it() {
        let outside = tempfile::tempdir().expect("directory");
        let volume = tempfile::tempdir().expect("directory");
        fs::create_dir(volume.path().join("real")).expect("directory");
        symlink("real", volume.path().join("inside")).expect("link");
        symlink(outside.path(), volume.path().join("absolute")).expect("link");
        symlink("../../../../../etc", volume.path().join("up")).expect("link");
        symlink("up", volume.path().join("twice")).expect("link");
        open(&part(volume.path(), "inside/new")).expect("made");
        assert!(volume.path().join("real/new").is_dir());
        for path in ["absolute", "absolute/new", "up", "up/new", "twice", "inside/../../x"] {
            let refused = open(&part(volume.path(), path));
            assert!(matches!(refused, Err(SubPathError::Open { escapes: true, .. })), "{path}");
        }
        assert_eq!(fs::read_dir(outside.path()).expect("directory").count(), 0);
    }
}
