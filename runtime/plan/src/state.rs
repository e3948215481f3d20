//! What is known of a pod: everything that [`crate::fold`] remembers of the facts.
//!
//! It holds no decision. Facts about the past stand here (an exit, a back-off entry, a counter),
//! what follows from them is asked of `rules`. The executor reads the live incarnations from it;
//! everybody else reads [`crate::status`].

use serde::{Deserialize, Serialize};

use crate::fact::{End, Exit, Hook, ProbeKind, Stop};
use crate::model::{Container, Pod};
use crate::status::Conditions;
use crate::time::{At, Mono, Wall};

/// Seconds before the first retry of whatever failed (a kubelet's `backOffPeriod`).
pub(crate) const FIRST_DELAY_S: u32 = 10;
/// Seconds that no retry waits longer than (a kubelet's `MaxContainerBackOff`).
pub(crate) const MAX_DELAY_S: u32 = 300;

/// The folded facts of one pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(crate) accepted: Option<At>,
    pub(crate) sandbox: Sandbox,
    /// One for each of the pod's containers, in the same order.
    pub(crate) records: Vec<Record>,
    pub(crate) delete: Option<Deletion>,
    pub(crate) kill_asked: bool,
    pub(crate) suspend_asked: bool,
    pub(crate) ending: Option<Ending>,
    /// The pod is starting over: what runs is being killed.
    pub(crate) restarting_all: Restarting,
    /// Set once, when the last init container is complete and the last sidecar has been started.
    /// Sticky: a sidecar that crashes later must not hold the mains back again.
    pub(crate) initialized: bool,
    pub(crate) torn_down: bool,
    pub(crate) conditions: Conditions,
    /// Of the newest fact.
    pub(crate) latest: Mono,
}

impl State {
    /// The state before the first fact.
    #[must_use]
    pub fn new(pod: &Pod) -> State {
        State {
            accepted: None,
            sandbox: Sandbox::default(),
            records: vec![Record::default(); pod.containers.len()],
            delete: None,
            kill_asked: false,
            suspend_asked: false,
            ending: None,
            restarting_all: Restarting::default(),
            initialized: false,
            torn_down: false,
            conditions: Conditions::default(),
            latest: Mono::default(),
        }
    }

    /// Whether the pod ends, or has ended, only for as long as its host is down.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.ending() == Some(End::Suspended)
    }

    /// Whether the pod was accepted.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.accepted.is_some()
    }

    /// Whether everything is removed, so that nothing will ever happen to this pod again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.torn_down
    }

    /// Where the pod's sandbox stands.
    #[must_use]
    pub fn sandbox(&self) -> SandboxPhase {
        self.sandbox.phase
    }

    /// Whether the image of container `c` is being asked for.
    #[must_use]
    pub fn is_pulling(&self, c: usize) -> bool {
        self.records.get(c).is_some_and(|r| r.image.pulling.is_some())
    }

    /// The image of container `c` as it was found last.
    #[must_use]
    pub fn image_id(&self, c: usize) -> Option<&str> {
        self.records.get(c)?.image.id.as_deref()
    }

    /// Why the pod ends, once it does.
    #[must_use]
    pub fn ending(&self) -> Option<End> {
        self.ending.as_ref().map(|e| e.why)
    }

    /// The incarnations of container `c` of which something is left on the host, oldest first;
    /// empty for a container that does not exist.
    #[must_use]
    pub fn incarnations(&self, c: usize) -> &[Incarnation] {
        self.records.get(c).map_or(&[], |r| &r.incarnations)
    }

    /// `restartCount` of container `c`: how often it was started, minus one.
    #[must_use]
    pub fn restart_count(&self, c: usize) -> u32 {
        self.records.get(c).map_or(0, |r| r.starts.saturating_sub(1))
    }

    /// How container `c` ended last, if it ever ran.
    #[must_use]
    pub fn last_exit(&self, c: usize) -> Option<&Exit> {
        self.records.get(c).and_then(|r| r.last.as_ref()).map(|run| &run.exit)
    }

    /// Whether the pod starts over, or is to.
    pub(crate) fn starts_over(&self) -> bool {
        matches!(self.restarting_all, Restarting::Killing(_))
            || self.records.iter().any(|r| r.wants_all)
    }

    /// Whether no process of the pod exists or can come to be.
    pub(crate) fn nothing_can_run(&self) -> bool {
        let ends = self.ending.is_some() && !self.is_suspended();
        ends && self.records.iter().all(|r| r.alive().next().is_none())
    }
}

