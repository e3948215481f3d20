//! Volumes whose files are values: configMap, secret, downwardAPI and projected.
//!
//! Follows the kubelet's `pkg/volume/{configmap,secret,downwardapi,projected}`: which files there are,
//! with which modes and contents. Writes nothing; the runtime lays the files out so that they can be
//! replaced all at once (`atomic_writer.go`).

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use crate::downward::{Downward, DownwardError};
use crate::objects::{Kind, Objects};
use crate::resources;

/// The mode of a file if the volume says nothing.
const DEFAULT_MODE: u32 = 0o644;

/// A volume of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The volume's name.
    pub name: String,
    /// The directory of such volumes, as the kubelet calls it.
    pub plugin: &'static str,
    /// Its files by their paths below the volume: relative, without `.` and `..`.
    pub files: BTreeMap<String, PayloadFile>,
    /// The group that owns it and may read everything, if not root's: the pod's `fsGroup`.
    pub gid: Option<u32>,
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFile {
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// What is in it.
    pub data: Vec<u8>,
}

/// Why a volume cannot be filled. The texts are the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The object is not there.
    #[error("{kind} {name:?} not found")]
    Object {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("references non-existent {} key: {key}", if *kind == "configmap" { "config" } else { "secret" })]
    Key {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A value of the pod that a volume cannot have.
    #[error("{path}: {source}")]
    Downward {
        /// The file that was to hold it.
        path: String,
        /// Why.
        source: DownwardError,
    },
    /// A source that this release does not read.
    #[error("volume {volume:?}: projected sources can be configMap, secret and downwardAPI")]
    Source {
        /// The volume.
        volume: String,
    },
    /// A path that would leave the volume.
    #[error("{path:?} is not a relative path below the volume")]
    Path {
        /// The path.
        path: String,
    },
}

/// A volume that could not be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub struct SetUpFailed {
    /// Its name.
    pub volume: String,
    /// Why.
    pub source: PayloadError,
}

/// The directory of a volume of files, as the kubelet calls it; `None` for volumes of other kinds.
#[must_use]
pub fn plugin(volume: &Volume) -> Option<&'static str> {
    match volume {
        Volume { config_map: Some(_), .. } => Some("kubernetes.io~configmap"),
        Volume { secret: Some(_), .. } => Some("kubernetes.io~secret"),
        Volume { downward_api: Some(_), .. } => Some("kubernetes.io~downward-api"),
        Volume { projected: Some(_), .. } => Some("kubernetes.io~projected"),
        _ => None,
    }
}

/// The pod's volumes of files, in the spec's order.
///
/// # Errors
/// If one names something that is not there.
pub fn payloads(
    downward: &Downward<'_>,
    objects: &Objects,
    gid: Option<u32>,
) -> Result<Vec<Payload>, SetUpFailed> {
    let volumes = downward.spec.volumes.iter().flatten();
    let of_files = volumes.filter_map(|volume| Some((volume, plugin(volume)?)));
    of_files
        .map(|(volume, plugin)| {
            let name = volume.name.clone();
            let mut filler =
                Filler { downward, objects, mode: DEFAULT_MODE, files: BTreeMap::new() };
            match filler.volume(volume) {
                Ok(()) => Ok(Payload { name, plugin, files: filler.files, gid }),
                Err(source) => Err(SetUpFailed { volume: name, source }),
            }
        })
        .collect()
}

struct Filler<'a> {
    downward: &'a Downward<'a>,
    objects: &'a Objects,
    mode: u32,
    files: BTreeMap<String, PayloadFile>,
}

