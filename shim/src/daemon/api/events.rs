//! Events: each pod's shim has those of its pod, and what has ended or was controlled is in files. Nothing is
//! kept here. Their `resourceVersion` is a moment (nanoseconds since 1970): that of a list is when it was made,
//! and a watch from there tells what has happened since.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use plan::Wall;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::path::Events;
use super::{Answer, PIECES_MAX, Refusal, ok};
use crate::cli::{PodRef, event_object, events_of, follow_events};
use crate::daemon::Daemon;
use crate::daemon::store::Happened;

impl Events {
    fn are_of(&self, kind: &str, at: &PodRef) -> bool {
        let is = |field: &str, value: &str| self.field(field).is_none_or(|wanted| wanted == value);
        self.namespace.as_ref().is_none_or(|namespace| *namespace == at.namespace)
            && is("involvedObject.name", &at.name)
            && is("involvedObject.kind", kind)
    }
}

/// Lists them, the oldest first. It waits for the shims elsewhere.
pub async fn list(daemon: &Rc<Daemon>, wanted: Events) -> Result<Response<Answer>, Refusal> {
    let layout = daemon.layout.clone();
    let now = runtime::clock::now().wall;
    let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<Value>> {
        let (all, _) = events_of(&layout, |kind, at| wanted.are_of(kind, at))?;
        // What happens meanwhile is a watch's to tell.
        let before = all.iter().filter(|(_, event)| event.at <= now);
        let mut items: Vec<Value> =
            before.map(|(object, event)| event_object(object, event)).collect();
        items.retain(|event| wanted.fits(event));
        Ok(items)
    });
    let items = asked.await.map_err(anyhow::Error::from)??;
    Ok(ok(&json!({
        "apiVersion": "v1",
        "kind": "EventList",
        "metadata": {"resourceVersion": now.0.to_string()},
        "items": items,
    })))
}

/// Tells them as they happen. Without a version all that are known come first.
pub fn watch(daemon: &Rc<Daemon>, wanted: Events) -> Response<Answer> {
    let layout = daemon.layout.clone();
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let end = wanted.timeout_s.map(|s| Instant::now() + Duration::from_secs(s));
    let after = Wall(wanted.version.unwrap_or(0));
    // It ends when the client has gone, which is looked for as often as for new pods.
    tokio::task::spawn_blocking(move || {
        let of = |kind: &str, at: &PodRef| wanted.are_of(kind, at);
        let followed = follow_events(&layout, of, after, |news| {
            for (object, event) in news {
                let happened = if event.count > 1 { Happened::Modified } else { Happened::Added };
                let object = event_object(&object, &event);
                if wanted.fits(&object) && sender.blocking_send(line(happened, &object)).is_err() {
                    return Ok(false);
                }
            }
            Ok(!sender.is_closed() && end.is_none_or(|end| Instant::now() < end))
        });
        if let Err(e) = followed {
            let status = Refusal::from(e).status();
            // If nobody reads any more, nobody is told.
            let _ = sender
                .blocking_send(format!("{}\n", json!({"type": "ERROR", "object": status})).into());
        }
    });
    Response::new(Answer::Pieces(pieces))
}

fn line(happened: Happened, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": happened.word(), "object": object})).into()
}
