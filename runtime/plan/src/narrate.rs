//! The Kubernetes events that facts are worth.
//!
//! Reasons and texts are a kubelet's, because people and tools match on them; where it has none (a
//! container that simply exits) they are ours. Repetition is counted by whoever stores events, not
//! here.

use serde::Serialize;

use crate::fact::{End, Exit, Fact, Hook, ProbeKind, Stop};
use crate::model::{Kind, Pod, RestartPolicy};
use crate::rules::probe::TRIES;
use crate::rules::{backoff, restart, stop};
use crate::state::{Early, State};
use crate::status::full_name;

/// An event of the pod, or of one of its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `type: Warning`; else Normal.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// The container's index, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<usize>,
}

fn event(warning: bool, reason: &str, message: impl Into<String>, c: Option<usize>) -> Event {
    Event { warning, reason: reason.to_owned(), message: message.into(), container: c }
}

fn normal(c: usize, reason: &str, message: impl Into<String>) -> Vec<Event> {
    vec![event(false, reason, message, Some(c))]
}

fn warning(c: usize, reason: &str, message: impl Into<String>) -> Vec<Event> {
    vec![event(true, reason, message, Some(c))]
}

/// The events that `fact` is worth in the state *before* it is folded.
#[must_use]
pub fn narrate(pod: &Pod, state: &State, fact: &Fact) -> Vec<Event> {
    match fact {
        Fact::Adopted { upgraded: true } => {
            let text = "podshim's process for this pod has become another version";
            vec![event(false, "Upgraded", text, None)]
        }
        Fact::Adopted { upgraded: false } => {
            let text = "podshim's process for this pod ended before the pod did, and another one has \
                        taken the pod over";
            vec![event(true, "Adopted", text, None)]
        }
        Fact::SandboxMaking if state.sandbox.lost && state.sandbox.failures.count == 0 => {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            vec![event(false, "SandboxChanged", text, None)]
        }
        Fact::SandboxFailed { reason, message, .. } => {
            let message = match reason.as_str() {
                "FailedCreatePodSandBox" => format!("Failed to create pod sandbox: {message}"),
                _ => message.clone(),
            };
            vec![event(true, reason, message, None)]
        }
        Fact::ImagePulling { c } => {
            normal(*c, "Pulling", format!("Pulling image \"{}\"", image(pod, *c)))
        }
        Fact::ImageReady { c, stale: Some(why), .. } => {
            warning(*c, "Failed", stale_text(pod, *c, why))
        }
        Fact::ImageReady { c, pulled, took_ms, bytes, .. } => {
            normal(*c, "Pulled", pulled_text(image(pod, *c), *pulled, *took_ms, *bytes))
        }
        Fact::ImageFailed { c, reason, message } => image_failed(pod, state, *c, reason, message),
        Fact::Created { c, .. } => normal(*c, "Created", "Container created"),
        Fact::CreateFailed { c, message, .. } => warning(*c, "Failed", format!("Error: {message}")),
        Fact::Started { c, .. } => normal(*c, "Started", "Container started"),
        Fact::Probed { c, inc, kind, success, warned, output } if runs(state, *c, *inc) => {
            probed(state, *c, *inc, *kind, *success, *warned, output)
        }
        Fact::ProbeErrored { c, inc, kind, message } if runs(state, *c, *inc) => {
            probe_errored(state, *c, *inc, *kind, message)
        }
        Fact::HookEnded { c, inc, hook, failure, notice } if runs(state, *c, *inc) => {
            hook_ended(*c, *hook, failure.is_some(), notice.as_deref())
        }
        Fact::Changed { containers, .. } => {
            let resized = containers.iter().filter(|change| !change.restart);
            let text = |c| format!("Container {} has other resources now", name(pod, c));
            resized.map(|x| event(false, "Resized", text(x.c), Some(x.c))).collect()
        }
        Fact::RestartingAll { c } if state.ending.is_none() => {
            let name = name(pod, *c);
            let text = format!(
                "Container {name} exited with a code for which all containers are restarted"
            );
            normal(*c, "RestartingAllContainers", text)
        }
        Fact::RestartAsked { c } => match restart::refusal(pod, state, *c) {
            Some(why) => warning(*c, "RestartRefused", refused_text(pod, *c, why)),
            None => Vec::new(),
        },
        Fact::Ending { why, .. } if state.ending.is_none() => ending(state, *why, pod),
        Fact::Stopping { c, why, .. } => normal(*c, "Killing", stop_text(pod, *c, *why)),
        Fact::Signalled { c, inc, handled: false, signal } => {
            unhandled(pod, state, *c, *inc, *signal)
        }
        Fact::Exited { c, inc, exit } => exited(state, *c, *inc, exit),
        Fact::Gone { c, inc } => back_off(pod, state, *c, *inc),
        _ => Vec::new(),
    }
}

