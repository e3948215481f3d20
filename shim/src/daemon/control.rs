//! The daemon's controllers: jobs and deployments of the store are given their pods.
//!
//! What is to be done is `plan::workload`'s to say; here it is asked whenever something has changed, and
//! done.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use plan::workload::WorkloadPod;
use plan::{At, Mono, Wall};
use serde_json::{Value, json};

use super::Daemon;
use super::brief::Brief;
use super::pods::{is_deleting, uid_of};
use super::store::{Key, Kind};
use crate::pod::failpoint;
use crate::workload::{Controller, REVISION, Seen, SetChange, Wanted, on_both, wall, workload_pod};

/// By uid of the job or deployment, with what of it the controller is made from.
pub type Controllers = HashMap<String, ([Value; 2], Controller)>;

/// How many pods of a job or deployment are made, or asked to end, before others have their turn: each is synced to
/// the disk, and clients are answered in between.
const AT_ONCE: usize = 4;
/// Before what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Controls everything, as long as the daemon lives.
pub async fn control(daemon: Rc<Daemon>) {
    loop {
        let mut wake_at = None;
        for kind in [Kind::Job, Kind::Deployment] {
            let keys: Vec<Key> =
                daemon.store.borrow().list(kind).map(|(key, _)| key.clone()).collect();
            for key in keys {
                let next = daemon.control_one(&key).unwrap_or_else(|e| {
                    let text = crate::cli::one_line(&e);
                    tracing::error!("{} {}/{}: {text}", kind.name(), key.namespace, key.name);
                    Some(Mono(runtime::clock::mono().0 + RETRY.as_secs() * Mono::SECOND))
                });
                wake_at = [wake_at, next].into_iter().flatten().min();
            }
        }
        let sleep = async {
            match wake_at {
                None => std::future::pending().await,
                Some(at) => {
                    let left = at.0.saturating_sub(runtime::clock::mono().0);
                    tokio::time::sleep(Duration::from_nanos(left)).await;
                }
            }
        };
        tokio::select! {
            () = daemon.wake.notified() => {}
            () = sleep => {}
        }
    }
}

impl Daemon {
    /// Says when to look again, if nothing happens before.
    fn control_one(self: &Rc<Self>, key: &Key) -> anyhow::Result<Option<Mono>> {
        let now = runtime::clock::now();
        let Some(object) = self.store.borrow().get(key) else { return Ok(None) };
        let own = self.pods_of(uid_of(&object));
        if is_deleting(&object) {
            let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64();
            let grace_s = grace.and_then(|s| u32::try_from(s).ok());
            // Asked once more, it may be sooner.
            let is_late =
                |brief: &Brief| grace.is_some_and(|s| brief.grace_s.is_some_and(|own| s < own));
            let mut left = own
                .iter()
                .filter(|(_, brief)| self.is_over(brief) || !brief.is_deleting || is_late(brief));
            for (pod, _) in left.by_ref().take(AT_ONCE) {
                self.delete_pod(pod, grace_s)?;
            }
            if left.next().is_some() {
                return Ok(Some(now.mono));
            }
            if own.is_empty() {
                self.controllers.borrow_mut().remove(uid_of(&object));
                self.remembers.notify_one();
                for (set, _) in self.sets_of(uid_of(&object)) {
                    self.store.borrow_mut().remove(&set)?;
                }
                self.store.borrow_mut().remove(key)?;
            }
            return Ok(None);
        }
        let pods: Vec<WorkloadPod> =
            own.iter().map(|(_, brief)| seen(brief, self.is_over(brief), now)).collect();
        let Wanted { create, delete, wake_at, status, sets, revision, .. } =
            self.plan(&object, key, &pods, now)?;
        if let Err(e) = self.keep_sets(&object, sets) {
            // What it holds to be so is not on the disk.
            self.controllers.borrow_mut().remove(uid_of(&object));
            return Err(e);
        }
        let mut new = object.clone();
        new["status"] = status;
        if let Some(revision) = revision {
            new["metadata"]["annotations"][REVISION] = json!(revision.to_string());
        }
        if new != object {
            let new = self.store.borrow_mut().put(key.kind, new)?;
            self.tell_end(&object, &new);
        }
        let is_more = create.len().max(delete.len()) > AT_ONCE;
        for uid in delete.into_iter().take(AT_ONCE) {
            let pod = own.iter().find(|(_, brief)| brief.uid == uid);
            if let Some((pod, brief)) = pod {
                self.delete_pod(pod, None)?;
                if !brief.is_deleting {
                    self.tell_deleted(&object, &brief.outline.owner, &pod.name);
                }
            }
        }
        for pod in create.into_iter().take(AT_ONCE) {
            let made = self.take_on_pod(&pod);
            self.tell_created(&object, &pod, &made);
            made?;
        }
        Ok(if is_more { Some(now.mono) } else { wake_at })
    }