/// How the pod stands with starting over (a rule `RestartAllContainers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Restarting {
    /// It never did.
    #[default]
    Never,
    /// What runs is being killed, since then.
    Killing(Mono),
    /// It has started over, once at least.
    Done,
}

/// Where an incarnation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Its creator is at work.
    Creating,
    /// Its process waits to be started.
    Created,
    /// It was told to execute; whether it did is not known yet.
    Starting,
    /// It executes.
    Running,
    /// Its process is gone, its remains are not.
    Exited,
}

/// One creation of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Its number.
    pub inc: u32,
    /// Where it stands.
    pub phase: Life,
    /// Its main process, once created.
    pub pid: Option<i32>,
    /// The inode of that process' pidfd.
    pub inode: Option<u64>,
    /// The OCI container id, once created.
    pub container_id: Option<String>,
    pub(crate) image_id: String,
    /// What it was made from, if the pod has another definition of the container now.
    pub(crate) old: Option<Box<Container>>,
    /// Of the last change of `phase`.
    pub(crate) since: At,
    /// Since when it is `started` in Kubernetes' sense: its hook has run, its startup probe has
    /// succeeded, and it has said so itself if it was to.
    pub(crate) started: Option<Mono>,
    pub(crate) notified: bool,
    pub(crate) post_start: HookRun,
    pub(crate) pre_stop: HookRun,
    pub(crate) startup: Attempts,
    pub(crate) readiness: Attempts,
    pub(crate) liveness: Attempts,
    pub(crate) stop: Option<Stopping>,
    pub(crate) signalled: Option<Mono>,
    pub(crate) killed: Option<Mono>,
}

impl Incarnation {
    /// Whether it runs and is `started` in Kubernetes' sense.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.phase == Life::Running && self.started.is_some()
    }

    /// The image that it was made from.
    #[must_use]
    pub fn image_id(&self) -> &str {
        &self.image_id
    }

    /// Since when a hook of it is under way.
    #[must_use]
    pub fn hook_under_way(&self, hook: Hook) -> Option<Mono> {
        let run = match hook {
            Hook::PostStart => &self.post_start,
            Hook::PreStop => &self.pre_stop,
        };
        run.begun.filter(|_| run.ended.is_none())
    }

    /// Whether an attempt of a probe of it is under way.
    #[must_use]
    pub fn is_probed(&self, kind: ProbeKind) -> bool {
        self.attempts(kind).in_flight.is_some()
    }

    /// Whether it was to be killed.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed.is_some()
    }

    /// Whether its code runs, or may at any moment.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.phase, Life::Starting | Life::Running)
    }

    pub(crate) fn attempts(&self, kind: ProbeKind) -> &Attempts {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Readiness => &self.readiness,
            ProbeKind::Liveness => &self.liveness,
        }
    }

    pub(crate) fn attempts_mut(&mut self, kind: ProbeKind) -> &mut Attempts {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
        }
    }

    /// Whether it can still be started.
    pub(crate) fn is_spare(&self) -> bool {
        let waits = matches!(self.phase, Life::Creating | Life::Created);
        waits && self.killed.is_none() && self.old.is_none()
    }

    /// What it was made from; `container` is what the pod has now.
    pub(crate) fn definition<'a>(&'a self, container: &'a Container) -> &'a Container {
        self.old.as_deref().unwrap_or(container)
    }
}

/// One probe's attempts at one incarnation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attempts {
    /// When the newest began that counts; early ones do not.
    pub last: Option<Mono>,
    /// One is under way; whether it is an early one.
    pub in_flight: Option<Early>,
    /// When the newest ended.
    pub ended: Option<Mono>,
    /// How many early ones there were.
    pub early: u32,
    /// In a row, of those that count.
    pub failures: u32,
    pub successes: u32,
    /// Attempts in a row that could not be made.
    pub errors: u32,
    /// What the thresholds have made of it so far.
    pub result: Option<bool>,
    /// It has succeeded once.
    pub proved: bool,
    /// What the newest failure or error said.
    pub said: Option<String>,
}

/// Whether an attempt is between two periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Early {
    Yes,
    No,
}

/// How far a hook of an incarnation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HookRun {
    pub begun: Option<Mono>,
    pub ended: Option<Mono>,
    pub failure: Option<String>,
}

impl HookRun {
    pub(crate) fn has_succeeded(&self) -> bool {
        self.ended.is_some() && self.failure.is_none()
    }
}

/// A stop of one container of a living pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopping {
    pub why: Stop,
    pub clock: Clock,
}

/// A grace period that runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clock {
    pub since: Mono,
    pub grace_s: u32,
}

impl Clock {
    pub(crate) fn deadline(self) -> Mono {
        self.since.plus_s(self.grace_s)
    }
}

