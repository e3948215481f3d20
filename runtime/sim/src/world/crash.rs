//! podshim dies, and a successor takes the pod on; or the whole host does, and nothing lives any more.
//!
//! What it knows is the journal: folding that must give the memory that was lost. What it finds out:
//!
//! | intent that was written | the successor |
//! | --- | --- |
//! | sandbox | removes what is there and says that it failed, or waits for its maker |
//! | pull | pulls again |
//! | creation | says that it came to nothing, if the creator died too; else waits for it |
//! | start | starts what still waits; that is one write and can be repeated |
//! | probe | says that the attempt could not be made |
//! | hook | runs it again, as Kubernetes reserves itself to ("at least once") |
//! | SIGKILL | sends it again |
//!
//! A process that has ended meanwhile is told late: with its exit code, or, if nobody at all was there
//! who could have seen it, as one whose code is lost.

use plan::{At, Fact, Hook, Mono, ProbeKind, State, Wall, change, exit_code, fold, plan, status};

use super::{Real, World};
use crate::book::{Broken, Checked, Sandbox, Stage, must};
use crate::choice::How;
use crate::tally::Fault;
use crate::world::Event;

/// How long nobody is there, in milliseconds.
const AWAY_MS: [u64; 6] = [0, 0, 40, 1500, 9000, 70_000];

/// How long a boot takes, in seconds.
const BOOT_S: u32 = 20;

/// How long after its notice the host goes down, in milliseconds.
const DOWN_AFTER_MS: [u64; 3] = [500, 5000, 120_000];

