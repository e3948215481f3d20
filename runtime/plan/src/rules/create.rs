//! Creation ahead of the start, and what is done with remains.
//!
//! Only *starts* are ordered (KEP-753); a container that exists and waits costs memory, not meaning.
//! So everything that is to run is created as soon as sandbox and image are there, also what must
//! sit out a back-off, and starting it is then one write. (The exception is what looks into a volume
//! as it is created: that must find there what an init container wrote.) A standby container has a
//! spare even while it runs, and a changed one while its old self is being stopped. Dead incarnations are removed after everything that somebody waits for.

use crate::fact::{Action, Subject};
use crate::model::Kind;
use crate::plan::Draft;
use crate::rules::{image, init, restart};
use crate::state::{Life, SandboxPhase};

/// Whether container `c` needs a new incarnation, as far as its own life goes.
pub(crate) fn is_due(draft: &Draft, c: usize) -> bool {
    let (container, record) = (&draft.pod.containers[c], &draft.state.records[c]);
    let standby = container.standby && container.kind != Kind::Init;
    record.spare().is_none()
        && match record.running() {
            // What is stopped because it is another one now comes back, whatever its policy.
            Some(running) => {
                let again = standby || running.old.is_some();
                again && !container.at_start && record.down.is_none()
            }
            None => restart::wanted(draft.pod, draft.state, c),
        }
}

/// Creates what is to run, and kills what was created in vain.
pub(crate) fn ahead(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        let subject = Subject::Container(c);
        discard_old(draft, c);
        if is_due(draft, c) {
            let too_early = container.at_start && !init::may_start(draft, c);
            if image::is_usable(container, record) && !too_early {
                create(draft, c);
            }
        } else if let Some(spare) = record.spare() {
            let in_vain = restart::is_done(draft.pod, draft.state, c);
            if spare.phase == Life::Creating {
                draft.wait(subject, "is being created", Some(spare.since.mono), None);
            } else if in_vain {
                draft.act(Action::Kill { c, inc: spare.inc });
            }
        }
    }
}

/// What was created from a definition that has been changed since, and was not started, never will be.
fn discard_old(draft: &mut Draft, c: usize) {
    for spare in draft.state.records[c].incarnations.iter().filter(|i| i.old.is_some()) {
        if spare.phase == Life::Created && spare.killed.is_none() {
            draft.act(Action::Kill { c, inc: spare.inc });
        }
    }
}

fn create(draft: &mut Draft, c: usize) {
    let record = &draft.state.records[c];
    let subject = Subject::Container(c);
    if draft.state.sandbox.phase != SandboxPhase::Ready {
        return draft.wait(subject, "waits for the pod's sandbox", draft.state.sandbox.since, None);
    }
    match (&record.create.last, record.create.retry_at()) {
        (Some(failure), Some(retry_at)) if retry_at > draft.now => {
            let reason = format!("could not be created ({}): {}", failure.reason, failure.message);
            draft.wait(subject, reason, Some(failure.at), Some(retry_at));
        }
        _ => draft.act(Action::Create { c, inc: record.next }),
    }
}

/// Removes what dead incarnations left.
pub(crate) fn clean(draft: &mut Draft) {
    for (c, _, record) in draft.containers() {
        for dead in record.incarnations.iter().filter(|i| i.phase == Life::Exited) {
            draft.act(Action::Clean { c, inc: dead.inc });
        }
    }
}
