//! Probes and hooks that ask a container's server over the network. Each is a child of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plan::{Fact, Hook, Mono, ProbeKind};
use runtime::probe::{self, Check, HttpCheck, Outcome, Prober};
use rustix::process::{Pid, Signal, kill_process};

use super::machine::Machine;

/// How much later than its timeout a child has ended by itself.
const LATE_S: u32 = 2;

/// One under way.
#[derive(Debug)]
pub struct Asking {
    c: usize,
    inc: u32,
    purpose: Purpose,
    prober: Prober,
    /// When it is killed; `None` if it may take as long as its container lives, or was killed.
    deadline: Option<Mono>,
}

/// Whom it is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Probe(ProbeKind),
    Hook(Hook),
}

impl Asking {
    /// When it is late.
    pub fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// It is a child that has not been reaped, so the pid is still its own.
    fn kill(&mut self) {
        self.deadline = None;
        if let Some(pid) = Pid::from_raw(self.prober.pid) {
            // It may have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Machine {
    /// Begins an attempt of a probe that asks over the network; `None` if it is of another kind.
    pub(super) fn ask_for_probe(
        &mut self,
        c: usize,
        inc: u32,
        kind: ProbeKind,
        probe: &Probe,
        timeout_s: u32,
    ) -> Option<Result<(), String>> {
        let check = self.probe_check(c, inc, probe)?;
        let timeout = Some(timeout_s);
        Some(check.and_then(|(check, host)| {
            self.begin_asking(c, inc, Purpose::Probe(kind), &check, host, timeout)
        }))
    }

    /// Begins a hook that asks over the network.
    pub(super) fn ask_for_hook(
        &mut self,
        c: usize,
        inc: u32,
        hook: Hook,
        action: &HTTPGetAction,
    ) -> Result<(), String> {
        let (check, host) = self.http_check(c, inc, action, probe::Purpose::Hook)?;
        self.begin_asking(c, inc, Purpose::Hook(hook), &check, host, None)
    }

    fn probe_check(
        &self,
        c: usize,
        inc: u32,
        probe: &Probe,
    ) -> Option<Result<(Check, Host), String>> {
        if let Some(action) = &probe.http_get {
            return Some(self.http_check(c, inc, action, probe::Purpose::Probe));
        }
        if let Some(action) = &probe.tcp_socket {
            let host = self.host_of(action.host.as_deref());
            let check = |port| Check::Tcp { host: host.name.clone(), port };
            let made = self.port_of(c, inc, &action.port).map(check);
            return Some(made.map(|check| (check, host)));
        }
        let action = probe.grpc.as_ref()?;
        let host = self.host_of(None);
        let service = action.service.clone().unwrap_or_default();
        let check = |port| Check::Grpc { host: host.name.clone(), port, service };
        let made = port(i64::from(action.port)).map(check);
        Some(made.map(|check| (check, host)))
    }

    fn http_check(
        &self,
        c: usize,
        inc: u32,
        action: &HTTPGetAction,
        purpose: probe::Purpose,
    ) -> Result<(Check, Host), String> {
        let host = self.host_of(action.host.as_deref());
        let headers = action.http_headers.iter().flatten();
        let check = HttpCheck {
            https: action.scheme.as_deref() == Some("HTTPS"),
            host: host.name.clone(),
            port: self.port_of(c, inc, &action.port)?,
            path: action.path.clone().unwrap_or_else(|| "/".into()),
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
            purpose,
        };
        Ok((Check::Http(check), host))
    }

    /// The host that a manifest names, else the pod's address. A pod that has none is asked from within,
    /// where its servers can only be at the loopback address.
    fn host_of(&self, written: Option<&str>) -> Host {
        if let Some(name) = written.filter(|name| !name.is_empty()) {
            return Host { name: name.to_owned(), within: false };
        }
        match self.pod_ips().into_iter().next() {
            Some(name) => Host { name, within: false },
            None => Host { name: "127.0.0.1".into(), within: !self.wanted.host_network },
        }
    }

    /// A port by its number, or by the name that the container's own `ports` give it.
    fn port_of(&self, c: usize, inc: u32, written: &IntOrString) -> Result<u16, String> {
        let name = match written {
            IntOrString::Int(number) => return port(i64::from(*number)),
            IntOrString::String(name) => name,
        };
        let container = self.container_of(c, inc);
        let ports = container.and_then(|container| container.ports.as_ref()).into_iter().flatten();
        let mut named = ports.filter(|p| p.name.as_deref() == Some(name));
        match (named.next(), name.parse()) {
            (Some(found), _) => port(i64::from(found.container_port)),
            (None, Ok(number)) => port(number),
            (None, Err(_)) => Err(format!("couldn't find port: {name:?} in the container's ports")),
        }
    }

    fn begin_asking(
        &mut self,
        c: usize,
        inc: u32,
        purpose: Purpose,
        check: &Check,
        host: Host,
        timeout_s: Option<u32>,
    ) -> Result<(), String> {
        let netns = match host.within {
            true => {
                let path = self.dir.namespace("net");
                let open = File::open(&path);
                Some(open.map_err(|e| format!("cannot open {}: {e}", path.display()))?)
            }
            false => None,
        };
        let timeout = timeout_s.map(|s| Duration::from_secs(s.into()));
        let prober = probe::spawn(check, timeout, netns.as_ref().map(AsFd::as_fd))
            .map_err(|e| format!("cannot fork: {e}"))?;
        let deadline = timeout_s.map(|s| runtime::clock::mono().plus_s(s.saturating_add(LATE_S)));
        self.requests.push(Asking { c, inc, purpose, prober, deadline });
        Ok(())
    }

    /// `false` if the child made no request.
    pub(super) fn on_request_end(&mut self, pid: i32) -> bool {
        let Some(at) = self.requests.iter().position(|r| r.prober.pid == pid) else { return false };
        let Asking { c, inc, purpose, prober, .. } = self.requests.swap_remove(at);
        let outcome = match probe::read_outcome(&prober.message) {
            Ok(Some(outcome)) => outcome,
            _ => Outcome::Error { message: "the request was ended before its answer".into() },
        };
        match purpose {
            Purpose::Probe(kind) => {
                self.record(probed(c, inc, kind, outcome));
            }
            Purpose::Hook(hook) => self.finish_request_of_hook(c, inc, hook, outcome),
        }
        true
    }

    /// A container has ended: nobody waits for its answers any more.
    pub(super) fn end_requests_of(&mut self, c: usize, inc: u32) {
        self.requests.iter_mut().filter(|r| (r.c, r.inc) == (c, inc)).for_each(Asking::kill);
    }

    pub(super) fn end_late_requests(&mut self, now: Mono) {
        let is_late = |r: &&mut Asking| r.deadline.is_some_and(|deadline| deadline <= now);
        self.requests.iter_mut().filter(is_late).for_each(Asking::kill);
    }
}

/// Who is asked, and whether from within the pod's network namespace.
#[derive(Clone, Debug)]
struct Host {
    name: String,
    within: bool,
}

fn port(number: i64) -> Result<u16, String> {
    let fits = u16::try_from(number).ok().filter(|port| *port > 0);
    fits.ok_or_else(|| format!("invalid port number: {number}"))
}

fn probed(c: usize, inc: u32, kind: ProbeKind, outcome: Outcome) -> Fact {
    let (success, warned, output) = match outcome {
        Outcome::Success { output } => (true, false, output),
        Outcome::Warning { output } => (true, true, output),
        Outcome::Failure { output } => (false, false, output),
        Outcome::Error { message } => return Fact::ProbeErrored { c, inc, kind, message },
    };
    Fact::Probed { c, inc, kind, success, warned, output }
}
