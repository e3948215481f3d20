//! apps/v1 ReplicaSet: as many pods as it is to have.

use std::cmp::Reverse;

use super::super::{Phase, WorkloadPod};

/// How many pods to make, and the uids of those to delete.
pub fn plan(replicas: u32, pods: &[WorkloadPod]) -> (u32, Vec<String>) {
    let mut active: Vec<&WorkloadPod> = pods.iter().filter(|pod| pod.is_active()).collect();
    let have = u32::try_from(active.len()).unwrap_or(u32::MAX);
    // Kubernetes' order of victims: not running before running, not ready before ready, those that cost
    // less, those that have been ready for a shorter time, more restarts before fewer, newer before older.
    active.sort_by_key(|pod| {
        (
            pod.phase == Phase::Running,
            pod.ready.is_some(),
            pod.deletion_cost,
            Reverse(pod.ready.map(|since| since.mono)),
            Reverse(pod.restarts),
            Reverse(pod.created),
        )
    });
    let surplus = have.saturating_sub(replicas) as usize;
    let delete = active.iter().take(surplus).map(|pod| pod.uid.clone()).collect();
    (replicas.saturating_sub(have), delete)
}
