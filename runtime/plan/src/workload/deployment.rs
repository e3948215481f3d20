//! apps/v1 Deployment: its replicas kept running, and rolled over to a new template.
//!
//! A deployment has a replica set for each template that it was given; what a rollout does is to say how
//! many pods each of them is to have ([`rollout`]), over and over. A set then has that many
//! ([`replica_set`]).

mod progress;
mod replica_set;
mod rollout;

use serde::Serialize;

pub use self::progress::{Before, Counts, Noted};
use super::{Condition, WorkloadPod};
use crate::time::{At, Mono};

/// `spec` of a deployment, defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentSpec {
    /// `replicas`.
    pub replicas: u32,
    /// `strategy`.
    pub strategy: Strategy,
    /// `minReadySeconds`: how long a pod has been ready when it is available.
    pub min_ready_s: u32,
    /// `progressDeadlineSeconds`.
    pub progress_deadline_s: Option<u32>,
    /// `revisionHistoryLimit`: how many sets of old templates stay.
    pub history_limit: u32,
    /// `paused`: it is scaled, and not rolled out.
    pub is_paused: bool,
}

/// `strategy` of a deployment, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// No new pod before the last old one has gone.
    Recreate,
    /// Old ones go as new ones become available.
    RollingUpdate {
        /// `maxSurge`: how many there may be over `replicas`.
        surge: u32,
        /// `maxUnavailable`: how many may lack of `replicas`.
        unavailable: u32,
    },
}

/// A number of pods, or a part of `replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Pods(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl Strategy {
    /// A rolling update of so many replicas: surge is rounded up, what may be unavailable down; if both are
    /// none, one may be unavailable (Kubernetes' `ResolveFenceposts`).
    #[must_use]
    pub fn rolling(replicas: u32, surge: Amount, unavailable: Amount) -> Strategy {
        let part = |percent: u32, rest: u64| {
            let part = (u64::from(replicas) * u64::from(percent) + rest) / 100;
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let surge = match surge {
            Amount::Pods(pods) => pods,
            Amount::Percent(percent) => part(percent, 99),
        };
        let unavailable = match unavailable {
            Amount::Pods(pods) => pods,
            Amount::Percent(percent) => part(percent, 0),
        };
        let least = u32::from(surge == 0);
        Strategy::RollingUpdate { surge, unavailable: unavailable.max(least) }
    }
}

impl DeploymentSpec {
    fn surge(&self) -> u32 {
        match self.strategy {
            Strategy::RollingUpdate { surge, .. } => surge,
            Strategy::Recreate => 0,
        }
    }

    /// How many there may be.
    fn most(&self) -> u32 {
        self.replicas.saturating_add(self.surge())
    }

    /// How many have to be available.
    fn min_available(&self) -> u32 {
        match self.strategy {
            Strategy::RollingUpdate { unavailable, .. } => {
                self.replicas.saturating_sub(unavailable)
            }
            Strategy::Recreate => self.replicas,
        }
    }

    fn is_available(&self, pod: &WorkloadPod, now: At) -> bool {
        self.available_at(pod).is_some_and(|at| at <= now.mono)
    }

    /// When a pod that stays ready is available.
    fn available_at(&self, pod: &WorkloadPod) -> Option<Mono> {
        let since = pod.ready.filter(|_| pod.is_active())?;
        Some(since.mono.plus_s(self.min_ready_s))
    }
}

/// The pods of one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSet {
    /// `metadata.name`.
    pub name: String,
    /// The annotation `deployment.kubernetes.io/revision`; 0 if it has just been made.
    pub revision: u64,
    /// When it was made.
    pub created: At,
    /// `spec.replicas`.
    pub replicas: u32,
    /// What the deployment was when it was scaled last.
    pub scaled_for: Option<ScaledFor>,
    /// Its pods.
    pub pods: Vec<WorkloadPod>,
}

/// Annotations of a replica set, from which is known that its deployment has another size now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaledFor {
    /// `deployment.kubernetes.io/desired-replicas`: the deployment's replicas.
    pub replicas: u32,
    /// `deployment.kubernetes.io/max-replicas`: with its surge.
    pub most: u32,
}

