//! What is left to chance in a life, one thing at a time.
//!
//! Every choice has a name ([`Key`]): "the third attempt of the startup probe of incarnation 1 of
//! container 0". What comes of it ([`Choice`]) depends on the seed and on that name only, so one
//! choice can be taken out of a life, and all others stay what they were. That is what makes a failure
//! small ([`crate::shrink`]), and its file readable.

use std::collections::BTreeMap;

use plan::{Hook, ProbeKind};
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Which thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Deed {
    /// An attempt to make the sandbox.
    Sandbox,
    /// A look for an image.
    Image,
    /// A creation.
    Create,
    /// What becomes of a created process while it waits for its start.
    Wait,
    /// A start.
    Start,
    /// How a process ends by itself.
    Life,
    /// What a process does about its stop signal.
    Signal,
    /// When a process that got SIGKILL is gone.
    Kill,
    /// An attempt of a probe.
    Probe(ProbeKind),
    /// A run of a hook.
    Hook(Hook),
    /// When a process says that it is ready.
    Notify,
    /// Something that a user does.
    User,
    /// A death of podshim, at the action with this number.
    Crash,
    /// A fact that is told twice, the one with this number.
    Double,
    /// A jump of the wall clock.
    Jump,
    /// A timer that fires late.
    Oversleep,
}

/// The name of a choice. `n` counts what happens more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Which thing.
    pub deed: Deed,
    /// Of which container.
    #[serde(default, skip_serializing_if = "is_zero_c")]
    pub c: usize,
    /// Of which incarnation.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inc: u32,
    /// Which time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_zero_c(c: &usize) -> bool {
    *c == 0
}

impl Key {
    /// The choice of a pod, for the `n`th time.
    #[must_use]
    pub fn of_pod(deed: Deed, n: u32) -> Key {
        Key { deed, c: 0, inc: 0, n }
    }

    /// The choice of an incarnation, for the first time.
    #[must_use]
    pub fn of(deed: Deed, c: usize, inc: u32) -> Key {
        Key { deed, c, inc, n: 0 }
    }

    fn number(self) -> u64 {
        let deed = match self.deed {
            Deed::Sandbox => 0,
            Deed::Image => 1,
            Deed::Create => 2,
            Deed::Wait => 3,
            Deed::Start => 4,
            Deed::Life => 5,
            Deed::Signal => 6,
            Deed::Kill => 7,
            Deed::Notify => 8,
            Deed::User => 9,
            Deed::Crash => 10,
            Deed::Double => 11,
            Deed::Jump => 12,
            Deed::Oversleep => 13,
            Deed::Probe(kind) => 16 + kind as u64,
            Deed::Hook(hook) => 24 + hook as u64,
        };
        deed << 58 ^ (self.c as u64) << 50 ^ u64::from(self.inc) << 28 ^ u64::from(self.n)
    }
}

/// How it comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum How {
    /// As it should.
    Succeeds,
    /// Not as it should.
    Fails,
    /// Not as it should, and trying again cannot help.
    FailsForGood,
    /// It could not be tried.
    Errs,
    /// Never, or not before its timeout.
    Hangs,
    /// The process ends with a code.
    Exits {
        /// Which.
        code: i32,
    },
    /// The process ends with a code, and its cgroup counted an OOM kill.
    RunsOutOfMemory {
        /// Which.
        code: i32,
    },
    /// A signal ends the process.
    DiesOf {
        /// Which.
        signal: i32,
    },
    /// `execve(2)` fails.
    CannotExecute,
    /// The process has no handler for its stop signal.
    Ignores,
    /// It happens, and is told two times.
    Twice,
    /// The pod is deleted.
    Delete {
        /// The grace period that was asked for.
        grace_s: Option<u32>,
    },
    /// All is killed.
    KillAll,
    /// The host goes down, with notice, and comes up later.
    ShutDown,
    /// The host is booted anew.
    Reboot,
    /// A container is restarted.
    Restart {
        /// Which.
        c: usize,
    },
    /// A container gets another definition, drawn from a seed of its own.
    Change {
        /// Which.
        c: usize,
        /// The seed.
        seed: u32,
    },
    /// A container gets another image, and nothing else changes.
    NewImage {
        /// Which.
        c: usize,
    },
    /// A container gets other limits while it runs.
    Resize {
        /// Which.
        c: usize,
    },
    /// The pod gets another deadline.
    Deadline {
        /// In seconds from its acceptance.
        seconds: u32,
    },
    /// A sidecar is to stop and stay down.
    Stop {
        /// Which.
        c: usize,
    },
    /// A sidecar that was stopped is to run again.
    StartAgain {
        /// Which.
        c: usize,
    },
    /// After the intent was written and before the action.
    BeforeTheAction,
    /// After the action and before its outcome was written.
    AfterTheAction,
    /// By so many seconds.
    By {
        /// How many.
        seconds: i64,
    },
}

