//! `podshim events`: what happened to pods that live.

use std::time::Duration;

use bundles::layout::Layout;
use serde_json::{Value, json};

use super::table::{age, columns};
use super::terminal::{Output, printable, tell};
use super::{
    Connection, EventsArgs, FAILED, ObjectOutput, PodRef, complain, find_pod, one_line, pods,
};
use crate::protocol::{PodEvent, Reply, Request};

/// How often pods are asked with `--watch`.
const WATCH: Duration = Duration::from_millis(200);

/// Prints them, the oldest first.
pub fn events(layout: &Layout, args: &EventsArgs) -> anyhow::Result<i32> {
    let mut output = Output::default();
    let mut seen: Vec<(String, PodEvent)> = Vec::new();
    let mut code = 0;
    let mut header = true;
    loop {
        let (mut all, failed) = collect(layout, args)?;
        code = if failed { FAILED } else { code };
        all.retain(|(pod, event)| !seen.contains(&(text(pod, "/metadata/uid"), event.clone())));
        seen.extend(all.iter().map(|(pod, event)| (text(pod, "/metadata/uid"), event.clone())));
        print(&mut output, &all, args.output, header)?;
        header &= all.is_empty();
        if !args.watch || output.is_broken() {
            break;
        }
        std::thread::sleep(WATCH);
    }
    if header && args.output.is_none() {
        tell("No events found\n");
    }
    output.end()?;
    Ok(code)
}

fn collect(layout: &Layout, args: &EventsArgs) -> anyhow::Result<(Vec<(Value, PodEvent)>, bool)> {
    let wanted = match &args.pod {
        Some(name) => vec![find_pod(layout, &args.namespace, name)?],
        None => pods(layout)?.into_iter().filter(|p| p.namespace == args.namespace).collect(),
    };
    let mut all = Vec::new();
    let mut failed = false;
    for pod in wanted {
        match of_pod(layout, &pod) {
            Ok((object, events)) => all.extend(events.into_iter().map(|e| (object.clone(), e))),
            // It ended between the list and the question.
            Err(_)
                if std::fs::symlink_metadata(layout.name(&pod.namespace, &pod.name)).is_err() => {}
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    all.sort_by_key(|(_, event)| event.at.0);
    Ok((all, failed))
}

/// A pod's object and its history.
pub fn of_pod(layout: &Layout, pod: &PodRef) -> anyhow::Result<(Value, Vec<PodEvent>)> {
    let mut connection = Connection::open(layout, pod)?;
    let object = connection.object()?;
    match connection.ask(&Request::Events)? {
        Reply::Events(events) => Ok((object, events)),
        other => anyhow::bail!("unexpected answer: {other:?}"),
    }
}

fn print(
    output: &mut Output,
    events: &[(Value, PodEvent)],
    format: Option<ObjectOutput>,
    header: bool,
) -> anyhow::Result<()> {
    let objects = || events.iter().map(|(pod, event)| event_object(pod, event));
    match format {
        Some(ObjectOutput::Name) => {
            for event in objects() {
                output.line(format_args!("event/{}", text(&event, "/metadata/name")));
            }
        }
        Some(ObjectOutput::Json) => {
            for event in objects() {
                output.line(event);
            }
        }
        Some(ObjectOutput::Yaml) => {
            for event in objects() {
                output.line(format_args!("---\n{}", bundles::yaml::to_string(&event)?.trim_end()));
            }
        }
        None => {
            let mut rows = Vec::new();
            if header && !events.is_empty() {
                rows.push(
                    ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(String::from).into(),
                );
            }
            rows.extend(events.iter().map(|(pod, event)| row(pod, event)));
            output.write(columns(&rows).as_bytes());
        }
    }
    Ok(())
}

fn row(pod: &Value, event: &PodEvent) -> Vec<String> {
    let name = text(pod, "/metadata/name");
    let object = match &event.container {
        Some(container) => format!("Pod/{name}/{container}"),
        None => format!("Pod/{name}"),
    };
    vec![
        ago(event),
        if event.warning { "Warning" } else { "Normal" }.into(),
        event.reason.clone(),
        object,
        printable(&event.message).into_owned(),
    ]
}

/// How long ago it happened.
pub fn ago(event: &PodEvent) -> String {
    let now = runtime::clock::now().wall.0;
    age(now.saturating_sub(event.at.0) / 1_000_000_000)
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A v1 Event, as `kubectl get events -o json` would show it.
pub fn event_object(pod: &Value, event: &PodEvent) -> Value {
    let meta = &pod["metadata"];
    let time = event.at.rfc3339();
    let mut involved = json!({"apiVersion": "v1", "kind": "Pod", "namespace": meta["namespace"],
        "name": meta["name"], "uid": meta["uid"]});
    if let Some(container) = &event.container {
        let in_list = |list: &str| {
            pod["spec"][list].as_array().is_some_and(|a| a.iter().any(|c| c["name"] == **container))
        };
        let list = if in_list("initContainers") { "initContainers" } else { "containers" };
        involved["fieldPath"] = format!("spec.{list}{{{container}}}").into();
    }
    json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": meta["namespace"],
            "name": format!("{}.{:x}", meta["name"].as_str().unwrap_or_default(), event.at.0)},
        "involvedObject": involved, "reason": event.reason, "message": event.message,
        "type": if event.warning { "Warning" } else { "Normal" },
        "source": {"component": "podshim"}, "count": 1,
        "firstTimestamp": time, "lastTimestamp": time})
}
