//! The daemon's side of its pods: it starts their shims, hears what becomes of them, and takes note of
//! their ends. The pods do not need it: each has a keeper, and what happens meanwhile is told later.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::manifest::Object;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Daemon;
use super::brief::Brief;
use super::store::{Key, Kind};
use crate::pod::result::PodResult;
use crate::pod::scrap::{self, Stays};
use crate::pod::{diagnostics, failpoint};
use crate::protocol::{Reply, Request};

/// Requests to one pod that may wait.
pub const REQUESTS_MAX: usize = 16;
/// What is read of a shim at a time: there may be thousands.
const READ_BYTES: usize = 1024;
/// How often is looked whether a shim listens again.
const LOOK: Duration = Duration::from_millis(10);
/// How long a keeper that was started may take until its shim listens.
const BORN_WITHIN: Duration = Duration::from_secs(5);
/// How long the removal of a pod's directories may take.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// How often in a row a pod gets a new keeper at once, and how long a shim lives that is no part of a row.
const ADOPTIONS_MAX: u32 = 3;
const LONG: Duration = Duration::from_secs(1);
/// Before a pod whose processes somebody has ended is started again: if it was the host's shutdown, this
/// daemon lives no longer then.
const AGAIN: Duration = Duration::from_secs(10);
/// Before a pod that could not be started is tried again; doubled each time.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Ways to the pods that are not over, by uid.
pub type Links = HashMap<String, mpsc::Sender<Request>>;

/// What there is of a pod on the host.
enum Found {
    /// A shim that listens.
    Shim(UnixStream),
    /// It has ended.
    Result(PodResult),
    /// Neither keeper nor shim.
    Orphan,
    /// One that is about to listen, or about to be gone.
    Busy,
    /// A directory that nobody makes or removes any more.
    Rest,
    Nothing,
}

/// Follows a pod until it is over.
pub fn follow(daemon: &Rc<Daemon>, key: Key, uid: String) {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    daemon.links.borrow_mut().insert(uid.clone(), sender);
    let daemon = daemon.clone();
    tokio::task::spawn_local(async move {
        let mut life = Life {
            daemon,
            key,
            uid,
            requests,
            was_there: false,
            rest_since: None,
            adoptions: 0,
            retry: RETRY,
        };
        while let Err(e) = life.live().await {
            let text = crate::cli::one_line(&e);
            tracing::error!("pod {}/{}: {text}", life.key.namespace, life.key.name);
            life.tell_failure(&text);
            life.daemon.is_heard(&life.uid);
            let delay = life.retry;
            life.retry = (delay * 2).min(RETRY_MAX);
            if !life.pause(delay).await {
                break;
            }
        }
        life.daemon.links.borrow_mut().remove(&life.uid);
        life.daemon.is_heard(&life.uid);
        life.daemon.wake.notify_one();
    });
}

/// One pod being followed.
struct Life {
    daemon: Rc<Daemon>,
    key: Key,
    uid: String,
    requests: mpsc::Receiver<Request>,
    /// There has been a shim.
    was_there: bool,
    /// Since when there is a directory without a pod.
    rest_since: Option<Instant>,
    /// How often it got a new keeper, without a shim that lived.
    adoptions: u32,
    retry: Duration,
}

