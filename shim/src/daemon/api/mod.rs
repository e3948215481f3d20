//! The daemon's HTTP server, in the shape of the Kubernetes API ("API Overview", "API Concepts").
//!
//! Over a unix socket of mode 0600; and whoever connects must be root, or who the daemon is. What comes in
//! is bounded before it is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::Daemon;

mod events;
mod log;
mod path;
mod verbs;
mod watch;

use path::Target;

/// The largest body that is read, in bytes: the API server's limit.
pub const BODY_MAX_BYTES: usize = 3 << 20;
/// Clients at one time; more wait until one goes.
pub const CLIENTS_MAX: usize = 256;
/// Pieces of an answer that may wait for their reader.
pub const PIECES_MAX: usize = 64;

/// Why a request was not carried out: a `Status` of the Kubernetes API.
#[derive(Debug)]
pub struct Refusal {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

impl Refusal {
    /// The request itself is wrong.
    pub fn bad(message: String) -> Refusal {
        Refusal { code: StatusCode::BAD_REQUEST, reason: "BadRequest", message }
    }

    /// The object is.
    pub fn invalid(message: String) -> Refusal {
        Refusal { code: StatusCode::UNPROCESSABLE_ENTITY, reason: "Invalid", message }
    }

    fn not_found(what: &str, name: &str) -> Refusal {
        let message = format!("{what} {name:?} not found");
        Refusal { code: StatusCode::NOT_FOUND, reason: "NotFound", message }
    }

    fn exists(what: &str, name: &str) -> Refusal {
        let message = format!("{what} {name:?} already exists");
        Refusal { code: StatusCode::CONFLICT, reason: "AlreadyExists", message }
    }

    fn not_allowed(message: String) -> Refusal {
        Refusal { code: StatusCode::METHOD_NOT_ALLOWED, reason: "MethodNotAllowed", message }
    }

    fn conflict(message: String) -> Refusal {
        Refusal { code: StatusCode::CONFLICT, reason: "Conflict", message }
    }

    /// The watcher is too far behind.
    fn gone(message: String) -> Refusal {
        Refusal { code: StatusCode::GONE, reason: "Expired", message }
    }

    fn status(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        })
    }
}

/// What the daemon itself could not do: the disk is full, say.
impl From<anyhow::Error> for Refusal {
    fn from(e: anyhow::Error) -> Refusal {
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal { code, reason: "InternalError", message: crate::cli::one_line(&e) }
    }
}

/// The body of an answer: at once, or as it comes.
enum Answer {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Pieces(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Pieces(_) => SizeHint::default(),
        }
    }
}

/// Serves clients for ever.
pub async fn serve(daemon: Rc<Daemon>, listener: UnixListener) {
    let places = std::sync::Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // No descriptors are left, for example: it does not help to ask again at once.
                tracing::warn!("cannot take on a client: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let daemon = daemon.clone();
        tokio::task::spawn_local(async move {
            let peer = Peer::of(&stream);
            let service = service_fn(|request| {
                let daemon = daemon.clone();
                async move { Ok::<_, Infallible>(answer(&daemon, request, peer).await) }
            });
            // A client that goes in the middle is no error of ours.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

/// Who asks (unix(7), SO_PEERCRED).
#[derive(Clone, Copy)]
struct Peer {
    pid: i32,
    uid: u32,
    /// Root, or who runs the daemon.
    is_allowed: bool,
}

impl Peer {
    fn of(stream: &UnixStream) -> Peer {
        let Ok(peer) = stream.peer_cred() else {
            return Peer { pid: 0, uid: u32::MAX, is_allowed: false };
        };
        let (pid, uid) = (peer.pid().unwrap_or(0), peer.uid());
        let own = rustix::process::geteuid().as_raw();
        Peer { pid, uid, is_allowed: uid == 0 || uid == own }
    }
}

async fn answer(daemon: &Rc<Daemon>, request: Request<Incoming>, peer: Peer) -> Response<Answer> {
    let asked = (request.method().clone(), request.uri().path().to_owned());
    let answered = if peer.is_allowed {
        carry_out(daemon, request).await
    } else {
        let message = "the daemon's socket is root's".to_owned();
        Err(Refusal { code: StatusCode::FORBIDDEN, reason: "Forbidden", message })
    };
    let response =
        answered.unwrap_or_else(|refusal| json_response(refusal.code, &refusal.status()));
    let (method, path) = asked;
    if method != Method::GET {
        let Peer { pid, uid, .. } = peer;
        let code = response.status().as_u16();
        super::say(&format!("{method} {path} by process {pid} of user {uid}: {code}"));
    }
    response
}

async fn carry_out(
    daemon: &Rc<Daemon>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let (head, body) = request.into_parts();
    let target = Target::of(&head.uri)?;
    let body = Limited::new(body, BODY_MAX_BYTES).collect().await;
    let body = body.map_err(|e| Refusal {
        code: StatusCode::PAYLOAD_TOO_LARGE,
        reason: "RequestEntityTooLarge",
        message: format!("the body cannot be read (at most {BODY_MAX_BYTES} bytes): {e}"),
    })?;
    let body = body.to_bytes();
    match (&head.method, target) {
        (&Method::GET, Target::Health) => Ok(Response::new(Answer::Whole(Some("ok".into())))),
        (&Method::GET, Target::Version) => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(ok(
                &json!({"major": "1", "minor": "37", "gitVersion": format!("v1.37.0+podshim-{version}")}),
            ))
        }
        (&Method::GET, Target::Events(wanted)) if wanted.watch => Ok(events::watch(daemon, wanted)),
        (&Method::GET, Target::Events(wanted)) => events::list(daemon, wanted).await,
        (&Method::GET, Target::List(list)) if list.watch => watch::watch(daemon, &list),
        (&Method::GET, Target::List(list)) => verbs::list(daemon, &list),
        (&Method::POST, Target::List(list)) => verbs::create(daemon, &list, &body),
        (&Method::GET, Target::One(key) | Target::Status(key)) => verbs::get(daemon, &key),
        (&Method::PUT, Target::One(key)) => verbs::replace(daemon, &key, &body).await,
        (&Method::DELETE, Target::One(key)) => verbs::delete(daemon, &key, &head.uri, &body),
        (&Method::GET, Target::Log(key, wanted)) => log::log(daemon, &key, wanted),
        (method, _) => {
            Err(Refusal::not_allowed(format!("{method} is not done with {}", head.uri.path())))
        }
    }
}

fn ok(value: &Value) -> Response<Answer> {
    json_response(StatusCode::OK, value)
}

fn json_response(code: StatusCode, value: &Value) -> Response<Answer> {
    json_text(code, value.to_string())
}

fn json_text(code: StatusCode, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(text.into())));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
