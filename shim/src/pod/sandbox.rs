//! Making and removing what the pod's containers share: control group, namespaces, volumes, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bundles::capability::CapSet;
use bundles::downward::Downward;
use bundles::host::Host;
use bundles::layout::{Layout, PodDir};
use bundles::objects::Objects;
use bundles::payload::{self, Payload, SetUpFailed};
use bundles::security::{self, Seccomp};
use bundles::{resources, sysctl, volume};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use plan::Fact;
use runtime::cgroup::{Cgroups, Members};
use runtime::keeper::Keeper;
use runtime::log::{Pump, Stream};
use runtime::sandbox::Wanted;
use runtime::seccomp::Filter;
use runtime::state_dir;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::compile::containers;
use super::failpoint;
use super::file::{OldDefinition, PodFile};
use super::machine::Machine;
use super::tokens;
use super::watch;

/// Where systemd-resolved names the servers that it asks itself (systemd-resolved.service(8)).
pub const SYSTEMD_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// A pod's control group: in a scope of systemd's, or `podshim/<qos>/pod<uid>` where there is none.
/// Says why, if there should have been one.
pub fn pod_cgroup(
    cgroups: &Cgroups,
    pod: &Pod,
    keeper: Option<&mut Keeper>,
) -> (String, Option<String>) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.metadata;
    // One that is taken over stays where it is.
    let uid = meta.uid.as_deref().unwrap_or_default();
    let plain = plain_cgroup(pod);
    if cgroups.pods(runtime::cgroup::BASE).is_ok_and(|all| all.iter().any(|p| p.uid == uid)) {
        return (plain, None);
    }
    let description = format!("pod {}/{}", text(&meta.namespace), text(&meta.name));
    match cgroups.enter_scope(&text(&meta.uid), &description, keeper) {
        Ok(Some(cgroup)) => (cgroup, None),
        Ok(None) => (plain, None),
        Err(e) => {
            let why = format!(
                "{}: the pod is outside of systemd's tree, which may take limits away",
                runtime::chain(&e)
            );
            (plain, Some(why))
        }
    }
}

fn plain_cgroup(pod: &Pod) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    // Quantities were validated; one that cannot be read asks for nothing.
    let qos = resources::qos(&spec).unwrap_or(resources::Qos::BestEffort);
    format!("{}/{}/pod{uid}", runtime::cgroup::BASE, qos.directory())
}

/// What the bundles need to know of this host.
pub fn host() -> anyhow::Result<Host> {
    runtime::host::read().context("cannot read the facts of this host")
}

/// Which namespaces the pod shares with the host.
pub fn wanted(pod: &Pod, host: &Host) -> anyhow::Result<Wanted> {
    let spec = pod.spec.as_ref();
    Ok(Wanted {
        host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
        hostname: volume::names(pod, host)?.hostname,
        sysctls: spec.map(sysctl::of_pod).unwrap_or_default(),
    })
}

/// The system call filter of a container.
#[derive(Clone, Debug)]
pub enum ContainerFilter {
    /// None: it is unconfined.
    None,
    /// Compiled.
    Ready(Arc<Filter>),
    /// To be read from a file when the container is created.
    File(PathBuf),
    /// What was asked for cannot be resolved; its creation says why.
    Unknown,
}

/// The seccomp filter of every container; of the default one each different one is compiled once.
pub fn filters(spec: &PodSpec, host: &Host, layout: &Layout) -> Vec<ContainerFilter> {
    let mut known: Vec<(CapSet, Arc<Filter>)> = Vec::new();
    let mut filters = Vec::new();
    for container in containers(spec) {
        let Ok(security) = security::resolve(spec, container, host) else {
            filters.push(ContainerFilter::Unknown);
            continue;
        };
        filters.push(match security.seccomp {
            Seccomp::Unconfined => ContainerFilter::None,
            Seccomp::Localhost { file } => ContainerFilter::File(layout.seccomp().join(file)),
            Seccomp::RuntimeDefault => {
                let capabilities = security.capabilities;
                let filter = match known.iter().find(|(held, _)| *held == capabilities) {
                    Some((_, filter)) => Arc::clone(filter),
                    None => {
                        let filter = Arc::new(runtime::seccomp::runtime_default(capabilities));
                        known.push((capabilities, Arc::clone(&filter)));
                        filter
                    }
                };
                ContainerFilter::Ready(filter)
            }
        });
    }
    filters
}

/// The filter of an old definition of a container.
pub fn filter_of(
    file: &PodFile,
    old: &OldDefinition,
    host: &Host,
    layout: &Layout,
) -> ContainerFilter {
    let mut spec = file.pod.spec.clone().unwrap_or_default();
    let inits = spec.init_containers.get_or_insert_default();
    let place = match old.c.checked_sub(inits.len()) {
        Some(main) => spec.containers.get_mut(main),
        None => inits.get_mut(old.c),
    };
    if let Some(place) = place {
        place.clone_from(&old.container);
    }
    filters(&spec, host, layout).into_iter().nth(old.c).unwrap_or(ContainerFilter::Unknown)
}

