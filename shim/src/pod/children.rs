//! The shim's children: creators, containers, what exec and pulls start, and whatever a container
//! left behind when its own process died (the shim is a subreaper).

use std::os::fd::{AsFd, OwnedFd};

use plan::{Exit, Fact, Mono, StartError};
use runtime::cgroup::Members;
use runtime::container::{
    self, Creator, CreatorMessage, Process, StartFailure, cgroup_name, machine_dir,
};
use runtime::sys::process::{Reaped, collect, peek};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Signal;

use super::machine::Machine;
use super::watch;
use super::{failpoint, kept, tokens};

/// How long a creator may take. A create that hangs (a FIFO where a file should be, a dead network
/// file system) must not hang the pod.
pub const CREATE_S: u32 = 120;

/// A creator under way, or one that has reported and not ended yet.
#[derive(Debug)]
pub struct Creating {
    /// Whom it creates.
    pub c: usize,
    /// Which incarnation.
    pub inc: u32,
    /// The id it creates it with.
    pub container_id: String,
    /// The process; its pipes are taken when it has reported.
    pub creator: Option<Creator>,
    /// Its pid.
    pub pid: i32,
    /// When it is given up.
    pub deadline: Mono,
}

/// An incarnation that has a process.
#[derive(Debug)]
pub struct Incarnation {
    /// Whose.
    pub c: usize,
    /// Which.
    pub inc: u32,
    /// Its OCI id.
    pub container_id: String,
    /// The process.
    pub process: Process,
    /// The start pipe, until it has said something.
    pub started: Option<OwnedFd>,
    /// Why its program was not executed.
    pub failure: Option<StartFailure>,
    /// The number of its log, once it was started.
    pub restart_count: Option<u32>,
    /// It is the child of a shim before this one.
    pub adopted: bool,
}

impl Machine {
    pub(super) fn on_signals(&mut self) {
        let received = self.signals.read();
        for _ in 0..received.end {
            // As Ctrl-C of `podshim run`: first gracefully, a second time at once. Whoever ends processes
            // without asking the daemon does not mean its pods: the host goes down.
            let fact = match self.state.ending() {
                _ if self.file.is_kept() => Fact::SuspendAsked,
                None => Fact::DeleteAsked { grace_s: None },
                Some(_) => Fact::KillAsked,
            };
            self.record(fact);
        }
        if received.child {
            self.reap_children();
        }
    }

    /// Written down first, and then reaped: who dies in between has told the next one everything.
    pub(super) fn reap_children(&mut self) {
        while let Some(child) = peek() {
            self.on_child(child);
            collect(child.pid);
        }
        if self.creating.is_empty() && self.execs.is_empty() {
            self.strays.clear();
        }
    }

    fn on_child(&mut self, child: Reaped) {
        let exit = Exit { code: child.code, signal: child.signal, ..Exit::default() };
        if let Some(at) = self.living.iter().position(|i| !i.adopted && i.process.pid == child.pid)
        {
            self.on_exit(at, exit);
        } else if let Some(at) = self.creating.iter().position(|c| c.pid == child.pid) {
            self.on_creator_end(at);
        } else if !self.on_exec_child(child.pid, &exit)
            && !self.on_request_end(child.pid)
            && !self.on_pull_end(child.pid, &exit)
            && !self.on_packed(child.pid)
        {
            self.strays.insert(child.pid, exit);
        }
    }

    /// A container's process is gone: what it wrote is put into its log, then the fact is recorded.
    pub(super) fn on_exit(&mut self, at: usize, mut exit: Exit) {
        let mut incarnation = self.living.swap_remove(at);
        self.release(&kept::start_pipe(incarnation.c, incarnation.inc));
        // The program may have failed to start without its pipe having been looked at yet.
        if let Some(pipe) = incarnation.started.take() {
            // It is watched only once it is to be started.
            let _ = epoll::delete(&self.epoll, &pipe);
            incarnation.failure =
                incarnation.failure.or_else(|| container::read_start(&pipe).ok().flatten());
            if incarnation.failure.is_none() && self.was_starting(incarnation.c, incarnation.inc) {
                // It ran, and ended before anybody looked.
                self.record(Fact::Started { c: incarnation.c, inc: incarnation.inc });
            }
        }
        if let Some(failure) = incarnation.failure.take() {
            exit.lost = false;
            exit.code = 128;
            exit.signal = None;
            exit.start_error = Some(StartError { message: failure.message, errno: failure.errno });
        }
        let name = &self.pod.containers[incarnation.c].name;
        let cgroup = cgroup_name(name, incarnation.inc);
        exit.oom = self.cgroups.oom_kills(&self.pod_cgroup, &cgroup).is_ok_and(|kills| kills > 0);
        self.drain(incarnation.c);
        failpoint::at(&self.layout, "exit:drained");
        exit.message = self.last_words(&incarnation, &exit);
        self.forget_notifications(incarnation.c);
        self.end_requests_of(incarnation.c, incarnation.inc);
        self.sleeping.retain(|s| (s.c, s.inc) != (incarnation.c, incarnation.inc));
        self.record(Fact::Exited { c: incarnation.c, inc: incarnation.inc, exit });
    }

