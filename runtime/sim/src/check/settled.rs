//! Whether something was left undone, and when the next thing is due by time alone.

use plan::{Kind, Mono, ProbeKind};

use crate::book::{Body, Book, Broken, Checked, Sandbox, Stage, must};

/// Collects the next date.
struct Next {
    now: Mono,
    at: Option<Mono>,
}

impl Next {
    /// Whether the date has come; else it is kept.
    fn has_come(&mut self, at: Mono) -> bool {
        if at <= self.now {
            return true;
        }
        self.at = Some(self.at.map_or(at, |next| next.min(at)));
        false
    }
}

impl Book {
    /// Nothing is left undone that is due. Answers when the next thing is.
    pub(crate) fn check_settled(&self, now: Mono) -> Result<Option<Mono>, Broken> {
        let mut next = Next { now, at: None };
        let Some(accepted) = self.accepted.filter(|_| !self.torn_down) else { return Ok(None) };
        let end = self.end_due(now);
        must!(self, end.is_none(), "the pod does not end, although it is to: {end:?}");
        for (c, own) in self.own.iter().enumerate() {
            let left = own.bodies.iter().any(|b| b.stage == Stage::Dead);
            must!(self, !left, "what is left of {} is not removed", self.name(c));
        }
        if self.ending.is_some() {
            self.settled_end(&mut next)?;
        } else if self.starting_over {
            for (c, own) in self.own.iter().enumerate() {
                let killed = own.on().is_none_or(|b| b.killed.is_some());
                must!(self, killed, "{} is not killed, although the pod starts over", self.name(c));
            }
        } else {
            let waits = self.own.iter().any(|own| own.wants_all);
            must!(self, !waits, "the pod does not start over");
            self.settled_life(&mut next)?;
        }
        if let (None, Some(deadline)) = (self.ending, self.pod.active_deadline_s) {
            next.has_come(accepted.plus_s(deadline));
        }
        Ok(next.at)
    }

    fn settled_life(&self, next: &mut Next) -> Checked {
        if self.sandbox == Sandbox::No {
            let late = next.has_come(self.sandbox_streak.over());
            must!(self, !late, "no sandbox is made");
        }
        for c in 0..self.own.len() {
            let outdated =
                |b: &Body| b.stage == Stage::Waits && b.old.is_some() && b.killed.is_none();
            let outdated = self.own[c].bodies.iter().any(outdated);
            must!(self, !outdated, "what waits of {} is of before its change", self.name(c));
            self.settled_creation(next, c)?;
            self.settled_start(next, c)?;
            if let Some(body) = self.own[c].bodies.iter().find(|b| b.stage == Stage::Runs) {
                self.settled_running(next, c, body)?;
            }
        }
        Ok(())
    }

    fn settled_creation(&self, next: &mut Next, c: usize) -> Checked {
        let (container, own, name) = (&self.pod.containers[c], &self.own[c], self.name(c));
        if !self.needs_a_body(c) {
            let in_vain =
                own.spare().is_some_and(|b| b.stage == Stage::Waits) && self.is_finished(c);
            must!(self, !in_vain, "{name} has a spare that nobody needs");
            return Ok(());
        }
        if !self.has_usable_image(c) {
            let late = !own.pulling && next.has_come(own.image.over());
            must!(self, !late, "the image of {name} is not looked for");
            return Ok(());
        }
        if container.at_start && !self.may_start(next.now, c) {
            return Ok(());
        }
        let late = self.sandbox == Sandbox::Yes && next.has_come(own.creation.over());
        must!(self, !late, "{name} is not created");
        Ok(())
    }

    fn settled_start(&self, next: &mut Next, c: usize) -> Checked {
        if self.own[c].on().is_some() || !self.is_wanted(c) || !self.is_its_turn(c) {
            return Ok(());
        }
        if self.backoff_over(c).is_some_and(|over| !next.has_come(over)) {
            return Ok(());
        }
        let waits = self.own[c].spare().is_some_and(|b| b.stage == Stage::Waits);
        must!(self, !waits, "{} is not started, although nothing holds it back", self.name(c));
        Ok(())
    }