impl Life {
    /// Until the pod is over and that is noted.
    async fn live(&mut self) -> anyhow::Result<()> {
        loop {
            match self.find().await? {
                Found::Shim(stream) => {
                    self.was_there = true;
                    failpoint::at(&self.daemon.layout, "daemon:met");
                    let begun = Instant::now();
                    self.talk(stream).await?;
                    if begun.elapsed() > LONG {
                        (self.retry, self.adoptions) = (RETRY, 0);
                    }
                    // Its end is looked into.
                    tokio::time::sleep(LOOK).await;
                }
                Found::Busy => tokio::time::sleep(LOOK).await,
                Found::Rest => scrap::own(&self.daemon.layout, &self.uid, Stays::Kept)?,
                Found::Orphan => {
                    self.adoptions += 1;
                    if self.adoptions > ADOPTIONS_MAX && self.is_deleting() {
                        scrap::own(&self.daemon.layout, &self.uid, Stays::Nothing)?;
                        continue;
                    }
                    if self.adoptions > ADOPTIONS_MAX {
                        let last_words = diagnostics(&self.daemon.layout, &self.uid);
                        bail!("the pod's shim dies each time it is started{last_words}");
                    }
                    let child = self.daemon.spawner.adopt_kept(&self.uid)?;
                    failpoint::at(&self.daemon.layout, "daemon:adopted");
                    self.daemon.children.borrow_mut().push(child);
                    self.until_born().await;
                }
                Found::Result(result) => {
                    let _turn = self.daemon.turns.acquire().await?;
                    return self.take_note(&result);
                }
                Found::Nothing if self.is_deleting() => {
                    let _turn = self.daemon.turns.acquire().await?;
                    return self.forget();
                }
                Found::Nothing if self.daemon.suspends.get() => return Ok(()),
                Found::Nothing if self.was_there && !self.is_kept() => return self.is_lost(),
                Found::Nothing if self.was_there => {
                    self.was_there = false;
                    self.tell_failure("it was stopped from outside, and is started again soon");
                    if !self.pause(AGAIN).await {
                        return Ok(());
                    }
                }
                Found::Nothing => {
                    self.daemon.is_heard(&self.uid);
                    {
                        let _turn = self.daemon.turns.acquire().await?;
                        self.spawn()?;
                    }
                    self.until_born().await;
                }
            }
        }
    }

    /// Whether it can be made again as what it was.
    fn is_kept(&self) -> bool {
        self.daemon.layout.pod(&self.uid).kept_journal().exists()
    }

    async fn find(&mut self) -> anyhow::Result<Found> {
        let layout = &self.daemon.layout;
        let dir = layout.pod(&self.uid);
        let socket = dir.socket();
        match UnixStream::connect(&socket).await.map_err(|e| (e.kind(), e)) {
            Ok(stream) => return Ok(Found::Shim(stream)),
            Err((io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, _)) => {}
            Err((_, e)) => {
                return Err(e).with_context(|| format!("cannot reach {}", socket.display()));
            }
        }
        // A shim writes how its pod has ended before it removes the directory, so it is looked for after that.
        if !dir.dir.exists() {
            let result = PodResult::read(layout, &self.uid)?;
            return Ok(result.map_or(Found::Nothing, Found::Result));
        }
        if scrap::is_held(&dir.lock())? {
            self.rest_since = None;
            return Ok(Found::Busy);
        }
        if dir.spec().exists() && PodResult::read(layout, &self.uid)?.is_none() {
            return Ok(Found::Orphan);
        }
        // The rest of one that has ended, or a beginning: somebody may be at it.
        let rests = self.rest_since.get_or_insert_with(Instant::now).elapsed();
        Ok(if rests > GONE_WITHIN { Found::Rest } else { Found::Busy })
    }

    /// Waits until the shim listens, or has already gone.
    async fn until_born(&self) {
        let dir = self.daemon.layout.pod(&self.uid);
        let deadline = Instant::now() + BORN_WITHIN;
        while dir.dir.exists() && Instant::now() < deadline {
            if UnixStream::connect(dir.socket()).await.is_ok() {
                return;
            }
            tokio::time::sleep(LOOK / 5).await;
        }
    }

    fn spawn(&self) -> anyhow::Result<()> {
        let layout = &self.daemon.layout;
        let Some(object) = self.object() else { return Ok(()) };
        // What a reboot or a kill left of it, but for what it goes on with.
        scrap::leftover(layout, &self.uid, Stays::Kept)?;
        let pod: Pod = serde_json::from_value(object)?;
        let objects = self.daemon.read_by_pods(&self.key.namespace);
        let child = self.daemon.spawner.spawn_kept(Pod { status: None, ..pod }, &objects)?;
        failpoint::at(layout, "daemon:spawned");
        self.daemon.children.borrow_mut().push(child);
        Ok(())
    }

