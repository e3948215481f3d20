//! The environment of a container's process, in a stable order.
//!
//! Implements the kubelet's `makeEnvironmentVariables` and what a container runtime adds to it:
//! first `PATH`, then the image's variables, `HOSTNAME`, the spec's in their order, `HOME` last. A
//! name that comes again keeps its place and takes the new value. Each value of the spec is
//! expanded against the *spec's* variables so far, never against the image's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource};

use crate::downward::{Downward, DownwardError};
use crate::expand::expand;
use crate::objects::{Content, Kind, Objects};

/// `PATH` where neither image nor spec has one: that of docker and containerd.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container has no environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A name that no variable can have.
    #[error(
        "environment variable {name:?} of {origin}: names consist of printable ASCII characters \
         other than '='"
    )]
    Name {
        /// The name.
        name: String,
        /// `the image` or `the spec`.
        origin: &'static str,
    },
    /// A value with a NUL byte, which no process can be given.
    #[error("environment variable {name:?} has a NUL byte in its value")]
    Value {
        /// The variable's name.
        name: String,
    },
    /// A reference to the pod itself that has no value.
    #[error("environment variable {name:?}: {source}")]
    Downward {
        /// The variable's name.
        name: String,
        /// Why.
        source: DownwardError,
    },
    /// An object that is not there; the text is the kubelet's.
    #[error("{kind} {name:?} not found")]
    Object {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The object's name.
        name: String,
    },
    /// A key that the object does not have; the text is the kubelet's.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: Kind,
        /// The object's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// A value that is no text.
    #[error(
        "environment variable {name:?}: the value in {kind} {object:?} is not UTF-8: mount it as a \
         file of a volume"
    )]
    NotText {
        /// The variable's name.
        name: String,
        /// `ConfigMap` or `Secret`.
        kind: Kind,
        /// The object's name.
        object: String,
    },
    /// A source that this release does not read.
    #[error(
        "environment variable {name:?}: valueFrom has no source that podshim reads: use fieldRef, \
         resourceFieldRef, configMapKeyRef or secretKeyRef"
    )]
    Source {
        /// The variable's name.
        name: String,
    },
}

/// Variables in the order in which their names first came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Env {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.list[*at].1.as_str())
    }

    /// Sets a variable; a known one keeps its place.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(at) => self.list[*at].1 = value.into(),
            None => {
                self.index.insert(name.into(), self.list.len());
                self.list.push((name.into(), value.into()));
            }
        }
    }

    /// Sets a variable that is not there, or empty.
    fn set_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none_or(str::is_empty) {
            self.set(name, value);
        }
    }

    /// `NAME=value`, in order.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// `text` with its `$(NAME)` replaced.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        expand(text, |name| self.get(name))
    }
}

/// The variables of the spec alone: what command and arguments are expanded with.
///
/// # Errors
/// If a name, a value or a source is refused.
pub fn of_spec(
    container: &Container,
    downward: &Downward<'_>,
    objects: &Objects,
) -> Result<Env, EnvError> {
    let mut env = Env::default();
    for from in container.env_from.iter().flatten() {
        whole_object(from, objects, &mut env)?;
    }
    for var in container.env.iter().flatten() {
        check_spec_name(&var.name)?;
        if let Some(value) = value(var, &env, container, downward, objects)? {
            check_value(&var.name, &value)?;
            env.set(&var.name, &value);
        }
    }
    Ok(env)
}

fn value(
    var: &EnvVar,
    env: &Env,
    container: &Container,
    downward: &Downward<'_>,
    objects: &Objects,
) -> Result<Option<String>, EnvError> {
    match (&var.value, &var.value_from) {
        (Some(value), _) if !value.is_empty() => Ok(Some(env.expand(value))),
        (_, Some(source)) => referenced(&var.name, source, container, downward, objects),
        _ => Ok(Some(String::new())),
    }
}

fn referenced(
    name: &str,
    source: &EnvVarSource,
    container: &Container,
    downward: &Downward<'_>,
    objects: &Objects,
) -> Result<Option<String>, EnvError> {
    let wrap = |source| EnvError::Downward { name: name.into(), source };
    if let Some(field) = &source.field_ref {
        return downward.field(&field.field_path).map(Some).map_err(wrap);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward.resource(container, resource).map(Some).map_err(wrap);
    }
    let (kind, object, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(source), _) => (Kind::ConfigMap, &source.name, &source.key, source.optional),
        (None, Some(source)) => (Kind::Secret, &source.name, &source.key, source.optional),
        (None, None) => return Err(EnvError::Source { name: name.into() }),
    };
    let Some(content) = content(objects, kind, object, optional)? else { return Ok(None) };
    match content.data.get(key) {
        Some(bytes) => text(name, kind, object, &bytes.0).map(Some),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::Key {
            kind,
            namespace: downward.pod.metadata.namespace.clone().unwrap_or_default(),
            name: object.clone(),
            key: key.clone(),
        }),
    }
}

