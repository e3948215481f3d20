//! Taking over a pod whose shim has died.
//!
//! What is known is the journal: folding it gives the state that was lost. What was under way is
//! finished, done again or told to have come to nothing:
//!
//! | intent that was written | what is done |
//! | --- | --- |
//! | sandbox | what there is of it is removed, and it is made again |
//! | pull | asked for again |
//! | creation | killed and removed; the next incarnation is created |
//! | start | connected again, which changes nothing if it was started |
//! | hook | run again: Kubernetes promises "at least once" |
//! | probe | told that it could not be made |
//! | SIGKILL | sent again |
//!
//! Containers that run notice nothing. Programs that a user runs in them end with the shim that was their
//! way to the user.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, bail};
use bundles::image::{Hold, Image, Reference};
use plan::{Fact, Hook, Incarnation as Known, Life, ProbeKind, SandboxPhase};
use runtime::cgroup::Members;
use runtime::container::{Process, cgroup_name};
use rustix::event::epoll::{EventData, EventFlags};

use super::change::Superseded;
use super::children::Incarnation;
use super::compile;
use super::machine::Machine;
use super::watch;
use super::{failpoint, kept, tokens};
use crate::protocol::Reply;

impl Machine {
    /// Takes the pod over, with what the keeper held.
    pub(super) fn adopt(
        &mut self,
        held: HashMap<String, OwnedFd>,
        upgraded: bool,
    ) -> anyhow::Result<()> {
        self.clients.interrupted();
        let (object, events) = (Box::new(self.object()), self.history());
        self.clients.broadcast(&self.epoll, &Reply::Adopted { object, events });
        failpoint::at(&self.layout, "adopt:told");
        self.finish_change();
        self.record(Fact::Adopted { upgraded });
        if self.state.is_over() {
            return Ok(());
        }
        // Whatever ends from here on is looked at as what it was made from.
        for c in 0..self.pod.containers.len() {
            self.find_image_again(c);
        }
        self.superseded = self.superseded_before();
        match self.state.sandbox() {
            SandboxPhase::Making => {
                self.cgroups.kill(&self.pod_cgroup, Members::Pod)?;
                self.undo_sandbox();
                self.end_making_sandbox();
            }
            SandboxPhase::Ready => self.enter_sandbox(held)?,
            SandboxPhase::Absent | SandboxPhase::Impossible | SandboxPhase::GivenUp => {}
        }
        self.forget_superseded();
        self.finish_hooks();
        Ok(())
    }

    /// A change was written into the pod's file, and not yet into its journal.
    fn finish_change(&mut self) {
        let Some(fact) = self.file.changed.clone() else { return };
        let wanted = compile::compile(&self.file);
        let mut changed = self.pod.clone();
        plan::change(&mut changed, &fact);
        if self.pod != wanted && changed == wanted {
            self.record(fact);
        }
    }

    fn enter_sandbox(&mut self, mut held: HashMap<String, OwnedFd>) -> anyhow::Result<()> {
        self.sandbox = runtime::sandbox::enter(&self.dir)?;
        if self.sandbox.is_none() {
            let all = 0..self.pod.containers.len();
            let lives =
                |c: usize| self.state.incarnations(c).iter().any(|i| i.phase != Life::Exited);
            if self.state.ending().is_some() && !all.clone().any(lives) {
                // Its removal was under way, and goes on.
                return Ok(runtime::sandbox::unpin(&self.dir.pin)?);
            }
            bail!("the pod's namespaces are gone: {} is not mounted", self.dir.pin.display());
        }
        failpoint::at(&self.layout, "adopt:entered");
        // If nothing lived in it, systemd has removed it with the scope.
        if self.cgroups.all_pods()?.iter().all(|pod| pod.uid != self.pod.uid) {
            let spec = self.file.pod.spec.clone().unwrap_or_default();
            let values = bundles::resources::pod_resources(&spec, &self.host)?;
            self.cgroups.make_pod(&self.pod_cgroup, &values)?;
        }
        // They end with their shim, but not at once, and have its pump's lock.
        self.cgroups.kill(&self.pod_cgroup, Members::Creators)?;
        // Once more, it completes what is missing and answers the same.
        self.attach().context("cannot look at the pod's network")?;
        self.take_notifiers(&mut held)?;
        self.open_pump()?;
        for c in 0..self.pod.containers.len() {
            self.open_last_log(c);
            for known in self.state.incarnations(c).to_vec() {
                self.adopt_incarnation(c, &known, &mut held)?;
            }
        }
        failpoint::at(&self.layout, "adopt:containers");
        self.forget_unknown_machines();
        self.reap_children();
        // The keeper tells of a child before it reaps it: whoever was not there any more has been told of.
        let before = match &mut self.keeper {
            Some(keeper) => keeper.ended().unwrap_or_default(),
            None => Vec::new(),
        };
        // Those that had ended before.
        for at in (0..self.living.len()).rev() {
            let process = &self.living[at].process;
            if process.pidfd().is_some() {
                continue;
            }
            // A number may have been given twice: the last to have had it is meant.
            let told = before.iter().rev().find(|child| child.pid == process.pid);
            let exit = told.map_or_else(kept::lost, |child| kept::exit(child.code, child.signal));
            self.on_exit(at, exit);
        }
        // And those that are zombies yet, of which the keeper has told in between.
        for child in before {
            let is = |i: &Incarnation| i.adopted && i.process.pid == child.pid;
            if let Some(at) = self.living.iter().position(|i| is(i) && i.process.is_over()) {
                self.on_exit(at, kept::exit(child.code, child.signal));
            }
        }
        Ok(())
    }

