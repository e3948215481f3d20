//! Probes: the startup probe comes first and "disables other checks until it succeeds"; a startup or
//! liveness probe that failed `failureThreshold` times in a row ends the container, which is then
//! subject to its restart policy; a readiness probe says whether the container counts for the pod's
//! readiness, until its last moment (Kubernetes, Liveness, Readiness, and Startup Probes).
//!
//! Attempts follow a schedule of ticks: a slow attempt delays the next, but does not shift the ticks.
//! At most one of a probe is under way. An attempt that could not be made is repeated at once, twice at
//! most, and counts for nothing.
//!
//! **Bursts.** Until a startup or readiness probe has succeeded once, it is also tried between ticks: 10 ms
//! after a failure, then 20 ms, and so on up to the period. An early success counts; an early failure
//! counts for nothing, so thresholds and periods mean what they mean in Kubernetes.

use crate::fact::{Action, ProbeKind, Stop, Subject};
use crate::model::Probe;
use crate::plan::Draft;
use crate::rules::stop;
use crate::state::{Attempts, Incarnation, Life};
use crate::time::Mono;

/// How often an attempt is begun that cannot be made (a kubelet's `maxProbeRetries`).
pub(crate) const TRIES: u32 = 3;
/// From a failure to the first early attempt; doubled each time.
const FIRST_EARLY: u64 = Mono::SECOND / 100;

/// Tries what is due, and stops what has failed.
pub(crate) fn attempt(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        let Some(running) = record.running().filter(|i| i.phase == Life::Running) else { continue };
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            let Some(probe) = running.definition(container).probe(kind) else { continue };
            if let Some(first) = first_tick(draft, c, running, kind, probe) {
                one(draft, c, running, kind, probe, first);
            }
        }
    }
}

/// When the first attempt of a probe is due; `None` while the probe does not apply.
fn first_tick(
    draft: &Draft,
    c: usize,
    running: &Incarnation,
    kind: ProbeKind,
    probe: &Probe,
) -> Option<Mono> {
    let is_asked = stop::asked_for(&draft.state.records[c], running).is_some();
    let is_stopped = running.stop.is_some() || draft.state.ending.is_some() || is_asked;
    let after = match kind {
        ProbeKind::Startup => {
            if is_stopped || running.startup.result == Some(true) {
                return None;
            }
            match running.definition(&draft.pod.containers[c]).post_start {
                true => {
                    running.post_start.ended.filter(|_| running.post_start.failure.is_none())?
                }
                false => running.since.mono,
            }
        }
        ProbeKind::Liveness if is_stopped => return None,
        ProbeKind::Liveness | ProbeKind::Readiness => running.started?,
    };
    Some(running.since.mono.plus_s(probe.initial_delay_s).max(after))
}

fn one(
    draft: &mut Draft,
    c: usize,
    running: &Incarnation,
    kind: ProbeKind,
    probe: &Probe,
    first: Mono,
) {
    let (inc, attempts) = (running.inc, running.attempts(kind));
    let stop = match kind {
        ProbeKind::Startup => Some(Stop::StartupProbe),
        ProbeKind::Liveness => Some(Stop::LivenessProbe),
        ProbeKind::Readiness => None,
    };
    if let (Some(why), Some(false)) = (stop, attempts.result) {
        let grace_s = probe.grace_s.unwrap_or(draft.pod.grace_s);
        return draft.act(Action::Stop { c, inc, why, grace_s });
    }
    let tick = next_tick(probe, first, attempts);
    let due = early(kind, probe, attempts).map_or(tick, |early| early.min(tick));
    if attempts.in_flight.is_none() && due <= draft.now {
        let early = draft.now < tick;
        return draft.act(Action::Probe { c, inc, kind, early, timeout_s: probe.timeout_s });
    }
    let until = attempts.in_flight.is_none().then_some(due);
    let name = &draft.pod.containers[c].name;
    match shown(kind, probe, attempts, name) {
        Some(reason) => draft.wait(Subject::Container(c), reason, Some(running.since.mono), until),
        None => until.into_iter().for_each(|until| draft.wake(until)),
    }
}

fn next_tick(probe: &Probe, first: Mono, attempts: &Attempts) -> Mono {
    let Some(last) = attempts.last else { return first };
    if (1..TRIES).contains(&attempts.errors) {
        return last;
    }
    let period = u64::from(probe.period_s.max(1)) * Mono::SECOND;
    let ticks = last.0.saturating_sub(first.0) / period;
    Mono(first.0.saturating_add(ticks.saturating_add(1).saturating_mul(period)))
}

/// When the next early attempt is due, if there is one.
fn early(kind: ProbeKind, probe: &Probe, attempts: &Attempts) -> Option<Mono> {
    let applies = probe.burst && kind != ProbeKind::Liveness && probe.success_threshold <= 1;
    if !applies || attempts.proved || attempts.errors > 0 {
        return None;
    }
    let delay = FIRST_EARLY.checked_shl(attempts.early).filter(|d| d.leading_zeros() > 0)?;
    let period = u64::from(probe.period_s.max(1)) * Mono::SECOND;
    (delay < period).then_some(Mono(attempts.ended?.0.saturating_add(delay)))
}

/// What a user is told while a probe's result is not as it should be.
fn shown(kind: ProbeKind, probe: &Probe, attempts: &Attempts, name: &str) -> Option<String> {
    let (what, failures, of) = (kind_name(kind), attempts.failures, probe.failure_threshold);
    let said = attempts.said.as_ref().map(|said| format!("; the last said: {said}"));
    let said = said.unwrap_or_default();
    match (kind, attempts.result) {
        (ProbeKind::Startup, _) => Some(format!(
            "startup probe of \"{name}\" has not succeeded ({failures} of {of} failures{said})"
        )),
        (ProbeKind::Readiness, Some(true)) | (ProbeKind::Liveness, _) if failures == 0 => None,
        (ProbeKind::Readiness, None | Some(false)) => Some(format!(
            "{what} probe of \"{name}\" has not succeeded ({failures} failures{said})"
        )),
        _ => Some(format!("{what} probe of \"{name}\" fails ({failures} of {of} failures{said})")),
    }
}

/// The kind as it begins a word in a sentence.
pub(crate) fn kind_name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}
