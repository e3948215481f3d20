//! What each fact changes in the book.

use plan::{Change, Container, Fact, Hook, Kind, Mono, ProbeKind};

use super::{Body, Book, Grace, HookBook, Own, Sandbox, Stage, Streak};
use crate::schedule::{Said, Schedule};

impl Book {
    pub(super) fn note_fact(&mut self, now: Mono, fact: &Fact) {
        match fact {
            Fact::Accepted => self.accepted = self.accepted.or(Some(now)),
            Fact::SandboxLost => self.lose(now),
            Fact::SandboxMaking => self.sandbox = Sandbox::Making,
            Fact::SandboxReady if self.sandbox == Sandbox::Making => {
                self.sandbox = Sandbox::Yes;
                self.sandbox_streak = Streak::default();
            }
            Fact::SandboxFailed { again, .. } if self.sandbox == Sandbox::Making => {
                self.sandbox = if *again { Sandbox::No } else { Sandbox::Never };
                self.sandbox_streak.add(now);
            }
            Fact::DeleteAsked { grace_s } => self.delete(now, grace_s.unwrap_or(self.pod.grace_s)),
            Fact::KillAsked => {
                self.kill = true;
                self.delete(now, 0);
            }
            Fact::SuspendAsked => self.to_suspend = true,
            Fact::RestartAsked { c } => self.wish(*c),
            Fact::StopAsked { c } | Fact::StartAsked { c } => {
                if !self.refuses(fact) {
                    self.stand(*c, matches!(fact, Fact::StartAsked { .. }));
                }
            }
            Fact::Changed { containers, active_deadline_s } => {
                containers.iter().for_each(|change| self.changed(change));
                self.pod.active_deadline_s = active_deadline_s.or(self.pod.active_deadline_s);
            }
            Fact::Ending { why, grace_s } if self.ending.is_none() => {
                self.ending = Some((*why, Grace { since: now, seconds: *grace_s }));
            }
            Fact::RestartingAll { c } if self.ending.is_none() => {
                self.starting_over = true;
                for (other, own) in self.own.iter_mut().enumerate() {
                    own.wants_all = false;
                    own.cause |= other == *c;
                }
            }
            Fact::TornDown => {
                self.torn_down = true;
                self.own.iter_mut().for_each(|own| own.bodies.clear());
            }
            _ => self.note_of_container(now, fact),
        }
    }

    /// A deletion leaves a second at least, and a later one can only shorten.
    fn delete(&mut self, now: Mono, seconds: u32) {
        let asked = Grace { since: now, seconds: seconds.max(1) };
        if self.deleted.is_none_or(|old| asked.end() < old.end()) {
            self.deleted = Some(asked);
        }
        if let Some((_, grace)) = &mut self.ending
            && asked.end() < grace.end()
        {
            *grace = asked;
        }
    }

    /// Sidecars and mains that run, or are to run again, can be restarted in a pod that does not end.
    fn wish(&mut self, c: usize) {
        let Some(container) = self.pod.containers.get(c) else { return };
        if self.ending.is_some() || container.kind == Kind::Init || self.own[c].down {
            return;
        }
        let wanted = self.is_wanted(c);
        let own = &mut self.own[c];
        if own.on().is_some() {
            own.wished = true;
        } else if own.last.is_some() && wanted {
            own.waived = true;
        }
    }

    /// Whether a user is told that it cannot be done.
    pub(crate) fn refuses(&self, fact: &Fact) -> bool {
        let stands = |c: &usize| {
            let is_sidecar = self.pod.containers.get(*c).is_some_and(|k| k.kind == Kind::Sidecar);
            (is_sidecar && self.ending.is_none()).then(|| self.own[*c].down)
        };
        match fact {
            Fact::StopAsked { c } => stands(c) != Some(false),
            Fact::StartAsked { c } => stands(c) != Some(true),
            Fact::Changed { .. } => self.ending.is_some() || self.deleted.is_some(),
            _ => false,
        }
    }

    /// A sidecar goes down and stays there, or comes up, then at once.
    fn stand(&mut self, c: usize, up: bool) {
        let own = &mut self.own[c];
        own.down = !up;
        own.waived = up && own.on().is_none() && own.last.is_some();
    }

