//! Stopping one container, and the pod: "sidecar containers will be terminated … in the reverse
//! order of their appearance", after the main containers, within the pod's one grace period
//! (KEP-753; Kubernetes, Termination of Pods).
//!
//! - Mains and regular init containers get their stop signal at once.
//! - A sidecar's waits until all mains and all later sidecars are dead, at most for the grace. (A
//!   kubelet looks only at the sidecar directly after it, so a gap breaks its chain; ours does not.)
//! - `preStop` hooks run first, all at once, those of sidecars too.
//! - What a container waited, and what its hook took, is taken off its grace in whole seconds, and
//!   between stop signal and SIGKILL lie always 2 s at least, as with a kubelet.
//! - What was created and never started is killed; what is being created is waited for first.

use crate::fact::{Action, Stop, Subject};
use crate::model::{Kind, Pod};
use crate::plan::Draft;
use crate::rules::hook;
use crate::state::{Clock, Incarnation, Life, Record, SandboxPhase, State};
use crate::time::Mono;

/// The least time between stop signal and SIGKILL (a kubelet's `minimumGracePeriodInSeconds`).
const LEAST_GRACE_S: u32 = 2;

/// Stops single containers of a pod that goes on.
pub(crate) fn containers(draft: &mut Draft) {
    for (c, _, record) in draft.containers() {
        for running in record.incarnations.iter().filter(|i| i.phase == Life::Running) {
            match &running.stop {
                Some(stop) if hook::before_stop(draft, c, running, stop.clock) => {}
                Some(stop) => signal_then_kill(draft, c, running, stop.clock),
                None => {
                    if let Some(why) = asked_for(record, running) {
                        let (inc, grace_s) = (running.inc, draft.pod.grace_s);
                        draft.act(Action::Stop { c, inc, why, grace_s });
                    }
                }
            }
        }
    }
}

/// What a user wants a container to be stopped for.
pub(crate) fn asked_for(record: &Record, running: &Incarnation) -> Option<Stop> {
    if record.down.is_some() {
        Some(Stop::Asked)
    } else if running.old.is_some() {
        Some(Stop::Changed)
    } else {
        record.restart_asked.then_some(Stop::Restart)
    }
}

/// Stops everything.
pub(crate) fn pod(draft: &mut Draft) {
    let Some(clock) = draft.state.ending.as_ref().map(|e| e.clock) else { return };
    for (c, _, record) in draft.containers() {
        for incarnation in record.alive() {
            stop_at_end(draft, c, incarnation, clock);
        }
    }
}

fn stop_at_end(draft: &mut Draft, c: usize, i: &Incarnation, clock: Clock) {
    let (subject, since) = (Subject::Container(c), Some(i.since.mono));
    match i.phase {
        Life::Creating => {
            draft.wait(subject, "is killed as soon as its creation has ended", since, None);
        }
        Life::Created => kill(draft, c, i),
        _ if draft.state.kill_asked => kill(draft, c, i),
        // A signal now could be lost: before execve(2) pid 1 has no handler, so the kernel drops it.
        Life::Starting => {
            let end = kill_at(i, clock, clock.since);
            if end <= draft.now {
                kill(draft, c, i);
            } else {
                draft.wait(subject, "is stopped as soon as it has started", since, Some(end));
            }
        }
        Life::Running => {
            if hook::before_stop(draft, c, i, earlier(i, clock)) {
                return;
            }
            let blocker = (i.signalled.is_none() && clock.deadline() > draft.now)
                .then(|| before_in_order(draft.pod, draft.state, c))
                .flatten();
            match blocker {
                Some(first) => {
                    let reason = format!("waits for \"{first}\" to end before it is stopped");
                    draft.wait(subject, reason, Some(clock.since), Some(clock.deadline()));
                }
                None => signal_then_kill(draft, c, i, clock),
            }
        }
        Life::Exited => {}
    }
}

