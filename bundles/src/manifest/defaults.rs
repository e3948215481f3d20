//! What the API server fills in where a manifest says nothing.
//!
//! `SetDefaults_*` of Kubernetes' `core/v1`, `apps/v1` and `batch/v1`, for the fields that decide
//! something here. `imagePullPolicy` is left out on purpose: an `Always` that was written asks the
//! registry at each start, one that follows from the tag only once, so whoever resolves images must
//! be able to tell them apart.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Pod, PodSpec, PodTemplateSpec, Probe, Secret,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Fills in a Pod.
pub fn pod(pod: &mut Pod) {
    metadata(&mut pod.metadata);
    spec(pod.spec.get_or_insert_default());
}

/// Fills in a Deployment and its template.
pub fn deployment(deployment: &mut Deployment) {
    metadata(&mut deployment.metadata);
    let spec = &mut deployment.spec;
    template(&mut spec.template);
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    strategy(spec.strategy.get_or_insert_default());
}

fn strategy(strategy: &mut DeploymentStrategy) {
    if or(&mut strategy.type_, "RollingUpdate") == "RollingUpdate" {
        let quarter = || IntOrString::String("25%".into());
        let update: &mut RollingUpdateDeployment = strategy.rolling_update.get_or_insert_default();
        update.max_unavailable.get_or_insert_with(quarter);
        update.max_surge.get_or_insert_with(quarter);
    }
}

/// Fills in a Job and its template. With only `parallelism` set, `completions` stays unset: any
/// success then completes the Job.
pub fn job(job: &mut Job) {
    metadata(&mut job.metadata);
    let spec = job.spec.get_or_insert_default();
    template(&mut spec.template);
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    if spec.backoff_limit.is_none() {
        spec.backoff_limit =
            Some(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    }
    or(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
}

/// Fills in a ConfigMap.
pub fn config_map(map: &mut ConfigMap) {
    metadata(&mut map.metadata);
}

/// Fills in a Secret. `stringData` is written into `data`, and wins there.
pub fn secret(secret: &mut Secret) {
    metadata(&mut secret.metadata);
    or(&mut secret.type_, "Opaque");
    for (key, text) in secret.string_data.take().into_iter().flatten() {
        let data = secret.data.get_or_insert_default();
        data.insert(key, ByteString(text.into_bytes()));
    }
}

/// The labels that a selector asks for, if it has nothing else.
pub fn is_empty_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn metadata(metadata: &mut ObjectMeta) {
    or(&mut metadata.namespace, "default");
}

fn template(template: &mut PodTemplateSpec) {
    spec(template.spec.get_or_insert_default());
}

fn spec(spec: &mut PodSpec) {
    or(&mut spec.restart_policy, "Always");
    or(&mut spec.dns_policy, "ClusterFirst");
    or(&mut spec.scheduler_name, "default-scheduler");
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    // A negative grace period is stored as 1 (validation of pods since 1.25).
    let grace = spec.termination_grace_period_seconds.get_or_insert(30);
    if *grace < 0 {
        *grace = 1;
    }
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        fill_container(container, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        let name = std::mem::take(&mut volume.name);
        if *volume == Default::default() {
            volume.empty_dir = Some(Default::default());
        }
        volume.name = name;
    }
}

fn fill_container(container: &mut Container, host_network: bool) {
    or(&mut container.termination_message_path, "/dev/termination-log");
    or(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        or(&mut port.protocol, "TCP");
        if host_network && port.host_port.is_none_or(|port| port == 0) {
            port.host_port = Some(port.container_port);
        }
    }
    for probe in [
        &mut container.startup_probe,
        &mut container.readiness_probe,
        &mut container.liveness_probe,
    ]
    .into_iter()
    .flatten()
    {
        fill_probe(probe);
    }
    for env in container.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
            or(&mut field.api_version, "v1");
        }
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

/// A zero is the same as nothing here, as it is in Go.
fn fill_probe(probe: &mut Probe) {
    for (field, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.is_none_or(|value| value == 0) {
            *field = Some(default);
        }
    }
}

fn or<'a>(field: &'a mut Option<String>, default: &str) -> &'a str {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.into());
    }
    field.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(json: serde_json::Value) -> Pod {
        let mut object: Pod = serde_json::from_value(json).unwrap();
        pod(&mut object);
        object
    }

    #[test]
    fn a_pod_gets_what_the_api_server_gives_it() {
        let pod = filled(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {
                "hostNetwork": true, "terminationGracePeriodSeconds": -5,
                "containers": [{
                    "name": "a", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "1"}},
                    "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 0}
                }],
                "volumes": [{"name": "v"}]
            }
        }));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        assert_eq!(spec.termination_grace_period_seconds, Some(1));
        assert_eq!(spec.dns_policy.as_deref(), Some("ClusterFirst"));
        assert!(spec.volumes.unwrap()[0].empty_dir.is_some());
        let container = &spec.containers[0];
        let port = &container.ports.as_ref().unwrap()[0];
        assert_eq!((port.host_port, port.protocol.as_deref()), (Some(80), Some("TCP")));
        let requests = container.resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(requests["cpu"].0, "1");
        let probe = container.startup_probe.as_ref().unwrap();
        assert_eq!((probe.period_seconds, probe.failure_threshold), (Some(10), Some(3)));
        assert_eq!(container.image_pull_policy, None, "the tag's default stays recognisable");
    }

    #[test]
    fn a_work_queue_job_has_no_completions() {
        let completions = |spec| {
            let json = serde_json::json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec});
            let mut object: Job = serde_json::from_value(json).unwrap();
            job(&mut object);
            let spec = object.spec.unwrap();
            (spec.parallelism, spec.completions, spec.backoff_limit)
        };
        assert_eq!(completions(serde_json::json!({})), (Some(1), Some(1), Some(6)));
        assert_eq!(completions(serde_json::json!({"parallelism": 3})), (Some(3), None, Some(6)));
    }
}
