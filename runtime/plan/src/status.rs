//! What a user is told of a pod: `status` exactly as Kubernetes prints it, as far as the heart knows
//! it (addresses and QoS class are added by the shim).
//!
//! A second reading of the same state that `plan` decides from; nothing is decided here. Conditions
//! are noted while facts are folded, because their transition times are facts' times.

use serde::{Serialize, Serializer};

use crate::fact::{End, Exit};
use crate::model::{Container, Kind, Pod};
use crate::rules::backoff::{self, go_seconds};
use crate::rules::restart;
use crate::state::{Failure, Incarnation, Life, Record, Run, SandboxPhase, State};
use crate::time::{At, Mono, Wall};

mod conditions;

pub use conditions::Condition;
pub(crate) use conditions::{Conditions, note_transitions};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PodPhase {
    /// Not every main has run yet.
    Pending,
    /// Every main has run, and something may still run.
    Running,
    /// Over; every main exited 0.
    Succeeded,
    /// Over, otherwise.
    Failed,
}

/// The part of a pod's `status` that follows from its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded or Failed.
    pub phase: PodPhase,
    /// Why, in one word, if the pod was ended for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// In a kubelet's order; none before the pod was accepted.
    pub conditions: Vec<Condition>,
    /// When the shim took the pod on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Init containers and sidecars, in spec order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Mains, by name.
    pub container_statuses: Vec<ContainerStatus>,
}

/// The status of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// What it does now.
    pub state: ContainerState,
    /// How its run before ended; `{}` if there was none.
    #[serde(serialize_with = "or_empty")]
    pub last_state: Option<ContainerState>,
    /// Whether it counts for the pod's readiness.
    pub ready: bool,
    /// How often it was started again.
    pub restart_count: u32,
    /// As the manifest names it.
    pub image: String,
    /// As the store names it.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// `podshim://<id>` of the newest run.
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Whether it runs and its startup probe has succeeded.
    pub started: bool,
}

/// `state` and `lastState` of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ContainerState {
    /// It does not run yet, or not again yet.
    Waiting {
        /// In one word.
        reason: String,
        /// In a sentence, if there is more to say.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// It runs.
    Running {
        /// Since when.
        started_at: String,
    },
    /// It is over.
    Terminated {
        /// Its exit code.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError` or `ContainerStatusUnknown`.
        reason: String,
        /// In a sentence, if there is more to say.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// `None` if nothing is known of a run.
        #[serde(skip_serializing_if = "Option::is_none")]
        started_at: Option<String>,
        /// `None` if nothing is known of a run.
        #[serde(skip_serializing_if = "Option::is_none")]
        finished_at: Option<String>,
        /// `podshim://<id>`.
        #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
        container_id: Option<String>,
    },
}

/// What a user is told at `now`.
#[must_use]
pub fn status(pod: &Pod, state: &State, now: At) -> PodStatus {
    let of = |init: bool| {
        let chosen =
            pod.containers.iter().enumerate().filter(move |(_, k)| (k.kind != Kind::Main) == init);
        chosen.map(|(c, _)| container_status(pod, state, c, now.mono)).collect::<Vec<_>>()
    };
    let mut container_statuses = of(false);
    container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    let phase = phase(pod, state);
    let (reason, message) = pod_reason(state, phase).unzip();
    PodStatus {
        phase,
        reason,
        message,
        conditions: conditions::shown(state),
        start_time: state.accepted.map(|at| at.wall.rfc3339()),
        init_container_statuses: of(true),
        container_statuses,
    }
}

/// What `metadata` says of a pod that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// When it was asked for, and its grace period.
    pub deletion_timestamp: String,
    /// The grace period, in seconds.
    pub deletion_grace_period_seconds: u32,
}

/// `deletionTimestamp` and `deletionGracePeriodSeconds`, once somebody wants the pod gone: a user, or
/// the end of its owner.
#[must_use]
pub fn deletion(state: &State) -> Option<Deletion> {
    let delete = state.delete?;
    let grace_s = delete.clock.grace_s;
    let end = Wall(delete.asked.0.saturating_add(u64::from(grace_s) * Mono::SECOND));
    Some(Deletion { deletion_timestamp: end.rfc3339(), deletion_grace_period_seconds: grace_s })
}

/// A terminal phase is told only when nothing can run any more.
pub(crate) fn phase(pod: &Pod, state: &State) -> PodPhase {
    let mut mains = pod.mains().map(|(c, _)| &state.records[c]);
    if !state.nothing_can_run() {
        let all_ran = state.accepted.is_some() && mains.all(|r| r.ever_ran);
        return if all_ran { PodPhase::Running } else { PodPhase::Pending };
    }
    let succeeded = |r: &Record| r.last.as_ref().is_some_and(|run| run.exit.code == 0);
    match state.ending() {
        Some(End::Completed | End::Deleted) if mains.all(succeeded) => PodPhase::Succeeded,
        _ => PodPhase::Failed,
    }
}

