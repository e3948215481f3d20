//! CrashLoopBackOff: "the kubelet restarts them with an exponential backoff delay (10s, 20s, 40s,
//! …), that is capped at 300 seconds; once a container has executed for 10 minutes without any
//! problems, the kubelet resets the restart backoff timer" (Kubernetes, Pod Lifecycle).
//!
//! To the letter of `doBackOff`: the first failure only makes the entry, so the first restart comes
//! at once; the delay counts from the finish; the entry is dropped 600 s after the last decision to
//! start, even while a container waits. Counted for every exit that is followed by a restart, but
//! not for a restart that a user asked for. A host may have a smaller cap (KEP-4603,
//! `KubeletCrashLoopBackOffMax`); the 600 s stay.

use crate::model::Pod;
use crate::state::{Backoff, FIRST_DELAY_S, MAX_DELAY_S, Record};
use crate::time::Mono;

/// After which an entry is dropped: twice the longest delay.
const DROPPED_AFTER_S: u32 = 2 * MAX_DELAY_S;

/// A delay that a container has to wait out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delay {
    /// As told to the user: the whole delay, not what is left of it.
    pub delay_s: u32,
    pub since: Mono,
    pub until: Mono,
}

/// The delay that the last exit brought, if any.
pub(crate) fn delay(record: &Record) -> Option<Delay> {
    let since = record.last.as_ref().filter(|_| !record.forced)?.finished.mono;
    let Backoff { delay_s, decided } = record.backoff?;
    let until = since.plus_s(delay_s).min(decided.plus_s(DROPPED_AFTER_S));
    (until > since).then_some(Delay { delay_s, since, until })
}

/// The entry after a start at `now` that followed an exit.
pub(crate) fn after_start(pod: &Pod, entry: Option<Backoff>, now: Mono) -> Backoff {
    let most = pod.restart_delay_max_s.max(1);
    let kept = entry.filter(|e| now < e.decided.plus_s(DROPPED_AFTER_S));
    let delay_s = kept.map_or(FIRST_DELAY_S, |e| e.delay_s.saturating_mul(2)).min(most);
    Backoff { delay_s, decided: now }
}

/// `1m20s`: seconds as Go prints a duration, because that is what users and tools match on.
pub(crate) fn go_seconds(seconds: u32) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}
