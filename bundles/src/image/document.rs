//! Reads an image's documents: manifest, index and config (OCI image-spec; Docker's schema 2 has
//! the same fields).
//!
//! They are read strictly where two readers could see two images: a document that is both an index
//! and a manifest (CVE-2021-41190) and doubled fields are refused. The caller has checked the digest.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImageConfig;
use super::digest::Digest;

/// Bytes of a document; containerd's and containers/image's limit.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Layers of an image: overlayfs takes 500 lower directories, and docker makes 127 at most.
const MAX_LAYERS: usize = 500;

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON, or misses what it must have.
    #[error("the image's {what} cannot be read")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It contradicts itself or is of an unknown kind.
    #[error("the image's {what} is refused: {why}")]
    Refused {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// An index has nothing for this machine.
    #[error("the image is not made for {wanted}, only for {found}")]
    Platform {
        /// `linux/<architecture>`.
        wanted: String,
        /// What there is.
        found: String,
    },
}

type Result<T> = std::result::Result<T, DocumentError>;

/// What an index or a manifest points to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// For which machines an image is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

/// An index or a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

impl Document {
    /// Reads an index or a manifest.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document> {
        const WHAT: &str = "manifest";
        let refused = |why: &str| Err(DocumentError::Refused { what: WHAT, why: why.into() });
        let raw: RawDocument = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Json { what: WHAT, source })?;
        if raw.schema_version != 2 || raw.fs_layers.is_some() {
            return refused("only schema version 2 is supported");
        }
        let says_index = raw.media_type.contains("index") || raw.media_type.contains("list");
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => {
                if !raw.media_type.is_empty() && !says_index {
                    return refused("it is an index, but its media type says otherwise");
                }
                Ok(Document::Index(manifests))
            }
            (None, Some(config), Some(layers)) => {
                if says_index {
                    return refused("it is a manifest, but its media type says otherwise");
                }
                if layers.len() > MAX_LAYERS {
                    return refused("it has more than 500 layers");
                }
                Ok(Document::Manifest { config, layers })
            }
            (Some(_), _, _) => refused("it has both `manifests` and `config` or `layers`"),
            (None, _, _) => refused("it has neither `manifests` nor `config` and `layers`"),
        }
    }
}

/// The first of an index's manifests that runs on this machine.
pub(crate) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor> {
    let ours = |d: &&Descriptor| d.platform.as_ref().is_some_and(Platform::is_ours);
    // An archive of one image often has an index that names no platform.
    let only = || manifests.iter().find(|d| manifests.len() == 1 && d.platform.is_none());
    manifests.iter().find(ours).or_else(only).ok_or_else(|| {
        let name =
            |d: &Descriptor| d.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture));
        let found: Vec<String> = manifests.iter().filter_map(name).take(20).collect();
        DocumentError::Platform {
            wanted: format!("linux/{}", architecture()),
            found: if found.is_empty() { "nothing".into() } else { found.join(", ") },
        }
    })
}

impl Platform {
    /// Whether it is this machine's.
    pub(crate) fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == architecture()
    }
}

/// This machine's architecture in the words of Go, which are the image-spec's.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: String,
    config: Option<RawExecution>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    // Go writes an empty list as null.
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawExecution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
}

/// Reads an image's config: how to run it, and its layers' diffIDs, lowest first.
pub(crate) fn config(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>)> {
    const WHAT: &str = "config";
    let refused = |why: String| DocumentError::Refused { what: WHAT, why };
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(refused(format!("it has more than {MAX_DOCUMENT} bytes")));
    }
    let raw: RawConfig = serde_json::from_slice(bytes)
        .map_err(|source| DocumentError::Json { what: WHAT, source })?;
    if !raw.os.is_empty() && raw.os != "linux" {
        return Err(refused(format!("the image is for {:?}, not for linux", raw.os)));
    }
    let run = raw.config.unwrap_or_default();
    let config = ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
    };
    let lists = [&config.entrypoint, &config.cmd, &config.env];
    let texts = lists.into_iter().flatten().chain([&config.working_dir, &config.user]);
    if texts.chain(&config.stop_signal).any(|text| text.contains('\0')) {
        return Err(refused("a text in it has a NUL byte, which no process can be given".into()));
    }
    Ok((config, raw.rootfs.diff_ids.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(extra: &str) -> String {
        format!(r#"{{"digest":"{}","size":1{extra}}}"#, Digest::of(b"x"))
    }

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        let d = descriptor("");
        for text in [
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_string(),
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{d}}}"#),
            format!(r#"{{"schemaVersion":2,"manifests":[{d}],"config":{d},"layers":[{d}]}}"#),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{d},"layers":[]}}"#
            ),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#.to_string(),
            format!(r#"{{"schemaVersion":2,"config":{d}}}"#),
            r#"{"schemaVersion":2}"#.into(),
            r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, DocumentError::Refused { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_doubled_field_and_a_bad_digest_are_refused() {
        let d = descriptor("");
        for text in [
            format!(r#"{{"schemaVersion":2,"config":{d},"config":{d},"layers":[]}}"#),
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../../etc","size":1}]}"#.into(),
            r#"{"schemaVersion":2,"manifests":[{"digest":"x","size":-1}]}"#.into(),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, DocumentError::Json { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn an_index_gives_the_manifest_for_this_machine() {
        let platform = |arch: &str| {
            descriptor(&format!(r#","platform":{{"architecture":"{arch}","os":"linux"}}"#))
        };
        let text =
            |list: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, list.join(","));
        let parse = |list: &[String]| match Document::parse(text(list).as_bytes()).unwrap() {
            Document::Index(manifests) => manifests,
            Document::Manifest { .. } => panic!("an index"),
        };
        let both = parse(&[platform("z80"), platform(architecture())]);
        assert_eq!(choose(&both).unwrap(), &both[1]);
        let error = choose(&parse(&[platform("z80")])).unwrap_err().to_string();
        assert!(error.contains("only for linux/z80"), "{error}");
        let bare = parse(&[descriptor("")]);
        assert_eq!(choose(&bare).unwrap(), &bare[0]);
    }

    #[test]
    fn a_config_keeps_what_a_container_needs_and_no_labels() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Entrypoint":["/e"],"Cmd":null,
            "Env":["A=b"],"WorkingDir":"/w","User":"1:2","StopSignal":"SIGQUIT","Volumes":{{"/v":{{}}}},
            "Labels":{{"x":"y"}},"ExposedPorts":{{"80/tcp":{{}}}}}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}}"#,
            Digest::of(b"layer")
        );
        let (config, layers) = config(text.as_bytes()).unwrap();
        assert_eq!(layers, [Digest::of(b"layer")]);
        assert_eq!(config.entrypoint, ["/e"]);
        assert_eq!(config.cmd, [""; 0]);
        assert_eq!(config.env, ["A=b"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/w", "1:2"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn a_config_of_another_system_with_a_nul_or_too_long_is_refused() {
        for text in [
            r#"{"os":"windows","rootfs":{"diff_ids":[]}}"#.to_owned(),
            r#"{"config":{"Env":["A=\u0000"]},"rootfs":{"diff_ids":[]}}"#.to_owned(),
            format!(r#"{{"rootfs":{{"diff_ids":[]}},"x":"{}"}}"#, "y".repeat(4 << 20)),
        ] {
            let error = config(text.as_bytes()).unwrap_err();
            assert!(matches!(error, DocumentError::Refused { .. }), "{error}");
        }
    }
}
