//! What the caller read from the host for the sake of the pods.
//!
//! The modules that compute containers do no I/O: everything that they need to know about the
//! machine comes in through this structure, so that the same pod on the same [`Host`] is always the
//! same bundle.

use crate::capability::CapSet;

/// The machine, and the process that will create the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Physical memory (`MemTotal`), the capacity that oom scores are computed against.
    pub memory_bytes: u64,
    /// Processors online.
    pub cpus: u32,
    /// The host's own address, for `status.hostIP` and the `podIP` of pods on its network.
    pub host_ip: Option<String>,
    /// The name that `spec.nodeName` gives.
    pub node_name: String,
    /// The kernel's host name: what pods on the host's network are called.
    pub hostname: String,
    /// Our own hard limit of open files.
    pub nofile_hard: u64,
    /// `kernel.pid_max`.
    pub pid_max: u64,
    /// Our own bounding set: what a container can have at most.
    pub capabilities: CapSet,
    /// Our own `oom_score_adj`: without `CAP_SYS_RESOURCE` nothing can be set below it.
    pub own_oom_score_adj: i32,
    /// Whether the memory controller accounts swap (`memory.swap.max`, `memory.memsw.*` exist).
    pub swap_accounting: bool,
    /// `/sys/devices/system/cpu/cpu*/thermal_throttle`, those that exist.
    pub thermal_throttle_paths: Vec<String>,
}

impl Host {
    /// Whether limits and scores may be set beyond our own.
    #[must_use]
    pub fn has_sys_resource(&self) -> bool {
        self.capabilities.contains(CapSet::SYS_RESOURCE)
    }
}
