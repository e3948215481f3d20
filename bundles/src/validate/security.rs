//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use super::Errors;
use crate::manifest::span::Path;
use crate::sysctl;

/// `validatePodSecurityContext`.
pub fn pod(context: &PodSecurityContext, path: &Path, errors: &mut Errors) {
    id(context.run_as_user, path.field("runAsUser"), errors);
    id(context.run_as_group, path.field("runAsGroup"), errors);
    id(context.fs_group, path.field("fsGroup"), errors);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), path.field("supplementalGroups").index(i), errors);
    }
    seccomp(context.seccomp_profile.as_ref(), path, errors);
}

/// `validateSysctls`, and that each is confined to a namespace that the pod has for itself.
pub fn sysctls(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let context = spec.security_context.as_ref();
    let mut taken = BTreeSet::new();
    for (i, asked) in context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten().enumerate() {
        let path = path.field("securityContext.sysctls").index(i).field("name");
        let name = sysctl::normalized(&asked.name);
        let is_part = |part: &str| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(inner)
                && part.ends_with(inner)
                && part.chars().all(|c| inner(c) || "-_/".contains(c))
        };
        if asked.name.is_empty() {
            errors.required(path);
        } else if asked.name.len() > 253 || !name.split('.').all(is_part) {
            let detail = "must be the name of a kernel parameter, like net.ipv4.tcp_syncookies";
            errors.invalid(path, &asked.name, detail);
        } else if !taken.insert(name) {
            errors.duplicate(path, &asked.name);
        } else {
            let detail = match sysctl::namespace(&asked.name) {
                None => "it is the whole host's, and no pod can have its own",
                Some(sysctl::Namespace::Net) if spec.host_network == Some(true) => {
                    "it cannot be set with `hostNetwork: true`"
                }
                Some(sysctl::Namespace::Ipc) if spec.host_ipc == Some(true) => {
                    "it cannot be set with `hostIPC: true`"
                }
                Some(_) => continue,
            };
            errors.forbidden(path, detail);
        }
    }
}

/// `ValidateSecurityContext`.
pub fn container(container: &Container, path: &Path, errors: &mut Errors) {
    let Some(context) = &container.security_context else { return };
    let path = path.field("securityContext");
    id(context.run_as_user, path.field("runAsUser"), errors);
    id(context.run_as_group, path.field("runAsGroup"), errors);
    seccomp(context.seccomp_profile.as_ref(), &path, errors);
    escalation(context, &path, errors);
}

/// What gives privileges cannot be combined with what forbids to gain them.
fn escalation(context: &SecurityContext, path: &Path, errors: &mut Errors) {
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    let detail = if context.privileged == Some(true) {
        "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
    } else if adds_sys_admin(context) {
        "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
    } else {
        return;
    };
    errors.invalid_plain(path.clone(), "false", detail);
}

fn adds_sys_admin(context: &SecurityContext) -> bool {
    let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_ref());
    added.is_some_and(|added| added.iter().any(|name| name == "CAP_SYS_ADMIN"))
}

fn id(value: Option<i64>, path: Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=i64::from(i32::MAX)).contains(value)) {
        errors.invalid_plain(path, value, "must be between 0 and 2147483647, inclusive");
    }
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let path = path.field("seccompProfile");
    let file = profile.localhost_profile.as_deref();
    match (profile.type_.as_str(), file) {
        ("", _) => {
            errors.required_because(
                path.field("type"),
                "type is required when seccompProfile is set",
            );
        }
        ("Localhost", None | Some("")) => {
            let detail = "must be set when seccomp type is Localhost";
            errors.required_because(path.field("localhostProfile"), detail);
        }
        ("Localhost", Some(file)) => {
            let leaves = file.starts_with('/') || file.split('/').any(|part| part == "..");
            if leaves {
                let detail = "must be a relative path without '..'";
                errors.invalid(path.field("localhostProfile"), file, detail);
            }
        }
        (_, Some(file)) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.invalid(path.field("localhostProfile"), file, detail);
        }
        (kind, None) => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.one_of(path.field("type"), kind, &supported);
        }
    }
}
