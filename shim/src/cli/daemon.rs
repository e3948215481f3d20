//! Commands that the daemon carries out: `create`, `apply` where a daemon is, `delete` of what only it has,
//! `scale`.

use std::time::Duration;

use anyhow::Context;
use bundles::layout::Layout;
use bundles::manifest::{self, Object};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::api::{Api, path};
use super::rollout::RESTARTED;
use super::terminal::{Output, complain};
use super::{ApplyArgs, DeleteArgs, FAILED, ScaleArgs, colour_wanted, one_line, tell};
use crate::daemon::store::Kind;

/// How often is looked whether something has gone.
const LOOK: Duration = Duration::from_millis(20);
/// How often a change is tried if the object changes meanwhile.
const CHANGE_TRIES: u32 = 20;

/// `podshim create -f FILE`.
pub fn create(layout: &Layout, args: &ApplyArgs) -> anyhow::Result<i32> {
    send(&Api::of(layout)?, args, |api, kind, object| {
        let namespace = object["metadata"]["namespace"].as_str();
        api.ask(Method::POST, &path(kind, namespace, None), Some(object))?.object()?;
        Ok("created")
    })
}

/// `podshim apply -f FILE` where a daemon is.
pub fn apply(api: &Api, args: &ApplyArgs) -> anyhow::Result<i32> {
    send(api, args, |api, kind, object| {
        let namespace = object["metadata"]["namespace"].as_str();
        let name = object["metadata"]["name"].as_str().context(
            "an object without a name (generateName) is always another one: `podshim create` makes it",
        )?;
        let at = path(kind, namespace, Some(name));
        let known = api.get(kind, namespace.unwrap_or_default(), name)?;
        let Some(known) = known else {
            let made = api.ask(Method::POST, &path(kind, namespace, None), Some(object))?;
            made.object()?;
            return Ok("created");
        };
        let mut object = object.clone();
        keep_restart(&known, &mut object);
        let new = api.ask(Method::PUT, &at, Some(&object))?.object()?;
        let same = new["metadata"]["resourceVersion"] == known["metadata"]["resourceVersion"]
            || spec(&new) == spec(&known);
        Ok(if same { "unchanged" } else { "configured" })
    })
}

/// That pods were made anew by `rollout restart` is not in the manifest: to apply it does not do so again.
fn keep_restart(known: &Value, object: &mut Value) {
    let restarted = &known["spec"]["template"]["metadata"]["annotations"][RESTARTED];
    let given = object.pointer("/spec/template/metadata/annotations").unwrap_or(&Value::Null);
    if restarted.is_string() && given[RESTARTED].is_null() {
        object["spec"]["template"]["metadata"]["annotations"][RESTARTED] = restarted.clone();
    }
}

/// What of an object its user wrote.
fn spec(object: &Value) -> Value {
    let mut spec = object.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = spec["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    spec
}

/// Each object of the manifests; those that others read come first.
fn send(
    api: &Api,
    args: &ApplyArgs,
    deed: impl Fn(&Api, Kind, &Value) -> anyhow::Result<&'static str>,
) -> anyhow::Result<i32> {
    let report = manifest::read(&manifest::sources(&args.files)?);
    tell(&report.render(colour_wanted(&std::io::stderr())));
    if !report.is_ok(args.strict) {
        return Ok(FAILED);
    }
    let mut objects =
        report.objects.iter().map(as_value).collect::<anyhow::Result<Vec<(Kind, Value)>>>()?;
    objects.sort_by_key(|(kind, _)| !matches!(kind, Kind::ConfigMap | Kind::Secret));
    let mut output = Output::default();
    let mut code = 0;
    for (kind, object) in objects {
        let name =
            object["metadata"]["name"].as_str().or(object["metadata"]["generateName"].as_str());
        let name = format!("{}/{}", word(kind), name.unwrap_or_default());
        match deed(api, kind, &object) {
            Ok(done) => output.line(format_args!("{name} {done}")),
            Err(e) => {
                complain(&format!("{name}: {}", one_line(&e)));
                code = FAILED;
            }
        }
    }
    output.end()?;
    Ok(code)
}

/// An object of a manifest as the API has it.
pub fn as_value(object: &Object) -> anyhow::Result<(Kind, Value)> {
    let (kind, mut value) = match object {
        Object::Pod(pod) => (Kind::Pod, serde_json::to_value(pod)?),
        Object::Job(job) => (Kind::Job, serde_json::to_value(job)?),
        Object::Deployment(deployment) => (Kind::Deployment, serde_json::to_value(deployment)?),
        Object::ConfigMap(map) => (Kind::ConfigMap, serde_json::to_value(map)?),
        Object::Secret(secret) => (Kind::Secret, serde_json::to_value(secret)?),
    };
    value["apiVersion"] = json!(kind.api_version());
    value["kind"] = json!(kind.name());
    Ok((kind, value))
}

/// As kubectl prints it.
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::ConfigMap => "configmap",
        Kind::Secret => "secret",
        Kind::Pod => "pod",
        Kind::Job => "job.batch",
        Kind::ReplicaSet => "replicaset.apps",
        Kind::Deployment => "deployment.apps",
    }
}

