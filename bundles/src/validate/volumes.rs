//! Volumes and where containers mount them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use serde_json::Value;

use super::{Errors, instead_of, names};
use crate::manifest::span::Path;
use crate::quantity::Quantity;

/// `ValidateVolumes`.
pub fn volumes(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.field("volumes").index(i);
        if volume.name.is_empty() {
            errors.required(path.field("name"));
        } else if !names::dns_label(&volume.name).is_empty() {
            errors.name(path.field("name"), &volume.name, names::dns_label(&volume.name));
        } else if !seen.insert(volume.name.as_str()) {
            errors.duplicate(path.field("name"), &volume.name);
        }
        one_source(volume, &path, errors);
        let limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        if let Some(limit) = limit
            && limit.0.parse::<Quantity>().is_ok_and(Quantity::is_negative)
        {
            let path = path.field("emptyDir.sizeLimit");
            errors.invalid(path, &limit.0, "must be greater than or equal to 0");
        }
    }
}

/// A volume is of one type. The types are all its fields but the name, so they are asked of the
/// serialised form instead of listed here once more.
fn one_source(volume: &Volume, path: &Path, errors: &mut Errors) {
    let Ok(Value::Object(fields)) = serde_json::to_value(volume) else { return };
    for source in fields.keys().filter(|name| *name != "name").skip(1) {
        errors.forbidden(path.field(source), "may not specify more than 1 volume type");
    }
}

/// `ValidateVolumeMounts`.
pub fn mounts(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let known: Vec<&str> = spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    let mut paths = BTreeSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if errors.is_full() {
            return;
        }
        let path = path.field("volumeMounts").index(i);
        if mount.name.is_empty() {
            errors.required(path.field("name"));
        } else if !known.contains(&mount.name.as_str()) {
            let help = match known.is_empty() {
                true => "the pod has no volumes: add spec.volumes".into(),
                false => instead_of(&mount.name, "volumes", &known),
            };
            errors.not_found(path.field("name"), &mount.name).help = Some(help);
        }
        if mount.mount_path.is_empty() {
            errors.required(path.field("mountPath"));
        } else if !paths.insert(mount.mount_path.as_str()) {
            errors.invalid(path.field("mountPath"), &mount.mount_path, "must be unique");
        }
        propagation(mount.mount_propagation.as_deref(), container, &path, errors);
        sub_path(mount, &path, errors);
    }
}

fn propagation(value: Option<&str>, container: &Container, path: &Path, errors: &mut Errors) {
    let Some(value) = value else { return };
    let path = path.field("mountPropagation");
    errors.one_of(path.clone(), value, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    if value == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(path, detail);
    }
}

fn sub_path(mount: &k8s_openapi::api::core::v1::VolumeMount, path: &Path, errors: &mut Errors) {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (plain, expr) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if let (Some(_), Some(expr)) = (&plain, &expr) {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(path.field("subPathExpr"), expr, detail);
    }
    for (field, value) in [("subPath", plain), ("subPathExpr", expr)] {
        let Some(value) = value else { continue };
        if value.starts_with('/') {
            errors.invalid(path.field(field), &value, "must be a relative path");
        }
        if value.split('/').any(|part| part == "..") {
            errors.invalid(path.field(field), &value, "must not contain '..'");
        }
    }
}
