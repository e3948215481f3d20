//! Probes and hooks over the network, against servers on loopback that behave and servers that do not.
//! The texts are those of a kubelet's libraries (Go 1.26, grpc-go 1.85), whose client was given the
//! same answers.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "probes/grpc.rs"]
mod grpc;
#[path = "probes/http.rs"]
mod http;
#[path = "probes/servers.rs"]
mod servers;
#[path = "probes/tcp.rs"]
mod tcp;
#[path = "probes/tls.rs"]
mod tls;

use std::time::Duration;

use runtime::probe::{Check, HttpCheck, Outcome, Purpose};

/// For what is to succeed or to fail by itself.
const LONG: Option<Duration> = Some(Duration::from_secs(30));
/// For what is to take too long.
const SHORT: Option<Duration> = Some(Duration::from_secs(1));

fn get(port: u16, path: &str) -> HttpCheck {
    HttpCheck {
        https: false,
        host: "127.0.0.1".into(),
        port,
        path: path.into(),
        headers: Vec::new(),
        purpose: Purpose::Probe,
    }
}

fn run(check: HttpCheck, timeout: Option<Duration>) -> Outcome {
    runtime::probe::attempt(&Check::Http(check), timeout)
}

fn success(output: &str) -> Outcome {
    Outcome::Success { output: output.into() }
}

fn failure(output: &str) -> Outcome {
    Outcome::Failure { output: output.into() }
}

/// Does the same with all of these at the same time: each takes its timeout.
fn side_by_side<T: Sync>(cases: &[T], each: impl Fn(&T) + Sync) {
    let each = &each;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || each(case));
        }
    });
}

/// With `PORT` for the server's.
fn without_port(outcome: Outcome, port: u16) -> Outcome {
    let text = |text: String| text.replace(&format!(":{port}"), ":PORT");
    match outcome {
        Outcome::Success { output } => Outcome::Success { output: text(output) },
        Outcome::Warning { output } => Outcome::Warning { output: text(output) },
        Outcome::Failure { output } => Outcome::Failure { output: text(output) },
        Outcome::Error { message } => Outcome::Error { message: text(message) },
    }
}

/// A port of loopback on which nobody listens. Not one that was free a moment ago: another test may get
/// it. Outgoing connections are not given ports below 1024.
const CLOSED: u16 = 1;
