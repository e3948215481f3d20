//! What pods take from ConfigMaps and Secrets: their contents, by name.
//!
//! A pod can only name objects of its own namespace, and carries those that it names: whoever makes
//! its containers asks nobody.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};
use serde::{Deserialize, Serialize};

use crate::manifest::Object;
use crate::manifest::span::Path;
use crate::references;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Kind {
    /// The name as the kubelet's messages have it: in lower case.
    #[must_use]
    pub fn lower(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        })
    }
}

/// What one object holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// `data`: what environments can have as well.
    pub data: BTreeMap<String, ByteString>,
    /// `binaryData` of a ConfigMap: files only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binary: BTreeMap<String, ByteString>,
}

impl Content {
    /// The bytes of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).or_else(|| self.binary.get(key)).map(|bytes| bytes.0.as_slice())
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().chain(self.binary.keys()).map(String::as_str)
    }
}

impl From<&ConfigMap> for Content {
    fn from(map: &ConfigMap) -> Content {
        let bytes = |text: &String| ByteString(text.clone().into_bytes());
        let data = map.data.iter().flatten().map(|(key, text)| (key.clone(), bytes(text)));
        Content { data: data.collect(), binary: map.binary_data.clone().unwrap_or_default() }
    }
}

impl From<&Secret> for Content {
    fn from(secret: &Secret) -> Content {
        Content { data: secret.data.clone().unwrap_or_default(), binary: BTreeMap::new() }
    }
}

/// The objects of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    config_maps: BTreeMap<String, Content>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, Content>,
}

impl Objects {
    /// Those of `namespace` among what was read.
    #[must_use]
    pub fn of_namespace(objects: &[Object], namespace: &str) -> Objects {
        let mut found = Objects::default();
        for object in objects {
            let metadata = object.metadata();
            if metadata.namespace.as_deref() != Some(namespace) {
                continue;
            }
            let name = metadata.name.clone().unwrap_or_default();
            match object {
                Object::ConfigMap(map) => {
                    found.config_maps.insert(name, Content::from(map.as_ref()));
                }
                Object::Secret(secret) => {
                    found.secrets.insert(name, Content::from(secret.as_ref()));
                }
                _ => {}
            }
        }
        found
    }

    /// Those that a pod of this spec refers to.
    #[must_use]
    pub fn of_pod(&self, spec: &PodSpec) -> Objects {
        let mut found = Objects::default();
        for reference in references::of(spec, &Path::default()) {
            if let Some(content) = self.get(reference.kind, &reference.name) {
                let list = match reference.kind {
                    Kind::ConfigMap => &mut found.config_maps,
                    Kind::Secret => &mut found.secrets,
                };
                list.entry(reference.name).or_insert_with(|| content.clone());
            }
        }
        found
    }

    fn list(&self, kind: Kind) -> &BTreeMap<String, Content> {
        match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Secret => &self.secrets,
        }
    }

    /// An object by its name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Content> {
        self.list(kind).get(name)
    }

    /// The names of all objects of a kind.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.list(kind).keys().map(String::as_str)
    }
}
