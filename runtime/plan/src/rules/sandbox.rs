//! The pod sandbox: namespaces, cgroup and volumes come first, and no container is created without
//! them. A failure that may pass is tried again after 10 s, 20 s, … 300 s.

use crate::fact::{Action, Subject};
use crate::plan::Draft;
use crate::state::SandboxPhase;

/// Makes the sandbox.
pub(crate) fn make(draft: &mut Draft) {
    let sandbox = &draft.state.sandbox;
    match sandbox.phase {
        // `main::end_due` has ended a pod whose sandbox is impossible or given up.
        SandboxPhase::Ready | SandboxPhase::Impossible | SandboxPhase::GivenUp => {}
        SandboxPhase::Making => {
            draft.wait(Subject::Pod, "its sandbox is being made", sandbox.since, None);
        }
        SandboxPhase::Absent => match (&sandbox.failures.last, sandbox.failures.retry_at()) {
            (Some(failure), Some(retry_at)) if retry_at > draft.now => {
                let reason = format!("the sandbox could not be made: {}", failure.message);
                draft.wait(Subject::Pod, reason, Some(failure.at), Some(retry_at));
            }
            _ => draft.act(Action::MakeSandbox),
        },
    }
}
