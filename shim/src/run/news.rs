//! What is heard of objects that a daemon has: of them by its watch, and of each pod by its shim.

use std::time::Duration;

use anyhow::bail;
use bundles::layout::Layout;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::pods::{Message, Said, hear};
use crate::cli::{Remote, api_path, one_line};
use crate::daemon::store::{Key, Kind};
use crate::pod::result::PodResult;
use crate::protocol::{Reply, Request};

/// How often is looked for a pod's shim, or for what it has left.
const LOOK: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How often a daemon is asked again that did not answer.
pub const AGAIN: Duration = Duration::from_millis(200);

/// What the daemon says of some objects.
pub enum Change {
    /// These are all.
    All(Vec<Value>),
    /// One is so now.
    Is(Value),
    /// One is no more.
    Deleted(Value),
    /// It does not answer.
    Away,
}

/// Objects that are watched together.
#[derive(Clone)]
pub struct Watch {
    pub kind: Kind,
    pub namespace: String,
    /// One of them only.
    pub name: Option<String>,
}

/// A text of an object; empty if it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Deletes an object, if it is still the one that is meant; `None` if it is gone.
pub async fn delete(
    daemon: &Remote,
    key: &Key,
    uid: &str,
    options: Option<Value>,
) -> anyhow::Result<Option<Value>> {
    let at = api_path(key.kind, Some(&key.namespace), Some(&key.name));
    let mut options = options.unwrap_or_else(|| json!({}));
    if !uid.is_empty() {
        options["preconditions"] = json!({"uid": uid});
    }
    let answered = daemon.ask(Method::DELETE, &at, Some(&options)).await?;
    match answered.code {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(None),
        _ => answered.object().map(Some),
    }
}

pub async fn until_gone(daemon: &Remote, key: &Key, uid: &str) -> anyhow::Result<()> {
    if delete(daemon, key, uid, None).await?.is_none() {
        return Ok(());
    }
    let at = api_path(key.kind, Some(&key.namespace), Some(&key.name));
    loop {
        let answered = daemon.ask(Method::GET, &at, None).await?;
        let other = !uid.is_empty() && answered.body["metadata"]["uid"] != uid;
        if answered.code == StatusCode::NOT_FOUND || other {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// All objects at a path, and their version.
pub async fn list(daemon: &Remote, path: &str) -> anyhow::Result<(Vec<Value>, String)> {
    let mut list = daemon.ask(Method::GET, path, None).await?.object()?;
    let version = text(&list["metadata"]["resourceVersion"]);
    match list["items"].take() {
        Value::Array(items) => Ok((items, version)),
        _ => bail!("the daemon's list has no items"),
    }
}

/// Tells what becomes of objects; goes on with the next daemon, if this one dies.
pub async fn keep_watching(daemon: Remote, watch: Watch, sender: mpsc::Sender<(Watch, Change)>) {
    let mut path = api_path(watch.kind, Some(&watch.namespace), None) + "?";
    if let Some(name) = &watch.name {
        path += &format!("fieldSelector=metadata.name%3D{name}&");
    }
    while !sender.is_closed() {
        let watched = async {
            let (all, version) = list(&daemon, &path).await?;
            sender.send((watch.clone(), Change::All(all))).await?;
            let from = format!("{path}watch=1&resourceVersion={version}");
            let mut changes = daemon.watch(&from).await?;
            while let Some(mut change) = changes.next().await? {
                let object = change["object"].take();
                let change = match change["type"].as_str() {
                    Some("ADDED" | "MODIFIED") => Change::Is(object),
                    Some("DELETED") => Change::Deleted(object),
                    // It was too slow, and lists again.
                    _ => break,
                };
                sender.send((watch.clone(), change)).await?;
            }
            anyhow::Ok(())
        };
        // A daemon that is away comes again; the pods go on meanwhile.
        if watched.await.is_err() {
            let _ = sender.send((watch.clone(), Change::Away)).await;
        }
        sleep(AGAIN).await;
    }
}

/// Passes on what a pod's shim says, whichever it is, and how the pod has ended.
pub async fn keep_hearing(layout: Layout, uid: String, sender: mpsc::Sender<Message>) {
    let dir = layout.pod(&uid);
    let mut pause = LOOK;
    let message = |said| Message { uid: uid.clone(), said };
    while !sender.is_closed() {
        if let Ok(stream) = UnixStream::connect(dir.socket()).await {
            pause = LOOK;
            let (reader, mut writer) = stream.into_split();
            let _ = sender.send(message(Said::Met)).await;
            // If it dies now, that is heard.
            for request in [Request::Watch, Request::Events, Request::Waiting] {
                let _ = write(&mut writer, &request).await;
            }
            if !hear(reader, &uid, &sender).await {
                return;
            }
        } else if !dir.dir.exists() {
            match PodResult::read(&layout, &uid) {
                Ok(None) => {}
                Ok(Some(result)) => {
                    let _ = sender.send(message(Said::Ended(Box::new(result)))).await;
                    return;
                }
                Err(e) => {
                    let _ = sender.send(message(Said::Reply(Reply::Error(one_line(&e))))).await;
                    let _ = sender.send(message(Said::Unreadable)).await;
                    return;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), request: &Request) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(writer.write_all(&line).await?)
}

/// One request to a pod's shim; one that has gone needs none.
pub async fn tell(layout: &Layout, uid: &str, request: &Request) {
    if let Ok(mut stream) = UnixStream::connect(layout.pod(uid).socket()).await {
        let _ = write(&mut stream, request).await;
    }
}
