//! Programs that run in containers besides their own: probes, and what users ask for.

use std::os::fd::{AsFd, OwnedFd};

use plan::{Exit, Mono};
use runtime::cgroup::Members;
use runtime::container::{StartFailure, cgroup_name};
use runtime::exec::{self, Exec, ExecIo, ExecMessage, ExecOrder};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::hooks::HookProgram;
use super::machine::Machine;
use super::probes::Attempt;
use super::tokens;
use super::watch;
use crate::protocol::Reply;

/// What a shell says of a command that cannot be executed, and of one that is not there.
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// One under way.
#[derive(Debug)]
pub struct Running {
    pub(super) c: usize,
    pub(super) inc: u32,
    pub(super) exec: Exec,
    /// The name of its control group below the container's.
    pub(super) name: String,
    /// The program's pid, once it is known, and how it ended.
    pub(super) program: Option<i32>,
    pub(super) ended: Option<Exit>,
    pub(super) helper_ended: bool,
    /// Why the program was not run.
    pub(super) failed: Option<StartFailure>,
    pub(super) purpose: Purpose,
}

/// Whom it is for.
#[derive(Debug)]
pub enum Purpose {
    /// A probe.
    Probe(Attempt),
    /// A hook.
    Hook(HookProgram),
    /// A client of the control socket.
    Client(u32),
}

impl Purpose {
    /// Reads what the program said, if that is for the shim; `true` at the end.
    fn read(&mut self, output: &OwnedFd) -> bool {
        match self {
            Purpose::Probe(attempt) => attempt.read(output),
            Purpose::Hook(hook) => hook.read(output),
            Purpose::Client(_) => false,
        }
    }
}

impl Running {
    /// When it has taken too long; `None` if nobody minds, or it has been ended for that.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.purpose {
            Purpose::Probe(attempt) => attempt.deadline,
            Purpose::Hook(_) | Purpose::Client(_) => None,
        }
    }
}

impl Machine {
    /// Runs what a client asks for.
    pub(super) fn exec(
        &mut self,
        client: u32,
        container: &str,
        command: &[String],
        terminal: Option<(u16, u16)>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let c = self.index_of(container)?;
        let running = self.state.incarnations(c).iter().find(|i| i.phase == plan::Life::Running);
        let Some(inc) = running.map(|i| i.inc) else {
            return Err(format!("container {container:?} of pod {:?} does not run", self.pod.name));
        };
        let count = descriptors.len();
        let io = match (terminal, <[OwnedFd; 3]>::try_from(descriptors)) {
            (None, Ok(streams)) => ExecIo::Given(streams),
            (Some(size), Err(mut one)) if count == 1 => match one.pop() {
                Some(channel) => ExecIo::Terminal { channel, size },
                None => return Err("no descriptor came with the request".into()),
            },
            _ => return Err(format!("{count} descriptors came with the request")),
        };
        if command.is_empty() {
            return Err("no command is specified".into());
        }
        self.next_exec += 1;
        let name = format!("exec-{}", self.next_exec);
        self.run_in(c, inc, name, command, &io, Purpose::Client(client))
    }

    /// Starts a program in a container that runs.
    pub(super) fn run_in(
        &mut self,
        c: usize,
        inc: u32,
        name: String,
        args: &[String],
        io: &ExecIo,
        purpose: Purpose,
    ) -> Result<(), String> {
        let filter = self.filter(c, inc)?;
        let living = self
            .living
            .iter()
            .find(|i| i.c == c && i.inc == inc)
            .ok_or("the container has no process")?;
        let container = &self.pod.containers[c].name;
        let cgroup = cgroup_name(container, inc);
        let home = self
            .cgroups
            .make_exec(&self.pod_cgroup, &cgroup, &name)
            .map_err(|e| runtime::chain(&e))?;
        let exec = exec::spawn(&ExecOrder {
            init: &living.process,
            process_file: self.dir.bundle(container, inc).join("process.json"),
            args,
            io,
            filter,
            home: &home,
        })
        .map_err(|e| format!("cannot fork: {e}"))?;
        for fd in [Some(exec.message.as_fd()), exec.output.as_ref().map(AsFd::as_fd)] {
            let Some(fd) = fd else { continue };
            let data = EventData::new_u64(tokens::exec(exec.helper));
            watch::add(&self.epoll, fd, data, EventFlags::IN)
                .map_err(|e| format!("cannot watch a program: {e}"))?;
        }
        self.execs.push(Running {
            c,
            inc,
            exec,
            name,
            program: None,
            ended: None,
            helper_ended: false,
            failed: None,
            purpose,
        });
        Ok(())
    }

