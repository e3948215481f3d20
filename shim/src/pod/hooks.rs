//! Hooks: what a manifest wants done right after a container was started, and before it is stopped.

use std::os::fd::OwnedFd;

use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};
use plan::{Fact, Hook, Mono};
use runtime::exec::ExecIo;
use runtime::probe::{Outcome, legible};

use super::execs::{Purpose, Running};
use super::machine::Machine;
use super::probes::read_output;

/// A hook's program under way.
#[derive(Debug)]
pub struct HookProgram {
    hook: Hook,
    output: Vec<u8>,
}

impl HookProgram {
    /// Reads what the program said; `true` at the end.
    pub(super) fn read(&mut self, output: &OwnedFd) -> bool {
        read_output(output, &mut self.output)
    }
}

/// A hook that only waits.
#[derive(Debug)]
pub struct Sleeping {
    pub(super) c: usize,
    pub(super) inc: u32,
    hook: Hook,
    pub(super) until: Mono,
}

impl Machine {
    pub(super) fn hook(&mut self, c: usize, inc: u32, hook: Hook) {
        self.record(Fact::HookRunning { c, inc, hook });
        if let Err(failure) = self.begin_hook(c, inc, hook) {
            self.hook_ended(c, inc, hook, Some(failure));
        }
    }

    /// One that was under way when the shim before this one died, since `begun`.
    pub(super) fn hook_again(&mut self, c: usize, inc: u32, hook: Hook, begun: Mono) {
        let sleep = self.handler(c, inc, hook).and_then(|handler| handler.sleep);
        if let Some(sleep) = sleep {
            let until = begun.plus_s(u32::try_from(sleep.seconds).unwrap_or(0));
            self.sleeping.push(Sleeping { c, inc, hook, until });
        } else if let Err(failure) = self.begin_hook(c, inc, hook) {
            self.hook_ended(c, inc, hook, Some(failure));
        }
    }

    fn begin_hook(&mut self, c: usize, inc: u32, hook: Hook) -> Result<(), String> {
        let handler = self.handler(c, inc, hook).ok_or("the container has no such hook")?;
        if let Some(exec) = &handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            let name = match hook {
                Hook::PostStart => "post-start-hook",
                Hook::PreStop => "pre-stop-hook",
            };
            let purpose = Purpose::Hook(HookProgram { hook, output: Vec::new() });
            return self
                .run_in(c, inc, name.into(), &command, &ExecIo::Captured, purpose)
                .map_err(|why| self.failed_command(c, &command, &why, ""));
        }
        if let Some(sleep) = &handler.sleep {
            let seconds = u32::try_from(sleep.seconds).unwrap_or(0);
            let until = runtime::clock::mono().plus_s(seconds);
            self.sleeping.push(Sleeping { c, inc, hook, until });
            return Ok(());
        }
        if let Some(action) = &handler.http_get {
            return self
                .ask_for_hook(c, inc, hook, action)
                .map_err(|why| self.failed_request(c, action, &why));
        }
        // Kubernetes accepts a tcpSocket as well, and fails it here.
        Err("invalid handler: a hook is an exec, httpGet or sleep".into())
    }

    fn handler(&self, c: usize, inc: u32, hook: Hook) -> Option<LifecycleHandler> {
        let lifecycle = self.container_of(c, inc)?.lifecycle.as_ref()?;
        match hook {
            Hook::PostStart => lifecycle.post_start.clone(),
            Hook::PreStop => lifecycle.pre_stop.clone(),
        }
    }

    fn hook_ended(&mut self, c: usize, inc: u32, hook: Hook, failure: Option<String>) {
        self.record(Fact::HookEnded { c, inc, hook, failure, notice: None });
    }

    /// A hook's program has ended.
    pub(super) fn finish_hook(&mut self, running: Running) {
        let Running { c, inc, failed, ended, purpose, .. } = running;
        let Purpose::Hook(HookProgram { hook, output }) = purpose else { return };
        let why = match (failed, ended) {
            (Some(failure), _) => Some(failure.message),
            (None, Some(exit)) if exit.code == 0 => None,
            (None, Some(exit)) => Some(format!("exited with {}", exit.code)),
            (None, None) => Some("the container ended before the hook ran".into()),
        };
        let failure = why.map(|why| {
            let exec = self.handler(c, inc, hook).and_then(|handler| handler.exec);
            let command = exec.and_then(|exec| exec.command).unwrap_or_default();
            self.failed_command(c, &command, &why, &legible(&output))
        });
        self.hook_ended(c, inc, hook, failure);
    }

    /// A kubelet's words for a hook's program that failed (pkg/kubelet/lifecycle, handlers.go).
    fn failed_command(&self, c: usize, command: &[String], why: &str, said: &str) -> String {
        let pod = &self.pod;
        format!(
            "Exec lifecycle hook ([{}]) for Container {:?} in Pod \"{}_{}({})\" failed - error: \
             command '{}' {why}, message: {said:?}",
            command.join(" "),
            pod.containers[c].name,
            pod.name,
            pod.namespace,
            pod.uid,
            command.join(" "),
        )
    }

    /// A hook's request has been answered, or will not be.
    pub(super) fn finish_request_of_hook(
        &mut self,
        c: usize,
        inc: u32,
        hook: Hook,
        outcome: Outcome,
    ) {
        let action = self.handler(c, inc, hook).and_then(|handler| handler.http_get);
        let action = action.unwrap_or_default();
        let (failure, notice) = match outcome {
            Outcome::Success { .. } => (None, None),
            Outcome::Warning { output } => (None, Some(output)),
            Outcome::Failure { output: why } | Outcome::Error { message: why } => {
                (Some(self.failed_request(c, &action, &why)), None)
            }
        };
        self.record(Fact::HookEnded { c, inc, hook, failure, notice });
    }

    fn failed_request(&self, c: usize, action: &HTTPGetAction, why: &str) -> String {
        let pod = &self.pod;
        format!(
            "HTTP lifecycle hook ({}) for Container {:?} in Pod \"{}_{}({})\" failed - error: {why}",
            action.path.as_deref().unwrap_or("/"),
            pod.containers[c].name,
            pod.name,
            pod.namespace,
            pod.uid,
        )
    }

    /// Ends the hooks that have slept long enough.
    pub(super) fn end_sleeps(&mut self, now: Mono) {
        let (over, rest) =
            std::mem::take(&mut self.sleeping).into_iter().partition(|s| s.until <= now);
        self.sleeping = rest;
        let over: Vec<Sleeping> = over;
        for Sleeping { c, inc, hook, .. } in over {
            self.hook_ended(c, inc, hook, None);
        }
    }
}
