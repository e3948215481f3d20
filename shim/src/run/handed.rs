//! Pods, jobs and deployments that a daemon is given: what becomes of them is shown, and at their end they
//! are removed.
//!
//! The daemon controls them, and they live on if this process dies. It tells which pods there are and what
//! it has decided; each pod's shim tells what happens in it, as to any client, so that nothing of that needs
//! the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use bundles::manifest::Object;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::news::{
    AGAIN, Change, Watch, delete, keep_hearing, keep_watching, list, tell, text, until_gone,
};
use super::pods::{Message, Said};
use super::view::{View, prefix};
use super::{Ending, REMIND, Signals, wanted_pods};
use crate::cli::{CANNOT, Remote, api_path, object_value, one_line};
use crate::daemon::store::{Key, Kind};
use crate::pod::result::PodResult;
use crate::protocol::{Reply, Request};
use crate::service::Service;

/// What a `run` has made for its pods to read has this annotation: it goes with them, and what somebody else
/// has made stays.
const OF_RUN: &str = "podshim.dev/run";
/// How long the daemon may take to remove what has ended.
const REMOVED_WITHIN: Duration = Duration::from_secs(10);
/// News of the daemon's that may wait.
const NEWS_MAX: usize = 256;

/// Whether a daemon of this root listens.
pub async fn is_served(layout: &Layout) -> bool {
    UnixStream::connect(layout.daemon_socket()).await.is_ok()
}

/// Runs the objects to their end; returns the exit code.
pub async fn run(
    layout: Layout,
    view: View,
    objects: Vec<Object>,
    read: Vec<Object>,
    resume: bool,
) -> anyhow::Result<i32> {
    let mut signals = Signals::new()?;
    let (sender, news) = mpsc::channel(NEWS_MAX);
    let mut session = Session {
        daemon: Remote::of(&layout),
        wanted: objects.iter().map(wanted_pods).collect(),
        layout,
        view,
        news,
        resume,
        workloads: Vec::new(),
        read: Vec::new(),
        told: BTreeMap::new(),
        forgotten: BTreeSet::new(),
        is_away: false,
        waits_to_delete: false,
        ending: None,
    };
    if let Err(e) = session.hand_over(objects, read).await {
        session.view.printer.warn(&one_line(&e));
        session.remove().await;
        return Ok(CANNOT);
    }
    session.watch(&sender);
    let exit_code = session.follow(&mut signals).await?;
    if let Some(exit_code) = exit_code {
        session.remove().await;
        session.view.tell_end(exit_code).await;
        return Ok(exit_code);
    }
    session.view.tell_end(session.exit_code()).await;
    Ok(session.exit_code())
}

/// An object of the manifests, as the daemon has it.
struct Workload {
    key: Key,
    uid: String,
    object: Value,
    /// It was not there before.
    made: bool,
    /// The daemon has it no more.
    gone: bool,
    /// All pods are known that it has had.
    counted: bool,
    /// Set when it is over.
    exit_code: Option<i32>,
}

struct Session {
    layout: Layout,
    daemon: Remote,
    view: View,
    news: mpsc::Receiver<(Watch, Change)>,
    /// What is there already is gone on with.
    resume: bool,
    workloads: Vec<Workload>,
    /// ConfigMaps and Secrets that were made for them.
    read: Vec<Key>,
    /// How many pods each workload is to have.
    wanted: Vec<usize>,
    /// The daemon's word on a pod that does not live, as it was shown last.
    told: BTreeMap<String, String>,
    /// Pods that the daemon has no more.
    forgotten: BTreeSet<String>,
    /// The daemon does not answer, which was said.
    is_away: bool,
    /// It could not be asked to delete, which was said.
    waits_to_delete: bool,
    ending: Option<Ending>,
}

impl Session {
    /// Gives everything to the daemon.
    async fn hand_over(&mut self, objects: Vec<Object>, read: Vec<Object>) -> anyhow::Result<()> {
        for object in &read {
            let (kind, mut object) = object_value(object)?;
            object["metadata"]["annotations"][OF_RUN] = json!("true");
            let (key, known, made) = self.give(kind, &object).await?;
            if made || self.resume && known["metadata"]["annotations"][OF_RUN].is_string() {
                self.read.push(key);
            }
        }
        for object in &objects {
            let (kind, object) = object_value(object)?;
            let (key, object, made) = self.give(kind, &object).await?;
            let uid = text(&object["metadata"]["uid"]);
            self.workloads.push(Workload {
                key,
                uid,
                object,
                made,
                gone: false,
                counted: false,
                exit_code: None,
            });
        }
        Ok(())
    }

