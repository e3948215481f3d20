//! `podshim run`: pods, jobs and deployments of manifests, in the foreground.
//!
//! It is the controller of what it runs for as long as it lives: it makes and deletes pods as their
//! controllers want, shows what happens, and takes everything down when it is told to end. The pods
//! themselves are their shims' business. When it dies without a word, each shim sees its channel
//! closed and takes its pod down gracefully.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use bundles::layout::Layout;
use bundles::manifest::{self, Object};
use k8s_openapi::api::core::v1::Pod;
use plan::Mono;
use plan::workload::WorkloadPod;
use runtime::state_dir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::{CANNOT, RunArgs, RunOutput, colour_wanted, tell};
use crate::knobs;
use crate::pod::diagnostics;
use crate::pod::scrap::{self, Stays};
use crate::protocol::{PodEvent, Reply, Request};
use crate::spawn::{Options, Spawner, new_uid};
use crate::timeline::{Timeline, render};
use crate::workload::{Controller, Seen, give_name, object_of, workload_pod};

mod host_notes;
pub mod objects;
mod pods;
mod print;

use objects::ObjectFile;
use pods::{Message, Pods};
use print::Printer;

/// Runs the manifests to their end; returns the exit code.
pub fn run(layout: Layout, args: &RunArgs) -> anyhow::Result<i32> {
    let Some((objects, read)) = objects_of(&args.files, args.strict)? else { return Ok(CANNOT) };
    objects.iter().try_for_each(|object| knobs::check(&args.pods, object))?;
    let timeline = args.timeline.is_some();
    let options = Options { timeline, ..knobs::options(&args.pods)? };
    // One thread: shims are started from here, and nothing here is slow.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let printer = Printer::new(args.quiet, args.output == Some(RunOutput::Json));
        let spawner = Spawner::new(layout, read, options)?;
        if let Some(note) = host_notes::cpu(&objects) {
            printer.warn(note);
        }
        let (pods, messages) = Pods::new()?;
        let several = objects.len() > 1 || objects.iter().any(many_pods);
        let mut session = Session {
            spawner,
            pods,
            messages,
            printer,
            several,
            timeline: args.timeline.clone(),
            workloads: Vec::new(),
            ending: None,
        };
        let code = session.run(objects).await;
        session.finish();
        code
    })
}

/// What manifests hold: objects that are run, and those that they read. `None` if there is something
/// wrong with them, which was told.
pub fn objects_of(
    files: &[PathBuf],
    strict: bool,
) -> anyhow::Result<Option<(Vec<Object>, Vec<Object>)>> {
    let report = manifest::read(&manifest::sources(files)?);
    tell(&report.render(colour_wanted(&std::io::stderr())));
    if !report.is_ok(strict) {
        return Ok(None);
    }
    let (objects, read): (Vec<Object>, Vec<Object>) =
        report.objects.into_iter().partition(Object::is_run);
    if objects.is_empty() {
        anyhow::bail!("the manifests hold nothing to run: add a Pod, a Deployment or a Job");
    }
    Ok(Some((objects, read)))
}

/// Whether an object has more than one pod at a time: then lines name the pod too.
fn many_pods(object: &Object) -> bool {
    match object {
        Object::Pod(_) | Object::ConfigMap(_) | Object::Secret(_) => false,
        Object::Deployment(d) => d.spec.replicas.unwrap_or(1) > 1,
        Object::Job(j) => j.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1) > 1,
    }
}

/// An object of the manifests, being run.
struct Workload {
    /// What makes and deletes its pods, and its object for `podshim get`; `None` for a pod of its own.
    controlled: Option<(Controller, ObjectFile)>,
    /// Set when it is over.
    exit_code: Option<i32>,
}

/// Why everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ending {
    exit_code: i32,
    at_once: bool,
}

struct Session {
    spawner: Spawner,
    pods: Pods,
    messages: mpsc::Receiver<Message>,
    printer: Printer,
    several: bool,
    /// Where pictures of the pods' lives go.
    timeline: Option<PathBuf>,
    workloads: Vec<Workload>,
    ending: Option<Ending>,
}

/// How often a wait that has an end is told of.
const REMIND: Duration = Duration::from_secs(5);

/// How many keepers in a row are replaced, and how long one must live to be no part of a row.
const KEEPERS_MAX: u32 = 8;
const LONG: Duration = Duration::from_secs(1);

