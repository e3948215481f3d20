//! What a manifest's object becomes: one pod, or a controller that makes and deletes pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use plan::workload::job::{JobPlan, JobSpec, Verdict};
use plan::workload::{WorkloadPod, job, names};
use plan::{At, Mono};
use serde_json::{Value, json};

use self::rollout::Rollout;
pub use self::rollout::{OURS, REVISION};
pub use self::seen::{Outline, Seen, on_both, wall, workload_pod};
use crate::spawn::random;

mod rollout;
mod seen;

/// A job or deployment being controlled.
pub struct Controller {
    kind: Kind,
    started: At,
}

enum Kind {
    Job { spec: JobSpec, template: Box<Template>, verdict: Option<Verdict>, over: bool },
    Deployment(Box<Rollout>),
}

/// What a controller wants done.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Pods to make.
    pub create: Vec<Pod>,
    /// Uids of pods to delete.
    pub delete: Vec<String>,
    /// When to ask again, if nothing happens before.
    pub wake_at: Option<Mono>,
    /// It is over, and this is its exit code.
    pub over: Option<i32>,
    /// `status` of its object.
    pub status: Value,
    /// What becomes of its replica sets; what is to be put comes before pods are made.
    pub sets: Vec<SetChange>,
    /// Its annotation `deployment.kubernetes.io/revision`.
    pub revision: Option<u64>,
}

/// What becomes of a replica set.
#[derive(Debug)]
pub enum SetChange {
    /// It is this now.
    Put(Value),
    /// Its status is another one.
    Note(Value),
    /// It is forgotten.
    Remove(String),
}

/// What pods of a controller have in common.
struct Template {
    owners: Vec<OwnerReference>,
    namespace: String,
    prefix: String,
    template: PodTemplateSpec,
    labels: Vec<(String, String)>,
}

impl Template {
    fn pod(&self) -> anyhow::Result<Pod> {
        let meta = self.template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.extend(self.labels.iter().cloned());
        Ok(Pod {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}", self.prefix, suffix()?)),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels),
                annotations: meta.annotations,
                owner_references: Some(self.owners.clone()),
                ..ObjectMeta::default()
            },
            spec: self.template.spec.clone(),
            status: None,
        })
    }
}

/// Gives an object its name, if it has only the beginning of one.
pub fn give_name(meta: &mut ObjectMeta) -> anyhow::Result<()> {
    if meta.name.as_deref().is_none_or(str::is_empty) {
        let prefix = meta.generate_name.as_deref().unwrap_or("pod-");
        meta.name = Some(format!("{prefix}{}", suffix()?));
    }
    Ok(())
}

/// Five characters that make a name unique.
fn suffix() -> anyhow::Result<String> {
    Ok(names::suffix(random::<5>()?))
}

fn owner(kind: &str, version: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn unsigned(value: Option<i32>) -> Option<u32> {
    value.map(|v| u32::try_from(v).unwrap_or(0))
}

impl Controller {
    /// Takes on a job. Its metadata has name, namespace and uid.
    pub fn job(job: Job, started: At) -> Controller {
        let spec = job.spec.clone().unwrap_or_default();
        let meta = &job.metadata;
        let pod_spec = spec.template.spec.clone().unwrap_or_default();
        let (name, uid) = (meta.name.clone().unwrap_or_default(), meta.uid.clone());
        let uid = uid.unwrap_or_default();
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let template = Template {
            owners: vec![owner("Job", "batch/v1", meta)],
            namespace: meta.namespace.clone().unwrap_or_default(),
            prefix: name.clone(),
            labels: vec![
                label("batch.kubernetes.io/job-name", &name),
                label("batch.kubernetes.io/controller-uid", &uid),
                label("job-name", &name),
                label("controller-uid", &uid),
            ],
            template: spec.template,
        };
        let spec = JobSpec {
            parallelism: unsigned(spec.parallelism).unwrap_or(1),
            completions: unsigned(spec.completions),
            backoff_limit: unsigned(spec.backoff_limit).unwrap_or(6),
            active_deadline_s: spec
                .active_deadline_seconds
                .map(|s| u32::try_from(s).unwrap_or(u32::MAX)),
            restart_policy: match pod_spec.restart_policy.as_deref() {
                Some("OnFailure") => plan::RestartPolicy::OnFailure,
                _ => plan::RestartPolicy::Never,
            },
        };
        let template = Box::new(template);
        let kind = Kind::Job { spec, template, verdict: None, over: false };
        Controller { kind, started }
    }

    /// Takes on a deployment, with the replica sets that it has. Its metadata has name, namespace and uid.
    pub fn deployment(
        deployment: &Deployment,
        sets: Vec<Value>,
        started: At,
    ) -> anyhow::Result<Controller> {
        let rollout = Rollout::new(deployment, sets)?;
        Ok(Controller { kind: Kind::Deployment(Box::new(rollout)), started })
    }

    /// What was decided before, as its object's status has it.
    pub fn recall(&mut self, status: &Value, at: impl Fn(&Value) -> Option<At>) {
        let conditions = status["conditions"].as_array();
        let find = |kind| conditions.and_then(|all| all.iter().find(|c| c["type"] == kind));
        match &mut self.kind {
            Kind::Job { verdict, over, .. } => {
                let decided = find("SuccessCriteriaMet").or_else(|| find("FailureTarget"));
                *verdict = decided.and_then(|condition| {
                    let reason = condition["reason"].as_str().unwrap_or_default();
                    Verdict::recall(reason, at(&condition["lastTransitionTime"])?)
                });
                *over = find("Complete").or_else(|| find("Failed")).is_some();
            }
            Kind::Deployment(rollout) => rollout.recall(status, at),
        }
    }

    /// What is to be done now, with these pods of its own.
    pub fn plan(&mut self, pods: &[WorkloadPod], now: At) -> anyhow::Result<Wanted> {
        match &mut self.kind {
            Kind::Job { spec, template, verdict, over } => {
                let plan = job::plan(spec, pods, self.started, verdict.as_ref(), now);
                let JobPlan { create, delete, wake_at, status, .. } = plan;
                verdict.clone_from(&plan.verdict);
                let ends = plan.over && !*over;
                *over |= plan.over;
                Ok(Wanted {
                    create: (0..create).map(|_| template.pod()).collect::<anyhow::Result<_>>()?,
                    delete,
                    wake_at,
                    over: verdict.as_ref().filter(|_| ends).map(|v| job::exit_code(v, pods)),
                    status: serde_json::to_value(status)?,
                    ..Wanted::default()
                })
            }
            Kind::Deployment(rollout) => rollout.plan(pods, now),
        }
    }
}

/// The object as it is shown, with its kind.
pub fn object_of<T: serde::Serialize>(
    version: &str,
    kind: &str,
    object: &T,
    created: At,
) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = json!(version);
    value["kind"] = json!(kind);
    value["metadata"]["creationTimestamp"] = json!(created.wall.rfc3339());
    if ["Job", "Deployment"].contains(&kind) {
        value["metadata"]["generation"] = json!(1);
    }
    Ok(value)
}
