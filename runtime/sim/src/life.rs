//! One life: a pod, what happens to it until it ends or is deleted, and its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use plan::{Fact, Mono, Pod, PodPhase, State, change, exit_code, fold, status};
use serde::{Deserialize, Serialize};

use crate::book::{Broken, Checked, must};
use crate::chance::Temper;
use crate::choice::{Fate, How, Line};
use crate::pods;
use crate::tally::Tally;
use crate::world::{Event, Record, World};

/// A pod, and what happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The pod.
    pub pod: Pod,
    /// What decides whatever is left to chance.
    pub seed: u64,
    /// If it is there, it decides instead, and what it does not name is calm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Vec<Line>>,
    /// After how many seconds the pod is deleted if it lives; else the seed decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<u64>,
}

/// How a life went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was told.
    pub journal: Vec<Record>,
    /// What was counted.
    pub tally: Tally,
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What was chosen, if it was written down.
    pub lines: Vec<Line>,
}

impl Outcome {
    /// The pod's phase at the end.
    #[must_use]
    pub fn phase(&self, pod: &Pod) -> PodPhase {
        let mut pod = pod.clone();
        let mut state = State::new(&pod);
        for record in &self.journal {
            fold(&pod, &mut state, record.at, &record.fact);
            change(&mut pod, &record.fact);
        }
        let at = self.journal.last().map(|record| record.at).unwrap_or_default();
        status(&pod, &state, at).phase
    }
}

/// More events than that, and the pod is deleted.
const EVENTS_MAX: u32 = 150;
/// What a pod that is deleted in a fair world has beyond its grace: 2 s that everyone has, 1 s each for
/// the seconds that are counted whole, and a little for the world.
const SLACK_S: u64 = 6;

impl Case {
    /// The case of a seed: a random pod in a random world.
    #[must_use]
    pub fn of_seed(seed: u64) -> Case {
        Case { pod: pods::random(seed), seed, script: None, until_s: None }
    }

    /// A pod of one's own in the world of a seed.
    #[must_use]
    pub fn of_pod(pod: Pod, seed: u64, until_s: Option<u64>) -> Case {
        Case { pod, seed, script: None, until_s }
    }

    /// After how many seconds the pod is deleted if it lives.
    #[must_use]
    pub fn until_s(&self) -> u64 {
        self.until_s.unwrap_or_else(|| Temper::of_seed(self.seed).until_s())
    }

    /// Lives it. What was chosen is written down if `record`.
    #[must_use]
    pub fn live(&self, record: bool) -> Outcome {
        let mut world = self.world(record);
        let result = catch_unwind(AssertUnwindSafe(|| self.live_through(&mut world)));
        let broken = match result {
            Ok(result) => result.err(),
            Err(panic) => Some(Broken(format!("panic: {}", words(&*panic)))),
        };
        world.end(broken)
    }

    /// The pod and the heart's memory after each fact of a life: what a plan is made from.
    #[must_use]
    pub fn moments(&self) -> Vec<(Rc<Pod>, State, Mono)> {
        let mut pod = Rc::new(self.pod.clone());
        let mut state = State::new(&pod);
        let journal = self.live(false).journal.into_iter();
        let after = journal.map(|record| {
            fold(&pod, &mut state, record.at, &record.fact);
            if matches!(record.fact, Fact::Changed { .. }) {
                change(Rc::make_mut(&mut pod), &record.fact);
            }
            (Rc::clone(&pod), state.clone(), record.at.mono)
        });
        after.collect()
    }

    fn world(&self, record: bool) -> World<'_> {
        let fate = match &self.script {
            Some(lines) => Fate::of_script(lines),
            None => Fate::Seed { seed: self.seed, record: record.then(Vec::new) },
        };
        let mut world = World::new(&self.pod, self.seed, fate);
        world.thorough = self.seed.is_multiple_of(16);
        world
    }

    fn live_through(&self, world: &mut World<'_>) -> Checked {
        world.draw_strokes();
        world.accept()?;
        let end = Mono(world.now.0 + self.until_s() * Mono::SECOND);
        for _ in 0..EVENTS_MAX {
            if world.is_over() || !step(world, end)? {
                break;
            }
        }
        bring_to_end(world)
    }
}

