//! Requests and limits: quality of service, cgroup values, oom scores.
//!
//! The arithmetic of `k8s.io/component-helpers/resource`, `pkg/apis/core/v1/helper/qos`,
//! `pkg/kubelet/cm/helpers_linux.go` and `pkg/kubelet/qos/policy.go`, with sidecars counted as
//! KEP-753 counts them. Values only; the runtime writes them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::quantity::{Quantity, QuantityError};

/// `cpu.cfs_period_us`, as the kubelet has it.
const PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller quota.
const MIN_QUOTA_US: i64 = 1000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The oom score of what must go last.
const GUARANTEED_SCORE: i32 = -997;
/// The oom score of what goes first.
const BEST_EFFORT_SCORE: i32 = 1000;
/// Of the kernel's pids, what one pod may have: systemd's share for a unit (`TasksMax=`).
const PIDS_PERCENT: u64 = 15;

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    /// Every container has a limit of cpu and memory, and requests it.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// The name of the cgroup directory that pods of this class are in.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Qos::Guaranteed => "guaranteed",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        }
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        })
    }
}

/// What is written into a cgroup, in cgroup v1's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupValues {
    /// `cpu.shares`, 2 to 262144.
    pub cpu_shares: u64,
    /// Microseconds of cpu time a period; `None` is no limit.
    pub cpu_quota_us: Option<i64>,
    /// Length of a period, microseconds.
    pub cpu_period_us: u64,
    /// Bytes; `None` is no limit.
    pub memory_limit_bytes: Option<i64>,
    /// Tasks; `None` is no limit of its own.
    pub pids_max: Option<i64>,
}

impl CgroupValues {
    /// The least that each of both fits into.
    #[must_use]
    pub fn wider(self, other: CgroupValues) -> CgroupValues {
        let most = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.max(b));
        CgroupValues {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: most(self.cpu_quota_us, other.cpu_quota_us),
            cpu_period_us: self.cpu_period_us,
            memory_limit_bytes: most(self.memory_limit_bytes, other.memory_limit_bytes),
            pids_max: most(self.pids_max, other.pids_max),
        }
    }
}

/// Whether an init container is a sidecar (KEP-753).
#[must_use]
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// Init containers and sidecars, then the mains.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// What a container asks for: its request, or else its limit.
///
/// # Errors
/// If the amount is no quantity.
pub fn request(container: &Container, resource: &str) -> Result<Option<Quantity>, QuantityError> {
    requested(container.resources.as_ref(), resource)
}

/// What a container may use at most.
///
/// # Errors
/// If the amount is no quantity.
pub fn limit(container: &Container, resource: &str) -> Result<Option<Quantity>, QuantityError> {
    limited(container.resources.as_ref(), resource)
}

fn requested(
    resources: Option<&ResourceRequirements>,
    resource: &str,
) -> Result<Option<Quantity>, QuantityError> {
    match get(resources.and_then(|r| r.requests.as_ref()), resource)? {
        Some(request) => Ok(Some(request)),
        None => limited(resources, resource),
    }
}

fn limited(
    resources: Option<&ResourceRequirements>,
    resource: &str,
) -> Result<Option<Quantity>, QuantityError> {
    get(resources.and_then(|r| r.limits.as_ref()), resource)
}

fn get(
    list: Option<&BTreeMap<String, Written>>,
    resource: &str,
) -> Result<Option<Quantity>, QuantityError> {
    list.and_then(|list| list.get(resource)).map(|written| written.0.parse()).transpose()
}

/// A reading of one resource of one container: [`request`] or [`limit`].
type Read = fn(&Container, &str) -> Result<Option<Quantity>, QuantityError>;

/// Quality of service class.
///
/// # Errors
/// If an amount is no quantity.
pub fn qos(spec: &PodSpec) -> Result<Qos, QuantityError> {
    let mut any = false;
    let mut guaranteed = true;
    for resource in ["cpu", "memory"] {
        let (mut requests, mut limits) = (Quantity::ZERO, Quantity::ZERO);
        for resources in deciding(spec) {
            let limit = limited(resources, resource)?.filter(|q| *q > Quantity::ZERO);
            let request = requested(resources, resource)?.filter(|q| *q > Quantity::ZERO);
            guaranteed &= limit.is_some();
            requests = requests.plus(request.unwrap_or(Quantity::ZERO));
            limits = limits.plus(limit.unwrap_or(Quantity::ZERO));
            any |= limit.is_some() || request.is_some();
        }
        guaranteed &= requests == limits;
    }
    Ok(match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    })
}

/// Pod-level resources decide alone where there are any (KEP-2837); else all containers do.
fn deciding(spec: &PodSpec) -> Vec<Option<&ResourceRequirements>> {
    match &spec.resources {
        Some(pod) => vec![Some(pod)],
        None => all_containers(spec).map(|c| c.resources.as_ref()).collect(),
    }
}

/// What the pod needs of a resource at the worst moment of its life: while the mains run with all
/// sidecars, or while one init container runs with the sidecars before it.
///
/// `each` sees what each step counts with (which a regular init container inherits from the
/// sidecars before it).
fn sum(
    spec: &PodSpec,
    resource: &str,
    read: Read,
    mut each: impl FnMut(Quantity),
) -> Result<Quantity, QuantityError> {
    let mut running = Quantity::ZERO;
    for main in &spec.containers {
        let own = read(main, resource)?.unwrap_or(Quantity::ZERO);
        each(own);
        running = running.plus(own);
    }
    let (mut sidecars, mut starting) = (Quantity::ZERO, Quantity::ZERO);
    for init in spec.init_containers.iter().flatten() {
        let own = read(init, resource)?.unwrap_or(Quantity::ZERO);
        let step = sidecars.plus(own);
        if is_sidecar(init) {
            sidecars = step;
        }
        each(step);
        starting = starting.max(step);
    }
    Ok(running.plus(sidecars).max(starting))
}

