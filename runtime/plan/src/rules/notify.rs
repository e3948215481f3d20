//! Containers that say themselves when they are started: "a service … sends `READY=1`" (sd_notify(3)),
//! for those that the annotation `podshim.dev/notify` names.
//!
//! Nothing is decided here, for `started` is a fact's consequence; it is only said what is waited for.

use crate::fact::Subject;
use crate::plan::Draft;
use crate::state::Life;

/// Says who has not said it yet.
pub(crate) fn expect(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        let Some(running) = record.running().filter(|i| i.phase == Life::Running) else { continue };
        if running.definition(container).notify && !running.notified && running.stop.is_none() {
            let reason = format!("\"{}\" has not said that it is ready (READY=1)", container.name);
            draft.wait(Subject::Container(c), reason, Some(running.since.mono), None);
        }
    }
}