    fn was_starting(&self, c: usize, inc: u32) -> bool {
        let of = self.state.incarnations(c).iter();
        of.filter(|i| i.inc == inc).any(|i| i.phase == plan::Life::Starting)
    }

    pub(super) fn create(&mut self, c: usize, inc: u32) {
        self.record(Fact::Creating { c, inc });
        if let Err(message) = self.try_create(c, inc) {
            self.create_failed(c, inc, "CreateContainerError".into(), message);
        }
    }

    fn try_create(&mut self, c: usize, inc: u32) -> Result<(), String> {
        if self.images[c].is_none() {
            // It could not be held when the pod was taken on: the disk was full.
            self.find_image_again(c);
        }
        let filter = self.filter(c, inc)?;
        let spec = self.file.pod.spec.as_ref().ok_or("the pod has no spec")?;
        let container =
            super::compile::containers(spec).nth(c).ok_or("the pod has no such container")?;
        let image = self.images[c]
            .as_ref()
            .ok_or("its image is not in the store any more, or cannot be held there")?;
        let pump = self.pump.as_ref().ok_or("the pod has no log pump")?;
        let cgroup = cgroup_name(&container.name, inc);
        let values =
            bundles::resources::container_resources(container).map_err(|e| runtime::chain(&e))?;
        let devices = if bundles::security::is_privileged(container) {
            &[runtime::devices::EVERY_DEVICE]
        } else {
            runtime::devices::DEFAULT
        };
        self.cgroups
            .make_container(&self.pod_cgroup, &cgroup, &values, devices)
            .map_err(|e| runtime::chain(&e))?;
        let home =
            self.cgroups.make_creator(&self.pod_cgroup, &cgroup).map_err(|e| runtime::chain(&e))?;
        let container_id = random_id()?;
        let order = container::CreateOrder {
            pod: &self.file.pod,
            container,
            objects: &self.file.objects,
            inc,
            container_id: &container_id,
            image,
            dir: &self.dir,
            host: &self.host,
            cgroups: &self.cgroups,
            home: &home,
            pod_ips: &self.pod_ips(),
            pod_cgroup: &self.pod_cgroup,
            own_namespaces: self.wanted.own(),
            filter,
            output: [
                pump.fifo_path(c, runtime::log::Stream::Stdout),
                pump.fifo_path(c, runtime::log::Stream::Stderr),
            ],
        };
        let creator = container::spawn_creator(&order).map_err(|e| runtime::chain(&e))?;
        let pid = creator.pid;
        let token = EventData::new_u64(tokens::creator(pid));
        let added = watch::add(&self.epoll, &creator.message, token, EventFlags::IN);
        self.creating.push(Creating {
            c,
            inc,
            container_id,
            creator: Some(creator),
            pid,
            deadline: runtime::clock::mono().plus_s(CREATE_S),
        });
        added.map_err(|e| format!("cannot watch the creator: {e}"))
    }

    /// Nothing is to be left of it.
    fn create_failed(&mut self, c: usize, inc: u32, reason: String, message: String) {
        self.remove_incarnation(c, inc);
        self.record(Fact::CreateFailed { c, inc, reason, message });
        self.forget_superseded();
    }

