//! Signal and SIGKILL: "each container has what is left of the grace, counted in whole seconds, and 2 s
//! at least between its stop signal and SIGKILL"; sidecars "in the reverse order of their appearance".

use plan::{Kind, Mono};

use crate::book::{Body, Book, Checked, Grace, Sandbox, Stage, must};

const LEAST_S: u64 = 2;

impl Book {
    pub(crate) fn is_stopped(&self, body: &Body) -> bool {
        body.stop.is_some() || self.ending.is_some()
    }

    fn graces<'b>(&'b self, body: &'b Body) -> impl Iterator<Item = Grace> + 'b {
        let pod = self.ending.map(|(_, grace)| grace);
        body.stop.map(|(_, grace)| grace).into_iter().chain(pod)
    }

    /// When the first of the graces ends that an incarnation has.
    pub(crate) fn first_end(&self, body: &Body) -> Option<Mono> {
        self.graces(body).map(Grace::end).min()
    }

    /// Who must be dead before the sidecar `c` is told to stop: a main, or a later sidecar.
    pub(crate) fn must_die_before(&self, c: usize) -> Option<usize> {
        if self.pod.containers[c].kind != Kind::Sidecar || self.ending.is_none() {
            return None;
        }
        let comes_first = |other: &usize| match self.pod.containers[*other].kind {
            Kind::Main => true,
            Kind::Sidecar => *other > c,
            Kind::Init => false,
        };
        (0..self.own.len()).filter(comes_first).find(|other| self.own[*other].on().is_some())
    }

    /// Whether the preStop hook holds the signal back.
    pub(crate) fn is_hook_on(&self, now: Mono, c: usize, body: &Body) -> bool {
        let has_time = self.first_end(body).is_some_and(|end| now < end);
        body.made_from(&self.pod.containers[c]).pre_stop && body.pre.ended.is_none() && has_time
    }

    /// Whether the order of sidecars holds the signal back.
    pub(crate) fn is_in_line(&self, now: Mono, c: usize) -> bool {
        let has_time = self.ending.is_some_and(|(_, grace)| now < grace.end());
        has_time && self.must_die_before(c).is_some()
    }

    /// When an incarnation that got its signal is to be killed.
    pub(crate) fn kill_due(&self, body: &Body) -> Option<Mono> {
        let signalled = body.signalled?;
        let of = |grace: Grace| {
            if signalled < grace.since {
                // The grace was shortened after the signal.
                return grace.end().max(seconds_after(signalled, LEAST_S));
            }
            let hook_end = match (body.pre.begun, body.pre.ended) {
                (None, _) => grace.since,
                (Some(_), Some(ended)) => ended.max(grace.since),
                (Some(_), None) => signalled,
            };
            let hook = whole_seconds(grace.since, hook_end);
            let line = whole_seconds(hook_end, signalled);
            let left = u64::from(grace.seconds).saturating_sub(hook + line);
            seconds_after(signalled, left.max(LEAST_S))
        };
        self.graces(body).map(of).min()
    }

    /// When an incarnation is killed that was told to start, and of which nothing is known since.
    pub(crate) fn launch_end(&self) -> Option<Mono> {
        let (_, grace) = self.ending?;
        Some(seconds_after(grace.since, u64::from(grace.seconds).max(LEAST_S)))
    }

    pub(super) fn check_signal(&self, now: Mono, c: usize, inc: u32) -> Checked {
        let name = self.name(c);
        let Some(body) = self.body(c, inc).filter(|b| b.stage == Stage::Runs) else {
            must!(self, false, "{name}/{inc} gets its stop signal, but does not run");
            return Ok(());
        };
        must!(self, body.signalled.is_none(), "{name} gets its stop signal twice");
        must!(self, self.is_stopped(body), "{name} gets its stop signal, but is not stopped");
        must!(
            self,
            !self.kill && !self.starting_over,
            "{name} gets a stop signal, but is to be killed"
        );
        must!(
            self,
            !self.is_hook_on(now, c, body),
            "{name} gets its stop signal before its preStop is over"
        );
        let first = self.must_die_before(c).map(|other| self.name(other));
        must!(
            self,
            !self.is_in_line(now, c),
            "{name} gets its stop signal before {first:?} has ended"
        );
        Ok(())
    }

    pub(super) fn check_kill(&self, now: Mono, c: usize, inc: u32) -> Checked {
        let name = self.name(c);
        let Some(body) = self.body(c, inc) else {
            must!(self, false, "{name}/{inc} is killed, but is not there");
            return Ok(());
        };
        must!(self, body.killed.is_none(), "{name} is killed twice");
        match body.stage {
            Stage::Waits => {
                let in_vain = self.ending.is_some() || self.is_finished(c) || body.old.is_some();
                must!(
                    self,
                    in_vain && !self.starting_over,
                    "{name}/{inc} is killed, but is needed"
                );
            }
            Stage::Launching | Stage::Runs if self.kill && self.ending.is_some() => {}
            Stage::Launching | Stage::Runs if self.starting_over => {}
            Stage::Launching => {
                let due = self.launch_end();
                must!(
                    self,
                    due.is_some_and(|due| due <= now),
                    "{name} is killed at {now:?}; due is {due:?}"
                );
            }
            Stage::Runs => {
                let due = self.kill_due(body);
                must!(
                    self,
                    due.is_some_and(|due| due <= now),
                    "{name} is killed at {now:?}; due is {due:?}"
                );
            }
            Stage::Making | Stage::Dead => {
                must!(self, false, "{name}/{inc} is killed ({:?})", body.stage)
            }
        }
        must!(self, self.sandbox == Sandbox::Yes, "{name} is killed without a sandbox");
        Ok(())
    }
}

fn seconds_after(at: Mono, seconds: u64) -> Mono {
    Mono(at.0 + seconds * Mono::SECOND)
}

fn whole_seconds(from: Mono, to: Mono) -> u64 {
    to.0.saturating_sub(from.0) / Mono::SECOND
}
