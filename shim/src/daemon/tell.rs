//! What the daemon's controllers tell of what they have done: the events of Kubernetes' deployment, replica
//! set and job controllers, once it is done.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Daemon;
use super::store::{Key, Kind};
use crate::cli::one_line;
use crate::event_log;

impl Daemon {
    fn tell(&self, object: &Value, reason: &str, message: String) {
        event_log::tell(&self.layout, object, false, reason, message);
    }

    fn warn(&self, object: &Value, reason: &str, message: String) {
        event_log::tell(&self.layout, object, true, reason, message);
    }

    /// A job that is over, if it was not before.
    pub(super) fn tell_end(&self, before: &Value, after: &Value) {
        if end_of(before).is_some() {
            return;
        }
        match end_of(after) {
            Some(end) if end["type"] == "Failed" => {
                let word = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
                self.warn(after, &word("reason"), word("message"));
            }
            Some(_) => self.tell(after, "Completed", "Job completed".into()),
            None => {}
        }
    }

    /// A replica set of a deployment that is to have another number of pods.
    pub(super) fn tell_scaled(&self, deployment: &Value, before: Option<&Value>, after: &Value) {
        let replicas = |set: &Value| set["spec"]["replicas"].as_u64().unwrap_or(0);
        let (from, to) = (before.map_or(0, replicas), replicas(after));
        if from != to {
            let direction = if from < to { "up" } else { "down" };
            let name = after["metadata"]["name"].as_str().unwrap_or_default();
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.tell(deployment, "ScalingReplicaSet", message);
        }
    }

    /// A pod that was to be made for a job or deployment.
    pub(super) fn tell_created(&self, object: &Value, pod: &Pod, made: &anyhow::Result<()>) {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        let owner = self.owner(object, owner.map_or("", |owner| &owner.name));
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match made {
            Ok(()) => self.tell(&owner, "SuccessfulCreate", format!("Created pod: {name}")),
            Err(e) => self.warn(&owner, "FailedCreate", format!("Error creating: {}", one_line(e))),
        }
    }

    /// A pod that a job or deployment has no use for any more; `owner` is the name of its controller.
    pub(super) fn tell_deleted(&self, object: &Value, owner: &str, pod: &str) {
        let owner = self.owner(object, owner);
        self.tell(&owner, "SuccessfulDelete", format!("Deleted pod: {pod}"));
    }

    /// Whose pods they are: a job's own, a deployment's those of its replica sets.
    fn owner(&self, object: &Value, name: &str) -> Value {
        let key = Key { name: name.to_owned(), ..Key::of(Kind::ReplicaSet, object) };
        let is_deployment = object["kind"] == Kind::Deployment.name();
        let set = is_deployment.then(|| self.store.borrow().get(&key)).flatten();
        set.unwrap_or_else(|| object.clone())
    }
}

/// The condition that says that a job is over, and how.
fn end_of(job: &Value) -> Option<&Value> {
    let mut conditions = job["status"]["conditions"].as_array()?.iter();
    conditions.find(|c| c["status"] == "True" && (c["type"] == "Complete" || c["type"] == "Failed"))
}
