//! The world's own book-keeping: what a pod owes, by Kubernetes' description and not by the heart's.
//!
//! It hears the same facts and shares no code with the heart but the words (`Fact`, `Pod`). Where the
//! heart derives a schedule from what it remembers, this book carries the next date forward; where the
//! heart asks rules, this book keeps a flag. What is checked against it stands in [`crate::check`].

use std::cell::Cell;

use plan::{Container, End, Fact, Hook, Kind, Mono, Pod, ProbeKind, Stop};

use crate::schedule::Schedule;

mod exits;
mod loss;
mod notes;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// What is checked, counted.
pub type Checked = Result<(), Broken>;

/// Fails with a sentence if the condition does not hold.
macro_rules! must {
    ($book:expr, $holds:expr, $($text:tt)+) => {{
        $book.checks.set($book.checks.get() + 1);
        if !$holds {
            return Err(crate::book::Broken(format!($($text)+)));
        }
    }};
}
pub(crate) use must;

/// Where an incarnation stands, as far as was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Making,
    Waits,
    Launching,
    Runs,
    Dead,
}

/// A grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grace {
    pub since: Mono,
    pub seconds: u32,
}

impl Grace {
    pub(crate) fn end(self) -> Mono {
        self.since.plus_s(self.seconds)
    }
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookBook {
    pub begun: Option<Mono>,
    pub ended: Option<Mono>,
    pub failed: bool,
}

/// One incarnation.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub inc: u32,
    /// What it was made from, if its container has been changed since.
    pub old: Option<Box<Container>>,
    pub stage: Stage,
    /// Of the last change of `stage`.
    pub since: Mono,
    pub started: Option<Mono>,
    pub notified: bool,
    pub post: HookBook,
    pub pre: HookBook,
    pub schedules: [Schedule; 3],
    pub stop: Option<(Stop, Grace)>,
    pub signalled: Option<Mono>,
    pub killed: Option<Mono>,
}

impl Body {
    /// Its code runs, or may at any moment.
    pub(crate) fn is_on(&self) -> bool {
        matches!(self.stage, Stage::Launching | Stage::Runs)
    }

    /// It can still be started.
    pub(crate) fn is_spare(&self) -> bool {
        let waits = matches!(self.stage, Stage::Making | Stage::Waits);
        waits && self.killed.is_none() && self.old.is_none()
    }

    /// What it was made from; `container` is what a new one would be made from.
    pub(crate) fn made_from<'a>(&'a self, container: &'a Container) -> &'a Container {
        self.old.as_deref().unwrap_or(container)
    }

    pub(crate) fn schedule(&self, kind: ProbeKind) -> &Schedule {
        &self.schedules[kind as usize]
    }

    pub(crate) fn hook(&self, hook: Hook) -> &HookBook {
        match hook {
            Hook::PostStart => &self.post,
            Hook::PreStop => &self.pre,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub finished: Mono,
    pub code: i32,
    pub cannot_execute: bool,
    /// A probe or a hook was the reason.
    pub for_health: bool,
    /// It was told to stop because the host went down.
    pub cut_short: bool,
}

/// Failures in a row, and the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streak {
    pub count: u32,
    pub last: Mono,
}

impl Streak {
    fn add(&mut self, at: Mono) {
        self.count += 1;
        self.last = at;
    }

    /// When to try again: 10 s after the first failure, then 20 s, 40 s, … 300 s.
    pub(crate) fn over(self) -> Mono {
        let mut delay = 10;
        for _ in 1..self.count.min(10) {
            delay = (delay * 2).min(300);
        }
        if self.count == 0 { self.last } else { self.last.plus_s(delay) }
    }
}

/// What is known of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub next: u32,
    pub starts: u32,
    pub bodies: Vec<Body>,
    pub has_image: bool,
    pub asked_since_creation: bool,
    pub pulling: bool,
    pub image: Streak,
    pub creation: Streak,
    /// CrashLoopBackOff: the delay, and when a start was decided last.
    pub entry: Option<(u32, Mono)>,
    pub last: Option<Last>,
    /// A user wants it restarted, and it runs.
    pub wished: bool,
    /// A user has stopped it, and nobody has started it since.
    pub down: bool,
    /// Its next start needs neither policy nor back-off.
    pub waived: bool,
    /// It was the cause of starting over, and has not been started since.
    pub cause: bool,
    /// Its exit asks for starting over.
    pub wants_all: bool,
    pub completed: bool,
    pub was_started: bool,
    pub ran: bool,
}

