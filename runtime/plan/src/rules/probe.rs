//! The startup probe: "the kubelet … disables other checks until it succeeds"; after
//! `failureThreshold` failures in a row the container is killed and is subject to its restart policy
//! (Kubernetes, Liveness, Readiness, and Startup Probes).
//!
//! Attempts follow a schedule of ticks that begins `initialDelaySeconds` after the process did: a
//! slow attempt delays the next, but does not shift the ticks. At most one is under way.

use crate::fact::{Action, ProbeKind, Stop, Subject};
use crate::model::Probe;
use crate::plan::Draft;
use crate::state::{Incarnation, Life};
use crate::time::Mono;

/// Tries what is due, and stops what has failed.
pub(crate) fn attempt(draft: &mut Draft) {
    for (c, container, record) in draft.containers() {
        let (Some(probe), Some(running)) = (&container.startup, record.running()) else { continue };
        if running.phase != Life::Running || running.started || running.stop.is_some() {
            continue;
        }
        let (kind, inc) = (ProbeKind::Startup, running.inc);
        if running.probe.failures >= probe.failure_threshold.max(1) {
            let grace_s = probe.grace_s.unwrap_or(draft.pod.grace_s);
            draft.act(Action::Stop { c, inc, why: Stop::StartupProbe, grace_s });
            continue;
        }
        let reason = format!(
            "startup probe of \"{}\" has not succeeded ({} of {} failures)",
            container.name, running.probe.failures, probe.failure_threshold
        );
        let tick = next_tick(probe, running);
        if !running.probe.in_flight && tick <= draft.now {
            draft.act(Action::Probe { c, inc, kind, timeout_s: probe.timeout_s });
        } else {
            let until = (!running.probe.in_flight).then_some(tick);
            draft.wait(Subject::Container(c), reason, Some(running.since.mono), until);
        }
    }
}

fn next_tick(probe: &Probe, running: &Incarnation) -> Mono {
    let first = running.since.mono.plus_s(probe.initial_delay_s);
    let Some(last) = running.probe.last else { return first };
    let period = u64::from(probe.period_s.max(1)) * Mono::SECOND;
    let ticks = last.0.saturating_sub(first.0) / period;
    Mono(first.0.saturating_add(ticks.saturating_add(1).saturating_mul(period)))
}