    /// A container is another one, or has other limits. What went wrong with the old one is forgotten,
    /// and what was not over by itself comes back.
    fn changed(&mut self, change: &Change) {
        let c = change.c;
        let comes_back = self.own[c].last.is_some() && !self.is_finished(c);
        let before = std::mem::replace(&mut self.pod.containers[c], change.container.clone());
        if !change.restart {
            return;
        }
        let own = &mut self.own[c];
        for body in own.bodies.iter_mut().filter(|b| b.stage != Stage::Dead && b.old.is_none()) {
            body.old = Some(Box::new(before.clone()));
        }
        own.waived |= own.on().is_none() && comes_back;
        own.entry = None;
        (own.creation, own.image) = (Streak::default(), Streak::default());
        (own.has_image, own.asked_since_creation, own.pulling) = (false, false, false);
    }

    fn note_of_container(&mut self, now: Mono, fact: &Fact) {
        match fact {
            Fact::ImagePulling { c } => self.own[*c].pulling = true,
            Fact::ImageReady { c, .. } => {
                let own = &mut self.own[*c];
                (own.has_image, own.asked_since_creation, own.pulling) = (true, true, false);
                own.image = Streak::default();
            }
            Fact::ImageFailed { c, .. } => {
                self.own[*c].pulling = false;
                self.own[*c].image.add(now);
            }
            Fact::Creating { c, inc } => {
                let own = &mut self.own[*c];
                own.next = own.next.max(inc + 1);
                own.asked_since_creation = false;
                own.bodies.push(body(*inc, now));
            }
            Fact::CreateFailed { c, inc, .. } => {
                let own = &mut self.own[*c];
                let making = |b: &Body| b.inc == *inc && b.stage == Stage::Making;
                if own.bodies.iter().any(|b| making(b) && b.old.is_none()) {
                    own.creation.add(now);
                }
                own.bodies.retain(|b| !making(b));
            }
            Fact::Starting { c, inc } => self.starting(now, *c, *inc),
            Fact::Exited { c, inc, exit } => self.exited(now, *c, *inc, exit),
            Fact::Gone { c, inc } => {
                self.own[*c].bodies.retain(|b| b.inc != *inc || b.stage != Stage::Dead);
            }
            _ => self.note_of_body(now, fact),
        }
    }

    fn starting(&mut self, now: Mono, c: usize, inc: u32) {
        let own = &mut self.own[c];
        let Some(body) = own.bodies.iter_mut().find(|b| b.inc == inc) else { return };
        if body.stage != Stage::Waits {
            return;
        }
        (body.stage, body.since) = (Stage::Launching, now);
        if own.last.is_some() && !own.waived {
            let kept = own.entry.filter(|(_, decided)| now < decided.plus_s(600));
            let delay = kept.map_or(10, |(delay, _)| 2 * delay);
            own.entry = Some((delay.min(self.pod.restart_delay_max_s), now));
        }
        own.starts += 1;
        (own.waived, own.cause) = (false, false);
        own.creation = Streak::default();
    }

    fn note_of_body(&mut self, now: Mono, fact: &Fact) {
        let (c, inc) = match fact {
            Fact::Created { c, inc, .. }
            | Fact::Started { c, inc }
            | Fact::HookRunning { c, inc, .. }
            | Fact::HookEnded { c, inc, .. }
            | Fact::Notified { c, inc }
            | Fact::Probing { c, inc, .. }
            | Fact::Probed { c, inc, .. }
            | Fact::ProbeErrored { c, inc, .. }
            | Fact::Stopping { c, inc, .. }
            | Fact::Signalled { c, inc, .. }
            | Fact::Killed { c, inc } => (*c, *inc),
            _ => return,
        };
        let Some(container) = self.pod.containers.get(c) else { return };
        let Some(own) = self.own.get_mut(c) else { return };
        let Some(body) = own.bodies.iter_mut().find(|b| b.inc == inc) else { return };
        let old = body.old.clone();
        let container = old.as_deref().unwrap_or(container);
        match (fact, body.stage) {
            (Fact::Created { .. }, Stage::Making) => {
                (body.stage, body.since) = (Stage::Waits, now);
            }
            (Fact::Started { .. }, Stage::Launching) => {
                (body.stage, body.since) = (Stage::Runs, now);
                own.ran = true;
            }
            (Fact::Signalled { .. }, _) => body.signalled = body.signalled.or(Some(now)),
            (Fact::Killed { .. }, _) => body.killed = body.killed.or(Some(now)),
            (_, Stage::Runs) => note_running(container, body, now, fact),
            _ => return,
        }
        if latch(container, body, now) {
            own.was_started = true;
        }
    }
}

