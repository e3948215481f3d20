//! Where a pod's spec names a ConfigMap or Secret.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, KeyToPath, PodSpec, VolumeProjection};

use crate::manifest::span::Path;
use crate::objects::Kind;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where the name stands.
    pub path: Path,
    /// What is named.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// The keys that are taken from it, and where each stands; all of them if none is listed.
    pub keys: Vec<(Path, String)>,
    /// Whether the pod can do without it, and without the keys.
    pub optional: bool,
}

/// All that a pod of this spec refers to. `path` is that of the spec.
pub fn of(spec: &PodSpec, path: &Path) -> Vec<Reference> {
    let mut found = Vec::new();
    for (list, containers) in [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
    ] {
        for (i, container) in containers.iter().enumerate() {
            add_container(container, &path.field(list).index(i), &mut found);
        }
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.field("volumes").index(i);
        if let Some(source) = &volume.config_map {
            let path = path.field("configMap");
            let keys = items(source.items.as_ref(), &path);
            add(&mut found, Kind::ConfigMap, &path, "name", &source.name, keys, source.optional);
        }
        if let Some(source) = &volume.secret {
            let path = path.field("secret");
            let keys = items(source.items.as_ref(), &path);
            let name = source.secret_name.as_deref().unwrap_or_default();
            add(&mut found, Kind::Secret, &path, "secretName", name, keys, source.optional);
        }
        let sources = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
        for (i, source) in sources.into_iter().flatten().enumerate() {
            of_projection(source, &path.field("projected.sources").index(i), &mut found);
        }
    }
    found
}

fn add(
    found: &mut Vec<Reference>,
    kind: Kind,
    path: &Path,
    field: &str,
    name: &str,
    keys: Vec<(Path, String)>,
    optional: Option<bool>,
) {
    // A missing name is said by validation.
    if !name.is_empty() {
        let (path, name) = (path.field(field), name.into());
        found.push(Reference { path, kind, name, keys, optional: optional == Some(true) });
    }
}

fn items(items: Option<&Vec<KeyToPath>>, path: &Path) -> Vec<(Path, String)> {
    let items = items.into_iter().flatten().enumerate();
    items.map(|(i, item)| (path.field("items").index(i).field("key"), item.key.clone())).collect()
}

fn of_projection(source: &VolumeProjection, path: &Path, found: &mut Vec<Reference>) {
    if let Some(source) = &source.config_map {
        let path = path.field("configMap");
        let keys = items(source.items.as_ref(), &path);
        add(found, Kind::ConfigMap, &path, "name", &source.name, keys, source.optional);
    }
    if let Some(source) = &source.secret {
        let path = path.field("secret");
        let keys = items(source.items.as_ref(), &path);
        add(found, Kind::Secret, &path, "name", &source.name, keys, source.optional);
    }
}

/// All that a container refers to.
pub fn of_container(container: &Container, path: &Path) -> Vec<Reference> {
    let mut found = Vec::new();
    add_container(container, path, &mut found);
    found
}

fn add_container(container: &Container, path: &Path, found: &mut Vec<Reference>) {
    for (i, from) in container.env_from.iter().flatten().enumerate() {
        let EnvFromSource { config_map_ref, secret_ref, .. } = from;
        let path = path.field("envFrom").index(i);
        if let Some(source) = config_map_ref {
            let path = path.field("configMapRef");
            add(found, Kind::ConfigMap, &path, "name", &source.name, Vec::new(), source.optional);
        }
        if let Some(source) = secret_ref {
            let path = path.field("secretRef");
            add(found, Kind::Secret, &path, "name", &source.name, Vec::new(), source.optional);
        }
    }
    for (i, var) in container.env.iter().flatten().enumerate() {
        let path = path.field("env").index(i).field("valueFrom");
        let Some(from) = &var.value_from else { continue };
        if let Some(source) = &from.config_map_key_ref {
            let path = path.field("configMapKeyRef");
            let keys = vec![(path.field("key"), source.key.clone())];
            add(found, Kind::ConfigMap, &path, "name", &source.name, keys, source.optional);
        }
        if let Some(source) = &from.secret_key_ref {
            let path = path.field("secretKeyRef");
            let keys = vec![(path.field("key"), source.key.clone())];
            add(found, Kind::Secret, &path, "name", &source.name, keys, source.optional);
        }
    }
}
