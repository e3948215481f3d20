//! Whom a registry's certificate may be signed by: this host's authorities, and those that its
//! administrator put beside a registry's name (`certs.d`, as docker, podman and containerd read it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file or directory cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no certificate or key.
    #[error("{} is no certificate or key in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
    },
    /// A certificate to log in with has no key, or a key no certificate.
    #[error("{} is there but {} is not", have.display(), missing.display())]
    Pair {
        /// What is there.
        have: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
}

/// Where certificates are looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// Directories that have one for each registry, named as it is with its port.
    pub(super) dirs: Vec<PathBuf>,
}

impl Trust {
    /// Whether somebody put anything there for `host`.
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.dirs.iter().any(|dir| dir.join(host).is_dir())
    }

    /// How to speak TLS with `host`. Reads files: tens of milliseconds.
    pub(super) fn config(&self, host: &str, verified: bool) -> Result<TlsConfig, TrustError> {
        let mut roots = Vec::new();
        let mut client = None;
        for dir in self.dirs.iter().map(|dir| dir.join(host)) {
            for path in listed(&dir)? {
                match path.extension().and_then(|e| e.to_str()) {
                    Some("crt") => roots.extend(certificates(&path)?),
                    Some("cert") => client = Some(pair(&path, &path.with_extension("key"))?),
                    Some("key") if !path.with_extension("cert").exists() => {
                        let missing = path.with_extension("cert");
                        return Err(TrustError::Pair { have: path, missing });
                    }
                    _ => {}
                }
            }
        }
        if verified {
            // What is odd among the host's own does not matter: the others are enough, or the
            // registry's certificate is not trusted, which is told.
            let native = rustls_native_certs::load_native_certs().certs;
            roots.extend(native.iter().map(|c| Certificate::from_der(c).to_owned()));
        }
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(client)
            .disable_verification(!verified)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }
}

/// A directory's files in the order of their names; none if it is not there.
fn listed(dir: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let failed = |source| TrustError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(failed(source)),
    };
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TrustError> {
    let bytes = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(TrustError::Pem { path: path.to_owned() }),
        }
    }
    if found.is_empty() {
        return Err(TrustError::Pem { path: path.to_owned() });
    }
    Ok(found)
}

fn pair(certificate: &Path, key: &Path) -> Result<ClientCert, TrustError> {
    if !key.exists() {
        let (have, missing) = (certificate.to_owned(), key.to_owned());
        return Err(TrustError::Pair { have, missing });
    }
    let chain = certificates(certificate)?;
    let key =
        PrivateKey::from_pem(&read(key)?).map_err(|_| TrustError::Pem { path: key.to_owned() })?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })
}
