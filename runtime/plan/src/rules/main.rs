//! When the pod ends: a pod is over once no main is left to run or to restart, whatever its sidecars
//! do ("sidecar containers … do not prevent the Pod from completing", KEP-753), once an init
//! container failed for good, once its `activeDeadlineSeconds` are over, or when somebody deletes it.

use crate::fact::{Action, End};
use crate::plan::Draft;
use crate::rules::{loss, restart};
use crate::state::SandboxPhase;

/// The end of the pod, if one is due.
pub(crate) fn end_due(draft: &mut Draft) -> Option<Action> {
    let (pod, state) = (draft.pod, draft.state);
    let end = |why, grace_s: u32| Some(Action::End { why, grace_s: grace_s.max(1) });
    if state.kill_asked {
        return end(End::Deleted, 1);
    }
    if let Some(delete) = state.delete {
        return end(End::Deleted, delete.clock.grace_s);
    }
    if state.suspend_asked {
        return end(End::Suspended, pod.grace_s);
    }
    if state.sandbox.phase == SandboxPhase::Impossible {
        return end(End::SandboxFailed, pod.grace_s);
    }
    if state.sandbox.phase == SandboxPhase::GivenUp {
        return end(loss::end(pod, state), pod.grace_s);
    }
    let starts_over = state.starts_over();
    if !starts_over && restart::init_failed(pod, state) {
        return end(End::InitFailed, pod.grace_s);
    }
    if !starts_over
        && state.initialized
        && pod.mains().all(|(c, _)| restart::is_done(pod, state, c))
    {
        return end(End::Completed, pod.grace_s);
    }
    // Counted from the acceptance, so that pulls, init containers and restarts are in it.
    let deadline = state.accepted?.mono.plus_s(pod.active_deadline_s?);
    if deadline <= draft.now {
        return end(End::DeadlineExceeded, pod.grace_s);
    }
    draft.wake(deadline);
    None
}
