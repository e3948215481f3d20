//! A container's root filesystem: an overlay over the image's unpacked layers, and what is done in
//! it before libcontainer comes.
//!
//! The image is hostile data. No path of it is followed by name: directories are opened beneath the
//! root filesystem with openat2(2), and what must be a real directory (`/dev`, `/proc`, `/sys`) is
//! refused if it is a link.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::state_dir::make_dir;

/// What can go wrong with a root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A directory for it cannot be made or entered.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The overlay cannot be mounted.
    #[error(
        "cannot mount an overlay of {layers} layers on {}; is the root directory on a file system \
         that can carry one (ext4, xfs, btrfs)?", target.display()
    )]
    Overlay {
        /// How many layers the image has.
        layers: usize,
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The image has more layers than fit into the options of one mount.
    #[error(
        "the names of the image's {layers} layers do not fit into the {OPTIONS_MAX_BYTES} bytes of \
         options that the kernel takes; build the image with fewer layers (`--squash`)"
    )]
    TooManyLayers {
        /// How many.
        layers: usize,
    },
    /// A path of the image is not what it must be.
    #[error("the image's /{path} must be a directory and not a link or a file")]
    NotADirectory {
        /// Which.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the image cannot be read.
    #[error("cannot read the image's /{path}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be unmounted.
    #[error("cannot unmount {}", target.display())]
    Unmount {
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, RootfsError>;

/// The kernel takes one page of mount options.
const OPTIONS_MAX_BYTES: usize = 4096;
/// `/etc/passwd` and `/etc/group` are read up to this size; containerd has the same limit.
const ETC_FILE_MAX_BYTES: u64 = 10 << 20;

/// Mounts the overlay: `layers` (lowest first, all in one folder) below a fresh writable layer in
/// `scratch`.
///
/// It is mounted `volatile` (Linux 5.10): a container's writable layer is scratch, and without that
/// its unmount waits for the disk.
///
/// # Errors
/// [`RootfsError::Prepare`], [`RootfsError::Overlay`].
pub fn mount_overlay(layers: &[PathBuf], scratch: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for (dir, mode) in [(scratch, 0o700), (&upper, 0o755), (&work, 0o700), (target, 0o755)] {
        make_dir(dir, mode)
            .map_err(|e| RootfsError::Prepare { path: dir.into(), source: io::Error::other(e) })?;
    }
    // Layers by names relative to their folder: many fit in one page of options.
    if let Some(folder) = layers.first().and_then(|l| l.parent()) {
        std::env::set_current_dir(folder)
            .map_err(|source| RootfsError::Prepare { path: folder.into(), source })?;
    }
    let failed =
        |source| RootfsError::Overlay { layers: layers.len(), target: target.into(), source };
    let overlay = |more: &str| -> Result<std::result::Result<(), io::Error>> {
        let options = overlay_options(layers, &upper, &work, more)?;
        let options = std::ffi::CString::new(options).map_err(|e| failed(e.into()))?;
        let flags = MountFlags::NODEV;
        Ok(mount("overlay", target, "overlay", flags, Some(options.as_c_str())).map_err(Into::into))
    };
    let mounted = match overlay(",volatile")? {
        // Before Linux 5.10.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => overlay("")?,
        other => other,
    };
    mounted.map_err(failed)
}

fn overlay_options(layers: &[PathBuf], upper: &Path, work: &Path, more: &str) -> Result<String> {
    let names: Vec<String> =
        layers.iter().rev().filter_map(|l| l.file_name()).map(|n| escaped(Path::new(n))).collect();
    let (lower, upper, work) = (names.join(":"), escaped(upper), escaped(work));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}{more}");
    if options.len() >= OPTIONS_MAX_BYTES {
        return Err(RootfsError::TooManyLayers { layers: layers.len() });
    }
    Ok(options)
}

/// Overlayfs splits its options at commas and colons.
fn escaped(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, '\\' | ',' | ':') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Unmounts a root filesystem and removes its mount point and writable layer. Nothing there is no
/// error.
///
/// # Errors
/// [`RootfsError::Unmount`]; a removal that fails is left for the pod's own end.
pub fn remove(scratch: &Path, target: &Path) -> Result<()> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(e) => return Err(RootfsError::Unmount { target: target.into(), source: e.into() }),
        }
    }
    let _ = std::fs::remove_dir(target);
    let _ = bundles::tree::remove(scratch);
    Ok(())
}