impl World<'_> {
    /// A successor comes, after a while.
    pub(super) fn recover(&mut self) -> Checked {
        let number = self.tries.actions;
        if number % 7 == 3 {
            return self.reboot();
        }
        self.check_journal()?;
        let away = AWAY_MS[usize::try_from(number % 6).unwrap_or(0)];
        self.now = Mono(self.now.0 + away * (Mono::SECOND / 1000));
        // Helpers are children of podshim and may die with it.
        let with_helpers = (number / 6).is_multiple_of(2);
        self.tell(Fact::Adopted { upgraded: false })?;
        self.recover_sandbox(with_helpers)?;
        if (number / 12).is_multiple_of(2) {
            self.lose_exits()?;
        }
        for c in 0..self.pod.containers.len() {
            if self.book.own[c].pulling
                && !self.is_due(|e| matches!(e, Event::Image { c: k, .. } if *k == c))
            {
                self.begin_pull(c);
            }
            let bodies: Vec<u32> = self.book.own[c].bodies.iter().map(|b| b.inc).collect();
            for inc in bodies {
                self.recover_body(c, inc, with_helpers)?;
            }
        }
        Ok(())
    }

    /// The host goes down and is booted again. Only what users do, and what is told late, is still to come.
    pub(super) fn reboot(&mut self) -> Checked {
        self.check_journal()?;
        self.tally.fault(Fault::Rebooted);
        self.now = self.now.plus_s(BOOT_S);
        self.queue.retain(|due| matches!(due.event, Event::User(_) | Event::Again(_)));
        self.processes.clear();
        self.tell(Fact::SandboxLost)
    }

    /// The host gives notice, and goes down after a while: before all has ended, now and then.
    pub(super) fn shut_down(&mut self) -> Checked {
        self.tally.fault(Fault::ShutDown);
        let after_ms = DOWN_AFTER_MS[usize::try_from(self.tries.actions % 3).unwrap_or(0)];
        self.later(after_ms, Event::User(How::Reboot));
        self.tell(Fact::SuspendAsked)
    }

    /// podshim dies between two actions, and a successor comes.
    pub(crate) fn die(&mut self) -> Checked {
        self.recover()?;
        self.settle()
    }

    /// Nobody saw those end that have ended meanwhile.
    fn lose_exits(&mut self) -> Checked {
        let now = self.now;
        let is_over = |due: &super::Due| match due.event {
            Event::Ended { c, inc, how } if how != How::CannotExecute => {
                (due.at <= now).then_some((c, inc))
            }
            _ => None,
        };
        let over: Vec<(usize, u32)> = self.queue.iter().filter_map(is_over).collect();
        self.queue.retain(|due| is_over(due).is_none());
        for (c, inc) in over {
            if self.real(c, inc) != Real::Dead {
                self.tally.fault(Fault::Lost);
                self.set(c, inc, Real::Dead);
                let exit = plan::Exit { code: 137, lost: true, ..plan::Exit::default() };
                self.tell(Fact::Exited { c, inc, exit })?;
            }
        }
        Ok(())
    }

    fn is_due(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.queue.iter().any(|due| is(&due.event))
    }

    fn recover_sandbox(&mut self, with_helpers: bool) -> Checked {
        if self.book.sandbox != Sandbox::Making {
            return Ok(());
        }
        let goes_on = self.is_due(|e| matches!(e, Event::Sandbox(_)));
        if goes_on && !with_helpers {
            return Ok(());
        }
        self.queue.retain(|due| !matches!(due.event, Event::Sandbox(_)));
        self.sandbox_made(How::Fails)
    }

    fn recover_body(&mut self, c: usize, inc: u32, with_helpers: bool) -> Checked {
        let Some(body) = self.book.body(c, inc) else { return Ok(()) };
        let (stage, killed) = (body.stage, body.killed.is_some());
        let in_flight = |kind| body.schedule(kind).in_flight.is_some();
        let probes = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness]
            .map(|kind| (kind, in_flight(kind)));
        let runs = |hook| body.hook(hook).begun.is_some() && body.hook(hook).ended.is_none();
        let hooks = [Hook::PostStart, Hook::PreStop].map(|hook| (hook, runs(hook)));
        match (stage, self.real(c, inc)) {
            (Stage::Making, _) => {
                let is = |e: &Event| matches!(e, Event::Created { c: k, inc: i, .. } if *k == c && *i == inc);
                if with_helpers || !self.is_due(is) {
                    self.queue.retain(|due| !is(&due.event));
                    self.set(c, inc, Real::Dead);
                    let exit = plan::Exit { code: 137, signal: Some(9), ..plan::Exit::default() };
                    return self.tell(Fact::Exited { c, inc, exit });
                }
            }
            (Stage::Launching, Real::Waits) => self.begin_start(c, inc),
            _ => {}
        }
        if killed && stage != Stage::Dead {
            self.send_kill(c, inc);
        }
        if stage != Stage::Runs {
            return Ok(());
        }
        for (kind, _) in probes.into_iter().filter(|(_, on)| *on) {
            self.queue.retain(|due| {
                !matches!(due.event, Event::Probed { c: k, inc: i, kind: of, .. } if k == c && i == inc && of == kind)
            });
            let message = "podshim died".to_owned();
            self.tell(Fact::ProbeErrored { c, inc, kind, message })?;
        }
        for (hook, _) in hooks.into_iter().filter(|(_, on)| *on) {
            let is = |e: &Event| matches!(e, Event::Hooked { c: k, inc: i, hook: of, .. } if *k == c && *i == inc && *of == hook);
            if with_helpers || !self.is_due(is) {
                self.queue.retain(|due| !is(&due.event));
                self.begin_hook(c, inc, hook);
            }
        }
        Ok(())
    }

    /// Folding the journal gives the same memory; with other wall clocks, the same decisions.
    pub(crate) fn check_journal(&self) -> Checked {
        let mut pod = self.born.clone();
        let mut same = State::new(&pod);
        let mut elsewhere = State::new(&pod);
        for (index, record) in self.journal.iter().enumerate() {
            fold(&pod, &mut same, record.at, &record.fact);
            let wall = Wall(1 + (index as u64 * 7919) % 1_000_000 * Mono::SECOND);
            fold(&pod, &mut elsewhere, At { wall, ..record.at }, &record.fact);
            change(&mut pod, &record.fact);
        }
        must!(self.book, same == self.state, "the journal gives another memory");
        let text = serde_json::to_string(&self.state).map_err(|e| Broken(e.to_string()))?;
        let read: State =
            serde_json::from_str(&text).map_err(|e| Broken(format!("{text}: {e}")))?;
        must!(self.book, read == self.state, "written and read, the memory is another one");
        must!(self.book, pod == self.pod, "the journal gives another pod");
        let one = plan(&self.pod, &self.state, self.now);
        must!(self.book, one == plan(&self.pod, &elsewhere, self.now), "the wall clock decides");
        let code = exit_code(&self.pod, &self.state);
        must!(
            self.book,
            code == exit_code(&self.pod, &elsewhere),
            "the wall clock decides the exit code"
        );
        let phase = |state: &State| status(&self.pod, state, self.at()).phase;
        must!(
            self.book,
            phase(&self.state) == phase(&elsewhere),
            "the wall clock decides the phase"
        );
        Ok(())
    }
}
