//! Pods, jobs and deployments of this very process.
//!
//! It is the controller of what it runs for as long as it lives: it makes and deletes pods as their
//! controllers want, shows what happens, and takes everything down when it is told to end. The pods
//! themselves are their shims' business. When it dies without a word, each shim sees its channel
//! closed and takes its pod down gracefully.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use bundles::manifest::Object;
use k8s_openapi::api::core::v1::Pod;
use plan::Mono;
use plan::workload::WorkloadPod;
use runtime::state_dir;

use super::objects::ObjectFile;
use super::pods::{Message, PodRun, Said};
use super::view::{View, prefix};
use super::{Ending, REMIND, Signals, until, wanted_pods};
use crate::cli::CANNOT;
use crate::pod::diagnostics;
use crate::pod::scrap::{self, Stays};
use crate::protocol::{Reply, Request};
use crate::spawn::{Spawner, new_uid};
use crate::timeline::{Timeline, render};
use crate::workload::{Controller, Outline, Seen, give_name, object_of, workload_pod};

/// An object of the manifests, being run.
struct Workload {
    /// What makes and deletes its pods, and its object for `podshim get`; `None` for a pod of its own.
    controlled: Option<(Controller, ObjectFile)>,
    /// Set when it is over.
    exit_code: Option<i32>,
}

/// All of it.
pub struct Session {
    spawner: Spawner,
    view: View,
    /// Where pictures of the pods' lives go.
    timeline: Option<PathBuf>,
    workloads: Vec<Workload>,
    /// How many pods each is to have.
    wanted: Vec<usize>,
    ending: Option<Ending>,
}

/// How many keepers in a row are replaced, and how long one must live to be no part of a row.
const KEEPERS_MAX: u32 = 8;
const LONG: Duration = Duration::from_secs(1);

impl Session {
    /// Of nothing yet.
    pub fn new(spawner: Spawner, view: View, timeline: Option<PathBuf>) -> Session {
        let (workloads, wanted) = (Vec::new(), Vec::new());
        Session { spawner, view, timeline, workloads, wanted, ending: None }
    }

