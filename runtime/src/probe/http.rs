//! `httpGet`: one request, the redirects that a kubelet follows, and what the answer means (Kubernetes:
//! pkg/probe/http/http.go; pkg/kubelet/lifecycle/handlers.go, `runHTTPHandler`).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::http1::{self, Connection, Head};
use super::http2::{self, Client};
use super::request::{Header, host_field};
use super::tls::{self, Refused};
use super::url::{Url, Wrong};
use super::words::quote;
use super::{BODY_MAX_BYTES, HttpCheck, Limit, Outcome, Purpose, dial};

/// How many requests are made at most (pkg/probe/http, `RedirectChecker`).
const REQUESTS_MAX: usize = 10;
/// A hook, which has no timeout, waits so long for a connection (Go: `http.DefaultTransport`).
const DIAL_MAX: Duration = Duration::from_secs(30);

/// Why there is no response.
#[derive(Debug)]
enum Failed {
    /// The text of a kubelet's failure.
    Text(String),
    /// The same, and a server that speaks HTTP was asked for HTTPS.
    PlainHttp(String),
    /// There is nothing to ask.
    NoRequest(String),
}

/// A response whose body is still to be read.
struct Answer {
    head: Head,
    body: Body,
}

enum Body {
    Http1(http1::Body<Box<dyn Stream>>),
    Http2(h2::RecvStream),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Body {
    async fn read(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Http1(body) => body.read(BODY_MAX_BYTES).await,
            Self::Http2(mut body) => {
                http2::read(&mut body, BODY_MAX_BYTES).await.map_err(|e| http2::error(&e))
            }
        }
    }
}

/// One attempt.
pub(super) async fn attempt(check: &HttpCheck, limit: Limit) -> Outcome {
    match check.purpose {
        Purpose::Probe => probe(check, limit).await,
        Purpose::Hook => hook(check, limit).await,
    }
}

async fn probe(check: &HttpCheck, limit: Limit) -> Outcome {
    let answer = match get(check, check.https, Header::of(check), limit).await {
        Ok(answer) => answer,
        Err(Failed::Text(output) | Failed::PlainHttp(output)) => {
            return Outcome::Failure { output };
        }
        Err(Failed::NoRequest(message)) => return Outcome::Error { message },
    };
    let code = answer.head.code;
    let body = match limit.within(answer.body.read()).await {
        Some(Ok(body)) => String::from_utf8_lossy(&body).into_owned(),
        Some(Err(message)) => return Outcome::Error { message },
        None => {
            let when = "(Client.Timeout or context cancellation while reading body)";
            return Outcome::Error { message: format!("context deadline exceeded {when}") };
        }
    };
    match code {
        200..300 => Outcome::Success { output: body },
        300..400 => Outcome::Warning {
            output: format!("Probe terminated redirects, Response body: {body}"),
        },
        _ => Outcome::Failure { output: format!("HTTP probe failed with statuscode: {code}") },
    }
}

/// Any response will do. An HTTPS hook whose server does not speak TLS is tried once more without.
async fn hook(check: &HttpCheck, limit: Limit) -> Outcome {
    let mut header = Header::of(check);
    let (answer, success) = match get(check, check.https, header.clone(), limit).await {
        Ok(answer) => (answer, Outcome::Success { output: String::new() }),
        Err(Failed::Text(output) | Failed::NoRequest(output)) => {
            return Outcome::Failure { output };
        }
        Err(Failed::PlainHttp(first)) => {
            header.remove_authorization();
            match get(check, false, header, limit).await {
                Ok(answer) => {
                    let host = super::words::join_host_port(&check.host, check.port);
                    let output = format!(
                        "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
                    );
                    (answer, Outcome::Warning { output })
                }
                Err(_) => return Outcome::Failure { output: first },
            }
        }
    };
    // The hook is over when the server has said what it had to say, and that is all.
    let _ = limit.within(answer.body.read()).await;
    success
}

