//! One text, two worlds: a pod, what its containers do and what a user does, and what must come of it.
//! The same file is lived in virtual time ([`Scenario::case`]) and, as a manifest of shell scripts
//! ([`Scenario::manifest`]), by the real shim on the real kernel; both are judged by the same words
//! ([`Scenario::judge`]).
//!
//! ```text
//! # Sidecars stop after main, in reverse.
//! pod: Never grace=5; sidecar net; sidecar log; main app
//! app: exits 0 after 300ms
//! log: pre-stop takes 200ms
//! delete after 2s grace=1
//! then:
//! log starts before app starts
//! app exits before log exits
//! log exits before net exits
//! pod Succeeded
//! ```
//!
//! A container does one thing an incarnation, separated by `;`, and the last one for ever after: `runs`,
//! `exits CODE after TIME`. Else it runs until it is told to stop and obeys, unless it `ignores its
//! signal`. Clauses about it are separated by commas: `startup|readiness|liveness fails N times` (then
//! succeeds), `… fails for ever`, `… succeeds N times` (then fails), `post-start|pre-stop takes TIME`, `…
//! fails`. A user may `delete after TIME [grace=N]`, `restart|change|stop|start NAME after TIME`, and the host
//! may `reboot after TIME`, or `lose-power after TIME`.

mod cue;
mod judge;
mod manifest;
mod script;
mod words;

use std::collections::BTreeMap;

use plan::{Hook, Pod, ProbeKind};

use crate::pod_line;

pub use cue::{Cue, Seen};
pub use judge::{Happening, What};

/// A scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it shows.
    pub title: String,
    /// The pod.
    pub pod: Pod,
    /// What the containers do, by their index.
    behaviours: BTreeMap<usize, Behaviour>,
    /// What a user does, and when.
    pub deeds: Vec<UserDeed>,
    /// What must come of it, a line each.
    pub expectations: Vec<String>,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Behaviour {
    /// One for each incarnation; the last goes on.
    lives: Vec<Life>,
    ignores_signal: bool,
    probes: BTreeMap<ProbeKind, Answers>,
    hooks: BTreeMap<Hook, HookRun>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Runs,
    Exits { code: i32, after_ms: u64 },
}

/// What a probe's attempts come to, in each incarnation anew.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answers {
    /// The first ones.
    first: u32,
    /// How those end; all others end the other way.
    first_succeed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct HookRun {
    takes_ms: u64,
    fails: bool,
}

/// Something that a user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDeed {
    /// How long after the pod was accepted, in milliseconds.
    pub after_ms: u64,
    /// What.
    pub what: UserAct,
}

/// What a user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAct {
    /// Deletes the pod.
    Delete {
        /// With this grace period, in seconds, or the pod's own.
        grace_s: Option<u32>,
    },
    /// Boots the host anew; without notice, it loses its power.
    Reboot {
        /// Whether there is notice.
        notice: bool,
    },
    /// Does something to a container.
    To {
        /// Its name.
        container: String,
        /// What.
        deed: ToContainer,
    },
}

/// What a user does to one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToContainer {
    /// Restarts it.
    Restart,
    /// Changes its definition.
    Change,
    /// Stops it, a sidecar.
    Stop,
    /// Starts it again.
    Start,
}

impl ToContainer {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ToContainer::Restart => "restart",
            ToContainer::Change => "change",
            ToContainer::Stop => "stop",
            ToContainer::Start => "start",
        }
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The line that is not understood, and why.
    pub fn read(text: &str) -> Result<Scenario, String> {
        let mut title = Vec::new();
        let mut scenario: Option<Scenario> = None;
        let mut expects = false;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            let wrong = |why: String| format!("line {number}: {why}: {line}");
            match &mut scenario {
                _ if line.is_empty() => {}
                None => match (line.strip_prefix('#'), line.strip_prefix("pod:")) {
                    (Some(comment), _) => title.push(comment.trim()),
                    (None, Some(text)) => {
                        let pod =
                            pod_line::read(text.trim(), "scenario", "scenario").map_err(wrong)?;
                        scenario = Some(Scenario::new(title.join(" "), pod));
                    }
                    (None, None) => return Err(wrong("the pod comes first".into())),
                },
                Some(_) if line.starts_with('#') => {}
                Some(_) if line == "then:" => expects = true,
                Some(scenario) if expects => scenario.expectations.push(line.to_owned()),
                Some(scenario) => scenario.told(line).map_err(wrong)?,
            }
        }
        scenario.ok_or_else(|| "there is no line `pod:`".to_owned())
    }

    fn new(title: String, pod: Pod) -> Scenario {
        let (behaviours, deeds, expectations) = Default::default();
        Scenario { title, pod, behaviours, deeds, expectations }
    }

    /// What a container does, by its own clauses or by default.
    fn behaviour(&self, c: usize) -> Behaviour {
        self.behaviours.get(&c).cloned().unwrap_or_default()
    }
}

/// `300ms`, `2s`.
fn milliseconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(""), 1000),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is no time like 300ms or 2s"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too long"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits"))
}

#[cfg(test)]
mod tests;
