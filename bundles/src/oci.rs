//! A container's OCI configuration, put together.
//!
//! [`spec`] is a pure function: from the pod, the image's configuration and what the caller knows
//! of the host to `config.json` and to the [`FinalProcess`]. The two differ on purpose. The first
//! is what the library that makes the container is given: its capabilities are the final ones plus
//! the two that installing a system call filter takes, and it has no seccomp section. The second is
//! what the process ends with: whoever executes the program, the first time or in `exec`, a probe
//! or a hook, brings it about.
//!
//! Makes no directory and reads no file. Sysctls are the sandbox's, not a container's.

use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxDevice, LinuxNamespace, LinuxNamespaceType, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};
use serde::{Deserialize, Serialize};

use crate::capability::CapSet;
use crate::downward::Downward;
use crate::env::{self, Env, EnvError};
use crate::host::Host;
use crate::image_config::ImageConfig;
use crate::layout::PodDir;
use crate::mounts::{self, MountError, SubPath};
use crate::notify;
use crate::objects::Objects;
use crate::process::{self, ProcessError};
use crate::quantity::QuantityError;
use crate::resources;
use crate::security::{self, Seccomp, Security, SecurityError};
use crate::user::{self, Files, Identity, UserError};
use crate::volume::{self, VolumeError};

/// systemd's default of `RLIMIT_NOFILE`, soft and hard.
const NOFILE: (u64, u64) = (1024, 524_288);
/// What every runtime starts containers with, whatever the creator's own is.
const UMASK: u32 = 0o022;

/// Which kind of control groups the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// One hierarchy a controller, also where the unified one is mounted beside them.
    V1,
    /// The unified hierarchy alone.
    V2,
}

/// The namespaces that a container joins. It always has a mount namespace of its own, and on
/// cgroup v2 a cgroup namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces<'a> {
    /// The pod's network namespace; `None` is the host's.
    pub net: Option<&'a Path>,
    /// The pod's IPC namespace; `None` is the host's.
    pub ipc: Option<&'a Path>,
    /// The pod's UTS namespace; `None` is the host's.
    pub uts: Option<&'a Path>,
    /// Process ids.
    pub pid: PidNamespace<'a>,
}

/// Whose process ids a container sees.
#[derive(Clone, Copy, Debug, Default)]
pub enum PidNamespace<'a> {
    /// Its own only.
    #[default]
    Own,
    /// Those of the pod (`shareProcessNamespace`).
    Pod(&'a Path),
    /// All of the host (`hostPID`).
    Host,
}

/// All that a container's configuration is made from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerInput<'a> {
    /// The pod, with name, namespace and uid set.
    pub pod: &'a Pod,
    /// One of its containers, init containers and sidecars included.
    pub container: &'a Container,
    /// Which incarnation of it.
    pub inc: u32,
    /// The ConfigMaps and Secrets that the pod refers to.
    pub objects: &'a Objects,
    /// What the image says.
    pub image: &'a ImageConfig,
    /// Where its root filesystem is mounted.
    pub rootfs: &'a Path,
    /// The pod's directories.
    pub dir: &'a PodDir,
    /// The namespaces to join.
    pub namespaces: Namespaces<'a>,
    /// Its cgroup below the hierarchies' mount points: absolute.
    pub cgroup_path: &'a str,
    /// Which kind of cgroup.
    pub cgroup: CgroupVersion,
    /// The host's devices, for a privileged container.
    pub devices: &'a [LinuxDevice],
    /// The machine.
    pub host: &'a Host,
    /// The pod's addresses; empty if it has none.
    pub pod_ips: &'a [String],
    /// Whether it is given the socket of [`PodDir::notify`].
    pub notify: bool,
    /// The image's `/etc/passwd`: read as a regular file, at most [`user::MAX_FILE_BYTES`].
    pub passwd: Option<&'a str>,
    /// The image's `/etc/group`, likewise.
    pub group: Option<&'a str>,
}

