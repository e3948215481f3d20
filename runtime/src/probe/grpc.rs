//! `grpc`: asks a server for its health with the protocol made for that, `grpc.health.v1.Health/Check`
//! (Kubernetes: pkg/probe/grpc/grpc.go). Its two messages have one field each, so no library is needed
//! to write and read them.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};

use super::http2::{self, Client};
use super::request::user_agent;
use super::words::{self, join_host_port, quote};
use super::{Limit, Outcome, Purpose, dial};

/// What a response's message may have. Go's client takes 4 MiB; this message has two bytes.
const MESSAGE_MAX_BYTES: usize = 64 << 10;
/// Of a response that is none of gRPC (grpc-go: `transportDefaultDataBytes`).
const STRANGE_MAX_BYTES: usize = 1 << 10;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The pause before a server that cannot be reached is tried again, and what follows the longest one
/// (grpc-go: `backoff.DefaultConfig`).
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Go lets a connection that does not begin to speak HTTP/2 go on for so long.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// gRPC's status codes (google.golang.org/grpc/codes).
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: u32 = 1;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    code: u32,
    message: String,
}

impl Status {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One attempt.
pub(super) async fn attempt(host: &str, port: u16, service: &str, limit: Limit) -> Outcome {
    let address = join_host_port(host, port);
    let timeout = limit.timeout.map(words::duration).unwrap_or_default();
    let Some(mut client) = limit.within(connect(host, port, limit)).await else {
        let address = quote(address.as_bytes());
        let what = format!("timeout: failed to connect service {address} within {timeout}");
        return Outcome::Failure { output: format!("{what}: context deadline exceeded") };
    };
    let answer = match request(&address, limit) {
        Ok(request) => {
            let call = call(&mut client, request, service);
            let late = || Err(Status::new(DEADLINE_EXCEEDED, "context deadline exceeded"));
            limit.within(call).await.unwrap_or_else(late)
        }
        Err(e) => return Outcome::Error { message: format!("cannot make a request: {e}") },
    };
    let output = match answer {
        Ok(SERVING) => return Outcome::Success { output: "service healthy".into() },
        Ok(status) => {
            let name = usize::try_from(status).ok().and_then(|at| STATUSES.get(at));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            format!("service unhealthy (responded with {})", quote(name.as_bytes()))
        }
        Err(Status { code: UNIMPLEMENTED, message }) => {
            let what = "this server does not implement the grpc health protocol";
            format!("error: {what} (grpc.health.v1.Health): {message}")
        }
        Err(Status { code: DEADLINE_EXCEEDED, .. }) => {
            format!("timeout: health rpc did not complete within {timeout}")
        }
        Err(Status { code, message }) => {
            let name = usize::try_from(code).ok().and_then(|at| CODES.get(at));
            let name = name.map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
            format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}")
        }
    };
    Outcome::Failure { output }
}

/// Tries until a server speaks HTTP/2. Why it does not is nowhere told, by a kubelet neither.
async fn connect(host: &str, port: u16, limit: Limit) -> Client {
    let mut pause = PAUSE_FIRST;
    loop {
        let one = async {
            let stream = dial::dial(host, port, limit).await.ok()?;
            Client::start(stream).await.ok()
        };
        if let Some(Some(client)) = Limit::after(Some(CONNECT_MAX)).within(one).await {
            return client;
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.6).min(PAUSE_MAX);
    }
}

