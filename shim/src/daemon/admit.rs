//! What comes in is looked at as manifests are, and gets what the API server would give it.

use bundles::manifest::{self, Object, Source};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::store::Kind;
use super::{Daemon, api::Refusal};
use crate::knobs;
use crate::spawn::new_uid;
use crate::workload::{self, give_name, object_of};

/// Fields of an object that are the server's to write.
const OURS: [&str; 9] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "ownerReferences",
    "selfLink",
];

impl Daemon {
    /// Reads an object of a request, with all defaults. Its name may still be to be given.
    pub fn admit(&self, kind: Kind, namespace: &str, body: &[u8]) -> Result<Object, Refusal> {
        let mut value: Value = serde_json::from_slice(body)
            .map_err(|e| Refusal::bad(format!("the body is not an object in JSON: {e}")))?;
        let Some(fields) = value.as_object_mut() else {
            return Err(Refusal::bad("the body is not an object".into()));
        };
        fields.remove("status");
        for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.name())] {
            let given = fields.entry(field).or_insert_with(|| json!(wanted));
            if given != wanted {
                return Err(Refusal::bad(format!("{field} is {given}, and here {wanted:?}")));
            }
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else {
            return Err(Refusal::bad("metadata is not an object".into()));
        };
        OURS.iter().for_each(|field| drop(metadata.remove(*field)));
        let given = metadata.entry("namespace").or_insert_with(|| json!(namespace));
        if given != namespace {
            return Err(Refusal::bad(format!(
                "the namespace of the object is {given}, that of the request {namespace:?}"
            )));
        }
        // What the object may refer to comes after it.
        let mut sources = vec![Source { name: kind.name().into(), text: value.to_string() }];
        let store = self.store.borrow();
        for read in [Kind::ConfigMap, Kind::Secret].into_iter().filter(|read| *read != kind) {
            let known = store.list(read).filter(|(key, _)| key.namespace == namespace);
            sources.extend(known.map(|(key, entry)| {
                let mut object = entry.object();
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    OURS.iter().for_each(|field| drop(metadata.remove(*field)));
                }
                Source { name: key.name.clone(), text: object.to_string() }
            }));
        }
        let report = manifest::read(&sources);
        if !report.is_ok(false) {
            return Err(Refusal::invalid(report.render(false)));
        }
        let Some(object) = report.objects.into_iter().next() else {
            return Err(Refusal::bad("the body holds no object".into()));
        };
        knobs::check(&self.args, &object).map_err(|e| Refusal::invalid(format!("{e:#}")))?;
        Ok(object)
    }
}

/// An object as it is stored first.
pub fn new_object(object: Object) -> anyhow::Result<(Kind, Value)> {
    let now = runtime::clock::now();
    let stored = |kind: Kind, meta: &mut ObjectMeta| -> anyhow::Result<Kind> {
        give_name(meta)?;
        meta.uid = Some(new_uid()?);
        Ok(kind)
    };
    Ok(match object {
        Object::Pod(pod) => (Kind::Pod, new_pod(*pod)?),
        Object::Job(mut job) => {
            let kind = stored(Kind::Job, &mut job.metadata)?;
            (kind, object_of("batch/v1", "Job", &job, now)?)
        }
        Object::Deployment(mut deployment) => {
            let kind = stored(Kind::Deployment, &mut deployment.metadata)?;
            (kind, object_of("apps/v1", "Deployment", &deployment, now)?)
        }
        Object::ConfigMap(mut map) => {
            let kind = stored(Kind::ConfigMap, &mut map.metadata)?;
            (kind, object_of("v1", "ConfigMap", &map, now)?)
        }
        Object::Secret(mut secret) => {
            let kind = stored(Kind::Secret, &mut secret.metadata)?;
            (kind, object_of("v1", "Secret", &secret, now)?)
        }
    })
}

/// A pod as it is stored first.
pub fn new_pod(mut pod: Pod) -> anyhow::Result<Value> {
    give_name(&mut pod.metadata)?;
    pod.metadata.uid = Some(new_uid()?);
    let mut object = object_of("v1", "Pod", &pod, runtime::clock::now())?;
    object["status"] = json!({"phase": "Pending"});
    Ok(object)
}

/// An object in place of another one: what the server wrote stays.
pub fn replaced(known: &Value, kind: Kind, object: &Object) -> anyhow::Result<Value> {
    let mut new = match object {
        Object::Pod(pod) => serde_json::to_value(pod)?,
        Object::Job(job) => serde_json::to_value(job)?,
        Object::Deployment(deployment) => serde_json::to_value(deployment)?,
        Object::ConfigMap(map) => serde_json::to_value(map)?,
        Object::Secret(secret) => serde_json::to_value(secret)?,
    };
    new["apiVersion"] = json!(kind.api_version());
    new["kind"] = json!(kind.name());
    if let Some(status) = known.get("status") {
        new["status"] = status.clone();
    }
    for field in OURS {
        if let Some(value) = known["metadata"].get(field) {
            new["metadata"][field] = value.clone();
        }
    }
    if kind == Kind::Deployment {
        // What its controller has noted is not in the manifest.
        for (key, value) in known["metadata"]["annotations"].as_object().into_iter().flatten() {
            if key.starts_with(workload::OURS) {
                new["metadata"]["annotations"][key] = value.clone();
            }
        }
    }
    if matches!(kind, Kind::Deployment | Kind::Job) && new["spec"] != known["spec"] {
        let generation = known["metadata"]["generation"].as_u64().unwrap_or(1);
        new["metadata"]["generation"] = json!(generation + 1);
    }
    if let Some(node) = known["spec"].get("nodeName") {
        new["spec"]["nodeName"] = node.clone();
    }
    Ok(new)
}
