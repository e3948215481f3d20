//! The pod sandbox: its mount namespace and the one pin that keeps it, its network, IPC and UTS
//! namespaces.
//!
//! The shim lives in the pod's mount namespace, a slave of the host's. One bind mount made from the
//! host's keeps it (`<state>/pins/<uid>`); everything else of the pod is mounted inside, so when
//! the pin and the processes go, all of it goes with the namespace: nothing to leak.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use bundles::layout::PodDir;
use bundles::sysctl::Sysctl;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::state_dir::make_dir;

mod loopback;

/// What can go wrong with a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A namespace could not be opened, made or entered.
    #[error("cannot {verb} {what}")]
    Namespace {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount could not be made.
    #[error("cannot mount {what} on {}", target.display())]
    Mount {
        /// What.
        what: &'static str,
        /// Where.
        target: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory or file could not be made.
    #[error("cannot make {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A kernel parameter cannot be set.
    #[error("cannot set the kernel parameter {file} of the pod to {value:?}")]
    Sysctl {
        /// The file below `/proc/sys`.
        file: String,
        /// What was written.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `lo` stays down.
    #[error("cannot bring up the loopback interface of the pod")]
    Loopback(#[source] io::Error),
}

type Result<T> = std::result::Result<T, SandboxError>;

fn namespace<E: Into<io::Error>>(
    verb: &'static str,
    what: impl Into<String>,
) -> impl FnOnce(E) -> SandboxError {
    let what = what.into();
    move |e| SandboxError::Namespace { verb, what, source: e.into() }
}

fn mounting<E: Into<io::Error>>(
    what: &'static str,
    target: &Path,
) -> impl FnOnce(E) -> SandboxError {
    let target = target.into();
    move |e| SandboxError::Mount { what, target, source: e.into() }
}

fn making<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> SandboxError {
    let path = path.into();
    move |e| SandboxError::Make { path, source: e.into() }
}

/// Which namespaces a pod shares with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `spec.hostNetwork`: the network and UTS namespaces are the host's.
    pub host_network: bool,
    /// The hostname of the pod's own UTS namespace.
    pub hostname: String,
    /// Kernel parameters of its own network and IPC namespaces.
    pub sysctls: Vec<Sysctl>,
}

impl Wanted {
    /// The namespaces that the pod has for itself, by their names below `/proc/<pid>/ns`.
    #[must_use]
    pub fn own(&self) -> &'static [&'static str] {
        if self.host_network { &["ipc"] } else { &["net", "ipc", "uts"] }
    }
}

/// A made sandbox. The calling process is in the pod's mount namespace and in the host's others.
#[derive(Debug)]
pub struct Sandbox {
    /// The host's mount namespace: the only way back.
    host: OwnedFd,
    pin: PathBuf,
}

/// Makes the pod's mount namespace, pins it, enters it, and makes the others in it.
///
/// # Errors
/// [`SandboxError`]. What was made so far is removed.
pub fn make(dir: &PodDir, wanted: &Wanted) -> Result<Sandbox> {
    let host = open_namespace("mnt")?;
    let sandbox = Sandbox { host, pin: dir.pin.clone() };
    match fill(dir, wanted, &sandbox.host) {
        Ok(()) => Ok(sandbox),
        Err(e) => {
            // Out of it again, so that what was mounted goes with it. The first error says more.
            let _ = sandbox.remove();
            Err(e)
        }
    }
}

/// Enters a sandbox that another shim made; `None` if its pin is gone. The calling process must be in the
/// host's mount namespace.
///
/// # Errors
/// [`SandboxError`].
pub fn enter(dir: &PodDir) -> Result<Option<Sandbox>> {
    let host = open_namespace("mnt")?;
    let pin = match File::open(&dir.pin) {
        Ok(pin) => pin,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(namespace("open", dir.pin.display().to_string())(e)),
    };
    match setns(&pin, CloneFlags::CLONE_NEWNS) {
        Ok(()) => Ok(Some(Sandbox { host, pin: dir.pin.clone() })),
        // The file is there, and nothing is mounted on it.
        Err(nix::errno::Errno::EINVAL) => Ok(None),
        Err(e) => Err(namespace("enter", "the pod's mount namespace")(e)),
    }
}

fn fill(dir: &PodDir, wanted: &Wanted, host: &OwnedFd) -> Result<()> {
    File::create(&dir.pin).map_err(making(&dir.pin))?;
    let pod = pinned_mount_namespace(host, &dir.pin)?;
    setns(&pod, CloneFlags::CLONE_NEWNS)
        .map_err(namespace("enter", "the pod's mount namespace"))?;
    let mounts = dir.mounts();
    let made = |path: &Path, mode| {
        make_dir(path, mode)
            .map_err(|e| SandboxError::Make { path: path.into(), source: io::Error::other(e) })
    };
    made(&mounts, 0o755)?;
    mount("podshim", &mounts, "tmpfs", MountFlags::NOSUID, c"mode=755")
        .map_err(mounting("a tmpfs", &mounts))?;
    made(&dir.dir.join("ns"), 0o700)?;
    made(&mounts.join("etc"), 0o755)?;
    made(&mounts.join("rootfs"), 0o755)?;
    make_other_namespaces(dir, wanted)
}

/// Unshare, go *back* to the host's mount namespace for one bind, and in again: no helper process.
///
/// The kernel refuses to bind a mount namespace's file from a namespace other than the initial one
/// unless the target's id is above the current one's (it prevents cycles), and since Linux 6.18 it
/// hands ids out in batches of 4,096 for each CPU. So, if podshim itself runs below another mount
/// namespace: try as we are, then from each CPU, then use up a batch.
fn pinned_mount_namespace(host: &OwnedFd, pin: &Path) -> Result<OwnedFd> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let me = nix::unistd::Pid::from_raw(0);
    let first = try_pin(host, pin);
    let Err(SandboxError::Mount { ref source, .. }) = first else { return first };
    if source.raw_os_error() != Some(libc::EINVAL) {
        return first;
    }
    let all = sched_getaffinity(me).map_err(namespace("ask for", "the CPUs of this process"))?;
    for cpu in (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)) {
        let mut one = CpuSet::new();
        if one.set(cpu).is_err() || sched_setaffinity(me, &one).is_err() {
            continue;
        }
        if let Ok(pod) = try_pin(host, pin) {
            sched_setaffinity(me, &all).map_err(namespace("go back to", "all CPUs"))?;
            return Ok(pod);
        }
    }
    sched_setaffinity(me, &all).map_err(namespace("go back to", "all CPUs"))?;
    use_up_a_batch_of_ids()?;
    try_pin(host, pin)
}

