//! Loads images from an archive: what `docker save` writes, and OCI layouts in a tar.
//!
//! An archive may come through a pipe and may name its layers before or after it says what they
//! are, so all of it is first put aside, on disk, in the store's own file system. Then each image
//! whose name it gives is unpacked like a pulled one, every digest checked. Names are only written
//! for images that are whole. An OCI layout may also be a directory, which is read where it is.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::digest::{Digest, Hasher};
use super::document::{self, Descriptor, Document, DocumentError};
use super::hold::Held;
use super::layer::{self, LayerError};
use super::members::Members;
use super::reference::{Reference, ReferenceError};
use super::store::{Record, Store, StoreError};
use super::tarball::TarError;
use super::{ImageConfig, Progress};

/// Indexes of indexes.
const MAX_DEPTH: usize = 8;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be decompressed.
    #[error("decompress archive")]
    Decompress(#[source] io::Error),
    /// It is no tar.
    #[error("read archive")]
    Tar(#[from] TarError),
    /// It is a tar, but not of images.
    #[error("not an image archive: it has neither manifest.json nor index.json")]
    Unknown,
    /// The directory cannot be read.
    #[error("read directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its images have no names.
    #[error("the archive gives its images no name; save it again with one (`docker save NAME`)")]
    Unnamed,
    /// A name in it is none.
    #[error("the archive names an image badly")]
    Name(#[from] ReferenceError),
    /// It speaks of a member that it does not have.
    #[error("the archive has no file {0:?}, which it says is part of an image")]
    Missing(String),
    /// A member is not what its digest says.
    #[error("the archive's {what} has {found}, but should have {expected}")]
    Mismatch {
        /// Which member.
        what: String,
        /// Digest or size.
        expected: String,
        /// Digest or size.
        found: String,
    },
    /// It has too many members, or one is too big for what it is.
    #[error("the archive's {0}")]
    TooMuch(String),
    /// `manifest.json` cannot be read.
    #[error("read the archive's manifest.json")]
    Json(#[source] serde_json::Error),
    /// A document of it is not taken.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer of it is not taken.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) type Result<T> = std::result::Result<T, LoadError>;

/// Loads all images of the archive `input`, which may be compressed, and gives their
/// canonical names.
pub fn load(
    store: &Store,
    input: impl Read,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<String>> {
    load_members(store, &Members::put_aside(store, input)?, progress)
}

/// Loads all images of an OCI layout that is a directory.
///
/// # Errors
/// [`LoadError`].
pub fn load_directory(
    store: &Store,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<String>> {
    load_members(store, &Members::of_directory(dir)?, progress)
}

fn load_members(
    store: &Store,
    members: &Members,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    // One by one, because an index may name the largest config and manifest twenty thousand times.
    for source in members.sources()? {
        let image = members.image(source)?;
        let (config, diff_ids) = document::config(&image.config)?;
        let by = format!("a load of {}", image.names[0]);
        let _hold = store.hold(&Held { by, id: None, layers: diff_ids.clone() })?;
        members.add_layers(store, &image, &diff_ids, progress)?;
        names.extend(image.name(store, config, diff_ids)?);
    }
    Ok(names)
}

/// Where the archive says that an image is.
#[derive(Debug)]
enum Source {
    /// An item of `manifest.json`.
    Docker { names: Vec<Reference>, config: String, layers: Vec<String> },
    /// An entry of `index.json`.
    Oci { name: Reference, entry: Descriptor },
}

/// An image of the archive.
#[derive(Debug)]
struct Found {
    names: Vec<Reference>,
    /// `None` in a `docker save` archive.
    manifest: Option<Digest>,
    config: Vec<u8>,
    /// The members that are its layers, lowest first, each with its digest if that is known.
    layers: Vec<(String, Option<Descriptor>)>,
    size: u64,
}

impl Found {
    /// Writes the image's names, by which it is here from now on.
    fn name(&self, store: &Store, config: ImageConfig, layers: Vec<Digest>) -> Result<Vec<String>> {
        let id = Digest::of(&self.config);
        let mut record = Record {
            reference: String::new(),
            manifest_digest: self.manifest.clone().unwrap_or_else(|| id.clone()),
            id,
            layers,
            config,
            size_bytes: self.size,
            patch: None,
        };
        let mut names = Vec::new();
        for name in &self.names {
            record.reference = name.canonical();
            store.put(name, &record)?;
            if let Some(digest) = &self.manifest {
                store.put(&name.with_digest(digest), &record)?;
            }
            names.push(name.canonical());
        }
        Ok(names)
    }
}

impl Members {
    fn sources(&self) -> Result<Vec<Source>> {
        // docker writes both since version 25; an OCI index knows the manifest's digest.
        let mut sources = Vec::new();
        if self.has("index.json") {
            sources = self.oci_sources()?;
        }
        if sources.is_empty() && self.has("manifest.json") {
            sources = self.docker_sources()?;
        }
        if sources.is_empty() {
            let is_known = self.has("index.json") || self.has("manifest.json");
            return Err(if is_known { LoadError::Unnamed } else { LoadError::Unknown });
        }
        Ok(sources)
    }

    fn docker_sources(&self) -> Result<Vec<Source>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Option<Vec<String>>,
        }
        let bytes = self.read("manifest.json")?;
        let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(LoadError::Json)?;
        let mut sources = Vec::new();
        for item in items {
            let tags = item.repo_tags.unwrap_or_default();
            let names =
                tags.iter().map(|t| Reference::parse(t)).collect::<std::result::Result<_, _>>()?;
            if !tags.is_empty() {
                let layers = item.layers.unwrap_or_default();
                sources.push(Source::Docker { names, config: item.config, layers });
            }
        }
        Ok(sources)
    }

    fn oci_sources(&self) -> Result<Vec<Source>> {
        let Document::Index(entries) = Document::parse(&self.read("index.json")?)? else {
            let why = "index.json is no index".into();
            return Err(DocumentError::Refused { what: "index", why }.into());
        };
        let mut sources = Vec::new();
        for entry in entries {
            let is_ours = entry.platform.as_ref().is_none_or(document::Platform::is_ours);
            if let Some(name) = name(&entry).filter(|_| is_ours) {
                sources.push(Source::Oci { name: Reference::parse(name)?, entry });
            }
        }
        Ok(sources)
    }

    fn image(&self, source: Source) -> Result<Found> {
        match source {
            Source::Docker { names, config, layers } => self.docker_image(names, &config, layers),
            Source::Oci { name, entry } => self.oci_image(name, entry),
        }
    }

    fn docker_image(
        &self,
        names: Vec<Reference>,
        config_name: &str,
        layers: Vec<String>,
    ) -> Result<Found> {
        let config = self.read(config_name)?;
        check_name(config_name, &Digest::of(&config))?;
        let mut size = config.len() as u64;
        for layer in &layers {
            size += self.size(layer)?;
        }
        let layers = layers.into_iter().map(|layer| (layer, None)).collect();
        Ok(Found { names, manifest: None, config, layers, size })
    }

    fn oci_image(&self, name: Reference, mut entry: Descriptor) -> Result<Found> {
        for _ in 0..MAX_DEPTH {
            match Document::parse(&self.blob(&entry)?)? {
                Document::Index(manifests) => entry = document::choose(&manifests)?.clone(),
                Document::Manifest { config, layers } => {
                    let size = layers.iter().fold(config.size, |sum, l| sum.saturating_add(l.size));
                    return Ok(Found {
                        names: vec![name],
                        manifest: Some(entry.digest),
                        config: self.blob(&config)?,
                        layers: layers
                            .into_iter()
                            .map(|l| (blob_path(&l.digest), Some(l)))
                            .collect(),
                        size,
                    });
                }
            }
        }
        Err(LoadError::TooMuch("indexes point to indexes without end".into()))
    }

    fn add_layers(
        &self,
        store: &Store,
        image: &Found,
        diff_ids: &[Digest],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        if image.layers.len() != diff_ids.len() {
            return Err(LoadError::Mismatch {
                what: format!("image {}", image.names[0]),
                expected: format!("{} layers as its config says", diff_ids.len()),
                found: format!("{} layers", image.layers.len()),
            });
        }
        let missing = diff_ids.iter().filter(|id| !store.has_layer(id)).count();
        progress(Progress::Resolved { layers: missing, bytes: image.size });
        for ((member, descriptor), diff_id) in image.layers.iter().zip(diff_ids) {
            if store.has_layer(diff_id) {
                continue;
            }
            let digest = String::from(diff_id.clone());
            let mut waiting = || progress(Progress::Waiting { digest: digest.clone() });
            let _lock = store.lock_layer(diff_id, &mut waiting)?;
            if let Some(descriptor) = descriptor {
                self.check(member, descriptor)?;
            }
            let summary = layer::add(store, diff_id, self.open(member)?)?;
            if summary.devices_left_out > 0 {
                let devices = summary.devices_left_out;
                progress(Progress::LeftOut { digest: digest.clone(), devices });
            }
            progress(Progress::Unpacked { digest });
        }
        Ok(())
    }

    /// A document that a descriptor points to.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = blob_path(&descriptor.digest);
        let bytes = self.read(&path)?;
        // Of the bytes that are used, and not of a file that somebody may change meanwhile.
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            let (expected, found) = (descriptor.digest.to_string(), found.to_string());
            return Err(LoadError::Mismatch { what: path, expected, found });
        }
        Ok(bytes)
    }

    /// Whether a member has the size and the digest that it should have.
    fn check(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        let mismatch = |expected: String, found: String| {
            Err(LoadError::Mismatch { what: name.into(), expected, found })
        };
        let size = self.size(name)?;
        if size != descriptor.size {
            return mismatch(format!("{} bytes", descriptor.size), format!("{size} bytes"));
        }
        let mut file = self.open(name)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) => return Err(LoadError::Tar(TarError::Read(error))),
            }
        }
        let found = hasher.finish();
        if found != descriptor.digest {
            return mismatch(descriptor.digest.to_string(), found.to_string());
        }
        Ok(())
    }
}

/// The name that an index gives an image: containerd's annotation holds a whole name always, the
/// standard one in what podman, skopeo and docker write.
fn name(entry: &Descriptor) -> Option<&String> {
    let annotations = entry.annotations.as_ref()?;
    annotations
        .get("io.containerd.image.name")
        .or_else(|| annotations.get("org.opencontainers.image.ref.name"))
}

/// The digest in a config's file name, if there is one, must be its own.
fn check_name(name: &str, found: &Digest) -> Result<()> {
    let stem = name.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    match Digest::parse(&format!("sha256:{stem}")) {
        Ok(expected) if expected != *found => Err(LoadError::Mismatch {
            what: name.into(),
            expected: expected.into(),
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_named_by_another_digest_is_refused() {
        let digest = Digest::of(b"config");
        assert!(check_name(&format!("{}.json", digest.hex()), &digest).is_ok());
        assert!(check_name(&blob_path(&digest), &digest).is_ok());
        assert!(check_name("config.json", &digest).is_ok());
        assert!(check_name(&blob_path(&Digest::of(b"other")), &digest).is_err());
    }
}