    fn settled_running(&self, next: &mut Next, c: usize, body: &Body) -> Checked {
        let (container, name) = (body.made_from(&self.pod.containers[c]), self.name(c));
        self.settled_probes(next, c, body)?;
        if body.stop.is_some() {
            return self.settled_stop(next, c, body);
        }
        let hooked = !container.post_start || body.post.begun.is_some();
        must!(self, hooked, "the postStart hook of {name} does not run");
        must!(self, !body.post.failed, "{name} is not stopped, although its postStart failed");
        must!(self, !self.own[c].wished, "{name} is not restarted, although a user asked");
        must!(self, !self.own[c].down, "{name} is not stopped, although a user asked");
        must!(self, body.old.is_none(), "{name} is not stopped, although it was changed");
        for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
            let failed = body.schedule(kind).verdict == Some(false);
            must!(self, !failed, "{name} is not stopped, although its {kind:?} probe failed");
        }
        Ok(())
    }

    fn settled_probes(&self, next: &mut Next, c: usize, body: &Body) -> Checked {
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let container = body.made_from(&self.pod.containers[c]);
            let Some(probe) = container.probe(kind) else { continue };
            if !self.is_probed(body, kind) {
                continue;
            }
            if let Some((due, early)) = body.schedule(kind).due(kind, probe) {
                let late = next.has_come(due);
                must!(
                    self,
                    !late,
                    "{} is not probed ({kind:?}, early {early}), due at {due:?}",
                    self.name(c)
                );
            }
        }
        Ok(())
    }

    /// One container is stopped, in a pod that lives or ends.
    fn settled_stop(&self, next: &mut Next, c: usize, body: &Body) -> Checked {
        let name = self.name(c);
        if body.killed.is_some() {
            return Ok(());
        }
        if body.signalled.is_some() {
            let late = self.kill_due(body).is_some_and(|due| next.has_come(due));
            must!(self, !late, "{name} is not killed, although its grace is over");
            return Ok(());
        }
        if self.is_hook_on(next.now, c, body) {
            must!(self, body.pre.begun.is_some(), "the preStop hook of {name} does not run");
            self.first_end(body).map(|end| next.has_come(end));
            return Ok(());
        }
        if self.is_in_line(next.now, c) {
            self.ending.map(|(_, grace)| next.has_come(grace.end()));
            return Ok(());
        }
        must!(self, false, "{name} does not get its stop signal");
        Ok(())
    }

    fn settled_end(&self, next: &mut Next) -> Checked {
        for (c, own) in self.own.iter().enumerate() {
            let name = self.name(c);
            for body in &own.bodies {
                match body.stage {
                    Stage::Waits => must!(self, body.killed.is_some(), "{name} waits for a start"),
                    Stage::Launching | Stage::Runs if self.kill => {
                        must!(self, body.killed.is_some(), "{name} is not killed");
                    }
                    Stage::Launching => {
                        let late = body.killed.is_none()
                            && self.launch_end().is_some_and(|end| next.has_come(end));
                        must!(self, !late, "{name}, told to start, is not killed");
                    }
                    Stage::Runs => {
                        self.settled_probes(next, c, body)?;
                        self.settled_stop(next, c, body)?;
                    }
                    Stage::Making | Stage::Dead => {}
                }
            }
        }
        let empty = self.own.iter().all(|own| own.bodies.is_empty());
        must!(
            self,
            !empty || self.sandbox == Sandbox::Making,
            "nothing is left, and the pod is not torn down"
        );
        Ok(())
    }

    /// Whether a container is in a state that somebody asks about: not as it is meant to be.
    pub(super) fn is_unfinished(&self, c: usize) -> bool {
        let (container, own) = (&self.pod.containers[c], &self.own[c]);
        if self.ending.is_some() {
            return own.bodies.iter().any(|b| b.stage != Stage::Dead);
        }
        match own.on() {
            Some(body) if self.starting_over => body.killed.is_some(),
            Some(body) if container.kind == Kind::Init => body.stop.is_some(),
            Some(body) => {
                body.stop.is_some() || (body.stage == Stage::Runs && !own.is_ready(container))
            }
            None => !self.starting_over && (own.down || self.is_wanted(c)),
        }
    }
}
