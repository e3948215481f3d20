//! `podshim get`.

use std::fs;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use plan::Wall;
use serde_json::Value;

use super::table::{age, columns};
use super::terminal::{Output, complain, tell};
use super::{Connection, FAILED, GetArgs, ObjectOutput, PodRef, one_line, pods};
use crate::run::objects;

mod status;

/// Prints objects.
pub fn get(layout: &Layout, args: &GetArgs) -> anyhow::Result<i32> {
    let kind = kind(&args.kind)?;
    let (mut found, failed) = match kind {
        "Pod" => pod_objects(layout)?,
        other => (objects::read(layout, other)?, false),
    };
    found.retain(|o| wanted(o, args));
    found.sort_by_key(|o| (text(o, "/metadata/namespace"), text(o, "/metadata/name")));
    if let Some(name) = &args.name
        && found.is_empty()
    {
        bail!("{} {name:?} not found", plural(kind));
    }
    if found.is_empty() && failed && args.output.is_none() {
        // Some are there, and do not answer.
        return Ok(FAILED);
    }
    print(kind, &found, args)?;
    Ok(if failed { FAILED } else { 0 })
}

fn kind(asked: &str) -> anyhow::Result<&'static str> {
    match asked.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Ok("Pod"),
        "job" | "jobs" => Ok("Job"),
        "deployment" | "deployments" | "deploy" => Ok("Deployment"),
        other => bail!("podshim has no {other:?}: it has pods, jobs and deployments"),
    }
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

fn wanted(object: &Value, args: &GetArgs) -> bool {
    let namespace = args.namespace.as_deref();
    // A name is looked for in one namespace, a list shows what there is.
    let namespace = namespace.or(args.name.is_some().then_some("default"));
    namespace.is_none_or(|n| text(object, "/metadata/namespace") == n)
        && args.name.as_deref().is_none_or(|n| text(object, "/metadata/name") == n)
}

/// The objects of all pods that answer, and whether one did not.
fn pod_objects(layout: &Layout) -> anyhow::Result<(Vec<Value>, bool)> {
    let mut failed = false;
    let mut objects = Vec::new();
    for pod in pods(layout)? {
        match pod_object(layout, &pod) {
            Ok(object) => objects.push(object),
            // It ended between the list and the question.
            Err(_) if fs::symlink_metadata(layout.name(&pod.namespace, &pod.name)).is_err() => {}
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    Ok((objects, failed))
}

fn pod_object(layout: &Layout, pod: &PodRef) -> anyhow::Result<Value> {
    Connection::open(layout, pod)?.object()
}

fn print(kind: &str, found: &[Value], args: &GetArgs) -> anyhow::Result<()> {
    let mut output = Output::default();
    match args.output {
        Some(ObjectOutput::Name) => {
            for object in found {
                let name = text(object, "/metadata/name");
                output.line(format_args!("{}/{name}", kind.to_lowercase()));
            }
        }
        Some(format) => {
            // kubectl prints one object bare and several as a List.
            let value = match (&args.name, found) {
                (Some(_), [one]) => one.clone(),
                (_, many) => serde_json::json!({"apiVersion": "v1", "kind": "List",
                    "metadata": {"resourceVersion": ""}, "items": many}),
            };
            let printed = if format == ObjectOutput::Json {
                serde_json::to_string_pretty(&value)? + "\n"
            } else {
                bundles::yaml::to_string(&value).context("cannot print YAML")?
            };
            output.write(printed.as_bytes());
        }
        None if found.is_empty() => tell("No resources found\n"),
        None => output.write(columns(&table(kind, found)).as_bytes()),
    }
    output.end()
}

fn table(kind: &str, found: &[Value]) -> Vec<Vec<String>> {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mut rows = vec![match kind {
        "Pod" => strings(&["NAME", "READY", "STATUS", "RESTARTS", "AGE"]),
        "Job" => strings(&["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]),
        _ => strings(&["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]),
    }];
    let now = runtime::clock::now().wall;
    rows.extend(found.iter().map(|object| match kind {
        "Pod" => status::pod_row(object, now),
        "Job" => job_row(object, now),
        _ => deployment_row(object, now),
    }));
    rows
}

fn job_row(job: &Value, now: Wall) -> Vec<String> {
    let condition = |kind: &str| {
        job.pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
    };
    let status = match () {
        () if condition("Complete") => "Complete",
        () if condition("Failed") => "Failed",
        () => "Running",
    };
    let wanted = job.pointer("/spec/completions").and_then(Value::as_u64);
    let succeeded = number(job, "/status/succeeded");
    let completions = match wanted {
        Some(n) => format!("{succeeded}/{n}"),
        None => format!("{succeeded}/1 of {}", number(job, "/spec/parallelism")),
    };
    let end = seconds(job, "/status/completionTime").unwrap_or(now.0 / 1_000_000_000);
    let duration = seconds(job, "/status/startTime").map_or(0, |s| end.saturating_sub(s));
    vec![text(job, "/metadata/name"), status.into(), completions, age(duration), old(job, now)]
}

fn deployment_row(deployment: &Value, now: Wall) -> Vec<String> {
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    vec![
        text(deployment, "/metadata/name"),
        format!("{}/{wanted}", number(deployment, "/status/readyReplicas")),
        number(deployment, "/status/updatedReplicas").to_string(),
        number(deployment, "/status/availableReplicas").to_string(),
        old(deployment, now),
    ]
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A time of the object, in seconds since the epoch.
pub(super) fn seconds(object: &Value, pointer: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(object.pointer(pointer)?.as_str()?).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|d| d.as_secs())
}

fn old(object: &Value, now: Wall) -> String {
    seconds(object, "/metadata/creationTimestamp")
        .or_else(|| seconds(object, "/status/startTime"))
        .map_or_else(|| "<unknown>".into(), |s| age((now.0 / 1_000_000_000).saturating_sub(s)))
}
