//! Whether a pod whose sandbox is gone gets another one. By Kubernetes' rules it begins there at its first
//! init container again; it gets none if it has begun and its policy is `Never`, or if every main has run
//! and none is to run again. It ends then with the codes that are known.

use crate::fact::End;
use crate::model::{Pod, RestartPolicy};
use crate::rules::restart;
use crate::state::State;

/// Whether something of the pod is to run again.
pub(crate) fn is_made_again(pod: &Pod, state: &State) -> bool {
    let has_begun = state.records.iter().any(|r| r.last.is_some());
    pod.mains().any(|(c, main)| match &state.records[c].last {
        None => !has_begun || restart::policy(pod, main) != RestartPolicy::Never,
        Some(_) => restart::wanted(pod, state, c),
    }) && !restart::init_failed(pod, state)
}

/// How a pod ends that gets none.
pub(crate) fn end(pod: &Pod, state: &State) -> End {
    let last = |c: usize| state.records[c].last.as_ref();
    if pod.mains().any(|(c, _)| last(c).is_some_and(|run| run.interrupted)) {
        End::Interrupted
    } else if pod.mains().all(|(c, _)| last(c).is_some()) {
        End::Completed
    } else {
        End::InitFailed
    }
}
