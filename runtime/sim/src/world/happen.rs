//! What happens: the outcome of something that was begun, a process that ends, a user.

use plan::{Change, Container, Exit, Fact, Hook, ProbeKind, StartError, refusal};

use super::{Real, World};
use crate::book::{Checked, Stage, must};
use crate::choice::{Deed, How, Key};
use crate::pods;
use crate::tally::Fault;

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Sandbox(How),
    Image { c: usize, how: How },
    Created { c: usize, inc: u32, how: How },
    Started { c: usize, inc: u32 },
    Ended { c: usize, inc: u32, how: How },
    Probed { c: usize, inc: u32, kind: ProbeKind, how: How },
    Hooked { c: usize, inc: u32, hook: Hook, how: How },
    Notified { c: usize, inc: u32, how: How },
    User(How),
    Again(Box<Fact>),
}

impl World<'_> {
    /// Lets an event happen and asks the heart what follows.
    pub(crate) fn happens(&mut self, event: &Event) -> Checked {
        self.one(event)?;
        self.settle()
    }

    /// Lets an event happen.
    pub(super) fn one(&mut self, event: &Event) -> Checked {
        match event {
            Event::Sandbox(how) => self.sandbox_made(*how),
            Event::Image { c, how } => self.image_found(*c, *how),
            Event::Created { c, inc, how } => self.created(*c, *inc, *how),
            // A start that is told after the exit says nothing new; the heart has to see that.
            Event::Started { c, inc } => self.tell(Fact::Started { c: *c, inc: *inc }),
            Event::Ended { c, inc, how } => self.ended(*c, *inc, *how),
            Event::Probed { c, inc, kind, how } => self.probed(*c, *inc, *kind, *how),
            Event::Hooked { c, inc, hook, how } => {
                let failure = (*how != How::Succeeds).then(|| "exited with 3".to_owned());
                if failure.is_some() {
                    self.tally.fault(Fault::Hook);
                }
                let (c, inc, hook) = (*c, *inc, *hook);
                self.tell(Fact::HookEnded { c, inc, hook, failure, notice: None })
            }
            Event::Notified { c, inc, how } => {
                if *how == How::Twice {
                    self.tally.fault(Fault::Notify);
                    self.tell(Fact::Notified { c: *c, inc: *inc })?;
                }
                self.tell(Fact::Notified { c: *c, inc: *inc })
            }
            Event::User(how) => self.user(*how),
            Event::Again(fact) => self.told_twice(fact),
        }
    }

    pub(super) fn sandbox_made(&mut self, how: How) -> Checked {
        let again = how == How::Fails;
        if how == How::Succeeds {
            return self.tell(Fact::SandboxReady);
        }
        self.tally.fault(Fault::Sandbox);
        let (reason, message) = ("FailedCreatePodSandBox".to_owned(), "no bridge".to_owned());
        self.tell(Fact::SandboxFailed { reason, message, again })
    }

    pub(super) fn image_found(&mut self, c: usize, how: How) -> Checked {
        if how == How::Succeeds {
            let image_id = "sha256:1".to_owned();
            return self.tell(Fact::ImageReady {
                c,
                image_id,
                pulled: true,
                took_ms: 1200,
                bytes: 4096,
                stale: None,
            });
        }
        self.tally.fault(Fault::Image);
        let (reason, message) = ("ErrImagePull".to_owned(), "no such host".to_owned());
        self.tell(Fact::ImageFailed { c, reason, message })
    }

    pub(super) fn created(&mut self, c: usize, inc: u32, how: How) -> Checked {
        if how != How::Succeeds {
            self.tally.fault(Fault::Creation);
            self.processes.retain(|p| p.c != c || p.inc != inc);
            let (reason, message) = ("CreateContainerError".to_owned(), "no room".to_owned());
            return self.tell(Fact::CreateFailed { c, inc, reason, message });
        }
        self.set(c, inc, Real::Waits);
        let temper = self.temper;
        let choice = self.choose(Key::of(Deed::Wait, c, inc), |rng| temper.waits(rng));
        if choice.how != How::Hangs {
            self.later(choice.after_ms, Event::Ended { c, inc, how: choice.how });
        }
        let pid = 2 + i32::try_from(self.processes.len()).unwrap_or(0);
        let (inode, container_id) = (u64::from(inc) + 7, format!("{c}-{inc}"));
        self.tell(Fact::Created { c, inc, pid, inode, container_id })
    }

    /// The process is gone, unless it was gone already.
    fn ended(&mut self, c: usize, inc: u32, how: How) -> Checked {
        let Some(process) = self.processes.iter_mut().find(|p| p.c == c && p.inc == inc) else {
            return Ok(());
        };
        let before = process.real;
        if before == Real::Dead {
            return Ok(());
        }
        process.real = Real::Dead;
        let asked = process.signalled || process.killed;
        if before == Real::Waits && !process.killed {
            self.tally.fault(Fault::Wait);
        }
        let launching = self.book.body(c, inc).is_some_and(|b| b.stage == Stage::Launching);
        if launching && how != How::CannotExecute {
            self.tally.fault(Fault::ExitFirst);
        }
        match how {
            How::CannotExecute => self.tally.fault(Fault::Execute),
            How::RunsOutOfMemory { .. } => self.tally.fault(Fault::Memory),
            How::DiesOf { .. } if !asked => self.tally.fault(Fault::Signal),
            How::Exits { code } if code != 0 && !asked => self.tally.fault(Fault::Exit),
            _ => {}
        }
        self.tell(Fact::Exited { c, inc, exit: exit(how) })
    }

    fn probed(&mut self, c: usize, inc: u32, kind: ProbeKind, how: How) -> Checked {
        match how {
            How::Errs => self.tally.fault(Fault::ProbeErrored),
            How::Hangs => self.tally.fault(Fault::ProbeHung),
            How::Fails => self.tally.fault(Fault::Probe),
            _ => {}
        }
        let said = "not yet".to_owned();
        if how == How::Errs {
            return self.tell(Fact::ProbeErrored { c, inc, kind, message: said });
        }
        let success = how == How::Succeeds;
        self.tell(Fact::Probed { c, inc, kind, success, warned: false, output: said })
    }

    fn user(&mut self, how: How) -> Checked {
        match how {
            How::Delete { grace_s } => {
                self.tally.fault(Fault::Deleted);
                self.tell(Fact::DeleteAsked { grace_s })
            }
            How::KillAll => {
                self.tally.fault(Fault::KilledByUser);
                self.tell(Fact::KillAsked)
            }
            How::ShutDown => self.shut_down(),
            How::Reboot => self.reboot(),
            How::Restart { c } => {
                self.tally.fault(Fault::Restarted);
                self.tell(Fact::RestartAsked { c })
            }
            How::Stop { c } => self.ask(Fault::Stopped, Fact::StopAsked { c }),
            How::StartAgain { c } => self.ask(Fault::Stopped, Fact::StartAsked { c }),
            How::Change { c, seed } => {
                let mut containers = vec![self.changed(c, seed)];
                // Several at once, now and then.
                if seed.is_multiple_of(4) && c + 1 < self.pod.containers.len() {
                    containers.push(self.changed(c + 1, seed / 4));
                }
                self.ask(Fault::Changed, Fact::Changed { containers, active_deadline_s: None })
            }
            How::NewImage { c } => {
                let old = self.pod.containers[c].clone();
                let container = Container { image: format!("{}:new", old.name), ..old };
                let containers = vec![Change { c, container, restart: true }];
                self.ask(Fault::Changed, Fact::Changed { containers, active_deadline_s: None })
            }
            How::Resize { c } => {
                let container = self.pod.containers[c].clone();
                let containers = vec![Change { c, container, restart: false }];
                self.ask(Fault::Changed, Fact::Changed { containers, active_deadline_s: None })
            }
            How::Deadline { seconds } => {
                let (containers, active_deadline_s) = (Vec::new(), Some(seconds));
                self.ask(Fault::Changed, Fact::Changed { containers, active_deadline_s })
            }
            _ => Ok(()),
        }
    }

    fn changed(&self, c: usize, seed: u32) -> Change {
        let container = pods::changed(&self.pod.containers[c], c, seed);
        Change { c, container, restart: true }
    }

    /// A user's wish is told if it is not refused, and then what is under way for an old definition comes
    /// to nothing: a shim listens no more to a pull of an image that nobody wants.
    fn ask(&mut self, fault: Fault, fact: Fact) -> Checked {
        let refused = refusal(&self.pod, &self.state, &fact);
        must!(
            self.book,
            refused.is_some() == self.book.refuses(&fact),
            "a user hears {refused:?} of {fact:?}"
        );
        if refused.is_some() {
            self.tally.fault(Fault::Refused);
            return Ok(());
        }
        self.tally.fault(fault);
        if let Fact::Changed { containers, .. } = &fact {
            let others = containers.iter().filter(|x| x.restart).map(|x| x.c).collect::<Vec<_>>();
            self.queue
                .retain(|due| !matches!(due.event, Event::Image { c, .. } if others.contains(&c)));
        }
        self.tell(fact)
    }
}

/// What a shim reads of a process that has ended so.
fn exit(how: How) -> Exit {
    match how {
        How::Exits { code } => Exit { code, ..Exit::default() },
        How::RunsOutOfMemory { code } => {
            Exit { code, signal: (code > 128).then(|| code - 128), oom: true, ..Exit::default() }
        }
        How::DiesOf { signal } => {
            Exit { code: 128 + signal, signal: Some(signal), ..Exit::default() }
        }
        How::CannotExecute => Exit {
            code: 128,
            start_error: Some(StartError {
                message: "exec /bin/nothing: no such file or directory".to_owned(),
                errno: Some(2),
            }),
            ..Exit::default()
        },
        _ => Exit { code: 137, signal: Some(9), ..Exit::default() },
    }
}