    fn plan(
        &self,
        object: &Value,
        key: &Key,
        pods: &[WorkloadPod],
        now: At,
    ) -> anyhow::Result<Wanted> {
        let uid = uid_of(object).to_owned();
        let mut controllers = self.controllers.borrow_mut();
        let source = source_of(object);
        if controllers.get(&uid).is_none_or(|(known, _)| *known != source) {
            let at = |time: &Value| Some(on_both(wall(time.as_str()?)?, now));
            let created = at(&object["metadata"]["creationTimestamp"]).unwrap_or(now);
            let started = at(&object["status"]["startTime"]).unwrap_or(created);
            let mut typed = object.clone();
            // It is written by controllers, which have their own type of it.
            typed.as_object_mut().map(|object| object.remove("status"));
            let mut controller = match key.kind {
                Kind::Job => Controller::job(serde_json::from_value(typed)?, started),
                _ => {
                    let sets = self.sets_of(&uid).into_iter().map(|(_, set)| set).collect();
                    Controller::deployment(&serde_json::from_value(typed)?, sets, started)?
                }
            };
            controller.recall(&object["status"], at);
            controllers.insert(uid.clone(), (source, controller));
        }
        let (_, controller) = controllers.get_mut(&uid).context("it has just been made")?;
        controller.plan(pods, now)
    }

    /// The replica sets of a deployment of this uid.
    fn sets_of(&self, uid: &str) -> Vec<(Key, Value)> {
        let store = self.store.borrow();
        let own = store
            .list(Kind::ReplicaSet)
            .filter(|(_, set)| set.brief.owners.iter().any(|owner| owner == uid));
        own.map(|(key, set)| (key.clone(), set.object())).collect()
    }

    /// What becomes of replica sets is kept, and they are what it is of before there are pods of it.
    fn keep_sets(&self, deployment: &Value, changes: Vec<SetChange>) -> anyhow::Result<()> {
        for change in changes {
            let mut store = self.store.borrow_mut();
            match change {
                SetChange::Put(set) => {
                    let before = store.get(&Key::of(Kind::ReplicaSet, &set));
                    let set = store.put(Kind::ReplicaSet, set)?;
                    drop(store);
                    self.tell_scaled(deployment, before.as_ref(), &set);
                }
                SetChange::Note(set) => drop(store.note(Kind::ReplicaSet, set)?),
                SetChange::Remove(name) => {
                    let namespace = Key::of(Kind::Deployment, deployment).namespace;
                    store.remove(&Key { kind: Kind::ReplicaSet, namespace, name })?;
                }
            }
            failpoint::at(&self.layout, "daemon:rolled");
        }
        Ok(())
    }

    /// The pods one of whose owners has this uid.
    fn pods_of(&self, uid: &str) -> Vec<(Key, Brief)> {
        let store = self.store.borrow();
        let own = store
            .list(Kind::Pod)
            .filter(|(_, pod)| pod.brief.owners.iter().any(|owner| owner == uid));
        own.map(|(key, pod)| (key.clone(), pod.brief.clone())).collect()
    }

    /// A pod that a controller wants: stored, then started.
    fn take_on_pod(self: &Rc<Self>, pod: &Pod) -> anyhow::Result<()> {
        let object = super::admit::new_pod(pod.clone())?;
        let stored = self.store.borrow_mut().put(Kind::Pod, object)?;
        failpoint::at(&self.layout, "daemon:controlled");
        self.begin(Key::of(Kind::Pod, &stored), uid_of(&stored).to_owned());
        Ok(())
    }
}

/// What of an object its controller does not write itself.
fn source_of(object: &Value) -> [Value; 2] {
    let mut annotations = object["metadata"]["annotations"].clone();
    annotations.as_object_mut().map(|annotations| annotations.remove(REVISION));
    [object["spec"].clone(), annotations]
}

fn seen(pod: &Brief, over: bool, now: At) -> WorkloadPod {
    let at = |wall: Option<Wall>| wall.map(|wall| on_both(wall, now));
    workload_pod(Seen {
        uid: &pod.uid,
        outline: pod.outline.clone(),
        gone: over,
        deleting: pod.is_deleting,
        created: at(pod.created).unwrap_or(now),
        finished: at(pod.finished).filter(|_| over).or(over.then_some(now)),
        exit_code: 0,
        now,
    })
}