impl How {
    /// The container that a user means.
    pub(crate) fn container_mut(&mut self) -> Option<&mut usize> {
        match self {
            How::Restart { c }
            | How::Change { c, .. }
            | How::NewImage { c }
            | How::Resize { c }
            | How::Stop { c }
            | How::StartAgain { c } => Some(c),
            _ => None,
        }
    }
}

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// After how many milliseconds. For a crash, a fact told twice, and a jump it is what they strike:
    /// the action's or fact's number.
    #[serde(default, skip_serializing_if = "is_zero_ms")]
    pub after_ms: u64,
    /// How.
    pub how: How,
}

fn is_zero_ms(n: &u64) -> bool {
    *n == 0
}

impl Choice {
    /// Something that comes out so after so long.
    #[must_use]
    pub fn new(after_ms: u64, how: How) -> Choice {
        Choice { after_ms, how }
    }

    /// What happens in a world where nothing goes wrong: everything succeeds at once, processes run
    /// until they are told to stop, and obey. Init containers end after a second.
    #[must_use]
    pub fn calm(key: Key, completes: bool) -> Choice {
        match key.deed {
            Deed::Life if completes => Choice::new(1000, How::Exits { code: 0 }),
            Deed::Life | Deed::Wait => Choice::new(0, How::Hangs),
            Deed::Signal => Choice::new(0, How::DiesOf { signal: 15 }),
            _ => Choice::new(0, How::Succeeds),
        }
    }
}

/// A choice and its name: a line of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    #[serde(flatten)]
    pub key: Key,
    /// What is chosen.
    #[serde(flatten)]
    pub choice: Choice,
}

/// Where choices come from.
#[derive(Clone, Debug)]
pub enum Fate {
    /// From a seed. What is chosen is written down if there is a list for it.
    Seed {
        /// The seed.
        seed: u64,
        /// The list.
        record: Option<Vec<Line>>,
    },
    /// From a list; what is not in it is calm.
    Script(BTreeMap<Key, Choice>),
}

impl Fate {
    /// From a list.
    #[must_use]
    pub fn of_script(lines: &[Line]) -> Fate {
        Fate::Script(lines.iter().map(|line| (line.key, line.choice)).collect())
    }

    /// Chooses. `chance` draws what may happen; `completes` says whether it is about an init container.
    pub fn choose(
        &mut self,
        key: Key,
        completes: bool,
        chance: impl FnOnce(&mut Rng) -> Choice,
    ) -> Choice {
        match self {
            Fate::Script(lines) => {
                lines.get(&key).copied().unwrap_or_else(|| Choice::calm(key, completes))
            }
            Fate::Seed { seed, record } => {
                let choice = chance(&mut Rng::of(*seed, key.number()));
                if let Some(record) = record {
                    record.push(Line { key, choice });
                }
                choice
            }
        }
    }

    /// All choices of a deed that strikes the pod from outside, and not because it came to be.
    pub fn strokes(
        &mut self,
        deed: Deed,
        count: u32,
        mut chance: impl FnMut(&mut Rng) -> Choice,
    ) -> Vec<Choice> {
        match self {
            Fate::Script(lines) => lines
                .iter()
                .filter(|(key, _)| key.deed == deed)
                .map(|(_, choice)| *choice)
                .collect(),
            Fate::Seed { .. } => {
                (0..count).map(|n| self.choose(Key::of_pod(deed, n), false, &mut chance)).collect()
            }
        }
    }
}