    /// Gives an object; says whether it was not there before.
    async fn give(&self, kind: Kind, object: &Value) -> anyhow::Result<(Key, Value, bool)> {
        let wanted = Key::of(kind, object);
        let what = format!("{} {:?}", kind.plural(), wanted.name);
        let place = api_path(kind, Some(&wanted.namespace), None);
        let made = self.daemon.ask(Method::POST, &place, Some(object)).await?;
        if made.code != StatusCode::CONFLICT {
            let object = made.object().context(what)?;
            return Ok((Key::of(kind, &object), object, true));
        }
        let at = api_path(kind, Some(&wanted.namespace), Some(&wanted.name));
        let is_read = matches!(kind, Kind::ConfigMap | Kind::Secret);
        let mut is_ours = self.resume;
        if is_read {
            let known = self.daemon.ask(Method::GET, &at, None).await?;
            let known = known.object().with_context(|| what.clone())?;
            if ["data", "binaryData"].iter().all(|field| known[field] == object[field]) {
                return Ok((wanted, known, false));
            }
            is_ours &= known["metadata"]["annotations"][OF_RUN].is_string();
        }
        if is_ours {
            let known = self.daemon.ask(Method::PUT, &at, Some(object)).await?;
            if known.code == StatusCode::NOT_FOUND {
                bail!(
                    "{what} is another `podshim run`'s, which runs without the daemon: end that first"
                );
            }
            return Ok((wanted, known.object().context(what)?, false));
        }
        let namespace = &wanted.namespace;
        bail!(
            "{what} already exists in namespace {namespace:?}{}",
            if is_read {
                ", and has other data: `podshim apply` changes it".to_owned()
            } else {
                format!(
                    " (`podshim get {} -n {namespace}` shows it; `run --resume` goes on with it, \
                     `podshim delete {} {} -n {namespace}` removes it)",
                    kind.plural(),
                    kind.name().to_lowercase(),
                    wanted.name
                )
            }
        )
    }

    /// Has the daemon tell of everything.
    fn watch(&self, sender: &mpsc::Sender<(Watch, Change)>) {
        let namespaces: BTreeSet<&String> =
            self.workloads.iter().map(|w| &w.key.namespace).collect();
        let pods = namespaces.into_iter().map(|namespace| Watch {
            kind: Kind::Pod,
            namespace: namespace.clone(),
            name: None,
        });
        let controllers =
            self.workloads.iter().filter(|w| w.key.kind != Kind::Pod).map(|w| Watch {
                kind: w.key.kind,
                namespace: w.key.namespace.clone(),
                name: Some(w.key.name.clone()),
            });
        for watch in pods.chain(controllers) {
            tokio::spawn(keep_watching(self.daemon.clone(), watch, sender.clone()));
        }
    }

