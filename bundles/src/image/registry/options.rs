//! How a user's pulls are made, and which places an image may come from by that.

use std::path::PathBuf;
use std::time::Duration;

use super::PullError;
use super::auth::Auth;
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::http::{Host, Security};
use super::places::{Place, Places, Where};
use super::tls::Trust;
use crate::image::Reference;

/// How images are pulled.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where logins are looked for; by default nowhere.
    pub credentials: Credentials,
    /// Mirrors and other places; by default none.
    pub places: Places,
    /// Speak without TLS, whatever host it is.
    pub plain_http: bool,
    /// Take whoever answers for the registry: TLS that is not verified, or none.
    pub insecure: bool,
    /// Directories with certificates (`certs.d`), each with a directory a registry.
    pub certificates: Vec<PathBuf>,
    /// The wait before a broken connection is tried again; doubled each time that nothing came.
    pub first_wait: Duration,
}

impl Default for Options {
    fn default() -> Options {
        let first_wait = Duration::from_millis(500);
        Options {
            credentials: Credentials::default(),
            places: Places::default(),
            plain_http: false,
            insecure: false,
            certificates: Vec::new(),
            first_wait,
        }
    }
}

impl Options {
    /// The places from which the image may come, in order.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint<'_>>, PullError> {
        match self.places.find(reference) {
            Where::At(places) => Ok(places.iter().map(|place| self.endpoint(place)).collect()),
            Where::Blocked(path) => Err(PullError::Blocked { image: reference.to_string(), path }),
        }
    }

    fn endpoint(&self, place: &Place) -> Endpoint<'_> {
        let name = &place.host;
        let host = if name == "docker.io" { "registry-1.docker.io" } else { name };
        let security = match (self.plain_http, self.insecure || place.insecure) {
            (true, _) => Security::Plain,
            (_, true) => Security::Insecure,
            _ if is_loopback(host) => Security::Loopback,
            _ => Security::Tls,
        };
        let trust = Trust { dirs: self.certificates.clone() };
        Endpoint {
            name: name.to_owned(),
            host: Host::new(host, security, trust),
            repository: place.repository.clone(),
            credentials: &self.credentials,
            auth: Auth::default(),
        }
    }
}

/// Whether a registry's name (with or without a port) is this machine's own.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
}
