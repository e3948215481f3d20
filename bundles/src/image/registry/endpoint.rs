//! One place from which an image may come: the registry itself, or a mirror of it.

use std::time::Duration;

use super::auth::{Auth, AuthError};
use super::credentials::Credentials;
use super::failure::HttpError;
use super::http::{Answer, Host, Question};
use crate::image::digest::Digest;
use crate::image::document::MAX_DOCUMENT;

const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why one place did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The login failed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// It gives something else than was asked for.
    #[error("{what} that it gives has digest {found} and not {expected}")]
    Digest {
        /// The manifest, a layer, ….
        what: &'static str,
        /// The digest that was asked for.
        expected: String,
        /// That of what it gives.
        found: String,
    },
}

impl EndpointError {
    pub(super) fn digest(what: &'static str, expected: &Digest, found: &Digest) -> EndpointError {
        let (expected, found) = (expected.to_string(), found.to_string());
        EndpointError::Digest { what, expected, found }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            EndpointError::Http(error) => error.is_transient(),
            EndpointError::Auth(AuthError::Token { source, .. }) => source.is_transient(),
            EndpointError::Auth(_) | EndpointError::Digest { .. } => false,
        }
    }

    /// Whether somebody was there and the connection broke.
    pub(super) fn breaks(&self) -> bool {
        self.is_transient() && !matches!(self, EndpointError::Http(HttpError::Connect { .. }))
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            EndpointError::Http(error) => error.retry_after(),
            EndpointError::Auth(_) | EndpointError::Digest { .. } => None,
        }
    }

    /// The error and its causes in one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            // Some say what is beneath them themselves.
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text
    }
}

type Result<T> = std::result::Result<T, EndpointError>;

/// A repository at a host.
#[derive(Debug)]
pub(super) struct Endpoint<'a> {
    /// As it is told, and as its login is stored: `docker.io` and not the host that serves it.
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) repository: String,
    pub(super) credentials: &'a Credentials,
    pub(super) auth: Auth,
}

impl Endpoint<'_> {
    /// The manifest that a tag or a digest names, no longer than manifests are.
    pub(super) fn manifest(&self, name: &str) -> Result<Vec<u8>> {
        let path = format!("/v2/{}/manifests/{name}", self.repository);
        let question = Question { accept: &MANIFEST_TYPES, ..Question::default() };
        Ok(self.ask(&path, question)?.expect(&[200])?.small(MAX_DOCUMENT)?)
    }

    /// A blob from the byte `from` on, as an answer of status 200 (all of it), 206 (a part) or 416
    /// (it has no more than `from` bytes).
    pub(super) fn blob(&self, digest: &Digest, from: u64) -> Result<Answer> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let answer = self.ask(&path, Question { from, ..Question::default() })?;
        let wanted: &[u16] = if from > 0 { &[200, 206, 416] } else { &[200] };
        Ok(answer.expect(wanted)?)
    }

    fn ask(&self, path: &str, question: Question<'_>) -> Result<Answer> {
        // Once without a login or with an old one, once with a fresh one.
        let used = self.auth.header();
        let login = used.as_ref().map(super::auth::Header::as_str);
        let answer = self.host.ask(path, Question { login, ..question })?;
        if answer.status != 401 || answer.redirected {
            return Ok(answer);
        }
        let find = || self.credentials.find(&self.name, &self.repository);
        self.auth.log_in(&self.host, &self.repository, &answer, used.as_ref(), &find)?;
        let used = self.auth.header();
        let login = used.as_ref().map(super::auth::Header::as_str);
        let answer = self.host.ask(path, Question { login, ..question })?;
        if answer.status == 401 && !answer.redirected {
            return Err(super::auth::refused(&self.host, &find).into());
        }
        Ok(answer)
    }
}