    pub(super) fn on_creator_message(&mut self, pid: i32) {
        let Some(at) = self.creating.iter().position(|c| c.pid == pid) else { return };
        let Some(creator) = self.creating[at].creator.take() else { return };
        let (c, inc) = (self.creating[at].c, self.creating[at].inc);
        match container::read_message(&creator.message) {
            Ok(CreatorMessage::Created { pid }) => {
                let id = self.creating[at].container_id.clone();
                self.created(c, inc, pid, id, creator.started);
            }
            Ok(CreatorMessage::Failed { reason, message }) => {
                self.create_failed(c, inc, reason, message);
            }
            Err(e) => self.create_failed(
                c,
                inc,
                "CreateContainerError".into(),
                format!("the creator's message cannot be read: {e}"),
            ),
        }
    }

    fn created(&mut self, c: usize, inc: u32, pid: i32, container_id: String, started: OwnedFd) {
        // It may have been killed and reaped before its creator's message was read.
        let opened = match self.strays.remove(&pid) {
            Some(exit) => Err(format!("its process died while it was created ({})", exit.code)),
            None => Process::open(pid).map_err(|e| runtime::chain(&e)),
        };
        match opened {
            Ok(process) => {
                self.hold(&kept::start_pipe(c, inc), started.as_fd());
                let inode = process.inode();
                self.living.push(Incarnation {
                    c,
                    inc,
                    container_id: container_id.clone(),
                    process,
                    started: Some(started),
                    failure: None,
                    restart_count: None,
                    adopted: false,
                });
                self.record(Fact::Created { c, inc, pid, inode, container_id });
            }
            Err(message) => {
                self.create_failed(c, inc, "CreateContainerError".into(), message);
            }
        }
    }

    /// A creator has ended. One that dies without a message gives no end-of-file, because the
    /// processes that it forked hold the pipe's other end: its exit is the news.
    fn on_creator_end(&mut self, at: usize) {
        if let Some(creator) = &self.creating[at].creator {
            let pid = creator.pid;
            if is_readable(&creator.message) {
                self.on_creator_message(pid);
            }
        }
        let ended = self.creating.swap_remove(at);
        let (c, inc) = (ended.c, ended.inc);
        if ended.creator.is_some() {
            self.create_failed(
                c,
                inc,
                "CreateContainerError".into(),
                format!("the creator of container {} died", self.pod.containers[c].name),
            );
        }
        let cgroup = cgroup_name(&self.pod.containers[c].name, inc);
        if let Err(e) = self.cgroups.remove_creator(&self.pod_cgroup, &cgroup) {
            tracing::warn!("{}", runtime::chain(&e));
        }
    }

    pub(super) fn end_late_creators(&mut self, now: Mono) {
        let late: Vec<(i32, usize, u32)> = self
            .creating
            .iter()
            .filter(|c| c.creator.is_some() && c.deadline <= now)
            .map(|c| (c.pid, c.c, c.inc))
            .collect();
        for (pid, c, inc) in late {
            tracing::warn!("the creator of {} takes too long", self.pod.containers[c].name);
            let cgroup = cgroup_name(&self.pod.containers[c].name, inc);
            if let Err(e) = self.cgroups.kill(&self.pod_cgroup, Members::Incarnation(&cgroup)) {
                tracing::warn!("{}", runtime::chain(&e));
            }
            if let Some(creating) = self.creating.iter_mut().find(|x| x.pid == pid) {
                // Its end is reported by SIGCHLD; until then the deadline must not fire again.
                creating.deadline = now.plus_s(CREATE_S);
            }
        }
    }

    pub(super) fn start(&mut self, c: usize, inc: u32, restart_count: u32) {
        let log = self.log_dir(c).join(format!("{restart_count}.log"));
        self.open_log(c, &log);
        failpoint::at(&self.layout, "start:log");
        self.record(Fact::Starting { c, inc });
        let machine = machine_dir(&self.dir);
        let epoll = &self.epoll;
        let Some(found) = self.living.iter_mut().find(|i| i.c == c && i.inc == inc) else {
            return;
        };
        found.restart_count = Some(restart_count);
        let mut watched = Ok(());
        if let Some(pipe) = &found.started {
            let token = EventData::new_u64(tokens::started(found.process.pid));
            watched = watch::add(epoll, pipe, token, EventFlags::IN)
                .map_err(|e| format!("cannot watch the start of the container: {e}"));
        }
        let start = || container::start(&machine, &found.container_id);
        if let Err(message) = watched.and_then(|()| start().map_err(|e| runtime::chain(&e))) {
            // It cannot be started and must not wait for ever: its end is an exit like any other.
            found.failure = Some(StartFailure { message, errno: None });
            found.process.kill();
        } else if found.started.is_none() {
            // It was created by a shim that has died together with its keeper, and nothing else tells.
            self.record(Fact::Started { c, inc });
        }
        failpoint::at(&self.layout, "start:connected");
    }