/// Somebody wants the pod gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deletion {
    pub clock: Clock,
    /// When it was asked for.
    pub asked: Wall,
}

/// The end of the pod, from its first moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub why: End,
    /// The pod's one clock. A repeated deletion replaces it by one that ends earlier.
    pub clock: Clock,
}

/// A finished run of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub inc: u32,
    pub container_id: Option<String>,
    pub image_id: String,
    /// `None` if it never executed.
    pub started: Option<At>,
    pub finished: At,
    pub exit: Exit,
    /// A probe or its hook was the reason: it counts as failed whatever its code.
    pub failed_by_us: bool,
    /// It was killed because the pod started over.
    pub started_over: bool,
    /// It was stopped because the host went down.
    pub interrupted: bool,
    /// What its `postStart` hook failed with, if that was the reason.
    pub hook_failure: Option<String>,
}

/// What is known of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub image: Image,
    pub incarnations: Vec<Incarnation>,
    pub next: u32,
    pub starts: u32,
    pub create: Failures,
    pub backoff: Option<Backoff>,
    pub last: Option<Run>,
    pub previous: Option<Run>,
    /// A running incarnation is to be stopped and started again, because a user asked.
    pub restart_asked: bool,
    /// The next start needs no policy and no back-off, because a user asked.
    pub forced: bool,
    /// A sidecar: a user stopped it, then; it is not to run until somebody starts it again.
    pub down: Option<Mono>,
    /// It is to run again although its policy says no, because the pod starts over; its back-off
    /// holds.
    pub again: bool,
    /// Its last exit matched a rule `RestartAllContainers`, and nothing has been done about it yet.
    pub wants_all: bool,
    /// A regular init container: it exited 0.
    pub completed: bool,
    /// A sidecar: one of its incarnations was `started`.
    pub seen_started: bool,
    /// Some incarnation executed, or was told to and is over.
    pub ever_ran: bool,
}

impl Record {
    /// The incarnation whose code runs; there is at most one.
    pub(crate) fn running(&self) -> Option<&Incarnation> {
        self.incarnations.iter().find(|i| i.runs())
    }

    /// The incarnation that the next start will use.
    pub(crate) fn spare(&self) -> Option<&Incarnation> {
        self.incarnations.iter().find(|i| i.is_spare())
    }

    /// All that have, or may get, a process.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Incarnation> {
        self.incarnations.iter().filter(|i| i.phase != Life::Exited)
    }

    /// Whether it runs and is `started` in Kubernetes' sense.
    pub(crate) fn is_started(&self) -> bool {
        self.incarnations.iter().any(Incarnation::is_started)
    }
}

/// What is known of a container's image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Image {
    pub id: Option<String>,
    /// It was asked for since the last creation (for `imagePullPolicy: Always`).
    pub fresh: bool,
    pub pulling: Option<Mono>,
    pub failures: Failures,
}

/// Failures in a row of one thing, and when to try again: 10 s, 20 s, … 300 s after the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failures {
    pub count: u32,
    pub last: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub at: Mono,
    pub reason: String,
    pub message: String,
}

impl Failures {
    pub(crate) fn add(&mut self, at: At, reason: &str, message: &str) {
        self.count = self.count.saturating_add(1);
        let (reason, message) = (reason.to_owned(), message.to_owned());
        self.last = Some(Failure { at: at.mono, reason, message });
    }

    /// The delay that follows the last failure.
    pub(crate) fn delay_s(&self) -> u32 {
        let doublings = self.count.saturating_sub(1).min(5);
        (FIRST_DELAY_S << doublings).min(MAX_DELAY_S)
    }

    /// When to try again; `None` if nothing failed.
    pub(crate) fn retry_at(&self) -> Option<Mono> {
        self.last.as_ref().map(|f| f.at.plus_s(self.delay_s()))
    }
}

/// A container's entry in the table of restart delays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    pub delay_s: u32,
    /// When a start was decided last.
    pub decided: Mono,
}

/// What is known of the pod sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sandbox {
    pub phase: SandboxPhase,
    /// Of the last change of `phase`.
    pub since: Option<Mono>,
    pub failures: Failures,
    /// There was one, which is gone, and there is no other yet.
    pub lost: bool,
}

/// Where a pod's sandbox stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxPhase {
    /// There is none.
    #[default]
    Absent,
    /// It is being made.
    Making,
    /// It is there.
    Ready,
    /// It cannot be made, and trying again cannot help.
    Impossible,
    /// It is gone, and not made again, because nothing of the pod is to run any more.
    GivenUp,
}