impl Filler<'_> {
    fn volume(&mut self, volume: &Volume) -> Result<(), PayloadError> {
        let mode =
            |mode: Option<i32>| mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(DEFAULT_MODE);
        if let Some(source) = &volume.config_map {
            self.mode = mode(source.default_mode);
            self.object(Kind::ConfigMap, &source.name, source.items.as_deref(), source.optional)?;
        }
        if let Some(source) = &volume.secret {
            self.mode = mode(source.default_mode);
            let name = source.secret_name.as_deref().unwrap_or_default();
            self.object(Kind::Secret, name, source.items.as_deref(), source.optional)?;
        }
        if let Some(source) = &volume.downward_api {
            self.mode = mode(source.default_mode);
            self.pod(source.items.as_deref())?;
        }
        if let Some(source) = &volume.projected {
            self.mode = mode(source.default_mode);
            for projection in source.sources.iter().flatten() {
                self.projection(&volume.name, projection)?;
            }
        }
        Ok(())
    }

    /// Later sources win where both have the path.
    fn projection(&mut self, volume: &str, source: &VolumeProjection) -> Result<(), PayloadError> {
        if let Some(source) = &source.config_map {
            let items = source.items.as_deref();
            self.object(Kind::ConfigMap, &source.name, items, source.optional)
        } else if let Some(source) = &source.secret {
            self.object(Kind::Secret, &source.name, source.items.as_deref(), source.optional)
        } else if let Some(source) = &source.downward_api {
            self.pod(source.items.as_deref())
        } else {
            Err(PayloadError::Source { volume: volume.into() })
        }
    }

    fn object(
        &mut self,
        kind: Kind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), PayloadError> {
        let optional = optional == Some(true);
        let Some(content) = self.objects.get(kind, name) else {
            let absent = PayloadError::Object { kind: kind.lower(), name: name.into() };
            return if optional { Ok(()) } else { Err(absent) };
        };
        // An empty list is none, as in Go.
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for key in content.keys() {
                let data = content.get(key).unwrap_or_default().to_vec();
                self.file(key, self.mode, data)?;
            }
            return Ok(());
        };
        for item in items {
            let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(self.mode);
            match content.get(&item.key) {
                Some(data) => self.file(&item.path, mode, data.to_vec())?,
                None if optional => {}
                None => {
                    return Err(PayloadError::Key { kind: kind.lower(), key: item.key.clone() });
                }
            }
        }
        Ok(())
    }

    fn pod(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), PayloadError> {
        for item in items.unwrap_or_default() {
            let failed = |source| PayloadError::Downward { path: item.path.clone(), source };
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => self.field(&field.field_path).map_err(failed)?,
                (None, Some(resource)) => {
                    let name = resource.container_name.as_deref().unwrap_or_default();
                    let container = resources::all_containers(self.downward.spec)
                        .find(|c| c.name == name)
                        .ok_or_else(|| failed(DownwardError::Container { name: name.into() }))?;
                    self.downward.resource(container, resource).map_err(failed)?
                }
                (None, None) => String::new(),
            };
            let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(self.mode);
            self.file(&item.path, mode, value.into_bytes())?;
        }
        Ok(())
    }

    /// A volume can also have all labels or annotations, as lines.
    fn field(&self, path: &str) -> Result<String, DownwardError> {
        let metadata = &self.downward.pod.metadata;
        match path {
            "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
            "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
            _ => self.downward.field(path),
        }
    }

    fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) -> Result<(), PayloadError> {
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.split('/').all(is_part) || path.starts_with("..") {
            return Err(PayloadError::Path { path: path.into() });
        }
        self.files.insert(path.into(), PayloadFile { mode, data });
        Ok(())
    }
}

/// `key="value"` lines in the keys' order, without a newline at the end (`fieldpath.FormatMap`).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", go_quoted(value)))
        .collect();
    lines.join("\n")
}

/// A text as Go's `%q` (strconv.Quote) writes it.
fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out += "\\a",
            '\u{8}' => out += "\\b",
            '\u{c}' => out += "\\f",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\u{b}' => out += "\\v",
            ' '..='~' => out.push(c),
            // Writing to a String cannot fail.
            '\0'..='\u{7f}' => drop(write!(out, "\\x{:02x}", u32::from(c))),
            _ if is_print(c) => out.push(c),
            '\u{80}'..='\u{ffff}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols; of blanks only the ASCII
/// one. Rust shows all others as escapes, but for the blanks.
fn is_print(c: char) -> bool {
    // Behind another character, so that a combining mark is not shown as an escape.
    let shown: String = ['a', c].iter().collect::<String>().escape_debug().collect();
    shown.len() == 1 + c.len_utf8() && !c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, read};
    use crate::oci::fixture;

    const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {app.conf: 'a=1', more: b}
