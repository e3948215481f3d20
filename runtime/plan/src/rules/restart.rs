//! Which containers are to run: "the restartPolicy for a Pod applies to app containers in the Pod
//! and to regular init containers. Sidecar containers ignore the Pod-level restartPolicy field"
//! (Kubernetes, Pod Lifecycle).
//!
//! Says whether, never when: order is `init`'s, delay is `backoff`'s.

use crate::fact::Exit;
use crate::model::{Kind, Pod, RestartPolicy};
use crate::state::{Run, State};

/// Whether container `c` is to run (again) when it does not, in a pod that does not end.
pub(crate) fn wanted(pod: &Pod, state: &State, c: usize) -> bool {
    let (container, record) = (&pod.containers[c], &state.records[c]);
    let Some(last) = &record.last else { return true };
    record.forced
        || match container.kind {
            Kind::Sidecar => true,
            Kind::Init => !record.completed && pod.restart_policy != RestartPolicy::Never,
            Kind::Main => main_restarts(pod.restart_policy, last),
        }
}

fn main_restarts(policy: RestartPolicy, last: &Run) -> bool {
    match policy {
        RestartPolicy::Always => true,
        // A container that answers the probe's kill with 0 has still failed its probe.
        RestartPolicy::OnFailure => last.exit.code != 0 || last.probe_killed,
        RestartPolicy::Never => false,
    }
}

/// Whether an exit completes a regular init container. A kubelet takes `OOMKilled` for a failure
/// whatever the code says.
pub(crate) fn init_succeeded(exit: &Exit) -> bool {
    exit.code == 0 && !exit.oom
}

/// Whether container `c` has run and will not run again, as far as the policy goes.
pub(crate) fn is_done(pod: &Pod, state: &State, c: usize) -> bool {
    state.records[c].running().is_none() && !wanted(pod, state, c)
}

/// Why a user's wish to restart container `c` is not followed.
pub(crate) fn refusal(pod: &Pod, state: &State, c: usize) -> Option<&'static str> {
    let Some(record) = state.records.get(c) else { return Some("there is no such container") };
    if state.ending.is_some() {
        Some("the pod ends")
    } else if pod.containers[c].kind == Kind::Init {
        Some("it is an init container: it runs to completion, and what comes after relies on it")
    } else if record.running().is_some() {
        None
    } else if record.last.is_none() {
        Some("it has not been started yet")
    } else if !wanted(pod, state, c) {
        Some("it has completed")
    } else {
        None
    }
}
