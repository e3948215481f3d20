//! `podshim events`: what happened to pods, also to those of the daemon's that have ended.

use bundles::layout::Layout;
use plan::Wall;
use serde_json::{Value, json};

use super::client::has_name;
use super::table::{Columns, age};
use super::terminal::{Output, printable, tell};
use super::watched::{Arrivals, Heard, Watched, speaking};
use super::{
    Connection, EventsArgs, FAILED, ObjectOutput, PodRef, complain, ended, find_pod, one_line, pods,
};
use crate::pod::result::PodResult;
use crate::protocol::{PodEvent, Reply, Request};

/// Prints them, the oldest first.
pub fn events(layout: &Layout, args: &EventsArgs) -> anyhow::Result<i32> {
    let mut printer = Printer {
        output: Output::default(),
        columns: Columns::apart(3),
        format: args.output,
        namespaces: args.all_namespaces,
        header: !args.no_headers,
    };
    if let Some(name) = &args.pod {
        anyhow::ensure!(
            !args.all_namespaces,
            "a name is looked for in one namespace (-n), not in all (-A)"
        );
        let known = |found: &anyhow::Result<PodRef>| -> anyhow::Result<bool> {
            Ok(found.is_ok()
                || !ended::remembered(layout, &[], |pod| args.of(pod))?.is_empty()
                || ended::find(layout, &args.namespace, name)?.is_some())
        };
        let found = find_pod(layout, &args.namespace, name);
        if !known(&found)? {
            found?;
        }
    }
    let failed = if args.watch {
        watch(layout, args, &mut printer)?
    } else {
        let (mut all, failed) = collect(layout, |pod| args.of(pod))?;
        all.retain(|(_, event)| args.wanted(event));
        if all.is_empty() && args.output.is_none() {
            tell(&if args.all_namespaces {
                "No events found\n".to_owned()
            } else {
                format!("No events found in {} namespace.\n", args.namespace)
            });
        }
        printer.print(&all)?;
        failed
    };
    printer.output.end()?;
    Ok(if failed { FAILED } else { 0 })
}

impl EventsArgs {
    fn of(&self, pod: &PodRef) -> bool {
        (self.all_namespaces || pod.namespace == self.namespace)
            && self.pod.as_ref().is_none_or(|name| *name == pod.name)
    }

    fn wanted(&self, event: &PodEvent) -> bool {
        self.types.is_empty() || self.types.iter().any(|t| t.eq_ignore_ascii_case(kind_of(event)))
    }
}

