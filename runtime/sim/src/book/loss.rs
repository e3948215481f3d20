//! What is left of a pod whose host was booted anew: all that ran has ended and nobody saw how ("when the
//! sandbox changed, the pod's init containers run again", Kubernetes, Pod Lifecycle).

use plan::{End, Exit, Kind, Mono, RestartPolicy};

use super::{Book, Sandbox, Streak};

impl Book {
    pub(super) fn lose(&mut self, now: Mono) {
        let unseen = Exit { code: 137, lost: true, ..Exit::default() };
        for c in 0..self.own.len() {
            let ran = self.own[c].on().map(|body| body.inc);
            if let Some(inc) = ran {
                self.exited(now, c, inc, &unseen);
                self.own[c].wants_all = false;
            }
            let own = &mut self.own[c];
            own.bodies.clear();
            own.entry = None;
            (own.creation, own.image) = (Streak::default(), Streak::default());
            (own.has_image, own.asked_since_creation, own.pulling) = (false, false, false);
        }
        self.sandbox_streak = Streak::default();
        self.sandbox = Sandbox::No;
        self.to_suspend = false;
        if self.is_suspended() {
            self.ending = None;
            self.torn_down = false;
        }
        if self.ending.is_some() {
            return;
        }
        let has_begun = self.own.iter().any(|own| own.last.is_some());
        let something = self.of_kind(Kind::Main).any(|(c, own)| {
            let policy = self.pod.containers[c].policy.unwrap_or(self.pod.restart_policy);
            let never = own.last.is_none() && has_begun && policy == RestartPolicy::Never;
            self.is_wanted(c) && !never
        });
        let stuck = self.of_kind(Kind::Init).any(|(c, o)| !o.completed && self.is_finished(c));
        if !something || stuck {
            self.sandbox = Sandbox::GivenUp;
            return;
        }
        self.initialized = false;
        for c in 0..self.own.len() {
            let is_init = self.pod.containers[c].kind == Kind::Init;
            let own = &mut self.own[c];
            (own.completed, own.was_started) = (false, false);
            own.waived |= is_init && own.last.is_some();
        }
    }

    /// How a pod ends of which nothing is to run again.
    pub(crate) fn end_of_lost(&self) -> End {
        let mut end = End::Completed;
        for (_, own) in self.of_kind(Kind::Main) {
            match own.last {
                Some(last) if last.cut_short => return End::Interrupted,
                Some(_) => {}
                None => end = End::InitFailed,
            }
        }
        end
    }

    /// It ends until its host is up again.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.ending, Some((End::Suspended, _)))
    }
}
