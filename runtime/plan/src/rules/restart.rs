//! Which containers are to run: "the restartPolicy for a Pod applies to app containers in the Pod
//! and to regular init containers. Sidecar containers ignore the Pod-level restartPolicy field"
//! (Kubernetes, Pod Lifecycle).
//!
//! Says whether, never when: order is `init`'s, delay is `backoff`'s.

use crate::fact::{Action, Exit, Subject};
use crate::model::{Container, Kind, Pod, RestartPolicy, Rule, RuleAction};
use crate::plan::Draft;
use crate::state::{Restarting, Run, State};

/// Whether container `c` is to run (again) when it does not, in a pod that does not end.
pub(crate) fn wanted(pod: &Pod, state: &State, c: usize) -> bool {
    let (container, record) = (&pod.containers[c], &state.records[c]);
    if record.down.is_some() {
        return false;
    }
    let Some(last) = &record.last else { return true };
    record.forced
        || record.again
        || match container.kind {
            Kind::Sidecar => true,
            Kind::Init => !record.completed && init_restarts(pod, container, last),
            Kind::Main => main_restarts(pod, container, last),
        }
}

/// The policy in effect: the container's own, else the pod's (KEP-5307).
pub(crate) fn policy(pod: &Pod, container: &Container) -> RestartPolicy {
    container.policy.unwrap_or(pod.restart_policy)
}

fn init_restarts(pod: &Pod, container: &Container, last: &Run) -> bool {
    rule(container, last).is_some() || policy(pod, container) != RestartPolicy::Never
}

fn main_restarts(pod: &Pod, container: &Container, last: &Run) -> bool {
    let policy = policy(pod, container);
    // A container that answers the probe's kill with 0 has still failed its probe.
    if last.failed_by_us || last.interrupted {
        return policy != RestartPolicy::Never;
    }
    rule(container, last).is_some()
        || match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => last.exit.code != 0,
            RestartPolicy::Never => false,
        }
}

/// What the first rule says that matches how a container ended by itself.
fn rule(container: &Container, last: &Run) -> Option<RuleAction> {
    let matches = |rule: &&Rule| rule.codes.contains(&last.exit.code) == rule.within;
    container.rules.iter().find(matches).map(|rule| rule.action)
}

/// Whether the way in which a container ended makes the pod start over.
pub(crate) fn asks_for_all(container: &Container, last: &Run) -> bool {
    !last.failed_by_us && rule(container, last) == Some(RuleAction::RestartAllContainers)
}

/// Starts the pod over, if an exit asked for it, and kills what still runs then: "all containers are
/// restarted … without preStop hooks and grace" (KEP-5532).
pub(crate) fn all(draft: &mut Draft) {
    if let Restarting::Killing(since) = draft.state.restarting_all {
        for (c, _, record) in draft.containers() {
            let Some(running) = record.running() else { continue };
            match running.killed {
                None => draft.act(Action::Kill { c, inc: running.inc }),
                Some(_) => {
                    let reason = "was killed, because the pod starts over, and has not ended yet";
                    draft.wait(Subject::Container(c), reason, Some(since), None);
                }
            }
        }
    } else if let Some((c, _, _)) = draft.containers().find(|(_, _, record)| record.wants_all) {
        draft.act(Action::RestartAll { c });
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

/// Whether an init container has failed for good.
pub(crate) fn init_failed(pod: &Pod, state: &State) -> bool {
    pod.containers.iter().enumerate().any(|(c, container)| {
        container.kind == Kind::Init && !state.records[c].completed && is_done(pod, state, c)
    })
}

/// Why a user's wish to restart container `c` is not followed.
pub(crate) fn refusal(pod: &Pod, state: &State, c: usize) -> Option<&'static str> {
    let Some(record) = state.records.get(c) else { return Some("there is no such container") };
    if state.ending.is_some() {
        Some("the pod ends")
    } else if pod.containers[c].kind == Kind::Init {
        Some("it is an init container: it runs to completion, and what comes after relies on it")
    } else if record.down.is_some() {
        Some("a user has stopped it (`podshim start` starts it again)")
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