    /// The start pipe hung up: the program runs; or it brought the reason why it does not.
    pub(super) fn on_start_pipe(&mut self, pid: i32) {
        let Some(found) = self.living.iter_mut().find(|i| i.process.pid == pid) else { return };
        let Some(pipe) = found.started.take() else { return };
        let (c, inc) = (found.c, found.inc);
        // The keeper has it open too: closing it would not end its events.
        let _ = epoll::delete(&self.epoll, &pipe);
        match container::read_start(&pipe) {
            Ok(None) => {
                self.record(Fact::Started { c, inc });
            }
            Ok(Some(failure)) => found.failure = Some(failure),
            Err(e) => {
                let message = format!("the start pipe cannot be read: {e}");
                found.failure = Some(StartFailure { message, errno: None });
                // Nobody will know any more whether it runs.
                found.process.kill();
            }
        }
        // What it said of a failure comes with the exit.
        self.release(&kept::start_pipe(c, inc));
    }

    pub(super) fn signal(&mut self, c: usize, inc: u32) {
        let signal = self.stop_signal(c, inc);
        let process = self.living.iter().find(|i| i.c == c && i.inc == inc).map(|i| &i.process);
        let handled = process.is_none_or(|p| p.handles(signal).unwrap_or(true));
        if let Some(process) = process {
            process.signal(signal);
        }
        self.record(Fact::Signalled { c, inc, signal, handled });
    }

    /// The manifest's `stopSignal`, else the image's STOPSIGNAL, else TERM (KEP-4960).
    fn stop_signal(&self, c: usize, inc: u32) -> i32 {
        let container = self.container_of(c, inc);
        let lifecycle = container.and_then(|container| container.lifecycle.as_ref());
        let written = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        let image = self.image_of(c, inc).and_then(|i| i.config.stop_signal.as_deref());
        written
            .and_then(runtime::signal::number)
            .or_else(|| image.and_then(runtime::signal::number))
            .unwrap_or(Signal::TERM.as_raw())
    }

    pub(super) fn kill(&mut self, c: usize, inc: u32) {
        self.record(Fact::Killed { c, inc });
        if let Some(found) = self.living.iter().find(|i| i.c == c && i.inc == inc) {
            // It is pid 1 of its namespace: the kernel takes all the others with it.
            found.process.kill();
        }
    }

    pub(super) fn clean(&mut self, c: usize, inc: u32) {
        self.remove_incarnation(c, inc);
        self.record(Fact::Gone { c, inc });
        self.forget_superseded();
    }

    /// Each step is idempotent; what fails is left for the pod's own end, which removes all of it.
    pub(super) fn remove_incarnation(&mut self, c: usize, inc: u32) {
        let name = &self.pod.containers[c].name;
        let cgroup = cgroup_name(name, inc);
        let mut left = Vec::new();
        let mut note = |result: Result<(), String>| left.extend(result.err());
        note(
            self.cgroups
                .kill(&self.pod_cgroup, Members::Container(&cgroup))
                .map(drop)
                .map_err(|e| runtime::chain(&e)),
        );
        note(
            self.cgroups
                .remove_container(&self.pod_cgroup, &cgroup)
                .map_err(|e| runtime::chain(&e)),
        );
        note(
            runtime::rootfs::remove(&self.dir.scratch(name, inc), &self.dir.rootfs(name, inc))
                .map_err(|e| runtime::chain(&e)),
        );
        runtime::sub_path::remove(&self.dir.sub_paths(name, inc));
        let _ = std::fs::remove_file(self.dir.termination(name, inc));
        let _ = bundles::tree::remove(&self.dir.bundle(name, inc));
        let id = self
            .state
            .incarnations(c)
            .iter()
            .find(|i| i.inc == inc)
            .and_then(|i| i.container_id.clone());
        if let Some(id) = id {
            let _ = bundles::tree::remove(&machine_dir(&self.dir).join(id));
        }
        for what in left {
            tracing::warn!("something is left of container {name}: {what}");
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::IN)
}

/// 64 hexadecimal digits.
fn random_id() -> Result<String, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_digits_and_differ() {
        let (a, b) = (random_id().expect("id"), random_id().expect("id"));
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
