//! A deployment's replica sets as objects: what is planned for them, they become.

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plan::At;
use plan::workload::deployment::{
    self, Amount, Before, Counts, DeploymentPlan, DeploymentSpec, Noted, ReplicaSet, ScaledFor,
    SetPlan, Strategy,
};
use plan::workload::{WorkloadPod, names};
use serde_json::{Map, Value, json};

use super::{SetChange, Template, Wanted, on_both, owner, unsigned, wall};
use crate::spawn::new_uid;

/// Which set a pod is of; the rest of a set's name.
const HASH: &str = "pod-template-hash";
/// Annotations of deployments and replica sets that are the controller's.
pub const OURS: &str = "deployment.kubernetes.io/";
/// Of both: which template of the deployment it is, counted from 1.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// What kubectl knows of a manifest that it applied: of the deployment and nothing else.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A deployment and its replica sets.
pub struct Rollout {
    spec: DeploymentSpec,
    owner: OwnerReference,
    namespace: String,
    name: String,
    generation: i64,
    /// Annotations that its replica sets get too.
    annotations: Map<String, Value>,
    selector: Value,
    template: PodTemplateSpec,
    sets: Vec<Value>,
    before: Before,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Rollout {
    pub fn new(deployment: &Deployment, sets: Vec<Value>) -> anyhow::Result<Rollout> {
        let (meta, spec) = (&deployment.metadata, &deployment.spec);
        let annotations = meta.annotations.iter().flatten();
        let annotations = annotations
            .filter(|(key, _)| !key.starts_with(OURS) && *key != APPLIED)
            .map(|(key, value)| (key.clone(), json!(value)));
        Ok(Rollout {
            owner: owner("Deployment", "apps/v1", meta),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(1),
            annotations: annotations.collect(),
            selector: serde_json::to_value(&spec.selector)?,
            template: spec.template.clone(),
            spec: spec_of(deployment),
            sets,
            before: Before::default(),
        })
    }

    pub fn recall(&mut self, status: &Value, at: impl Fn(&Value) -> Option<At>) {
        let count =
            |field: &str| status[field].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let noted = |kind: &str| {
            let mut all = status["conditions"].as_array().into_iter().flatten();
            let condition = all.find(|condition| condition["type"] == kind)?;
            let changed = at(&condition["lastTransitionTime"])?;
            let updated = at(&condition["lastUpdateTime"]).unwrap_or(changed);
            let word = |field: &str| condition[field].as_str().unwrap_or_default();
            Noted::recall(word("reason"), word("message"), changed, updated)
        };
        self.before = Before {
            counts: Counts {
                replicas: count("replicas"),
                updated: count("updatedReplicas"),
                ready: count("readyReplicas"),
                available: count("availableReplicas"),
            },
            available: noted("Available"),
            progressing: noted("Progressing"),
        };
    }

    pub fn plan(&mut self, pods: &[WorkloadPod], now: At) -> anyhow::Result<Wanted> {
        let planned = |rollout: &Rollout| {
            let sets = rollout.known(pods, now);
            let new = rollout.sets.iter().position(|set| rollout.has_template(set));
            let plan = deployment::plan(&rollout.spec, &sets, new, &rollout.before, now);
            (plan, new.map(|new| sets[new].name.clone()))
        };
        let (mut plan, mut new) = planned(self);
        if plan.make_set {
            let set = self.new_set(now)?;
            self.sets.push(set);
            (plan, new) = planned(self);
        }
        self.carry_out(plan, new.as_deref())
    }

    /// The sets as they are planned: those that are known, and those of which only pods are.
    fn known(&self, pods: &[WorkloadPod], now: At) -> Vec<ReplicaSet> {
        let of = |name: &str| pods.iter().filter(|pod| pod.owner == name).cloned().collect();
        let mut sets: Vec<ReplicaSet> = self
            .sets
            .iter()
            .map(|set| {
                let meta = &set["metadata"];
                let number = |key: &str| meta["annotations"][key].as_str()?.parse::<u32>().ok();
                let scaled_for =
                    || Some(ScaledFor { replicas: number(DESIRED)?, most: number(MOST)? });
                let name = text(&meta["name"]);
                let created = meta["creationTimestamp"].as_str().and_then(wall);
                ReplicaSet {
                    revision: number(REVISION).unwrap_or(0).into(),
                    created: created.map_or(now, |wall| on_both(wall, now)),
                    replicas: replicas_of(set),
                    scaled_for: scaled_for(),
                    pods: of(&name),
                    name,
                }
            })
            .collect();
        // The object of such a set is lost: its pods go as the new ones come.
        for pod in pods {
            if !sets.iter().any(|set| set.name == pod.owner) {
                let pods: Vec<WorkloadPod> = of(&pod.owner);
                sets.push(ReplicaSet {
                    name: pod.owner.clone(),
                    revision: 0,
                    created: At::default(),
                    replicas: u32::try_from(pods.len()).unwrap_or(u32::MAX),
                    scaled_for: None,
                    pods,
                });
            }
        }
        sets
    }

    fn has_template(&self, set: &Value) -> bool {
        let mut template = set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove(HASH);
        }
        serde_json::from_value::<PodTemplateSpec>(template).is_ok_and(|own| own == self.template)
    }