/// A container, ready to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// `config.json`.
    pub spec: Spec,
    /// What its process ends with.
    pub process: FinalProcess,
    /// Parts of volumes that must be bound before it is created.
    pub sub_paths: Vec<SubPath>,
    /// Where it gets less than it should, because podshim itself has no more.
    pub clamped: Vec<Clamp>,
}

/// What a container's process ends with: its first one, and each that is executed in it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalProcess {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All supplementary groups; to be set as they are. Never empty.
    pub additional_gids: Vec<u32>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Limits to be set; the others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// How soon the kernel kills it when memory is short.
    pub oom_score_adj: i32,
    /// The bounding set, which is also the permitted and effective one of a process of root.
    /// Inheritable and ambient sets are empty: a process of another user has no capabilities after
    /// execve(2), unless the file gives it some of the bounding set.
    pub capabilities: CapSet,
    /// Whether `PR_SET_NO_NEW_PRIVS` is set.
    pub no_new_privs: bool,
    /// The filter, to be installed before capabilities are dropped.
    pub seccomp: Seccomp,
    /// File mode creation mask.
    pub umask: u32,
}

/// A limit of one of the process's resources (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub kind: PosixRlimitType,
    /// The limit in force.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// Something that a container gets less of than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clamp {
    /// The limit of open files.
    OpenFiles {
        /// What it should have been.
        wanted: u64,
        /// What it is.
        given: u64,
    },
    /// Without `CAP_SYS_RESOURCE` the score cannot be below podshim's own.
    OomScore {
        /// What it should have been.
        wanted: i32,
        /// What it is.
        given: i32,
    },
    /// Default capabilities that podshim has not got.
    Capabilities {
        /// Which.
        withheld: CapSet,
    },
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clamp::OpenFiles { wanted, given } => write!(
                f,
                "open files are limited to {given} instead of {wanted}, the hard limit of podshim"
            ),
            Clamp::OomScore { wanted, given } => write!(
                f,
                "oom_score_adj is {given} instead of {wanted}: podshim lacks CAP_SYS_RESOURCE"
            ),
            Clamp::Capabilities { withheld } => {
                write!(f, "podshim itself lacks {withheld}, and so does the container")
            }
        }
    }
}

/// Why a container cannot be configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A pod object without `spec`.
    #[error("the pod has no spec")]
    NoSpec,
    /// The path of the cgroup is not absolute.
    #[error("cgroup path {path:?} is not absolute")]
    CgroupPath {
        /// The path.
        path: String,
    },
    /// Environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// Command or working directory.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// User or groups.
    #[error(transparent)]
    User(#[from] UserError),
    /// Capabilities, filter, paths.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Mounts.
    #[error(transparent)]
    Mounts(#[from] MountError),
    /// Host name.
    #[error(transparent)]
    Names(#[from] VolumeError),
    /// The OCI types refuse a value.
    #[error("OCI configuration: {text}")]
    Oci {
        /// Why.
        text: String,
    },
    /// Requests or limits.
    #[error("resources: {0}")]
    Resources(#[from] QuantityError),
}

impl ConfigError {
    /// The reason of the container's waiting state. What a kubelet finds out itself has one name,
    /// what its container runtime finds out has the other.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            ConfigError::Process(_) | ConfigError::CgroupPath { .. } | ConfigError::Oci { .. } => {
                "CreateContainerError"
            }
            _ => "CreateContainerConfigError",
        }
    }
}

