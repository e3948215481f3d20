//! The rules of containers, and those that differ between inits, sidecars and mains.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, PodSpec, ResourceFieldSelector,
    ResourceRequirements,
};

use super::{Errors, names, probes, security, volumes};
use crate::manifest::span::Path;
use crate::quantity::Quantity;
use crate::schema::nearest;

/// `validateInitContainers`: names are also compared with those of the mains.
pub fn inits(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut taken: BTreeSet<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = path.field("initContainers").index(i);
        container_rules(container, spec, &path, errors);
        if !container.name.is_empty() && !taken.insert(&container.name) {
            errors.duplicate(path.field("name"), &container.name);
        }
        host_ports(&mut BTreeSet::new(), container, &path, errors);
        let policy = container.restart_policy.as_deref();
        if policy == Some("Always") {
            probes::of(container, spec, &path, errors);
        }
        restart_rules(container, &path, errors);
        if policy != Some("Always") {
            only_sidecars(container, &path, errors);
        }
    }
}

/// What runs to completion is not probed and has no hooks.
fn only_sidecars(container: &Container, path: &Path, errors: &mut Errors) {
    for (field, set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if set {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.forbidden(path.field(field), detail).help =
                Some("write `restartPolicy: Always` if this is a sidecar".into());
        }
    }
}

/// `validateContainers`.
pub fn mains(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.containers.is_empty() {
        errors.required(path.field("containers"));
    }
    let mut taken = BTreeSet::new();
    let mut host = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let path = path.field("containers").index(i);
        container_rules(container, spec, &path, errors);
        if !container.name.is_empty() && !taken.insert(container.name.as_str()) {
            errors.duplicate(path.field("name"), &container.name);
        }
        host_ports(&mut host, container, &path, errors);
        restart_rules(container, &path, errors);
        if spec.host_network == Some(true) {
            host_network(container, &path, errors);
        }
        probes::of(container, spec, &path, errors);
    }
}

/// `validateContainerRestartPolicy`: a container's own policy, and its rules.
fn restart_rules(container: &Container, path: &Path, errors: &mut Errors) {
    const RULES_MAX: usize = 20;
    const CODES_MAX: usize = 255;
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match container.restart_policy.as_deref() {
        Some(policy) => {
            let supported = ["Always", "Never", "OnFailure"];
            errors.one_of(path.field("restartPolicy"), policy, &supported);
        }
        None if !rules.is_empty() => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.required_because(path.field("restartPolicy"), detail);
        }
        None => {}
    }
    let path = path.field("restartPolicyRules");
    if rules.len() > RULES_MAX {
        errors.too_many(path.clone(), rules.len(), RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate().take(RULES_MAX) {
        let path = path.index(i);
        errors.one_of(path.field("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let Some(codes) = &rule.exit_codes else {
            errors.required_because(path.field("exitCodes"), "must be specified");
            continue;
        };
        let path = path.field("exitCodes");
        errors.one_of(path.field("operator"), &codes.operator, &["In", "NotIn"]);
        let values = codes.values.as_deref().unwrap_or_default();
        if values.len() > CODES_MAX {
            errors.too_many(path.field("values"), values.len(), CODES_MAX);
        }
        for (n, value) in values.iter().enumerate().take(CODES_MAX) {
            if !(0..=255).contains(value) {
                let detail = "must be between 0 and 255, inclusive";
                errors.invalid_plain(path.field("values").index(n), *value, detail);
            }
        }
    }
}

/// `validateResizePolicy`.
fn resize_policy(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    const POLICIES_MAX: usize = 2;
    let mut taken = BTreeSet::new();
    let policies = container.resize_policy.iter().flatten().enumerate();
    for (i, policy) in policies.take(POLICIES_MAX + 1) {
        let path = path.field("resizePolicy").index(i);
        errors.one_of(path.field("resourceName"), &policy.resource_name, &["cpu", "memory"]);
        if !taken.insert(policy.resource_name.as_str()) {
            errors.duplicate(path.field("resourceName"), &policy.resource_name);
        }
        let supported = ["NotRequired", "RestartContainer"];
        errors.one_of(path.field("restartPolicy"), &policy.restart_policy, &supported);
        let restarts = policy.restart_policy == "RestartContainer";
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        if restarts && !is_sidecar && spec.restart_policy.as_deref() == Some("Never") {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(path.field("restartPolicy"), &policy.restart_policy, detail);
        }
    }
}

fn container_rules(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.required(path.field("name"));
    } else {
        errors.name(path.field("name"), &container.name, names::dns_label(&container.name));
    }
    match container.image.as_deref().unwrap_or_default() {
        "" => {
            errors.required(path.field("image"));
        }
        image if image.trim() != image => {
            let detail = "must not have leading or trailing whitespace";
            errors.invalid(path.field("image"), image, detail);
        }
        _ => {}
    }
    if let Some(policy) = container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty())
    {
        let supported = ["Always", "IfNotPresent", "Never"];
        errors.one_of(path.field("imagePullPolicy"), policy, &supported);
    }
    resize_policy(container, spec, path, errors);
    if let Some(policy) = &container.termination_message_policy {
        let supported = ["FallbackToLogsOnError", "File"];
        errors.one_of(path.field("terminationMessagePolicy"), policy, &supported);
    }
    ports(container, path, errors);
    env(container.env.as_deref().unwrap_or_default(), spec, path, errors);
    env_from(container.env_from.as_deref().unwrap_or_default(), path, errors);
    volumes::mounts(container, spec, path, errors);
    if let Some(resources) = &container.resources {
        resource_rules(resources, &path.field("resources"), errors);
    }
    security::container(container, path, errors);
}

