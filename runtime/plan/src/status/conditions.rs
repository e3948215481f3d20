//! The pod's conditions, and since when each has its value.
//!
//! Computed after every fact; a condition's time moves only when its value does, its reason and
//! message follow without that. A failed pod keeps the `Initialized` it had.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{PodPhase, has_lasting_sandbox, is_ready, phase};
use crate::model::{Container, Kind, Pod};
use crate::state::{Record, Restarting, State};
use crate::time::{At, Wall};

/// One entry of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Initialized`, ….
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// When `status` changed last.
    pub last_transition_time: String,
    /// Why it is not true, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Why it is not true, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A kubelet's order.
const ORDER: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
];
const INITIALIZED: usize = 1;
/// How many are there always; the last only once a pod has started over.
const ALWAYS: usize = 5;

/// The values of the conditions after the last fact, in [`ORDER`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conditions([Value; 6]);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Value {
    holds: bool,
    since: Wall,
    reason: Option<Cow<'static, str>>,
    message: Option<String>,
}

impl Value {
    fn of(holds: bool) -> Value {
        Value { holds, ..Value::default() }
    }

    fn no(reason: &'static str, message: Option<String>) -> Value {
        Value { reason: Some(reason.into()), message, ..Value::default() }
    }
}

/// Brings the conditions up to the state that the fact at `at` has led to.
pub(crate) fn note_transitions(pod: &Pod, state: &mut State, at: At) {
    let Some(accepted) = state.accepted else { return };
    let ready = containers_ready(pod, state);
    let mut values = [
        Value::of(has_lasting_sandbox(state)),
        initialized(pod, state),
        gated(pod, ready.clone()),
        ready,
        Value::of(true),
        starts_over(pod, state),
    ];
    for (index, value) in values.iter_mut().enumerate() {
        let old = &state.conditions.0[index];
        if index == INITIALIZED && phase(pod, state) == PodPhase::Failed {
            *value = old.clone();
        }
        let is_first = old.since == Wall::default();
        value.since = match value.holds == old.holds {
            false => at.wall,
            true if is_first => accepted.wall,
            true => old.since,
        };
    }
    state.conditions = Conditions(values);
}

/// The conditions as they are printed.
pub(super) fn shown(state: &State) -> Vec<Condition> {
    if state.accepted.is_none() {
        return Vec::new();
    }
    let count = if state.restarting_all == Restarting::Never { ALWAYS } else { ORDER.len() };
    let values = ORDER.iter().zip(&state.conditions.0).take(count);
    let show = |(kind, value): (&&'static str, &Value)| Condition {
        kind,
        status: if value.holds { "True" } else { "False" },
        last_transition_time: value.since.rfc3339(),
        reason: value.reason.clone(),
        message: value.message.clone(),
    };
    values.map(show).collect()
}

/// What runs is being killed, so that the pod can start over (KEP-5532).
fn starts_over(pod: &Pod, state: &State) -> Value {
    if matches!(state.restarting_all, Restarting::Killing(_)) {
        let reason = Some("RestartAllContainersStarted".into());
        let message = Some("container exited with restart policy rule".to_owned());
        return Value { reason, message, ..Value::of(true) };
    }
    match phase(pod, state) {
        PodPhase::Succeeded => Value::no("PodCompleted", None),
        PodPhase::Failed => Value::no("PodFailed", None),
        PodPhase::Pending | PodPhase::Running => Value::of(false),
    }
}

/// Every init container has completed and every sidecar is started, or a main has run.
fn initialized(pod: &Pod, state: &State) -> Value {
    if phase(pod, state) == PodPhase::Succeeded {
        return Value { reason: Some("PodCompleted".into()), ..Value::of(true) };
    }
    if pod.mains().any(|(c, _)| state.records[c].ever_ran) {
        return Value::of(true);
    }
    let names = unready(pod, state, |kind| kind != Kind::Main);
    if names.is_empty() {
        return Value::of(true);
    }
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Value::no("ContainersNotInitialized", Some(message))
}

fn containers_ready(pod: &Pod, state: &State) -> Value {
    match phase(pod, state) {
        PodPhase::Succeeded => return Value::no("PodCompleted", None),
        PodPhase::Failed => return Value::no("PodFailed", None),
        PodPhase::Pending | PodPhase::Running => {}
    }
    let names = unready(pod, state, |kind| kind != Kind::Init);
    if names.is_empty() {
        return Value::of(true);
    }
    let message = format!("containers with unready status: [{}]", names.join(" "));
    Value::no("ContainersNotReady", Some(message))
}

/// Nobody here sets conditions of others' making, so a pod that waits for one is not ready.
fn gated(pod: &Pod, ready: Value) -> Value {
    if !ready.holds || pod.gates.is_empty() {
        return ready;
    }
    let missing = |gate: &String| {
        format!("corresponding condition of pod readiness gate {gate:?} does not exist.")
    };
    let texts: Vec<String> = pod.gates.iter().map(missing).collect();
    Value::no("ReadinessGatesNotReady", Some(texts.join(", ")))
}

fn unready<'a>(pod: &'a Pod, state: &State, counts: impl Fn(Kind) -> bool) -> Vec<&'a str> {
    let all = pod.containers.iter().zip(&state.records);
    let unready = |(container, record): &(&Container, &Record)| {
        counts(container.kind) && !is_ready(container, record)
    };
    all.filter(unready).map(|(container, _)| container.name.as_str()).collect()
}
