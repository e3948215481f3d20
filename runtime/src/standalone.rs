//! Bundles that stand alone: a directory with `config.json` and an unpacked root filesystem, which runc,
//! crun or youki run without a pod.
//!
//! The root filesystem is a copy of what an overlay of the image's layers shows, so that it is the
//! image as its containers see it. The overlay is mounted in a mount namespace of the calling process
//! alone ([`leave_mounts_of_the_host`]): whatever happens, no mount stays.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bundles::image::Image;
use bundles::layout::PodDir;
use bundles::objects::Objects;
use bundles::oci::{self, CgroupVersion, Clamp, ConfigError, ContainerInput};
use bundles::standalone::Alone;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::cgroup::{Cgroups, Version};
use crate::rootfs::{self, Root, RootfsError};
use crate::state_dir::make_dir;
use crate::sub_path::{self, SubPathError};
use crate::termination;

/// Why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// A file or directory of the bundle.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The calling process keeps the host's mounts.
    #[error("cannot make a mount namespace")]
    Namespace(#[source] io::Error),
    /// The image's root filesystem.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// It could not be copied.
    #[error("cannot copy the image's files to {}: {said}", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// What cp(1) said.
        said: String,
    },
    /// What the manifest or image asks for cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part of a volume.
    #[error(transparent)]
    SubPath(#[from] SubPathError),
    /// A part of a volume that its containers can write.
    #[error(
        "subPath {path:?} of a volume that containers can write is not safe in a bundle: they can \
         replace it with a link, and another runtime would follow it to the host's files; mount the \
         whole volume"
    )]
    Swappable {
        /// The part.
        path: PathBuf,
    },
    /// The host's devices cannot be listed.
    #[error("cannot list the host's devices")]
    Devices(#[source] io::Error),
}

/// One container to be written.
#[derive(Debug)]
pub struct Order<'a> {
    /// The pod, defaults applied.
    pub pod: &'a Pod,
    /// The ConfigMaps and Secrets that it refers to.
    pub objects: &'a Objects,
    /// Its image.
    pub image: &'a Image,
    /// Where the pod's volumes and files are.
    pub dir: &'a PodDir,
    /// Where the bundle goes: absolute; nothing is there.
    pub bundle: &'a Path,
    /// Facts of this host.
    pub host: &'a bundles::host::Host,
    /// The host's control groups.
    pub cgroups: &'a Cgroups,
    /// The pod's addresses.
    pub pod_ips: &'a [String],
    /// What it has instead of the pod's; its root filesystem is the bundle's.
    pub alone: &'a Alone<'a>,
}

/// From here on, what the calling process mounts is its own. It must have one thread.
///
/// # Errors
/// [`StandaloneError::Namespace`].
pub fn leave_mounts_of_the_host() -> Result<(), StandaloneError> {
    let failed = |e: io::Error| StandaloneError::Namespace(e);
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed(e.into()))?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|e| failed(e.into()))
}

/// Writes one bundle, and says where its container gets less than it should.
///
/// # Errors
/// [`StandaloneError`]. What was written stays.
pub fn write(order: &Order<'_>) -> Result<Vec<Clamp>, StandaloneError> {
    let rootfs = order.bundle.join("rootfs");
    make_dir(&rootfs, 0o755).map_err(|e| failed(&rootfs)(io::Error::other(e)))?;
    copy_image(order.image, order.bundle, &rootfs)?;
    let root = Root::prepared(&rootfs)?;
    let (passwd, group) = (root.read_text("etc/passwd")?, root.read_text("etc/group")?);
    let container = order.alone.container;
    let made = oci::spec(&ContainerInput {
        pod: order.pod,
        container,
        inc: 0,
        objects: order.objects,
        image: &order.image.config,
        rootfs: order.alone.rootfs,
        dir: order.dir,
        namespaces: oci::Namespaces::default(),
        // Left out again.
        cgroup_path: "/",
        cgroup: match order.cgroups.version() {
            Version::V1 => CgroupVersion::V1,
            Version::V2 => CgroupVersion::V2,
        },
        devices: &devices(container)?,
        host: order.host,
        pod_ips: order.pod_ips,
        notify: false,
        passwd: passwd.as_deref(),
        group: group.as_deref(),
    })?;
    root.make_directories(Path::new(&made.process.cwd))?;
    for part in &made.sub_paths {
        // Only volumes of files are mounted read-only whatever the manifest says.
        if !part.volume.starts_with(order.dir.mounts()) {
            return Err(StandaloneError::Swappable { path: part.path.clone() });
        }
        sub_path::make_missing(part)?;
    }
    let words = order.dir.termination(&container.name, 0);
    termination::make(&words).map_err(failed(&words))?;
    let clamped = made.clamped.clone();
    let config = order.bundle.join("config.json");
    let spec = bundles::standalone::spec(made, order.alone)?;
    // Its environment may hold secrets.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&config);
    let written =
        file.and_then(|file| Ok(serde_json::to_writer_pretty(io::BufWriter::new(file), &spec)?));
    written.map_err(failed(&config))?;
    Ok(clamped)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StandaloneError {
    let path = path.to_owned();
    move |source| StandaloneError::Write { path, source }
}

fn devices(container: &Container) -> Result<Vec<oci_spec::runtime::LinuxDevice>, StandaloneError> {
    if !bundles::security::is_privileged(container) {
        return Ok(Vec::new());
    }
    crate::devices::of_host().map_err(|e| StandaloneError::Devices(io::Error::other(e)))
}

/// With cp(1), which keeps owners, modes, times, links, holes and attributes.
fn copy_image(image: &Image, bundle: &Path, rootfs: &Path) -> Result<(), StandaloneError> {
    let (scratch, merged) = (bundle.join("overlay"), bundle.join("merged"));
    rootfs::mount_overlay(&image.layers, &scratch, &merged)?;
    let copied = Command::new("cp")
        .args(["-a", "--"])
        .arg(merged.join("."))
        .arg(rootfs)
        .stdin(Stdio::null())
        .output();
    let refused = |said: String| StandaloneError::Copy { path: rootfs.to_owned(), said };
    let copied = copied.map_err(|e| refused(format!("cannot run cp: {e}")))?;
    rootfs::remove(&scratch, &merged)?;
    if !copied.status.success() {
        return Err(refused(String::from_utf8_lossy(&copied.stderr).trim().to_owned()));
    }
    Ok(())
}
