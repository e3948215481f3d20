//! The page that names the steps.
//!
//! `plan` asks each rule in turn and decides nothing itself but their order. The shim calls it
//! after every fact and at [`Plan::wake_at`], carries the actions out, folds what came of them, and
//! plans again until there is nothing to do.

use crate::fact::{Action, Plan, Subject};
use crate::model::{Container, Pod};
use crate::rules::{asked, create, hook, image, init, main, notify, probe, restart, sandbox, stop};
use crate::state::{Record, State};
use crate::time::Mono;

/// What to do now, what is waited for, and when to look again.
pub fn plan(pod: &Pod, state: &State, now: Mono) -> Plan {
    let mut draft = Draft { pod, state, now, plan: Plan::default() };
    if state.accepted.is_none() || state.is_over() {
        return draft.plan;
    }
    if state.ending.is_some() {
        stop::pod(&mut draft);
        probe::attempt(&mut draft);
        create::clean(&mut draft);
        stop::teardown(&mut draft);
    } else if let Some(end) = main::end_due(&mut draft) {
        draft.act(end);
    } else if state.starts_over() {
        restart::all(&mut draft);
        create::clean(&mut draft);
    } else {
        sandbox::make(&mut draft);
        init::start_in_order(&mut draft);
        asked::stay_down(&mut draft);
        image::resolve(&mut draft);
        create::ahead(&mut draft);
        hook::after_start(&mut draft);
        notify::expect(&mut draft);
        probe::attempt(&mut draft);
        stop::containers(&mut draft);
        create::clean(&mut draft);
    }
    draft.plan
}

/// A plan in the making, with what it is made from.
pub(crate) struct Draft<'a> {
    pub pod: &'a Pod,
    pub state: &'a State,
    pub now: Mono,
    plan: Plan,
}

impl<'a> Draft<'a> {
    /// All containers with their indexes and records.
    pub(crate) fn containers(
        &self,
    ) -> impl Iterator<Item = (usize, &'a Container, &'a Record)> + use<'a> {
        let records = self.state.records.iter();
        self.pod.containers.iter().zip(records).enumerate().map(|(c, (k, r))| (c, k, r))
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    /// Says that something is not done yet. `until` in the future wakes the shim then.
    pub(crate) fn wait(
        &mut self,
        subject: Subject,
        reason: impl Into<String>,
        since: Option<Mono>,
        until: Option<Mono>,
    ) {
        if let Some(until) = until {
            self.wake(until);
        }
        let reason = reason.into();
        self.plan.waiting.push(crate::fact::Waiting { subject, reason, since, until });
    }

    /// Looks again at `at`, if that is still to come.
    pub(crate) fn wake(&mut self, at: Mono) {
        if at > self.now && self.plan.wake_at.is_none_or(|earliest| at < earliest) {
            self.plan.wake_at = Some(at);
        }
    }
}
