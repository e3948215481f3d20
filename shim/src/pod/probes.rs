//! Probes: one attempt at a time of each.

use std::os::fd::OwnedFd;

use k8s_openapi::api::core::v1::{Container, Probe};
use plan::{Fact, Mono, ProbeKind};
use runtime::exec::ExecIo;
use runtime::probe::{OUTPUT_MAX_BYTES, legible};

use super::execs::{Purpose, Running};
use super::machine::Machine;

/// One attempt under way.
#[derive(Debug)]
pub struct Attempt {
    kind: ProbeKind,
    output: Vec<u8>,
    timeout_s: u32,
    /// `None` once it has been ended for being late.
    pub(super) deadline: Option<Mono>,
    timed_out: bool,
}

impl Attempt {
    /// Reads what the program said; `true` at the end.
    pub(super) fn read(&mut self, output: &OwnedFd) -> bool {
        read_output(output, &mut self.output)
    }
}

impl Machine {
    pub(super) fn probe(
        &mut self,
        c: usize,
        inc: u32,
        kind: ProbeKind,
        early: bool,
        timeout_s: u32,
    ) {
        self.record(Fact::Probing { c, inc, kind, early });
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
        let container = self.container_of(c, inc);
        let probe = container.and_then(|container| probe_of(container, kind)).cloned();
        let probe = probe.ok_or("the container has no such probe")?;
        if let Some(begun) = self.ask_for_probe(c, inc, kind, &probe, timeout_s) {
            return begun;
        }
        let args = self.probe_command(c, inc, kind).ok_or("the probe has no command")?;
        let attempt = Attempt {
            kind,
            output: Vec::new(),
            timeout_s,
            deadline: Some(runtime::clock::mono().plus_s(timeout_s)),
            timed_out: false,
        };
        let purpose = Purpose::Probe(attempt);
        let name = format!("{}-probe", format!("{kind:?}").to_lowercase());
        self.run_in(c, inc, name, &args, &ExecIo::Captured, purpose)
    }

    /// The probe's command. References in it are to variables with plain values only (Kubernetes:
    /// pkg/kubelet/prober, `ExpandContainerCommandOnlyStatic`).
    fn probe_command(&self, c: usize, inc: u32, kind: ProbeKind) -> Option<Vec<String>> {
        let container = self.container_of(c, inc)?;
        let exec = probe_of(container, kind)?.exec.as_ref()?;
        let value = |name: &str| {
            let plain = container.env.iter().flatten().filter(|v| v.value_from.is_none());
            plain.rev().find(|v| v.name == name).map(|v| v.value.as_deref().unwrap_or_default())
        };
        let command = exec.command.as_ref()?;
        Some(command.iter().map(|text| bundles::expand::expand(text, value)).collect())
    }

    /// What an attempt that is over says of the container.
    pub(super) fn finish_probe(&mut self, running: Running) {
        let Running { c, inc, failed, ended, purpose, .. } = running;
        let Purpose::Probe(attempt) = purpose else { return };
        let Attempt { kind, output, timeout_s, timed_out, .. } = attempt;
        let fact = match (timed_out, failed, ended) {
            (true, _, _) => Fact::Probed {
                c,
                inc,
                kind,
                success: false,
                warned: false,
                output: format!(
                    "command timed out: {:?} timed out after {timeout_s}s",
                    self.probe_command(c, inc, kind).unwrap_or_default().join(" "),
                ),
            },
            (_, Some(failure), _) => Fact::ProbeErrored { c, inc, kind, message: failure.message },
            (_, None, Some(exit)) => {
                let (success, output) = (exit.code == 0, legible(&output));
                Fact::Probed { c, inc, kind, success, warned: false, output }
            }
            (_, None, None) => {
                let message = "the container ended before the probe ran".into();
                Fact::ProbeErrored { c, inc, kind, message }
            }
        };
        self.record(fact);
    }

    pub(super) fn end_late_probes(&mut self, now: Mono) {
        for at in 0..self.execs.len() {
            if self.execs[at].deadline().is_none_or(|deadline| now < deadline) {
                continue;
            }
            if let Purpose::Probe(attempt) = &mut self.execs[at].purpose {
                attempt.timed_out = true;
                attempt.deadline = None;
            }
            self.kill_members(&self.execs[at]);
        }
    }
}

fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

/// Reads what is there, and keeps what is within the limit. `true` at the end of the output.
pub(super) fn read_output(fd: &OwnedFd, into: &mut Vec<u8>) -> bool {
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