fn pod_reason(state: &State, phase: PodPhase) -> Option<(String, String)> {
    if phase != PodPhase::Failed {
        return None;
    }
    let text = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
    match state.ending()? {
        End::DeadlineExceeded => text(
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
        ),
        // A kubelet's words at its host's shutdown.
        End::Interrupted => {
            text("Terminated", "Pod was terminated in response to imminent node shutdown.")
        }
        End::SandboxFailed => {
            let last = state.sandbox.failures.last.as_ref()?;
            text(&last.reason, &last.message)
        }
        End::Completed | End::InitFailed | End::Deleted | End::Suspended => None,
    }
}

fn container_status(pod: &Pod, state: &State, c: usize, now: Mono) -> ContainerStatus {
    let (container, record) = (&pod.containers[c], &state.records[c]);
    let (now_state, last_state) = states(pod, state, c, now);
    let running = record.incarnations.iter().find(|i| i.phase == Life::Running);
    let container_id = match (running, &record.last) {
        (Some(running), _) => running.container_id.as_deref(),
        (None, last) => last.as_ref().and_then(|run| run.container_id.as_deref()),
    };
    let image_id = running.map(|i| &i.image_id).or(record.image.id.as_ref());
    let image_id = image_id.or(record.last.as_ref().map(|run| &run.image_id));
    let shown = running.map_or(container, |i| i.definition(container));
    ContainerStatus {
        name: container.name.clone(),
        state: now_state,
        last_state,
        ready: is_ready(container, record),
        restart_count: state.restart_count(c),
        image: shown.image.clone(),
        image_id: image_id.cloned().unwrap_or_default(),
        container_id: container_id.map(shown_id),
        started: is_started(container, record),
    }
}

/// `ready`: a main or sidecar is ready when it is started and its readiness probe, if it has one, has
/// succeeded; a regular init container when it has completed.
pub(crate) fn is_ready(container: &Container, record: &Record) -> bool {
    match container.kind {
        Kind::Init => record.completed,
        Kind::Sidecar | Kind::Main => {
            let ready = |i: &Incarnation| {
                i.definition(container).readiness.is_none() || i.readiness.result == Some(true)
            };
            record.incarnations.iter().find(|i| i.is_started()).is_some_and(ready)
        }
    }
}

fn is_started(container: &Container, record: &Record) -> bool {
    match container.kind {
        Kind::Init => record.incarnations.iter().any(|i| i.phase == Life::Running),
        Kind::Sidecar | Kind::Main => record.is_started(),
    }
}

/// `state` and `lastState` of container `c`.
fn states(
    pod: &Pod,
    state: &State,
    c: usize,
    now: Mono,
) -> (ContainerState, Option<ContainerState>) {
    let record = &state.records[c];
    let last = record.last.as_ref().map(terminated);
    if let Some(running) = record.incarnations.iter().find(|i| i.phase == Life::Running) {
        let started_at = running.since.wall.rfc3339();
        return (ContainerState::Running { started_at }, last);
    }
    if record.down.is_some() && state.ending.is_none() {
        return (stopped(), last);
    }
    let Some(last) = last else {
        return (never_ran(pod, state, c), None);
    };
    match waiting_again(pod, state, c, now) {
        Some(waiting) => (waiting, Some(last)),
        None => (last, record.previous.as_ref().map(terminated)),
    }
}

/// A sidecar that is not to run.
fn stopped() -> ContainerState {
    let message = "stopped by a user; `podshim start` starts it again".to_owned();
    ContainerState::Waiting { reason: "Stopped".to_owned(), message: Some(message) }
}

fn never_ran(pod: &Pod, state: &State, c: usize) -> ContainerState {
    if is_lost(pod, state, c) {
        return lost();
    }
    if let Some(waiting) = start_failure(&pod.containers[c], &state.records[c]) {
        return waiting;
    }
    let has_init = pod.containers.iter().any(|k| k.kind != Kind::Main);
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    ContainerState::Waiting { reason: reason.to_owned(), message: None }
}