/// The kind that a word of a command line stands for.
pub fn kind_of(word: &str) -> Option<Kind> {
    Some(match word.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Kind::Pod,
        "job" | "jobs" | "job.batch" | "jobs.batch" => Kind::Job,
        "deployment" | "deployments" | "deploy" | "deployment.apps" | "deployments.apps" => {
            Kind::Deployment
        }
        "replicaset" | "replicasets" | "rs" | "replicaset.apps" | "replicasets.apps" => {
            Kind::ReplicaSet
        }
        "configmap" | "configmaps" | "cm" => Kind::ConfigMap,
        "secret" | "secrets" => Kind::Secret,
        _ => return None,
    })
}

/// Asks for an object to go; `None` if the daemon has none of that name.
pub fn ask_to_go(
    api: &Api,
    kind: Kind,
    name: &str,
    args: &DeleteArgs,
) -> anyhow::Result<Option<Value>> {
    let options = args.grace_period.map(|s| json!({"gracePeriodSeconds": s}));
    let at = path(kind, Some(&args.namespace), Some(name));
    let answered = api.ask(Method::DELETE, &at, options.as_ref())?;
    if answered.code == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    answered.object().map(Some)
}

/// Waits until an object is gone, or another one has its name.
pub fn until_gone(api: &Api, kind: Kind, object: &Value) -> anyhow::Result<()> {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    loop {
        let now = api.get(kind, field("namespace"), field("name"))?;
        if now.is_none_or(|now| now["metadata"]["uid"] != object["metadata"]["uid"]) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// `podshim scale deployment NAME --replicas=N`.
pub fn scale(layout: &Layout, args: &ScaleArgs) -> anyhow::Result<i32> {
    let (word, name) = match (args.kind.split_once('/'), &args.name) {
        (Some((word, name)), None) => (word, name.to_owned()),
        (None, Some(name)) => (args.kind.as_str(), name.clone()),
        _ => anyhow::bail!("which one? write `scale deployment NAME` or `scale deployment/NAME`"),
    };
    let (kind, field) = match kind_of(word) {
        Some(Kind::Deployment) => (Kind::Deployment, "replicas"),
        Some(Kind::Job) => (Kind::Job, "parallelism"),
        _ => anyhow::bail!(
            "{word:?} has no size: deployments (replicas) and jobs (parallelism) have"
        ),
    };
    let workload = Workload { kind, namespace: args.namespace.clone(), name: name.clone() };
    workload.change(&Api::of(layout)?, |object| {
        object["spec"][field] = json!(args.replicas);
        Ok(())
    })?;
    let mut output = Output::default();
    output.line(format_args!("{}/{name} scaled", self::word(kind)));
    output.end()?;
    Ok(0)
}

/// An object that the daemon has.
pub struct Workload {
    /// Of what it is.
    pub kind: Kind,
    /// Where.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

impl Workload {
    /// It as it is now.
    pub fn find(&self, api: &Api) -> anyhow::Result<Value> {
        api.get(self.kind, &self.namespace, &self.name)?.with_context(|| {
            let kinds = self.kind.plural();
            format!("{kinds} {:?} not found in namespace {:?}", self.name, self.namespace)
        })
    }

    /// Makes it another one. If somebody else did so meanwhile, that is where it begins anew.
    pub fn change(
        &self,
        api: &Api,
        deed: impl Fn(&mut Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let at = path(self.kind, Some(&self.namespace), Some(&self.name));
        let mut tries = CHANGE_TRIES;
        loop {
            let mut object = self.find(api)?;
            deed(&mut object).with_context(|| format!("{}/{}", word(self.kind), self.name))?;
            let answered = api.ask(Method::PUT, &at, Some(&object))?;
            tries -= 1;
            if answered.code != StatusCode::CONFLICT || tries == 0 {
                return answered.object();
            }
        }
    }
}