fn request(address: &str, limit: Limit) -> http::Result<Request<()>> {
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .version(http::Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header("user-agent", user_agent(Purpose::Probe))
        .header("te", "trailers");
    if let Some(remaining) = limit.remaining() {
        // At most eight digits and a unit.
        let ms = remaining.as_millis().clamp(1, 99_999_999);
        request = request.header("grpc-timeout", format!("{ms}m"));
    }
    request.body(())
}

/// Asks, and returns the status that the server gives the service.
async fn call(client: &mut Client, request: Request<()>, service: &str) -> Result<i32, Status> {
    let body = message(service)?;
    let mut response = client.ask(request, Some(body)).await.map_err(|e| broken(&e))?;
    if let Some(strange) = strange(&response) {
        return Err(with_body(strange, response.body_mut()).await);
    }
    let body = response.body_mut();
    // A response may be nothing but a status.
    if body.is_end_stream() {
        return Err(status(response.headers()).err().unwrap_or_else(no_message));
    }
    let bytes =
        http2::read(body, PREFIX_BYTES + MESSAGE_MAX_BYTES).await.map_err(|e| broken(&e))?;
    let message = unwrap(&bytes)?;
    let trailers = body.trailers().await.map_err(|e| broken(&e))?;
    let Some(trailers) = trailers else {
        return Err(Status::new(INTERNAL, "server closed the stream without sending trailers"));
    };
    status(&trailers)?;
    serving_status(message.ok_or_else(no_message)?)
}

fn no_message() -> Status {
    let what = "received no response message from non-server-streaming RPC";
    Status::new(INTERNAL, format!("cardinality violation: {what}"))
}

/// `HealthCheckRequest` with its prefix.
fn message(service: &str) -> Result<Bytes, Status> {
    let mut field = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        field.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            field.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(field.len())
        .map_err(|_| Status::new(RESOURCE_EXHAUSTED, "grpc: the service's name is too long"))?;
    let mut bytes = vec![0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.append(&mut field);
    Ok(bytes.into())
}

/// The one message among these bytes, if there is one.
fn unwrap(bytes: &[u8]) -> Result<Option<&[u8]>, Status> {
    let cut = || Status::new(INTERNAL, "unexpected EOF");
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return if bytes.is_empty() { Ok(None) } else { Err(cut()) };
    };
    let [compressed, length @ ..] = *prefix;
    match compressed {
        0 => {}
        1 => {
            let what = "grpc: compressed flag set with identity or empty encoding";
            return Err(Status::new(INTERNAL, what));
        }
        other => {
            let what = format!("grpc: received unexpected payload format {other}");
            return Err(Status::new(INTERNAL, what));
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_MAX_BYTES {
        let sizes = format!("({length} vs. {MESSAGE_MAX_BYTES})");
        let what = format!("grpc: received message larger than max {sizes}");
        return Err(Status::new(RESOURCE_EXHAUSTED, what));
    }
    match rest.len().cmp(&length) {
        std::cmp::Ordering::Less => Err(cut()),
        std::cmp::Ordering::Equal => Ok(Some(rest)),
        std::cmp::Ordering::Greater => {
            let what = "expected <EOF> for non server-streaming RPCs, but received another message";
            Err(Status::new(INTERNAL, format!("cardinality violation: {what}")))
        }
    }
}

/// Field 1 of `HealthCheckResponse`, the last one if there are several. Fields that we do not know, and
/// those of another type, are passed over.
fn serving_status(mut message: &[u8]) -> Result<i32, Status> {
    let wrong = || {
        let what = "proto: cannot parse invalid wire-format data";
        Status::new(INTERNAL, format!("grpc: failed to unmarshal the received message: {what}"))
    };
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message).ok_or_else(wrong)?;
        let (field, kind) = (tag >> 3, tag & 7);
        let skipped = match kind {
            0 => {
                let value = varint(&mut message).ok_or_else(wrong)?;
                if field == 1 {
                    // An enumeration is 32 bits; more are cut.
                    status = value as i32;
                }
                0
            }
            1 => 8,
            2 => varint(&mut message).ok_or_else(wrong)?,
            5 => 4,
            _ => return Err(wrong()),
        };
        let skipped = usize::try_from(skipped).map_err(|_| wrong())?;
        if field == 0 || skipped > message.len() {
            return Err(wrong());
        }
        message = &message[skipped..];
    }
    Ok(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The status that a call ended with.
fn status(trailers: &HeaderMap) -> Result<(), Status> {
    let message = trailers.get("grpc-message").map(|m| unescape(m.as_bytes())).unwrap_or_default();
    let Some(code) = trailers.get("grpc-status") else {
        return Err(Status::new(UNKNOWN, message));
    };
    match std::str::from_utf8(code.as_bytes()).ok().and_then(|code| code.parse::<u32>().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Status { code, message }),
        None => {
            let code = quote(code.as_bytes());
            let what = format!("malformed grpc-status: strconv.ParseInt: parsing {code}");
            Err(Status::new(UNKNOWN, format!("transport: {what}: invalid syntax")))
        }
    }
}

/// Undoes the percent signs of a `grpc-message`; those that mean nothing stay.
fn unescape(message: &[u8]) -> String {
    let digit = |at: usize| message.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut bytes = Vec::with_capacity(message.len());
    let mut at = 0;
    while at < message.len() {
        match (message[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(16 * high + low));
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a response is none of gRPC, and what that means (grpc-go: `http2Client.operateHeaders`).
fn strange(response: &Response<RecvStream>) -> Option<Status> {
    let kind = response.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    if rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';'))) {
        return None;
    }
    let http = response.status();
    let code = match http {
        StatusCode::BAD_REQUEST => INTERNAL,
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::NOT_FOUND => UNIMPLEMENTED,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => UNAVAILABLE,
        _ => UNKNOWN,
    };
    let reason = http.canonical_reason().unwrap_or_default();
    let kind = kind.map_or_else(
        || "malformed header: missing HTTP content-type".to_owned(),
        |kind| format!("transport: received unexpected content-type {}", quote(kind)),
    );
    let what = "unexpected HTTP status code received from server";
    Some(Status::new(code, format!("{what}: {} ({reason}); {kind}", http.as_u16())))
}

/// Adds what such a response says.
async fn with_body(mut status: Status, body: &mut RecvStream) -> Status {
    if let Ok(bytes) = http2::read(body, STRANGE_MAX_BYTES).await
        && !bytes.is_empty()
    {
        status.message.push_str(&format!("\ndata: {}", quote(&bytes)));
    }
    status
}

/// What the end of a stream or of the connection means (grpc-go: `http2ErrConvTab`).
fn broken(error: &h2::Error) -> Status {
    use h2::Reason;
    if let Some(reason) = error.reason().filter(|_| error.is_reset() && error.is_remote()) {
        let code = match reason {
            Reason::STREAM_CLOSED => UNKNOWN,
            Reason::FLOW_CONTROL_ERROR | Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
            Reason::REFUSED_STREAM => UNAVAILABLE,
            Reason::CANCEL => CANCELED,
            Reason::INADEQUATE_SECURITY => PERMISSION_DENIED,
            _ => INTERNAL,
        };
        let what = format!("stream terminated by RST_STREAM with error code: {reason:?}");
        return Status::new(code, what);
    }
    let why = error.get_io().map_or_else(|| http2::error(error), http2::connection_error);
    Status::new(UNAVAILABLE, format!("error reading from server: {why}"))
}
