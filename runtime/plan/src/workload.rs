//! Controllers: jobs and deployments as pure functions over their pods.
//!
//! As for one pod, deciding is apart from doing: what pods there are comes in as values, how many
//! to make and which to delete comes out. Names, uids and times are the caller's.

pub mod deployment;
pub mod job;
pub mod names;

use serde::{Deserialize, Serialize};

use crate::time::At;

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not all of its containers have run.
    Pending,
    /// It runs.
    Running,
    /// All mains have exited 0.
    Succeeded,
    /// It has ended otherwise.
    Failed,
}

/// A pod as its controller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPod {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.name` of its controller: the job, or a replica set.
    pub owner: String,
    /// `status.phase`.
    pub phase: Phase,
    /// It was asked to end.
    pub deleting: bool,
    /// When it was made.
    pub created: At,
    /// When its last container finished, if it is terminal.
    pub finished: Option<At>,
    /// Σ `restartCount` over init containers (sidecars too) and mains.
    pub restarts: u32,
    /// Since when its condition `Ready` is true, if it is.
    pub ready: Option<At>,
    /// The annotation `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    /// What `podshim run` of this pod alone would exit with.
    pub exit_code: i32,
}

impl WorkloadPod {
    /// Whether it is over.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether it counts as one of the controller's working pods.
    fn is_active(&self) -> bool {
        !self.is_terminal() && !self.deleting
    }
}

/// A condition of a controller's status, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Complete`, `Available`, ….
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// When it was said last; only deployments have that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<String>,
    /// When it last changed.
    pub last_transition_time: String,
}
