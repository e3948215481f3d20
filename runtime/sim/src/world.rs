//! The world that a pod lives in: it carries out what the heart asks for, as a shim and a kernel would,
//! and tells the heart what comes of it. It believes nothing: every step is checked against its book.
//!
//! Time is virtual. What takes time is put into a queue with its date and its outcome ([`Event`]); who
//! drives the world takes one out and lets it happen. After each, the heart is asked what follows
//! until it asks for nothing more ([`World::settle`]).

use plan::{At, Fact, Mono, Pod, State, Wall, change, fold, narrate, plan, status};
use serde::{Deserialize, Serialize};

use crate::book::{Book, Broken, Checked, must};
use crate::chance::Temper;
use crate::check::Told;
use crate::choice::{Choice, Deed, Fate, How, Line};
use crate::tally::{Fault, Tally};

mod carry;
mod crash;
mod happen;

pub(crate) use happen::Event;

/// The host has been up for that long when the pod is accepted.
const BOOTED: Mono = Mono(1000 * Mono::SECOND);
/// 2026-01-01T00:00:00Z.
const WALL_START_S: u64 = 1_767_225_600;
/// More plans in a row than any pod needs.
const PLANS_MAX: u32 = 40;

/// A fact and when it was told: a line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: At,
    /// What.
    pub fact: Fact,
}

/// An event that will happen.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub at: Mono,
    order: u64,
    pub event: Event,
}

/// A process, as it really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Real {
    /// Its creator is at work.
    Making,
    Waits,
    Executes,
    Dead,
}

/// What is known of one incarnation in reality.
#[derive(Clone, Copy, Debug)]
struct Process {
    c: usize,
    inc: u32,
    real: Real,
    /// Its stop signal was sent.
    signalled: bool,
    /// SIGKILL was sent.
    killed: bool,
}

/// What strikes from outside, by number.
#[derive(Clone, Debug, Default)]
struct Strokes {
    crashes: Vec<Choice>,
    doubles: Vec<Choice>,
    jumps: Vec<Choice>,
    oversleeps: Vec<Choice>,
}

/// How often each thing that has no incarnation was tried.
#[derive(Clone, Debug, Default)]
struct Tries {
    sandbox: u32,
    images: Vec<u32>,
    actions: u64,
    wakes: u64,
}

/// The world of one pod.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// What the pod was when it was accepted.
    born: &'a Pod,
    /// What it is now.
    pub(crate) pod: Pod,
    state: State,
    pub(crate) now: Mono,
    wall_jump_s: i64,
    pub(crate) book: Book,
    told: Told,
    seed: u64,
    fate: Fate,
    temper: Temper,
    strokes: Strokes,
    tries: Tries,
    pub(crate) queue: Vec<Due>,
    order: u64,
    processes: Vec<Process>,
    probes: Vec<(usize, u32, plan::ProbeKind, u32)>,
    journal: Vec<Record>,
    pub(crate) wake_at: Option<Mono>,
    pub(crate) tally: Tally,
    /// Facts are also written and read again as JSON.
    pub(crate) thorough: bool,
    /// What a user is told is read after each fact, and not only when all is done that follows.
    closely: bool,
    /// From now on nothing goes wrong and nothing takes long.
    pub(crate) fair: bool,
}