    /// The log that the dead shim wrote: an open batch is finished there.
    fn open_last_log(&mut self, c: usize) {
        let ran = self.state.last_exit(c).is_some()
            || self.state.incarnations(c).iter().any(|i| is_started(i.phase));
        if ran {
            let log = self.log_dir(c).join(format!("{}.log", self.state.restart_count(c)));
            self.open_log(c, &log);
        }
    }

    fn adopt_incarnation(
        &mut self,
        c: usize,
        known: &Known,
        held: &mut HashMap<String, OwnedFd>,
    ) -> anyhow::Result<()> {
        let inc = known.inc;
        let cgroup = cgroup_name(&self.pod.containers[c].name, inc);
        let started = held.remove(&kept::start_pipe(c, inc));
        let pid = match (known.phase, known.pid) {
            (Life::Exited, _) => return Ok(()),
            (Life::Creating, _) | (_, None) => {
                self.remove_incarnation(c, inc);
                let _ = self.cgroups.remove_creator(&self.pod_cgroup, &cgroup);
                let exit = kept::exit(137, Some(9));
                self.record(Fact::Exited { c, inc, exit });
                return Ok(());
            }
            (_, Some(pid)) => pid,
        };
        let _ = self.cgroups.remove_creator(&self.pod_cgroup, &cgroup);
        for name in self.cgroups.execs(&self.pod_cgroup, &cgroup)? {
            if is_ours(&name) {
                self.cgroups.kill(&self.pod_cgroup, Members::Exec(&cgroup, &name))?;
                let _ = self.cgroups.remove_exec(&self.pod_cgroup, &cgroup, &name);
            }
        }
        let process = Process::open(pid).ok().filter(|p| self.is_same(p, known, &cgroup));
        let process = process.unwrap_or_else(|| Process::gone(pid));
        let alive = process.pidfd().is_some();
        let parent = process.parent();
        // It was this process that started it, as another version.
        let own = parent == Some(own_pid());
        let of_keeper = self.keeper.is_some() && parent == Some(keeper_pid());
        let container_id = known.container_id.clone().unwrap_or_default();
        let restart_count = is_started(known.phase).then(|| self.state.restart_count(c));
        self.living.push(Incarnation {
            c,
            inc,
            container_id: container_id.clone(),
            process,
            started,
            failure: None,
            restart_count,
            adopted: !own,
        });
        if !alive {
            return Ok(());
        }
        if !of_keeper && !own {
            self.look_after(pid);
        }
        if known.phase == Life::Starting {
            self.start_again(pid, &container_id)?;
        }
        if known.is_killed()
            && let Some(found) = self.living.iter().find(|i| i.process.pid == pid)
        {
            found.process.kill();
        }
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            if known.phase == Life::Running && known.is_probed(kind) {
                let message = "podshim's process for this pod died".to_owned();
                self.record(Fact::ProbeErrored { c, inc, kind, message });
            }
        }
        Ok(())
    }

    /// Whether a process is the incarnation's, and not a later one with its number.
    fn is_same(&self, process: &Process, known: &Known, cgroup: &str) -> bool {
        match known.inode {
            Some(inode) if inode != 0 => process.inode() == inode,
            // A kernel before 6.9: it is in the container's control group, or it is not.
            _ => self
                .cgroups
                .processes(&self.pod_cgroup, Members::Container(cgroup))
                .is_ok_and(|members| members.contains(&process.pid)),
        }
    }

    fn start_again(&mut self, pid: i32, container_id: &str) -> anyhow::Result<()> {
        let machine = runtime::container::machine_dir(&self.dir);
        let told = runtime::container::start(&machine, container_id);
        let Some(found) = self.living.iter_mut().find(|i| i.process.pid == pid) else {
            return Ok(());
        };
        let (c, inc) = (found.c, found.inc);
        match (&found.started, told) {
            // Its hang-up, or what it brings, is still to come, or is there.
            (Some(pipe), Ok(_)) => {
                let data = EventData::new_u64(tokens::started(pid));
                watch::add(&self.epoll, pipe, data, EventFlags::IN)?;
            }
            // Without a pipe (shim and keeper died at once) nothing else tells.
            (None, Ok(_)) => {
                self.record(Fact::Started { c, inc });
            }
            (_, Err(e)) => {
                found.failure = Some(runtime::container::StartFailure {
                    message: runtime::chain(&e),
                    errno: None,
                });
                found.process.kill();
            }
        }
        Ok(())
    }

    /// What libcontainer left of creations that were never told of.
    fn forget_unknown_machines(&self) {
        let machine = runtime::container::machine_dir(&self.dir);
        for entry in std::fs::read_dir(&machine).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let known = self.living.iter().any(|i| i.container_id.as_str() == name);
            if !known {
                let _ = bundles::tree::remove(&entry.path());
            }
        }
    }

    /// The image that container `c` was to be made from, whatever its name means now.
    pub(super) fn find_image_again(&mut self, c: usize) {
        let text = self.pod.containers[c].image.clone();
        let id = self.state.image_id(c).map(str::to_owned);
        if let Some((image, hold)) = id.and_then(|id| self.image_with(&text, &id)) {
            self.hold(&kept::image(c), hold.file());
            (self.images[c], self.holds[c]) = (Some(image), Some(hold));
        }
        if self.state.is_pulling(c) {
            self.pull_again(c, &text);
        }
    }

    fn image_with(&self, name: &str, id: &str) -> Option<(Image, Hold)> {
        let found = |name: &str| {
            let reference = Reference::parse(name).ok()?;
            let found = self.store.resolve_held(&reference, &self.who()).ok().flatten()?;
            (found.0.id == id).then_some(found)
        };
        found(name).or_else(|| {
            let all = self.store.list().ok()?;
            all.iter().filter(|image| image.id == id).find_map(|image| found(&image.reference))
        })
    }

    /// Old definitions of which something exists, as the pod's file has them.
    fn superseded_before(&self) -> Vec<Superseded> {
        let of = |old: &super::file::OldDefinition| {
            let incarnations = self.state.incarnations(old.c).iter();
            let image = incarnations
                .filter(|i| i.inc < old.before)
                .find_map(|i| self.image_with(old.container.image.as_deref()?, i.image_id()));
            let filter = super::sandbox::filter_of(&self.file, old, &self.host, &self.layout);
            Superseded::new(old.clone(), image, filter)
        };
        self.file.superseded.iter().map(of).collect()
    }

    /// Hooks that were under way: programs and requests are run again, a sleep goes on.
    fn finish_hooks(&mut self) {
        for c in 0..self.pod.containers.len() {
            for known in self.state.incarnations(c).to_vec() {
                for hook in [Hook::PostStart, Hook::PreStop] {
                    let begun = known.hook_under_way(hook);
                    if let Some(begun) = begun.filter(|_| known.phase == Life::Running) {
                        self.hook_again(c, known.inc, hook, begun);
                    }
                }
            }
        }
    }
}

fn is_started(phase: Life) -> bool {
    matches!(phase, Life::Starting | Life::Running)
}

/// Whether a control group below a container's is one that podshim made for a program.
fn is_ours(name: &str) -> bool {
    let counted = name.strip_prefix("exec-").is_some_and(|n| n.parse::<u32>().is_ok());
    counted || name.ends_with("-probe") || name.ends_with("-hook")
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn keeper_pid() -> i32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}