/// The event that a container goes into back-off. Told when the remains of its last run are removed,
/// which follows the exit at once: only then does the state know when the run ended, and so whether
/// it lasted long enough to be free of its delay.
fn back_off(pod: &Pod, state: &State, c: usize, inc: u32) -> Vec<Event> {
    let Some(record) = state.records.get(c) else { return Vec::new() };
    let was_last = record.last.as_ref().is_some_and(|run| run.inc == inc);
    let waits = state.ending.is_none() && record.running().is_none();
    if !was_last || !waits || !restart::wanted(pod, state, c) || backoff::delay(record).is_none() {
        return Vec::new();
    }
    let (name, pod) = (name(pod, c), full_name(pod));
    warning(c, "BackOff", format!("Back-off restarting failed container {name} in pod {pod}"))
}

fn name(pod: &Pod, c: usize) -> &str {
    pod.containers.get(c).map_or("?", |k| &k.name)
}

fn image(pod: &Pod, c: usize) -> &str {
    pod.containers.get(c).map_or("?", |k| &k.image)
}

fn pulled_text(image: &str, pulled: bool, took_ms: u64, bytes: u64) -> String {
    if !pulled {
        return format!(
            "Container image \"{image}\" already present on machine and can be accessed by the pod"
        );
    }
    let took = if took_ms < 1000 {
        format!("{took_ms}ms")
    } else {
        let digits = format!("{}.{:03}", took_ms / 1000, took_ms % 1000);
        format!("{}s", digits.trim_end_matches('0').trim_end_matches('.'))
    };
    format!(
        "Successfully pulled image \"{image}\" in {took} ({took} including waiting). \
         Image size: {bytes} bytes."
    )
}

fn stale_text(pod: &Pod, c: usize, why: &str) -> String {
    format!(
        "The registry could not be reached, so the image \"{}\" that is already present is used: {why}",
        image(pod, c)
    )
}

/// A kubelet's two events of a failed pull, and from the second failure on the two of its back-off.
fn image_failed(pod: &Pod, state: &State, c: usize, reason: &str, message: &str) -> Vec<Event> {
    let image = image(pod, c);
    let error = event(true, "Failed", format!("Error: {reason}"), Some(c));
    if reason == "ErrImageNeverPull" {
        return vec![event(true, "ErrImageNeverPull", message, Some(c)), error];
    }
    let failed = format!("Failed to pull image \"{image}\": {message}");
    let mut events = vec![event(true, "Failed", failed, Some(c)), error];
    if state.records.get(c).is_some_and(|r| r.image.failures.count > 0) {
        events.push(event(
            false,
            "BackOff",
            format!("Back-off pulling image \"{image}\""),
            Some(c),
        ));
        events.push(event(true, "Failed", "Error: ImagePullBackOff", Some(c)));
    }
    events
}

fn refused_text(pod: &Pod, c: usize, why: &str) -> String {
    format!("Container {} is not restarted: {why}", name(pod, c))
}

fn ending(state: &State, why: End, pod: &Pod) -> Vec<Event> {
    let mut events = Vec::new();
    if why == End::DeadlineExceeded {
        let text = "Pod was active on the node longer than the specified deadline";
        events.push(event(true, "DeadlineExceeded", text, None));
    }
    let running = state.records.iter().enumerate().filter(|(_, r)| r.running().is_some());
    events.extend(running.map(|(c, _)| {
        event(false, "Killing", format!("Stopping container {}", name(pod, c)), Some(c))
    }));
    events
}

fn stop_text(pod: &Pod, c: usize, why: Stop) -> String {
    let name = name(pod, c);
    match why {
        Stop::Restart => format!("Container {name} is stopped to be restarted, as a user asked"),
        Stop::Asked => format!("Container {name} is stopped, as a user asked"),
        Stop::Changed => match pod.containers.get(c).map(|k| k.kind) {
            Some(Kind::Main) => format!("Container {name} definition changed, will be restarted"),
            _ => format!("Init container {name} definition changed"),
        },
        Stop::StartupProbe => probe_text(pod, c, "startup"),
        Stop::LivenessProbe => probe_text(pod, c, "liveness"),
        Stop::PostStart => "FailedPostStartHook".into(),
    }
}