fn try_pin(host: &OwnedFd, pin: &Path) -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(namespace("make", "a mount namespace"))?;
    // Slave before anything is mounted in it: nothing of the pod may reach the host.
    let slave = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", slave).map_err(mounting("as a slave", Path::new("/")))?;
    let pod = open_namespace("mnt")?;
    setns(host, CloneFlags::CLONE_NEWNS)
        .map_err(namespace("go back to", "the host's mount namespace"))?;
    mount_bind(format!("/proc/self/fd/{}", pod.as_raw_fd()), pin)
        .map_err(mounting("the pod's mount namespace", pin))?;
    Ok(pod)
}

fn use_up_a_batch_of_ids() -> Result<()> {
    const BATCH: usize = 4200;
    let uts = open_namespace("uts")?;
    for _ in 0..BATCH {
        unshare(CloneFlags::CLONE_NEWUTS).map_err(namespace("make", "a UTS namespace"))?;
    }
    setns(uts, CloneFlags::CLONE_NEWUTS).map_err(namespace("go back to", "the UTS namespace"))
}

/// Network, IPC and UTS: unshare, bind each into the pod's own mount namespace, and go back.
fn make_other_namespaces(dir: &PodDir, wanted: &Wanted) -> Result<()> {
    let before: Vec<(OwnedFd, &str)> = wanted
        .own()
        .iter()
        .map(|kind| Ok((open_namespace(kind)?, *kind)))
        .collect::<Result<_>>()?;
    let mut flags = CloneFlags::CLONE_NEWIPC;
    if !wanted.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    unshare(flags).map_err(namespace("make", "the pod's network, IPC and UTS namespaces"))?;
    if !wanted.host_network {
        loopback::up().map_err(SandboxError::Loopback)?;
        rustix::system::sethostname(wanted.hostname.as_bytes())
            .map_err(namespace("name", "the pod's UTS namespace"))?;
    }
    for sysctl in &wanted.sysctls {
        // /proc/sys shows the namespaces of whoever opens its files.
        fs::write(Path::new("/proc/sys").join(&sysctl.file), &sysctl.value).map_err(|source| {
            let (file, value) = (sysctl.file.clone(), sysctl.value.clone());
            SandboxError::Sysctl { file, value, source }
        })?;
    }
    for (old, kind) in before {
        let target = dir.namespace(kind);
        File::create(&target).map_err(making(&target))?;
        mount_bind(format!("/proc/self/ns/{kind}"), &target)
            .map_err(mounting("a namespace", &target))?;
        setns(old, CloneFlags::empty())
            .map_err(namespace("go back to", format!("the host's {kind} namespace")))?;
    }
    Ok(())
}

fn open_namespace(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{kind}");
    File::open(&path).map(OwnedFd::from).map_err(namespace("open", path))
}

/// The way back into a pod's mount namespace.
#[derive(Debug)]
pub struct Outside {
    pod: OwnedFd,
}

impl Outside {
    /// Goes back.
    ///
    /// # Errors
    /// [`SandboxError::Namespace`].
    pub fn step_in(self) -> Result<()> {
        setns(&self.pod, CloneFlags::CLONE_NEWNS)
            .map_err(namespace("enter", "the pod's mount namespace"))
    }
}

impl Sandbox {
    /// The host's mount namespace.
    #[must_use]
    pub fn host(&self) -> impl AsFd + '_ {
        &self.host
    }

    /// Goes to the host's mount namespace for a moment.
    ///
    /// # Errors
    /// [`SandboxError::Namespace`].
    pub fn step_out(&self) -> Result<Outside> {
        let pod = open_namespace("mnt")?;
        setns(&self.host, CloneFlags::CLONE_NEWNS)
            .map_err(namespace("go back to", "the host's mount namespace"))?;
        Ok(Outside { pod })
    }

    /// Leaves the pod's mount namespace and removes its pin. When the last process has left, the
    /// kernel takes every mount and namespace of the pod with it, off everybody's path.
    ///
    /// # Errors
    /// [`SandboxError`]; the pin may then still be there.
    pub fn remove(self) -> Result<()> {
        setns(&self.host, CloneFlags::CLONE_NEWNS)
            .map_err(namespace("go back to", "the host's mount namespace"))?;
        unpin(&self.pin)
    }
}

/// Removes a pin, from the host's mount namespace. Nothing there is no error.
///
/// # Errors
/// The unmount or the removal fails.
pub fn unpin(pin: &Path) -> Result<()> {
    loop {
        match unmount(pin, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(e) => return Err(namespace("unmount", pin.display().to_string())(e)),
        }
    }
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(namespace("remove", pin.display().to_string())(e))
        }
        _ => Ok(()),
    }
}
