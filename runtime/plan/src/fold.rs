//! Folding one fact into the state.
//!
//! Total: a fact that cannot be (an unknown container, an exit told twice, a start of what was
//! never created) changes nothing, because facts come from a journal and from a world that no
//! assertion stops. Decides nothing; the shim folds each fact right after writing it down.

use crate::fact::{Exit, Fact, Stop};
use crate::model::{Container, Kind, Pod};
use crate::rules::{backoff, restart};
use crate::state::{
    Attempts, Clock, Deletion, Ending, Failures, Incarnation, Life, Record, Run, SandboxPhase,
    State, Stopping,
};
use crate::status;
use crate::time::At;

/// Remembers that `fact` happened at `at`.
pub fn fold(pod: &Pod, state: &mut State, at: At, fact: &Fact) {
    match fact {
        Fact::Accepted => {
            state.accepted.get_or_insert(at);
        }
        Fact::SandboxMaking | Fact::SandboxReady | Fact::SandboxFailed { .. } => {
            sandbox(state, at, fact)
        }
        Fact::DeleteAsked { grace_s } => delete(pod, state, at, *grace_s),
        Fact::KillAsked => {
            state.kill_asked = true;
            delete(pod, state, at, Some(0));
        }
        Fact::RestartAsked { c } => restart_asked(pod, state, *c),
        Fact::Ending { why, grace_s } => {
            let clock = Clock { since: at.mono, grace_s: *grace_s };
            state.ending.get_or_insert(Ending { why: *why, clock });
        }
        Fact::TornDown => {
            state.torn_down = true;
            state.sandbox.phase = SandboxPhase::Absent;
            state.records.iter_mut().for_each(|r| r.incarnations.clear());
        }
        _ => of_container(pod, state, at, fact),
    }
    // What an init container does when it is told to stop completes nothing.
    state.initialized |= state.accepted.is_some()
        && state.ending.is_none()
        && pod.containers.iter().zip(&state.records).all(|(c, r)| match c.kind {
            Kind::Init => r.completed,
            Kind::Sidecar => r.seen_started,
            Kind::Main => true,
        });
    state.latest = state.latest.max(at.mono);
    status::note_transitions(pod, state, at);
}

fn sandbox(state: &mut State, at: At, fact: &Fact) {
    let sandbox = &mut state.sandbox;
    sandbox.phase = match fact {
        Fact::SandboxMaking => SandboxPhase::Making,
        Fact::SandboxFailed { reason, message, again } => {
            sandbox.failures.add(at, reason, message);
            if *again { SandboxPhase::Absent } else { SandboxPhase::Impossible }
        }
        _ => {
            sandbox.failures = Failures::default();
            SandboxPhase::Ready
        }
    };
    sandbox.since = Some(at.mono);
}

/// A deletion gives at least one second, and a repeated one can only shorten.
fn delete(pod: &Pod, state: &mut State, at: At, grace_s: Option<u32>) {
    let asked = Clock { since: at.mono, grace_s: grace_s.unwrap_or(pod.grace_s).max(1) };
    let earlier = |old: &Clock| asked.deadline() < old.deadline();
    if state.delete.as_ref().is_none_or(|old| earlier(&old.clock)) {
        state.delete = Some(Deletion { clock: asked, asked: at.wall });
    }
    if let Some(ending) = &mut state.ending
        && earlier(&ending.clock)
    {
        ending.clock = asked;
    }
}

fn restart_asked(pod: &Pod, state: &mut State, c: usize) {
    if restart::refusal(pod, state, c).is_some() {
        return;
    }
    let Some(record) = state.records.get_mut(c) else { return };
    if record.running().is_some() {
        record.restart_asked = true;
    } else {
        record.forced = true;
    }
}

fn of_container(pod: &Pod, state: &mut State, at: At, fact: &Fact) {
    let Some((c, inc)) = subject(fact) else { return };
    let (Some(container), Some(record)) = (pod.containers.get(c), state.records.get_mut(c)) else {
        return;
    };
    match (fact, inc) {
        (Fact::Creating { .. }, Some(inc)) => creating(record, at, inc),
        (_, None) => image(record, at, fact),
        (_, Some(inc)) => {
            if let Some(index) = record.incarnations.iter().position(|i| i.inc == inc) {
                of_incarnation(container, record, index, at, fact);
            }
        }
    }
}

/// Which container a fact is about, and which incarnation of it.
fn subject(fact: &Fact) -> Option<(usize, Option<u32>)> {
    Some(match fact {
        Fact::ImagePulling { c } | Fact::ImageReady { c, .. } | Fact::ImageFailed { c, .. } => {
            (*c, None)
        }
        Fact::Creating { c, inc }
        | Fact::Created { c, inc, .. }
        | Fact::CreateFailed { c, inc, .. }
        | Fact::Starting { c, inc }
        | Fact::Started { c, inc }
        | Fact::Probing { c, inc, .. }
        | Fact::Probed { c, inc, .. }
        | Fact::ProbeErrored { c, inc, .. }
        | Fact::Stopping { c, inc, .. }
        | Fact::Signalled { c, inc, .. }
        | Fact::Killed { c, inc }
        | Fact::Exited { c, inc, .. }
        | Fact::Gone { c, inc } => (*c, Some(*inc)),
        _ => return None,
    })
}