impl Session {
    async fn run(&mut self, objects: Vec<Object>) -> anyhow::Result<i32> {
        let mut signals = Signals::new()?;
        for object in objects {
            if let Err(e) = self.take_on(object) {
                self.printer.warn(&crate::cli::one_line(&e));
                self.end(Ending { exit_code: CANNOT, at_once: false }).await;
                break;
            }
        }
        let mut remind = tokio::time::interval(REMIND);
        remind.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake_at = self.control().await?;
            if self.is_over() {
                return Ok(self.exit_code());
            }
            tokio::select! {
                message = self.messages.recv() => {
                    if let Some(message) = message {
                        self.on_message(message).await?;
                    }
                    while let Ok(message) = self.messages.try_recv() {
                        self.on_message(message).await?;
                    }
                }
                uids = self.pods.logs_grew() => self.print_logs(&uids),
                exit_code = signals.next() => self.on_signal(exit_code).await,
                () = until(wake_at) => {}
                _ = remind.tick() => self.remind(),
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
                let controller = Controller::deployment(*deployment, now)?;
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
        let several = self.several;
        self.pods.add(spawned, workload, &mut self.printer, |container| {
            prefix(several, &name, Some(container))
        })
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
            file.update(object)?;
            wake_at = [wake_at, wanted.wake_at].into_iter().flatten().min();
            if let Some(code) = wanted.over {
                workload.exit_code = Some(code);
            }
            for uid in wanted.delete {
                self.pods.request(&uid, &Request::Delete { grace_s: None }).await;
            }
            if self.ending.is_none() {
                for pod in wanted.create {
                    if let Err(e) = self.make_pod(pod, index) {
                        self.printer.warn(&crate::cli::one_line(&e));
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
        self.pods
            .list
            .iter()
            .filter(|(_, pod)| pod.workload == workload)
            .map(|(uid, pod)| (workload_pod(&seen(uid, pod)), pod.gone))
            .collect()
    }

    async fn on_message(&mut self, message: Message) -> anyhow::Result<()> {
        let Message { uid, reply } = message;
        let Some(pod) = self.pods.list.get_mut(&uid) else { return Ok(()) };
        match reply {
            Some(Reply::Event(event)) => {
                pod.is_news(&event);
                self.show(&uid, &event);
            }
            Some(Reply::Adopted { object, events }) => {
                pod.object = *object;
                for event in events {
                    if self.pods.list.get_mut(&uid).is_some_and(|pod| pod.is_news(&event)) {
                        self.show(&uid, &event);
                    }
                }
                self.pods.ask_again(&uid).await;
            }
            Some(Reply::Timeline(life)) => self.draw(&life),
            Some(Reply::Status(status)) => pod.object["status"] = *status,
            Some(Reply::Pod(object)) => pod.object = *object,
            Some(Reply::Waiting(waiting)) => pod.waiting = waiting,
            Some(Reply::Over { exit_code }) => pod.exit_code = Some(exit_code),
            Some(Reply::Error(text)) => self.printer.warn(&text),
            // Answers to what a controller does not ask.
            Some(
                Reply::Done
                | Reply::Changed { .. }
                | Reply::Refused(_)
                | Reply::Exited { .. }
                | Reply::Events(_)
                | Reply::Usage(_),
            ) => {}
            None => self.on_gone(&uid)?,
        }
        Ok(())
    }

    fn show(&mut self, uid: &str, event: &PodEvent) {
        let Some(pod) = self.pods.list.get_mut(uid) else { return };
        pod.print_logs(&self.printer);
        let prefix = prefix(self.several, pod.name(), event.container.as_deref());
        self.printer.event(&pod.object, &prefix, event);
    }

    /// Draws a pod's life into the file that the user named, or beside it if there are several pods.
    fn draw(&self, life: &Timeline) {
        let Some(path) = &self.timeline else { return };
        let path = if self.several || !self.workloads.iter().all(|w| w.controlled.is_none()) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            path.with_file_name(format!("{stem}-{}.svg", life.pod))
        } else {
            path.clone()
        };
        if let Err(e) = std::fs::write(&path, render::svg(life)) {
            self.printer.warn(&format!("cannot write {}: {e}", path.display()));
        }
    }

    /// A pod's keeper and shim have ended. If somebody killed the keeper too, the pod gets new ones; if no
    /// shim could be kept alive, nothing of the pod may stay.
    fn on_gone(&mut self, uid: &str) -> anyhow::Result<()> {
        let over = self.pods.list.get(uid).is_some_and(|pod| pod.exit_code.is_some());
        let ended = self.pods.ended(uid, LONG);
        let lost = ended.filter(|(status, _)| status.signal().is_some()).map(|(_, lost)| lost);
        if !over && lost.is_some_and(|lost| lost <= KEEPERS_MAX) {
            match self.spawner.adopt(uid).and_then(|kept| self.pods.rejoin(uid, kept)) {
                Ok(()) => return Ok(()),
                Err(e) => self.printer.warn(&crate::cli::one_line(&e)),
            }
        }
        self.pods.end(uid, &self.printer);
        let Some(pod) = self.pods.list.get_mut(uid) else { return Ok(()) };
        if over {
            self.printer.object(&pod.object);
            if lost.is_some() && self.spawner.layout().pod(uid).dir.exists() {
                // In the middle of removing the last that there is of it.
                scrap::own(self.spawner.layout(), uid, Stays::Nothing)?;
            }
            return Ok(());
        }
        pod.exit_code = Some(CANNOT);
        pod.object["status"]["phase"] = "Failed".into();
        let (name, workload) = (pod.name().to_owned(), pod.workload);
        let last_words = diagnostics(self.spawner.layout(), uid);
        self.printer.warn(&format!(
            "the shim of pod {name} died; its containers are killed and the pod is removed{last_words}"
        ));
        self.workloads[workload].exit_code = Some(CANNOT);
        self.printer.object(&pod.object);
        scrap::own(self.spawner.layout(), uid, Stays::Nothing)
    }

    fn print_logs(&mut self, uids: &[String]) {
        for uid in uids {
            if let Some(pod) = self.pods.list.get_mut(uid) {
                pod.print_logs(&self.printer);
            }
        }
    }

    /// The first signal ends everything gracefully, the second at once.
    async fn on_signal(&mut self, exit_code: i32) {
        let at_once = self.ending.is_some();
        let how = if at_once { "kills every container" } else { "stops (again: kills at once)" };
        self.printer.note("", how);
        let exit_code = self.ending.map_or(exit_code, |e| e.exit_code);
        self.end(Ending { exit_code, at_once }).await;
    }

    async fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        let request =
            if ending.at_once { Request::Kill } else { Request::Delete { grace_s: None } };
        self.pods.request_all(&request).await;
    }

    /// While containers are being stopped, says how long each has left.
    fn remind(&self) {
        let now = runtime::clock::mono();
        for pod in self.pods.list.values().filter(|p| !p.gone) {
            for waiting in pod.waiting.iter().filter(|w| w.is_stop()) {
                let Some(left) = waiting.until.filter(|until| *until > now) else { continue };
                let seconds = (left.0 - now.0).div_ceil(Mono::SECOND);
                let prefix = prefix(self.several, pod.name(), waiting.container.as_deref());
                self.printer.note(&prefix, &format!("{}, {seconds}s left", waiting.reason));
            }
        }
    }

    fn is_over(&self) -> bool {
        if self.pods.anybody_alive() {
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
    fn finish(&self) {
        for (_, file) in self.workloads.iter().filter_map(|w| w.controlled.as_ref()) {
            self.printer.object(file.object());
            file.remove();
        }
        let layout = self.spawner.layout();
        let left = state_dir::lock(layout).and_then(|held| state_dir::leave_if_last(layout, &held));
        if let Err(e) = left {
            self.printer.warn(&runtime::chain(&e));
        }
    }
}

fn prefix(several: bool, pod: &str, container: Option<&str>) -> String {
    match (several, container) {
        (true, Some(container)) => format!("{pod}/{container}"),
        (false, Some(container)) => container.to_owned(),
        (_, None) => pod.to_owned(),
    }
}

fn seen<'a>(uid: &'a str, pod: &'a pods::PodRun) -> Seen<'a> {
    Seen {
        uid,
        object: &pod.object,
        gone: pod.gone,
        deleting: pod.deleting,
        created: pod.created,
        finished: pod.finished,
        exit_code: pod.exit_code.unwrap_or(0),
    }
}

async fn until(at: Option<Mono>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.0.saturating_sub(runtime::clock::mono().0);
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
    }
}

/// The signals that end `podshim run`, and their exit codes.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// INT and TERM are handled even if they were inherited as ignored (a script's background job);
    /// HUP stays ignored under nohup.
    fn new() -> anyhow::Result<Signals> {
        let hang_up = if hup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
        })
    }

    async fn next(&mut self) -> i32 {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = hang_up => 129,
        }
    }
}

/// Bit 0 of `SigIgn` in `/proc/self/status`.
fn hup_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&mask, 16).ok()
        })
        .is_some_and(|mask| mask & 1 == 1)
}