binaryData: {blob: //4A}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {token: c2VjcmV0}
stringData: {user: admin, token: newer}
";

    fn filled(volume: &str) -> Result<Vec<Payload>, String> {
        let pod = fixture::pod(&format!(
            "metadata: {{name: web, namespace: default, labels: {{b: '2', a: \"x\\\"\\ny\"}}}}
spec:
  containers: [{{name: main, resources: {{limits: {{cpu: 250m}}}}}}]
  volumes: [{{name: v, {volume}}}]"
        ));
        let text = OBJECTS.to_owned();
        let read = read(&[Source { name: "objects.yaml".into(), text }]);
        assert!(read.problems.is_empty(), "{}", read.render(false));
        let objects = Objects::of_namespace(&read.objects, "default");
        let host = fixture::host();
        let spec = pod.spec.as_ref().expect("a spec");
        let downward = Downward { pod: &pod, spec, host: &host, pod_ips: &[] };
        payloads(&downward, &objects, None).map_err(|e| format!("{e}"))
    }

    /// `path:mode:content` of each file.
    fn files(volume: &str) -> Vec<String> {
        let made = filled(volume).expect(volume);
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        made[0].files.iter().map(|(p, f)| format!("{p}:{:o}:{}", f.mode, text(&f.data))).collect()
    }

    #[test]
    fn all_keys_or_those_that_are_listed_become_files() {
        for (volume, expected) in [
            (
                "configMap: {name: settings}",
                &["app.conf:644:a=1", "blob:644:\u{fffd}\u{fffd}\0", "more:644:b"][..],
            ),
            (
                "configMap: {name: settings, defaultMode: 256, items: [{key: more, path: d/e}]}",
                &["d/e:400:b"],
            ),
            (
                "secret: {secretName: keys, items: [{key: token, path: t, mode: 0o600}]}",
                &["t:600:newer"],
            ),
            ("secret: {secretName: keys}", &["token:644:newer", "user:644:admin"]),
            ("configMap: {name: none, optional: true}", &[]),
            ("configMap: {name: settings, optional: true, items: [{key: x, path: x}]}", &[]),
        ] {
            assert_eq!(files(volume), expected, "{volume}");
        }
    }

    #[test]
    fn the_pod_tells_of_itself_in_gos_notation() {
        let volume = "downwardAPI: {items: [
            {path: labels, fieldRef: {fieldPath: metadata.labels}},
            {path: name, fieldRef: {fieldPath: metadata.name}, mode: 0o400},
            {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}]}";
        let expected = ["cpu:644:250", "labels:644:a=\"x\\\"\\ny\"\nb=\"2\"", "name:400:web"];
        assert_eq!(files(volume), expected);
    }

    #[test]
    fn projected_sources_are_joined_and_the_later_one_wins() {
        let volume = "projected: {defaultMode: 0o440, sources: [
            {configMap: {name: settings, items: [{key: more, path: k}, {key: app.conf, path: l}]}},
            {secret: {name: keys, items: [{key: user, path: k}]}},
            {downwardAPI: {items: [{path: m, fieldRef: {fieldPath: metadata.name}}]}}]}";
        assert_eq!(files(volume), ["k:440:admin", "l:440:a=1", "m:440:web"]);
        let refused = filled("projected: {sources: [{serviceAccountToken: {path: t}}]}");
        assert!(refused.expect_err("no issuer").contains("projected sources can be"));
    }

    #[test]
    fn what_is_missing_is_said_as_the_kubelet_says_it() {
        for (volume, expected) in [
            ("configMap: {name: none}", "configmap \"none\" not found"),
            ("secret: {secretName: none}", "secret \"none\" not found"),
            (
                "configMap: {name: settings, items: [{key: x, path: x}]}",
                "references non-existent config key: x",
            ),
            (
                "secret: {secretName: keys, items: [{key: x, path: x}]}",
                "references non-existent secret key: x",
            ),
        ] {
            let error = filled(volume).expect_err(volume);
            assert_eq!(error, format!("MountVolume.SetUp failed for volume \"v\" : {expected}"));
        }
    }

    #[test]
    fn no_file_leaves_the_volume() {
        for path in ["", "/etc/x", "../x", "a/../b", "..data", "a//b", "."] {
            let volume =
                format!("configMap: {{name: settings, items: [{{key: more, path: {path:?}}}]}}");
            assert!(filled(&volume).expect_err(path).contains("not a relative path"), "{path}");
        }
    }

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (text, quoted) in [
            ("plain", "\"plain\""),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\u{1b}\u{7f}", "\"\\a\\b\\f\\n\\r\\t\\v\\x1b\\x7f\""),
            ("ä€😀e\u{301}", "\"ä€😀e\u{301}\""),
            (
                "\u{a0}\u{85}\u{200b}\u{feff}\u{e0001}",
                "\"\\u00a0\\u0085\\u200b\\ufeff\\U000e0001\"",
            ),
        ] {
            assert_eq!(go_quoted(text), quoted, "{text:?}");
        }
    }
}
