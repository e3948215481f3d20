//! Events of jobs, deployments and replica sets: what the daemon's controllers did and why, in the words of
//! Kubernetes' controllers.
//!
//! A file an object, a line an event, each written at once and complete in itself. Nothing is synced: as of a
//! pod's history, a power cut takes the last seconds, and a line that it tears is none. The daemon has
//! nothing of it in memory; whoever wants to know reads the files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use bundles::layout::Layout;
use runtime::state_dir::make_dir;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::names_in;
use crate::durable;
use crate::history::History;
use crate::protocol::Event;

/// A file that is longer is written anew, with what is repeated counted and only the newest
/// ([`crate::history::EVENTS_MAX`]).
const FILE_MAX_BYTES: u64 = 256 << 10;

/// An object and what happened to it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Kind, names and uid of it.
    pub object: Value,
    /// The oldest first.
    pub events: Vec<Event>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    object: Value,
    event: Event,
}

impl Line {
    /// It begins where the line before may have been torn.
    fn text(&self) -> anyhow::Result<String> {
        Ok(format!("\n{}", serde_json::to_string(self)?))
    }
}

/// What of an object its events say.
pub fn reference(object: &Value) -> Value {
    let meta = &object["metadata"];
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
    })
}

/// Writes one down, or says in the log why that could not be: nobody's work is to fail for it.
pub fn tell(layout: &Layout, object: &Value, warning: bool, reason: &str, message: String) {
    let event = Event {
        at: runtime::clock::now().wall,
        warning,
        reason: reason.to_owned(),
        message,
        container: None,
        first_at: None,
        count: 1,
    };
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let path = layout.event_log(uid);
    let written = make_dir(&layout.event_logs(), 0o700)
        .map_err(anyhow::Error::from)
        .and_then(|()| add(&path, Line { object: reference(object), event }));
    if let Err(e) = written {
        tracing::warn!("an event is lost: cannot write {}: {e:#}", path.display());
    }
}

fn add(path: &Path, line: Line) -> anyhow::Result<()> {
    let text = line.text()?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() + text.len() as u64 <= FILE_MAX_BYTES {
        return Ok(file.write_all(text.as_bytes())?);
    }
    let mut history = folded(&fs::read(path)?).map(|(_, history)| history).unwrap_or_default();
    history.add(line.event);
    let mut anew = String::new();
    for event in history.events() {
        anew += &Line { object: line.object.clone(), event }.text()?;
    }
    Ok(durable::write(path, anew.as_bytes())?)
}

/// What a file says; `None` if nothing.
fn folded(bytes: &[u8]) -> Option<(Value, History)> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    let mut told: Option<(Value, History)> = None;
    for line in lines {
        let (_, history) = told.get_or_insert_with(|| (line.object, History::default()));
        history.add(line.event);
    }
    told
}

/// What is known of an object of this uid.
pub fn read(layout: &Layout, uid: &str) -> anyhow::Result<Option<Told>> {
    let path = layout.event_log(uid);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Ok(folded(&bytes).map(|(object, history)| Told { object, events: history.events() }))
}

/// Of all objects, also of those that were deleted in the last hour.
pub fn all(layout: &Layout) -> anyhow::Result<Vec<Told>> {
    let mut all = Vec::new();
    for name in names_in(&layout.event_logs())? {
        let Some(uid) = name.strip_suffix(".jsonl") else { continue };
        all.extend(read(layout, uid)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::EVENTS_MAX;

    fn layout(dir: &Path) -> Layout {
        let below = |name| dir.join(name);
        Layout {
            root: dir.to_owned(),
            state: below("state"),
            logs: below("logs"),
            network: below("network"),
        }
    }

    fn object(kind: &str, name: &str) -> Value {
        let metadata = json!({"namespace": "default", "name": name, "uid": "u"});
        json!({"apiVersion": "a/v1", "kind": kind, "metadata": metadata})
    }

    #[test]
    fn events_are_folded_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        assert!(all(&layout).unwrap().is_empty());
        let web = object("Deployment", "web");
        tell(&layout, &web, true, "FailedCreate", "no".into());
        tell(&layout, &web, false, "ScalingReplicaSet", "up".into());
        let path = layout.event_log("u");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        tell(&layout, &web, true, "FailedCreate", "no".into());
        let told = read(&layout, "u").unwrap().unwrap();
        let events: Vec<_> = told.events.iter().map(|e| (e.reason.as_str(), e.count)).collect();
        assert_eq!((told.object, events), (web, vec![("FailedCreate", 2)]));
    }

    #[test]
    fn a_file_has_an_end_and_keeps_the_newest_with_their_counts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let job = object("Job", "j");
        let all_told = 4000;
        for n in 0..all_told {
            let message = if n % 2 == 0 { "again".into() } else { format!("pod {n}") };
            tell(&layout, &job, false, "SuccessfulCreate", message);
            assert!(fs::metadata(layout.event_log("u")).unwrap().len() <= FILE_MAX_BYTES);
        }
        let events = read(&layout, "u").unwrap().unwrap().events;
        let again = events.iter().find(|event| event.message == "again").unwrap();
        assert_eq!((events.len(), again.count), (EVENTS_MAX, all_told / 2));
        assert_eq!(events.last().unwrap().message, format!("pod {}", all_told - 1));
        assert_eq!(names_in(&layout.event_logs()).unwrap(), ["u.jsonl"]);
    }
}
