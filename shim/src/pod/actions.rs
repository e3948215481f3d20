//! Carries out one action of the plan. Each begins with its intent as a fact, where it has one.

use plan::{Action, Fact};

use super::failpoint;
use super::machine::Machine;

impl Machine {
    pub(super) fn carry_out(&mut self, action: Action) {
        failpoint::around(&self.layout, &action, "action", "before");
        self.do_it(action.clone());
        failpoint::around(&self.layout, &action, "action", "after");
    }

    fn do_it(&mut self, action: Action) {
        match action {
            Action::MakeSandbox => self.make_sandbox(),
            Action::ResolveImage { c } => self.resolve_image(c),
            Action::Create { c, inc } => self.create(c, inc),
            Action::Start { c, inc, restart_count } => self.start(c, inc, restart_count),
            Action::Probe { c, inc, kind, early, timeout_s } => {
                self.probe(c, inc, kind, early, timeout_s);
            }
            Action::Stop { c, inc, why, grace_s } => {
                self.record(Fact::Stopping { c, inc, why, grace_s });
            }
            Action::Hook { c, inc, hook } => self.hook(c, inc, hook),
            Action::RestartAll { c } => {
                self.record(Fact::RestartingAll { c });
            }
            Action::End { why, grace_s } => {
                self.record(Fact::Ending { why, grace_s });
            }
            Action::Signal { c, inc } => self.signal(c, inc),
            Action::Kill { c, inc } => self.kill(c, inc),
            Action::Clean { c, inc } => self.clean(c, inc),
            Action::Teardown => self.teardown(),
        }
    }
}
