//! What a story asks and is answered, and how actions are told in it.

use std::fmt::Write as _;

use plan::{
    Action, ContainerState, ContainerStatus, Hook, PodStatus, Subject, deletion, exit_code, plan,
    status,
};

use super::teller::Teller;
use super::words::show_time;

/// An action in words, and which `tell` it needs to be told.
pub(super) fn action(teller: &Teller, action: &Action) -> (&'static str, String) {
    let one = |verb: &str, c: &usize, inc: &u32| format!("{verb} {}/{inc}", teller.name(*c));
    match action {
        Action::MakeSandbox => ("sandbox", "make sandbox".into()),
        Action::ResolveImage { c } => ("resolve", format!("resolve {}", teller.name(*c))),
        Action::Create { c, inc } => ("create", one("create", c, inc)),
        Action::Start { c, inc, restart_count } => {
            ("", format!("{} (restart {restart_count})", one("start", c, inc)))
        }
        Action::Probe { c, inc, kind, early, .. } => {
            let early = if *early { " early" } else { "" };
            let verb = format!("{} probe", format!("{kind:?}").to_lowercase());
            ("", format!("{}{early}", one(&verb, c, inc)))
        }
        Action::Hook { c, inc, hook } => {
            let verb = if *hook == Hook::PostStart { "postStart" } else { "preStop" };
            ("", one(verb, c, inc))
        }
        Action::RestartAll { c } => ("", format!("restart all for {}", teller.name(*c))),
        Action::Stop { c, inc, why, grace_s } => {
            ("", format!("{} {why:?} grace {grace_s}s", one("stop", c, inc)))
        }
        Action::End { why, grace_s } => ("", format!("end {why:?} grace {grace_s}s")),
        Action::Signal { c, inc } => ("", one("signal", c, inc)),
        Action::Kill { c, inc } => ("", one("kill", c, inc)),
        Action::Clean { c, inc } => ("clean", one("clean", c, inc)),
        Action::Teardown => ("", "teardown".into()),
    }
}

impl Teller {
    /// Answers a question.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["deletion"] => {
                self.say(deletion(&self.state).map_or("not deleted".into(), |d| {
                    let grace = d.deletion_grace_period_seconds;
                    format!("deleted by {}, grace {grace}s", clock(&d.deletion_timestamp))
                }));
            }
            ["status"] => self.show_status(),
            ["status", name] => self.show_container(name)?,
            ["conditions"] => self.show_conditions(),
            ["waiting"] => self.show_waiting(),
            ["events"] => self.show_events(),
            ["exit-code"] => self.say(format!("exit code {}", exit_code(&self.pod, &self.state))),
            _ => return Err(format!("nobody knows how to {}", words.join(" "))),
        }
        Ok(())
    }

    fn show_status(&mut self) {
        let status = status(&self.pod, &self.state, self.at());
        let reason = status.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
        self.say(format!("{:?}{reason}", status.phase));
        for one in all(status) {
            self.say(container(&one));
        }
    }

    fn show_container(&mut self, name: &str) -> Result<(), String> {
        let status = status(&self.pod, &self.state, self.at());
        let one = all(status).into_iter().find(|s| s.name == name);
        let one = one.ok_or_else(|| format!("the pod has no container {name}"))?;
        self.say(container(&one));
        Ok(())
    }

    fn show_conditions(&mut self) {
        for condition in status(&self.pod, &self.state, self.at()).conditions {
            let since = clock(&condition.last_transition_time);
            let mut text = format!("{} {} since {since}", condition.kind, condition.status);
            for more in [condition.reason.as_deref().map(str::to_owned), condition.message] {
                // Writing to a String cannot fail.
                let _ = more.map_or(Ok(()), |more| write!(text, " {more}"));
            }
            self.say(text);
        }
    }

    fn show_waiting(&mut self) {
        let plan = plan(&self.pod, &self.state, self.now);
        for waiting in plan.waiting {
            let who = match waiting.subject {
                Subject::Pod => "pod",
                Subject::Container(c) => self.name(c),
            };
            let since = waiting.since.map(|at| format!(", since {}", show_time(at)));
            let until = waiting.until.map(|at| format!(", until {}", show_time(at)));
            let (since, until) = (since.unwrap_or_default(), until.unwrap_or_default());
            self.say(format!("{who}: {}{since}{until}", waiting.reason));
        }
        let wake = plan.wake_at.map_or("never".into(), show_time);
        self.say(format!("wakes {wake}"));
    }

    fn show_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            let kind = if event.warning { "Warning" } else { "Normal" };
            let who = event.container.map_or("pod", |c| self.name(c)).to_owned();
            self.say(format!("{kind} {} {who}: {}", event.reason, event.message));
        }
    }
}

fn all(status: PodStatus) -> Vec<ContainerStatus> {
    status.init_container_statuses.into_iter().chain(status.container_statuses).collect()
}

/// The time of day of an RFC 3339 time.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

fn container(one: &ContainerStatus) -> String {
    let mut text = format!("{} {}", one.name, state(&one.state));
    if let Some(last) = &one.last_state {
        text.push_str(", before ");
        text.push_str(&state(last));
    }
    text.push_str(&format!(", restarts {}", one.restart_count));
    text.push_str(if one.started { ", started" } else { "" });
    text.push_str(if one.ready { ", ready" } else { "" });
    text
}

fn state(state: &ContainerState) -> String {
    let with = |message: &Option<String>| {
        message.as_ref().map(|m| format!(" \"{m}\"")).unwrap_or_default()
    };
    match state {
        ContainerState::Waiting { reason, message } => format!("waiting {reason}{}", with(message)),
        ContainerState::Running { .. } => "running".into(),
        ContainerState::Terminated { exit_code, reason, message, .. } => {
            format!("terminated {exit_code} {reason}{}", with(message))
        }
    }
}
