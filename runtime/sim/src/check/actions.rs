//! Whether an action may be done now.

use plan::{Action, Container, End, Hook, Kind, Mono, ProbeKind, PullWhen, Stop};

use crate::book::{Body, Book, Checked, Sandbox, Stage, must};

impl Book {
    /// Checks an action before it is carried out.
    pub(crate) fn check_action(&self, now: Mono, action: &Action) -> Checked {
        must!(
            self,
            self.accepted.is_some() && !self.torn_down,
            "{action:?} of a pod that is not there"
        );
        match *action {
            Action::MakeSandbox => self.check_sandbox(now),
            Action::ResolveImage { c } => self.check_resolve(now, c),
            Action::Create { c, inc } => self.check_create(now, c, inc),
            Action::Start { c, inc, restart_count } => self.check_start(now, c, inc, restart_count),
            Action::Probe { c, inc, kind, early, timeout_s } => {
                self.check_probe(now, c, inc, kind, early)?;
                let meant = self.made_from(c, inc).probe(kind).map(|p| p.timeout_s);
                must!(self, meant == Some(timeout_s), "a probe's timeout is {timeout_s} s");
                Ok(())
            }
            Action::Hook { c, inc, hook } => self.check_hook(now, c, inc, hook),
            Action::RestartAll { c } => {
                let name = self.name(c);
                must!(
                    self,
                    self.own[c].wants_all,
                    "the pod starts over for {name}, which asked for nothing"
                );
                must!(self, self.lives_on(), "the pod starts over while it ends or starts over");
                Ok(())
            }
            Action::Stop { c, inc, why, grace_s } => self.check_stop(c, inc, why, grace_s),
            Action::End { why, grace_s } => self.check_end(now, why, grace_s),
            Action::Signal { c, inc } => self.check_signal(now, c, inc),
            Action::Kill { c, inc } => self.check_kill(now, c, inc),
            Action::Clean { c, inc } => {
                let dead = self.body(c, inc).is_some_and(|b| b.stage == Stage::Dead);
                must!(
                    self,
                    dead,
                    "what is left of {}/{inc} is removed while it lives",
                    self.name(c)
                );
                Ok(())
            }
            Action::Teardown => {
                let empty = self.own.iter().all(|own| own.bodies.is_empty());
                must!(
                    self,
                    empty,
                    "the pod is torn down, but something of its containers is there"
                );
                must!(self, self.ending.is_some(), "a pod that does not end is torn down");
                must!(self, self.sandbox != Sandbox::Making, "torn down while its sandbox is made");
                Ok(())
            }
        }
    }

    /// Neither does the pod end nor start over.
    pub(crate) fn lives_on(&self) -> bool {
        self.ending.is_none() && !self.starting_over
    }

    fn check_sandbox(&self, now: Mono) -> Checked {
        must!(self, self.lives_on(), "a sandbox is made for a pod that ends");
        must!(self, self.sandbox == Sandbox::No, "a second sandbox is made");
        let over = self.sandbox_streak.over();
        must!(self, over <= now, "the sandbox is tried again before {over:?}");
        Ok(())
    }

    /// Whether a container needs an incarnation that it does not have.
    pub(crate) fn needs_a_body(&self, c: usize) -> bool {
        let (container, own) = (&self.pod.containers[c], &self.own[c]);
        let stands_by = container.standby && !container.at_start && container.kind != Kind::Init;
        let wanted = match own.on() {
            // The new one is made while the old one is being stopped.
            Some(on) if on.old.is_some() => !container.at_start && !own.down,
            Some(_) => stands_by && !own.down,
            None => self.is_wanted(c),
        };
        own.spare().is_none() && wanted
    }

    /// What an incarnation was made from.
    pub(crate) fn made_from(&self, c: usize, inc: u32) -> &Container {
        let container = &self.pod.containers[c];
        self.body(c, inc).map_or(container, |body| body.made_from(container))
    }

    /// Whether it can be made from the image that is known.
    pub(crate) fn has_usable_image(&self, c: usize) -> bool {
        let own = &self.own[c];
        let each = self.pod.containers[c].pull == PullWhen::EachStart;
        own.has_image && (!each || own.asked_since_creation)
    }

    /// Whether a container may be started as far as order and back-off go.
    pub(crate) fn may_start(&self, now: Mono, c: usize) -> bool {
        self.is_its_turn(c) && self.backoff_over(c).is_none_or(|over| over <= now)
    }

