//! podshim's own annotations, `podshim.dev/*`.
//!
//! Their prefix is ours, so a name that is not known is a mistake and no other program's business.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, instead_of};
use crate::manifest::span::Path;
use crate::notify::ANNOTATION as NOTIFY;
use crate::schema::nearest;

const PREFIX: &str = "podshim.dev/";
/// Names sidecars and mains, separated by commas, whose next incarnation is created ahead.
const STANDBY: &str = "podshim.dev/standby";
/// `"false"`: probes are not tried between their periods.
const BURST: &str = "podshim.dev/burst";
const KNOWN: [&str; 3] = [BURST, NOTIFY, STANDBY];

/// The annotations of a pod or of a template of pods.
pub fn on_pod(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (key, value) in ours(metadata) {
        let path = path.field("annotations").key(key);
        if key == STANDBY || key == NOTIFY {
            containers(value, spec, &path, errors);
        } else if key == BURST {
            errors.one_of(path, value, &["false", "true"]);
        } else {
            let known = format!("known is {}", KNOWN.join(", "));
            let help = nearest(key, KNOWN).map_or(known, |near| format!("did you mean {near}?"));
            errors.forbidden(path, "unknown annotation of podshim").help = Some(help);
        }
    }
}

/// The annotations of a Deployment or Job itself, where ours mean nothing.
pub fn on_workload(metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    for (key, _) in ours(metadata) {
        let path = path.field("annotations").key(key);
        errors.forbidden(path, "annotations of podshim are about pods").help =
            Some("write it under spec.template.metadata.annotations".into());
    }
}

fn ours(metadata: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(PREFIX))
}

fn containers(value: &str, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let inits = spec.init_containers.iter().flatten();
    let sidecars = inits.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let candidates: Vec<&str> =
        sidecars.chain(&spec.containers).map(|container| container.name.as_str()).collect();
    let known: BTreeSet<&str> = candidates.iter().copied().collect();
    for name in value.split(',').map(str::trim).filter(|name| !known.contains(name)) {
        if errors.is_full() {
            return;
        }
        let help = instead_of(name, "sidecars and mains", &candidates);
        errors.not_found(path.clone(), name).help = Some(help);
    }
}
