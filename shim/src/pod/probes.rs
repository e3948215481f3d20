//! Probes that run a program in the container.

use std::os::fd::OwnedFd;

use plan::{Exit, Fact, Mono, ProbeKind};
use runtime::cgroup::Members;
use runtime::container::cgroup_name;
use runtime::exec::{self, Exec, ExecMessage, ExecOrder};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::compile::containers;
use super::machine::Machine;
use super::tokens;

/// What is kept of a probe's output (kubelet: pkg/probe).
const OUTPUT_MAX_BYTES: usize = 10 << 10;

/// One attempt under way.
#[derive(Debug)]
pub struct Probing {
    c: usize,
    inc: u32,
    kind: ProbeKind,
    exec: Exec,
    /// The name of its control group below the container's.
    name: String,
    /// The program's pid, once it is known, and how it ended.
    program: Option<i32>,
    ended: Option<Exit>,
    helper_ended: bool,
    /// Why the program was not run.
    failed: Option<String>,
    output: Vec<u8>,
    timeout_s: u32,
    deadline: Option<Mono>,
    timed_out: bool,
}

impl Probing {
    /// When the attempt has taken too long; `None` once it has been ended for that.
    pub fn deadline(&self) -> Option<Mono> {
        self.deadline
    }
}

impl Machine {
    pub(super) fn probe(&mut self, c: usize, inc: u32, kind: ProbeKind, timeout_s: u32) {
        self.record(Fact::Probing { c, inc, kind });
        if let Err(message) = self.try_probe(c, inc, kind, timeout_s) {
            self.record(Fact::ProbeErrored { c, inc, kind, message });
        }
    }

    fn try_probe(
        &mut self,
        c: usize,
        inc: u32,
        kind: ProbeKind,
        timeout_s: u32,
    ) -> Result<(), String> {
        let filter = self.filter(c)?;
        let args = self.probe_command(c).ok_or("the probe has no command")?;
        let living = self
            .living
            .iter()
            .find(|i| i.c == c && i.inc == inc)
            .ok_or("the container has no process")?;
        let container = &self.pod.containers[c].name;
        let name = "startup-probe".to_owned();
        let cgroup = cgroup_name(container, inc);
        let home = self
            .cgroups
            .make_exec(&self.pod_cgroup, &cgroup, &name)
            .map_err(|e| runtime::chain(&e))?;
        let exec = exec::spawn(&ExecOrder {
            init: &living.process,
            process_file: self.dir.bundle(container, inc).join("process.json"),
            args: &args,
            filter,
            home: &home,
        })
        .map_err(|e| format!("cannot fork: {e}"))?;
        for fd in [&exec.message, &exec.output] {
            let data = EventData::new_u64(tokens::exec(exec.helper));
            epoll::add(&self.epoll, fd, data, EventFlags::IN)
                .map_err(|e| format!("cannot watch the probe: {e}"))?;
        }
        self.probing.push(Probing {
            c,
            inc,
            kind,
            exec,
            name,
            program: None,
            ended: None,
            helper_ended: false,
            failed: None,
            output: Vec::new(),
            timeout_s,
            deadline: Some(runtime::clock::mono().plus_s(timeout_s)),
            timed_out: false,
        });
        Ok(())
    }

    /// The probe's command. References in it are to variables with plain values only (Kubernetes:
    /// pkg/kubelet/prober, `ExpandContainerCommandOnlyStatic`).
    fn probe_command(&self, c: usize) -> Option<Vec<String>> {
        let container = containers(self.file.pod.spec.as_ref()?).nth(c)?;
        let exec = container.startup_probe.as_ref()?.exec.as_ref()?;
        let value = |name: &str| {
            let plain = container.env.iter().flatten().filter(|v| v.value_from.is_none());
            plain.rev().find(|v| v.name == name).map(|v| v.value.as_deref().unwrap_or_default())
        };
        let command = exec.command.as_ref()?;
        Some(command.iter().map(|text| bundles::expand::expand(text, value)).collect())
    }

    pub(super) fn on_exec(&mut self, helper: i32) {
        let Some(at) = self.probing.iter().position(|p| p.exec.helper == helper) else { return };
        self.read_exec(at);
        self.finish_probe(at);
    }

