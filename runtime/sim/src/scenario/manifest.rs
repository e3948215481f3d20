//! A scenario as a manifest: containers are shell scripts that do what it says, so that the real shim and
//! the real kernel can be asked.

use std::fmt::Write;

use plan::{Hook, Kind, Probe, ProbeKind, RestartPolicy, RuleAction};

use super::{Behaviour, Life, Scenario};

/// Where containers count their incarnations and a probe its attempts.
const COUNTS: &str = "/scenario";

impl Scenario {
    /// The manifest, in YAML. `image` has a shell.
    #[must_use]
    pub fn manifest(&self, image: &str) -> String {
        let pod = &self.pod;
        let mut out = String::new();
        let mut line = |text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{text}");
        };
        line("apiVersion: v1\nkind: Pod".into());
        let names = |is: &dyn Fn(&plan::Container) -> bool| {
            let chosen = pod.containers.iter().filter(|c| is(c)).map(|c| c.name.as_str());
            chosen.collect::<Vec<_>>().join(",")
        };
        let bursts = pod.containers.iter().flat_map(probes).any(|(_, probe)| probe.burst);
        line(format!("metadata:\n  name: {}\n  annotations:", pod.name));
        line(format!("    podshim.dev/burst: \"{bursts}\""));
        let standby = names(&|c| c.standby);
        if !standby.is_empty() {
            line(format!("    podshim.dev/standby: \"{standby}\""));
        }
        line("spec:".into());
        line(format!("  restartPolicy: {}", policy(pod.restart_policy)));
        line(format!("  terminationGracePeriodSeconds: {}", pod.grace_s));
        if let Some(deadline) = pod.active_deadline_s {
            line(format!("  activeDeadlineSeconds: {deadline}"));
        }
        line("  volumes: [{name: scenario, emptyDir: {medium: Memory}}]".into());
        let of_kind = |mains: bool| {
            let all = pod.containers.iter().enumerate();
            all.filter(move |(_, c)| (c.kind == Kind::Main) == mains)
        };
        if of_kind(false).next().is_some() {
            line("  initContainers:".into());
        }
        of_kind(false).for_each(|(c, _)| line(self.container(c, image)));
        line("  containers:".into());
        of_kind(true).for_each(|(c, _)| line(self.container(c, image)));
        out
    }

    fn container(&self, c: usize, image: &str) -> String {
        let container = &self.pod.containers[c];
        let behaviour = self.behaviour(c);
        let mut lines = vec![
            format!("  - name: {}", container.name),
            format!("    image: {image}"),
            format!("    command: [sh, -c, {}]", quoted(&behaviour.script(&container.name))),
            format!("    volumeMounts: [{{name: scenario, mountPath: {COUNTS}}}]"),
        ];
        match (container.kind, container.policy) {
            (Kind::Sidecar, _) => lines.push("    restartPolicy: Always".into()),
            (_, Some(own)) => lines.push(format!("    restartPolicy: {}", policy(own))),
            (_, None) => {}
        }
        if !container.rules.is_empty() {
            lines.push("    restartPolicyRules:".into());
        }
        lines.extend(container.rules.iter().map(|rule| {
            let action = match rule.action {
                RuleAction::Restart => "Restart",
                RuleAction::RestartAllContainers => "RestartAllContainers",
            };
            let operator = if rule.within { "In" } else { "NotIn" };
            let codes = &rule.codes;
            format!(
                "    - {{action: {action}, exitCodes: {{operator: {operator}, values: {codes:?}}}}}"
            )
        }));
        lines.extend(probes(container).map(|(kind, probe)| self.probe(c, kind, probe)));
        let hooks: Vec<String> = [Hook::PostStart, Hook::PreStop]
            .into_iter()
            .filter(|hook| match hook {
                Hook::PostStart => container.post_start,
                Hook::PreStop => container.pre_stop,
            })
            .map(|hook| behaviour.hook(hook))
            .collect();
        if !hooks.is_empty() {
            lines.push("    lifecycle:".into());
        }
        lines.extend(hooks);
        lines.join("\n")
    }

    /// A probe counts its attempts in the container's own file system, so each incarnation's anew.
    fn probe(&self, c: usize, kind: ProbeKind, probe: &Probe) -> String {
        let word = format!("{kind:?}").to_lowercase();
        let (first, first_succeed) = match self.behaviour(c).probes.get(&kind) {
            Some(answers) => (answers.first, answers.first_succeed),
            None => (u32::MAX, true),
        };
        let count = format!("/tmp/{word}");
        let test = if first_succeed { "-lt" } else { "-ge" };
        let script = format!(
            "n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}; [ $n {test} {first} ]"
        );
        let mut fields = vec![
            format!("initialDelaySeconds: {}", probe.initial_delay_s),
            format!("periodSeconds: {}", probe.period_s),
            format!("timeoutSeconds: {}", probe.timeout_s),
            format!("failureThreshold: {}", probe.failure_threshold),
            format!("successThreshold: {}", probe.success_threshold),
        ];
        fields.extend(probe.grace_s.map(|s| format!("terminationGracePeriodSeconds: {s}")));
        fields.push(format!("exec: {{command: [sh, -c, {}]}}", quoted(&script)));
        format!("    {word}Probe: {{{}}}", fields.join(", "))
    }
}

impl Behaviour {
    fn script(&self, name: &str) -> String {
        let count = format!("{COUNTS}/{name}");
        let trap = if self.ignores_signal { "trap '' TERM" } else { "trap 'exit 143' TERM" };
        let mut cases = String::new();
        let last = self.lives.len().saturating_sub(1);
        for (inc, life) in self.lives.iter().enumerate() {
            let pattern = if inc == last { "*".to_owned() } else { inc.to_string() };
            let _ = write!(cases, "{pattern}) {};; ", does(*life));
        }
        if self.lives.is_empty() {
            let _ = write!(cases, "*) {};; ", does(Life::Runs));
        }
        format!(
            "{trap}; n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}; \
             case $n in {cases}esac"
        )
    }

    fn hook(&self, hook: Hook) -> String {
        let field = match hook {
            Hook::PostStart => "postStart",
            Hook::PreStop => "preStop",
        };
        let run = self.hooks.get(&hook);
        let takes = seconds(run.map_or(0, |run| run.takes_ms));
        let code = u8::from(run.is_some_and(|run| run.fails));
        let script = format!("sleep {takes}; exit {code}");
        format!("      {field}: {{exec: {{command: [sh, -c, {}]}}}}", quoted(&script))
    }
}

/// A shell that sleeps hears its signal only afterwards, so it waits for a sleeping child instead.
fn does(life: Life) -> String {
    match life {
        Life::Runs => "while :; do sleep 1000 & wait; done".into(),
        Life::Exits { code, after_ms } => {
            format!("sleep {} & wait $!; exit {code}", seconds(after_ms))
        }
    }
}

fn probes(container: &plan::Container) -> impl Iterator<Item = (ProbeKind, &Probe)> {
    let kinds = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];
    kinds.into_iter().filter_map(|kind| Some((kind, container.probe(kind)?)))
}

fn policy(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Always => "Always",
        RestartPolicy::OnFailure => "OnFailure",
        RestartPolicy::Never => "Never",
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// In YAML's double quotes; what is quoted has neither control characters nor backslashes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}