/// Why a container that ran before, and is to run again, does not: the back-off, or what failed since.
fn waiting_again(pod: &Pod, state: &State, c: usize, now: Mono) -> Option<ContainerState> {
    let (container, record) = (&pod.containers[c], &state.records[c]);
    if state.ending.is_some() || !restart::wanted(pod, state, c) {
        return None;
    }
    let delay = backoff::delay(record);
    let over = delay.is_none_or(|d| d.until <= now);
    let failure =
        start_failure(container, record).or_else(|| hook_failure(record)).filter(|_| over);
    failure.or_else(|| {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_seconds(delay?.delay_s),
            container.name,
            full_name(pod)
        );
        Some(ContainerState::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: Some(message),
        })
    })
}

/// Why the last start did not succeed, if it was for its `postStart` hook.
fn hook_failure(record: &Record) -> Option<ContainerState> {
    let message = record.last.as_ref()?.hook_failure.clone()?;
    let reason = "PostStartHookError".to_owned();
    Some(ContainerState::Waiting { reason, message: Some(message) })
}

/// What keeps a container from being started, if it failed.
fn start_failure(container: &Container, record: &Record) -> Option<ContainerState> {
    if let Some(failure) = &record.image.failures.last {
        return Some(image_failure(container, record.image.failures.count, failure));
    }
    let failure = record.create.last.as_ref()?;
    Some(ContainerState::Waiting {
        reason: failure.reason.clone(),
        message: Some(failure.message.clone()),
    })
}

/// The first failure shows itself; from the second on the back-off is shown, as by a kubelet.
fn image_failure(container: &Container, count: u32, failure: &Failure) -> ContainerState {
    let pull = failure.reason == "ErrImagePull";
    let (reason, message) = if pull && count > 1 {
        let message = format!(
            "Back-off pulling image \"{}\": {}: {}",
            container.image, failure.reason, failure.message
        );
        ("ImagePullBackOff", message)
    } else {
        (failure.reason.as_str(), failure.message.clone())
    };
    ContainerState::Waiting { reason: reason.to_owned(), message: Some(message) }
}

/// Whether the final clean-up of a pod declares a container that never ran terminated: every main
/// of a pod that was initialized, and every init container up to the last that ever ran.
fn is_lost(pod: &Pod, state: &State, c: usize) -> bool {
    if !state.nothing_can_run() {
        return false;
    }
    let is_init = |i: usize| pod.containers[i].kind != Kind::Main;
    if !is_init(c) {
        return state.initialized;
    }
    let inits = (0..pod.containers.len()).filter(|i| is_init(*i));
    c <= inits.filter(|i| state.records[*i].ever_ran).max().unwrap_or(0)
}

/// A kubelet's words for a container that ran and is not there any more.
const VANISHED: &str = "The container could not be located when the pod was deleted.  The container used to be Running";

fn lost() -> ContainerState {
    ContainerState::Terminated {
        exit_code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        started_at: None,
        finished_at: None,
        container_id: None,
    }
}

fn terminated(run: &Run) -> ContainerState {
    let exit = &run.exit;
    // A kubelet shows the epoch for what was never executed.
    let started = run.started.map_or(Wall(0), |at| at.wall);
    ContainerState::Terminated {
        exit_code: if exit.start_error.is_some() { 128 } else { exit.code },
        reason: run_reason(run).to_owned(),
        message: exit_message(exit),
        started_at: Some(started.rfc3339()),
        finished_at: Some(run.finished.wall.rfc3339()),
        container_id: run.container_id.as_deref().map(shown_id),
    }
}

/// What the runtime has to say, and what the container said.
fn exit_message(exit: &Exit) -> Option<String> {
    let ours = exit.start_error.as_ref().map(|e| e.message.as_str());
    let ours = ours.or_else(|| exit.lost.then_some(VANISHED));
    let parts: Vec<&str> = [ours, exit.message.as_deref()].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

fn run_reason(run: &Run) -> &'static str {
    if run.started_over { "RestartingAllContainers" } else { exit_reason(&run.exit) }
}

/// The word for an exit.
pub(crate) fn exit_reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { start_error: Some(_), .. } => "StartError",
        Exit { lost: true, .. } => "ContainerStatusUnknown",
        Exit { oom: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

/// `NAME_NAMESPACE(UID)`, a kubelet's name for a pod in its messages.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name, pod.namespace, pod.uid)
}

/// Whether the sandbox exists and is to stay.
pub(crate) fn has_lasting_sandbox(state: &State) -> bool {
    state.sandbox.phase == SandboxPhase::Ready && !state.nothing_can_run()
}

fn shown_id(id: &str) -> String {
    format!("podshim://{id}")
}

fn or_empty<S: Serializer>(state: &Option<ContainerState>, to: S) -> Result<S::Ok, S::Error> {
    match state {
        Some(state) => state.serialize(to),
        None => std::collections::BTreeMap::<(), ()>::new().serialize(to),
    }
}
