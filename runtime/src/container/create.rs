//! What runs in a creator: from a forked shim to a container whose init waits.

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bundles::image::Image;
use bundles::layout::PodDir;
use bundles::objects::Objects;
use bundles::oci::{self, ContainerInput};
use k8s_openapi::api::core::v1::{Container, Pod};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::Signal;

use super::CreatorMessage;
use super::diagnosis::Diagnosis;
use super::executor::Payload;
use crate::cgroup::{Cgroups, Creator as Home, Version};
use crate::chain;
use crate::rootfs::{self, Root};
use crate::seccomp::Filter;
use crate::state_dir::make_dir;
use crate::sys::process::{close_all_but, exit_now, reset_signals};
use crate::{sub_path, termination, volume};

/// Everything that a creator needs; it has a copy of the shim's memory.
#[derive(Debug)]
pub struct CreateOrder<'a> {
    /// The pod, defaults applied.
    pub pod: &'a Pod,
    /// The container in it.
    pub container: &'a Container,
    /// The ConfigMaps and Secrets that the pod refers to.
    pub objects: &'a Objects,
    /// Which creation of it.
    pub inc: u32,
    /// Its OCI id: 64 hexadecimal digits.
    pub container_id: &'a str,
    /// Its image.
    pub image: &'a Image,
    /// The pod's paths.
    pub dir: &'a PodDir,
    /// Facts of the host that the bundle depends on.
    pub host: &'a bundles::host::Host,
    /// The host's control groups.
    pub cgroups: &'a Cgroups,
    /// The creator's own control group.
    pub home: &'a Home,
    /// The pod's control group, relative to a hierarchy's root.
    pub pod_cgroup: &'a str,
    /// The pod's own namespaces (`net`, `ipc`, `uts`); the others are the host's.
    pub own_namespaces: &'a [&'static str],
    /// The pod's addresses.
    pub pod_ips: &'a [String],
    /// The compiled seccomp filter; `None` if the container is unconfined.
    pub filter: Option<Arc<Filter>>,
    /// The FIFOs of its standard output and error.
    pub output: [PathBuf; 2],
}

impl CreateOrder<'_> {
    /// `<container>-<inc>`: the name of its control group.
    #[must_use]
    pub fn cgroup(&self) -> String {
        cgroup_name(&self.container.name, self.inc)
    }
}

/// The name of an incarnation's control group below the pod's.
#[must_use]
pub fn cgroup_name(container: &str, inc: u32) -> String {
    format!("{container}-{inc}")
}

/// Where libcontainer keeps its directories (only the notify sockets in them are used).
#[must_use]
pub fn machine_dir(dir: &PodDir) -> PathBuf {
    dir.dir.join("oci")
}