    /// Until everything is over; `None` if it is left to the daemon.
    async fn follow(&mut self, signals: &mut Signals) -> anyhow::Result<Option<i32>> {
        let mut remind = tokio::time::interval(REMIND);
        remind.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let look_again = self.settle().await;
            if self.is_over() {
                return Ok(Some(self.exit_code()));
            }
            self.view.tell_ready(&self.wanted).await;
            tokio::select! {
                message = self.view.messages.recv() => {
                    if let Some(message) = message {
                        self.on_message(message);
                    }
                    while let Ok(message) = self.view.messages.try_recv() {
                        self.on_message(message);
                    }
                }
                Some((watch, change)) = self.news.recv() => self.on_news(&watch, change),
                uids = self.view.pods.logs_grew() => self.view.print_logs(&uids),
                exit_code = signals.next() => {
                    if self.on_signal(exit_code).await {
                        return Ok(None);
                    }
                }
                () = sleep(AGAIN), if look_again => {}
                _ = remind.tick() => self.view.remind(),
            }
        }
    }

    fn on_news(&mut self, watch: &Watch, change: Change) {
        match change {
            Change::Away if self.is_away => return,
            Change::Away => {
                self.is_away = true;
                let at = self.daemon.socket().display();
                return self.view.printer.warn(&format!(
                    "no daemon answers at {at}: what runs goes on, and what becomes of it is waited for until \
                     one does"
                ));
            }
            Change::All(_) => self.is_away = false,
            Change::Is(_) | Change::Deleted(_) => {}
        }
        if watch.kind == Kind::Pod {
            return self.on_pods(&watch.namespace, change);
        }
        let found = self.workloads.iter_mut().find(|w| {
            w.key.kind == watch.kind
                && w.key.namespace == watch.namespace
                && Some(&w.key.name) == watch.name.as_ref()
        });
        let Some(workload) = found else { return };
        let is_it = |object: &Value| object["metadata"]["uid"] == *workload.uid;
        match change {
            Change::All(all) => match all.into_iter().find(is_it) {
                Some(object) => workload.object = object,
                None => workload.gone = true,
            },
            Change::Is(object) if is_it(&object) => {
                self.view.tell_retry(&workload.object, &object);
                workload.object = object;
            }
            Change::Deleted(object) if is_it(&object) => workload.gone = true,
            Change::Is(_) | Change::Deleted(_) | Change::Away => {}
        }
    }

    fn on_pods(&mut self, namespace: &str, change: Change) {
        match change {
            Change::All(all) => {
                let there: BTreeSet<String> =
                    all.iter().map(|pod| text(&pod["metadata"]["uid"])).collect();
                let known = self.view.pods.list.iter();
                let known = known.filter(|(_, p)| p.object["metadata"]["namespace"] == namespace);
                let gone: Vec<String> = known.map(|(uid, _)| uid.clone()).collect();
                self.forgotten.extend(gone.into_iter().filter(|uid| !there.contains(uid)));
                for workload in self.workloads.iter_mut().filter(|w| w.key.kind == Kind::Pod) {
                    workload.gone |=
                        workload.key.namespace == namespace && !there.contains(&workload.uid);
                }
                all.into_iter().for_each(|pod| self.on_pod(pod));
            }
            Change::Is(pod) => self.on_pod(pod),
            Change::Deleted(pod) => {
                let uid = text(&pod["metadata"]["uid"]);
                if let Some(workload) = self.workloads.iter_mut().find(|w| w.uid == uid) {
                    workload.gone = true;
                }
                self.forgotten.insert(uid);
            }
            Change::Away => {}
        }
    }

    /// The daemon has a pod, which may be one of ours.
    fn on_pod(&mut self, pod: Value) {
        let uid = text(&pod["metadata"]["uid"]);
        let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let owners: Vec<&str> = owners.filter_map(|owner| owner["uid"].as_str()).collect();
        let of = |w: &Workload| w.uid == uid || owners.contains(&w.uid.as_str());
        let Some(workload) = self.workloads.iter().position(of) else { return };
        let name = text(&pod["metadata"]["name"]);
        let message = text(&pod["status"]["message"]);
        match self.view.pods.list.get_mut(&uid) {
            Some(known) if known.gone => return,
            // What its shim says is newer.
            Some(known) if known.is_met => {
                known.object["metadata"] = pod["metadata"].clone();
            }
            Some(known) => known.object = pod,
            None => self.take_on(&uid, pod, workload),
        }
        if !message.is_empty() && self.told.get(&uid) != Some(&message) {
            self.view.printer.warn(&format!("pod {name}: {message}"));
            self.told.insert(uid, message);
        }
    }

    fn take_on(&mut self, uid: &str, pod: Value, workload: usize) {
        let field = |name: &str| text(&pod["metadata"][name]);
        let name = field("name");
        let dir = self.layout.pod_logs(&field("namespace"), &name, uid);
        let containers = ["initContainers", "containers"].iter();
        let containers = containers.filter_map(|list| pod["spec"][list].as_array()).flatten();
        let names = containers.map(|container| text(&container["name"]));
        let logs = names.map(|name| (name.clone(), dir.join(name))).collect();
        let View { pods, printer, several, .. } = &mut self.view;
        pods.take_on(uid, pod, workload, logs, printer, |container| {
            prefix(*several, &name, Some(container))
        });
        tokio::spawn(keep_hearing(self.layout.clone(), uid.to_owned(), pods.sender()));
    }

    fn on_message(&mut self, Message { uid, said }: Message) {
        let Some(pod) = self.view.pods.list.get_mut(&uid).filter(|pod| !pod.gone) else { return };
        match said {
            Said::Met => {
                (pod.awaits_events, pod.is_met) = (true, true);
                self.view.pods.watch_logs(&uid);
            }
            Said::Reply(reply) => {
                if let Some(Reply::Adopted { object, events }) = self.view.hear(&uid, reply) {
                    let _ = self.view.hear(&uid, Reply::Pod(object));
                    self.view.show_news(&uid, events);
                }
            }
            Said::Ended(result) => {
                let PodResult { object, exit_code, events } = *result;
                pod.object = object;
                pod.exit_code = Some(exit_code);
                self.view.show_news(&uid, events);
                self.on_gone(&uid);
            }
            Said::Unreadable | Said::Left => {
                pod.exit_code = Some(CANNOT);
                self.on_gone(&uid);
            }
        }
    }

    /// Nothing of a pod is left.
    fn on_gone(&mut self, uid: &str) {
        self.view.pods.end(uid, &self.view.printer);
        if let Some(pod) = self.view.pods.list.get(uid) {
            self.view.printer.object(&pod.object);
        }
    }

    /// Finds out what is over. Says whether to look again although nobody says anything.
    async fn settle(&mut self) -> bool {
        let mut again = self.lose();
        for index in 0..self.workloads.len() {
            let workload = &self.workloads[index];
            let Some(exit_code) = self.exit_code_of(index) else { continue };
            if !workload.counted {
                // A pod that it has had may not have been told of yet.
                let namespace = workload.key.namespace.clone();
                match list(&self.daemon, &api_path(Kind::Pod, Some(&namespace), None)).await {
                    Ok((all, _)) => self.on_pods(&namespace, Change::All(all)),
                    // Nobody knows more then.
                    Err(_) if workload.gone => {}
                    Err(_) => {
                        again = true;
                        continue;
                    }
                }
                self.workloads[index].counted = true;
            }
            let lives = self.view.pods.list.values().any(|p| p.workload == index && !p.gone);
            if !lives {
                let code = self.exit_code_of(index).unwrap_or(exit_code);
                self.workloads[index].exit_code.get_or_insert(code);
            }
        }
        if self.ending.is_some_and(|ending| !ending.at_once) && !self.is_asked() {
            again |= !self.ask_to_go(None).await;
        }
        again
    }

    /// What a workload exits with, if it has ended but for pods that still live.
    fn exit_code_of(&self, index: usize) -> Option<i32> {
        let workload = &self.workloads[index];
        let own = || self.view.pods.list.values().filter(|pod| pod.workload == index);
        if workload.key.kind == Kind::Pod {
            let ended = own().find(|pod| pod.gone).map(|pod| pod.exit_code.unwrap_or(0));
            // It was deleted before it began.
            return ended.or((workload.gone && own().next().is_none()).then_some(0));
        }
        let conditions = workload.object["status"]["conditions"].as_array();
        let is = |kind: &str| {
            let mut all = conditions.into_iter().flatten();
            all.any(|c| c["type"] == kind && c["status"] == "True")
        };
        match workload.key.kind {
            Kind::Job if is("Complete") => Some(0),
            Kind::Job if is("Failed") => {
                let failed = own().filter(|pod| pod.object["status"]["phase"] == "Failed");
                let last = failed.max_by_key(|pod| pod.finished.map(|at| at.mono));
                Some(last.and_then(|pod| pod.exit_code).filter(|code| *code != 0).unwrap_or(1))
            }
            _ => workload.gone.then_some(0),
        }
    }

    /// Pods that are over or that the daemon has no more, and that left nothing to read: they never began, or
    /// somebody removed them. Says whether it is not known of some yet.
    fn lose(&mut self) -> bool {
        let mut waits = false;
        let mut lost = Vec::new();
        for (uid, pod) in self.view.pods.list.iter_mut().filter(|(_, pod)| !pod.gone) {
            let phase = pod.object["status"]["phase"].as_str();
            let is_terminal = matches!(phase, Some("Succeeded" | "Failed"));
            if !is_terminal && !self.forgotten.contains(uid) {
                continue;
            }
            let has_failed = phase == Some("Failed");
            let left = self.layout.pod(uid).dir.exists() || self.layout.result(uid).exists();
            if left {
                waits = true;
                continue;
            }
            pod.exit_code = Some(if has_failed { CANNOT } else { 0 });
            lost.push(uid.clone());
        }
        lost.iter().for_each(|uid| self.on_gone(uid));
        waits
    }

    /// The first signal deletes everything, the second at once. Says whether nothing more is to be done here.
    async fn on_signal(&mut self, exit_code: i32) -> bool {
        if self.resume && Service::of_systemd().host_goes_down().await {
            self.ending = Some(Ending { exit_code, at_once: false });
            self.view.printer.note("", "the host goes down: the daemon's pods go on after it");
            return true;
        }
        let at_once = self.ending.is_some();
        let how = match (at_once, self.waits_to_delete) {
            (false, _) => "stops (again: kills at once)",
            (true, false) => "kills every container",
            (true, true) => "ends; what runs is the daemon's, and lives on",
        };
        self.view.printer.note("", how);
        let exit_code = self.ending.map_or(exit_code, |e| e.exit_code);
        self.ending = Some(Ending { exit_code, at_once });
        if !at_once {
            // It is asked in `settle`, again and again.
            return false;
        }
        if !self.ask_to_go(Some(0)).await {
            // What would be killed now would be made again.
            return true;
        }
        for (uid, pod) in &self.view.pods.list {
            if !pod.gone {
                tell(&self.layout, uid, &Request::Kill).await;
            }
        }
        false
    }

    /// Whether the daemon knows that all is to go.
    fn is_asked(&self) -> bool {
        let is_going =
            |w: &Workload| w.gone || w.object["metadata"]["deletionTimestamp"].is_string();
        self.workloads.iter().all(is_going)
    }

    /// Asks the daemon to delete everything; `false` if it does not answer.
    async fn ask_to_go(&mut self, grace_s: Option<u32>) -> bool {
        for workload in self.workloads.iter_mut().filter(|w| !w.gone) {
            let options = grace_s.map(|s| json!({"gracePeriodSeconds": s}));
            match delete(&self.daemon, &workload.key, &workload.uid, options).await {
                Ok(Some(object)) => workload.object = object,
                Ok(None) => workload.gone = true,
                Err(_) if self.waits_to_delete => return false,
                Err(e) => {
                    self.waits_to_delete = true;
                    let at = self.daemon.socket().display();
                    self.view.printer.warn(&format!(
                        "{}: what runs is deleted as soon as a daemon listens at {at} (again: it lives on)",
                        one_line(&e)
                    ));
                    return false;
                }
            }
        }
        self.waits_to_delete = false;
        true
    }

    fn is_over(&self) -> bool {
        if self.view.pods.anybody_alive() {
            return false;
        }
        match self.ending {
            Some(_) => self.workloads.iter().all(|w| w.gone || w.exit_code.is_some()),
            None => self.workloads.iter().all(|w| w.exit_code.is_some()),
        }
    }

    /// Of several, the first that is not 0.
    fn exit_code(&self) -> i32 {
        if let Some(ending) = self.ending {
            return ending.exit_code;
        }
        self.workloads.iter().filter_map(|w| w.exit_code).find(|c| *c != 0).unwrap_or(0)
    }

    /// What was run is removed; its logs stay until `podshim prune`.
    async fn remove(&self) {
        for workload in self.workloads.iter().filter(|w| w.key.kind != Kind::Pod) {
            self.view.printer.object(&workload.object);
        }
        // What another one has begun is his, unless it has ended.
        let own = self.workloads.iter().filter(|w| w.made || w.exit_code.is_some());
        let own = own.filter(|w| !w.gone).map(|w| (&w.key, w.uid.as_str()));
        let read = self.read.iter().map(|key| (key, ""));
        for (key, uid) in own.chain(read) {
            let gone = tokio::time::timeout(REMOVED_WITHIN, until_gone(&self.daemon, key, uid));
            let what = format!("{} {:?} is left", key.kind.plural(), key.name);
            match gone.await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => self.view.printer.warn(&format!("{what}: {}", one_line(&e))),
                Err(_) => self.view.printer.warn(&format!("{what}: the daemon still deletes it")),
            }
        }
    }
}
