//! What an exit changes, and whether a container is to run again ("the restartPolicy for a Pod applies
//! to app containers in the Pod and to regular init containers", with what containers say themselves).

use plan::{Exit, Kind, Mono, RestartPolicy, RuleAction, Stop};

use super::{Book, Last, Stage};

impl Book {
    pub(super) fn exited(&mut self, now: Mono, c: usize, inc: u32, exit: &Exit) {
        let (ends, over, down) = (self.ending.is_some(), self.starting_over, self.is_suspended());
        let is_init = self.pod.containers[c].kind == Kind::Init;
        let own = &mut self.own[c];
        let Some(body) = own.bodies.iter_mut().find(|b| b.inc == inc) else { return };
        let stage = body.stage;
        if stage == Stage::Dead {
            return;
        }
        (body.stage, body.since) = (Stage::Dead, now);
        if stage == Stage::Making || stage == Stage::Waits {
            if stage == Stage::Waits && body.killed.is_none() && body.old.is_none() {
                own.creation.add(now);
            }
            return;
        }
        let why = body.stop.map(|(why, _)| why);
        let for_health = match why {
            Some(Stop::StartupProbe | Stop::LivenessProbe | Stop::PostStart) => true,
            Some(Stop::Restart | Stop::Changed | Stop::Asked) | None => false,
        };
        let told = body.signalled.is_some() || body.killed.is_some();
        let cut_short = down && told;
        let by_user = body.old.is_some() || (why.is_some() && !for_health);
        let last = Last {
            finished: now,
            code: exit.code,
            cannot_execute: exit.start_error.is_some(),
            for_health,
            cut_short,
        };
        own.last = Some(last);
        own.ran = true;
        own.completed |= is_init && exit.code == 0 && !exit.oom && !by_user && !cut_short;
        own.waived = !own.completed && (own.wished || by_user);
        own.wished = false;
        let free = !own.completed && !by_user && !ends && !over && !last.for_health;
        let ruled = self.rule_of(c, exit.code);
        self.own[c].wants_all = free && ruled == Some(RuleAction::RestartAllContainers);
    }

    /// What the first of its rules says that matches.
    fn rule_of(&self, c: usize, code: i32) -> Option<RuleAction> {
        for rule in &self.pod.containers[c].rules {
            let listed = rule.codes.contains(&code);
            if listed == rule.within {
                return Some(rule.action);
            }
        }
        None
    }

    /// Whether container `c`, not running, is to run in a pod that does not end.
    pub(crate) fn is_wanted(&self, c: usize) -> bool {
        let (container, own) = (&self.pod.containers[c], &self.own[c]);
        if own.down {
            return false;
        }
        let Some(last) = own.last else { return true };
        if own.waived || own.cause {
            return true;
        }
        let policy = container.policy.unwrap_or(self.pod.restart_policy);
        let ruled = self.rule_of(c, last.code).is_some();
        match container.kind {
            Kind::Sidecar => true,
            Kind::Init if own.completed => false,
            Kind::Init => ruled || policy != RestartPolicy::Never,
            Kind::Main if last.for_health || last.cut_short => policy != RestartPolicy::Never,
            Kind::Main => {
                ruled
                    || policy == RestartPolicy::Always
                    || (policy == RestartPolicy::OnFailure && last.code != 0)
            }
        }
    }

    /// Whether container `c` has run and will not run again.
    pub(crate) fn is_finished(&self, c: usize) -> bool {
        self.own[c].on().is_none() && !self.is_wanted(c)
    }

    /// When the back-off of container `c` is over: the delay from its finish on, but not longer than
    /// 600 s after the last decision.
    pub(crate) fn backoff_over(&self, c: usize) -> Option<Mono> {
        let own = &self.own[c];
        let (Some(last), Some((delay, decided)), false) = (own.last, own.entry, own.waived) else {
            return None;
        };
        Some(last.finished.plus_s(delay).min(decided.plus_s(600)))
    }

    /// Whether every init container before `c` has completed and every sidecar before it was started, or
    /// stopped by a user. Once they all have, nothing waits for its turn any more.
    pub(crate) fn is_its_turn(&self, c: usize) -> bool {
        self.initialized
            || (0..c).all(|before| match self.pod.containers[before].kind {
                Kind::Init => self.own[before].completed,
                Kind::Sidecar => self.own[before].was_started || self.own[before].down,
                Kind::Main => true,
            })
    }
}