    /// Passes on what is asked, and takes on what is told, until the shim is gone. It fails if what is told
    /// cannot be kept.
    async fn talk(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::with_capacity(READ_BYTES, reader).lines();
        let mut requests = vec![Request::Watch];
        if let Some(object) = self.object().filter(|_| self.is_deleting()) {
            let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64();
            let grace_s = grace.and_then(|s| u32::try_from(s).ok());
            requests.push(Request::Delete { grace_s });
        }
        for request in requests {
            if write(&mut writer, &request).await.is_err() {
                return Ok(());
            }
        }
        loop {
            tokio::select! {
                line = lines.next_line() => {
                    let Ok(Some(line)) = line else { return Ok(()) };
                    match serde_json::from_str(&line) {
                        _ if line.is_empty() => {}
                        Ok(reply) => self.hear(reply)?,
                        Err(e) => tracing::warn!("a shim's message is not understood: {e}"),
                    }
                }
                Some(request) = self.requests.recv() => {
                    if write(&mut writer, &request).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn hear(&self, reply: Reply) -> anyhow::Result<()> {
        match reply {
            Reply::Pod(object) | Reply::Adopted { object, .. } => self.is_now(&object)?,
            Reply::Status(status) => {
                if let Some(mut new) = self.object() {
                    new["status"] = *status;
                    self.note(new)?;
                }
            }
            Reply::Error(text) => tracing::warn!("pod {}: {text}", self.key.name),
            _ => return Ok(()),
        }
        self.daemon.is_heard(&self.uid);
        failpoint::at(&self.daemon.layout, "daemon:told");
        self.daemon.wake.notify_one();
        Ok(())
    }

    /// The shim's word is the last on what runs: a change that somebody asked it for is kept.
    fn is_now(&self, told: &Value) -> anyhow::Result<()> {
        let Some(mut new) = self.object() else { return Ok(()) };
        new["status"] = told["status"].clone();
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            if let Some(value) = told["metadata"].get(field) {
                new["metadata"][field] = value.clone();
            }
        }
        new["spec"]["nodeName"] = told["spec"]["nodeName"].clone();
        let changed = new["spec"] != told["spec"];
        new["spec"] = told["spec"].clone();
        if changed {
            self.daemon.store.borrow_mut().put(Kind::Pod, new)?;
            return Ok(());
        }
        self.note(new)
    }

    fn object(&self) -> Option<Value> {
        let store = self.daemon.store.borrow();
        store.brief(&self.key).filter(|brief| brief.uid == self.uid)?;
        store.get(&self.key)
    }

    fn is_deleting(&self) -> bool {
        let store = self.daemon.store.borrow();
        let own = store.brief(&self.key).filter(|brief| brief.uid == self.uid);
        own.is_none_or(|brief| brief.is_deleting)
    }

    fn note(&self, object: Value) -> anyhow::Result<()> {
        self.daemon.store.borrow_mut().note(Kind::Pod, object).map(drop)
    }

    fn take_note(&self, result: &PodResult) -> anyhow::Result<()> {
        failpoint::at(&self.daemon.layout, "daemon:ended");
        let deleted = is_deleting(&result.object) || self.is_deleting();
        if deleted {
            self.forget()?;
        } else if let Some(mut new) = self.object() {
            new["status"] = result.object["status"].clone();
            self.daemon.store.borrow_mut().put(Kind::Pod, new)?;
        }
        failpoint::at(&self.daemon.layout, "daemon:noted");
        self.daemon.remembers.notify_one();
        // Its shim may have died before it could remove them, and the host with it.
        scrap::leftover(&self.daemon.layout, &self.uid, Stays::Nothing)?;
        Ok(())
    }

    fn forget(&self) -> anyhow::Result<()> {
        if self.object().is_none() {
            return Ok(());
        }
        scrap::leftover(&self.daemon.layout, &self.uid, Stays::Nothing)?;
        self.daemon.store.borrow_mut().remove(&self.key)?;
        failpoint::at(&self.daemon.layout, "daemon:removed");
        Ok(())
    }

    /// Somebody removed it behind our back: `prune --all`, or by hand.
    fn is_lost(&self) -> anyhow::Result<()> {
        let Some(mut new) = self.object() else { return Ok(()) };
        new["status"]["phase"] = json!("Failed");
        new["status"]["reason"] = json!("Lost");
        new["status"]["message"] = json!("what there was of the pod on this host was removed");
        self.daemon.store.borrow_mut().put(Kind::Pod, new).map(drop)
    }

    fn tell_failure(&self, text: &str) {
        let Some(mut new) = self.object() else { return };
        new["status"]["message"] = json!(text);
        if let Err(e) = self.note(new) {
            tracing::error!("{}", crate::cli::one_line(&e));
        }
    }

    /// Until it is to be tried again; `false` if it is to end instead.
    async fn pause(&mut self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return true,
                request = self.requests.recv() => match request {
                    None | Some(Request::Suspend) => return false,
                    // It is looked at again at once.
                    Some(Request::Delete { .. } | Request::Kill) => return true,
                    Some(_) => {}
                },
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), request: &Request) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    writer.write_all(&line).await.context("cannot write to the pod's socket")
}

/// Whether an object was asked to go.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The uid of an object.
pub fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

impl Daemon {
    /// Whether a pod has ended and nothing of it is left.
    pub fn is_over(&self, pod: &Brief) -> bool {
        pod.outline.is_terminal() && !self.links.borrow().contains_key(&pod.uid)
    }

    /// Whether somebody has to follow a pod that was stored by another daemon.
    pub fn is_unfinished(&self, pod: &Brief) -> bool {
        !pod.outline.is_terminal() || pod.is_deleting || self.layout.pod(&pod.uid).dir.exists()
    }

    /// The ConfigMaps and Secrets of a namespace.
    pub fn read_by_pods(&self, namespace: &str) -> Vec<Object> {
        let store = self.store.borrow();
        let of = |kind| {
            let all = store.list(kind).filter(move |(key, _)| key.namespace == namespace);
            all.map(|(_, entry)| entry.object()).collect::<Vec<_>>()
        };
        let maps = of(Kind::ConfigMap)
            .into_iter()
            .filter_map(|object| serde_json::from_value(object).ok().map(Object::ConfigMap));
        let secrets = of(Kind::Secret)
            .into_iter()
            .filter_map(|object| serde_json::from_value(object).ok().map(Object::Secret));
        maps.chain(secrets).collect()
    }

    /// Asks a pod to end: it is marked, on the disk, and its shim is told. One that is over is forgotten.
    pub fn delete_pod(&self, key: &Key, grace_s: Option<u32>) -> anyhow::Result<Value> {
        let mut store = self.store.borrow_mut();
        let object = store.get(key).context("the pod is not there any more")?;
        self.wake.notify_one();
        if store.brief(key).is_some_and(|brief| self.is_over(brief)) {
            store.remove(key)?;
            return Ok(object);
        }
        let uid = uid_of(&object).to_owned();
        let mut new = object.clone();
        let own = object["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let seconds = grace_s.map_or(own, u64::from);
        let sooner = new["metadata"]["deletionGracePeriodSeconds"].as_u64();
        let seconds = sooner.map_or(seconds, |before| before.min(seconds));
        if !is_deleting(&object) {
            let at = plan::Wall(runtime::clock::now().wall.0 + seconds * plan::Mono::SECOND);
            new["metadata"]["deletionTimestamp"] = json!(at.rfc3339());
        }
        new["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        let object = store.put(Kind::Pod, new)?;
        failpoint::at(&self.layout, "daemon:marked");
        if let Some(link) = self.links.borrow().get(&uid) {
            // A pod that has so much before it is told when it is met again.
            let _ = link.try_send(Request::Delete { grace_s });
        }
        Ok(object)
    }
}