impl<'a> World<'a> {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(pod: &'a Pod, seed: u64, fate: Fate) -> World<'a> {
        World {
            born: pod,
            pod: pod.clone(),
            state: State::new(pod),
            now: BOOTED,
            wall_jump_s: 0,
            book: Book::new(pod),
            told: Told::default(),
            seed,
            fate,
            temper: Temper::of_seed(seed),
            strokes: Strokes::default(),
            tries: Tries { images: vec![0; pod.containers.len()], ..Tries::default() },
            queue: Vec::new(),
            order: 0,
            processes: Vec::new(),
            probes: Vec::new(),
            journal: Vec::new(),
            wake_at: None,
            tally: Tally { lives: 1, ..Tally::default() },
            thorough: false,
            closely: true,
            fair: false,
        }
    }

    /// Draws what strikes from outside, and lets users do what they will.
    pub(crate) fn draw_strokes(&mut self) {
        let (temper, pod) = (self.temper, self.born);
        let [users, crashes, doubles, jumps, oversleeps] = temper.strokes();
        let fate = &mut self.fate;
        self.strokes = Strokes {
            crashes: fate.strokes(Deed::Crash, crashes, |rng| temper.crash(rng)),
            doubles: fate.strokes(Deed::Double, doubles, |rng| temper.double(rng)),
            jumps: fate.strokes(Deed::Jump, jumps, |rng| temper.jump(rng)),
            oversleeps: fate.strokes(Deed::Oversleep, oversleeps, |rng| temper.oversleep(rng)),
        };
        // Most of the time is spent in making times into texts.
        let strange = !self.strokes.jumps.is_empty() || !self.strokes.crashes.is_empty();
        self.closely = self.thorough || strange || self.seed.is_multiple_of(4);
        self.told.seldom = !self.closely;
        for choice in fate.strokes(Deed::User, users, |rng| temper.user(rng, pod)) {
            self.later(choice.after_ms, Event::User(choice.how));
        }
    }

    /// The pod is accepted, and its life begins.
    pub(crate) fn accept(&mut self) -> Checked {
        self.tell(Fact::Accepted)?;
        self.settle()
    }

    /// The heart's memory.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is left of a world that is over.
    pub(crate) fn into_parts(self) -> (Vec<Record>, Tally, Vec<Line>) {
        let lines = match self.fate {
            Fate::Seed { record: Some(lines), .. } => lines,
            Fate::Seed { record: None, .. } => Vec::new(),
            Fate::Script(lines) => {
                lines.into_iter().map(|(key, choice)| Line { key, choice }).collect()
            }
        };
        (self.journal, self.tally, lines)
    }

    /// A process that lives, if one does.
    pub(crate) fn alive(&self) -> Option<(usize, u32)> {
        self.processes.iter().find(|p| p.real != Real::Dead).map(|p| (p.c, p.inc))
    }

    pub(crate) fn since_accepted_s(&self) -> u64 {
        self.now.whole_s_since(BOOTED)
    }

    fn at(&self) -> At {
        let wall_ns = i128::from(WALL_START_S) * i128::from(Mono::SECOND)
            + i128::from(self.now.0)
            + i128::from(self.wall_jump_s) * i128::from(Mono::SECOND);
        At { mono: self.now, wall: Wall(u64::try_from(wall_ns).unwrap_or(1)) }
    }

    /// Puts an event into the queue.
    fn later(&mut self, after_ms: u64, event: Event) {
        let after_ms = if self.fair { after_ms.min(200) } else { after_ms };
        self.order += 1;
        let at = Mono(self.now.0 + after_ms * (Mono::SECOND / 1000));
        self.queue.push(Due { at, order: self.order, event });
    }

    /// The date of the next event.
    pub(crate) fn next_date(&self) -> Option<Mono> {
        self.queue.iter().map(|due| due.at).min()
    }

    /// Takes the next event out of the queue: the earliest, and of several the first that was put in.
    pub(crate) fn take_next(&mut self) -> Option<Event> {
        let first =
            (0..self.queue.len()).min_by_key(|i| (self.queue[*i].at, self.queue[*i].order))?;
        let due = self.queue.swap_remove(first);
        self.now = self.now.max(due.at);
        Some(due.event)
    }

    /// Time passes until the heart wants to look again; its timer may be late.
    pub(crate) fn wake(&mut self, wake: Mono) -> Checked {
        if self.thorough && wake > self.now {
            let plan_at = |now: Mono| plan(&self.pod, &self.state, now);
            let (before, after) = (plan_at(self.now), plan_at(wake));
            let something = !after.actions.is_empty() || after.waiting != before.waiting;
            must!(self.book, something, "woken for nothing at {wake:?}: {before:?}");
        }
        let number = self.tries.wakes;
        self.tries.wakes += 1;
        self.now = self.now.max(wake);
        if let Some(seconds) = stroke(&self.strokes.oversleeps, number).filter(|_| !self.fair) {
            self.tally.fault(Fault::Clock);
            self.now = Mono(self.now.0 + seconds.unsigned_abs() * Mono::SECOND);
        }
        Ok(())
    }

    /// Asks the heart what follows, and does it, until it asks for nothing more.
    pub(crate) fn settle(&mut self) -> Checked {
        for _ in 0..PLANS_MAX {
            self.tally.plans += 1;
            let plan = plan(&self.pod, &self.state, self.now);
            if plan.actions.is_empty() {
                let next = self.book.check_settled(self.now)?;
                self.wake_at = plan.wake_at;
                if !self.closely {
                    self.check_told()?;
                }
                return self.book.check_waiting(self.now, &plan, next);
            }
            for action in &plan.actions {
                self.book.check_action(self.now, action)?;
                if !self.carry_out(action)? {
                    self.recover()?;
                    break;
                }
            }
        }
        Err(Broken(format!(
            "the plan never becomes empty: {:?}",
            plan(&self.pod, &self.state, self.now)
        )))
    }

    /// Tells the heart a fact, as the shim does: told to people, written down, folded.
    fn tell(&mut self, fact: Fact) -> Checked {
        let number = self.tally.facts;
        self.tally.facts += 1;
        if let Some(seconds) = stroke(&self.strokes.jumps, number) {
            self.tally.fault(Fault::Clock);
            self.wall_jump_s += seconds;
        }
        let at = self.at();
        let events = narrate(&self.pod, &self.state, &fact);
        let said = events.iter().all(|e| !e.reason.is_empty() && !e.message.is_empty());
        must!(self.book, said, "an event without words: {events:?}");
        fold(&self.pod, &mut self.state, at, &fact);
        self.book.note(self.now, &fact);
        change(&mut self.pod, &fact);
        if self.thorough {
            round_trip(&self.book, &fact)?;
        }
        if self.closely {
            self.check_told()?;
        }
        if let Some(later_s) = stroke(&self.strokes.doubles, number) {
            self.tell_again(&fact, later_s)?;
        }
        self.journal.push(Record { at, fact });
        Ok(())
    }

    /// What a user is told now is true.
    fn check_told(&mut self) -> Checked {
        let at = self.at();
        let now = status(&self.pod, &self.state, at);
        self.book.check_told(at, &mut self.told, &now)
    }

    /// Tells a fact a second time, at once or later: nothing may change.
    fn tell_again(&mut self, fact: &Fact, later_s: i64) -> Checked {
        // Nobody tells his own intents twice, and what has no number (a pull, a sandbox) cannot be
        // told from the next of its kind once that is under way.
        if later_s == 0 && may_be_doubled(fact, false) {
            self.told_twice(fact)
        } else if later_s > 0 && may_be_doubled(fact, true) {
            self.later(later_s.unsigned_abs() * 1000, Event::Again(Box::new(fact.clone())));
            Ok(())
        } else {
            Ok(())
        }
    }

    fn told_twice(&mut self, fact: &Fact) -> Checked {
        self.tally.fault(Fault::Twice);
        let at = self.at();
        let before = (plan(&self.pod, &self.state, self.now), status(&self.pod, &self.state, at));
        let _ = narrate(&self.pod, &self.state, fact);
        fold(&self.pod, &mut self.state, at, fact);
        let after = (plan(&self.pod, &self.state, self.now), status(&self.pod, &self.state, at));
        must!(self.book, before == after, "told twice, it changes something: {fact:?}");
        self.journal.push(Record { at, fact: fact.clone() });
        Ok(())
    }
}

/// By how many seconds something strikes at this number, if it does.
fn stroke(strokes: &[Choice], number: u64) -> Option<i64> {
    strokes.iter().find_map(|choice| match choice.how {
        How::By { seconds } if choice.after_ms == number => Some(seconds),
        _ => None,
    })
}

fn may_be_doubled(fact: &Fact, later: bool) -> bool {
    match fact {
        Fact::Accepted
        | Fact::Created { .. }
        | Fact::CreateFailed { .. }
        | Fact::Started { .. }
        | Fact::HookEnded { .. }
        | Fact::Notified { .. }
        | Fact::Exited { .. }
        | Fact::Gone { .. } => true,
        // Of a pod that goes on after it, it would be about something else later.
        Fact::TornDown => !later,
        Fact::SandboxReady | Fact::SandboxFailed { .. } | Fact::ImageReady { .. } => !later,
        Fact::Probed { .. } | Fact::ProbeErrored { .. } => !later,
        Fact::DeleteAsked { .. } | Fact::KillAsked => !later,
        Fact::StopAsked { .. } | Fact::StartAsked { .. } => !later,
        _ => false,
    }
}

fn round_trip(book: &Book, fact: &Fact) -> Checked {
    let text = serde_json::to_string(fact).map_err(|e| Broken(format!("{fact:?}: {e}")))?;
    let back: Fact = serde_json::from_str(&text).map_err(|e| Broken(format!("{text}: {e}")))?;
    must!(book, back == *fact, "written and read, {fact:?} is {back:?}");
    Ok(())
}
