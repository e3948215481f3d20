//! A container's log.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use runtime::log::reader::{Follower, Line, Start};
use serde_json::Value;
use tokio::sync::mpsc;

use super::path::Wanted;
use super::{Answer, PIECES_MAX, Refusal};
use crate::cli::default_container;
use crate::daemon::store::Key;
use crate::daemon::{Daemon, pods};

/// How often is looked for more.
const LOOK: Duration = Duration::from_millis(50);
/// How much of a log is sent at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;

pub fn log(daemon: &Rc<Daemon>, key: &Key, wanted: Wanted) -> Result<Response<Answer>, Refusal> {
    let object = daemon.store.borrow().get(key);
    let object = object.ok_or_else(|| Refusal::not_found(key.kind.plural(), &key.name))?;
    let container = default_container(&key.name, wanted.container.as_deref(), &object)
        .map_err(|e| Refusal::bad(format!("{e:#}")))?;
    let uid = pods::uid_of(&object).to_owned();
    let dir = daemon.layout.pod_logs(&key.namespace, &key.name, &uid).join(&container);
    let start = match (wanted.previous, restarts(&object, &container)) {
        (false, _) => Start::Newest,
        (true, Some(before)) => Start::Restart(before - 1),
        (true, None) => {
            let name = &key.name;
            return Err(Refusal::bad(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            )));
        }
    };
    let mut follower = Follower::new(&dir, start);
    if let Some(lines) = wanted.tail {
        follower = follower.tail(lines);
    }
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let reading = Reading { follower, sender, wanted, ended: Arc::new(AtomicBool::new(false)) };
    if reading.wanted.follow {
        tokio::task::spawn_local(watch(daemon.clone(), key.clone(), uid, reading.ended.clone()));
    }
    // A log is as long as its container likes: it is read beside everything else, as fast as the client.
    tokio::task::spawn_blocking(move || reading.run());
    Ok(Response::new(Answer::Pieces(pieces)))
}

/// Says when a pod is over.
async fn watch(daemon: Rc<Daemon>, key: Key, uid: String, ended: Arc<AtomicBool>) {
    let lives = || {
        let store = daemon.store.borrow();
        store.brief(&key).is_some_and(|pod| pod.uid == uid && !daemon.is_over(pod))
    };
    // The reader has gone when nobody else has the flag.
    while lives() && Arc::strong_count(&ended) > 1 {
        tokio::time::sleep(LOOK).await;
    }
    ended.store(true, Ordering::SeqCst);
}

/// One client's.
struct Reading {
    follower: Follower,
    sender: mpsc::Sender<Bytes>,
    wanted: Wanted,
    /// Nothing more will be written.
    ended: Arc<AtomicBool>,
}

impl Reading {
    fn run(mut self) {
        let mut text = Vec::new();
        loop {
            // Looked at first: what was written before that is read below.
            let is_last = !self.wanted.follow || self.ended.load(Ordering::SeqCst);
            let (sender, timestamps) = (&self.sender, self.wanted.timestamps);
            let mut take = |line: Line<'_>| {
                // Who has gone is sent nothing, and fills no memory either.
                if sender.is_closed() {
                    return;
                }
                add(&mut text, &line, timestamps);
                if text.len() >= PIECE_BYTES {
                    let _ = sender.blocking_send(std::mem::take(&mut text).into());
                }
            };
            let read = if self.wanted.follow {
                self.follower.poll(&mut take)
            } else {
                self.follower.read_run(&mut take)
            };
            if let Err(e) = read {
                text.extend_from_slice(format!("{}\n", runtime::chain(&e)).as_bytes());
            }
            if !text.is_empty() {
                let _ = self.sender.blocking_send(std::mem::take(&mut text).into());
            }
            if is_last || self.sender.is_closed() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn add(text: &mut Vec<u8>, line: &Line<'_>, timestamps: bool) {
    if timestamps {
        text.extend_from_slice(line.time.rfc3339().as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(line.bytes);
    text.push(b'\n');
}

/// How often a container was restarted, if it was.
fn restarts(pod: &Value, container: &str) -> Option<u32> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let count = all.find(|status| status["name"] == container)?["restartCount"].as_u64()?;
    u32::try_from(count).ok().filter(|count| *count > 0)
}