/// Every key of an object becomes a variable (not those of `binaryData`).
fn whole_object(from: &EnvFromSource, objects: &Objects, env: &mut Env) -> Result<(), EnvError> {
    let sources = [
        from.config_map_ref.as_ref().map(|s| (Kind::ConfigMap, &s.name, s.optional)),
        from.secret_ref.as_ref().map(|s| (Kind::Secret, &s.name, s.optional)),
    ];
    let prefix = from.prefix.as_deref().unwrap_or_default();
    for (kind, object, optional) in sources.into_iter().flatten() {
        let Some(content) = content(objects, kind, object, optional)? else { continue };
        for (key, bytes) in &content.data {
            let name = format!("{prefix}{key}");
            check_spec_name(&name)?;
            let value = text(&name, kind, object, &bytes.0)?;
            check_value(&name, &value)?;
            env.set(&name, &value);
        }
    }
    Ok(())
}

/// The object; `None` if it is not there and need not be.
fn content<'a>(
    objects: &'a Objects,
    kind: Kind,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a Content>, EnvError> {
    match objects.get(kind, name) {
        None if optional != Some(true) => {
            Err(EnvError::Object { kind: kind.lower(), name: name.into() })
        }
        found => Ok(found),
    }
}

fn text(name: &str, kind: Kind, object: &str, bytes: &[u8]) -> Result<String, EnvError> {
    let not_text = |_| EnvError::NotText { name: name.into(), kind, object: object.into() };
    String::from_utf8(bytes.to_vec()).map_err(not_text)
}

/// Everything that the process gets: `PATH`, the image's variables, `HOSTNAME`, the spec's, `HOME`.
///
/// `HOME` is always there: what would otherwise look it up is code that would run inside the
/// image. `terminal` adds `TERM`.
///
/// # Errors
/// If the image has a variable that no process can be given.
pub fn assemble(
    image: &[String],
    spec: &Env,
    hostname: &str,
    home: &str,
    terminal: bool,
) -> Result<Env, EnvError> {
    let mut env = Env::default();
    env.set("PATH", DEFAULT_PATH);
    for entry in image {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(EnvError::Name { name: name.into(), origin: "the image" });
        }
        check_value(name, value)?;
        env.set(name, value);
    }
    env.set_default("HOSTNAME", hostname);
    for (name, value) in &spec.list {
        env.set(name, value);
    }
    if terminal {
        env.set_default("TERM", "xterm");
    }
    env.set_default("HOME", home);
    Ok(env)
}