    /// Runs the objects to their end; returns the exit code.
    pub async fn run(&mut self, objects: Vec<Object>) -> anyhow::Result<i32> {
        let mut signals = Signals::new()?;
        self.wanted = objects.iter().map(wanted_pods).collect();
        for object in objects {
            if let Err(e) = self.take_on(object) {
                self.view.printer.warn(&crate::cli::one_line(&e));
                self.end(Ending { exit_code: CANNOT, at_once: false }).await;
                break;
            }
        }
        let mut remind = tokio::time::interval(REMIND);
        remind.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake_at = self.control().await?;
            if self.is_over() {
                let exit_code = self.exit_code();
                self.view.tell_end(exit_code).await;
                return Ok(exit_code);
            }
            self.view.tell_ready(&self.wanted).await;
            tokio::select! {
                message = self.view.messages.recv() => {
                    if let Some(message) = message {
                        self.on_message(message).await?;
                    }
                    while let Ok(message) = self.view.messages.try_recv() {
                        self.on_message(message).await?;
                    }
                }
                uids = self.view.pods.logs_grew() => self.view.print_logs(&uids),
                exit_code = signals.next() => self.on_signal(exit_code).await,
                () = until(wake_at) => {}
                _ = remind.tick() => self.view.remind(),
            }
        }
    }

    fn take_on(&mut self, object: Object) -> anyhow::Result<()> {
        let now = runtime::clock::now();
        let layout = self.spawner.layout().clone();
        let (controller, file) = match object {
            Object::Pod(mut pod) => {
                self.workloads.push(Workload { controlled: None, exit_code: None });
                give_name(&mut pod.metadata)?;
                return self.make_pod(*pod, self.workloads.len() - 1);
            }
            Object::Job(mut job) => {
                self.prepare(&mut job.metadata)?;
                let object = object_of("batch/v1", "Job", &job, now)?;
                (Controller::job(*job, now), ObjectFile::create(&layout, "Job", object)?)
            }
            // They are the spawner's, which gives them to the pods that name them.
            Object::ConfigMap(_) | Object::Secret(_) => return Ok(()),
            Object::Deployment(mut deployment) => {
                self.prepare(&mut deployment.metadata)?;
                let object = object_of("apps/v1", "Deployment", &deployment, now)?;
                let controller = Controller::deployment(&deployment, Vec::new(), now)?;
                (controller, ObjectFile::create(&layout, "Deployment", object)?)
            }
        };
        self.workloads.push(Workload { controlled: Some((controller, file)), exit_code: None });
        Ok(())
    }

    /// A controller is a user of the state directory; its object needs a name and a uid.
    fn prepare(
        &self,
        meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> anyhow::Result<()> {
        let layout = self.spawner.layout();
        let held = state_dir::lock(layout)?;
        state_dir::enter(layout, &held)?;
        give_name(meta)?;
        meta.uid = Some(new_uid()?);
        Ok(())
    }

    fn make_pod(&mut self, pod: Pod, workload: usize) -> anyhow::Result<()> {
        let spawned = self.spawner.spawn(pod)?;
        let name = spawned.pod.metadata.name.clone().unwrap_or_default();
        let View { pods, printer, several, .. } = &mut self.view;
        pods.add(spawned, workload, printer, |container| prefix(*several, &name, Some(container)))
    }

    /// Asks every controller what it wants and does it; says when to ask again.
    async fn control(&mut self) -> anyhow::Result<Option<Mono>> {
        let mut wake_at = None;
        for index in 0..self.workloads.len() {
            let own = self.pods_of(index);
            let workload = &mut self.workloads[index];
            let Some((controller, file)) = &mut workload.controlled else {
                if let Some((_, code)) = own
                    .iter()
                    .find(|(p, gone)| *gone && p.is_terminal())
                    .map(|(p, g)| (g, p.exit_code))
                {
                    workload.exit_code.get_or_insert(code);
                }
                continue;
            };
            if self.ending.is_some() && workload.exit_code.is_some() {
                continue;
            }
            let pods: Vec<WorkloadPod> = own.into_iter().map(|(pod, _)| pod).collect();
            let wanted = controller.plan(&pods, runtime::clock::now())?;
            let mut object = file.object().clone();
            object["status"] = wanted.status;
            self.view.tell_retry(file.object(), &object);
            file.update(object)?;
            wake_at = [wake_at, wanted.wake_at].into_iter().flatten().min();
            if let Some(code) = wanted.over {
                workload.exit_code = Some(code);
            }
            for uid in wanted.delete {
                self.view.pods.request(&uid, &Request::Delete { grace_s: None }).await;
            }
            if self.ending.is_none() {
                for pod in wanted.create {
                    if let Err(e) = self.make_pod(pod, index) {
                        self.view.printer.warn(&crate::cli::one_line(&e));
                        self.end(Ending { exit_code: CANNOT, at_once: false }).await;
                        return Ok(None);
                    }
                }
            }
        }
        Ok(wake_at.filter(|_| self.ending.is_none()))
    }

    /// The pods of a workload, as its controller sees them, and whether each is gone.
    fn pods_of(&self, workload: usize) -> Vec<(WorkloadPod, bool)> {
        self.view
            .pods
            .list
            .iter()
            .filter(|(_, pod)| pod.workload == workload)
            .map(|(uid, pod)| (workload_pod(seen(uid, pod)), pod.gone))
            .collect()
    }

    async fn on_message(&mut self, message: Message) -> anyhow::Result<()> {
        let Message { uid, said } = message;
        let reply = match said {
            Said::Met => return Ok(()),
            Said::Left | Said::Ended(_) | Said::Unreadable => return self.on_gone(&uid),
            Said::Reply(reply) => reply,
        };
        match self.view.hear(&uid, reply) {
            Some(Reply::Adopted { object, events }) => {
                if let Some(pod) = self.view.pods.list.get_mut(&uid) {
                    pod.object = *object;
                }
                self.view.show_news(&uid, events);
                self.view.pods.ask_again(&uid).await;
            }
            Some(Reply::Timeline(life)) => self.draw(&life),
            // Answers to what a controller does not ask.
            _ => {}
        }
        Ok(())
    }

    /// Draws a pod's life into the file that the user named, or beside it if there are several pods.
    fn draw(&self, life: &Timeline) {
        let Some(path) = &self.timeline else { return };
        let path = if self.view.several || !self.workloads.iter().all(|w| w.controlled.is_none()) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            path.with_file_name(format!("{stem}-{}.svg", life.pod))
        } else {
            path.clone()
        };
        if let Err(e) = std::fs::write(&path, render::svg(life)) {
            self.view.printer.warn(&format!("cannot write {}: {e}", path.display()));
        }
    }

    /// A pod's keeper and shim have ended. If somebody killed the keeper too, the pod gets new ones; if no
    /// shim could be kept alive, nothing of the pod may stay.
    fn on_gone(&mut self, uid: &str) -> anyhow::Result<()> {
        let over = self.view.pods.list.get(uid).is_some_and(|pod| pod.exit_code.is_some());
        let ended = self.view.pods.ended(uid, LONG);
        let lost = ended.filter(|(status, _)| status.signal().is_some()).map(|(_, lost)| lost);
        if !over && lost.is_some_and(|lost| lost <= KEEPERS_MAX) {
            match self.spawner.adopt(uid).and_then(|kept| self.view.pods.rejoin(uid, kept)) {
                Ok(()) => return Ok(()),
                Err(e) => self.view.printer.warn(&crate::cli::one_line(&e)),
            }
        }
        self.view.pods.end(uid, &self.view.printer);
        let Some(pod) = self.view.pods.list.get_mut(uid) else { return Ok(()) };
        if over {
            self.view.printer.object(&pod.object);
            if self.spawner.layout().pod(uid).dir.exists() {
                // It was killed, or failed, in the middle of removing the last that there is of it.
                scrap::own(self.spawner.layout(), uid, Stays::Nothing)?;
            }
            // What it could not remove itself, which it has told of.
            scrap::leftover(self.spawner.layout(), uid, Stays::Nothing)?;
            return Ok(());
        }
        pod.exit_code = Some(CANNOT);
        pod.object["status"]["phase"] = "Failed".into();
        let (name, workload) = (pod.name().to_owned(), pod.workload);
        let last_words = diagnostics(self.spawner.layout(), uid);
        self.view.printer.warn(&format!(
            "the shim of pod {name} died; its containers are killed and the pod is removed{last_words}"
        ));
        self.workloads[workload].exit_code = Some(CANNOT);
        self.view.printer.object(&pod.object);
        scrap::own(self.spawner.layout(), uid, Stays::Nothing)
    }

    /// The first signal ends everything gracefully, the second at once.
    async fn on_signal(&mut self, exit_code: i32) {
        let at_once = self.ending.is_some();
        let how = if at_once { "kills every container" } else { "stops (again: kills at once)" };
        self.view.printer.note("", how);
        let exit_code = self.ending.map_or(exit_code, |e| e.exit_code);
        self.end(Ending { exit_code, at_once }).await;
    }

    async fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        let request =
            if ending.at_once { Request::Kill } else { Request::Delete { grace_s: None } };
        self.view.pods.request_all(&request).await;
    }

    fn is_over(&self) -> bool {
        if self.view.pods.anybody_alive() {
            return false;
        }
        self.ending.is_some() || self.workloads.iter().all(|w| w.exit_code.is_some())
    }

    /// Of several, the first that is not 0.
    fn exit_code(&self) -> i32 {
        if let Some(ending) = self.ending {
            return ending.exit_code;
        }
        self.workloads.iter().filter_map(|w| w.exit_code).find(|c| *c != 0).unwrap_or(0)
    }

    /// What was run is removed; its logs stay until `podshim prune`.
    pub fn finish(&self) {
        for (_, file) in self.workloads.iter().filter_map(|w| w.controlled.as_ref()) {
            self.view.printer.object(file.object());
            file.remove();
        }
        let layout = self.spawner.layout();
        let left = state_dir::lock(layout).and_then(|held| state_dir::leave_if_last(layout, &held));
        if let Err(e) = left {
            self.view.printer.warn(&runtime::chain(&e));
        }
    }
}

fn seen<'a>(uid: &'a str, pod: &'a PodRun) -> Seen<'a> {
    Seen {
        uid,
        outline: Outline::of(&pod.object),
        gone: pod.gone,
        deleting: pod.deleting,
        created: pod.created,
        finished: pod.finished,
        exit_code: pod.exit_code.unwrap_or(0),
        now: runtime::clock::now(),
    }
}
