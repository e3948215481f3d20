//! Volumes and where containers mount them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PodSpec, Volume,
    VolumeMount, VolumeProjection,
};
use serde_json::Value;

use super::{Errors, containers, instead_of, names};
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
        of_files(volume, spec, &path, errors);
        if let Some(source) = &volume.host_path {
            host_path(source, &path.field("hostPath"), errors);
        }
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

/// configMap, secret, downwardAPI, projected.
fn of_files(volume: &Volume, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if let Some(source) = &volume.config_map {
        let path = path.field("configMap");
        required_name(&source.name, path.field("name"), errors);
        mode(source.default_mode, path.field("defaultMode"), errors);
        items(source.items.as_deref(), &path, errors);
    }
    if let Some(source) = &volume.secret {
        let path = path.field("secret");
        let name = source.secret_name.as_deref().unwrap_or_default();
        required_name(name, path.field("secretName"), errors);
        mode(source.default_mode, path.field("defaultMode"), errors);
        items(source.items.as_deref(), &path, errors);
    }
    if let Some(source) = &volume.downward_api {
        let path = path.field("downwardAPI");
        mode(source.default_mode, path.field("defaultMode"), errors);
        downward(source.items.as_deref(), spec, &path, errors);
    }
    if let Some(source) = &volume.projected {
        let path = path.field("projected");
        mode(source.default_mode, path.field("defaultMode"), errors);
        projected(source.sources.as_deref().unwrap_or_default(), spec, &path, errors);
    }
}

fn required_name(name: &str, path: Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path);
    }
}

fn mode(value: Option<i32>, path: Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=0o777).contains(value)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid_plain(path, value, detail);
    }
}

fn items(items: Option<&[KeyToPath]>, path: &Path, errors: &mut Errors) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = path.field("items").index(i);
        required_name(&item.key, path.field("key"), errors);
        file_path(&item.path, path.field("path"), errors);
        mode(item.mode, path.field("mode"), errors);
    }
}

/// `validateLocalNonReservedPath`.
fn file_path(file: &str, path: Path, errors: &mut Errors) {
    if file.is_empty() {
        errors.required(path);
    } else if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    } else if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    } else if file.starts_with("..") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

fn downward(
    items: Option<&[DownwardAPIVolumeFile]>,
    spec: &PodSpec,
    path: &Path,
    errors: &mut Errors,
) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = path.field("items").index(i);
        file_path(&item.path, path.field("path"), errors);
        mode(item.mode, path.field("mode"), errors);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
            (None, None) => {
                errors.required_because(path, "one of fieldRef and resourceFieldRef is required")
            }
            (Some(field), None) => containers::field_path(
                &field.field_path,
                &containers::VOLUME_FIELD_PATHS,
                &path.field("fieldRef"),
                errors,
            ),
            (None, Some(resource)) => containers::resource_field(
                resource,
                spec,
                true,
                &path.field("resourceFieldRef"),
                errors,
            ),
        }
    }
}

/// `validateProjectedVolumeSource`: paths that are known to be the same are refused.
fn projected(sources: &[VolumeProjection], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (i, source) in sources.iter().enumerate() {
        let path = path.field("sources").index(i);
        let fields = [
            source.config_map.is_some(),
            source.secret.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        match fields.into_iter().filter(|set| *set).count() {
            0 => errors.required_because(path.clone(), "must specify a projection source"),
            1 => {}
            _ => {
                errors
                    .forbidden(path.clone(), "may not specify more than 1 volume type per source");
            }
        }
        let mut paths: Vec<&str> = Vec::new();
        if let Some(source) = &source.config_map {
            let path = path.field("configMap");
            required_name(&source.name, path.field("name"), errors);
            items(source.items.as_deref(), &path, errors);
            paths.extend(source.items.iter().flatten().map(|item| item.path.as_str()));
        }
        if let Some(source) = &source.secret {
            let path = path.field("secret");
            required_name(&source.name, path.field("name"), errors);
            items(source.items.as_deref(), &path, errors);
            paths.extend(source.items.iter().flatten().map(|item| item.path.as_str()));
        }
        if let Some(source) = &source.downward_api {
            downward(source.items.as_deref(), spec, &path.field("downwardAPI"), errors);
            paths.extend(source.items.iter().flatten().map(|item| item.path.as_str()));
        }
        for file in paths.into_iter().filter(|file| !file.is_empty()) {
            if !taken.insert(file) {
                errors.invalid(path.clone(), file, "conflicting duplicate paths");
            }
        }
    }
}

/// `validateHostPathVolumeSource`.
fn host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.required(path.field("path"));
    } else if source.path.split('/').any(|part| part == "..") {
        errors.invalid(path.field("path"), &source.path, "must not contain '..'");
    } else if !source.path.starts_with('/') {
        let detail = "must be an absolute path";
        errors.invalid(path.field("path"), &source.path, detail);
    }
    if let Some(kind) = source.type_.as_deref() {
        let known = crate::volume::HOST_PATH_TYPES.map(|(name, _)| name);
        errors.one_of(path.field("type"), kind, &known);
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
        recursive_read_only(mount, &path, errors);
        propagation(mount.mount_propagation.as_deref(), container, &path, errors);
        sub_path(mount, &path, errors);
    }
}

/// `validateMountRecursiveReadOnly`.
fn recursive_read_only(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
    let path = path.field("recursiveReadOnly");
    let Some(value) = mount.recursive_read_only.as_deref() else { return };
    errors.one_of(path.clone(), value, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(value, "Enabled" | "IfPossible") {
        return;
    }
    if mount.read_only != Some(true) {
        errors.forbidden(path.clone(), "may only be specified when readOnly is true");
    }
    if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
        let detail = "may only be specified when mountPropagation is None or not specified";
        errors.forbidden(path, detail);
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

fn sub_path(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
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
