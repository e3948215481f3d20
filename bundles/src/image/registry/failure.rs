//! How a request fails, and what follows from it: whether it may be asked again, and what to tell.

use std::io;
use std::time::Duration;

use super::tls::TrustError;

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody answers there.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It answered, and then no more.
    #[error("the connection to {host} broke")]
    Broken {
        /// Host and port.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The answer's content ended before it was whole.
    #[error("the connection to {host} broke")]
    Body {
        /// Host and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Its certificate is not one that this host trusts.
    #[error(
        "the certificate of {host} is not trusted; if it should be, put the certificate of its \
         authority into /etc/containers/certs.d/{host}/ca.crt"
    )]
    Certificate {
        /// Host and port.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The host's own certificates cannot be read.
    #[error("cannot read certificates for {host}")]
    Trust {
        /// Host and port.
        host: String,
        /// Why.
        source: Box<TrustError>,
    },
    /// It answers, with a refusal.
    #[error("{host} answers {status}{}", spaced(message))]
    Status {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What it says about it, if anything.
        message: String,
        /// For how long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It sends us where we do not go.
    #[error("{host} redirects to {to:?}, which is refused: {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to, without what may be secret of it.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// What should be small is not.
    #[error("{host} sends more than the {limit} bytes that are allowed")]
    TooLong {
        /// Host and port.
        host: String,
        /// Bytes.
        limit: u64,
    },
    /// An answer contradicts itself or the question.
    #[error("{host} gives a wrong answer: {why}")]
    Answer {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        why: String,
    },
}

impl HttpError {
    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            HttpError::Connect { .. } | HttpError::Broken { .. } | HttpError::Body { .. } => true,
            HttpError::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// For how long the host asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            HttpError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn spaced(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Whether nobody was reached, whoever was reached is not trusted, or the connection broke.
pub(super) fn failed(host: String, source: ureq::Error) -> HttpError {
    use ureq::{Error, Timeout};
    let in_tls = match &source {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    let is_untrusted = matches!(in_tls, Some(rustls::Error::InvalidCertificate(_)));
    let is_unreached = match &source {
        Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::AddrNotAvailable
        ),
        Error::Timeout(after) => matches!(after, Timeout::Resolve | Timeout::Connect),
        Error::HostNotFound | Error::ConnectionFailed | Error::ConnectProxyFailed(_) => true,
        _ => false,
    };
    let source = Box::new(source);
    match (is_untrusted, is_unreached) {
        (true, _) => HttpError::Certificate { host, source },
        (_, true) => HttpError::Connect { host, source },
        _ => HttpError::Broken { host, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let status = |status| HttpError::Status {
            host: "h".into(),
            status,
            message: String::new(),
            retry_after: None,
        };
        assert!([408, 429, 500, 503].into_iter().all(|s| status(s).is_transient()));
        assert!(![400, 401, 403, 404, 416].into_iter().any(|s| status(s).is_transient()));
    }
}