/// What follows from a deployment's pods at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentPlan {
    /// The template has no replica set, and is to be given one: it is to be planned again with that.
    pub make_set: bool,
    /// What becomes of each replica set, in the order in which they came.
    pub sets: Vec<SetPlan>,
    /// What is so of it now, for the next plan.
    pub noted: Before,
    /// When time alone changes the answer.
    pub wake_at: Option<Mono>,
    /// `status`.
    pub status: DeploymentStatus,
}

/// What follows for one replica set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPlan {
    /// Its name.
    pub name: String,
    /// How many pods it is to have.
    pub replicas: u32,
    /// Which revision its template is.
    pub revision: u64,
    /// What it was scaled for.
    pub scaled_for: Option<ScaledFor>,
    /// It is old enough to be forgotten.
    pub remove: bool,
    /// How many pods to make.
    pub create: u32,
    /// The uids of those to delete.
    pub delete: Vec<String>,
    /// Its pods that work, are ready, and are available.
    pub counts: (u32, u32, u32),
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

/// Plans a deployment. `new` is the index of the replica set that has its template, `before` what was noted by
/// the plan before.
#[must_use]
pub fn plan(
    spec: &DeploymentSpec,
    sets: &[ReplicaSet],
    new: Option<usize>,
    before: &Before,
    now: At,
) -> DeploymentPlan {
    let counts_of = |set: &ReplicaSet| {
        let count = |fits: &dyn Fn(&&WorkloadPod) -> bool| {
            u32::try_from(set.pods.iter().filter(fits).count()).unwrap_or(u32::MAX)
        };
        (
            count(&|pod| pod.is_active()),
            count(&|pod| pod.is_active() && pod.ready.is_some()),
            count(&|pod| spec.is_available(pod, now)),
        )
    };
    let counts_by_set: Vec<_> = sets.iter().map(counts_of).collect();
    let available: Vec<u32> = counts_by_set.iter().map(|counts| counts.2).collect();
    let sizes = rollout::sizes(spec, sets, &available, new);

    let sum = |of: fn(&(u32, u32, u32)) -> u32| counts_by_set.iter().map(of).sum::<u32>();
    let counts = Counts {
        replicas: sum(|counts| counts.0),
        updated: new.map_or(0, |new| counts_by_set[new].0),
        ready: sum(|counts| counts.1),
        available: sum(|counts| counts.2),
    };
    let is_complete =
        new.is_some() && [counts.replicas, counts.updated, counts.available] == [spec.replicas; 3];
    let forgotten = if is_complete { rollout::forgotten(spec, sets, new) } else { Vec::new() };
    let newest = sets.iter().enumerate().filter(|(n, _)| Some(*n) != new);
    let newest = newest.map(|(_, set)| set.revision).max().unwrap_or(0);

    let mut plans = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let replicas = sizes.replicas[index];
        let (create, delete) = replica_set::plan(replicas, &set.pods);
        let is_new = Some(index) == new;
        plans.push(SetPlan {
            name: set.name.clone(),
            replicas,
            revision: if is_new { set.revision.max(newest + 1) } else { set.revision },
            scaled_for: if sizes.is_scaled[index] || replicas != set.replicas {
                Some(ScaledFor { replicas: spec.replicas, most: spec.most() })
            } else {
                set.scaled_for
            },
            remove: forgotten.contains(&index),
            create,
            delete,
            counts: counts_by_set[index],
        });
    }

    let set = new.map(|new| &sets[new]);
    let noted = progress::note(spec, before, counts, set, is_complete, now);
    let wanted: u32 = sizes.replicas.iter().sum();
    let status = DeploymentStatus {
        replicas: counts.replicas,
        updated_replicas: counts.updated,
        ready_replicas: counts.ready,
        available_replicas: counts.available,
        unavailable_replicas: wanted.saturating_sub(counts.available),
        conditions: noted.conditions(),
    };
    let becomes_available = sets
        .iter()
        .flat_map(|set| &set.pods)
        .filter_map(|pod| spec.available_at(pod))
        .filter(|at| *at > now.mono)
        .min();
    let late = noted.late_at(spec).filter(|_| !is_complete);
    DeploymentPlan {
        make_set: sizes.make_set,
        sets: plans,
        wake_at: [becomes_available, late].into_iter().flatten().min(),
        noted,
        status,
    }
}

#[cfg(test)]
mod tests;