type Failure = (&'static str, String);

fn create_error(step: &str) -> impl FnOnce(&(dyn Error + 'static)) -> Failure + '_ {
    move |e| ("CreateContainerError", format!("{step}{}", chain(e)))
}

/// The forked child's whole life. Sends one message and ends.
pub fn creator(
    order: &CreateOrder<'_>,
    shim: rustix::process::Pid,
    message_end: OwnedFd,
    started_end: OwnedFd,
) -> ! {
    let message = match become_creator(order, shim, &message_end, &started_end) {
        Err((reason, message)) => failed(reason, message),
        Ok(()) => match create(order, started_end) {
            Ok(pid) => CreatorMessage::Created { pid },
            Err((reason, message)) => failed(reason, message),
        },
    };
    let bytes = serde_json::to_vec(&message).unwrap_or_default();
    // If nobody reads it the shim is gone, and whoever adopts the pod kills what is left here.
    let _ = rustix::io::write(&message_end, &bytes);
    exit_now(0)
}

fn failed(reason: &str, mut message: String) -> CreatorMessage {
    const TEXT_MAX_BYTES: usize = 2048;
    if message.len() > TEXT_MAX_BYTES {
        let mut end = TEXT_MAX_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    CreatorMessage::Failed { reason: reason.to_owned(), message }
}

/// Ends with the shim, holds nothing of it, starts with clean signals, and can be found.
fn become_creator(
    order: &CreateOrder<'_>,
    shim: rustix::process::Pid,
    message_end: &OwnedFd,
    started_end: &OwnedFd,
) -> Result<(), Failure> {
    let step = |e: io::Error| create_error("cannot prepare the creator: ")(&e);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| step(e.into()))?;
    if rustix::process::getppid() != Some(shim) {
        exit_now(1);
    }
    close_all_but(&[message_end.as_raw_fd(), started_end.as_raw_fd()]).map_err(step)?;
    reset_signals().map_err(step)?;
    order.home.enter().map_err(|e| create_error("")(&e))
}

fn create(order: &CreateOrder<'_>, started_end: OwnedFd) -> Result<i32, Failure> {
    let name = &order.container.name;
    let bundle = order.dir.bundle(name, order.inc);
    let io_step = |e: &(dyn Error + 'static)| create_error("cannot write the bundle: ")(e);
    make_dir(&bundle, 0o700).map_err(|e| io_step(&e))?;
    let rootfs = order.dir.rootfs(name, order.inc);
    rootfs::mount_overlay(&order.image.layers, &order.dir.scratch(name, order.inc), &rootfs)
        .map_err(|e| create_error("")(&e))?;
    let root = Root::prepared(&rootfs).map_err(|e| create_error("")(&e))?;
    let made = container_spec(order, &rootfs, &root)?;
    make_missing_host_paths(order)?;
    for part in &made.sub_paths {
        sub_path::bind(part).map_err(|e| ("CreateContainerConfigError", chain(&e)))?;
    }
    termination::make(&order.dir.termination(name, order.inc)).map_err(|e| io_step(&e))?;
    root.make_directories(Path::new(&made.process.cwd)).map_err(|e| create_error("")(&e))?;
    // The container's process must inherit no directory of the host: `..` of it is the host's root.
    drop(root);
    write_private(&bundle.join("config.json"), &made.spec).map_err(|e| io_step(&e))?;
    write_private(&bundle.join("process.json"), &made.process).map_err(|e| io_step(&e))?;
    build(order, &bundle, made, started_end)
}

fn make_missing_host_paths(order: &CreateOrder<'_>) -> Result<(), Failure> {
    let Some(spec) = &order.pod.spec else { return Ok(()) };
    let is_mounted =
        |name: &str| order.container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    for path in bundles::volume::host_paths(spec).iter().filter(|p| is_mounted(&p.name)) {
        volume::make_missing_host_path(path).map_err(|e| create_error("")(&e))?;
    }
    Ok(())
}

fn container_spec(
    order: &CreateOrder<'_>,
    rootfs: &Path,
    root: &Root,
) -> Result<oci::ContainerSpec, Failure> {
    let text = |path: &str| root.read_text(path).map_err(|e| create_error("")(&e));
    let (passwd, group) = (text("etc/passwd")?, text("etc/group")?);
    let path_of = |kind: &'static str| {
        order.own_namespaces.contains(&kind).then(|| order.dir.namespace(kind))
    };
    let (net, ipc, uts) = (path_of("net"), path_of("ipc"), path_of("uts"));
    let cgroup_path = order
        .cgroups
        .oci_path(order.pod_cgroup, &order.cgroup())
        .map_err(|e| create_error("")(&e))?;
    let devices = if bundles::security::is_privileged(order.container) {
        crate::devices::of_host()
            .map_err(|e| create_error("cannot list the host's devices: ")(&e))?
    } else {
        Vec::new()
    };
    oci::spec(&ContainerInput {
        pod: order.pod,
        container: order.container,
        inc: order.inc,
        objects: order.objects,
        image: &order.image.config,
        rootfs,
        dir: order.dir,
        namespaces: oci::Namespaces {
            net: net.as_deref(),
            ipc: ipc.as_deref(),
            uts: uts.as_deref(),
            ..oci::Namespaces::default()
        },
        cgroup_path: &cgroup_path.to_string_lossy(),
        cgroup: match order.cgroups.version() {
            Version::V1 => oci::CgroupVersion::V1,
            Version::V2 => oci::CgroupVersion::V2,
        },
        devices: &devices,
        host: order.host,
        pod_ips: order.pod_ips,
        notify: bundles::notify::is_expected(order.pod, &order.container.name),
        passwd: passwd.as_deref(),
        group: group.as_deref(),
    })
    .map_err(|e| (e.reason(), chain(&e)))
}

fn write_private<T: serde::Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    serde_json::to_writer(io::BufWriter::new(file), value).map_err(Into::into)
}

fn build(
    order: &CreateOrder<'_>,
    bundle: &Path,
    made: oci::ContainerSpec,
    started_end: OwnedFd,
) -> Result<i32, Failure> {
    let step = |e: &(dyn Error + 'static)| create_error("cannot open the container's streams: ")(e);
    let stdin = fs::File::open("/dev/null").map_err(|e| step(&e))?;
    let [stdout, stderr] = open_output(order, &made.process).map_err(|e| step(&e))?;
    let diagnosis = Diagnosis::begin(bundle).map_err(|e| step(&e))?;
    let payload = Payload {
        process: Arc::new(made.process),
        filter: order.filter.clone(),
        started: Arc::new(started_end),
    };
    let built = ContainerBuilder::new(order.container_id.to_owned(), SyscallType::default())
        .with_root_path(machine_dir(order.dir))
        .map(|b| b.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr).with_executor(payload))
        .and_then(ContainerBuilder::validate_id)
        .and_then(|b| b.as_init(bundle).with_systemd(false).as_sibling(true).build());
    match built {
        Ok(container) => container
            .pid()
            .map(|pid| pid.as_raw())
            .ok_or(("CreateContainerError", "the container has no process".to_owned())),
        Err(e) => Err(("CreateContainerError", diagnosis.of(&e))),
    }
}

/// Both ends of a FIFO are held open read-write on both sides, so that a reader's death is never a
/// SIGPIPE for the application. They are opened anew, because O_NONBLOCK of the shim's ends must not
/// be shared, and given to the container's user, who may open `/dev/stdout` again.
fn open_output(order: &CreateOrder<'_>, process: &oci::FinalProcess) -> io::Result<[OwnedFd; 2]> {
    let open = |path: &Path| -> io::Result<OwnedFd> {
        let fifo = fs::OpenOptions::new().read(true).write(true).open(path)?;
        std::os::unix::fs::fchown(&fifo, Some(process.uid), Some(process.gid))?;
        Ok(fifo.into())
    };
    Ok([open(&order.output[0])?, open(&order.output[1])?])
}
