//! What came of a pod, in few words, and whether it is what was expected.

use plan::{Fact, Mono, PodPhase};
use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::life::Outcome;
use crate::world::Record;

/// Something that happened to a container, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// Its name.
    pub container: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// It executes.
    Starts,
    /// It is gone, with this code.
    Exits(i32),
}

impl Scenario {
    /// What came of a life in virtual time.
    #[must_use]
    pub fn happenings(&self, outcome: &Outcome) -> Vec<Happening> {
        self.dated(outcome).map(|(_, happening)| happening).collect()
    }

    /// The same with the times.
    pub(super) fn dated(&self, outcome: &Outcome) -> impl Iterator<Item = (Mono, Happening)> {
        let of = |record: &Record| {
            let (c, what) = match &record.fact {
                Fact::Started { c, .. } => (*c, What::Starts),
                Fact::Exited { c, inc, exit } if ran(outcome, *c, *inc) => {
                    (*c, What::Exits(exit.code))
                }
                _ => return None,
            };
            let container = self.pod.containers[c].name.clone();
            Some((record.at.mono, Happening { container, what }))
        };
        outcome.journal.iter().filter_map(of)
    }

    /// What is not as expected: an expectation, and why not.
    #[must_use]
    pub fn judge(&self, happened: &[Happening], phase: PodPhase) -> Vec<String> {
        let judge = |line: &String| {
            let why = self.one(line, happened, phase).err()?;
            Some(format!("{line}: {why}"))
        };
        self.expectations.iter().filter_map(judge).collect()
    }

    fn one(&self, line: &str, happened: &[Happening], phase: PodPhase) -> Result<(), String> {
        let known = |name: &&str| self.index(name).map(drop);
        let is = |right: bool, why: String| if right { Ok(()) } else { Err(why) };
        let starts = |name: &str| places(happened, name, |what| what == What::Starts);
        let exits = |name: &str| places(happened, name, |what| what != What::Starts);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["pod", wanted] => is(format!("{phase:?}") == wanted, format!("it is {phase:?}")),
            [a, first @ ("starts" | "exits"), "before", b, second @ ("starts" | "exits")] => {
                [a, b].iter().try_for_each(known)?;
                // The last time that it did before the other did for the first time.
                let of = |name, verb| if verb == "starts" { starts(name) } else { exits(name) };
                let (first, second) = (of(a, first), of(b, second));
                match (first.first(), second.first()) {
                    (Some(first), Some(second)) => is(first < second, "it came later".into()),
                    (None, _) => Err(format!("{a} never did")),
                    (_, None) => Err(format!("{b} never did")),
                }
            }
            [a, "and", b, "run", "together"] => {
                [a, b].iter().try_for_each(known)?;
                let (a, b) = (spans(happened, a), spans(happened, b));
                let meet = |x: &(usize, usize)| b.iter().any(|y| x.0 < y.1 && y.0 < x.1);
                is(a.iter().any(meet), "they never did".into())
            }
            [name, "never", "starts"] => {
                known(&name)?;
                is(starts(name).is_empty(), "it did".into())
            }
            [name, "never", "restarts"] => {
                known(&name)?;
                let times = starts(name).len();
                is(times <= 1, format!("it was started {times} times"))
            }
            [name, "restarts", count, "times" | "time"] => {
                known(&name)?;
                let times = starts(name).len().saturating_sub(1);
                is(super::number(count) == Ok(times), format!("it did {times} times"))
            }
            [name, "exits", "with", code] => {
                known(&name)?;
                let code = super::number(code)?;
                let last = happened.iter().rev().find(|h| h.container == name);
                let right = last.is_some_and(|h| h.what == What::Exits(code));
                is(right, format!("the last of it is {:?}", last.map(|h| h.what)))
            }
            _ => Err("nobody knows what this means".into()),
        }
    }
}

fn ran(outcome: &Outcome, c: usize, inc: u32) -> bool {
    let started =
        |fact: &Fact| matches!(fact, Fact::Started { c: d, inc: i } if (*d, *i) == (c, inc));
    outcome.journal.iter().any(|record| started(&record.fact))
}

fn places(happened: &[Happening], name: &str, is: impl Fn(What) -> bool) -> Vec<usize> {
    let all = happened.iter().enumerate();
    all.filter(|(_, h)| h.container == name && is(h.what)).map(|(place, _)| place).collect()
}

/// From where to where a container ran, in places of the list.
fn spans(happened: &[Happening], name: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut since = None;
    for (place, happening) in happened.iter().enumerate().filter(|(_, h)| h.container == name) {
        match happening.what {
            What::Starts => since = Some(place),
            What::Exits(_) => spans.extend(since.take().map(|since| (since, place))),
        }
    }
    spans.extend(since.map(|since| (since, happened.len())));
    spans
}
