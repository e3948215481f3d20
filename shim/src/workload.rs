//! What a manifest's object becomes: one pod, or a controller that makes and deletes pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use plan::workload::job::{JobPlan, JobSpec, Verdict};
use plan::workload::{Phase, WorkloadPod, deployment, job, names};
use plan::{At, Mono};
use serde_json::{Value, json};

use crate::spawn::random;

/// A job or deployment being controlled.
pub struct Controller {
    kind: Kind,
    template: Template,
    started: At,
}

enum Kind {
    Job { spec: JobSpec, verdict: Option<Verdict>, over: bool },
    Deployment { replicas: u32, replica_set: String, available: bool, since: At },
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
}

/// What pods of a controller have in common.
struct Template {
    owner: OwnerReference,
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
                owner_references: Some(vec![self.owner.clone()]),
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
            owner: owner("Job", "batch/v1", meta),
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
        Controller { kind: Kind::Job { spec, verdict: None, over: false }, template, started }
    }

    /// Takes on a deployment. Its metadata has name, namespace and uid.
    pub fn deployment(deployment: Deployment, started: At) -> anyhow::Result<Controller> {
        let spec = deployment.spec.clone();
        let meta = &deployment.metadata;
        let hash = names::template_hash(&serde_json::to_vec(&spec.template)?);
        let replica_set = format!("{}-{hash}", meta.name.clone().unwrap_or_default());
        let template = Template {
            owner: OwnerReference {
                name: replica_set.clone(),
                ..owner("ReplicaSet", "apps/v1", meta)
            },
            namespace: meta.namespace.clone().unwrap_or_default(),
            prefix: replica_set.clone(),
            labels: vec![("pod-template-hash".to_owned(), hash)],
            template: spec.template,
        };
        let replicas = unsigned(spec.replicas).unwrap_or(1);
        let kind = Kind::Deployment { replicas, replica_set, available: false, since: started };
        Ok(Controller { kind, template, started })
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
            Kind::Deployment { available, since, .. } => {
                let Some(condition) = find("Available") else { return };
                if let Some(at) = at(&condition["lastTransitionTime"]) {
                    (*available, *since) = (condition["status"] == "True", at);
                }
            }
        }
    }

    /// What is to be done now, with these pods of its own.
    pub fn plan(&mut self, pods: &[WorkloadPod], now: At) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted::default();
        let create;
        (create, wanted.status) = match &mut self.kind {
            Kind::Job { spec, verdict, over } => {
                let plan = job::plan(spec, pods, self.started, verdict.as_ref(), now);
                let JobPlan { create, delete, wake_at, status, .. } = plan;
                verdict.clone_from(&plan.verdict);
                wanted.delete = delete;
                wanted.wake_at = wake_at;
                if plan.over && !*over {
                    *over = true;
                    wanted.over = verdict.as_ref().map(|v| job::exit_code(v, pods));
                }
                (create, serde_json::to_value(status)?)
            }
            Kind::Deployment { replicas, replica_set, available, since } => {
                let is_available = deployment::is_available(*replicas, pods);
                if is_available != *available {
                    (*available, *since) = (is_available, now);
                }
                let plan = deployment::plan(*replicas, pods, replica_set, *since);
                wanted.delete = plan.delete;
                (plan.create, serde_json::to_value(plan.status)?)
            }
        };
        for _ in 0..create {
            wanted.create.push(self.template.pod()?);
        }
        Ok(wanted)
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
    Ok(value)
}

/// What a controller wants to know of a pod's object.
#[derive(Clone, Debug)]
pub struct Outline {
    /// `metadata.name`.
    pub name: String,
    /// `status.phase`.
    pub phase: Phase,
    /// Its condition Ready.
    pub ready: bool,
    /// How often its containers were restarted.
    pub restarts: u32,
}

impl Outline {
    /// Of an object.
    pub fn of(object: &Value) -> Outline {
        let status = &object["status"];
        let phase = match status["phase"].as_str() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        };
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let statuses = ["initContainerStatuses", "containerStatuses"];
        let statuses = statuses.iter().filter_map(|list| status[list].as_array()).flatten();
        let restarts: u64 = statuses.filter_map(|s| s["restartCount"].as_u64()).sum();
        Outline {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            phase,
            ready: conditions.any(|c| c["type"] == "Ready" && c["status"] == "True"),
            restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
        }
    }

    /// Its phase is the last.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// What is seen of a pod from outside.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// Its object as it was told last.
    pub outline: Outline,
    /// Nothing of it runs or will run.
    pub gone: bool,
    /// It was asked to end.
    pub deleting: bool,
    /// When it was made.
    pub created: At,
    /// When it was over.
    pub finished: Option<At>,
    /// What it exits with.
    pub exit_code: i32,
}

/// A pod as its controller sees it.
pub fn workload_pod(seen: Seen<'_>) -> WorkloadPod {
    // A pod that was deleted before anything ran ends without a phase of its own.
    let phase = match (seen.gone, seen.outline.phase) {
        (true, Phase::Pending | Phase::Running) => Phase::Failed,
        (false, Phase::Succeeded | Phase::Failed) => Phase::Running,
        (_, phase) => phase,
    };
    WorkloadPod {
        uid: seen.uid.to_owned(),
        name: seen.outline.name,
        phase,
        deleting: seen.deleting,
        created: seen.created,
        finished: seen.finished,
        restarts: seen.outline.restarts,
        ready: seen.outline.ready,
        exit_code: seen.exit_code,
    }
}
