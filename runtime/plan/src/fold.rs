//! Folding one fact into the state.
//!
//! Total: a fact that cannot be (an unknown container, an exit told twice, a start of what was
//! never created) changes nothing, because facts come from a journal and from a world that no
//! assertion stops. Decides nothing; the shim folds each fact right after writing it down.

use crate::fact::{Change, Exit, Fact, Hook, Stop};
use crate::model::{Container, Kind, Pod, Probe};
use crate::rules::probe::TRIES;
use crate::rules::{asked, backoff, loss, restart};
use crate::state::{
    Attempts, Clock, Deletion, Early, Ending, Failures, HookRun, Image, Incarnation, Life, Record,
    Restarting, Run, Sandbox, SandboxPhase, State, Stopping,
};
use crate::status;
use crate::time::At;

/// Remembers that `fact` happened at `at`.
pub fn fold(pod: &Pod, state: &mut State, at: At, fact: &Fact) {
    match fact {
        Fact::Accepted => {
            state.accepted.get_or_insert(at);
        }
        Fact::SandboxLost => lose(pod, state, at),
        Fact::SandboxMaking | Fact::SandboxReady | Fact::SandboxFailed { .. } => {
            sandbox(state, at, fact)
        }
        Fact::DeleteAsked { grace_s } => delete(pod, state, at, *grace_s),
        Fact::KillAsked => {
            state.kill_asked = true;
            delete(pod, state, at, Some(0));
        }
        Fact::SuspendAsked => state.suspend_asked = true,
        Fact::RestartAsked { c } => restart_asked(pod, state, *c),
        Fact::StopAsked { c } | Fact::StartAsked { c } => {
            if asked::refusal(pod, state, fact).is_none() {
                stand(&mut state.records[*c], at, matches!(fact, Fact::StartAsked { .. }));
            }
        }
        Fact::Changed { containers, .. } => containers.iter().for_each(|x| changed(pod, state, x)),
        Fact::RestartingAll { c } => restarting_all(state, at, *c),
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
    start_over(state);
    // What an init container does when it is told to stop completes nothing.
    state.initialized |= state.accepted.is_some()
        && state.ending.is_none()
        && pod.containers.iter().zip(&state.records).all(|(c, r)| match c.kind {
            Kind::Init => r.completed,
            Kind::Sidecar => r.seen_started || r.down.is_some(),
            Kind::Main => true,
        });
    state.latest = state.latest.max(at.mono);
    status::note_transitions(pod, state, at);
}

fn sandbox(state: &mut State, at: At, fact: &Fact) {
    let sandbox = &mut state.sandbox;
    // How it came out is told twice, or of a sandbox that nobody makes.
    if *fact != Fact::SandboxMaking && sandbox.phase != SandboxPhase::Making {
        return;
    }
    sandbox.phase = match fact {
        Fact::SandboxMaking => SandboxPhase::Making,
        Fact::SandboxFailed { reason, message, again } => {
            sandbox.failures.add(at, reason, message);
            if *again { SandboxPhase::Absent } else { SandboxPhase::Impossible }
        }
        _ => {
            sandbox.failures = Failures::default();
            sandbox.lost = false;
            SandboxPhase::Ready
        }
    };
    sandbox.since = Some(at.mono);
}

/// Nothing of the pod lives any more. How what ran has ended nobody saw. If the pod is made again, it begins
/// at its first init container, and nothing that went wrong in the world of before delays it.
fn lose(pod: &Pod, state: &mut State, at: At) {
    if state.accepted.is_none() || (state.torn_down && !state.is_suspended()) {
        return;
    }
    let circumstances = Circumstances { ends: true, ..Circumstances::of(state) };
    let lost = Exit { code: 137, lost: true, ..Exit::default() };
    for (container, record) in pod.containers.iter().zip(&mut state.records) {
        if let Some(i) = record.incarnations.iter().position(Incarnation::runs) {
            exited(container, record, i, at, &lost, circumstances);
        }
        record.incarnations.clear();
        record.image = Image::default();
        record.create = Failures::default();
        record.backoff = None;
    }
    state.sandbox = Sandbox { lost: true, ..Sandbox::default() };
    state.suspend_asked = false;
    if state.is_suspended() {
        state.ending = None;
        state.torn_down = false;
    }
    if state.ending.is_some() {
        return;
    }
    if !loss::is_made_again(pod, state) {
        state.sandbox.phase = SandboxPhase::GivenUp;
        return;
    }
    state.initialized = false;
    for (container, record) in pod.containers.iter().zip(&mut state.records) {
        record.completed = false;
        record.seen_started = false;
        record.forced |= container.kind == Kind::Init && record.last.is_some();
    }
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

/// A sidecar is to stay down, or to come up again: then without the back-off of its last run.
fn stand(record: &mut Record, at: At, up: bool) {
    record.down = (!up).then_some(at.mono);
    record.forced = up && record.running().is_none() && record.last.is_some();
}

/// What exists of a container keeps the definition that it was made from. Nothing that went wrong with
/// that counts for the new one, and its image is looked for anew. What has completed does not run again.
fn changed(pod: &Pod, state: &mut State, change: &Change) {
    let c = change.c;
    if !change.restart || c >= state.records.len() || c >= pod.containers.len() {
        return;
    }
    let is_done = restart::is_done(pod, state, c);
    let record = &mut state.records[c];
    for incarnation in record.incarnations.iter_mut().filter(|i| i.phase != Life::Exited) {
        incarnation.old.get_or_insert_with(|| Box::new(pod.containers[c].clone()));
    }
    record.forced |= record.running().is_none() && record.last.is_some() && !is_done;
    record.backoff = None;
    record.create = Failures::default();
    record.image = Image::default();
}

fn restarting_all(state: &mut State, at: At, c: usize) {
    if state.ending.is_some() {
        return;
    }
    state.restarting_all = Restarting::Killing(at.mono);
    for (other, record) in state.records.iter_mut().enumerate() {
        record.wants_all = false;
        if other == c {
            record.again = true;
        }
    }
}

/// When nothing runs any more, the pod is as it was before its first start, but for its counts, its
/// sandbox and its volumes. The back-off holds for the container that was the cause, which alone is
/// not `forced`.
fn start_over(state: &mut State) {
    if !matches!(state.restarting_all, Restarting::Killing(_)) {
        return;
    }
    if state.ending.is_some() {
        state.restarting_all = Restarting::Done;
    } else if state.records.iter().all(|r| r.running().is_none()) {
        state.restarting_all = Restarting::Done;
        state.initialized = false;
        for record in &mut state.records {
            record.completed = false;
            record.seen_started = false;
            record.forced = !record.again && record.last.is_some();
        }
    }
}

fn of_container(pod: &Pod, state: &mut State, at: At, fact: &Fact) {
    let Some((c, inc)) = subject(fact) else { return };
    let circumstances = Circumstances::of(state);
    let (Some(container), Some(record)) = (pod.containers.get(c), state.records.get_mut(c)) else {
        return;
    };
    match (fact, inc) {
        (Fact::Creating { .. }, Some(inc)) => creating(record, at, inc),
        (_, None) => image(record, at, fact),
        (_, Some(inc)) => {
            if let Some(index) = record.incarnations.iter().position(|i| i.inc == inc) {
                of_incarnation(pod, container, record, index, at, fact, circumstances);
            }
        }
    }
}

/// What goes on in the pod while something happens to one container of it.
#[derive(Clone, Copy)]
struct Circumstances {
    ends: bool,
    starts_over: bool,
    is_suspended: bool,
}

impl Circumstances {
    fn of(state: &State) -> Circumstances {
        Circumstances {
            ends: state.ending.is_some(),
            starts_over: matches!(state.restarting_all, Restarting::Killing(_)),
            is_suspended: state.is_suspended(),
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
        | Fact::HookRunning { c, inc, .. }
        | Fact::HookEnded { c, inc, .. }
        | Fact::Notified { c, inc }
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
        old: None,
        since: at,
        started: None,
        notified: false,
        post_start: HookRun::default(),
        pre_stop: HookRun::default(),
        startup: Attempts::default(),
        readiness: Attempts::default(),
        liveness: Attempts::default(),
        stop: None,
        signalled: None,
        killed: None,
    });
}

fn of_incarnation(
    pod: &Pod,
    container: &Container,
    record: &mut Record,
    i: usize,
    at: At,
    fact: &Fact,
    circumstances: Circumstances,
) {
    let incarnation = &mut record.incarnations[i];
    match (fact, incarnation.phase) {
        (Fact::Created { pid, inode, container_id, .. }, Life::Creating) => {
            incarnation.pid = Some(*pid);
            incarnation.inode = Some(*inode);
            incarnation.container_id = Some(container_id.clone());
            enter(incarnation, Life::Created, at);
        }
        (Fact::CreateFailed { reason, message, .. }, Life::Creating) => {
            if incarnation.old.is_none() {
                record.create.add(at, reason, message);
            }
            record.incarnations.remove(i);
        }
        (Fact::Starting { .. }, Life::Created) => {
            enter(incarnation, Life::Starting, at);
            starting(pod, record, at);
        }
        (Fact::Started { .. }, Life::Starting) => {
            enter(incarnation, Life::Running, at);
            record.ever_ran = true;
            note_started(container, record, i, at);
        }
        (Fact::HookRunning { hook, .. }, Life::Running) => {
            hook_mut(incarnation, *hook).begun.get_or_insert(at.mono);
        }
        (Fact::HookEnded { hook, failure, .. }, Life::Running) => {
            let run = hook_mut(incarnation, *hook);
            if run.begun.is_some() && run.ended.is_none() {
                run.ended = Some(at.mono);
                run.failure.clone_from(failure);
                note_started(container, record, i, at);
            }
        }
        (Fact::Notified { .. }, Life::Running) => {
            incarnation.notified = true;
            note_started(container, record, i, at);
        }
        (Fact::Probing { kind, early, .. }, Life::Running) => {
            probing(incarnation.attempts_mut(*kind), at, *early);
        }
        (Fact::Probed { kind, success, output, .. }, Life::Running) => {
            if let Some(probe) = incarnation.definition(container).probe(*kind).cloned() {
                probed(&probe, incarnation.attempts_mut(*kind), at, *success, output);
                note_started(container, record, i, at);
            }
        }
        (Fact::ProbeErrored { kind, message, .. }, Life::Running) => {
            errored(incarnation.attempts_mut(*kind), at, message);
        }
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
            exited(container, record, i, at, exit, circumstances);
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

fn starting(pod: &Pod, record: &mut Record, at: At) {
    if record.last.is_some() && !record.forced {
        record.backoff = Some(backoff::after_start(pod, record.backoff, at.mono));
    }
    record.starts = record.starts.saturating_add(1);
    record.forced = false;
    record.again = false;
    record.create = Failures::default();
}

/// It is `started` when nothing is left of what it was to show.
fn note_started(container: &Container, record: &mut Record, i: usize, at: At) {
    let incarnation = &mut record.incarnations[i];
    let container = incarnation.definition(container);
    let shown = (!container.post_start || incarnation.post_start.has_succeeded())
        && (container.startup.is_none() || incarnation.startup.result == Some(true))
        && (!container.notify || incarnation.notified);
    if shown && incarnation.phase == Life::Running && incarnation.started.is_none() {
        incarnation.started = Some(at.mono);
        record.seen_started = true;
    }
}

fn hook_mut(incarnation: &mut Incarnation, hook: Hook) -> &mut HookRun {
    match hook {
        Hook::PostStart => &mut incarnation.post_start,
        Hook::PreStop => &mut incarnation.pre_stop,
    }
}

fn probing(attempts: &mut Attempts, at: At, early: bool) {
    if early {
        attempts.early = attempts.early.saturating_add(1);
        attempts.in_flight = Some(Early::Yes);
    } else {
        // The second and third try of an attempt that could not be made are at no tick of their own.
        if attempts.errors == 0 || attempts.errors >= TRIES {
            attempts.last = Some(at.mono);
            attempts.errors = 0;
        }
        attempts.in_flight = Some(Early::No);
    }
}

/// An attempt that could not be made; one that ended already changes nothing. An early one is not
/// repeated: the repetition would be at no tick, and yet count.
fn errored(attempts: &mut Attempts, at: At, message: &str) {
    let Some(early) = attempts.in_flight.take() else { return };
    attempts.ended = Some(at.mono);
    attempts.said = Some(message.to_owned());
    if early == Early::No {
        attempts.errors = attempts.errors.saturating_add(1);
    }
}

/// An early success counts, an early failure does not; an attempt that ended already changes nothing.
fn probed(probe: &Probe, attempts: &mut Attempts, at: At, success: bool, output: &str) {
    let Some(early) = attempts.in_flight.take().map(|early| early == Early::Yes) else { return };
    attempts.ended = Some(at.mono);
    attempts.errors = 0;
    if success {
        attempts.failures = 0;
        attempts.successes = attempts.successes.saturating_add(1);
        attempts.said = None;
        if attempts.successes >= probe.success_threshold.max(1) {
            attempts.result = Some(true);
            attempts.proved = true;
        }
        return;
    }
    attempts.said = Some(output.to_owned());
    if early {
        return;
    }
    attempts.successes = 0;
    attempts.failures = attempts.failures.saturating_add(1);
    if attempts.failures >= probe.failure_threshold.max(1) {
        attempts.result = Some(false);
    }
}

/// An exit of something that was started is a run. Of something that was only created it is a
/// failed creation, unless we killed it; of something half created it is nothing (a creator died
/// with its shim) and is simply done again.
fn exited(
    container: &Container,
    record: &mut Record,
    i: usize,
    at: At,
    exit: &Exit,
    circumstances: Circumstances,
) {
    let incarnation = &mut record.incarnations[i];
    let (phase, since) = (incarnation.phase, incarnation.since);
    enter(incarnation, Life::Exited, at);
    match phase {
        Life::Starting | Life::Running => {}
        Life::Created if incarnation.killed.is_none() && incarnation.old.is_none() => {
            let message = format!("its process ended with {} before it was started", exit.code);
            return record.create.add(at, "CreateContainerError", &message);
        }
        _ => return,
    }
    let stop = incarnation.stop.as_ref().map(|s| s.why);
    let was_told = incarnation.signalled.is_some() || incarnation.killed.is_some();
    let interrupted = circumstances.is_suspended && was_told;
    let run = Run {
        inc: incarnation.inc,
        container_id: incarnation.container_id.clone(),
        image_id: incarnation.image_id.clone(),
        started: exit.start_error.is_none().then_some(since),
        finished: at,
        exit: exit.clone(),
        failed_by_us: matches!(
            stop,
            Some(Stop::StartupProbe | Stop::LivenessProbe | Stop::PostStart)
        ),
        started_over: circumstances.starts_over && incarnation.killed.is_some(),
        interrupted,
        hook_failure: incarnation
            .post_start
            .failure
            .clone()
            .filter(|_| stop == Some(Stop::PostStart)),
    };
    record.ever_ran = true;
    // One whose definition was changed as it ended has ended as what nobody wants any more.
    let stopped_by_user = incarnation.old.is_some()
        || matches!(stop, Some(Stop::Restart | Stop::Changed | Stop::Asked));
    record.completed |= container.kind == Kind::Init
        && !stopped_by_user
        && !interrupted
        && restart::init_succeeded(exit);
    record.forced = !record.completed && (record.restart_asked || stopped_by_user);
    record.restart_asked = false;
    record.wants_all = !record.completed
        && !stopped_by_user
        && !circumstances.ends
        && !circumstances.starts_over
        && restart::asks_for_all(container, &run);
    record.previous = record.last.replace(run);
}
