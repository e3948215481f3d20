//! Pulling an image from its registry, or from a mirror of it.
//!
//! Nothing that a registry says is believed: each document and blob is what its digest says, and
//! each layer what the image's config says (diffID). A blob comes to disk first ([`blob`]), so that
//! a broken connection or a killed process loses nothing of it, and is unpacked when it is whole and
//! right. A pull that dies leaves whole layers, beginnings of blobs, or nothing.
//!
//! The protocol is the OCI distribution-spec's, spoken here over a plain HTTP client, because what
//! matters of it is in no client library: resuming, bounds on what is read into memory, mirrors, and
//! who may see a password. It blocks. Called by `podshim pull`, which a shim starts as a child.

mod auth;
mod blob;
pub mod credentials;
mod endpoint;
mod failure;
mod http;
mod layers;
mod options;
pub mod places;
mod tls;
mod url;

use std::time::Duration;

pub use auth::AuthError;
pub use endpoint::EndpointError;
pub use failure::HttpError;
pub use options::Options;
pub use tls::TrustError;

use self::endpoint::Endpoint;
use self::options::is_loopback;
use super::digest::Digest;
use super::document::{self, Descriptor, Document, DocumentError, MAX_DOCUMENT};
use super::hold::Held;
use super::layer::LayerError;
use super::store::{Record, StoreError};
use super::{Image, ImageConfig, Progress, Reference, Store};

/// Indexes may point to indexes, but not without end.
const MAX_DEPTH: usize = 3;
/// How often a manifest is asked for at one place when the connection breaks.
const MANIFEST_ATTEMPTS: u32 = 2;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No place that has it answers.
    #[error("cannot reach registry {registry} for {image}; is the name right and the network up?")]
    Unreachable {
        /// Its name.
        registry: String,
        /// The image.
        image: String,
        /// Why.
        source: Box<EndpointError>,
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
        source: Box<EndpointError>,
    },
    /// Several places were asked, and none gives it.
    #[error("nobody gives {what} of {image}: {}", list(failures))]
    Nobody {
        /// The manifest, a layer, ….
        what: &'static str,
        /// The image.
        image: String,
        /// Each place, in the order in which they were asked, and why not.
        failures: Vec<(String, EndpointError)>,
    },
    /// The host's administrator does not want it.
    #[error("{image} is not pulled: its registry is blocked in {}", path.display())]
    Blocked {
        /// The image.
        image: String,
        /// The file that says so.
        path: std::path::PathBuf,
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
    /// Given up because something else of the image cannot be had.
    #[error("given up")]
    Stopped,
}

fn list(failures: &[(String, EndpointError)]) -> String {
    let each = failures.iter().map(|(place, error)| format!("{place}: {}", error.chain()));
    each.collect::<Vec<_>>().join("; ")
}

impl PullError {
    /// Whether the registry could not be asked, so that what is here may still be right.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            PullError::Unreachable { .. } => true,
            PullError::Nobody { failures, .. } => failures.iter().all(|(_, e)| e.is_transient()),
            _ => false,
        }
    }
}

type Result<T> = std::result::Result<T, PullError>;

/// Pulls an image and gives it its name. What is here of it is not fetched again.
///
/// # Errors
/// [`PullError`].
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Image> {
    let mut source = Source {
        endpoints: options.endpoints(reference)?,
        image: reference.to_string(),
        first_wait: options.first_wait,
    };
    let manifest = source.manifest(reference)?;
    let (config, diff_ids) = source.config(store, &manifest.config)?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(source.mismatch(
            "the config",
            format!("{} layers", manifest.layers.len()),
            format!("{} diffIDs", diff_ids.len()),
        ));
    }
    // From here on nobody removes what is here, though no name says yet that it is needed.
    let by = format!("a pull of {}", source.image);
    let _hold = store.hold(&Held { by, id: None, layers: diff_ids.clone() })?;
    let all = manifest.layers.iter().zip(&diff_ids);
    let mut missing: Vec<layers::Layer<'_>> = Vec::new();
    for (descriptor, diff_id) in all.filter(|(_, diff_id)| !store.has_layer(diff_id)) {
        // An image may have a layer twice.
        if !missing.iter().any(|(_, known)| *known == diff_id) {
            missing.push((descriptor, diff_id));
        }
    }
    let size_bytes =
        manifest.layers.iter().fold(manifest.config.size, |sum, l| sum.saturating_add(l.size));
    let bytes = missing.iter().fold(0_u64, |sum, (layer, _)| sum.saturating_add(layer.size));
    progress(Progress::Resolved { layers: missing.len(), bytes });
    layers::bring(store, &source, &missing, progress)?;
    let record = Record {
        reference: String::new(),
        manifest_digest: manifest.digest.clone(),
        id: manifest.config.digest,
        layers: diff_ids,
        config,
        size_bytes,
        patch: None,
    };
    store.put(&reference.with_digest(&manifest.digest), &record)?;
    Ok(store.put(reference, &record)?)
}

