//! What users ask of single containers of a living pod, and why they do not always get it.
//!
//! A **stopped sidecar** is stopped as for any reason and then stays down until somebody starts it
//! again. It holds nothing back meanwhile, also if it never was started: who stops it wants the pod
//! to go on without it. The pod's readiness says so, and its end waits for nothing.
//!
//! A **changed definition** is "definition changed → kill and start again regardless of policy"
//! (pkg/kubelet/kuberuntime, `computePodActions`) for what runs, with a back-off of its own (a
//! kubelet's key for it holds the definition). What runs is probed, hooked and stopped as what it was
//! made from.

use crate::fact::{Fact, Subject};
use crate::model::{Kind, Pod};
use crate::plan::Draft;
use crate::rules::restart;
use crate::state::State;

/// Why what a user asks for is not done; `None` if it is, and for facts that are nobody's wish.
#[must_use]
pub fn refusal(pod: &Pod, state: &State, fact: &Fact) -> Option<&'static str> {
    match fact {
        Fact::RestartAsked { c } => restart::refusal(pod, state, *c),
        Fact::StopAsked { c } => of_sidecar(pod, state, *c, false),
        Fact::StartAsked { c } => of_sidecar(pod, state, *c, true),
        Fact::Changed { .. } if state.ending.is_some() || state.delete.is_some() => {
            Some("the pod ends")
        }
        _ => None,
    }
}

fn of_sidecar(pod: &Pod, state: &State, c: usize, up: bool) -> Option<&'static str> {
    let (Some(container), Some(record)) = (pod.containers.get(c), state.records.get(c)) else {
        return Some("there is no such container");
    };
    if container.kind != Kind::Sidecar {
        return Some("only sidecars can be stopped and started, and it is none");
    }
    match (state.ending.is_some(), up, record.down.is_some()) {
        (true, _, _) => Some("the pod ends"),
        (_, true, false) => Some("nobody has stopped it"),
        (_, false, true) => Some("it is stopped already"),
        _ => None,
    }
}

/// Says which sidecars are down because somebody stopped them.
pub(crate) fn stay_down(draft: &mut Draft) {
    for (c, _, record) in draft.containers() {
        if record.down.is_some() && record.running().is_none() {
            let reason = "was stopped by a user, until it is started again (`podshim start`)";
            draft.wait(Subject::Container(c), reason, record.down, None);
        }
    }
}