/// The root of a mounted root filesystem, for safe access to what is in it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens it.
    ///
    /// # Errors
    /// [`RootfsError::Prepare`].
    pub fn open(path: &Path) -> Result<Root> {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Root)
            .map_err(|e| RootfsError::Prepare { path: path.into(), source: e.into() })
    }

    /// Opens it, and sees to it that what a runtime and the bind mounts write through is the image's
    /// own.
    ///
    /// # Errors
    /// [`RootfsError`].
    pub fn prepared(path: &Path) -> Result<Root> {
        let root = Root::open(path)?;
        for path in ["dev", "proc", "sys"] {
            root.require_directory(path)?;
        }
        for name in ["hosts", "hostname", "resolv.conf"] {
            root.require_file_in_etc(name)?;
        }
        Ok(root)
    }

    /// Sees to it that a top-level path is a directory of the image's own, and not a link that
    /// would lead whoever writes through it to the host. A missing one is made.
    ///
    /// # Errors
    /// [`RootfsError::NotADirectory`].
    pub fn require_directory(&self, path: &str) -> Result<OwnedFd> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match mkdirat(&self.0, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(self.not_a_directory(path, e)),
        }
        openat2(&self.0, path, flags, Mode::empty(), how).map_err(|e| self.not_a_directory(path, e))
    }

    fn not_a_directory(&self, path: &str, e: rustix::io::Errno) -> RootfsError {
        RootfsError::NotADirectory { path: path.into(), source: e.into() }
    }

    /// Makes `/etc/<name>` an empty regular file if it is a link (many images link `resolv.conf`
    /// into `/run`) or missing, so that a file can be bound over it.
    ///
    /// # Errors
    /// [`RootfsError::NotADirectory`] of `/etc`; [`RootfsError::Read`].
    pub fn require_file_in_etc(&self, name: &str) -> Result<()> {
        let etc = self.require_directory("etc")?;
        let failed = |e: rustix::io::Errno| RootfsError::Read {
            path: format!("etc/{name}"),
            source: e.into(),
        };
        match statat(&etc, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
                return Ok(());
            }
            Ok(_) => {
                // /etc was opened for its path only: reopened for writing through the root again.
                unlinkat(&etc, name, rustix::fs::AtFlags::empty()).map_err(failed)?;
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(failed(e)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&etc, name, flags, Mode::from_raw_mode(0o644)).map(drop).map_err(failed)
    }

    /// The text of a file, resolved as the container would resolve it; `None` if there is none.
    /// Only a regular file is read (a FIFO would wait for ever), and only up to 10 MiB.
    ///
    /// # Errors
    /// [`RootfsError::Read`].
    pub fn read_text(&self, path: &str) -> Result<Option<String>> {
        let failed = |source: io::Error| RootfsError::Read { path: path.into(), source };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match openat2(&self.0, path, flags, Mode::empty(), how) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(failed(e.into())),
        };
        let found = fstat(&fd).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let mut text = Vec::new();
        File::from(fd).take(ETC_FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > ETC_FILE_MAX_BYTES {
            return Err(failed(io::Error::other("it is larger than 10 MiB")));
        }
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Makes a directory and its parents, resolved as the container would resolve them: an image's
    /// WORKDIR need not exist. What exists is left alone.
    ///
    /// # Errors
    /// [`RootfsError::NotADirectory`].
    pub fn make_directories(&self, path: &Path) -> Result<()> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |dir: &Path| openat2(self.0.as_fd(), dir, flags, Mode::empty(), how);
        let failed = |e| self.not_a_directory(&path.to_string_lossy(), e);
        let mut sofar = PathBuf::from(".");
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let next = sofar.join(name);
            match open(&next) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT) => {
                    let parent = open(&sofar).map_err(failed)?;
                    mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
                }
                Err(e) => return Err(failed(e)),
            }
            sofar = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("directory");
        let root = Root::open(dir.path()).expect("open");
        (dir, root)
    }

    #[test]
    fn a_link_for_dev_is_refused_and_a_missing_dev_is_made() {
        let (dir, root) = image();
        symlink("/tmp", dir.path().join("dev")).expect("link");
        assert!(matches!(root.require_directory("dev"), Err(RootfsError::NotADirectory { .. })));
        root.require_directory("proc").expect("made");
        assert!(dir.path().join("proc").is_dir());
    }

    #[test]
    fn a_linked_resolv_conf_becomes_a_file_and_its_target_is_untouched() {
        let (dir, root) = image();
        let outside = tempfile::NamedTempFile::new().expect("file");
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        symlink(outside.path(), dir.path().join("etc/resolv.conf")).expect("link");
        root.require_file_in_etc("resolv.conf").expect("made");
        let made = std::fs::symlink_metadata(dir.path().join("etc/resolv.conf")).expect("there");
        assert!(made.is_file());
        assert!(outside.path().exists());
    }

    #[test]
    fn an_absolute_link_is_read_inside_the_image() {
        let (dir, root) = image();
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        std::fs::write(dir.path().join("shadow"), "inside").expect("file");
        symlink("/shadow", dir.path().join("etc/passwd")).expect("link");
        assert_eq!(root.read_text("etc/passwd").expect("read").as_deref(), Some("inside"));
        assert_eq!(root.read_text("etc/group").expect("read"), None);
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let (dir, root) = image();
        nix::unistd::mkfifo(&dir.path().join("passwd"), nix::sys::stat::Mode::S_IRWXU)
            .expect("fifo");
        assert!(matches!(root.read_text("passwd"), Err(RootfsError::Read { .. })));
    }

    #[test]
    fn a_working_directory_is_made_inside_even_through_a_link() {
        let (dir, root) = image();
        symlink("/real", dir.path().join("link")).expect("link");
        std::fs::create_dir(dir.path().join("real")).expect("real");
        root.make_directories(Path::new("/link/a/b")).expect("made");
        assert!(dir.path().join("real/a/b").is_dir());
        root.make_directories(Path::new("/../../c")).expect("made");
        assert!(dir.path().join("c").is_dir());
    }

    #[test]
    fn the_layers_of_docker_fit_into_one_mount_and_too_many_are_told() {
        let layers = |n: usize| vec![PathBuf::from("/l").join("a".repeat(26)); n];
        let scratch = PathBuf::from("/var/lib/podshim/pods").join("a".repeat(150));
        let options = |n| overlay_options(&layers(n), &scratch, &scratch, ",volatile");
        assert!(options(127).is_ok());
        assert!(matches!(options(200), Err(RootfsError::TooManyLayers { layers: 200 })));
    }

    #[test]
    fn option_separators_in_paths_are_escaped() {
        assert_eq!(escaped(Path::new("/a,b:c\\d")), "/a\\,b\\:c\\\\d");
    }
}
