//! Pulling an image from its registry, anonymously.
//!
//! Nothing that a registry says is believed: each document and blob is what its digest says, each
//! layer what the image's config says (diffID), and a layer goes through digest, decompression and
//! unpacking in one stream, whatever its size. A pull that dies leaves whole layers or nothing.
//!
//! HTTPS with the host's certificates; plain HTTP for registries on loopback. It blocks, and brings
//! its own single-threaded event loop. Called by `podshim pull`, which a shim starts as a child.

use std::io::{self, Read};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio::runtime::Runtime;

use super::digest::{Digest, HashingReader};
use super::document::{self, Descriptor, Document, DocumentError};
use super::layer::{self, LayerError};
use super::store::{Record, StoreError};
use super::{Image, Progress, Reference, Store};

/// How long a registry may take to answer the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may send nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Indexes may point to indexes, but not without end.
const MAX_DEPTH: usize = 3;
/// The largest manifest or config, as containerd has it.
const MAX_DOCUMENT: u64 = 4 << 20;
const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No event loop, no certificates: nothing was asked.
    #[error("cannot begin to pull {image}")]
    Begin {
        /// The image.
        image: String,
        /// Why.
        source: io::Error,
    },
    /// The registry does not answer.
    #[error("cannot reach registry {registry} for {image}; is the name right and the network up?")]
    Unreachable {
        /// Its name.
        registry: String,
        /// The image.
        image: String,
        /// Why.
        source: Box<OciDistributionError>,
    },
    /// It answers with a refusal, or the image is not there.
    #[error("registry {registry} does not give {what} of {image}")]
    Refused {
        /// Its name.
        registry: String,
        /// The manifest, a layer, ….
        what: &'static str,
        /// The image.
        image: String,
        /// Why.
        source: Box<OciDistributionError>,
    },
    /// A manifest or config cannot be used.
    #[error("image {image}")]
    Document {
        /// The image.
        image: String,
        /// Why.
        source: Box<DocumentError>,
    },
    /// Something is not what its digest or size says.
    #[error("{what} of {image} is not what it should be: expected {expected}, found {found}")]
    Mismatch {
        /// The manifest, a layer, ….
        what: &'static str,
        /// The image.
        image: String,
        /// Digest or size.
        expected: String,
        /// Digest or size.
        found: String,
    },
    /// A layer did not get into the store.
    #[error("layer {digest} of {image}")]
    Layer {
        /// The layer's digest in the registry.
        digest: String,
        /// The image.
        image: String,
        /// Why.
        source: Box<LayerError>,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// Whether the registry could not be asked, so that what is here may still be right.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, PullError::Unreachable { .. })
    }
}

type Result<T> = std::result::Result<T, PullError>;

/// Pulls an image and gives it its name. Layers that are here are not fetched again.
///
/// # Errors
/// [`PullError`].
pub fn pull(
    store: &Store,
    reference: &Reference,
    progress: &mut dyn FnMut(Progress),
) -> Result<Image> {
    let registry = Registry::new(reference)?;
    let (manifest_digest, config, layers) = registry.manifest()?;
    let config_bytes = registry.document(&config, "the config")?;
    let (image_config, diff_ids) =
        document::config(&config_bytes).map_err(|e| registry.bad_document(e))?;
    if diff_ids.len() != layers.len() {
        return Err(registry.mismatch(
            "the config",
            format!("{} layers", layers.len()),
            format!("{} diffIDs", diff_ids.len()),
        ));
    }
    let missing = diff_ids.iter().filter(|id| !store.has_layer(id)).count();
    let size_bytes = layers.iter().fold(config.size, |sum, l| sum.saturating_add(l.size));
    progress(Progress::Resolved { layers: missing, bytes: size_bytes });
    for (descriptor, diff_id) in layers.iter().zip(&diff_ids) {
        registry.layer(store, descriptor, diff_id, progress)?;
    }
    let record = Record {
        reference: String::new(),
        manifest_digest: manifest_digest.clone(),
        id: config.digest,
        layers: diff_ids,
        config: image_config,
        size_bytes,
    };
    store.put(&reference.with_digest(&manifest_digest), &record)?;
    Ok(store.put(reference, &record)?)
}

/// One registry, being asked for one image.
struct Registry {
    runtime: Runtime,
    client: Client,
    image: oci_client::Reference,
    registry: String,
    name: String,
}

