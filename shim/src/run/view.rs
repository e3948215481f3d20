//! What a `podshim run` shows of its pods, whoever controls them: what happens, their output, what they
//! wait for, and to a service manager whether they are ready.

use plan::Mono;
use serde_json::Value;
use tokio::sync::mpsc;

use super::pods::{Message, Pods};
use super::print::Printer;
use crate::protocol::{Event, Reply};
use crate::service::Service;

/// All of it.
pub struct View {
    /// The pods.
    pub pods: Pods,
    /// What their shims say.
    pub messages: mpsc::Receiver<Message>,
    /// Where it is shown.
    pub printer: Printer,
    /// Lines name the pod too.
    pub several: bool,
    service: Service,
    /// What the service manager was told last, if anything: what is not ready, `None` if nothing.
    told: Option<Option<String>>,
    was_ready: bool,
}

impl View {
    /// Of no pod yet.
    pub fn new(printer: Printer, several: bool) -> anyhow::Result<View> {
        let (pods, messages) = Pods::new()?;
        let service = Service::of_systemd();
        Ok(View { pods, messages, printer, several, service, told: None, was_ready: false })
    }

    /// Takes on what a shim says and shows it; gives back what is more than that.
    pub fn hear(&mut self, uid: &str, reply: Reply) -> Option<Reply> {
        let pod = self.pods.list.get_mut(uid)?;
        match reply {
            Reply::Event(event) if !pod.awaits_events => {
                pod.shows(&event);
                self.show(uid, &[event]);
            }
            // It is in the answer that comes.
            Reply::Event(_) => {}
            Reply::Events(events) => {
                pod.awaits_events = false;
                self.show_news(uid, events);
            }
            Reply::Status(status) => pod.object["status"] = *status,
            Reply::Pod(object) => pod.object = *object,
            Reply::Waiting(waiting) => pod.waiting = waiting,
            Reply::Over { exit_code } => pod.exit_code = Some(exit_code),
            Reply::Error(text) => self.printer.warn(&text),
            other => return Some(other),
        }
        None
    }

    /// Shows events that were not shown before.
    pub fn show_news(&mut self, uid: &str, events: Vec<Event>) {
        let Some(pod) = self.pods.list.get_mut(uid) else { return };
        let news = pod.news(events);
        self.show(uid, &news);
    }

    fn show(&mut self, uid: &str, events: &[Event]) {
        let Some(pod) = self.pods.list.get_mut(uid) else { return };
        for event in events {
            pod.print_logs(&self.printer);
            let prefix = prefix(self.several, pod.name(), event.container.as_deref());
            self.printer.event(&pod.object, &prefix, event);
        }
    }

    /// Prints what is new in logs.
    pub fn print_logs(&mut self, uids: &[String]) {
        for uid in uids {
            if let Some(pod) = self.pods.list.get_mut(uid) {
                pod.print_logs(&self.printer);
            }
        }
    }

    /// While containers are being stopped, says how long each has left.
    pub fn remind(&self) {
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

    /// A job one more of whose pods has failed says that it waits before it makes another.
    pub fn tell_retry(&self, before: &Value, job: &Value) {
        let failed = |job: &Value| job["status"]["failed"].as_u64().unwrap_or(0);
        let status = &job["status"];
        let is_decided = status["conditions"].as_array().is_some_and(|all| !all.is_empty());
        let waits = status["active"] == 0 && !is_decided;
        if job["kind"] != "Job" || failed(job) <= failed(before) || !waits {
            return;
        }
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        let most = &job["spec"]["backoffLimit"];
        self.printer.note(
            name,
            &format!(
                "a pod has failed ({} so far, {most} may be replaced): the next one is made after a delay, \
                 which begins at 10 s and doubles",
                failed(job)
            ),
        );
    }

    /// Tells the service manager whether all is ready, if that has changed: `wanted` is how many pods each
    /// object is to have. A unit of type notify is active exactly while it is (sd_notify(3)).
    pub async fn tell_ready(&mut self, wanted: &[usize]) {
        let mut missing = Vec::new();
        for (workload, wanted) in wanted.iter().enumerate() {
            let own = self.pods.list.values().filter(|pod| pod.workload == workload && !pod.gone);
            let (ready, not): (Vec<_>, Vec<_>) = own.partition(|pod| is_ready(&pod.object));
            missing.extend(not.iter().map(|pod| pod.name().to_owned()));
            let begun = ready.len() + not.len();
            missing.extend((begun..*wanted).map(|_| "a pod that is not there yet".to_owned()));
        }
        missing.sort();
        let missing = (!missing.is_empty()).then(|| missing.join(", "));
        if self.told.as_ref() == Some(&missing) {
            return;
        }
        match &missing {
            None => self.service.ready("all pods are ready").await,
            Some(missing) => {
                let status = format!("not ready: {missing}");
                self.service.not_ready(!self.was_ready, status).await;
            }
        }
        self.was_ready |= missing.is_none();
        self.told = Some(missing);
    }

    /// Tells the service manager that this is the end; a unit whose pods were never seen ready and that have
    /// completed has been started all the same.
    pub async fn tell_end(&mut self, exit_code: i32) {
        if exit_code == 0 && !self.was_ready {
            self.service.ready("completed").await;
        }
        self.service.stopping().await;
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// What a line begins with.
pub fn prefix(several: bool, pod: &str, container: Option<&str>) -> String {
    match (several, container) {
        (true, Some(container)) => format!("{pod}/{container}"),
        (false, Some(container)) => container.to_owned(),
        (_, None) => pod.to_owned(),
    }
}