fn ports(container: &Container, path: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let path = path.field("ports").index(i);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            errors.name(path.field("name"), name, names::port(name));
            if names::port(name).is_empty() && !taken.insert(name) {
                errors.duplicate(path.field("name"), name);
            }
        }
        let range = "must be between 1 and 65535, inclusive";
        match port.container_port {
            0 => {
                errors.required(path.field("containerPort"));
            }
            1..=65535 => {}
            other => errors.invalid_plain(path.field("containerPort"), other, range),
        }
        if let Some(host) = port.host_port.filter(|port| !(0..=65535).contains(port)) {
            errors.invalid_plain(path.field("hostPort"), host, range);
        }
        if let Some(protocol) = &port.protocol {
            errors.one_of(path.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// `checkHostPortConflicts`: one port of the host cannot be given twice.
fn host_ports(
    taken: &mut BTreeSet<String>,
    container: &Container,
    path: &Path,
    errors: &mut Errors,
) {
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let Some(host) = port.host_port.filter(|port| *port != 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let key = format!("{protocol}/{}/{host}", port.host_ip.as_deref().unwrap_or_default());
        if taken.contains(&key) {
            errors.duplicate(path.field("ports").index(i).field("hostPort"), &key);
        }
        taken.insert(key);
    }
}

fn host_network(container: &Container, path: &Path, errors: &mut Errors) {
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let host = port.host_port.unwrap_or_default();
        if host != port.container_port {
            let path = path.field("ports").index(i).field("hostPort");
            let detail = "must match `containerPort` when `hostNetwork` is true";
            errors.invalid_plain(path, host, detail);
        }
    }
}

fn env(vars: &[EnvVar], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.field("env").index(i);
        if var.name.is_empty() {
            errors.required(path.field("name"));
        } else {
            errors.name(path.field("name"), &var.name, names::env_var(&var.name));
        }
        if let Some(from) = &var.value_from {
            let has_value = var.value.as_ref().is_some_and(|value| !value.is_empty());
            value_from(from, has_value, spec, &path.field("valueFrom"), errors);
        }
    }
}

/// `ValidateEnvFrom`.
fn env_from(sources: &[EnvFromSource], path: &Path, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let path = path.field("envFrom").index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            errors.name(path.field("prefix"), prefix, names::env_var(prefix));
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (Some(_), Some(_)) => {
                errors.invalid(path, "", "may not have more than one field specified at a time");
            }
            (None, None) => {
                errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(map), None) if map.name.is_empty() => {
                errors.required(path.field("configMapRef.name"));
            }
            (None, Some(secret)) if secret.name.is_empty() => {
                errors.required(path.field("secretRef.name"));
            }
            _ => {}
        }
    }
}

/// `validateContainerResourceFieldSelector`. In a volume (`in_volume`) the container must be named.
pub fn resource_field(
    selector: &ResourceFieldSelector,
    spec: &PodSpec,
    in_volume: bool,
    path: &Path,
    errors: &mut Errors,
) {
    const KNOWN: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None if in_volume => {
            errors.required(path.field("containerName"));
        }
        Some(name) if !crate::resources::all_containers(spec).any(|c| c.name == name) => {
            errors.not_found(path.field("containerName"), name);
        }
        _ => {}
    }
    match selector.resource.as_str() {
        "" => {
            errors.required(path.field("resource"));
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            let message = "not supported yet: the use of disk space is not limited";
            errors.push(path.field("resource"), message.into());
        }
        other => errors.one_of(path.field("resource"), other, &KNOWN),
    }
    let Some(divisor) = selector.divisor.as_ref().filter(|d| !matches!(d.0.as_str(), "" | "0"))
    else {
        return;
    };
    let allowed: &[&str] = match selector.resource.rsplit('.').next() {
        Some("cpu") => &["1m", "1"],
        _ => &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
    };
    let value = divisor.0.parse::<Quantity>().ok();
    if !allowed.iter().any(|text| text.parse::<Quantity>().ok() == value) {
        let detail = format!("only divisor's values {} are supported", allowed.join(", "));
        errors.invalid(path.field("divisor"), &divisor.0, detail);
    }
}