/// An image's manifest for this machine.
struct Manifest {
    digest: Digest,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Where one image comes from.
struct Source<'a> {
    /// In the order in which they are asked.
    endpoints: Vec<Endpoint<'a>>,
    image: String,
    first_wait: Duration,
}

impl Source<'_> {
    /// Asks one place after the other. Who gave the manifest is asked first from then on.
    fn manifest(&mut self, reference: &Reference) -> Result<Manifest> {
        let mut failures = Vec::new();
        for at in 0..self.endpoints.len() {
            match self.manifest_at(&self.endpoints[at], reference)? {
                Ok(manifest) => {
                    self.endpoints[..=at].rotate_right(1);
                    return Ok(manifest);
                }
                Err(error) => failures.push((self.endpoints[at].name.clone(), error)),
            }
        }
        Err(self.failed("the manifest", failures))
    }

    fn manifest_at(
        &self,
        endpoint: &Endpoint<'_>,
        reference: &Reference,
    ) -> Result<std::result::Result<Manifest, EndpointError>> {
        let mut name = reference.digest().or(reference.tag()).unwrap_or("latest").to_owned();
        for _ in 0..MAX_DEPTH {
            let bytes = match self.manifest_bytes(endpoint, &name) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let digest = Digest::of(&bytes);
            if let Some(wanted) = Digest::parse(&name).ok().filter(|wanted| *wanted != digest) {
                return Ok(Err(EndpointError::digest("the manifest", &wanted, &digest)));
            }
            match Document::parse(&bytes).map_err(|e| self.bad_document(e))? {
                Document::Manifest { config, layers } => {
                    return Ok(Ok(Manifest { digest, config, layers }));
                }
                Document::Index(manifests) => {
                    let chosen = document::choose(&manifests).map_err(|e| self.bad_document(e))?;
                    name = chosen.digest.to_string();
                }
            }
        }
        let why = "indexes point to indexes without end".into();
        Err(self.bad_document(DocumentError::Refused { what: "index", why }))
    }

    fn manifest_bytes(
        &self,
        endpoint: &Endpoint<'_>,
        name: &str,
    ) -> std::result::Result<Vec<u8>, EndpointError> {
        let mut attempt = 1;
        loop {
            match endpoint.manifest(name) {
                // Who cannot be connected to is told at once: it is known here what to do then.
                Err(error) if error.breaks() && attempt < MANIFEST_ATTEMPTS => {
                    std::thread::sleep(self.first_wait);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// How the image is run and its layers' diffIDs: from the store, if any image there has it.
    fn config(&self, store: &Store, config: &Descriptor) -> Result<(ImageConfig, Vec<Digest>)> {
        if let Some(known) = store.config(&config.digest)? {
            return Ok(known);
        }
        if config.size > MAX_DOCUMENT {
            let why = format!("it has more than {MAX_DOCUMENT} bytes");
            return Err(self.bad_document(DocumentError::Refused { what: "config", why }));
        }
        let bytes = blob::document(self, config, "the config")?;
        document::config(&bytes).map_err(|e| self.bad_document(e))
    }

    /// The first answer that is one.
    fn try_all<T>(
        &self,
        what: &'static str,
        ask: &dyn Fn(&Endpoint<'_>) -> std::result::Result<T, EndpointError>,
    ) -> Result<T> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            let mut result = ask(endpoint);
            if result.as_ref().is_err_and(EndpointError::breaks) {
                std::thread::sleep(self.first_wait);
                result = ask(endpoint);
            }
            match result {
                Ok(found) => return Ok(found),
                Err(error) => failures.push((endpoint.name.clone(), error)),
            }
        }
        Err(self.failed(what, failures))
    }

    fn failed(&self, what: &'static str, mut failures: Vec<(String, EndpointError)>) -> PullError {
        let image = self.image.clone();
        match failures.pop() {
            Some((registry, source)) if failures.is_empty() => {
                if let EndpointError::Digest { what, expected, found } = source {
                    return PullError::Mismatch { what, image, expected, found };
                }
                let source = Box::new(source);
                match source.is_transient() {
                    true => PullError::Unreachable { registry, image, source },
                    false => PullError::Refused { registry, what, image, source },
                }
            }
            last => {
                failures.extend(last);
                PullError::Nobody { what, image, failures }
            }
        }
    }

    fn bad_document(&self, source: DocumentError) -> PullError {
        PullError::Document { image: self.image.clone(), source: Box::new(source) }
    }

    fn mismatch(&self, what: &'static str, expected: String, found: String) -> PullError {
        PullError::Mismatch { what, image: self.image.clone(), expected, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_not_there_is_told_from_one_that_refuses() {
        // Port 1 of loopback: nobody listens there, and the kernel says so at once.
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let reference = Reference::parse("127.0.0.1:1/nobody/here:1").unwrap();
        let error = pull(&store, &reference, &Options::default(), &mut |_| {}).unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
    }
}
