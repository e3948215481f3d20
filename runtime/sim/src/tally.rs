//! What a life, or many, has cost and seen.

use std::collections::BTreeMap;

/// Counts of one life, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Facts that were folded.
    pub facts: u64,
    /// Plans that were made.
    pub plans: u64,
    /// Conditions that were checked.
    pub checks: u64,
    /// Seconds of virtual time.
    pub seconds: u64,
    /// What went wrong, by kind.
    pub faults: [u64; FAULTS.len()],
    /// How lives ended.
    pub ends: BTreeMap<&'static str, u64>,
}

/// Kinds of fault, in the order of [`Tally::faults`].
pub const FAULTS: [&str; 30] = [
    "sandbox failed",
    "image failed",
    "creation failed",
    "died before its start",
    "could not execute",
    "exited with an error",
    "ran out of memory",
    "killed by a signal",
    "exit before started was told",
    "stop signal ignored",
    "slow to die of SIGKILL",
    "probe failed",
    "probe errored",
    "probe hung",
    "hook failed",
    "hook hung",
    "ready told twice or never",
    "deleted",
    "killed by a user",
    "restarted by a user",
    "changed by a user",
    "stopped by a user",
    "refused to a user",
    "podshim died before an action",
    "podshim died after an action",
    "exit that nobody saw",
    "host booted anew",
    "host shut down",
    "fact told twice",
    "clock jumped or timer late",
];

/// A kind of fault, as its index in [`FAULTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Sandbox,
    Image,
    Creation,
    Wait,
    Execute,
    Exit,
    Memory,
    Signal,
    ExitFirst,
    Ignored,
    SlowDeath,
    Probe,
    ProbeErrored,
    ProbeHung,
    Hook,
    HookHung,
    Notify,
    Deleted,
    KilledByUser,
    Restarted,
    Changed,
    Stopped,
    Refused,
    DiedBefore,
    DiedAfter,
    Lost,
    Rebooted,
    ShutDown,
    Twice,
    Clock,
}

impl Tally {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// All faults.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Tally) {
        self.lives += other.lives;
        self.facts += other.facts;
        self.plans += other.plans;
        self.checks += other.checks;
        self.seconds += other.seconds;
        for (sum, more) in self.faults.iter_mut().zip(other.faults) {
            *sum += more;
        }
        for (end, more) in &other.ends {
            *self.ends.entry(end).or_default() += more;
        }
    }
}
