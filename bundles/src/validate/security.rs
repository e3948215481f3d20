//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SeccompProfile, SecurityContext};

use super::Errors;
use crate::manifest::span::Path;

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
        ("Localhost", Some(_)) => {}
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
