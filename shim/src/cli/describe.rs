//! `podshim describe`: all that is known of an object, in kubectl's form.

use anyhow::{Context, bail};
use bundles::layout::Layout;
use serde_json::Value;

use self::page::{array, str};
use super::api::Api;
use super::client::has_name;
use super::daemon::kind_of;
use super::events::of_pod;
use super::terminal::{Output, complain};
use super::{DescribeArgs, FAILED, ended, find_pod, one_line, pods};
use crate::daemon::store::Kind;
use crate::event_log;
use crate::protocol::Event;

mod page;
mod pod;
mod workload;

/// Prints each object.
pub fn describe(layout: &Layout, args: &DescribeArgs) -> anyhow::Result<i32> {
    let word = args.kind.split_once('/').map_or(args.kind.as_str(), |(word, _)| word);
    let kind = kind_of(word).with_context(|| {
        format!("podshim has no {word:?} that can be described: it has pods, deployments, replicasets, jobs, configmaps and secrets")
    })?;
    let names = names(kind, args)?;
    let of = |kind| objects(layout, kind, &args.namespace);
    let objects = if kind == Kind::Pod { Vec::new() } else { of(kind)? };
    let sets = if kind == Kind::Deployment { of(Kind::ReplicaSet)? } else { Vec::new() };
    let all = match kind {
        Kind::Pod => all_names(layout, &args.namespace)?,
        _ => objects.iter().map(|object| str(object, "/metadata/name").to_owned()).collect(),
    };
    let found = |name: &str| {
        if kind == Kind::Pod {
            let (object, events) = find(layout, &args.namespace, name)?;
            return Ok(pod::text(&object, &events));
        }
        let object = objects.iter().find(|object| object["metadata"]["name"] == name);
        let object = object.with_context(|| {
            format!("{} {name:?} not found in namespace {:?}", kind.plural(), args.namespace)
        })?;
        let is_own = |set: &&Value| {
            let mut owners = array(set, "/metadata/ownerReferences").iter();
            owners.any(|owner| owner["uid"] == object["metadata"]["uid"])
        };
        let own: Vec<Value> = sets.iter().filter(is_own).cloned().collect();
        let told = event_log::read(layout, str(object, "/metadata/uid"))?;
        let events = told.map(|told| told.events).unwrap_or_default();
        anyhow::Ok(workload::text(kind, object, &own, &events))
    };
    let mut output = Output::default();
    let mut code = 0;
    let wanted = if names.is_empty() { all } else { names };
    if wanted.is_empty() {
        super::tell(&format!("No resources found in {} namespace.\n", args.namespace));
    }
    for (i, name) in wanted.iter().enumerate() {
        match found(name) {
            Ok(text) => {
                let gap = if i > 0 { "\n\n" } else { "" };
                output.write(format!("{gap}{text}").as_bytes());
            }
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    output.end()?;
    Ok(code)
}

/// The names that are given, each alone or as KIND/NAME.
fn names(kind: Kind, args: &DescribeArgs) -> anyhow::Result<Vec<String>> {
    let first = args.kind.split_once('/').map(|_| &args.kind);
    first
        .into_iter()
        .chain(&args.names)
        .map(|text| match text.split_once('/') {
            None => Ok(text.clone()),
            Some((word, name)) if kind_of(word) == Some(kind) => Ok(name.to_owned()),
            Some(_) => bail!("{text:?} is of another kind than what is before it"),
        })
        .collect()
}

/// All objects of a kind that is not pods: those of runs, and the daemon's.
fn objects(layout: &Layout, kind: Kind, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = crate::run::objects::read(layout, kind.name())?;
    all.retain(|object| object["metadata"]["namespace"] == namespace);
    if let Some(api) = Api::find(layout)? {
        all.extend(api.list(kind, Some(namespace))?);
    }
    all.sort_by(|a, b| str(a, "/metadata/name").cmp(str(b, "/metadata/name")));
    Ok(all)
}

fn all_names(layout: &Layout, namespace: &str) -> anyhow::Result<Vec<String>> {
    let living = pods(layout)?;
    let mut names: Vec<String> = ended::all(layout, Some(namespace), &living)?
        .iter()
        .map(|pod| str(pod, "/metadata/name").to_owned())
        .chain(living.into_iter().filter(|pod| pod.namespace == namespace).map(|pod| pod.name))
        .collect();
    names.sort();
    Ok(names)
}

/// A pod and what happened to it: its shim knows, or, if it does not live, the daemon.
fn find(layout: &Layout, namespace: &str, name: &str) -> anyhow::Result<(Value, Vec<Event>)> {
    let silent = match find_pod(layout, namespace, name) {
        Ok(pod) => match of_pod(layout, &pod) {
            // It ended between the question where it is and the one how it is.
            Err(e) if !has_name(layout, &pod) => e,
            told => return told,
        },
        Err(e) => e,
    };
    ended::find(layout, namespace, name)?.ok_or(silent)
}
