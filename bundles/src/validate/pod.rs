//! The rules of a pod's spec, wherever it stands: in a Pod or in a template.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

use super::{Errors, containers, names, security, volumes};
use crate::manifest::span::Path;

/// `ValidatePodSpec`.
pub fn spec(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    volumes::volumes(spec, path, errors);
    containers::mains(spec, path, errors);
    containers::inits(spec, path, errors);
    if let Some(policy) = &spec.restart_policy {
        let supported = ["Always", "OnFailure", "Never"];
        errors.one_of(path.field("restartPolicy"), policy, &supported);
    }
    dns(spec, path, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid_plain(path.field("activeDeadlineSeconds"), seconds, detail);
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.name(path.field(field), name, names::dns_label(name));
        }
    }
    if let Some(context) = &spec.security_context {
        security::pod(context, &path.field("securityContext"), errors);
    }
    security::sysctls(spec, path, errors);
    aliases(spec, path, errors);
}

/// `ValidateHostAliases`.
fn aliases(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.field("hostAliases").index(i);
        if alias.ip.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(path.field("ip"), &alias.ip, detail);
        }
        for (i, name) in alias.hostnames.iter().flatten().enumerate() {
            let faults = names::dns_subdomain(name);
            errors.name(path.field("hostnames").index(i), name, faults);
        }
    }
}

fn dns(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let policy = spec.dns_policy.as_deref().unwrap_or_default();
    let supported = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(path.field("dnsPolicy"), policy, &supported);
    let path = path.field("dnsConfig");
    let Some(config) = &spec.dns_config else {
        if policy == "None" {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.required_because(path, detail);
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let path = path.field("nameservers");
    if policy == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required_because(path.clone(), detail);
    }
    if servers.len() > 3 {
        let list = format!("[{}]", servers.join(" "));
        errors.invalid_plain(path.clone(), list, "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(path.index(i), server, detail);
        }
    }
}