fn probe_text(pod: &Pod, c: usize, kind: &str) -> String {
    let Some(container) = pod.containers.get(c) else { return String::new() };
    let name = &container.name;
    if container.kind == Kind::Sidecar {
        return format!("Init container {name} failed {kind} probe");
    }
    let restarts = restart::policy(pod, container) != RestartPolicy::Never;
    let suffix = if restarts { ", will be restarted" } else { "" };
    format!("Container {name} failed {kind} probe{suffix}")
}

/// A kubelet tells each failing check, not only the one that reaches the threshold. Of early ones, which
/// count for nothing, nothing is told.
fn probed(
    state: &State,
    c: usize,
    inc: u32,
    kind: ProbeKind,
    success: bool,
    warned: bool,
    output: &str,
) -> Vec<Event> {
    let attempt = state.incarnations(c).iter().find(|i| i.inc == inc).map(|i| i.attempts(kind));
    let counts = attempt.is_some_and(|a| a.in_flight == Some(Early::No));
    let kind = capital(kind);
    match success {
        true if warned => warning(c, "ProbeWarning", format!("{kind} probe warning: {output}")),
        false if counts => warning(c, "Unhealthy", format!("{kind} probe failed: {output}")),
        _ => Vec::new(),
    }
}

/// Told once the attempt has been repeated in vain.
fn probe_errored(state: &State, c: usize, inc: u32, kind: ProbeKind, message: &str) -> Vec<Event> {
    let attempt = state.incarnations(c).iter().find(|i| i.inc == inc).map(|i| i.attempts(kind));
    if attempt.is_none_or(|a| a.errors.saturating_add(1) < TRIES) {
        return Vec::new();
    }
    let kind = capital(kind);
    let text = format!("{kind} probe errored and resulted in unknown state: {message}");
    warning(c, "Unhealthy", text)
}

fn capital(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    }
}

fn runs(state: &State, c: usize, inc: u32) -> bool {
    state.incarnations(c).iter().any(|i| i.inc == inc && i.runs())
}

/// What a hook said is kept out of its event, as by a kubelet: it may hold secrets.
fn hook_ended(c: usize, hook: Hook, failed: bool, notice: Option<&str>) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(notice) = notice {
        events.push(event(true, "LifecycleHTTPFallback", notice, Some(c)));
    }
    if failed {
        let (reason, text) = match hook {
            Hook::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
            Hook::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
        };
        events.push(event(true, reason, text, Some(c)));
    }
    events
}

/// A process that will not hear its stop signal keeps its whole grace period: it may be about to
/// install a handler, and an exact promise is worth more than an early end.
fn unhandled(pod: &Pod, state: &State, c: usize, inc: u32, signal: i32) -> Vec<Event> {
    let incarnation = state.incarnations(c).iter().find(|i| i.inc == inc);
    let Some(left_s) = incarnation.and_then(|i| stop::left_s(pod, state, c, i)) else {
        return Vec::new();
    };
    let signal = signal_name(signal);
    let text = format!(
        "process 1 has no handler for {signal}, so the kernel drops it; SIGKILL follows in {left_s}s"
    );
    normal(c, "Killing", text)
}

/// An exit of something that was started; the death of a spare is nobody's business.
fn exited(state: &State, c: usize, inc: u32, exit: &Exit) -> Vec<Event> {
    let Some(ended) = state.incarnations(c).iter().find(|i| i.inc == inc && i.runs()) else {
        return Vec::new();
    };
    if let Some(error) = &exit.start_error {
        return warning(c, "Failed", format!("Error: {}", error.message));
    }
    if exit.lost {
        let text = "container ended while nobody of podshim's was there to see how";
        return warning(c, "Exited", text);
    }
    let text = match (exit.signal, exit.oom) {
        (_, true) => format!("container ran out of memory: exit code {}", exit.code),
        (Some(signal), _) => {
            format!("container was killed by {}: exit code {}", signal_name(signal), exit.code)
        }
        (None, _) => format!("container exited with code {}", exit.code),
    };
    let asked_for = ended.signalled.is_some() || ended.killed.is_some();
    let is_warning = exit.oom || (exit.code != 0 && !asked_for);
    vec![event(is_warning, "Exited", text, Some(c))]
}

/// The name of a signal on x86-64 and arm64; those that nobody sends by name keep their number.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 16] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
    ];
    let index = usize::try_from(signal).ok().and_then(|s| s.checked_sub(1));
    match index.and_then(|i| NAMES.get(i)) {
        Some(name) => (*name).to_owned(),
        None => format!("signal {signal}"),
    }
}
