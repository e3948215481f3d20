//! ConfigMaps and Secrets.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{Errors, names};
use crate::manifest::span::Path;

/// What a ConfigMap or Secret may hold in all, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// `ValidateConfigMap`.
pub fn config_map(map: &ConfigMap, errors: &mut Errors) {
    let root = Path::default();
    let mut bytes = 0;
    for (key, value) in map.data.iter().flatten() {
        errors.name(root.field("data").key(key), key, names::config_key(key));
        bytes += value.len();
    }
    for (key, value) in map.binary_data.iter().flatten() {
        let path = root.field("binaryData").key(key);
        errors.name(path.clone(), key, names::config_key(key));
        if map.data.as_ref().is_some_and(|data| data.contains_key(key)) {
            errors.invalid(path, key, "duplicate of key present in data");
        }
        bytes += value.0.len();
    }
    too_long(bytes, "", errors);
}

/// `ValidateSecret`, after `stringData` has been written into `data`.
pub fn secret(secret: &Secret, errors: &mut Errors) {
    let data = Path::default().field("data");
    let mut bytes = 0;
    for (key, value) in secret.data.iter().flatten() {
        errors.name(data.key(key), key, names::config_key(key));
        bytes += value.0.len();
    }
    too_long(bytes, "data", errors);
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let needed: &[&str] = match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        errors.required(data.key(key));
    }
}

fn too_long(bytes: usize, field: &str, errors: &mut Errors) {
    if bytes > MAX_BYTES {
        let path = if field.is_empty() { Path::default() } else { Path::default().field(field) };
        errors.push(path, format!("Too long: may not be more than {MAX_BYTES} bytes"));
    }
}
