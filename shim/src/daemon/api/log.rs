//! A container's log.

use std::rc::Rc;
use std::time::Duration;

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

pub fn log(daemon: &Rc<Daemon>, key: &Key, wanted: Wanted) -> Result<Response<Answer>, Refusal> {
    let object = daemon.store.borrow().get(key).cloned();
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
    let (daemon, key) = (daemon.clone(), key.clone());
    tokio::task::spawn_local(async move {
        loop {
            let alive = {
                let store = daemon.store.borrow();
                store.get(&key).is_some_and(|pod| pods::uid_of(pod) == uid && !daemon.is_over(pod))
            };
            let mut text = Vec::new();
            let mut take = |line: Line<'_>| add(&mut text, &line, wanted.timestamps);
            let read =
                if wanted.follow { follower.poll(&mut take) } else { follower.read_run(&mut take) };
            if let Err(e) = read {
                text.extend_from_slice(format!("{}\n", runtime::chain(&e)).as_bytes());
            }
            if !text.is_empty() && sender.send(text.into()).await.is_err() {
                return;
            }
            if !wanted.follow || !alive {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(Response::new(Answer::Pieces(pieces)))
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
