//! Events: each pod's shim has those of its pod, and what has ended is remembered. Nothing is kept here.

use std::rc::Rc;

use http::Response;
use serde_json::{Value, json};

use super::path::Events;
use super::{Answer, Refusal, ok};
use crate::cli::{event_object, events_of};
use crate::daemon::Daemon;

/// Lists them, the oldest first. It waits for the shims elsewhere.
pub async fn list(daemon: &Rc<Daemon>, wanted: Events) -> Result<Response<Answer>, Refusal> {
    let layout = daemon.layout.clone();
    let version = daemon.store.borrow().version().to_string();
    let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<Value>> {
        let (all, _) = events_of(&layout, |pod| {
            wanted.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace)
                && wanted.name().is_none_or(|name| *name == pod.name)
        })?;
        let mut items: Vec<Value> =
            all.iter().map(|(pod, event)| event_object(pod, event)).collect();
        items.retain(|event| wanted.fits(event));
        Ok(items)
    });
    let items = asked.await.map_err(anyhow::Error::from)??;
    Ok(ok(&json!({
        "apiVersion": "v1",
        "kind": "EventList",
        "metadata": {"resourceVersion": version},
        "items": items,
    })))
}