fn body(inc: u32, now: Mono) -> Body {
    Body {
        inc,
        old: None,
        stage: Stage::Making,
        since: now,
        started: None,
        notified: false,
        post: HookBook::default(),
        pre: HookBook::default(),
        schedules: Default::default(),
        stop: None,
        signalled: None,
        killed: None,
    }
}

fn note_running(container: &Container, body: &mut Body, now: Mono, fact: &Fact) {
    match fact {
        Fact::HookRunning { hook, .. } => {
            let hook = hook_mut(body, *hook);
            hook.begun = hook.begun.or(Some(now));
        }
        Fact::HookEnded { hook, failure, .. } => {
            let hook = hook_mut(body, *hook);
            if hook.begun.is_some() && hook.ended.is_none() {
                (hook.ended, hook.failed) = (Some(now), failure.is_some());
            }
        }
        Fact::Notified { .. } => body.notified = true,
        Fact::Probing { kind, early, .. } => {
            if let Some(probe) = container.probe(*kind) {
                body.schedules[*kind as usize].begin(probe, now, *early);
            }
        }
        Fact::Probed { kind, success, .. } => {
            let said = if *success { Said::Yes } else { Said::No };
            ended(container, body, *kind, now, said);
        }
        Fact::ProbeErrored { kind, .. } => ended(container, body, *kind, now, Said::Nothing),
        Fact::Stopping { why, grace_s, .. } => {
            let grace = Grace { since: now, seconds: *grace_s };
            body.stop = body.stop.or(Some((*why, grace)));
        }
        _ => {}
    }
}

fn ended(container: &Container, body: &mut Body, kind: ProbeKind, now: Mono, said: Said) {
    if let Some(probe) = container.probe(kind) {
        body.schedules[kind as usize].end(probe, now, said);
    }
}

fn hook_mut(body: &mut Body, hook: Hook) -> &mut HookBook {
    match hook {
        Hook::PostStart => &mut body.post,
        Hook::PreStop => &mut body.pre,
    }
}

/// "Started": running, its `postStart` has returned, its startup probe has succeeded, and it has said so
/// if it was to. Puts the probes on their schedule that come with it. `true` when it happens.
fn latch(container: &Container, body: &mut Body, now: Mono) -> bool {
    let hooked = !container.post_start || (body.post.ended.is_some() && !body.post.failed);
    if body.stage != Stage::Runs || !hooked {
        return false;
    }
    let enable = |body: &mut Body, kind: ProbeKind| {
        if let Some(probe) = container.probe(kind) {
            let first = body.since.plus_s(probe.initial_delay_s).max(now);
            body.schedules[kind as usize].enable(first);
        }
    };
    enable(body, ProbeKind::Startup);
    let probed =
        container.startup.is_none() || body.schedule(ProbeKind::Startup).verdict == Some(true);
    let said = !container.notify || body.notified;
    if !probed || !said || body.started.is_some() {
        return false;
    }
    body.started = Some(now);
    enable(body, ProbeKind::Liveness);
    enable(body, ProbeKind::Readiness);
    true
}

impl Own {
    /// Whether it is started and, if it has a readiness probe, passes it.
    pub(crate) fn is_ready(&self, container: &Container) -> bool {
        match container.kind {
            Kind::Init => self.completed,
            Kind::Sidecar | Kind::Main => self.bodies.iter().any(|b: &Body| {
                let passes = b.made_from(container).readiness.is_none()
                    || b.schedule(ProbeKind::Readiness).verdict == Some(true);
                b.stage == Stage::Runs && b.started.is_some() && passes
            }),
        }
    }
}

impl Schedule {
    /// The first attempt is due then, if none was planned before.
    fn enable(&mut self, first: Mono) {
        if self.origin.is_none() {
            self.origin = Some(first);
            self.tick = first;
        }
    }
}
