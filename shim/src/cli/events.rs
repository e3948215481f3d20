//! `podshim events`: what happened to pods, also to those of the daemon's that have ended, and what its
//! controllers did.

use anyhow::bail;
use bundles::layout::Layout;
use plan::Wall;
use serde_json::{Value, json};

use super::api::Api;
use super::client::has_name;
use super::daemon::kind_of as kind_named;
use super::table::{Columns, age};
use super::terminal::{Output, printable, tell};
use super::{
    Connection, EventsArgs, FAILED, ObjectOutput, PodRef, complain, ended, find_pod, one_line, pods,
};
use crate::daemon::store::Kind;
use crate::event_log::{self, Told};
use crate::pod::result::PodResult;
use crate::protocol::{Event, Reply, Request};

mod follow;

pub use follow::follow;

/// Whose events are wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    kind: Kind,
    name: String,
}

impl Wanted {
    /// The name of a pod, or KIND/NAME.
    pub fn parse(text: &str) -> Result<Wanted, String> {
        let (word, name) = text.split_once('/').unwrap_or(("pod", text));
        match kind_named(word) {
            Some(Kind::ConfigMap | Kind::Secret) | None => Err(format!(
                "nothing happens to {word:?} here: there are events of pods (NAME), jobs, deployments and \
                 replicasets (KIND/NAME)"
            )),
            Some(kind) => Ok(Wanted { kind, name: name.to_owned() }),
        }
    }
}

