//! Pods as their controllers see them, of their objects.

use std::time::UNIX_EPOCH;

use plan::workload::{Phase, WorkloadPod};
use plan::{At, Mono, Wall};
use serde_json::Value;

/// The annotation with which a user says which pods to delete first: those of the lowest number.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What a controller wants to know of a pod's object.
#[derive(Clone, Debug)]
pub struct Outline {
    /// `metadata.name`.
    pub name: String,
    /// `status.phase`.
    pub phase: Phase,
    /// Since when its condition Ready is true, if it is.
    pub ready: Option<Wall>,
    /// How often its containers were restarted.
    pub restarts: u32,
    /// `metadata.name` of its controller.
    pub owner: String,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
}

impl Outline {
    /// Of an object.
    pub fn of(object: &Value) -> Outline {
        let status = &object["status"];
        let phase = match status["phase"].as_str() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        };
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let statuses = ["initContainerStatuses", "containerStatuses"];
        let statuses = statuses.iter().filter_map(|list| status[list].as_array()).flatten();
        let restarts: u64 = statuses.filter_map(|s| s["restartCount"].as_u64()).sum();
        let ready = conditions.find(|c| c["type"] == "Ready" && c["status"] == "True");
        let since = |c: &Value| c["lastTransitionTime"].as_str().and_then(wall).unwrap_or_default();
        let metadata = &object["metadata"];
        let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let owner = owners.find(|owner| owner["controller"] == true);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let cost = metadata["annotations"][DELETION_COST].as_str();
        Outline {
            name: text(&metadata["name"]),
            phase,
            ready: ready.map(since),
            restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
            owner: owner.map(|owner| text(&owner["name"])).unwrap_or_default(),
            deletion_cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        }
    }

    /// Its phase is the last.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// What is seen of a pod from outside.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// Its object as it was told last.
    pub outline: Outline,
    /// Nothing of it runs or will run.
    pub gone: bool,
    /// It was asked to end.
    pub deleting: bool,
    /// When it was made.
    pub created: At,
    /// When it was over.
    pub finished: Option<At>,
    /// What it exits with.
    pub exit_code: i32,
    /// When it is looked at.
    pub now: At,
}

/// A pod as its controller sees it.
pub fn workload_pod(seen: Seen<'_>) -> WorkloadPod {
    // A pod that was deleted before anything ran ends without a phase of its own.
    let phase = match (seen.gone, seen.outline.phase) {
        (true, Phase::Pending | Phase::Running) => Phase::Failed,
        (false, Phase::Succeeded | Phase::Failed) => Phase::Running,
        (_, phase) => phase,
    };
    WorkloadPod {
        uid: seen.uid.to_owned(),
        name: seen.outline.name,
        owner: seen.outline.owner,
        phase,
        deleting: seen.deleting,
        created: seen.created,
        finished: seen.finished,
        restarts: seen.outline.restarts,
        ready: seen.outline.ready.map(|wall| on_both(wall, seen.now)),
        deletion_cost: seen.outline.deletion_cost,
        exit_code: seen.exit_code,
    }
}

/// A moment of the wall clock.
pub fn wall(time: &str) -> Option<Wall> {
    let since = humantime::parse_rfc3339(time).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok().map(Wall)
}

/// That moment on both clocks.
pub fn on_both(wall: Wall, now: At) -> At {
    let ago = now.wall.0.saturating_sub(wall.0);
    At { mono: Mono(now.mono.0.saturating_sub(ago)), wall }
}
