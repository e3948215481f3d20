//! Talking to the daemon, if there is one: requests of the Kubernetes API over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::daemon::store::Kind;

/// How long an answer may take. The slowest is a change of a pod, which its shim looks at.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to say what there is.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// The daemon of a root.
pub struct Api {
    layout: Layout,
    runtime: tokio::runtime::Runtime,
}

/// What it answered.
pub struct Answered {
    pub code: StatusCode,
    pub body: Value,
}

impl Answered {
    /// The object; a refusal is an error in the daemon's words.
    pub fn object(self) -> anyhow::Result<Value> {
        if self.code.is_success() {
            return Ok(self.body);
        }
        bail!("{}", self.body["message"].as_str().unwrap_or("the daemon refuses"))
    }
}

impl Api {
    /// The daemon, if one listens.
    pub fn find(layout: &Layout) -> anyhow::Result<Option<Api>> {
        let path = layout.daemon_socket();
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            // Who is not root talks to no shim either, which is said then.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(e) => {
                return Err(e)
                    .with_context(|| format!("cannot reach the daemon at {}", path.display()));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Some(Api { layout: layout.clone(), runtime }))
    }

    /// The daemon, which has to be there.
    pub fn of(layout: &Layout) -> anyhow::Result<Api> {
        let found = Api::find(layout)?;
        found.with_context(|| {
            let at = layout.daemon_socket();
            format!("no daemon listens at {}: start one (`podshim daemon`)", at.display())
        })
    }

    /// One request.
    pub fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answered> {
        let remote = Remote::of(&self.layout);
        self.runtime.block_on(remote.ask(method, path, body))
    }

    /// All objects of a kind in a namespace, or in all.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut list = self.ask(Method::GET, &path(kind, namespace, None), None)?.object()?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("the daemon's list has no items"),
        }
    }

    /// One object, if it is there.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let answered = self.ask(Method::GET, &path(kind, Some(namespace), Some(name)), None)?;
        if answered.code == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answered.object().map(Some)
    }
}

/// The same for who waits for other things too.
#[derive(Clone)]
pub struct Remote {
    socket: PathBuf,
}

impl Remote {
    /// The daemon of a root, whether it lives or not.
    pub fn of(layout: &Layout) -> Remote {
        Remote { socket: layout.daemon_socket() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// One request.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answered> {
        let is_reading = method == Method::GET;
        let asked = async {
            let answer = self.send(method, path, body).await?;
            let code = answer.status();
            let bytes = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answered { code, body: serde_json::from_slice(&bytes)? })
        };
        let patience = if is_reading { READ_PATIENCE } else { PATIENCE };
        let asked = tokio::time::timeout(patience, asked).await;
        let asked = asked.context("it does not answer").and_then(|answered| answered);
        asked.with_context(|| format!("the daemon at {}", self.socket.display()))
    }

    /// An answer that comes as it happens.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Changes> {
        let body = self.send(Method::GET, path, None).await?.into_body();
        Ok(Changes { body, begun: Vec::new() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "podshim")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))?;
        // It ends with the answer, or with whoever reads it.
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

/// The lines of such an answer, each a value.
pub struct Changes {
    body: Incoming,
    begun: Vec<u8>,
}

impl Changes {
    /// The next one; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(bytes) = frame?.into_data() {
                self.begun.extend_from_slice(&bytes);
            }
        }
    }
}

/// Where objects of a kind are.
pub fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match kind.api_version() {
        "v1" => "/api/v1".to_owned(),
        version => format!("/apis/{version}"),
    };
    if let Some(namespace) = namespace {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{}", kind.plural());
    if let Some(name) = name {
        path += &format!("/{name}");
    }
    path
}
