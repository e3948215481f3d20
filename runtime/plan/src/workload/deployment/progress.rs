//! Whether a deployment is available and gets on: its conditions, which remember.

use super::super::Condition;
use super::{DeploymentSpec, ReplicaSet};
use crate::time::{At, Mono};

/// Pods of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that work.
    pub replicas: u32,
    /// Those of them that are of its template.
    pub updated: u32,
    /// Those that are ready.
    pub ready: u32,
    /// Those that have been ready for `minReadySeconds`.
    pub available: u32,
}

/// What was so when it was planned before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Its pods.
    pub counts: Counts,
    /// The condition `Available`.
    pub available: Option<Noted>,
    /// The condition `Progressing`.
    pub progressing: Option<Noted>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    status: &'static str,
    reason: &'static str,
    message: String,
    /// When its status became what it is.
    changed: At,
    /// When it was said last.
    updated: At,
}

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

const ENOUGH: &str = "MinimumReplicasAvailable";
const NOT_ENOUGH: &str = "MinimumReplicasUnavailable";
const MADE: &str = "NewReplicaSetCreated";
const FOUND: &str = "FoundNewReplicaSet";
const UPDATED: &str = "ReplicaSetUpdated";
const DONE: &str = "NewReplicaSetAvailable";
const LATE: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

impl Noted {
    /// What was noted before, as a condition of its status has it; `None` if this is none of ours.
    #[must_use]
    pub fn recall(reason: &str, message: &str, changed: At, updated: At) -> Option<Noted> {
        let reasons = [ENOUGH, NOT_ENOUGH, MADE, FOUND, UPDATED, DONE, LATE, PAUSED, RESUMED];
        let reason = reasons.into_iter().find(|known| *known == reason)?;
        let status = status_of(reason);
        Some(Noted { status, reason, message: message.to_owned(), changed, updated })
    }

    fn condition(&self, kind: &'static str) -> Condition {
        Condition {
            kind,
            status: self.status,
            reason: self.reason,
            message: self.message.clone(),
            last_update_time: Some(self.updated.wall.rfc3339()),
            last_transition_time: self.changed.wall.rfc3339(),
        }
    }
}

fn status_of(reason: &str) -> &'static str {
    match reason {
        NOT_ENOUGH | LATE => FALSE,
        PAUSED | RESUMED => UNKNOWN,
        _ => TRUE,
    }
}

/// It is said now; when its status became what it is stays known.
fn say(before: Option<&Noted>, reason: &'static str, message: String, now: At) -> Noted {
    let status = status_of(reason);
    let changed = before.filter(|before| before.status == status).map_or(now, |b| b.changed);
    Noted { status, reason, message, changed, updated: now }
}

/// What is so now. `set` is the one of its template.
pub fn note(
    spec: &DeploymentSpec,
    before: &Before,
    counts: Counts,
    set: Option<&ReplicaSet>,
    is_complete: bool,
    now: At,
) -> Before {
    let is_enough = counts.available >= spec.min_available();
    let (reason, message) = if is_enough {
        (ENOUGH, "Deployment has minimum availability.")
    } else {
        (NOT_ENOUGH, "Deployment does not have minimum availability.")
    };
    let available = match &before.available {
        Some(known) if known.reason == reason => known.clone(),
        known => say(known.as_ref(), reason, message.to_owned(), now),
    };
    let progressing = spec
        .progress_deadline_s
        .and_then(|deadline_s| progress(spec, before, counts, set, is_complete, deadline_s, now));
    Before { counts, available: Some(available), progressing }
}

fn progress(
    spec: &DeploymentSpec,
    before: &Before,
    counts: Counts,
    set: Option<&ReplicaSet>,
    is_complete: bool,
    deadline_s: u32,
    now: At,
) -> Option<Noted> {
    let known = before.progressing.as_ref();
    let is = |reason: &str| known.is_some_and(|known| known.reason == reason);
    let new = |reason, message: String| Some(say(known, reason, message, now));
    if spec.is_paused {
        // That it is late stays true.
        let stays = is(PAUSED) || is(LATE);
        return if stays { known.cloned() } else { new(PAUSED, "Deployment is paused".into()) };
    }
    if is(PAUSED) {
        return new(RESUMED, "Deployment is resumed".into());
    }
    let Some(set) = set else { return known.cloned() };
    let name = &set.name;
    if is_complete {
        let done = format!("ReplicaSet \"{name}\" has successfully progressed.");
        let stays = known.filter(|known| known.reason == DONE && known.message == done);
        return stays.cloned().or_else(|| new(DONE, done));
    }
    if set.revision == 0 {
        return new(MADE, format!("Created new replica set \"{name}\""));
    }
    // A pod that is replaced later does not undo a rollout.
    if is(DONE) && counts.replicas == counts.updated {
        return known.cloned();
    }
    let was = before.counts;
    let old = |counts: Counts| counts.replicas.saturating_sub(counts.updated);
    let gets_on = counts.updated > was.updated
        || old(counts) < old(was)
        || counts.ready > was.ready
        || counts.available > was.available;
    if gets_on {
        return new(UPDATED, format!("ReplicaSet \"{name}\" is progressing."));
    }
    let is_late = known.is_some_and(|known| {
        known.reason != DONE && known.updated.mono.plus_s(deadline_s) <= now.mono
    });
    if is_late && !is(LATE) {
        return new(LATE, format!("ReplicaSet \"{name}\" has timed out progressing."));
    }
    known.cloned().or_else(|| new(FOUND, format!("Found new replica set \"{name}\"")))
}

impl Before {
    /// When it is late, if nothing gets on before.
    pub fn late_at(&self, spec: &DeploymentSpec) -> Option<Mono> {
        let known = self.progressing.as_ref()?;
        let counts = !spec.is_paused && ![DONE, LATE].contains(&known.reason);
        spec.progress_deadline_s.filter(|_| counts).map(|s| known.updated.mono.plus_s(s))
    }

    /// As `status.conditions` has them.
    pub fn conditions(&self) -> Vec<Condition> {
        let available = self.available.iter().map(|noted| noted.condition("Available"));
        let progressing = self.progressing.iter().map(|noted| noted.condition("Progressing"));
        available.chain(progressing).collect()
    }
}