impl Own {
    pub(crate) fn on(&self) -> Option<&Body> {
        self.bodies.iter().find(|b| b.is_on())
    }

    pub(crate) fn spare(&self) -> Option<&Body> {
        self.bodies.iter().find(|b| b.is_spare())
    }

    pub(crate) fn body(&self, inc: u32) -> Option<&Body> {
        self.bodies.iter().find(|b| b.inc == inc)
    }
}

/// What is known of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sandbox {
    #[default]
    No,
    Making,
    Yes,
    Never,
    /// It is gone, and nothing of the pod is to run again.
    GivenUp,
}

/// The whole book.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    /// What the pod is now.
    pub pod: Pod,
    pub accepted: Option<Mono>,
    pub sandbox: Sandbox,
    pub sandbox_streak: Streak,
    pub deleted: Option<Grace>,
    pub kill: bool,
    /// The host goes down.
    pub to_suspend: bool,
    pub ending: Option<(End, Grace)>,
    /// What runs is killed, so that the pod can start over.
    pub starting_over: bool,
    pub initialized: bool,
    pub torn_down: bool,
    pub own: Vec<Own>,
    /// How much was checked.
    pub checks: Cell<u64>,
}

impl Book {
    pub(crate) fn new(pod: &Pod) -> Book {
        Book {
            pod: pod.clone(),
            accepted: None,
            sandbox: Sandbox::No,
            sandbox_streak: Streak::default(),
            deleted: None,
            kill: false,
            to_suspend: false,
            ending: None,
            starting_over: false,
            initialized: false,
            torn_down: false,
            own: vec![Own::default(); pod.containers.len()],
            checks: Cell::new(0),
        }
    }

    pub(crate) fn name(&self, c: usize) -> &str {
        self.pod.containers.get(c).map_or("?", |k| &k.name)
    }

    pub(crate) fn body(&self, c: usize, inc: u32) -> Option<&Body> {
        self.own.get(c).and_then(|own| own.body(inc))
    }

    /// All containers that are not of a kind, with their numbers.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (usize, &Own)> {
        let is = move |c: usize| self.pod.containers[c].kind == kind;
        self.own.iter().enumerate().filter(move |(c, _)| is(*c))
    }

    /// Whether nothing can run any more.
    pub(crate) fn is_dead(&self) -> bool {
        let dead = |own: &Own| own.bodies.iter().all(|b| b.stage == Stage::Dead);
        self.ending.is_some() && !self.is_suspended() && self.own.iter().all(dead)
    }

    /// Writes down what was told.
    pub(crate) fn note(&mut self, now: Mono, fact: &Fact) {
        self.note_fact(now, fact);
        if self.starting_over {
            self.look_whether_it_started_over();
        }
        let done = |(c, own): (usize, &Own)| match self.pod.containers[c].kind {
            Kind::Init => own.completed,
            Kind::Sidecar => own.was_started || own.down,
            Kind::Main => true,
        };
        if self.accepted.is_some() && self.ending.is_none() && self.own.iter().enumerate().all(done)
        {
            self.initialized = true;
        }
    }

    fn look_whether_it_started_over(&mut self) {
        if self.ending.is_some() {
            self.starting_over = false;
        } else if self.own.iter().all(|own| own.on().is_none()) {
            self.starting_over = false;
            self.initialized = false;
            for own in &mut self.own {
                own.completed = false;
                own.was_started = false;
                own.waived = !own.cause && own.last.is_some();
            }
        }
    }
}
