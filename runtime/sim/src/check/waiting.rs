//! What is said to be waited for: every wait has a reason, and an end that somebody wakes for.

use plan::{Mono, Plan, Subject};

use crate::book::{Book, Checked, must};

impl Book {
    /// Checks a plan that asks for nothing to be done.
    pub(crate) fn check_waiting(&self, now: Mono, plan: &Plan, next: Option<Mono>) -> Checked {
        for waiting in &plan.waiting {
            must!(self, !waiting.reason.is_empty(), "a wait without a reason");
            must!(
                self,
                waiting.since.is_none_or(|s| s <= now),
                "a wait since the future: {waiting:?}"
            );
            if let Some(until) = waiting.until {
                must!(self, until > now, "a wait that is over: {waiting:?}");
                let woken = plan.wake_at.is_some_and(|wake| wake <= until);
                must!(self, woken, "nobody wakes for {waiting:?}");
            }
        }
        let wake = plan.wake_at;
        must!(
            self,
            wake.is_none_or(|wake| wake > now),
            "a moment to wake that has passed: {wake:?}"
        );
        if let Some(next) = next {
            let woken = wake.is_some_and(|wake| wake <= next);
            must!(self, woken, "at {next:?} something is due, but nobody wakes before {wake:?}");
        }
        if self.accepted.is_none() || self.torn_down {
            let idle = plan.waiting.is_empty() && wake.is_none();
            must!(self, idle, "a pod that is not there waits: {plan:?}");
            return Ok(());
        }
        for c in 0..self.own.len() {
            let named = plan.waiting.iter().any(|w| w.subject == Subject::Container(c));
            must!(
                self,
                named || !self.is_unfinished(c),
                "nothing says what {} waits for",
                self.name(c)
            );
        }
        Ok(())
    }
}
