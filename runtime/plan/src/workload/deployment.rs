//! apps/v1 Deployment: its replicas kept running.
//!
//! There is one template and so one replica set: rollouts are for a daemon that can be given a new
//! one.

use serde::Serialize;

use super::{Condition, Phase, WorkloadPod};
use crate::time::At;

/// What follows from a deployment's pods at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentPlan {
    /// How many pods to make.
    pub create: u32,
    /// The uids of those to delete.
    pub delete: Vec<String>,
    /// `status`.
    pub status: DeploymentStatus,
}

/// `status` of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    replicas: u32,
    updated_replicas: u32,
    ready_replicas: u32,
    available_replicas: u32,
    unavailable_replicas: u32,
    conditions: Vec<Condition>,
}

/// Plans a deployment. `since` is when its availability last changed, `replica_set` its name.
#[must_use]
pub fn plan(replicas: u32, pods: &[WorkloadPod], replica_set: &str, since: At) -> DeploymentPlan {
    let mut active: Vec<&WorkloadPod> = pods.iter().filter(|p| p.is_active()).collect();
    let have = u32::try_from(active.len()).unwrap_or(u32::MAX);
    // Kubernetes' order of victims: not running before running, not ready before ready, more
    // restarts before fewer, newer before older.
    active.sort_by_key(|p| {
        (
            p.phase == Phase::Running,
            p.ready,
            std::cmp::Reverse(p.restarts),
            std::cmp::Reverse(p.created),
        )
    });
    let surplus = have.saturating_sub(replicas) as usize;
    let delete = active.iter().take(surplus).map(|p| p.uid.clone()).collect();
    DeploymentPlan {
        create: replicas.saturating_sub(have),
        delete,
        status: status(replicas, &active, replica_set, since),
    }
}

/// Whether enough replicas are ready.
#[must_use]
pub fn is_available(replicas: u32, pods: &[WorkloadPod]) -> bool {
    // maxUnavailable is 25 % rounded down, and 1 if surge is 0 as well: here of a fixed size.
    let ready = pods.iter().filter(|p| p.is_active() && p.ready).count();
    u32::try_from(ready).unwrap_or(u32::MAX) >= replicas - replicas / 4
}

fn status(
    replicas: u32,
    active: &[&WorkloadPod],
    replica_set: &str,
    since: At,
) -> DeploymentStatus {
    let total = u32::try_from(active.len()).unwrap_or(u32::MAX);
    let ready = u32::try_from(active.iter().filter(|p| p.ready).count()).unwrap_or(u32::MAX);
    let condition = |kind, status, reason, message| Condition {
        kind,
        status,
        reason,
        message,
        last_transition_time: since.wall.rfc3339(),
    };
    let available = ready >= replicas - replicas / 4;
    let availability = if available {
        condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
        )
    } else {
        condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
        )
    };
    let progress = if ready >= replicas {
        condition(
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            format!("ReplicaSet \"{replica_set}\" has successfully progressed."),
        )
    } else {
        condition(
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            format!("ReplicaSet \"{replica_set}\" is progressing."),
        )
    };
    DeploymentStatus {
        replicas: total,
        updated_replicas: total,
        ready_replicas: ready,
        available_replicas: ready,
        unavailable_replicas: replicas.saturating_sub(ready),
        conditions: vec![availability, progress],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, Wall};

    fn pod(uid: &str, phase: Phase, ready: bool, created: u64) -> WorkloadPod {
        WorkloadPod {
            uid: uid.into(),
            name: uid.into(),
            phase,
            deleting: false,
            created: At { mono: Mono(created), wall: Wall(created) },
            finished: None,
            restarts: 0,
            ready,
            exit_code: 0,
        }
    }

    fn planned(replicas: u32, pods: &[WorkloadPod]) -> DeploymentPlan {
        plan(replicas, pods, "web-1", At::default())
    }

    #[test]
    fn missing_replicas_are_made_and_ended_ones_replaced() {
        let pods = [pod("a", Phase::Running, true, 1), pod("b", Phase::Failed, false, 2)];
        assert_eq!(planned(3, &pods).create, 2);
    }

    #[test]
    fn a_pod_that_was_deleted_is_replaced_at_once() {
        let mut leaving = pod("a", Phase::Running, true, 1);
        leaving.deleting = true;
        assert_eq!(planned(1, &[leaving]).create, 1);
    }

    #[test]
    fn of_too_many_the_least_useful_goes() {
        let pods = [
            pod("old", Phase::Running, true, 1),
            pod("new", Phase::Running, true, 9),
            pod("unready", Phase::Running, false, 2),
            pod("pending", Phase::Pending, false, 3),
        ];
        assert_eq!(planned(3, &pods).delete, ["pending"]);
        assert_eq!(planned(2, &pods).delete, ["pending", "unready"]);
        assert_eq!(planned(1, &pods).delete, ["pending", "unready", "new"]);
    }

    #[test]
    fn it_is_available_when_three_quarters_are_ready() {
        let pods = [pod("a", Phase::Running, true, 1), pod("b", Phase::Running, false, 1)];
        assert!(!is_available(2, &pods));
        assert!(is_available(1, &pods));
        assert_eq!(planned(2, &pods).status.conditions[0].reason, "MinimumReplicasUnavailable");
        // Three of four are enough for Available; all are needed to have progressed.
        let mut four: Vec<_> =
            ["a", "b", "c", "d"].map(|uid| pod(uid, Phase::Running, true, 1)).into();
        for (unready, available, progressed) in
            [(0, true, true), (1, true, false), (2, false, false)]
        {
            four[..unready].iter_mut().for_each(|pod| pod.ready = false);
            assert_eq!(is_available(4, &four), available, "{unready}");
            let reasons: Vec<_> =
                planned(4, &four).status.conditions.iter().map(|c| c.reason).collect();
            assert_eq!(reasons[0] == "MinimumReplicasAvailable", available, "{unready}");
            assert_eq!(reasons[1] == "NewReplicaSetAvailable", progressed, "{unready}");
        }
    }
}