    fn check_resolve(&self, now: Mono, c: usize) -> Checked {
        let (own, name) = (&self.own[c], self.name(c));
        must!(self, self.lives_on(), "an image is looked for while the pod ends or starts over");
        must!(self, !own.pulling, "the image of {name} is pulled twice at once");
        must!(self, self.needs_a_body(c), "the image of {name} is looked for in vain");
        must!(self, !self.has_usable_image(c), "the image of {name} is known");
        must!(
            self,
            own.image.over() <= now,
            "the image of {name} is tried before its back-off is over"
        );
        Ok(())
    }

    fn check_create(&self, now: Mono, c: usize, inc: u32) -> Checked {
        let (own, name) = (&self.own[c], self.name(c));
        must!(self, self.lives_on(), "{name} is created while the pod ends or starts over");
        must!(self, inc == own.next, "incarnation {inc} of {name} is created, not {}", own.next);
        must!(self, self.needs_a_body(c), "{name} is created, but is not needed");
        must!(self, self.has_usable_image(c), "{name} is created from an image that is not known");
        must!(self, self.sandbox == Sandbox::Yes, "{name} is created before its sandbox");
        must!(
            self,
            own.creation.over() <= now,
            "{name} is created again before {:?}",
            own.creation.over()
        );
        if self.pod.containers[c].at_start {
            must!(self, own.on().is_none(), "{name} has a spare, but is made at its start");
            must!(self, self.may_start(now, c), "{name} is made before it may start");
        }
        Ok(())
    }

    fn check_start(&self, now: Mono, c: usize, inc: u32, restart_count: u32) -> Checked {
        let (own, name) = (&self.own[c], self.name(c));
        must!(self, self.ending.is_none(), "{name} is started while the pod ends");
        must!(self, !self.starting_over, "{name} is started while the pod starts over");
        must!(self, own.on().is_none(), "{name} is started while it runs");
        let waits = own.body(inc).is_some_and(|b| b.stage == Stage::Waits && b.is_spare());
        must!(self, waits, "{name}/{inc} is started, but does not wait for it");
        must!(self, self.is_wanted(c), "{name} is started against its restart policy");
        must!(self, self.is_its_turn(c), "{name} is started out of order");
        let over = self.backoff_over(c);
        must!(
            self,
            over.is_none_or(|over| over <= now),
            "{name} is started at {now:?}, before its back-off is over: {over:?}"
        );
        must!(
            self,
            restart_count == own.starts,
            "the restartCount of {name} is {restart_count}, not {}",
            own.starts
        );
        Ok(())
    }

    fn runs(&self, c: usize, inc: u32) -> Option<&Body> {
        self.body(c, inc).filter(|b| b.stage == Stage::Runs)
    }

    /// Whether a probe of a running incarnation is tried now, by the rules of who is probed when.
    pub(crate) fn is_probed(&self, body: &Body, kind: ProbeKind) -> bool {
        let is_stopped = body.stop.is_some() || self.ending.is_some();
        let failed = body.schedule(kind).verdict == Some(false);
        !self.starting_over
            && match kind {
                ProbeKind::Startup => !is_stopped && body.schedule(kind).verdict.is_none(),
                ProbeKind::Liveness => !is_stopped && body.started.is_some() && !failed,
                ProbeKind::Readiness => body.started.is_some(),
            }
    }

    fn check_probe(&self, now: Mono, c: usize, inc: u32, kind: ProbeKind, early: bool) -> Checked {
        let name = self.name(c);
        let (Some(body), Some(probe)) = (self.runs(c, inc), self.made_from(c, inc).probe(kind))
        else {
            must!(
                self,
                false,
                "{name}/{inc} is probed ({kind:?}), but does not run or has no such probe"
            );
            return Ok(());
        };
        let hooked = !self.made_from(c, inc).post_start || body.post.ended.is_some();
        must!(self, hooked, "{name} is probed before its postStart hook has returned");
        must!(
            self,
            body.schedule(kind).in_flight.is_none(),
            "two attempts of a probe of {name} at once"
        );
        must!(self, self.is_probed(body, kind), "{name} is probed ({kind:?}) when it must not be");
        let due = body.schedule(kind).due(kind, probe);
        let fits = due.is_some_and(|(at, is_early)| at <= now && is_early == early);
        // A date that came while an early one was due takes its place.
        let overtaken = !early && due.is_some() && body.schedule(kind).tick <= now;
        must!(
            self,
            fits || overtaken,
            "{name} is probed ({kind:?}, early {early}) at {now:?}; due is {due:?}"
        );
        Ok(())
    }

