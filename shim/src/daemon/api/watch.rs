//! Changes, as they happen: a line of JSON each.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use serde_json::json;
use tokio::sync::mpsc;

use super::path::List;
use super::{Answer, PIECES_MAX, Refusal};
use crate::daemon::Daemon;
use crate::daemon::store::Happened;

impl Happened {
    /// `type` of a watch's event.
    pub fn word(self) -> &'static str {
        match self {
            Happened::Added => "ADDED",
            Happened::Modified => "MODIFIED",
            Happened::Deleted => "DELETED",
        }
    }
}

/// Without a version all objects come first, as if they had been added just now.
pub fn watch(daemon: &Rc<Daemon>, list: &List) -> Result<Response<Answer>, Refusal> {
    let store = daemon.store.borrow();
    let (mut from, first) = match list.version {
        Some(version) if version > 0 => (version, Vec::new()),
        _ => {
            let all = store.list(list.kind).filter(|(key, entry)| list.wants(key, entry.text()));
            (store.version(), all.map(|(_, entry)| line(Happened::Added, entry.text())).collect())
        }
    };
    if store.since(from).is_none() {
        return Err(Refusal::gone(format!("too old resource version: {from}; list again")));
    }
    let mut news = store.listen();
    drop(store);
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let end = list.timeout_s.map(Duration::from_secs);
    let list = List {
        selector: list.selector.clone(),
        namespace: list.namespace.clone(),
        name: list.name.clone(),
        ..*list
    };
    let daemon = daemon.clone();
    tokio::task::spawn_local(async move {
        let tell = async {
            for piece in first {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
            loop {
                news.borrow_and_update();
                let lines: Option<Vec<Bytes>> = {
                    let store = daemon.store.borrow();
                    let changes = store.since(from).map(|changes| {
                        changes
                            .filter(|change| list.wants(&change.key, &change.object))
                            .map(|change| line(change.happened, &change.object))
                            .collect()
                    });
                    from = store.version();
                    changes
                };
                // Who reads so slowly is told, and lists again.
                let late = lines.is_none();
                for piece in lines.unwrap_or_else(|| vec![expired()]) {
                    if sender.send(piece).await.is_err() {
                        return;
                    }
                }
                if late {
                    return;
                }
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        };
        match end {
            // Who has gone by then has gone.
            Some(limit) => drop(tokio::time::timeout(limit, tell).await),
            None => tell.await,
        }
    });
    Ok(Response::new(Answer::Pieces(pieces)))
}

fn line(happened: Happened, object: &str) -> Bytes {
    // It is JSON already.
    format!("{{\"type\":\"{}\",\"object\":{object}}}\n", happened.word()).into()
}

fn expired() -> Bytes {
    let status = Refusal::gone("too old resource version; list again".into()).status();
    format!("{}\n", json!({"type": "ERROR", "object": status})).into()
}