/// Prints them, the oldest first.
pub fn events(layout: &Layout, args: &EventsArgs) -> anyhow::Result<i32> {
    let mut printer = Printer {
        output: Output::default(),
        columns: Columns::apart(3),
        format: args.output,
        namespaces: args.all_namespaces,
        header: !args.no_headers,
    };
    if let Some(wanted) = args.object() {
        anyhow::ensure!(
            !args.all_namespaces,
            "a name is looked for in one namespace (-n), not in all (-A)"
        );
        is_known(layout, &args.namespace, wanted)?;
    }
    let failed = if args.watch {
        watch(layout, args, &mut printer)?
    } else {
        let (mut all, failed) = collect(layout, |kind, at| args.of(kind, at))?;
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

/// Whether there is or was such an object; an error if not.
fn is_known(layout: &Layout, namespace: &str, wanted: &Wanted) -> anyhow::Result<()> {
    let Wanted { kind, name } = wanted;
    let is_it = |at: &PodRef| at.namespace == namespace && at.name == *name;
    if *kind == Kind::Pod {
        let found = find_pod(layout, namespace, name);
        let known = found.is_ok()
            || !ended::remembered(layout, &[], is_it)?.is_empty()
            || ended::find(layout, namespace, name)?.is_some();
        return if known { Ok(()) } else { found.map(drop) };
    }
    let told = event_log::all(layout)?;
    let is_told = told
        .iter()
        .any(|Told { object, .. }| object["kind"] == kind.name() && is_it(&PodRef::of(object)));
    let is_there = || -> anyhow::Result<bool> {
        let of_runs = crate::run::objects::read(layout, kind.name())?;
        if of_runs.iter().any(|object| is_it(&PodRef::of(object))) {
            return Ok(true);
        }
        let Some(api) = Api::find(layout)? else { return Ok(false) };
        Ok(api.get(*kind, namespace, name)?.is_some())
    };
    if !is_told && !is_there()? {
        bail!("{} {name:?} not found in namespace {namespace:?}", kind.plural());
    }
    Ok(())
}

impl EventsArgs {
    fn of(&self, kind: &str, at: &PodRef) -> bool {
        (self.all_namespaces || at.namespace == self.namespace)
            && self
                .object()
                .is_none_or(|wanted| wanted.kind.name() == kind && wanted.name == at.name)
    }

    fn object(&self) -> Option<&Wanted> {
        self.object.as_ref().or(self.of.as_ref())
    }

    fn wanted(&self, event: &Event) -> bool {
        self.types.is_empty() || self.types.iter().any(|t| t.eq_ignore_ascii_case(kind_of(event)))
    }
}

/// What happened to objects that are wanted (by kind and name), the oldest first, and whether one did not
/// answer.
pub fn collect(
    layout: &Layout,
    wanted: impl Fn(&str, &PodRef) -> bool,
) -> anyhow::Result<(Vec<(Value, Event)>, bool)> {
    let living = pods(layout)?;
    let mut all = of_ended(layout, &living, &wanted)?;
    let mut failed = false;
    for pod in living.into_iter().filter(|pod| wanted("Pod", pod)) {
        match of_pod(layout, &pod) {
            Ok((object, events)) => all.extend(events.into_iter().map(|e| (object.clone(), e))),
            // It ended between the list and the question.
            Err(_) if !has_name(layout, &pod) => {
                let result = PodResult::read(layout, &pod.uid)?.into_iter();
                all.extend(result.flat_map(of_result));
            }
            Err(e) => {
                complain(&one_line(&e));
                failed = true;
            }
        }
    }
    all.sort_by_key(|(_, event)| event.at.0);
    Ok((all, failed))
}

/// Of all that is in files: of what has ended, and of what controllers did.
fn of_ended(
    layout: &Layout,
    living: &[PodRef],
    wanted: impl Fn(&str, &PodRef) -> bool,
) -> anyhow::Result<Vec<(Value, Event)>> {
    let ended = ended::remembered(layout, living, |pod| wanted("Pod", pod))?;
    let mut events: Vec<_> = ended.into_iter().flat_map(of_result).collect();
    let mut controlled = event_log::all(layout)?;
    controlled.retain(|told| wanted(kind_in(&told.object), &PodRef::of(&told.object)));
    events.extend(controlled.into_iter().flat_map(|told| each(told.object, told.events)));
    events.sort_by_key(|(_, event)| event.at.0);
    Ok(events)
}

fn of_result(result: PodResult) -> impl Iterator<Item = (Value, Event)> {
    each(result.object, result.events)
}

fn each(object: Value, events: Vec<Event>) -> impl Iterator<Item = (Value, Event)> {
    events.into_iter().map(move |event| (object.clone(), event))
}

fn kind_in(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("Pod")
}

/// What happened, and then what happens, until nobody reads any more.
fn watch(layout: &Layout, args: &EventsArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let of = |kind: &str, at: &PodRef| args.of(kind, at);
    follow(layout, of, Wall(0), |mut events| {
        events.retain(|(_, event)| args.wanted(event));
        printer.print(&events)?;
        Ok(!printer.output.is_broken())
    })
}

/// A pod's object and its history.
pub fn of_pod(layout: &Layout, pod: &PodRef) -> anyhow::Result<(Value, Vec<Event>)> {
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
    fn print(&mut self, events: &[(Value, Event)]) -> anyhow::Result<()> {
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

    fn rows(&mut self, events: &[(Value, Event)]) {
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

fn row(object: &Value, event: &Event, now: Wall) -> Vec<String> {
    let mut shown = format!("{}/{}", kind_in(object), text(object, "/metadata/name"));
    if let Some(container) = &event.container {
        shown = format!("{shown}/{container}");
    }
    vec![
        interval(event, now),
        kind_of(event).into(),
        event.reason.clone(),
        shown,
        printable(event.message.trim()).into_owned(),
    ]
}

/// `Normal` or `Warning`.
pub fn kind_of(event: &Event) -> &'static str {
    if event.warning { "Warning" } else { "Normal" }
}

/// How long ago it happened; of what happened more than once also how often, and over which time.
pub fn interval(event: &Event, now: Wall) -> String {
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

/// A v1 Event, as `kubectl get events -o json` would show it. Its version is when it happened last.
pub fn event_object(object: &Value, event: &Event) -> Value {
    let meta = &object["metadata"];
    let first = event.first();
    let version = object["apiVersion"].as_str().unwrap_or("v1");
    let mut involved = json!({"apiVersion": version, "kind": kind_in(object),
        "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]});
    if let Some(container) = &event.container {
        let in_list = |list: &str| {
            object["spec"][list]
                .as_array()
                .is_some_and(|a| a.iter().any(|c| c["name"] == **container))
        };
        let list = if in_list("initContainers") { "initContainers" } else { "containers" };
        involved["fieldPath"] = format!("spec.{list}{{{container}}}").into();
    }
    // Several of one moment have different names.
    let container = event.container.as_deref().unwrap_or_default();
    let what =
        crc32fast::hash(format!("{container} {} {}", event.reason, event.message).as_bytes());
    let name = meta["name"].as_str().unwrap_or_default();
    json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": meta["namespace"], "name": format!("{name}.{:x}.{what:x}", first.0),
            "resourceVersion": event.at.0.to_string()},
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
        let mut event = Event {
            at: second(100),
            warning: true,
            reason: "Unhealthy".into(),
            message: "Startup probe failed: no\n".into(),
            container: Some("main".into()),
            first_at: None,
            count: 1,
        };
        let pod = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
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