fn value_from(
    from: &EnvVarSource,
    has_value: bool,
    spec: &PodSpec,
    path: &Path,
    errors: &mut Errors,
) {
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    let detail = match sources.into_iter().filter(|set| *set).count() {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => "",
        _ => "may not have more than one field specified at a time",
    };
    if !detail.is_empty() {
        errors.invalid(path.clone(), "", detail);
    }
    for (field, source) in [
        ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|s| (&s.name, &s.key))),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|s| (&s.name, &s.key))),
    ] {
        let (Some((name, key)), path) = (source, path.field(field)) else { continue };
        if name.is_empty() {
            errors.required(path.field("name"));
        }
        if key.is_empty() {
            errors.required(path.field("key"));
        } else {
            errors.name(path.field("key"), key, names::config_key(key));
        }
    }
    if let Some(resource) = &from.resource_field_ref {
        resource_field(resource, spec, false, &path.field("resourceFieldRef"), errors);
    }
    if let Some(field) = &from.field_ref {
        field_path(&field.field_path, &FIELD_PATHS, &path.field("fieldRef"), errors);
        let version = field.api_version.as_deref().unwrap_or("v1");
        if version != "v1" {
            let detail = "only v1 is known";
            errors.invalid(path.field("fieldRef.apiVersion"), version, detail);
        }
    }
}

/// What environment variables may name, in the order of the API server's message.
const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What files of a volume may name.
pub const VOLUME_FIELD_PATHS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Fields that the downward API knows and environment variables may not name.
const ELSEWHERE: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];

/// `validateObjectFieldSelector`: `known` is what may be named in this place.
pub fn field_path(field: &str, known: &[&str], path: &Path, errors: &mut Errors) {
    let path = path.field("fieldPath");
    if field.is_empty() {
        errors.required(path);
    } else if let Some((map, key)) = subscript(field) {
        if !["metadata.annotations", "metadata.labels"].contains(&map) {
            let detail = "does not support subscript";
            errors.invalid(path, field, detail);
        } else if !names::qualified(&key.to_lowercase()).is_empty() {
            errors.name(path, key, names::qualified(&key.to_lowercase()));
        }
    } else if known.contains(&field) {
    } else if ELSEWHERE.contains(&field) || FIELD_PATHS.contains(&field) {
        errors.one_of(path, field, known);
    } else {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        let meant = nearest(field, known.iter().copied());
        errors.invalid(path, field, detail).help = Some(match meant {
            Some(near) => format!("did you mean {near}?"),
            None => format!("one of {} or metadata.labels['KEY']", known.join(", ")),
        });
    }
}

/// `metadata.labels['app']` as its two parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['")
}

fn resource_rules(resources: &ResourceRequirements, path: &Path, errors: &mut Errors) {
    for (field, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, quantity) in list.iter().flatten() {
            let path = path.field(field).key(name);
            resource_name(name, &path, errors);
            if quantity.0.parse::<Quantity>().is_ok_and(Quantity::is_negative) {
                errors.invalid(path, &quantity.0, "must be greater than or equal to 0");
            }
        }
    }
    for (name, request) in resources.requests.iter().flatten() {
        let Some(limit) = resources.limits.as_ref().and_then(|limits| limits.get(name)) else {
            continue;
        };
        if let (Ok(asked), Ok(most)) = (request.0.parse::<Quantity>(), limit.0.parse::<Quantity>())
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
            errors.invalid(path.field("requests").key(name), &request.0, detail);
        }
    }
}

fn resource_name(name: &str, path: &Path, errors: &mut Errors) {
    let standard = ["cpu", "memory", "ephemeral-storage"];
    if standard.contains(&name) || name.starts_with("hugepages-") {
        return;
    }
    if name.contains('/') {
        errors.name(path.clone(), name, names::qualified(name));
        return;
    }
    let meant = nearest(name, standard);
    errors.invalid(path.clone(), name, "must be a standard resource for containers").help =
        meant.map(|near| format!("did you mean {near}?"));
}