/// The pod's request of a resource, overhead included.
///
/// # Errors
/// If an amount is no quantity.
pub fn pod_request(spec: &PodSpec, resource: &str) -> Result<Quantity, QuantityError> {
    let sum = sum(spec, resource, request, |_| {})?;
    let pod = spec.resources.as_ref();
    let own = match get(pod.and_then(|r| r.requests.as_ref()), resource)? {
        Some(request) => request,
        // Only a pod-level limit: what the containers ask for, or else the limit.
        None if sum > Quantity::ZERO => sum,
        None => limited(pod, resource)?.unwrap_or(sum),
    };
    Ok(own.plus(get(spec.overhead.as_ref(), resource)?.unwrap_or(Quantity::ZERO)))
}

/// The pod's limit of a resource; `None` if it is not limited, which is so as long as one of its
/// containers is not.
///
/// # Errors
/// If an amount is no quantity.
pub fn pod_limit(spec: &PodSpec, resource: &str) -> Result<Option<Quantity>, QuantityError> {
    let mut declared = true;
    let sum = sum(spec, resource, limit, |step| declared &= step > Quantity::ZERO)?;
    let own = match limited(spec.resources.as_ref(), resource)? {
        Some(limit) if limit > Quantity::ZERO => limit,
        _ if declared && sum > Quantity::ZERO => sum,
        _ => return Ok(None),
    };
    Ok(Some(own.plus(get(spec.overhead.as_ref(), resource)?.unwrap_or(Quantity::ZERO))))
}

/// The values of the pod's own cgroup, which hold for all of its containers together. They stay
/// for the pod's life.
///
/// # Errors
/// If an amount is no quantity.
pub fn pod_resources(spec: &PodSpec, host: &Host) -> Result<CgroupValues, QuantityError> {
    let pids_max = i64::try_from(host.pid_max * PIDS_PERCENT / 100).unwrap_or(i64::MAX).max(1);
    Ok(CgroupValues {
        cpu_shares: shares(pod_request(spec, "cpu")?),
        cpu_quota_us: pod_limit(spec, "cpu")?.and_then(quota),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: pod_limit(spec, "memory")?.map(Quantity::ceil),
        pids_max: Some(pids_max),
    })
}

/// The values of a container's own cgroup.
///
/// # Errors
/// If an amount is no quantity.
pub fn container_resources(container: &Container) -> Result<CgroupValues, QuantityError> {
    let positive = |quantity: &Quantity| *quantity > Quantity::ZERO;
    let memory = limit(container, "memory")?.filter(positive);
    Ok(CgroupValues {
        cpu_shares: shares(request(container, "cpu")?.unwrap_or(Quantity::ZERO)),
        cpu_quota_us: limit(container, "cpu")?.filter(positive).and_then(quota),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: memory.map(Quantity::ceil),
        pids_max: None,
    })
}

fn shares(cpu: Quantity) -> u64 {
    let milli = u64::try_from(cpu.milli()).unwrap_or(0);
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(cpu: Quantity) -> Option<i64> {
    let milli = cpu.milli();
    let period = PERIOD_US as i64;
    (milli > 0).then(|| (milli.saturating_mul(period) / 1000).max(MIN_QUOTA_US))
}

/// How soon the kernel kills a container when memory is short: −997 last, 1000 first.
///
/// A sidecar is never killed before the most exposed main.
///
/// # Errors
/// If an amount is no quantity.
pub fn oom_score_adj(
    spec: &PodSpec,
    container: &Container,
    host: &Host,
) -> Result<i32, QuantityError> {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return Ok(GUARANTEED_SCORE);
    }
    match qos(spec)? {
        Qos::Guaranteed => Ok(GUARANTEED_SCORE),
        Qos::BestEffort => Ok(BEST_EFFORT_SCORE),
        Qos::Burstable => burstable_score(spec, container, host),
    }
}

fn burstable_score(
    spec: &PodSpec,
    container: &Container,
    host: &Host,
) -> Result<i32, QuantityError> {
    let share = unassigned_memory(spec)?;
    let score = |memory: i64| {
        let memory = i128::from(memory) + i128::from(share);
        1000 - 1000 * memory / i128::from(host.memory_bytes.max(1))
    };
    let mut lowest = score(memory_request(container)?);
    let mut exposed = i128::MIN;
    let mut sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    if sidecars.any(|sidecar| sidecar.name == container.name) {
        for main in &spec.containers {
            // The score of the smallest request is the highest one.
            exposed = exposed.max(score(memory_request(main)?));
        }
        lowest = lowest.min(exposed);
    }
    let (last, first) = (1000 + GUARANTEED_SCORE, BEST_EFFORT_SCORE - 1);
    Ok(i32::try_from(lowest.clamp(last.into(), first.into())).unwrap_or(first))
}

fn memory_request(container: &Container) -> Result<i64, QuantityError> {
    Ok(request(container, "memory")?.map_or(0, Quantity::ceil))
}

/// What a pod-level request leaves to each container beyond what it asks for itself.
fn unassigned_memory(spec: &PodSpec) -> Result<i64, QuantityError> {
    if spec.resources.is_none() {
        return Ok(0);
    }
    let (mut assigned, mut containers) = (0_i64, 0_i64);
    for container in all_containers(spec) {
        assigned = assigned.saturating_add(memory_request(container)?);
        containers += 1;
    }
    let pod = requested(spec.resources.as_ref(), "memory")?.map_or(0, Quantity::ceil);
    Ok(pod.saturating_sub(assigned).max(0) / containers.max(1))
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
