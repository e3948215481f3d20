//! From the Kubernetes object to the pod as the heart knows it.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec, Probe};

use super::file::{PodFile, PullOverride};

/// The annotation that names containers with a standing spare.
pub const STANDBY: &str = "podshim.dev/standby";

/// The annotation that turns early attempts of probes off, with the value `false`.
pub const BURST: &str = "podshim.dev/burst";

/// All containers of a pod, inits first: the order of every index in facts and actions.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Compiles the pod of a file that has been validated.
pub fn compile(file: &PodFile) -> plan::Pod {
    let meta = &file.pod.metadata;
    let spec = file.pod.spec.clone().unwrap_or_default();
    let inits = spec.init_containers.as_ref().map_or(0, Vec::len);
    let kind = |index: usize, c: &Container| match (index < inits, c.restart_policy.as_deref()) {
        (false, _) => plan::Kind::Main,
        (true, Some("Always")) => plan::Kind::Sidecar,
        (true, _) => plan::Kind::Init,
    };
    let standby = named(&file.pod, STANDBY);
    let burst = annotation(&file.pod, BURST) != Some("false");
    let containers = containers(&spec)
        .enumerate()
        .map(|(index, c)| plan::Container {
            pull: pull_when(file, index),
            policy: own_policy(kind(index, c), c),
            rules: c.restart_policy_rules.iter().flatten().map(rule).collect(),
            startup: c.startup_probe.as_ref().map(|p| probe(p, burst)),
            readiness: c.readiness_probe.as_ref().map(|p| probe(p, burst)),
            liveness: c.liveness_probe.as_ref().map(|p| probe(p, burst)),
            post_start: c.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()),
            pre_stop: c.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some()),
            notify: bundles::notify::is_expected(&file.pod, &c.name),
            standby: standby.contains(&c.name.as_str()),
            at_start: file.at_start.contains(&index),
            ..plan::Container::new(&c.name, kind(index, c), c.image.as_deref().unwrap_or_default())
        })
        .collect();
    plan::Pod {
        namespace: meta.namespace.clone().unwrap_or_else(|| "default".into()),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        restart_policy: policy(spec.restart_policy.as_deref().unwrap_or_default()),
        grace_s: grace(spec.termination_grace_period_seconds),
        active_deadline_s: spec.active_deadline_seconds.map(seconds),
        restart_delay_max_s: file.restart_delay_max_s.unwrap_or(plan::RESTART_DELAY_MAX_S),
        gates: spec.readiness_gates.iter().flatten().map(|g| g.condition_type.clone()).collect(),
        containers,
    }
}

fn policy(text: &str) -> plan::RestartPolicy {
    match text {
        "Never" => plan::RestartPolicy::Never,
        "OnFailure" => plan::RestartPolicy::OnFailure,
        _ => plan::RestartPolicy::Always,
    }
}

/// A sidecar's `Always` is what makes it one, and no policy besides.
fn own_policy(kind: plan::Kind, c: &Container) -> Option<plan::RestartPolicy> {
    let written = c.restart_policy.as_deref().filter(|_| kind != plan::Kind::Sidecar);
    written.map(policy)
}

fn rule(rule: &ContainerRestartRule) -> plan::Rule {
    let codes = rule.exit_codes.as_ref();
    plan::Rule {
        action: match rule.action.as_str() {
            "RestartAllContainers" => plan::RuleAction::RestartAllContainers,
            _ => plan::RuleAction::Restart,
        },
        within: codes.is_some_and(|codes| codes.operator == "In"),
        codes: codes.and_then(|codes| codes.values.clone()).unwrap_or_default(),
    }
}

/// A negative grace period is treated as 1 (Kubernetes' validation keeps it out of new objects).
fn grace(asked: Option<i64>) -> u32 {
    match asked {
        Some(negative) if negative < 0 => 1,
        Some(s) => seconds(s),
        None => 30,
    }
}

fn seconds(s: i64) -> u32 {
    u32::try_from(s).unwrap_or(if s < 0 { 0 } else { u32::MAX })
}

fn probe(probe: &Probe, burst: bool) -> plan::Probe {
    let field = |value: Option<i32>, default: u32| match value {
        Some(v) if v > 0 => v.unsigned_abs(),
        _ => default,
    };
    plan::Probe {
        initial_delay_s: field(probe.initial_delay_seconds, 0),
        period_s: field(probe.period_seconds, 10),
        timeout_s: field(probe.timeout_seconds, 1),
        failure_threshold: field(probe.failure_threshold, 3),
        success_threshold: field(probe.success_threshold, 1),
        burst,
        grace_s: probe.termination_grace_period_seconds.map(seconds),
    }
}

fn pull_when(file: &PodFile, index: usize) -> plan::PullWhen {
    let each = match file.pull {
        Some(PullOverride::Always) => true,
        Some(_) => false,
        None => file.always_written.contains(&index),
    };
    if each { plan::PullWhen::EachStart } else { plan::PullWhen::Once }
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The containers that an annotation names.
fn named<'a>(pod: &'a Pod, key: &str) -> Vec<&'a str> {
    let list = annotation(pod, key).into_iter();
    list.flat_map(|list| list.split(',')).map(str::trim).collect()
}
