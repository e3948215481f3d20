//! `podshim explain`: what a pod waits for, or why it does not; of one that has ended, how it ended.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use bundles::layout::Layout;
use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::Value;

use super::client::has_name;
use super::table::age;
use super::terminal::Output;
use super::{Connection, PodRef, completion, ended, find_pod, names_in, pod_name};
use crate::pod::file::PodFile;
use crate::pod::past::Past;
use crate::pod::result::PodResult;
use crate::protocol::{Event, PodWaiting, Reply, Request};

mod text;

/// `podshim explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::logged_pod_names))]
    pod: String,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// What a living pod's shim knows.
struct Told {
    object: Value,
    waiting: Vec<PodWaiting>,
    events: Vec<Event>,
}

/// Prints it.
pub fn explain(layout: &Layout, args: &ExplainArgs) -> anyhow::Result<i32> {
    let mut output = Output::default();
    let said = match find_pod(layout, &args.namespace, &args.pod) {
        Ok(pod) => match ask(layout, &pod) {
            Ok(told) => {
                text::living(&told.object, &told.waiting, &told.events, runtime::clock::now())
            }
            Err(_) if !has_name(layout, &pod) => {
                of_ended(layout, args)?.context(ended_now(&pod))?
            }
            // Its shim is dead, or stopped: then its directory is all that can be asked.
            Err(e) => of_journal(layout, &pod).with_context(|| runtime::chain(e.as_ref()))?,
        },
        Err(not_found) => of_ended(layout, args)?.ok_or(not_found)?,
    };
    output.write(said.as_bytes());
    output.end()?;
    Ok(0)
}

fn ended_now(pod: &PodRef) -> String {
    format!("pod {} has ended in this moment, and nothing is left of it", pod.name)
}

fn ask(layout: &Layout, pod: &PodRef) -> anyhow::Result<Told> {
    let mut connection = Connection::open(layout, pod)?;
    let object = connection.object()?;
    let waiting = match connection.ask(&Request::Waiting)? {
        Reply::Waiting(waiting) => waiting,
        other => anyhow::bail!("unexpected answer: {other:?}"),
    };
    match connection.ask(&Request::Events)? {
        Reply::Events(events) => Ok(Told { object, waiting, events }),
        other => anyhow::bail!("unexpected answer: {other:?}"),
    }
}

/// A pod whose shim does not answer, as its journal leaves it.
fn of_journal(layout: &Layout, pod: &PodRef) -> anyhow::Result<String> {
    let dir = layout.pod(&pod.uid);
    let file = PodFile::read(&dir.spec())?;
    let contents = runtime::journal::read(&dir.journal()).context("cannot read its history")?;
    runtime::clock::set_ahead(contents.ahead());
    let past = Past::of(&file, &contents);
    let now = runtime::clock::now();
    let mut object = serde_json::to_value(&file.pod)?;
    object["status"] = serde_json::to_value(plan::status(&past.pod, &past.state, now))?;
    Ok(text::dead(&object, file.owner.is_none(), file.has_owner(), now))
}

/// A pod that does not live: the daemon has it, or remembers it, or its logs are left.
fn of_ended(layout: &Layout, args: &ExplainArgs) -> anyhow::Result<Option<String>> {
    let now = runtime::clock::now();
    if let Some((object, events)) = ended::find(layout, &args.namespace, &args.pod)? {
        return Ok(Some(
            text::waiting_for_life(&object)
                .unwrap_or_else(|| text::ended(&object, &events, false, now)),
        ));
    }
    let wanted = |pod: &PodRef| pod.namespace == args.namespace && pod.name == args.pod;
    let all = ended::remembered(layout, &[], wanted)?;
    let at = |result: &PodResult| result.events.last().map(|event| event.at);
    match all.into_iter().max_by_key(at) {
        Some(PodResult { object, events, .. }) => {
            Ok(Some(text::ended(&object, &events, true, now)))
        }
        None => of_logs(layout, args),
    }
}

/// A pod of which only logs are left.
fn of_logs(layout: &Layout, args: &ExplainArgs) -> anyhow::Result<Option<String>> {
    let prefix = format!("{}_{}_", args.namespace, args.pod);
    let names = names_in(&layout.logs)?.into_iter().filter(|name| name.starts_with(&prefix));
    let newest = names.map(|name| layout.logs.join(name)).max_by_key(written);
    let Some(dir) = newest else { return Ok(None) };
    let containers = names_in(&dir)?;
    let ago = written(&dir).and_then(|at| at.elapsed().ok()).map(|ago| age(ago.as_secs()));
    Ok(Some(text::gone(&args.pod, &args.namespace, &containers, ago)))
}

/// When something was written into a pod's logs last.
fn written(dir: &PathBuf) -> Option<SystemTime> {
    let containers = fs::read_dir(dir).ok()?.flatten();
    let files = containers.filter_map(|c| fs::read_dir(c.path()).ok()).flatten().flatten();
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}
