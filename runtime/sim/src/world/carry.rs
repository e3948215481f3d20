//! Carrying an action out: its intent is told first, then it is begun, and its outcome comes later.
//!
//! At each of the two seams podshim may die ([`super::crash`]).

use plan::{Action, Fact, Hook, Kind, ProbeKind};

use super::{Due, Process, Real, World};
use crate::book::Broken;
use crate::choice::{Choice, Deed, How, Key};
use crate::rng::Rng;
use crate::tally::Fault;
use crate::world::Event;

/// Whether podshim still lives.
type Lives = Result<bool, Broken>;

impl World<'_> {
    /// Does it. `false` if podshim died over it.
    pub(super) fn carry_out(&mut self, action: &Action) -> Lives {
        let number = self.tries.actions;
        self.tries.actions += 1;
        let dies = self.strokes.crashes.iter().find(|c| c.after_ms == number).map(|c| c.how);
        let dies = dies.filter(|_| !self.fair);
        if let Action::ResolveImage { c } = *action
            && number.is_multiple_of(4)
        {
            return self.look_for_image(c).map(|()| true);
        }
        if let Some(intent) = intent(action) {
            self.tell(intent)?;
        }
        if dies == Some(How::BeforeTheAction) {
            self.tally.fault(Fault::DiedBefore);
            return Ok(false);
        }
        let before = self.order;
        self.begin(action);
        if dies == Some(How::AfterTheAction) {
            self.tally.fault(Fault::DiedAfter);
            return Ok(false);
        }
        self.end_at_once(action)?;
        if number.is_multiple_of(3) {
            self.end_within_the_batch(action, before)?;
        }
        Ok(true)
    }

    /// What a shim does in one go is over before it looks at the next action of the same plan. `before` is
    /// the number of the last event that was in the queue before the action.
    fn end_within_the_batch(&mut self, action: &Action, before: u64) -> Result<(), Broken> {
        let in_one_go = matches!(
            action,
            Action::MakeSandbox
                | Action::ResolveImage { .. }
                | Action::Create { .. }
                | Action::Probe { .. }
                | Action::Hook { .. }
        );
        let is_over = |due: &Due| in_one_go && due.order > before && due.at == self.now;
        match self.queue.pop_if(|due| is_over(due)) {
            Some(due) => self.one(&due.event),
            None => Ok(()),
        }
    }

    /// The image is here, or cannot be had, without a pull.
    fn look_for_image(&mut self, c: usize) -> Result<(), Broken> {
        let choice = self.image_choice(c);
        self.image_found(c, choice.how)
    }

    /// The action itself.
    fn begin(&mut self, action: &Action) {
        match *action {
            Action::MakeSandbox => self.begin_sandbox(),
            Action::ResolveImage { c } => self.begin_pull(c),
            Action::Create { c, inc } => self.begin_creation(c, inc),
            Action::Start { c, inc, .. } => self.begin_start(c, inc),
            Action::Probe { c, inc, kind, timeout_s, .. } => {
                self.begin_probe(c, inc, kind, timeout_s);
            }
            Action::Hook { c, inc, hook } => self.begin_hook(c, inc, hook),
            Action::Signal { c, inc } => self.send_signal(c, inc),
            Action::Kill { c, inc } => self.send_kill(c, inc),
            Action::Clean { c, inc } => self.processes.retain(|p| p.c != c || p.inc != inc),
            Action::RestartAll { .. }
            | Action::Stop { .. }
            | Action::End { .. }
            | Action::Teardown => {}
        }
    }

    /// The outcome of what takes no time.
    fn end_at_once(&mut self, action: &Action) -> Result<(), Broken> {
        match *action {
            Action::Signal { c, inc } => {
                let handled = !self.ignores(c, inc);
                self.tell(Fact::Signalled { c, inc, signal: 15, handled })
            }
            Action::Clean { c, inc } => self.tell(Fact::Gone { c, inc }),
            Action::Teardown => self.tell(Fact::TornDown),
            _ => Ok(()),
        }
    }

    pub(super) fn choose(&mut self, key: Key, chance: impl FnOnce(&mut Rng) -> Choice) -> Choice {
        let completes = self.pod.containers.get(key.c).is_some_and(|k| k.kind == Kind::Init);
        let choice = self.fate.choose(key, completes, chance);
        if self.fair { Choice { after_ms: 0, ..choice } } else { choice }
    }

    pub(super) fn set(&mut self, c: usize, inc: u32, real: Real) {
        if let Some(process) = self.processes.iter_mut().find(|p| p.c == c && p.inc == inc) {
            process.real = real;
        }
    }

    pub(super) fn real(&self, c: usize, inc: u32) -> Real {
        let found = self.processes.iter().find(|p| p.c == c && p.inc == inc);
        found.map_or(Real::Dead, |p| p.real)
    }

    fn begin_sandbox(&mut self) {
        let (temper, n) = (self.temper, self.tries.sandbox);
        self.tries.sandbox += 1;
        let choice = self.choose(Key::of_pod(Deed::Sandbox, n), |rng| temper.sandbox(rng));
        self.later(choice.after_ms, Event::Sandbox(choice.how));
    }

    fn image_choice(&mut self, c: usize) -> Choice {
        let (temper, n) = (self.temper, self.tries.images[c]);
        self.tries.images[c] += 1;
        let key = Key { n, ..Key::of(Deed::Image, c, 0) };
        self.choose(key, |rng| temper.work(rng))
    }

    pub(super) fn begin_pull(&mut self, c: usize) {
        let choice = self.image_choice(c);
        self.later(choice.after_ms, Event::Image { c, how: choice.how });
    }

    fn begin_creation(&mut self, c: usize, inc: u32) {
        let process = Process { c, inc, real: Real::Making, signalled: false, killed: false };
        self.processes.push(process);
        let temper = self.temper;
        let choice = self.choose(Key::of(Deed::Create, c, inc), |rng| temper.work(rng));
        self.later(choice.after_ms, Event::Created { c, inc, how: choice.how });
    }

    pub(super) fn begin_start(&mut self, c: usize, inc: u32) {
        // It may have died in the meantime: then its exit is on the way.
        if self.real(c, inc) != Real::Waits {
            return;
        }
        let temper = self.temper;
        let container = self.book.made_from(c, inc).clone();
        let policy = container.policy.unwrap_or(self.pod.restart_policy);
        self.set(c, inc, Real::Executes);
        let start = self.choose(Key::of(Deed::Start, c, inc), |rng| temper.start(rng));
        if start.how == How::CannotExecute {
            return self.later(start.after_ms, Event::Ended { c, inc, how: start.how });
        }
        self.later(start.after_ms, Event::Started { c, inc });
        let life =
            self.choose(Key::of(Deed::Life, c, inc), |rng| temper.life(rng, &container, policy));
        if life.how != How::Hangs {
            self.later(life.after_ms, Event::Ended { c, inc, how: life.how });
        }
        if container.notify {
            let notify = self.choose(Key::of(Deed::Notify, c, inc), |rng| temper.notify(rng));
            let after_ms = start.after_ms + notify.after_ms;
            match notify.how {
                How::Hangs => self.tally.fault(Fault::Notify),
                how => self.later(after_ms, Event::Notified { c, inc, how }),
            }
        }
    }

    fn begin_probe(&mut self, c: usize, inc: u32, kind: ProbeKind, timeout_s: u32) {
        let found = self.probes.iter_mut().find(|p| p.0 == c && p.1 == inc && p.2 == kind);
        let n = match found {
            Some(count) => {
                count.3 += 1;
                count.3
            }
            None => {
                self.probes.push((c, inc, kind, 0));
                0
            }
        };
        let temper = self.temper;
        let key = Key { n, ..Key::of(Deed::Probe(kind), c, inc) };
        let choice = self.choose(key, |rng| temper.probe(rng, c, kind, timeout_s));
        self.later(choice.after_ms, Event::Probed { c, inc, kind, how: choice.how });
    }

    pub(super) fn begin_hook(&mut self, c: usize, inc: u32, hook: Hook) {
        let temper = self.temper;
        let choice = self.choose(Key::of(Deed::Hook(hook), c, inc), |rng| temper.hook(rng, hook));
        if choice.how == How::Hangs {
            self.tally.fault(Fault::HookHung);
        } else {
            self.later(choice.after_ms, Event::Hooked { c, inc, hook, how: choice.how });
        }
    }

    fn signal_choice(&mut self, c: usize, inc: u32) -> Choice {
        let temper = self.temper;
        self.choose(Key::of(Deed::Signal, c, inc), |rng| temper.signal(rng))
    }

    fn ignores(&mut self, c: usize, inc: u32) -> bool {
        self.signal_choice(c, inc).how == How::Ignores
    }

    fn send_signal(&mut self, c: usize, inc: u32) {
        let Some(process) = self.processes.iter_mut().find(|p| p.c == c && p.inc == inc) else {
            return;
        };
        // A second one, of a podshim that did not know of the first, changes nothing.
        if std::mem::replace(&mut process.signalled, true) {
            return;
        }
        let choice = self.signal_choice(c, inc);
        match choice.how {
            How::Ignores => self.tally.fault(Fault::Ignored),
            how => self.later(choice.after_ms, Event::Ended { c, inc, how }),
        }
    }

    pub(super) fn send_kill(&mut self, c: usize, inc: u32) {
        let Some(process) = self.processes.iter_mut().find(|p| p.c == c && p.inc == inc) else {
            return;
        };
        if std::mem::replace(&mut process.killed, true) {
            return;
        }
        let temper = self.temper;
        let choice = self.choose(Key::of(Deed::Kill, c, inc), |rng| temper.kill(rng));
        if choice.after_ms >= 1000 {
            self.tally.fault(Fault::SlowDeath);
        }
        self.later(choice.after_ms, Event::Ended { c, inc, how: How::DiesOf { signal: 9 } });
    }
}

/// The fact that is written before an action, where there is one.
fn intent(action: &Action) -> Option<Fact> {
    Some(match *action {
        Action::MakeSandbox => Fact::SandboxMaking,
        Action::ResolveImage { c } => Fact::ImagePulling { c },
        Action::Create { c, inc } => Fact::Creating { c, inc },
        Action::Start { c, inc, .. } => Fact::Starting { c, inc },
        Action::Probe { c, inc, kind, early, .. } => Fact::Probing { c, inc, kind, early },
        Action::Hook { c, inc, hook } => Fact::HookRunning { c, inc, hook },
        Action::RestartAll { c } => Fact::RestartingAll { c },
        Action::Stop { c, inc, why, grace_s } => Fact::Stopping { c, inc, why, grace_s },
        Action::End { why, grace_s } => Fact::Ending { why, grace_s },
        Action::Kill { c, inc } => Fact::Killed { c, inc },
        Action::Signal { .. } | Action::Clean { .. } | Action::Teardown => return None,
    })
}
