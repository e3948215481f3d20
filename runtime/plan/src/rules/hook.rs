//! Hooks: `postStart` is called right after the container was started, and it is not `started` before
//! the hook has succeeded; if the hook fails the container is killed. `preStop` runs "immediately
//! before a container is terminated", within its grace period (Kubernetes, Container Lifecycle Hooks).
//!
//! A kubelet waits for a `postStart` for ever, and for nothing else meanwhile, not even the pod's
//! deletion. Here whoever stops a container waits for no `postStart`, and its end ends its hooks.

use crate::fact::{Action, Hook, Stop, Subject};
use crate::plan::Draft;
use crate::rules::stop;
use crate::state::{Clock, Incarnation, Life};

/// Runs `postStart` hooks, and stops what failed its own.
pub(crate) fn after_start(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        let Some(running) = record.running() else { continue };
        let has_one = running.definition(container).post_start;
        let is_stopped = running.stop.is_some() || stop::asked_for(record, running).is_some();
        if !has_one || running.phase != Life::Running || is_stopped {
            continue;
        }
        let (inc, run) = (running.inc, &running.post_start);
        if run.begun.is_none() {
            draft.act(Action::Hook { c, inc, hook: Hook::PostStart });
        } else if run.ended.is_none() {
            let reason = format!("postStart hook of \"{}\" is running", container.name);
            draft.wait(Subject::Container(c), reason, run.begun, None);
        } else if run.failure.is_some() {
            let grace_s = draft.pod.grace_s;
            draft.act(Action::Stop { c, inc, why: Stop::PostStart, grace_s });
        }
    }
}

/// Runs the `preStop` hook of a container that is being stopped; `true` as long as its stop signal
/// has to wait for that.
pub(crate) fn before_stop(
    draft: &mut Draft,
    c: usize,
    running: &Incarnation,
    clock: Clock,
) -> bool {
    let container = running.definition(&draft.pod.containers[c]);
    let run = &running.pre_stop;
    // Without grace there is no time for a hook.
    if !container.pre_stop || running.signalled.is_some() || clock.deadline() <= draft.now {
        return false;
    }
    if run.begun.is_none() {
        draft.act(Action::Hook { c, inc: running.inc, hook: Hook::PreStop });
        return true;
    }
    if run.ended.is_some() {
        return false;
    }
    let reason = format!("preStop hook of \"{}\" is running", container.name);
    draft.wait(Subject::Container(c), reason, run.begun, Some(clock.deadline()));
    true
}