/// Asks, and follows redirects to the same host name. That of another is the answer.
async fn get(
    check: &HttpCheck,
    https: bool,
    mut header: Header,
    limit: Limit,
) -> Result<Answer, Failed> {
    let mut url = Url::of_check(https, &check.host, check.port, &check.path).map_err(wrong)?;
    let first = url.host_name();
    let mut host = header.host().map(str::to_owned);
    for made in 1.. {
        let answer = exchange(&url, host.as_deref(), &header, limit).await?;
        let location = match &answer.head {
            Head { code: 301 | 302 | 303 | 307 | 308, location: Some(location) } => location,
            _ => return Ok(answer),
        };
        let next = match url.join(location) {
            Ok(next) => next,
            Err(Wrong::Malformed(why)) => return Err(Failed::Text(failed(&url, &why))),
            Err(Wrong::Nowhere(text)) => return Err(Failed::Text(text)),
        };
        if next.host_name() != first {
            return Ok(answer);
        }
        if made >= REQUESTS_MAX {
            let why = format!("stopped after {REQUESTS_MAX} redirects");
            return Err(Failed::Text(format!("Get {}: {why}", quote(location.as_bytes()))));
        }
        header.refer(&url, &next);
        // A location with a host of its own is no longer about the one that was written.
        if Url::is_absolute(location) {
            host = None;
        }
        url = next;
    }
    Err(Failed::Text(failed(&url, "http: no response")))
}

fn wrong(wrong: Wrong) -> Failed {
    match wrong {
        Wrong::Malformed(text) => Failed::NoRequest(text),
        Wrong::Nowhere(text) => Failed::Text(text),
    }
}

fn failed(url: &Url, why: &str) -> String {
    format!("Get {}: {why}", quote(url.to_string().as_bytes()))
}

/// One request and the header of its response.
async fn exchange(
    url: &Url,
    host: Option<&str>,
    header: &Header,
    limit: Limit,
) -> Result<Answer, Failed> {
    let late = || {
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        Failed::Text(failed(url, why))
    };
    match limit.within(converse(url, host, header, limit)).await {
        None => Err(late()),
        // What notices the end of the time first is chance.
        Some(Err(_)) if limit.is_over() => Err(late()),
        Some(Err(Refused::Other(why))) => Err(Failed::Text(failed(url, &why))),
        Some(Err(Refused::PlainHttp)) => {
            let why = "http: server gave HTTP response to HTTPS client";
            Err(Failed::PlainHttp(failed(url, why)))
        }
        Some(Ok(answer)) => Ok(answer),
    }
}

async fn converse(
    url: &Url,
    host: Option<&str>,
    header: &Header,
    limit: Limit,
) -> Result<Answer, Refused> {
    let host = host_field(host, url).map_err(Refused::Other)?;
    let request = header.http1(url, &host).map_err(Refused::Other)?;
    let limit = if limit.end.is_some() { limit } else { Limit::after(Some(DIAL_MAX)) };
    let name = url.host_name();
    let tcp = dial::dial(&name, url.port(), limit).await.map_err(Refused::Other)?;
    let ends = match (tcp.local_addr(), tcp.peer_addr()) {
        (Ok(from), Ok(to)) => format!("{from}->{to}"),
        _ => String::new(),
    };
    let stream: Box<dyn Stream> = if url.https {
        let (tls, is_http2) = tls::connect(&name, tcp).await?;
        if is_http2 {
            let request = header.http2(url, &host).map_err(Refused::Other)?;
            let answer = async { Client::start(tls).await?.ask(request, None).await };
            let answer = answer.await.map_err(|e| Refused::Other(http2::error(&e)))?;
            let head = http2::head(&answer);
            return Ok(Answer { head, body: Body::Http2(answer.into_body()) });
        }
        Box::new(tls)
    } else {
        Box::new(tcp)
    };
    let connection = Connection::new(stream, ends);
    let (head, body) = connection.ask(&request).await.map_err(Refused::Other)?;
    Ok(Answer { head, body: Body::Http1(body) })
}