/// What happened to pods that are wanted, the oldest first, and whether one did not answer.
pub fn collect(
    layout: &Layout,
    wanted: impl Fn(&PodRef) -> bool,
) -> anyhow::Result<(Vec<(Value, PodEvent)>, bool)> {
    let living = pods(layout)?;
    let mut all = of_ended(layout, &living, &wanted)?;
    let mut failed = false;
    for pod in living.into_iter().filter(|pod| wanted(pod)) {
        match of_pod(layout, &pod) {
            Ok((object, events)) => all.extend(events.into_iter().map(|e| (object.clone(), e))),
            // It ended between the list and the question.
            Err(_) if !has_name(layout, &pod) => {}
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    all.sort_by_key(|(_, event)| event.at.0);
    Ok((all, failed))
}

fn of_ended(
    layout: &Layout,
    living: &[PodRef],
    wanted: impl Fn(&PodRef) -> bool,
) -> anyhow::Result<Vec<(Value, PodEvent)>> {
    let ended = ended::remembered(layout, living, wanted)?.into_iter();
    let events = ended.flat_map(|PodResult { object, events, .. }| {
        events.into_iter().map(move |event| (object.clone(), event))
    });
    let mut events: Vec<_> = events.collect();
    events.sort_by_key(|(_, event)| event.at.0);
    Ok(events)
}

/// What happened, and then what happens, until nobody reads any more.
fn watch(layout: &Layout, args: &EventsArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let mut arrivals = Arrivals::new(layout);
    let mut watched: Vec<Watched> = Vec::new();
    let mut before = of_ended(layout, &pods(layout)?, |pod| args.of(pod))?;
    before.retain(|(_, event)| args.wanted(event));
    printer.print(&before)?;
    while !printer.output.is_broken() {
        for mut one in arrivals.next(|pod| args.of(pod))? {
            one.ask_events()?;
            watched.push(one);
        }
        for index in speaking(&watched, Arrivals::LOOK)?.into_iter().rev() {
            let one = &mut watched[index];
            let mut new = match one.hear()? {
                Some(Heard::Events(events)) => events,
                Some(_) => continue,
                None => {
                    watched.swap_remove(index);
                    continue;
                }
            };
            new.retain(|event| args.wanted(event));
            let new: Vec<_> = new.into_iter().map(|event| (one.object.clone(), event)).collect();
            printer.print(&new)?;
        }
    }
    Ok(arrivals.failed)
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

struct Printer {
    output: Output,
    columns: Columns,
    format: Option<ObjectOutput>,
    namespaces: bool,
    header: bool,
}

impl Printer {
    fn print(&mut self, events: &[(Value, PodEvent)]) -> anyhow::Result<()> {
        if self.format.is_none() {
            self.rows(events);
            return Ok(());
        }
        for (pod, event) in events {
            let object = event_object(pod, event);
            match self.format {
                Some(ObjectOutput::Name) => {
                    self.output.line(format_args!("event/{}", text(&object, "/metadata/name")));
                }
                Some(ObjectOutput::Yaml) => {
                    let yaml = bundles::yaml::to_string(&object)?;
                    self.output.line(format_args!("---\n{}", yaml.trim_end()));
                }
                _ => self.output.line(object),
            }
        }
        Ok(())
    }

    fn rows(&mut self, events: &[(Value, PodEvent)]) {
        let now = runtime::clock::now().wall;
        let mut rows: Vec<Vec<String>> = Vec::new();
        if self.header && !events.is_empty() {
            self.header = false;
            rows.push(
                ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(String::from).into(),
            );
            if self.namespaces {
                rows[0].insert(0, "NAMESPACE".into());
            }
        }
        for (pod, event) in events {
            let mut row = row(pod, event, now);
            if self.namespaces {
                row.insert(0, text(pod, "/metadata/namespace"));
            }
            rows.push(row);
        }
        self.output.write(self.columns.lines(&rows).as_bytes());
    }
}

fn row(pod: &Value, event: &PodEvent, now: Wall) -> Vec<String> {
    let name = text(pod, "/metadata/name");
    let object = match &event.container {
        Some(container) => format!("Pod/{name}/{container}"),
        None => format!("Pod/{name}"),
    };
    vec![
        interval(event, now),
        kind_of(event).into(),
        event.reason.clone(),
        object,
        printable(event.message.trim()).into_owned(),
    ]
}

/// `Normal` or `Warning`.
pub fn kind_of(event: &PodEvent) -> &'static str {
    if event.warning { "Warning" } else { "Normal" }
}

/// How long ago it happened; of what happened more than once also how often, and over which time.
pub fn interval(event: &PodEvent, now: Wall) -> String {
    let since = |at: Wall| age(now.0.saturating_sub(at.0) / 1_000_000_000);
    if event.count > 1 {
        format!("{} (x{} over {})", since(event.at), event.count, since(event.first()))
    } else {
        since(event.at)
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A v1 Event, as `kubectl get events -o json` would show it.
pub fn event_object(pod: &Value, event: &PodEvent) -> Value {
    let meta = &pod["metadata"];
    let first = event.first();
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
            "name": format!("{}.{:x}", meta["name"].as_str().unwrap_or_default(), first.0)},
        "involvedObject": involved, "reason": event.reason, "message": event.message,
        "type": kind_of(event),
        "source": {"component": "podshim"}, "count": event.count,
        "firstTimestamp": first.rfc3339(), "lastTimestamp": event.at.rfc3339()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_counted_and_aged_as_kubectl_does() {
        let second = |s: u64| Wall(s * 1_000_000_000);
        let mut event = PodEvent {
            at: second(100),
            warning: true,
            reason: "Unhealthy".into(),
            message: "Startup probe failed: no\n".into(),
            container: Some("main".into()),
            first_at: None,
            count: 1,
        };
        let pod = json!({"metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "main"}]}});
        assert_eq!(
            row(&pod, &event, second(105)),
            ["5s", "Warning", "Unhealthy", "Pod/p/main", "Startup probe failed: no"]
        );
        (event.first_at, event.count, event.at) = (Some(second(100)), 4, second(215));
        assert_eq!(interval(&event, second(220)), "5s (x4 over 2m)");
        let object = event_object(&pod, &event);
        assert_eq!(
            (&object["count"], &object["firstTimestamp"], &object["lastTimestamp"]),
            (&json!(4), &json!("1970-01-01T00:01:40Z"), &json!("1970-01-01T00:03:35Z"))
        );
        assert_eq!(object["involvedObject"]["fieldPath"], "spec.containers{main}");
        serde_json::from_value::<k8s_openapi::api::core::v1::Event>(object).expect("a v1 Event");
    }
}