/// The configuration of a container.
///
/// # Errors
/// If the manifest or the image asks for something that cannot be, or that this release does not do.
pub fn spec(input: &ContainerInput<'_>) -> Result<ContainerSpec, ConfigError> {
    let pod_spec = input.pod.spec.as_ref().ok_or(ConfigError::NoSpec)?;
    if !input.cgroup_path.starts_with('/') {
        return Err(ConfigError::CgroupPath { path: input.cgroup_path.into() });
    }
    let files = Files { passwd: input.passwd, group: input.group };
    let identity = user::resolve(input.pod, input.container, &input.image.user, files)?;
    let security = security::resolve(pod_spec, input.container, input.host)?;
    let mut clamped = Vec::new();
    let ContainerInput { pod, container, host, pod_ips, .. } = *input;
    let downward = Downward { pod, spec: pod_spec, host, pod_ips };
    let spec_env = env::of_spec(container, &downward, input.objects)?;
    let process = final_process(input, pod_spec, &spec_env, identity, &security, &mut clamped)?;
    let place = mounts::Place { dir: input.dir, inc: input.inc, cgroup: input.cgroup };
    let mut mounts = mounts::mounts(pod_spec, container, &spec_env, place)?;
    if input.notify {
        mounts.list.push(notify::socket_mount(input.dir, &container.name));
    }

    let mut root = Root::default();
    root.set_path(input.rootfs.into()).set_readonly(Some(read_only_root(input.container)));
    let mut spec = Spec::default();
    spec.set_version("1.1.0".into())
        .set_root(Some(root))
        .set_mounts(Some(mounts.list))
        .set_process(Some(oci_process(&process)?))
        // The pod's UTS namespace has its name already.
        .set_hostname(None)
        .set_linux(Some(linux(input, &security)?));
    Ok(ContainerSpec { spec, process, sub_paths: mounts.sub_paths, clamped })
}

fn read_only_root(container: &Container) -> bool {
    let context = container.security_context.as_ref();
    context.and_then(|c| c.read_only_root_filesystem) == Some(true)
}

fn final_process(
    input: &ContainerInput<'_>,
    pod_spec: &PodSpec,
    spec_env: &Env,
    identity: Identity,
    security: &Security,
    clamped: &mut Vec<Clamp>,
) -> Result<FinalProcess, ConfigError> {
    let ContainerInput { pod, container, image, host, .. } = *input;
    let terminal = container.tty == Some(true);
    let hostname = volume::names(pod, host)?.hostname;
    let home = identity.home.as_deref().unwrap_or("/");
    let mut env = env::assemble(&image.env, spec_env, &hostname, home, terminal)?;
    if input.notify {
        env.set(notify::VARIABLE, notify::SOCKET);
    }
    if !security.withheld.is_empty() {
        clamped.push(Clamp::Capabilities { withheld: security.withheld });
    }
    Ok(FinalProcess {
        uid: identity.uid,
        gid: identity.gid,
        additional_gids: identity.additional_gids,
        argv: process::argv(container, image, spec_env)?,
        env: env.to_vec(),
        cwd: process::cwd(container, image)?,
        terminal,
        rlimits: vec![open_files(host, clamped)],
        oom_score_adj: oom_score(pod_spec, container, host, clamped)?,
        capabilities: security.capabilities,
        no_new_privs: security.no_new_privs,
        seccomp: security.seccomp.clone(),
        umask: UMASK,
    })
}

fn open_files(host: &Host, clamped: &mut Vec<Clamp>) -> Rlimit {
    let (soft, wanted) = NOFILE;
    let given = wanted.min(host.nofile_hard);
    if given < wanted {
        clamped.push(Clamp::OpenFiles { wanted, given });
    }
    Rlimit { kind: PosixRlimitType::RlimitNofile, soft: soft.min(given), hard: given }
}

fn oom_score(
    spec: &PodSpec,
    container: &Container,
    host: &Host,
    clamped: &mut Vec<Clamp>,
) -> Result<i32, ConfigError> {
    let wanted = resources::oom_score_adj(spec, container, host)?;
    if host.has_sys_resource() || wanted >= host.own_oom_score_adj {
        return Ok(wanted);
    }
    let given = host.own_oom_score_adj;
    clamped.push(Clamp::OomScore { wanted, given });
    Ok(given)
}

