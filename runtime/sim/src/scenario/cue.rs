//! When a user does what a scenario says. On a real machine a container may take any time to start, so a
//! deed waits for what had happened before it in virtual time, and then as long as it came after that.

use plan::Mono;

use super::{Scenario, UserAct, UserDeed, What};
use crate::life::Outcome;

/// A deed, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// How long after the last of what it waits for and the deed before, in milliseconds; without
    /// either, after the pod was accepted.
    pub after_ms: u64,
    /// What had happened by then.
    pub seen: Vec<Seen>,
    /// What is done.
    pub what: UserAct,
}

/// How often a container had been started, and had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub container: String,
    /// Starts.
    pub starts: u32,
    /// Exits of what was started.
    pub exits: u32,
}

impl Scenario {
    /// What the users do, in the order in which they do it.
    #[must_use]
    pub fn cues(&self) -> Vec<Cue> {
        let outcome = self.case().live(false);
        let mut deeds: Vec<_> = self.deeds.iter().collect();
        deeds.sort_by_key(|deed| deed.after_ms);
        let mut before_ms = 0;
        let cue = |deed: &UserDeed| {
            let (before, now) = (before_ms, deed.after_ms);
            before_ms = now;
            self.cue(&outcome, before, now, &deed.what)
        };
        deeds.into_iter().map(cue).collect()
    }

    fn cue(&self, outcome: &Outcome, before_ms: u64, after_ms: u64, what: &UserAct) -> Cue {
        const MS: u64 = Mono::SECOND / 1000;
        let accepted = outcome.journal.first().map_or(Mono(0), |record| record.at.mono);
        let date = Mono(accepted.0 + after_ms * MS);
        let mut last = Mono(accepted.0 + before_ms * MS);
        let mut seen: Vec<Seen> = Vec::new();
        for (at, happening) in self.dated(outcome).take_while(|(at, _)| *at < date) {
            last = last.max(at);
            let place = seen.iter().position(|s| s.container == happening.container);
            let place = place.unwrap_or_else(|| {
                seen.push(Seen { container: happening.container, starts: 0, exits: 0 });
                seen.len() - 1
            });
            match happening.what {
                What::Starts => seen[place].starts += 1,
                What::Exits(_) => seen[place].exits += 1,
            }
        }
        Cue { after_ms: (date.0 - last.0) / MS, seen, what: what.clone() }
    }
}