    /// A replica set for the template as it is now, without pods yet.
    fn new_set(&self, now: At) -> anyhow::Result<Value> {
        let mut plain = serde_json::to_vec(&self.template)?;
        let hash = loop {
            let hash = names::template_hash(&plain);
            let name = format!("{}-{hash}", self.name);
            if !self.sets.iter().any(|set| set["metadata"]["name"] == name.as_str()) {
                break hash;
            }
            // Two templates of one hash: the second has another number.
            plain.push(b'+');
        };
        let mut template = serde_json::to_value(&self.template)?;
        template["metadata"]["labels"][HASH] = json!(hash);
        let mut selector = self.selector.clone();
        selector["matchLabels"][HASH] = json!(hash);
        Ok(json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": format!("{}-{hash}", self.name),
                "namespace": self.namespace,
                "uid": new_uid()?,
                "creationTimestamp": now.wall.rfc3339(),
                "generation": 1,
                "labels": template["metadata"]["labels"],
                "annotations": self.annotations,
                "ownerReferences": [self.owner],
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": self.spec.min_ready_s,
                "selector": selector,
                "template": template,
            },
        }))
    }

    /// What is planned becomes so of the sets' objects. `new` is the name of the one of the template.
    fn carry_out(&mut self, plan: DeploymentPlan, new: Option<&str>) -> anyhow::Result<Wanted> {
        let mut status = serde_json::to_value(&plan.status)?;
        status["observedGeneration"] = json!(self.generation);
        let mut wanted = Wanted { status, wake_at: plan.wake_at, ..Wanted::default() };
        for mut set in plan.sets {
            wanted.delete.append(&mut set.delete);
            let named = |object: &Value| object["metadata"]["name"] == set.name.as_str();
            let Some(index) = self.sets.iter().position(named) else { continue };
            if set.remove {
                self.sets.remove(index);
                wanted.sets.push(SetChange::Remove(set.name));
                continue;
            }
            let object = &mut self.sets[index];
            let mut before = object.clone();
            if new == Some(&set.name) {
                wanted.revision = Some(set.revision);
                self.annotations.iter().for_each(|(key, value)| {
                    object["metadata"]["annotations"][key] = value.clone();
                });
                object["spec"]["minReadySeconds"] = json!(self.spec.min_ready_s);
            }
            become_as_planned(object, &set);
            if before != *object {
                let status = object["status"].clone();
                let is_noted = std::mem::replace(&mut before["status"], status) == Value::Null;
                let change =
                    if before == *object && !is_noted { SetChange::Note } else { SetChange::Put };
                wanted.sets.push(change(object.clone()));
            }
            if set.create > 0 {
                let template = template(object).context("a replica set cannot be read")?;
                for _ in 0..set.create {
                    wanted.create.push(template.pod()?);
                }
            }
        }
        self.before = plan.noted;
        Ok(wanted)
    }
}

fn replicas_of(set: &Value) -> u32 {
    set["spec"]["replicas"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

fn become_as_planned(object: &mut Value, set: &SetPlan) {
    let annotations = &mut object["metadata"]["annotations"];
    annotations[REVISION] = json!(set.revision.to_string());
    if let Some(scaled_for) = set.scaled_for {
        annotations[DESIRED] = json!(scaled_for.replicas.to_string());
        annotations[MOST] = json!(scaled_for.most.to_string());
    }
    if replicas_of(object) != set.replicas {
        object["spec"]["replicas"] = json!(set.replicas);
        let generation = object["metadata"]["generation"].as_u64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
    let (replicas, ready, available) = set.counts;
    object["status"] = json!({
        "replicas": replicas,
        "fullyLabeledReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": available,
        "observedGeneration": object["metadata"]["generation"],
    });
}

/// What the pods of a set are made of. The deployment is a second owner: who looks for its pods need not
/// know of its sets.
fn template(set: &Value) -> anyhow::Result<Template> {
    let meta = serde_json::from_value(set["metadata"].clone())?;
    let deployment: Vec<OwnerReference> =
        serde_json::from_value(set["metadata"]["ownerReferences"].clone())?;
    let also = deployment.into_iter().map(|owner| OwnerReference {
        controller: Some(false),
        block_owner_deletion: Some(false),
        ..owner
    });
    Ok(Template {
        owners: std::iter::once(owner("ReplicaSet", "apps/v1", &meta)).chain(also).collect(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        prefix: meta.name.clone().unwrap_or_default(),
        template: serde_json::from_value(set["spec"]["template"].clone())?,
        labels: Vec::new(),
    })
}

/// What of a deployment is planned with.
fn spec_of(deployment: &Deployment) -> DeploymentSpec {
    let spec = &deployment.spec;
    let replicas = unsigned(spec.replicas).unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let is_recreate = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
    DeploymentSpec {
        replicas,
        strategy: if is_recreate {
            Strategy::Recreate
        } else {
            let surge = amount(update.and_then(|update| update.max_surge.as_ref()));
            let unavailable = amount(update.and_then(|update| update.max_unavailable.as_ref()));
            Strategy::rolling(replicas, surge, unavailable)
        },
        min_ready_s: unsigned(spec.min_ready_seconds).unwrap_or(0),
        progress_deadline_s: Some(unsigned(spec.progress_deadline_seconds).unwrap_or(600)),
        history_limit: unsigned(spec.revision_history_limit).unwrap_or(10),
        is_paused: spec.paused.unwrap_or(false),
    }
}

/// A number or a percentage; a quarter if nothing is said.
fn amount(given: Option<&IntOrString>) -> Amount {
    match given {
        Some(IntOrString::Int(pods)) => Amount::Pods(u32::try_from(*pods).unwrap_or(0)),
        Some(IntOrString::String(part)) => {
            let percent = part.strip_suffix('%').and_then(|percent| percent.parse().ok());
            Amount::Percent(percent.unwrap_or(25))
        }
        None => Amount::Percent(25),
    }
}