impl Registry {
    fn new(reference: &Reference) -> Result<Registry> {
        let name = reference.to_string();
        let begin = |source| PullError::Begin { image: name.clone(), source };
        // Somebody in this process may have done it already: any provider will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(begin)?;
        let registry = reference.registry().to_owned();
        let protocol =
            if is_loopback(&registry) { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = Client::try_from(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            ..ClientConfig::default()
        })
        .map_err(|e| PullError::Begin { image: name.clone(), source: io::Error::other(e) })?;
        let repository = reference.repository().to_owned();
        let image = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                oci_client::Reference::with_digest(registry.clone(), repository, digest.to_string())
            }
            (None, tag) => oci_client::Reference::with_tag(
                registry.clone(),
                repository,
                tag.unwrap_or("latest").to_owned(),
            ),
        };
        Ok(Registry { runtime, client, image, registry, name })
    }

    /// The manifest for this machine: its digest, its config and its layers.
    fn manifest(&self) -> Result<(Digest, Descriptor, Vec<Descriptor>)> {
        let mut image = self.image.clone();
        let mut expected = None;
        for _ in 0..MAX_DEPTH {
            let bytes = self.manifest_bytes(&image)?;
            let found = Digest::of(&bytes);
            let wanted = expected.take().or_else(|| Digest::parse(image.digest()?).ok());
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let (wanted, found) = (wanted.to_string(), found.to_string());
                return Err(self.mismatch("the manifest", wanted, found));
            }
            match Document::parse(&bytes).map_err(|e| self.bad_document(e))? {
                Document::Manifest { config, layers } => return Ok((found, config, layers)),
                Document::Index(manifests) => {
                    let chosen = document::choose(&manifests).map_err(|e| self.bad_document(e))?;
                    image = self.image.clone_with_digest(chosen.digest.to_string());
                    expected = Some(chosen.digest.clone());
                }
            }
        }
        let why = "indexes point to indexes without end".into();
        Err(self.bad_document(DocumentError::Refused { what: "index", why }))
    }

    fn manifest_bytes(&self, image: &oci_client::Reference) -> Result<Vec<u8>> {
        let (bytes, _) = self
            .runtime
            .block_on(self.client.pull_manifest_raw(
                image,
                &RegistryAuth::Anonymous,
                &MANIFEST_TYPES,
            ))
            .map_err(|e| self.failed("the manifest", e))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let why = format!("it has more than {MAX_DOCUMENT} bytes");
            return Err(self.bad_document(DocumentError::Refused { what: "manifest", why }));
        }
        Ok(bytes.to_vec())
    }

    /// A small blob, whole.
    fn document(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>> {
        if descriptor.size > MAX_DOCUMENT {
            let why = format!("it has more than {MAX_DOCUMENT} bytes");
            return Err(self.bad_document(DocumentError::Refused { what: "config", why }));
        }
        let mut bytes = Vec::new();
        let mut reader = self.open(descriptor, what)?.take(descriptor.size + 1);
        reader.read_to_end(&mut bytes).map_err(|e| self.failed(what, e.into()))?;
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            return Err(self.mismatch(what, descriptor.digest.to_string(), found.to_string()));
        }
        Ok(bytes)
    }

    fn layer(
        &self,
        store: &Store,
        descriptor: &Descriptor,
        diff_id: &Digest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        if store.has_layer(diff_id) {
            return Ok(());
        }
        let digest = descriptor.digest.to_string();
        let mut waiting = || progress(Progress::Waiting { digest: digest.clone() });
        let _lock = store.lock_layer(diff_id, &mut waiting)?;
        let stream = self.open(descriptor, "a layer")?;
        let mut told = |done| {
            progress(Progress::Layer { digest: digest.clone(), done, total: descriptor.size });
        };
        let counted = Counted { inner: stream, done: 0, told: &mut told };
        let mut hashed = HashingReader::new(counted, descriptor.size);
        layer::add(store, diff_id, &mut hashed).map_err(|source| PullError::Layer {
            digest: digest.clone(),
            image: self.name.clone(),
            source: Box::new(source),
        })?;
        // What the decompressor left (padding after the last member) belongs to the digest too.
        io::copy(&mut hashed, &mut io::sink()).map_err(|e| self.failed("a layer", e.into()))?;
        let found = hashed.finish();
        if found != descriptor.digest {
            return Err(self.mismatch("a layer", digest, found.to_string()));
        }
        progress(Progress::Unpacked { digest });
        Ok(())
    }

    fn open(&self, descriptor: &Descriptor, what: &'static str) -> Result<Stream<'_>> {
        let blob = OciDescriptor {
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let sized = self
            .runtime
            .block_on(self.client.pull_blob_stream(&self.image, &blob))
            .map_err(|e| self.failed(what, e))?;
        let chunks = sized.stream.map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Ok(Stream { runtime: &self.runtime, chunks, chunk: Vec::new(), at: 0, ended: false })
    }

    fn failed(&self, what: &'static str, source: OciDistributionError) -> PullError {
        let source = Box::new(source);
        let (registry, image) = (self.registry.clone(), self.name.clone());
        let unreachable = match &*source {
            OciDistributionError::RequestError(e) => e.is_connect() || e.is_timeout(),
            OciDistributionError::ServerError { code, .. } => *code >= 500,
            _ => false,
        };
        if unreachable {
            PullError::Unreachable { registry, image, source }
        } else {
            PullError::Refused { registry, what, image, source }
        }
    }

    fn bad_document(&self, source: DocumentError) -> PullError {
        PullError::Document { image: self.name.clone(), source: Box::new(source) }
    }

    fn mismatch(&self, what: &'static str, expected: String, found: String) -> PullError {
        PullError::Mismatch { what, image: self.name.clone(), expected, found }
    }
}

/// Whether a registry's name (with or without a port) is this machine's own.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A blob as a blocking reader.
struct Stream<'a> {
    runtime: &'a Runtime,
    chunks: BoxStream<'static, io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    /// The stream must not be asked again: it would check the digest of nothing.
    ended: bool,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            let next = async { tokio::time::timeout(SILENCE, self.chunks.next()).await };
            match self.runtime.block_on(next) {
                Ok(Some(chunk)) => (self.chunk, self.at) = (chunk?, 0),
                Ok(None) => self.ended = true,
                Err(_) => {
                    let why = format!("the registry sent nothing for {}s", SILENCE.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Tells how far a blob is.
struct Counted<'a, R> {
    inner: R,
    done: u64,
    told: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.told)(self.done);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]
        {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["docker.io", "localhost.example.org", "10.0.0.1:5000", "[::2]:5000"] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn a_registry_that_is_not_there_is_told_from_one_that_refuses() {
        // Port 1 of loopback: nobody listens there, and the kernel says so at once.
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let reference = Reference::parse("127.0.0.1:1/nobody/here:1").unwrap();
        let error = pull(&store, &reference, &mut |_| {}).unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
    }
}