fn check_spec_name(name: &str) -> Result<(), EnvError> {
    let valid = |c: char| (' '..='~').contains(&c) && c != '=';
    if name.is_empty() || !name.chars().all(valid) {
        return Err(EnvError::Name { name: name.into(), origin: "the spec" });
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), EnvError> {
    if value.contains('\0') {
        return Err(EnvError::Value { name: name.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    fn spec_env(container: &str) -> Result<Env, EnvError> {
        let pod = fixture::pod("metadata: {name: web}\nspec: {}");
        let host = fixture::host();
        let spec = pod.spec.as_ref().expect("a spec");
        let downward = Downward { pod: &pod, spec, host: &host, pod_ips: &[] };
        let container = fixture::yaml(&format!("{{name: main, {container}}}"));
        of_spec(&container, &downward, &objects())
    }

    fn objects() -> Objects {
        fixture::yaml(
            "{config_maps: {settings: {data: {COLOUR: cmVk, SIZE: JChBKQ==, odd: /w==}}},
              secrets: {keys: {data: {TOKEN: c2VjcmV0, SIZE: MTA=}}}}",
        )
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_value_sees_the_variables_before_it_and_not_those_after_it() {
        let env = spec_env(
            "env: [{name: A, value: '1'}, {name: B, value: $(A)-$(C)}, {name: C, value: '3'},
                   {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}},
                   {name: URL, value: http://$(POD)}, {name: A, value: $(A)$(A)}, {name: E}]",
        );
        let expected = ["A=11", "B=1-$(C)", "C=3", "POD=web", "URL=http://web", "E="];
        assert_eq!(env.map(|env| env.to_vec()), Ok(texts(&expected)));
    }

    #[test]
    fn what_comes_from_a_reference_is_not_expanded() {
        let env = spec_env(
            "env: [{name: A, value: '1'},
                   {name: B, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['x']\"}}},
                   {name: C, value: $$(A)}, {name: D, value: $(C)}]",
        );
        assert_eq!(env.map(|env| env.to_vec()), Ok(texts(&["A=1", "B=", "C=$(A)", "D=$(A)"])));
    }

    #[test]
    fn the_specs_values_win_in_the_images_places() {
        let spec = spec_env("env: [{name: NEW, value: n}, {name: PATH, value: '/x:$(PATH)'}]")
            .expect("a plain environment");
        let image = texts(&["LANG=C", "PATH=/bin", "NEW=old", "LANG=de"]);
        let env = assemble(&image, &spec, "host", "/root", false).expect("a plain environment");
        assert_eq!(
            env.to_vec(),
            // The image's PATH is not known to the spec's values.
            ["PATH=/x:$(PATH)", "LANG=de", "NEW=n", "HOSTNAME=host", "HOME=/root"]
        );
    }

    #[test]
    fn home_hostname_and_path_are_there_unless_they_are_given() {
        let none = Env::default();
        let env = assemble(&[], &none, "web", "/", true).expect("a plain environment");
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(env.to_vec(), [path.as_str(), "HOSTNAME=web", "TERM=xterm", "HOME=/"]);
        let image = texts(&["HOSTNAME=h", "HOME=/h", "PATH=/p", "TERM=t"]);
        let env = assemble(&image, &none, "web", "/", true).expect("a plain environment");
        assert_eq!(env.to_vec(), ["PATH=/p", "HOSTNAME=h", "HOME=/h", "TERM=t"]);
        let image = texts(&["HOME="]);
        let env = assemble(&image, &none, "web", "/", false).expect("a plain environment");
        assert_eq!(env.get("HOME"), Some("/"), "an empty HOME is none");
    }

    #[test]
    fn hostile_names_and_values_are_refused() {
        for name in ["", "A=B", "A\\nB", "A\\0", "é", "\\e[0m"] {
            let refused = spec_env(&format!("env: [{{name: \"{name}\", value: x}}]"));
            assert!(matches!(refused, Err(EnvError::Name { .. })), "{name:?}: {refused:?}");
        }
        let refused = spec_env("env: [{name: A, value: \"a\\0b\"}]");
        assert!(matches!(refused, Err(EnvError::Value { .. })), "{refused:?}");
        for entry in ["=x", "", "A\nB=x", "A\0=x", "A=\0"] {
            let refused = assemble(&texts(&[entry]), &Env::default(), "h", "/", false);
            assert!(refused.is_err(), "{entry:?}");
        }
        // Values of several lines are common and harmless: nothing here is written as lines.
        assert!(spec_env("env: [{name: 'A.b-c d', value: \"a\\nb\"}]").is_ok());
    }

    #[test]
    fn keys_of_objects_become_variables_and_env_wins_over_env_from() {
        let env = spec_env(
            "envFrom: [{configMapRef: {name: settings}, prefix: C_}, {secretRef: {name: keys}}],
             env: [{name: A, value: '1'}, {name: TOKEN, value: $(SIZE)},
                   {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}},
                   {name: S, valueFrom: {configMapKeyRef: {name: settings, key: SIZE}}},
                   {name: NO, valueFrom: {secretKeyRef: {name: keys, key: x, optional: true}}}]",
        );
        // The odd one is not UTF-8.
        let error = env.expect_err("not UTF-8").to_string();
        assert!(error.contains("\"C_odd\"") && error.contains("mount it as a file"), "{error}");
        let env = spec_env(
            "envFrom: [{secretRef: {name: keys}, prefix: K_}],
             env: [{name: A, value: '1'}, {name: K_TOKEN, value: $(K_SIZE)},
                   {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}},
                   {name: S, valueFrom: {configMapKeyRef: {name: settings, key: SIZE}}},
                   {name: NO, valueFrom: {secretKeyRef: {name: keys, key: x, optional: true}}}]",
        );
        // What an object holds is not expanded.
        let expected = ["K_SIZE=10", "K_TOKEN=10", "A=1", "COLOUR=red", "S=$(A)"];
        assert_eq!(env.map(|env| env.to_vec()), Ok(texts(&expected)));
    }

    #[test]
    fn what_is_not_there_is_an_error_or_left_out() {
        for (from, expected) in [
            (
                "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}]",
                "configmap \"c\" not found",
            ),
            (
                "env: [{name: A, valueFrom: {secretKeyRef: {name: keys, key: k}}}]",
                "couldn't find key k in Secret /keys",
            ),
            ("envFrom: [{configMapRef: {name: c}}]", "configmap \"c\" not found"),
            ("envFrom: [{secretRef: {name: c, optional: false}}]", "secret \"c\" not found"),
        ] {
            assert_eq!(spec_env(from).expect_err(from).to_string(), expected);
        }
        let optional = spec_env(
            "envFrom: [{secretRef: {name: c, optional: true}}],
             env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k, optional: true}}}]",
        );
        assert_eq!(optional, Ok(Env::default()));
        let refused = spec_env("env: [{name: A, valueFrom: {}}]");
        assert!(matches!(refused, Err(EnvError::Source { .. })), "{refused:?}");
    }
}
