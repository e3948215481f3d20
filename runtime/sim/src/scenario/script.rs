//! A scenario as a case of the simulator: every choice that it speaks of, by name.

use plan::{Hook, ProbeKind};

use super::{Answers, Behaviour, Life, Scenario, ToContainer, UserAct};
use crate::choice::{Choice, Deed, How, Key, Line};
use crate::life::Case;

/// Incarnations that there are lines for: no scenario has as many.
const INCARNATIONS: u32 = 8;
/// Attempts of a probe that there are lines for.
const ATTEMPTS: u32 = 300;
/// How long the pod is left alone, if nothing ends it.
const UNTIL_S: u64 = 300;

impl Scenario {
    /// The scenario in virtual time.
    #[must_use]
    pub fn case(&self) -> Case {
        let mut lines = Vec::new();
        for c in 0..self.pod.containers.len() {
            let behaviour = self.behaviour(c);
            for inc in 0..INCARNATIONS {
                behaviour.lines(c, inc, &mut lines);
            }
        }
        for (n, deed) in (0..).zip(&self.deeds) {
            let how = match &deed.what {
                UserAct::Delete { grace_s } => How::Delete { grace_s: *grace_s },
                UserAct::Reboot { notice: true } => How::ShutDown,
                UserAct::Reboot { notice: false } => How::Reboot,
                UserAct::To { container, deed } => {
                    let Ok(c) = self.index(container) else { continue };
                    match deed {
                        ToContainer::Restart => How::Restart { c },
                        ToContainer::Change => How::NewImage { c },
                        ToContainer::Stop => How::Stop { c },
                        ToContainer::Start => How::StartAgain { c },
                    }
                }
            };
            let choice = Choice::new(deed.after_ms, how);
            lines.push(Line { key: Key::of_pod(Deed::User, n), choice });
        }
        Case { pod: self.pod.clone(), seed: 0, script: Some(lines), until_s: Some(UNTIL_S) }
    }
}

impl Behaviour {
    fn lines(&self, c: usize, inc: u32, lines: &mut Vec<Line>) {
        let mut add = |deed, n, choice| {
            let key = Key { n, ..Key::of(deed, c, inc) };
            lines.push(Line { key, choice });
        };
        add(Deed::Life, 0, self.life(inc).choice());
        if self.ignores_signal {
            add(Deed::Signal, 0, Choice::new(0, How::Ignores));
        }
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let Some(answers) = self.probes.get(&kind) else { continue };
            for n in 0..ATTEMPTS {
                add(Deed::Probe(kind), n, Choice::new(0, answers.of(n)));
            }
        }
        for hook in [Hook::PostStart, Hook::PreStop] {
            let Some(run) = self.hooks.get(&hook) else { continue };
            let how = if run.fails { How::Fails } else { How::Succeeds };
            add(Deed::Hook(hook), 0, Choice::new(run.takes_ms, how));
        }
    }

    /// What an incarnation does: the last life that is told goes on.
    pub(super) fn life(&self, inc: u32) -> Life {
        let at = usize::try_from(inc).unwrap_or(usize::MAX).min(self.lives.len().saturating_sub(1));
        self.lives.get(at).copied().unwrap_or(Life::Runs)
    }
}

impl Life {
    fn choice(self) -> Choice {
        match self {
            Life::Runs => Choice::new(0, How::Hangs),
            Life::Exits { code, after_ms } => Choice::new(after_ms, How::Exits { code }),
        }
    }
}

impl Answers {
    fn of(self, n: u32) -> How {
        if (n < self.first) == self.first_succeed { How::Succeeds } else { How::Fails }
    }
}