/// The pod's volumes of files, with what is in them.
pub fn payloads(
    pod: &Pod,
    objects: &Objects,
    host: &Host,
    pod_ips: &[String],
) -> Result<Vec<Payload>, SetUpFailed> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let downward = Downward { pod, spec, host, pod_ips };
    payload::payloads(&downward, objects, volume::fs_group(spec))
}

/// Writes the files that all containers of a pod share; says what its resolver does not get.
pub fn write_shared_files(
    dir: &PodDir,
    pod: &Pod,
    host: &Host,
    pod_ips: &[String],
) -> anyhow::Result<Vec<String>> {
    let host_text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let names = volume::names(pod, host)?;
    let resolver = volume::host_resolver(
        &spec,
        &host_text("/etc/resolv.conf"),
        fs::read_to_string(SYSTEMD_RESOLVED).ok().as_deref(),
    );
    let hosts = volume::hosts_file(&spec, &names, pod_ips, &host_text("/etc/hosts"))?;
    let made = volume::resolv_conf(&spec, &resolver.text)?;
    for (name, text) in
        [("hosts", hosts), ("resolv.conf", made.text), ("hostname", names.hostname_file())]
    {
        runtime::volume::write_shared_file(dir, name, &text)?;
    }
    Ok(resolver.warnings.into_iter().chain(made.warnings).collect())
}

impl Machine {
    /// A container's compiled filter; `None` if it is unconfined. A profile in a file is read once,
    /// so that all that runs in the pod's life has the same one.
    pub(super) fn filter(&mut self, c: usize, inc: u32) -> Result<Option<Arc<Filter>>, String> {
        let superseded = self.superseded(c, inc).map(|old| old.filter.clone());
        let is_old = superseded.is_some();
        match &superseded.unwrap_or_else(|| self.filters[c].clone()) {
            ContainerFilter::None => Ok(None),
            ContainerFilter::Ready(filter) => Ok(Some(Arc::clone(filter))),
            ContainerFilter::File(path) => {
                let filter =
                    runtime::seccomp::profile::load(path).map_err(|e| runtime::chain(&e))?;
                let filter = Arc::new(filter);
                if !is_old {
                    self.filters[c] = ContainerFilter::Ready(Arc::clone(&filter));
                }
                Ok(Some(filter))
            }
            // Its creation will fail and say why; should it not, this is the narrowest there is.
            ContainerFilter::Unknown => {
                Ok(Some(Arc::new(runtime::seccomp::runtime_default(CapSet::EMPTY))))
            }
        }
    }

    pub(super) fn make_sandbox(&mut self) {
        self.record(Fact::SandboxMaking);
        self.end_making_sandbox();
    }

    /// What follows the intent.
    pub(super) fn end_making_sandbox(&mut self) {
        match self.try_make_sandbox() {
            Ok(()) => {
                self.record(Fact::SandboxReady);
            }
            Err(e) => {
                let again = may_pass(&e);
                self.undo_sandbox();
                let reason =
                    if is_of_a_volume(&e) { "FailedMount" } else { "FailedCreatePodSandBox" };
                self.record(Fact::SandboxFailed {
                    reason: reason.into(),
                    message: crate::cli::one_line(&e),
                    again,
                });
            }
        }
    }

    fn try_make_sandbox(&mut self) -> anyhow::Result<()> {
        let spec = self.file.pod.spec.clone().unwrap_or_default();
        // What can be missing is asked for first: until it is there, nothing is made.
        let pod_ips = self.pod_ips();
        let payloads = payloads(&self.file.pod, &self.file.objects, &self.host, &pod_ips)?;
        for host_path in volume::host_paths(&spec) {
            runtime::volume::check_host_path(&host_path)?;
        }
        let values = resources::pod_resources(&spec, &self.host)?;
        self.cgroups.make_pod(&self.pod_cgroup, &values)?;
        failpoint::at(&self.layout, "sandbox:cgroup");
        self.sandbox = Some(runtime::sandbox::make(&self.dir, &self.wanted)?);
        failpoint::at(&self.layout, "sandbox:namespaces");
        self.attach()?;
        failpoint::at(&self.layout, "sandbox:network");
        runtime::volume::make_shm(&self.dir)?;
        for empty_dir in volume::empty_dirs(&spec, &self.host)? {
            runtime::volume::make_empty_dir(&self.dir, &empty_dir)?;
        }
        for payload in &payloads {
            runtime::payload::make(&self.dir, payload, runtime::clock::now().wall)?;
        }
        failpoint::at(&self.layout, "sandbox:volumes");
        self.write_shared_files()?;
        self.open_notifiers()?;
        self.open_pump()
    }

    fn write_shared_files(&mut self) -> anyhow::Result<()> {
        let warnings = write_shared_files(&self.dir, &self.file.pod, &self.host, &self.pod_ips())?;
        for message in warnings {
            let reason = "DNSConfigForming".to_owned();
            let event = plan::Event { warning: true, reason, message, container: None };
            self.tell_event(runtime::clock::now(), &event);
        }
        Ok(())
    }