    pub(super) fn on_exec(&mut self, helper: i32) {
        let Some(at) = self.execs.iter().position(|e| e.exec.helper == helper) else { return };
        self.read_exec(at);
        self.finish_exec(at);
    }

    /// Takes in what the helper and the program said.
    fn read_exec(&mut self, at: usize) {
        let strays = &mut self.strays;
        let running = &mut self.execs[at];
        for message in exec::read_messages(&running.exec.message).unwrap_or_default() {
            match message {
                ExecMessage::Pid(pid) => {
                    running.program = Some(pid);
                    running.ended = strays.remove(&pid).or(running.ended.take());
                }
                ExecMessage::Failed(failure) => running.failed = Some(failure),
            }
        }
        if let Some(output) = &running.exec.output
            && running.purpose.read(output)
        {
            // At its end the descriptor would be ready for ever.
            let _ = epoll::delete(&self.epoll, output);
        }
        if running.helper_ended {
            let _ = epoll::delete(&self.epoll, &running.exec.message);
        }
    }

    /// `false` if the child belonged to no exec.
    pub(super) fn on_exec_child(&mut self, pid: i32, exit: &Exit) -> bool {
        let Some(at) =
            self.execs.iter().position(|e| e.exec.helper == pid || e.program == Some(pid))
        else {
            return false;
        };
        if self.execs[at].exec.helper == pid {
            self.execs[at].helper_ended = true;
        } else {
            self.execs[at].ended = Some(exit.clone());
        }
        self.read_exec(at);
        self.finish_exec(at);
        true
    }

    /// It is over when the helper has ended and so has the program, if there ever was one.
    fn finish_exec(&mut self, at: usize) {
        let running = &self.execs[at];
        let program_over = running.ended.is_some() || running.program.is_none();
        if !running.helper_ended || !program_over {
            return;
        }
        let mut running = self.execs.swap_remove(at);
        if let Some(output) = &running.exec.output {
            running.purpose.read(output);
        }
        match running.purpose {
            Purpose::Hook(_) => {
                self.kill_exec(&running);
                self.finish_hook(running);
            }
            Purpose::Probe(_) => {
                self.kill_exec(&running);
                self.finish_probe(running);
            }
            Purpose::Client(id) => {
                let reply = answer(&running);
                self.clients.send(&self.epoll, id, &reply);
                // What it left in the background goes on, as in Kubernetes, until its container ends.
                self.remove_if_empty(&running);
            }
        }
    }

    /// A client is gone, and nobody looks at its programs any more.
    pub(super) fn end_execs_of(&mut self, client: u32) {
        let of_client = |e: &&Running| matches!(e.purpose, Purpose::Client(id) if id == client);
        for running in self.execs.iter().filter(of_client) {
            self.kill_members(running);
        }
    }

    /// Kills a program and all that it started. Its end is reported by SIGCHLD.
    pub(super) fn kill_members(&self, running: &Running) {
        let cgroup = cgroup_name(&self.pod.containers[running.c].name, running.inc);
        let members = Members::Exec(&cgroup, &running.name);
        if let Err(e) = self.cgroups.kill(&self.pod_cgroup, members) {
            tracing::warn!("{}", runtime::chain(&e));
        }
    }

    /// Kills what a program left behind and removes its control group.
    fn kill_exec(&self, running: &Running) {
        self.kill_members(running);
        self.remove_exec(running);
    }

    fn remove_if_empty(&self, running: &Running) {
        let cgroup = cgroup_name(&self.pod.containers[running.c].name, running.inc);
        let members = Members::Exec(&cgroup, &running.name);
        if self.cgroups.processes(&self.pod_cgroup, members).is_ok_and(|p| p.is_empty()) {
            self.remove_exec(running);
        }
    }

    fn remove_exec(&self, running: &Running) {
        let cgroup = cgroup_name(&self.pod.containers[running.c].name, running.inc);
        if let Err(e) = self.cgroups.remove_exec(&self.pod_cgroup, &cgroup, &running.name) {
            tracing::warn!("{}", runtime::chain(&e));
        }
    }
}

fn answer(running: &Running) -> Reply {
    match (&running.failed, &running.ended) {
        (Some(failure), _) => {
            let missing = failure.errno == Some(nix::errno::Errno::ENOENT as i32);
            let code = if missing { NOT_FOUND } else { CANNOT_EXECUTE };
            Reply::Exited { code, failure: Some(failure.message.clone()) }
        }
        (None, Some(exit)) => Reply::Exited { code: exit.code, failure: None },
        (None, None) => Reply::Error("the container ended before the program ran".into()),
    }
}
