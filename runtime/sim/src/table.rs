//! A life as a story that a person reads: when, who, what.

use plan::{
    At, Change, Event, Exit, Fact, Hook, Mono, Pod, PodStatus, ProbeKind, State, change, fold,
    narrate, status,
};

use crate::world::Record;

/// A line of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When, from the first fact on.
    pub at: Mono,
    /// Who: `pod`, or a container's name.
    pub who: String,
    /// What, as the rest of a sentence that begins with who.
    pub what: String,
}

/// The story of a journal: facts in words, and what a user sees change because of them.
#[must_use]
pub fn rows(pod: &Pod, journal: &[Record]) -> Vec<Row> {
    let begin = journal.first().map_or(Mono(0), |record| record.at.mono);
    let mut pod = pod.clone();
    let mut state = State::new(&pod);
    let mut rows = Vec::new();
    let mut said: Vec<(usize, u32, ProbeKind, bool)> = Vec::new();
    for Record { at, fact } in journal {
        let since = Mono(at.mono.0.saturating_sub(begin.0));
        let mut say = |who: String, what: String| rows.push(Row { at: since, who, what });
        let before = status(&pod, &state, *at);
        if let Some((c, what)) = words(&pod, &state, fact).filter(|_| is_news(&mut said, fact)) {
            say(c.map_or("pod".to_owned(), |c| name(&pod, c)), what);
        }
        fold(&pod, &mut state, *at, fact);
        change(&mut pod, fact);
        changes(&before, &status(&pod, &state, *at), &mut say);
    }
    rows
}

/// The Kubernetes events of a journal.
#[must_use]
pub fn events(pod: &Pod, journal: &[Record]) -> Vec<(At, Event)> {
    let mut pod = pod.clone();
    let mut state = State::new(&pod);
    let mut events = Vec::new();
    for Record { at, fact } in journal {
        events.extend(narrate(&pod, &state, fact).into_iter().map(|event| (*at, event)));
        fold(&pod, &mut state, *at, fact);
        change(&mut pod, fact);
    }
    events
}

/// A probe that says the same again is no news.
fn is_news(said: &mut Vec<(usize, u32, ProbeKind, bool)>, fact: &Fact) -> bool {
    let Fact::Probed { c, inc, kind, success, .. } = fact else { return true };
    match said.iter_mut().find(|s| (s.0, s.1, s.2) == (*c, *inc, *kind)) {
        Some(last) => std::mem::replace(&mut last.3, *success) != *success,
        None => {
            said.push((*c, *inc, *kind, *success));
            true
        }
    }
}

fn changes(before: &PodStatus, after: &PodStatus, say: &mut impl FnMut(String, String)) {
    let all = |status: &PodStatus| {
        let inits = status.init_container_statuses.iter();
        inits.chain(&status.container_statuses).cloned().collect::<Vec<_>>()
    };
    for (old, new) in all(before).into_iter().zip(all(after)) {
        if new.started && !old.started {
            say(new.name.clone(), "is started".to_owned());
        }
        if new.ready != old.ready {
            let not = if new.ready { "" } else { "not " };
            say(new.name, format!("is {not}ready"));
        }
    }
    if before.phase != after.phase {
        say("pod".to_owned(), format!("is {:?}", after.phase));
    }
}

fn name(pod: &Pod, c: usize) -> String {
    pod.containers.get(c).map_or_else(|| format!("container {c}"), |k| k.name.clone())
}

/// What a fact says, and of which container; nothing of what only podshim itself is interested in.
fn words(pod: &Pod, state: &State, fact: &Fact) -> Option<(Option<usize>, String)> {
    let grace = |grace_s: &Option<u32>| {
        grace_s.map_or("with its own grace".to_owned(), |s| format!("with a grace of {s} s"))
    };
    Some(match fact {
        Fact::Accepted => (None, "is accepted".to_owned()),
        Fact::Adopted { .. } => (None, "is taken over by another shim".to_owned()),
        Fact::SandboxLost => (None, "has lost its sandbox and all that ran in it".to_owned()),
        Fact::SandboxReady => (None, "has its sandbox".to_owned()),
        Fact::SandboxFailed { message, .. } => (None, format!("gets no sandbox: {message}")),
        Fact::DeleteAsked { grace_s } => (None, format!("is to be deleted {}", grace(grace_s))),
        Fact::SuspendAsked => (None, "is to stop, because the host goes down".to_owned()),
        Fact::KillAsked => (None, "is to be killed at once".to_owned()),
        Fact::Ending { why, grace_s } => {
            (None, format!("ends ({why:?}), with a grace of {grace_s} s"))
        }
        Fact::RestartingAll { c } => {
            (None, format!("starts over, because {} asked for it", name(pod, *c)))
        }
        Fact::TornDown => (None, "is gone".to_owned()),
        Fact::Changed { containers, active_deadline_s } => changed(containers, *active_deadline_s),
        _ => return of_container(state, fact).map(|(c, what)| (Some(c), what)),
    })
}