fn oci_process(process: &FinalProcess) -> Result<Process, ConfigError> {
    let mut user = User::default();
    user.set_uid(process.uid)
        .set_gid(process.gid)
        .set_additional_gids(Some(process.additional_gids.clone()))
        .set_umask(Some(process.umask));
    // Installing a filter without no_new_privs takes SYS_ADMIN, and SETPCAP is what drops the two
    // again; whoever executes the program does both.
    let held = process.capabilities | CapSet::SYS_ADMIN | CapSet::SETPCAP;
    let rlimits: Result<Vec<_>, _> = process.rlimits.iter().map(|limit| limit.to_oci()).collect();
    let mut oci = Process::default();
    oci.set_terminal(Some(process.terminal))
        .set_user(user)
        .set_args(Some(process.argv.clone()))
        .set_env(Some(process.env.clone()))
        .set_cwd(PathBuf::from(&process.cwd))
        .set_capabilities(Some(capabilities(held)))
        .set_rlimits(Some(rlimits?))
        // Absent is not the same as false for every reader.
        .set_no_new_privileges(process.no_new_privs.then_some(true))
        .set_oom_score_adj(Some(process.oom_score_adj));
    Ok(oci)
}

/// The sets of a process that has these, and gives none to what it executes.
pub(crate) fn capabilities(held: CapSet) -> LinuxCapabilities {
    let held = held.to_oci();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(held.clone()))
        .set_permitted(Some(held.clone()))
        .set_effective(Some(held))
        .set_inheritable(Some(CapSet::EMPTY.to_oci()))
        .set_ambient(Some(CapSet::EMPTY.to_oci()));
    capabilities
}

impl Rlimit {
    fn to_oci(self) -> Result<PosixRlimit, ConfigError> {
        let limit = PosixRlimitBuilder::default().typ(self.kind).soft(self.soft).hard(self.hard);
        limit.build().map_err(|error| ConfigError::Oci { text: error.to_string() })
    }
}

fn linux(input: &ContainerInput<'_>, security: &Security) -> Result<Linux, ConfigError> {
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(input)))
        .set_cgroups_path(Some(input.cgroup_path.into()))
        // podshim writes the limits and the device list into the leaf itself; whoever creates the
        // container is to attach to it and nothing else.
        .set_resources(None)
        .set_masked_paths(Some(security.masked_paths.clone()))
        .set_readonly_paths(Some(security.readonly_paths.clone()))
        .set_seccomp(None);
    // libcontainer makes no bind mount private by itself: what is mounted on the host later would
    // appear in every volume.
    if !mounts::follow_the_host(input.container) {
        linux.set_rootfs_propagation(Some("private".into()));
    }
    if security.privileged {
        linux.set_devices(Some(input.devices.to_vec()));
    }
    Ok(linux)
}

fn namespaces(input: &ContainerInput<'_>) -> Vec<LinuxNamespace> {
    let namespace = |typ, path: Option<&Path>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path.map(Path::to_path_buf));
        namespace
    };
    let Namespaces { net, ipc, uts, pid } = input.namespaces;
    let mut list = vec![namespace(LinuxNamespaceType::Mount, None)];
    match pid {
        PidNamespace::Own => list.push(namespace(LinuxNamespaceType::Pid, None)),
        PidNamespace::Pod(path) => list.push(namespace(LinuxNamespaceType::Pid, Some(path))),
        PidNamespace::Host => {}
    }
    let joined = [
        (LinuxNamespaceType::Network, net),
        (LinuxNamespaceType::Ipc, ipc),
        (LinuxNamespaceType::Uts, uts),
    ];
    let joined = joined.into_iter().filter(|(_, path)| path.is_some());
    list.extend(joined.map(|(typ, path)| namespace(typ, path)));
    if input.cgroup == CgroupVersion::V2 {
        list.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    list
}

#[cfg(test)]
#[path = "oci_fixture.rs"]
pub(crate) mod fixture;

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
