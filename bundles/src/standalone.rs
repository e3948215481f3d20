//! A container's configuration for another runtime, which knows of no pod.
//!
//! [`oci::spec`](crate::oci::spec) makes what podshim itself needs: namespaces that the pod has
//! already, and the rest left to whoever executes the program. Here becomes of it a `config.json` with
//! which runc, crun or youki run the same container alone: with namespaces of its own where it would
//! have had the pod's, and with the capabilities, limits, filter and kernel parameters that it would
//! have ended up with.

use std::path::Path;

use k8s_openapi::api::core::v1::Container;
pub use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxNamespace, LinuxNamespaceType, LinuxPids,
    LinuxResources, Spec,
};

use crate::oci::{self, ConfigError, ContainerSpec};
use crate::resources::{self, CgroupValues};
use crate::security;
use crate::sysctl::Sysctl;

/// What a container has of its own instead of the pod's.
#[derive(Debug)]
pub struct Alone<'a> {
    /// The container.
    pub container: &'a Container,
    /// Its root filesystem: absolute, or relative to the bundle.
    pub rootfs: &'a Path,
    /// The pod's namespaces that are not the host's: of `net`, `ipc`, `uts`.
    pub namespaces: &'a [&'static str],
    /// The pod's host name.
    pub hostname: &'a str,
    /// The pod's kernel parameters.
    pub sysctls: &'a [Sysctl],
    /// The filter; `None` if it is unconfined.
    pub seccomp: Option<LinuxSeccomp>,
}

/// The configuration of a container that stands alone.
///
/// # Errors
/// If a limit is no quantity.
pub fn spec(made: ContainerSpec, alone: &Alone<'_>) -> Result<Spec, ConfigError> {
    let ContainerSpec { mut spec, process, sub_paths, .. } = made;
    if let Some(root) = spec.root_mut() {
        root.set_path(alone.rootfs.into());
    }
    if let Some(described) = spec.process_mut() {
        // No more than it ends up with: who installs the filter has what that takes.
        described.set_capabilities(Some(oci::capabilities(process.capabilities)));
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        // Nobody binds a part of a volume first.
        let part = sub_paths.iter().find(|part| mount.source().as_ref() == Some(&part.at));
        if let Some(part) = part {
            mount.set_source(Some(part.volume.join(&part.path)));
        }
    }
    if alone.namespaces.contains(&"uts") {
        spec.set_hostname(Some(alone.hostname.to_owned()));
    }
    let limits = limits(alone.container)?;
    if let Some(linux) = spec.linux_mut() {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        // Those with a path are the pod's.
        namespaces.retain(|namespace| namespace.path().is_none());
        let known = [
            ("net", LinuxNamespaceType::Network),
            ("ipc", LinuxNamespaceType::Ipc),
            ("uts", LinuxNamespaceType::Uts),
        ];
        let own = known.into_iter().filter(|(name, _)| alone.namespaces.contains(name));
        namespaces.extend(own.map(|(_, kind)| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        }));
        let sysctls =
            alone.sysctls.iter().map(|s| (s.file.replace('/', "."), s.value.clone())).collect();
        linux
            .set_namespaces(Some(namespaces))
            .set_sysctl(Some(sysctls))
            .set_seccomp(alone.seccomp.clone())
            .set_resources(Some(limits))
            // The runtime's own choice.
            .set_cgroups_path(None);
    }
    Ok(spec)
}

/// The limits in OCI's terms, which are those of cgroup v1: runtimes convert them. Every runtime
/// allows the default devices whatever is said here.
fn limits(container: &Container) -> Result<LinuxResources, ConfigError> {
    let CgroupValues { cpu_shares, cpu_quota_us, cpu_period_us, memory_limit_bytes, pids_max } =
        resources::container_resources(container)?;
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(cpu_shares))
        .set_quota(cpu_quota_us)
        .set_period(cpu_quota_us.map(|_| cpu_period_us));
    let mut memory = LinuxMemory::default();
    memory.set_limit(memory_limit_bytes);
    let mut pids = LinuxPids::default();
    pids.set_limit(pids_max.unwrap_or(-1));
    let mut devices = LinuxDeviceCgroup::default();
    devices.set_allow(security::is_privileged(container)).set_access(Some("rwm".to_owned()));
    let mut limits = LinuxResources::default();
    limits
        .set_cpu(Some(cpu))
        .set_memory(memory_limit_bytes.map(|_| memory))
        .set_pids(pids_max.map(|_| pids))
        .set_devices(Some(vec![devices]));
    Ok(limits)
}
