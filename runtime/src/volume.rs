//! The pod's volumes and shared files, made in its own mount namespace.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bundles::layout::PodDir;
use bundles::volume::{EMPTY_DIR, EmptyDir, HostPath, HostPathKind, Medium};
use rustix::mount::{MountFlags, mount};

use crate::state_dir::make_dir;

/// What can go wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A directory or file cannot be made.
    #[error("cannot make {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path of the host is not what the volume says.
    #[error("MountVolume.SetUp failed for volume {name:?} : hostPath type check failed: {} {problem}", path.display())]
    HostPath {
        /// The volume.
        name: String,
        /// The path.
        path: PathBuf,
        /// What is the matter with it.
        problem: String,
    },
    /// A tmpfs cannot be mounted.
    #[error("cannot mount a tmpfs for volume {name:?} on {}", target.display())]
    Tmpfs {
        /// The volume.
        name: String,
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn making<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> VolumeError {
    let path = path.into();
    move |e| VolumeError::Make { path, source: e.into() }
}

/// The default size of a pod's `/dev/shm`, which its containers share.
const SHM_SIZE: &std::ffi::CStr = c"mode=1777,size=65536k";

/// Makes `/dev/shm` of the pod.
///
/// # Errors
/// [`VolumeError`].
pub fn make_shm(dir: &PodDir) -> Result<(), VolumeError> {
    let target = dir.shm();
    make_dir(&target, 0o755).map_err(|e| making(&target)(io::Error::other(e)))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", &target, "tmpfs", flags, SHM_SIZE).map_err(|e| VolumeError::Tmpfs {
        name: "/dev/shm".into(),
        target,
        source: e.into(),
    })
}

/// Makes a directory in place of `/dev/shm` of the pod, for those who mount nothing.
///
/// # Errors
/// [`VolumeError::Make`].
pub fn make_shm_directory(dir: &PodDir) -> Result<(), VolumeError> {
    let target = dir.shm();
    make_dir(&target, 0o755).map_err(|e| making(&target)(io::Error::other(e)))?;
    fs::set_permissions(&target, Permissions::from_mode(0o1777)).map_err(making(&target))
}

/// Makes one emptyDir: mode 0777 whatever the umask; `medium: Memory` is a tmpfs in the pod's mount
/// namespace, limited to `sizeLimit` or the pod's memory limit, and not swapped where the kernel can
/// promise that (Linux ≥ 6.4).
///
/// # Errors
/// [`VolumeError`].
pub fn make_empty_dir(dir: &PodDir, volume: &EmptyDir) -> Result<(), VolumeError> {
    let target = dir.volume(EMPTY_DIR, &volume.name);
    make_dir(&target, 0o755).map_err(|e| making(&target)(io::Error::other(e)))?;
    if let Medium::Memory { size } = volume.medium {
        mount_memory(&target, &volume.name, size)?;
    }
    std::os::unix::fs::lchown(&target, None, volume.gid).map_err(making(&target))?;
    fs::set_permissions(&target, Permissions::from_mode(volume.mode)).map_err(making(&target))
}

/// Sees to it that a path of the host is what a hostPath volume says, and makes it where the type
/// says so.
///
/// # Errors
/// [`VolumeError::HostPath`], which may pass: somebody else may make the path.
pub fn check_host_path(volume: &HostPath) -> Result<(), VolumeError> {
    use HostPathKind as Kind;
    use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
    let path = &volume.path;
    let problem = |problem: String| VolumeError::HostPath {
        name: volume.name.clone(),
        path: path.clone(),
        problem,
    };
    let cannot_make = |e: io::Error| problem(format!("cannot be made: {e}"));
    if volume.kind == Kind::Unchecked {
        return Ok(());
    }
    let found = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            match volume.kind {
                Kind::DirectoryOrCreate => {
                    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
                }
                Kind::FileOrCreate => {
                    let mut options = fs::OpenOptions::new();
                    options.write(true).create(true).truncate(false).mode(0o644);
                    options.open(path).map(drop)
                }
                _ => return Err(problem("does not exist".into())),
            }
            .map_err(cannot_make)?;
            return Ok(());
        }
        Err(e) => return Err(problem(format!("cannot be looked at: {e}"))),
    };
    let (right, what) = match volume.kind {
        Kind::Unchecked => (true, ""),
        Kind::DirectoryOrCreate | Kind::Directory => (found.is_dir(), "directory"),
        Kind::FileOrCreate | Kind::File => (found.is_file(), "file"),
        Kind::Socket => (found.is_socket(), "socket"),
        Kind::CharDevice => (found.is_char_device(), "character device"),
        Kind::BlockDevice => (found.is_block_device(), "block device"),
    };
    if right { Ok(()) } else { Err(problem(format!("is not a {what}"))) }
}

/// Makes a directory of an unchecked hostPath that is not there when a container that mounts it is
/// created, as container runtimes do.
///
/// # Errors
/// [`VolumeError::HostPath`].
pub fn make_missing_host_path(volume: &HostPath) -> Result<(), VolumeError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = &volume.path;
    if volume.kind != HostPathKind::Unchecked || path.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| {
        VolumeError::HostPath {
            name: volume.name.clone(),
            path: path.clone(),
            problem: format!("cannot be made: {e}"),
        }
    })
}

fn mount_memory(target: &Path, name: &str, size: u64) -> Result<(), VolumeError> {
    let try_mount = |extra: &str| -> io::Result<()> {
        let options = std::ffi::CString::new(format!("mode=777,size={size}{extra}"))?;
        mount("tmpfs", target, "tmpfs", MountFlags::NODEV, Some(options.as_c_str()))?;
        Ok(())
    };
    try_mount(",noswap").or_else(|_| try_mount("")).map_err(|source| VolumeError::Tmpfs {
        name: name.to_owned(),
        target: target.into(),
        source,
    })
}

/// Writes a file that all containers of the pod share (`hosts`, `hostname`, `resolv.conf`).
///
/// # Errors
/// [`VolumeError::Make`].
pub fn write_shared_file(dir: &PodDir, name: &str, text: &str) -> Result<(), VolumeError> {
    let path = dir.shared_file(name);
    fs::write(&path, text).map_err(making(&path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(making(&path))
}