    fn check_hook(&self, now: Mono, c: usize, inc: u32, hook: Hook) -> Checked {
        let (container, name) = (self.made_from(c, inc), self.name(c));
        let Some(body) = self.runs(c, inc) else {
            must!(self, false, "a hook of {name}/{inc}, which does not run");
            return Ok(());
        };
        must!(self, body.hook(hook).begun.is_none(), "{hook:?} of {name} runs twice");
        match hook {
            Hook::PostStart => {
                must!(self, container.post_start, "{name} has no postStart");
                must!(
                    self,
                    self.lives_on() && body.stop.is_none(),
                    "postStart of {name}, which is stopped"
                );
            }
            Hook::PreStop => {
                must!(self, container.pre_stop, "{name} has no preStop");
                must!(self, self.is_stopped(body), "preStop of {name}, which is not stopped");
                must!(self, body.signalled.is_none(), "preStop of {name} after its signal");
                must!(
                    self,
                    !self.kill && !self.starting_over,
                    "preStop of {name}, which is killed"
                );
                let end = self.first_end(body);
                must!(self, end.is_some_and(|end| now < end), "preStop of {name} after its grace");
            }
        }
        Ok(())
    }

    fn check_stop(&self, c: usize, inc: u32, why: Stop, grace_s: u32) -> Checked {
        let (container, own, name) = (self.made_from(c, inc), &self.own[c], self.name(c));
        let Some(body) = self.runs(c, inc) else {
            must!(self, false, "{name}/{inc} is stopped, but does not run");
            return Ok(());
        };
        must!(self, body.stop.is_none() && self.lives_on(), "{name} is stopped twice");
        let failed = |kind: ProbeKind| {
            let threshold = container.probe(kind).map(|p| p.failure_threshold.max(1));
            Some(body.schedule(kind).failures) == threshold
        };
        let grace_of =
            |kind| container.probe(kind).and_then(|p| p.grace_s).unwrap_or(self.pod.grace_s);
        let (may, grace) = match why {
            Stop::StartupProbe => {
                let kind = ProbeKind::Startup;
                (failed(kind) && body.started.is_none(), grace_of(kind))
            }
            Stop::LivenessProbe => (failed(ProbeKind::Liveness), grace_of(ProbeKind::Liveness)),
            Stop::PostStart => (body.post.failed, self.pod.grace_s),
            Stop::Restart => (own.wished, self.pod.grace_s),
            Stop::Changed => (body.old.is_some(), self.pod.grace_s),
            Stop::Asked => (own.down, self.pod.grace_s),
        };
        must!(self, may, "{name} is stopped for {why:?} without a reason");
        must!(
            self,
            grace_s == grace,
            "{name} is stopped with a grace of {grace_s} s, not {grace} s"
        );
        Ok(())
    }

    /// Why the pod is to end now, and with which grace.
    pub(crate) fn end_due(&self, now: Mono) -> Option<(End, u32)> {
        let accepted = self.accepted?;
        if self.ending.is_some() {
            return None;
        }
        if self.kill {
            return Some((End::Deleted, 1));
        }
        if let Some(deleted) = self.deleted {
            return Some((End::Deleted, deleted.seconds));
        }
        let own = self.pod.grace_s.max(1);
        if self.to_suspend {
            return Some((End::Suspended, own));
        }
        if self.sandbox == Sandbox::Never {
            return Some((End::SandboxFailed, own));
        }
        if self.sandbox == Sandbox::GivenUp {
            return Some((self.end_of_lost(), own));
        }
        let starts_over = self.starting_over || self.own.iter().any(|own| own.wants_all);
        if !starts_over {
            let failed =
                |(c, own): (usize, &crate::book::Own)| !own.completed && self.is_finished(c);
            if self.of_kind(Kind::Init).any(failed) {
                return Some((End::InitFailed, own));
            }
            if self.initialized && self.of_kind(Kind::Main).all(|(c, _)| self.is_finished(c)) {
                return Some((End::Completed, own));
            }
        }
        let deadline = accepted.plus_s(self.pod.active_deadline_s?);
        (deadline <= now).then_some((End::DeadlineExceeded, own))
    }

    fn check_end(&self, now: Mono, why: End, grace_s: u32) -> Checked {
        let due = self.end_due(now);
        must!(
            self,
            due == Some((why, grace_s)),
            "the pod ends: {why:?}, grace {grace_s} s; due was {due:?}"
        );
        Ok(())
    }
}