/// The name of a container that must be dead before sidecar `c` gets its stop signal.
fn before_in_order<'a>(pod: &'a Pod, state: &State, c: usize) -> Option<&'a str> {
    if pod.containers[c].kind != Kind::Sidecar {
        return None;
    }
    pod.containers.iter().zip(&state.records).enumerate().find_map(|(other, (k, record))| {
        let before = k.kind == Kind::Main || (k.kind == Kind::Sidecar && other > c);
        (before && record.running().is_some()).then_some(k.name.as_str())
    })
}

fn signal_then_kill(draft: &mut Draft, c: usize, running: &Incarnation, clock: Clock) {
    let Some(signalled) = running.signalled else {
        return draft.act(Action::Signal { c, inc: running.inc });
    };
    let own = running.stop.as_ref().map(|stop| kill_at(running, stop.clock, signalled));
    let end = kill_at(running, clock, signalled);
    let end = own.map_or(end, |own| own.min(end));
    if end <= draft.now {
        kill(draft, c, running);
    } else {
        draft.wait(Subject::Container(c), "grace period", Some(signalled), Some(end));
    }
}

fn kill(draft: &mut Draft, c: usize, incarnation: &Incarnation) {
    match incarnation.killed {
        None => draft.act(Action::Kill { c, inc: incarnation.inc }),
        since => draft.wait(Subject::Container(c), "was killed and has not ended yet", since, None),
    }
}

/// The clock that ends first: the pod's, or that of the container's own stop.
fn earlier(i: &Incarnation, clock: Clock) -> Clock {
    match &i.stop {
        Some(stop) if stop.clock.deadline() < clock.deadline() => stop.clock,
        _ => clock,
    }
}

/// When a container that was signalled at `signalled` is killed.
fn kill_at(i: &Incarnation, clock: Clock, signalled: Mono) -> Mono {
    let least = signalled.plus_s(LEAST_GRACE_S);
    if signalled < clock.since {
        // A shortened clock began after the signal.
        return clock.deadline().max(least);
    }
    // A hook that was given up took all the time there was.
    let hook_over = i.pre_stop.begun.map(|_| i.pre_stop.ended.unwrap_or(signalled));
    let hook_over = hook_over.unwrap_or(clock.since).clamp(clock.since, signalled);
    let spent = hook_over.whole_s_since(clock.since) + signalled.whole_s_since(hook_over);
    let spent = u32::try_from(spent).unwrap_or(u32::MAX);
    signalled.plus_s(clock.grace_s.saturating_sub(spent)).max(least)
}

/// Whole seconds that incarnation `i` of container `c` has until SIGKILL if it is signalled right
/// after the newest fact; `None` if nothing stops it.
pub(crate) fn left_s(pod: &Pod, state: &State, c: usize, i: &Incarnation) -> Option<u64> {
    let own = i.stop.as_ref().map(|stop| stop.clock);
    let clock = own.into_iter().chain(state.ending.as_ref().map(|e| e.clock));
    // With something before it in the order alive, only the end of the grace can have been the news.
    let in_order = own.is_some() || before_in_order(pod, state, c).is_none();
    let end = |clock: Clock| {
        let at = if in_order { state.latest } else { clock.deadline().max(state.latest) };
        kill_at(i, clock, at).whole_s_since(at)
    };
    clock.map(end).min()
}

/// Removes the pod, once nothing of its containers is left.
pub(crate) fn teardown(draft: &mut Draft) {
    if draft.state.sandbox.phase == SandboxPhase::Making {
        let since = draft.state.sandbox.since;
        draft.wait(Subject::Pod, "is removed as soon as its sandbox has been made", since, None);
    } else if everything_is_gone(draft.state) {
        draft.act(Action::Teardown);
    }
}

fn everything_is_gone(state: &State) -> bool {
    state.records.iter().all(|r| r.incarnations.is_empty())
}
