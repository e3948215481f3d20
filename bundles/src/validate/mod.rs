//! The API server's rules for what podshim runs, in the API server's words.
//!
//! After `pkg/apis/{core,apps,batch}/validation` of Kubernetes: on objects with their defaults,
//! each error `<path>: <type>: <value>: <detail>`. Looks at one object and nothing else; what a rule
//! is about that podshim does not do yet is [`crate::supported`]'s business.

mod annotations;
mod containers;
mod names;
mod objects;
mod pod;
mod probes;
mod security;
mod volumes;
mod workloads;

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::manifest::span::{Finding, Path};
use crate::manifest::{MAX_PROBLEMS, Object};

/// Names that are listed, or of which the nearest is looked for, where another would be right.
pub(crate) const MAX_CANDIDATES: usize = 100;

/// Everything that is wrong with an object, up to [`MAX_PROBLEMS`].
pub fn check(object: &Object) -> Vec<Finding> {
    let mut errors = Errors::default();
    let root = Path::default();
    metadata(object.metadata(), &root.field("metadata"), &mut errors);
    match object {
        Object::Pod(object) => {
            let spec = object.spec.clone().unwrap_or_default();
            annotations::on_pod(&object.metadata, &spec, &root.field("metadata"), &mut errors);
            pod::spec(&spec, &root.field("spec"), &mut errors);
        }
        Object::Deployment(deployment) => workloads::deployment(deployment, &mut errors),
        Object::Job(job) => workloads::job(job, &mut errors),
        Object::ConfigMap(map) => objects::config_map(map, &mut errors),
        Object::Secret(secret) => objects::secret(secret, &mut errors),
    }
    errors.0
}

/// `ValidateObjectMeta` with pod-like names.
fn metadata(metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    let name = metadata.name.as_deref().unwrap_or_default();
    let generate = metadata.generate_name.as_deref().unwrap_or_default();
    if !generate.is_empty() {
        // The API server lets the prefix end in a hyphen.
        let prefix = generate.trim_end_matches('-');
        errors.name(path.field("generateName"), prefix, names::dns_subdomain(prefix));
    }
    if !name.is_empty() {
        errors.name(path.field("name"), name, names::dns_subdomain(name));
    } else if generate.is_empty() {
        let finding =
            Finding::new(path.field("name"), "Required value: name or generateName is required");
        errors.0.push(finding);
    }
    if let Some(namespace) = metadata.namespace.as_deref() {
        errors.name(path.field("namespace"), namespace, names::dns_label(namespace));
    }
    labels(metadata, path, errors);
}

/// Labels and annotations, of objects and of templates.
fn labels(metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    for (key, value) in metadata.labels.iter().flatten() {
        let path = path.field("labels").key(key);
        errors.name(path.clone(), key, names::qualified(key));
        errors.name(path, value, names::label_value(value));
    }
    for key in metadata.annotations.iter().flatten().map(|(key, _)| key) {
        let path = path.field("annotations").key(key);
        errors.name(path, key, names::qualified(&key.to_lowercase()));
    }
}

/// Errors in the notation of `k8s.io/apimachinery/pkg/util/validation/field`.
#[derive(Default)]
pub(crate) struct Errors(Vec<Finding>);

impl Errors {
    /// Whether no more is wanted.
    fn is_full(&self) -> bool {
        self.0.len() >= MAX_PROBLEMS
    }

    fn push(&mut self, path: Path, message: String) -> &mut Finding {
        // For the caller to go on with; what is beyond the end is not read.
        self.0.truncate(MAX_PROBLEMS - 1);
        self.0.push(Finding::new(path, message));
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    fn required(&mut self, path: Path) -> &mut Finding {
        self.push(path, "Required value".into())
    }

    fn required_because(&mut self, path: Path, detail: &str) {
        self.push(path, format!("Required value: {detail}"));
    }

    /// A bad text.
    fn invalid(&mut self, path: Path, value: &str, detail: impl Display) -> &mut Finding {
        self.push(path, format!("Invalid value: {value:?}: {detail}"))
    }

    /// A bad number or boolean.
    fn invalid_plain(&mut self, path: Path, value: impl Display, detail: impl Display) {
        self.push(path, format!("Invalid value: {value}: {detail}"));
    }

    fn duplicate(&mut self, path: Path, value: impl Display) -> &mut Finding {
        self.push(path, format!("Duplicate value: \"{value}\""))
    }

    fn not_found(&mut self, path: Path, value: &str) -> &mut Finding {
        self.push(path, format!("Not found: {value:?}"))
    }

    fn forbidden(&mut self, path: Path, detail: &str) -> &mut Finding {
        self.push(path, format!("Forbidden: {detail}"))
    }

    fn too_many(&mut self, path: Path, count: usize, most: usize) {
        self.push(path, format!("Too many: {count}: must have at most {most} items"));
    }

    /// A text that is not one of a few; says which was probably meant.
    fn one_of(&mut self, path: Path, value: &str, supported: &[&str]) {
        if supported.contains(&value) {
            return;
        }
        let list: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message =
            format!("Unsupported value: {value:?}: supported values: {}", list.join(", "));
        let meant = crate::schema::nearest(value, supported.iter().copied());
        self.push(path, message).help = meant.map(|meant| format!("did you mean {meant}?"));
    }

    /// What is wrong with a name, if anything.
    fn name(&mut self, path: Path, value: &str, faults: Vec<&str>) {
        for fault in faults {
            self.invalid(path.clone(), value, fault);
        }
    }

    fn not_negative(&mut self, path: Path, value: Option<impl Into<i64>>) {
        if let Some(value) = value.map(Into::into)
            && value < 0
        {
            self.invalid_plain(path, value, "must be greater than or equal to 0");
        }
    }
}

/// What to write instead of a name that none of the pod's `things` has.
fn instead_of(name: &str, things: &str, known: &[&str]) -> String {
    let (known, more) = match known.get(..MAX_CANDIDATES) {
        Some(first) if known.len() > MAX_CANDIDATES => (first, ", …"),
        _ => (known, ""),
    };
    match crate::schema::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("the pod's {things} are: {}{more}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