/// From now on the world is fair, and what is left of the pod must come to its end in time.
pub(crate) fn bring_to_end(world: &mut World<'_>) -> Checked {
    if world.thorough {
        world.check_journal()?;
    }
    world.fair = true;
    world.hurry();
    if world.book.to_suspend {
        world.happens(&Event::User(How::Reboot))?;
    }
    if world.book.deleted.is_none() && !world.is_over() {
        world.happens(&Event::User(How::Delete { grace_s: None }))?;
    }
    let grace_s = world.book.ending.map_or(0, |(_, grace)| u64::from(grace.seconds));
    let end = Mono(world.now.0 + (grace_s + SLACK_S) * Mono::SECOND);
    for _ in 0..20 * EVENTS_MAX {
        if world.is_over() || !step(world, end)? {
            break;
        }
    }
    let over = world.is_over();
    must!(
        world.book,
        over,
        "deleted with a grace of {grace_s} s, it is not over {SLACK_S} s later"
    );
    world.check_over()
}

/// Lets the next thing happen, if it is before the end.
fn step(world: &mut World<'_>, end: Mono) -> Result<bool, Broken> {
    let date = world.next_date().filter(|date| *date <= end.max(world.now));
    match (date, world.wake_at.filter(|wake| *wake <= end)) {
        (date, Some(wake)) if date.is_none_or(|date| wake < date) => {
            world.wake(wake)?;
            world.settle()?;
        }
        (Some(_), _) => {
            if let Some(event) = world.take_next() {
                world.happens(&event)?;
            }
        }
        (None, _) => {
            world.now = world.now.max(end);
            return Ok(false);
        }
    }
    Ok(true)
}

impl World<'_> {
    /// Nothing will ever happen to the pod again.
    fn is_over(&self) -> bool {
        self.state().is_over() && !self.state().is_suspended()
    }

    /// What is due comes soon, and users do nothing more.
    fn hurry(&mut self) {
        let soon = Mono(self.now.0 + Mono::SECOND / 5);
        self.queue.retain(|due| !matches!(due.event, Event::User(_)));
        for due in &mut self.queue {
            due.at = due.at.min(soon);
        }
    }

    /// Nothing is left, and it is told how it ended.
    fn check_over(&self) -> Checked {
        let phase = self.book.phase();
        must!(
            self.book,
            matches!(phase, PodPhase::Succeeded | PodPhase::Failed),
            "over, but {phase:?}"
        );
        let left = self.alive();
        must!(self.book, left.is_none(), "something is left: {left:?}");
        let code = exit_code(&self.pod, self.state());
        let failed = phase == PodPhase::Failed
            && self.book.ending.is_some_and(|(why, _)| why != plan::End::Deleted);
        must!(self.book, !failed || code != 0, "a pod that has failed exits with 0");
        Ok(())
    }

    fn end(mut self, broken: Option<Broken>) -> Outcome {
        self.tally.checks = self.book.checks.get();
        self.tally.seconds = self.since_accepted_s();
        let why = match self.state().ending() {
            Some(plan::End::Completed) => "completed",
            Some(plan::End::InitFailed) => "an init container failed",
            Some(plan::End::DeadlineExceeded) => "deadline exceeded",
            Some(plan::End::Deleted) => "deleted",
            Some(plan::End::SandboxFailed) => "sandbox impossible",
            Some(plan::End::Interrupted) => "host shut down",
            Some(plan::End::Suspended) => "suspended",
            None => "did not end",
        };
        self.tally.ends.insert(why, 1);
        let (journal, tally, lines) = self.into_parts();
        Outcome { journal, tally, broken, lines }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