    /// Takes in what the helper and the program said.
    fn read_exec(&mut self, at: usize) {
        let strays = &mut self.strays;
        let probing = &mut self.probing[at];
        for message in exec::read_messages(&probing.exec.message).unwrap_or_default() {
            match message {
                ExecMessage::Pid(pid) => {
                    probing.program = Some(pid);
                    probing.ended = strays.remove(&pid).or(probing.ended.take());
                }
                ExecMessage::Failed(failure) => probing.failed = Some(failure.message),
            }
        }
        if read_output(&probing.exec.output, &mut probing.output) {
            // At its end the descriptor would be ready for ever.
            let _ = epoll::delete(&self.epoll, &probing.exec.output);
        }
        if probing.helper_ended {
            let _ = epoll::delete(&self.epoll, &probing.exec.message);
        }
    }

    /// `false` if the child belonged to no exec.
    pub(super) fn on_exec_child(&mut self, pid: i32, exit: &Exit) -> bool {
        let Some(at) =
            self.probing.iter().position(|p| p.exec.helper == pid || p.program == Some(pid))
        else {
            return false;
        };
        if self.probing[at].exec.helper == pid {
            self.probing[at].helper_ended = true;
        } else {
            self.probing[at].ended = Some(exit.clone());
        }
        self.read_exec(at);
        self.finish_probe(at);
        true
    }

    /// An attempt is over when the helper has ended and so has the program, if there ever was one.
    fn finish_probe(&mut self, at: usize) {
        let probing = &self.probing[at];
        let program_over = probing.ended.is_some() || probing.program.is_none();
        if !probing.helper_ended || !program_over {
            return;
        }
        let mut probing = self.probing.swap_remove(at);
        read_output(&probing.exec.output, &mut probing.output);
        self.end_exec(&probing);
        let Probing { c, inc, kind, .. } = probing;
        let fact = match (probing.timed_out, probing.failed, probing.ended) {
            (true, _, _) => Fact::Probed {
                c,
                inc,
                kind,
                success: false,
                output: format!(
                    "command timed out: {:?} timed out after {}s",
                    self.probe_command(c).unwrap_or_default().join(" "),
                    probing.timeout_s
                ),
            },
            (_, Some(message), _) => Fact::ProbeErrored { c, inc, kind, message },
            (_, None, Some(exit)) => Fact::Probed {
                c,
                inc,
                kind,
                success: exit.code == 0,
                output: String::from_utf8_lossy(&probing.output).trim_end().to_owned(),
            },
            (_, None, None) => {
                let message = "the container ended before the probe ran".into();
                Fact::ProbeErrored { c, inc, kind, message }
            }
        };
        self.record(fact);
    }

    /// Kills what the program left behind and removes its control group.
    fn end_exec(&mut self, probing: &Probing) {
        let cgroup = cgroup_name(&self.pod.containers[probing.c].name, probing.inc);
        let members = Members::Exec(&cgroup, &probing.name);
        let ended = self
            .cgroups
            .kill(&self.pod_cgroup, members)
            .and_then(|_| self.cgroups.remove_exec(&self.pod_cgroup, &cgroup, &probing.name));
        if let Err(e) = ended {
            tracing::warn!("{}", runtime::chain(&e));
        }
    }

    pub(super) fn end_late_probes(&mut self, now: Mono) {
        for at in 0..self.probing.len() {
            if self.probing[at].deadline.is_none_or(|deadline| now < deadline) {
                continue;
            }
            self.probing[at].timed_out = true;
            self.probing[at].deadline = None;
            let cgroup =
                cgroup_name(&self.pod.containers[self.probing[at].c].name, self.probing[at].inc);
            let members = Members::Exec(&cgroup, &self.probing[at].name);
            // Its end is reported by SIGCHLD.
            if let Err(e) = self.cgroups.kill(&self.pod_cgroup, members) {
                tracing::warn!("{}", runtime::chain(&e));
            }
        }
    }
}

/// Reads what is there, and keeps what is within the limit. `true` at the end of the output.
fn read_output(fd: &OwnedFd, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return true,
            Ok(n) => {
                let room = OUTPUT_MAX_BYTES.saturating_sub(into.len());
                into.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