/// What a user changed; of several containers the number.
fn changed(containers: &[Change], deadline_s: Option<u32>) -> (Option<usize>, String) {
    match (containers, deadline_s) {
        ([one], None) if one.restart => {
            let image = &one.container.image;
            (Some(one.c), format!("is another one from now on (image {image})"))
        }
        ([one], None) => (Some(one.c), "has other limits".to_owned()),
        ([], Some(deadline_s)) => (None, format!("has a deadline of {deadline_s} s")),
        _ => (None, format!("has {} containers changed at once", containers.len())),
    }
}

fn of_container(state: &State, fact: &Fact) -> Option<(usize, String)> {
    Some(match fact {
        Fact::ImagePulling { c } => (*c, "has its image looked for".to_owned()),
        Fact::ImageReady { c, .. } => (*c, "has its image".to_owned()),
        Fact::ImageFailed { c, reason, message } => {
            (*c, format!("gets no image ({reason}): {message}"))
        }
        Fact::Created { c, inc, .. } => (*c, format!("is created (incarnation {inc})")),
        Fact::CreateFailed { c, message, .. } => (*c, format!("cannot be created: {message}")),
        Fact::Started { c, .. } => (*c, format!("runs (restart {})", state.restart_count(*c))),
        Fact::HookRunning { c, hook, .. } => {
            (*c, format!("has its {} hook called", hook_name(*hook)))
        }
        Fact::HookEnded { c, hook, failure, .. } => {
            let how =
                failure.as_ref().map_or("has returned".to_owned(), |f| format!("has failed: {f}"));
            (*c, format!("has a {} hook that {how}", hook_name(*hook)))
        }
        Fact::Notified { c, .. } => (*c, "says READY=1".to_owned()),
        Fact::Probed { c, kind, success, output, .. } => {
            let kind = kind_name(*kind);
            let how = if *success { "passes".to_owned() } else { format!("fails ({output})") };
            (*c, format!("{how}: {kind} probe"))
        }
        Fact::ProbeErrored { c, kind, message, .. } => {
            (*c, format!("could not be tried: {} probe ({message})", kind_name(*kind)))
        }
        Fact::StopAsked { c } => (*c, "is to stop and stay down, as a user asked".to_owned()),
        Fact::StartAsked { c } => (*c, "is to start again, as a user asked".to_owned()),
        Fact::RestartAsked { c } => (*c, "is to be restarted, as a user asked".to_owned()),
        Fact::Stopping { c, why, grace_s, .. } => {
            (*c, format!("is stopped ({why:?}), with a grace of {grace_s} s"))
        }
        Fact::Signalled { c, signal, handled, .. } => {
            let deaf = if *handled { "" } else { ", for which it has no handler" };
            (*c, format!("gets signal {signal}{deaf}"))
        }
        Fact::Killed { c, .. } => (*c, "gets SIGKILL".to_owned()),
        Fact::Exited { c, exit, .. } => (*c, exit_words(exit)),
        _ => return None,
    })
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::PostStart => "postStart",
        Hook::PreStop => "preStop",
    }
}

fn kind_name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}

fn exit_words(exit: &Exit) -> String {
    if let Some(error) = &exit.start_error {
        return format!("cannot be executed: {}", error.message);
    }
    let why = match (exit.oom, exit.signal) {
        (true, _) => " (out of memory)".to_owned(),
        (_, Some(signal)) => format!(" (signal {signal})"),
        _ => String::new(),
    };
    format!("exits with {}{why}", exit.code)
}
