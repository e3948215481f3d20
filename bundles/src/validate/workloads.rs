//! Deployments and Jobs: what surrounds their pods' template.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Errors, annotations, labels, names, pod};
use crate::manifest::is_empty_selector;
use crate::manifest::span::Path;

/// `ValidateDeployment`.
pub fn deployment(deployment: &Deployment, errors: &mut Errors) {
    let spec = &deployment.spec;
    let root = Path::default();
    annotations::on_workload(&deployment.metadata, &root.field("metadata"), errors);
    let path = root.field("spec");
    errors.not_negative(path.field("replicas"), spec.replicas);
    errors.not_negative(path.field("minReadySeconds"), spec.min_ready_seconds);
    errors.not_negative(path.field("revisionHistoryLimit"), spec.revision_history_limit);
    errors.not_negative(path.field("progressDeadlineSeconds"), spec.progress_deadline_seconds);
    let deadline = spec.progress_deadline_seconds.unwrap_or(600);
    if deadline <= spec.min_ready_seconds.unwrap_or(0) {
        let detail = "must be greater than minReadySeconds";
        errors.invalid_plain(path.field("progressDeadlineSeconds"), deadline, detail);
    }
    selector(spec, &path, errors);
    strategy(spec, &path.field("strategy"), errors);

    template(&spec.template, &path.field("template"), errors);
    let path = path.field("template.spec");
    let pod = spec.template.spec.as_ref();
    let policy = pod.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    // Anything else is said by the pod's own rule.
    if matches!(policy, "OnFailure" | "Never") {
        errors.one_of(path.field("restartPolicy"), policy, &["Always"]);
        help(errors, "a Deployment keeps its pods running; what ends is a Job");
    }
    if pod.is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.forbidden(path.field("activeDeadlineSeconds"), detail);
    }
}

fn help(errors: &mut Errors, text: &str) {
    if let Some(last) = errors.0.last_mut() {
        last.help = Some(text.into());
    }
}

fn template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let metadata = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    labels(&metadata, &path.field("metadata"), errors);
    annotations::on_pod(&metadata, &spec, &path.field("metadata"), errors);
    pod::spec(&spec, &path.field("spec"), errors);
}

fn selector(spec: &DeploymentSpec, path: &Path, errors: &mut Errors) {
    let selector = &spec.selector;
    if is_empty_selector(selector) {
        errors.required(path.field("selector")).help =
            Some("name the labels of the template: `selector: {matchLabels: {app: …}}`".into());
        return;
    }
    let before = errors.0.len();
    selector_rules(selector, &path.field("selector"), errors);
    let metadata = spec.template.metadata.as_ref();
    let labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    if errors.0.len() == before && !selects(selector, &labels) {
        let shown: Vec<String> = labels.iter().map(|(k, v)| format!("{k:?}:{v:?}")).collect();
        errors.invalid_plain(
            path.field("template.metadata.labels"),
            format!("{{{}}}", shown.join(", ")),
            "`selector` does not match template `labels`",
        );
        help(errors, "the template's labels must contain what the selector asks for");
    }
}

fn selector_rules(selector: &LabelSelector, path: &Path, errors: &mut Errors) {
    for (key, value) in selector.match_labels.iter().flatten() {
        let path = path.field("matchLabels").key(key);
        errors.name(path.clone(), key, names::qualified(key));
        errors.name(path, value, names::label_value(value));
    }
    for (i, term) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.field("matchExpressions").index(i);
        errors.name(path.field("key"), &term.key, names::qualified(&term.key));
        let has_values = term.values.as_ref().is_some_and(|values| !values.is_empty());
        match term.operator.as_str() {
            "In" | "NotIn" if !has_values => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required_because(path.field("values"), detail);
            }
            "Exists" | "DoesNotExist" if has_values => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(path.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let path = path.field("operator");
                errors.invalid(path, other, "not a valid selector operator");
            }
        }
    }
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut equal = selector.match_labels.iter().flatten();
    let mut terms = selector.match_expressions.iter().flatten();
    equal.all(|(key, value)| labels.get(key) == Some(value)) && terms.all(|t| holds(t, labels))
}

fn holds(term: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&term.key);
    let listed = || value.is_some_and(|v| term.values.iter().flatten().any(|listed| listed == v));
    match term.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        _ => value.is_none(),
    }
}

fn strategy(spec: &DeploymentSpec, path: &Path, errors: &mut Errors) {
    let Some(strategy) = &spec.strategy else { return };
    let kind = strategy.type_.as_deref().unwrap_or_default();
    errors.one_of(path.field("type"), kind, &["Recreate", "RollingUpdate"]);
    let Some(update) = &strategy.rolling_update else { return };
    let path = path.field("rollingUpdate");
    if kind == "Recreate" {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        errors.forbidden(path, detail);
        return;
    }
    pods_or_percent(path.field("maxSurge"), update.max_surge.as_ref(), None, errors);
    pods_or_percent(
        path.field("maxUnavailable"),
        update.max_unavailable.as_ref(),
        Some(100),
        errors,
    );
    let is_zero = |value: &Option<IntOrString>| match value {
        Some(IntOrString::Int(value)) => *value == 0,
        Some(IntOrString::String(text)) => text == "0%",
        None => false,
    };
    if is_zero(&update.max_unavailable) && is_zero(&update.max_surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.invalid_plain(path.field("maxUnavailable"), 0, detail);
    }
}

/// `ValidatePositiveIntOrPercent` and `IsNotMoreThan100Percent`.
fn pods_or_percent(
    path: Path,
    value: Option<&IntOrString>,
    most: Option<u32>,
    errors: &mut Errors,
) {
    match value {
        None => {}
        Some(IntOrString::Int(pods)) => errors.not_negative(path, Some(*pods)),
        Some(IntOrString::String(text)) => {
            let digits = text.strip_suffix('%').filter(|digits| {
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
            });
            match (digits.map(str::parse::<u32>), most) {
                (None | Some(Err(_)), _) => {
                    let detail = "a valid percent string must be a numeric string followed by an ending '%' \
                                  (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    errors.invalid(path, text, detail);
                }
                (Some(Ok(percent)), Some(most)) if percent > most => {
                    errors.invalid(path, text, "must not be greater than 100%");
                }
                _ => {}
            }
        }
    }
}

/// `ValidateJob`.
pub fn job(job: &Job, errors: &mut Errors) {
    let Some(spec) = &job.spec else { return };
    let root = Path::default();
    annotations::on_workload(&job.metadata, &root.field("metadata"), errors);
    let path = root.field("spec");
    for (field, value) in [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        errors.not_negative(path.field(field), value);
    }
    errors.not_negative(path.field("activeDeadlineSeconds"), spec.active_deadline_seconds);
    template(&spec.template, &path.field("template"), errors);
    let pod = spec.template.spec.as_ref();
    if pod.and_then(|spec| spec.restart_policy.as_deref()) == Some("Always") {
        let path = path.field("template.spec.restartPolicy");
        errors.required_because(path, "valid values: \"OnFailure\", \"Never\"");
        help(errors, "a Job's pods end: write `restartPolicy: Never` or `OnFailure`");
    }
}
