//! Order of starts: "init containers run and complete their execution one at a time, in order"; a
//! sidecar counts as done once it is `started` (KEP-753), and the mains start together after the
//! last of them.
//!
//! A sidecar that was started once never holds anything back again, whatever becomes of it: its
//! restart runs beside whatever the pod is doing. Nor does one that a user has stopped.

use crate::fact::{Action, Subject};
use crate::model::{Container, Kind};
use crate::plan::Draft;
use crate::rules::backoff::{self, go_seconds};
use crate::rules::restart;
use crate::state::{Life, Record};

/// Starts, in spec order, every container that is to run and that nothing before it holds back.
pub(crate) fn start_in_order(draft: &mut Draft) {
    let mut blocker = None;
    for (c, container, record) in draft.containers() {
        if record.running().is_none() && restart::wanted(draft.pod, draft.state, c) {
            match blocker {
                Some(reason) => draft.wait(Subject::Container(c), holding(reason), None, None),
                None => start(draft, c, record),
            }
        }
        if blocker.is_none() && holds_back(draft, container, record) {
            blocker = Some(container);
        }
    }
}

/// Whether nothing before container `c` holds it back, and no back-off does.
pub(crate) fn may_start(draft: &Draft, c: usize) -> bool {
    let mut before = draft.containers().take(c);
    let waits = backoff::delay(&draft.state.records[c]).is_some_and(|d| d.until > draft.now);
    !waits && !before.any(|(_, container, record)| holds_back(draft, container, record))
}

fn holds_back(draft: &Draft, container: &Container, record: &Record) -> bool {
    // A sidecar that was stopped instead may come up after its turn.
    if draft.state.initialized {
        return false;
    }
    match container.kind {
        Kind::Init => !record.completed,
        Kind::Sidecar => !record.seen_started && record.down.is_none(),
        Kind::Main => false,
    }
}

fn holding(blocker: &Container) -> String {
    match blocker.kind {
        Kind::Sidecar => format!("waits for sidecar \"{}\" to be started", blocker.name),
        _ => format!("waits for init container \"{}\" to complete", blocker.name),
    }
}

fn start(draft: &mut Draft, c: usize, record: &Record) {
    if let Some(delay) = backoff::delay(record).filter(|d| d.until > draft.now) {
        let reason = format!("back-off {} restarting failed container", go_seconds(delay.delay_s));
        draft.wait(Subject::Container(c), reason, Some(delay.since), Some(delay.until));
    } else if let Some(spare) = record.spare().filter(|i| i.phase == Life::Created) {
        draft.act(Action::Start { c, inc: spare.inc, restart_count: record.starts });
    }
}
