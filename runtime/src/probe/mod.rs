//! One attempt of a probe or a lifecycle hook over the network, as a kubelet makes it: what is sent,
//! what counts as success, and the words of a failure (Kubernetes: pkg/probe/{http,tcp,grpc},
//! pkg/kubelet/lifecycle/handlers.go).
//!
//! When an attempt is made, and what follows from it, is decided elsewhere. [`attempt`] blocks until
//! its time is over; the shim, which must not, makes it in a child of its own ([`spawn`]).
//!
//! The server belongs to a container and is not trusted. Nothing that it does makes an attempt longer
//! than its timeout, and nothing that it sends is kept beyond limits that are named here.

mod dial;
mod grpc;
mod http;
mod http1;
mod http2;
mod prober;
mod request;
mod tls;
mod url;
mod words;

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use prober::{Prober, read_outcome, spawn};

/// The Kubernetes release whose kubelet we name ourselves after.
const KUBERNETES_VERSION: &str = "1.37";
/// What is read of a response's body (pkg/probe/http, `maxRespBodyLength`).
const BODY_MAX_BYTES: usize = 10 << 10;
/// What is reported of an output. A kubelet's event shows ten times as much; here it is also in the
/// pod's journal, in memory, once for each attempt that fails.
pub const OUTPUT_MAX_BYTES: usize = 1 << 10;

/// What is to be asked, and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `httpGet`.
    Http(HttpCheck),
    /// `tcpSocket`: succeeds when a connection opens.
    Tcp {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
    },
    /// `grpc`: `grpc.health.v1.Health/Check`, without TLS.
    Grpc {
        /// The pod's address.
        host: String,
        /// The port.
        port: u16,
        /// The service that is asked for; empty for the server as a whole.
        service: String,
    },
}

/// An `httpGet`, its defaults filled in and its port looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Whether the scheme is HTTPS.
    pub https: bool,
    /// An address or a name; an IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path as the manifest has it, perhaps with a query.
    pub path: String,
    /// `httpHeaders`, in their order, duplicates included.
    pub headers: Vec<(String, String)>,
    /// What it is made for.
    pub purpose: Purpose,
}

/// What a request is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A probe: the status decides.
    Probe,
    /// postStart or preStop: any response is a success.
    Hook,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It succeeded.
    Success {
        /// What the server said.
        output: String,
    },
    /// A probe succeeded, with what a kubelet reports as `ProbeWarning`; or a hook, with what it reports
    /// as `LifecycleHTTPFallback`.
    Warning {
        /// The event's text.
        output: String,
    },
    /// It failed.
    Failure {
        /// Why, in a kubelet's words.
        output: String,
    },
    /// It says nothing of the container. A kubelet tries a probe three times at once and then ignores the
    /// result (pkg/kubelet/prober, `runProbeWithRetries`, `doProbe`). To it a body that breaks off
    /// or comes too late is one of these, whatever the status was.
    Error {
        /// What happened instead.
        message: String,
    },
}

impl Outcome {
    /// As it is reported: its text [`legible`].
    #[must_use]
    pub fn legible(self) -> Self {
        let short = |text: String| legible(text.as_bytes());
        match self {
            Self::Success { output } => Self::Success { output: short(output) },
            Self::Warning { output } => Self::Warning { output: short(output) },
            Self::Failure { output } => Self::Failure { output: short(output) },
            Self::Error { message } => Self::Error { message: short(message) },
        }
    }
}

/// Text that a container gave, fit to be reported: at most [`OUTPUT_MAX_BYTES`], without control
/// characters, each of which would need six in the journal.
#[must_use]
pub fn legible(output: &[u8]) -> String {
    // A few bytes more, so that a character at the end is seen whole. What is not UTF-8 grows.
    let read = &output[..output.len().min(OUTPUT_MAX_BYTES + 4)];
    let is_strange = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let mut text = String::from_utf8_lossy(read).trim_end().replace(is_strange, "\u{fffd}");
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= OUTPUT_MAX_BYTES;
    let end = text.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
    text.truncate(end);
    text
}

/// Makes one attempt, and returns when it ended or `timeout` is over. `None` is no limit, which hooks
/// have (but those of a connection: 30 s to open and 10 s for TLS).
///
/// A gRPC server that cannot be reached is tried again until the timeout, as gRPC clients do.
#[must_use]
pub fn attempt(check: &Check, timeout: Option<Duration>) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Outcome::Error { message: format!("cannot wait for the network: {e}") },
    };
    let outcome = runtime.block_on(async {
        let limit = Limit::after(timeout);
        match check {
            Check::Http(check) => http::attempt(check, limit).await,
            Check::Tcp { host, port } => match dial::dial(host, *port, limit).await {
                Ok(_) => Outcome::Success { output: String::new() },
                Err(output) => Outcome::Failure { output },
            },
            Check::Grpc { host, port, service } => grpc::attempt(host, *port, service, limit).await,
        }
    });
    // A look-up of a name cannot be ended: it must not be waited for.
    runtime.shutdown_background();
    outcome
}

/// How long something may take, and when that is over.
#[derive(Clone, Copy, Debug)]
struct Limit {
    timeout: Option<Duration>,
    end: Option<Instant>,
}

impl Limit {
    fn after(timeout: Option<Duration>) -> Self {
        // An end that cannot be told is none.
        Self { timeout, end: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    /// The result, or `None` if it takes too long.
    async fn within<F: Future>(&self, work: F) -> Option<F::Output> {
        match self.end {
            Some(end) => tokio::time::timeout_at(end, work).await.ok(),
            None => Some(work.await),
        }
    }

    fn is_over(&self) -> bool {
        self.remaining().is_some_and(|remaining| remaining.is_zero())
    }

    fn remaining(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_takes_little_more_room_than_it_has_bytes() {
        assert_eq!(legible("not yet:\n\tno \u{e4}\n\n".as_bytes()), "not yet:\n\tno \u{e4}");
        assert_eq!(legible(b"\x1b[31m \x00\xff\r\n"), "\u{fffd}[31m \u{fffd}\u{fffd}");
        for byte in 0..=u8::MAX {
            let text = legible(&vec![byte; 3 * OUTPUT_MAX_BYTES]);
            assert!(text.len() <= OUTPUT_MAX_BYTES, "{byte}");
            let encoded = serde_json::to_string(&text).expect("text");
            assert!(encoded.len() <= 2 * OUTPUT_MAX_BYTES + 2, "{byte}");
        }
    }

    #[test]
    fn a_cut_leaves_no_broken_character() {
        for before in 0..4 {
            let text = "x".repeat(before) + &"\u{1f980}".repeat(OUTPUT_MAX_BYTES);
            let short = legible(text.as_bytes());
            assert!(text.starts_with(&short), "{before}");
            assert!(OUTPUT_MAX_BYTES - short.len() < 4, "{before}");
        }
    }
}