    /// The pod's addresses: the host's on its network, else its own if it has one.
    pub(super) fn pod_ips(&self) -> Vec<String> {
        if self.wanted.host_network {
            return self.host.host_ip.iter().cloned().collect();
        }
        self.address.iter().map(ToString::to_string).collect()
    }

    pub(super) fn open_pump(&mut self) -> anyhow::Result<()> {
        state_dir::make_dir(&self.dir.io(), 0o700)?;
        let mut pump = Pump::open(&self.dir.io(), &self.container_names())?;
        pump.rotate(self.file.rotation);
        for (fd, token) in pump.fds() {
            let data = EventData::new_u64(stream_token(token));
            watch::add(&self.epoll, fd, data, EventFlags::IN)?;
        }
        self.pump = Some(pump);
        self.hold_output();
        Ok(())
    }

    /// The keeper has the FIFOs open too: closing them would not end their events.
    fn end_pump(&mut self) {
        let Some(pump) = &self.pump else { return };
        for (fd, _) in pump.fds() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        self.release_output();
        self.pump = None;
    }

    /// Takes back what a failed attempt made.
    pub(super) fn undo_sandbox(&mut self) {
        self.end_pump();
        self.end_notifiers();
        if let Err(e) = self.detach() {
            tracing::warn!("{}", crate::cli::one_line(&e));
        }
        if let Some(sandbox) = self.sandbox.take()
            && let Err(e) = sandbox.remove()
        {
            tracing::warn!("{}", runtime::chain(&e));
        }
        let _ = runtime::sandbox::unpin(&self.dir.pin);
        let _ = self.cgroups.remove_pod(&self.pod_cgroup);
        let _ = bundles::tree::remove(&self.dir.io());
    }

    /// Removes all that is left of the pod but its directory, which holds the journal. Each step is tried more
    /// than once: nobody comes after it, and the kernel may have refused for a moment only.
    pub(super) fn teardown(&mut self) {
        let mut left = Vec::new();
        let mut note = |result: Result<(), String>| left.extend(result.err());
        let (cgroups, cgroup) = (&self.cgroups, &self.pod_cgroup);
        note(insist(|| {
            cgroups.kill(cgroup, Members::Pod).map(drop).map_err(|e| runtime::chain(&e))
        }));
        failpoint::at(&self.layout, "teardown:killed");
        while runtime::sys::process::reap().is_some() {}
        note(insist(|| cgroups.remove_pod(cgroup).map_err(|e| runtime::chain(&e))));
        failpoint::at(&self.layout, "teardown:cgroup");
        self.end_pump();
        note(insist(|| self.detach().map_err(|e| crate::cli::one_line(&e))));
        failpoint::at(&self.layout, "teardown:network");
        if let Some(sandbox) = self.sandbox.take()
            && let Err(e) = sandbox.remove()
        {
            tracing::warn!("{}", runtime::chain(&e));
            note(insist(|| runtime::sandbox::unpin(&self.dir.pin).map_err(|e| runtime::chain(&e))));
        }
        failpoint::at(&self.layout, "teardown:sandbox");
        if !left.is_empty() {
            self.leaves_something = true;
            let message = format!(
                "something is left of the pod ({}): `podshim prune` removes it",
                left.join("; ")
            );
            let reason = "FailedKillPod".to_owned();
            let event = plan::Event { warning: true, reason, message, container: None };
            self.tell_event(runtime::clock::now(), &event);
        }
        self.record(Fact::TornDown);
    }
}

/// How often a last step is tried, and the pause between. One that has taken its time was patient itself.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(1);

fn insist<E>(mut step: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let begun = Instant::now();
    for _ in 1..TRIES {
        let done = step();
        if done.is_ok() || begun.elapsed() > LONG {
            return done;
        }
        std::thread::sleep(PAUSE);
    }
    step()
}

/// The number of a container's stream in the epoll set.
pub fn stream_token(token: runtime::log::Token) -> u64 {
    let second = u32::from(token.stream == Stream::Stderr);
    tokens::stream(u32::try_from(token.container * 2).unwrap_or(u32::MAX - 1) + second)
}

fn is_of_a_volume(error: &anyhow::Error) -> bool {
    error.is::<SetUpFailed>() || error.is::<runtime::volume::VolumeError>()
}

/// Whether the same attempt may succeed later: a resource that was short, or a path of the host that
/// somebody else may make, and not a thing that is wrong.
fn may_pass(error: &anyhow::Error) -> bool {
    use runtime::volume::VolumeError;
    if matches!(error.downcast_ref(), Some(VolumeError::HostPath { .. })) {
        return true;
    }
    use nix::errno::Errno::{EAGAIN, EBUSY, EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC};
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .filter_map(std::io::Error::raw_os_error)
        .map(nix::errno::Errno::from_raw)
        .any(|e| matches!(e, ENOSPC | ENOMEM | EMFILE | ENFILE | EAGAIN | EBUSY | EDQUOT))
}

/// Removes a directory that containers wrote into. Nobody may come later who would try it again.
pub fn remove_tree(path: &Path) -> anyhow::Result<()> {
    insist(|| bundles::tree::remove(path))
        .with_context(|| format!("cannot remove {}", path.display()))
}