fn image(record: &mut Record, at: At, fact: &Fact) {
    let image = &mut record.image;
    match fact {
        Fact::ImagePulling { .. } => image.pulling = Some(at.mono),
        Fact::ImageReady { image_id, .. } => {
            image.id = Some(image_id.clone());
            image.fresh = true;
            image.pulling = None;
            image.failures = Failures::default();
        }
        Fact::ImageFailed { reason, message, .. } => {
            image.pulling = None;
            image.failures.add(at, reason, message);
        }
        _ => {}
    }
}

fn creating(record: &mut Record, at: At, inc: u32) {
    if inc < record.next {
        return;
    }
    record.next = inc.saturating_add(1);
    record.image.fresh = false;
    record.incarnations.push(Incarnation {
        inc,
        phase: Life::Creating,
        pid: None,
        inode: None,
        container_id: None,
        image_id: record.image.id.clone().unwrap_or_default(),
        since: at,
        started: false,
        probe: Attempts::default(),
        stop: None,
        signalled: None,
        killed: None,
    });
}

fn of_incarnation(container: &Container, record: &mut Record, i: usize, at: At, fact: &Fact) {
    let incarnation = &mut record.incarnations[i];
    match (fact, incarnation.phase) {
        (Fact::Created { pid, inode, container_id, .. }, Life::Creating) => {
            incarnation.pid = Some(*pid);
            incarnation.inode = Some(*inode);
            incarnation.container_id = Some(container_id.clone());
            enter(incarnation, Life::Created, at);
        }
        (Fact::CreateFailed { reason, message, .. }, Life::Creating) => {
            record.create.add(at, reason, message);
            record.incarnations.remove(i);
        }
        (Fact::Starting { .. }, Life::Created) => {
            enter(incarnation, Life::Starting, at);
            starting(record, at);
        }
        (Fact::Started { .. }, Life::Starting) => {
            enter(incarnation, Life::Running, at);
            record.ever_ran = true;
            if container.startup.is_none() {
                started(record, i);
            }
        }
        (Fact::Probing { .. }, Life::Running) => {
            incarnation.probe.last = Some(at.mono);
            incarnation.probe.in_flight = true;
        }
        (Fact::Probed { success, .. }, Life::Running) => probed(record, i, *success),
        (Fact::ProbeErrored { .. }, _) => incarnation.probe.in_flight = false,
        (Fact::Stopping { why, grace_s, .. }, Life::Running) => {
            let clock = Clock { since: at.mono, grace_s: *grace_s };
            incarnation.stop.get_or_insert(Stopping { why: *why, clock });
        }
        (Fact::Signalled { .. }, _) => {
            incarnation.signalled.get_or_insert(at.mono);
        }
        (Fact::Killed { .. }, _) => {
            incarnation.killed.get_or_insert(at.mono);
        }
        (Fact::Exited { exit, .. }, phase) if phase != Life::Exited => {
            exited(container, record, i, at, exit);
        }
        (Fact::Gone { .. }, Life::Exited) => {
            record.incarnations.remove(i);
        }
        _ => {}
    }
}

fn enter(incarnation: &mut Incarnation, phase: Life, at: At) {
    incarnation.phase = phase;
    incarnation.since = at;
}

fn starting(record: &mut Record, at: At) {
    if record.last.is_some() && !record.forced {
        record.backoff = Some(backoff::after_start(record.backoff, at.mono));
    }
    record.starts = record.starts.saturating_add(1);
    record.forced = false;
    record.create = Failures::default();
}

fn started(record: &mut Record, i: usize) {
    record.incarnations[i].started = true;
    record.seen_started = true;
}

fn probed(record: &mut Record, i: usize, success: bool) {
    let probe = &mut record.incarnations[i].probe;
    probe.in_flight = false;
    if success {
        probe.failures = 0;
        started(record, i);
    } else {
        probe.failures = probe.failures.saturating_add(1);
    }
}

/// An exit of something that was started is a run. Of something that was only created it is a
/// failed creation, unless we killed it; of something half created it is nothing (a creator died
/// with its shim) and is simply done again.
fn exited(container: &Container, record: &mut Record, i: usize, at: At, exit: &Exit) {
    let incarnation = &mut record.incarnations[i];
    let (phase, since) = (incarnation.phase, incarnation.since);
    enter(incarnation, Life::Exited, at);
    match phase {
        Life::Starting | Life::Running => {}
        Life::Created if incarnation.killed.is_none() => {
            let message = format!("its process ended with {} before it was started", exit.code);
            return record.create.add(at, "CreateContainerError", &message);
        }
        _ => return,
    }
    let stop = incarnation.stop.as_ref().map(|s| s.why);
    let run = Run {
        inc: incarnation.inc,
        container_id: incarnation.container_id.clone(),
        started: exit.start_error.is_none().then_some(since),
        finished: at,
        exit: exit.clone(),
        probe_killed: stop == Some(Stop::StartupProbe),
    };
    record.ever_ran = true;
    let stopped_by_user = stop == Some(Stop::Restart);
    record.completed |=
        container.kind == Kind::Init && !stopped_by_user && restart::init_succeeded(exit);
    record.forced = !record.completed && (record.restart_asked || stopped_by_user);
    record.restart_asked = false;
    record.previous = record.last.replace(run);
}
