//! `podshim rollout`: how far a deployment has got to its template, and other templates for it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bundles::layout::Layout;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::Api;
use super::daemon::{Workload, kind_of};
use super::terminal::{Output, complain, printable};
use super::{FAILED, pod_name};
use crate::daemon::store::Kind;
use crate::workload::REVISION;

/// How often is looked how far it has got.
const LOOK: Duration = Duration::from_millis(50);
/// Why a revision came to be, as its user says (`kubectl rollout history`).
const CAUSE: &str = "kubernetes.io/change-cause";
/// In a template: when its pods were all to be made anew.
pub const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// `podshim rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Wait until all pods are of the deployment's template and available
    Status(StatusArgs),
    /// The templates that it had
    History(HistoryArgs),
    /// Give it the template that it had before
    Undo(UndoArgs),
    /// Make all of its pods anew, as its strategy says
    Restart(Named),
    /// Let it be as it is: a new template waits until it is resumed
    Pause(Named),
    /// Go on with what was paused
    Resume(Named),
}

/// Which deployment.
#[derive(Debug, Args)]
pub struct Named {
    /// `deployment/NAME`, or `deployment NAME`
    #[arg(required = true, num_args = 1..=2, value_name = "DEPLOYMENT")]
    which: Vec<String>,
    /// Its namespace
    #[arg(long, short, default_value = "default", value_parser = pod_name)]
    namespace: String,
}

/// `podshim rollout status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    named: Named,
    /// Wait for its end; false says only how far it is
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set)]
    watch: bool,
    /// Give up after this time (10s, 5m, …); 0 is never
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// `podshim rollout history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    named: Named,
    /// Show the template of this revision
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

/// `podshim rollout undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    #[command(flatten)]
    named: Named,
    /// The revision to go back to; the one before the last if none is given
    #[arg(long, value_name = "N", default_value_t = 0)]
    to_revision: u64,
}

/// Carries it out.
pub fn rollout(layout: &Layout, command: &RolloutCommand) -> anyhow::Result<i32> {
    let api = Api::of(layout)?;
    match command {
        RolloutCommand::Status(args) => status(&api, args),
        RolloutCommand::History(args) => history(&api, args),
        RolloutCommand::Undo(args) => undo(&api, args),
        RolloutCommand::Restart(named) => change(&api, named, "restarted", |object| {
            if object["spec"]["paused"] == true {
                bail!("can't restart paused deployment (run rollout resume first)");
            }
            let now = runtime::clock::now().wall.rfc3339();
            object["spec"]["template"]["metadata"]["annotations"][RESTARTED] = json!(now);
            Ok(())
        }),
        RolloutCommand::Pause(named) => change(&api, named, "paused", |object| {
            if object["spec"]["paused"] == true {
                bail!("it is already paused");
            }
            object["spec"]["paused"] = json!(true);
            Ok(())
        }),
        RolloutCommand::Resume(named) => change(&api, named, "resumed", |object| {
            if object["spec"]["paused"] != true {
                bail!("it is not paused");
            }
            object["spec"]["paused"] = json!(false);
            Ok(())
        }),
    }
}

fn workload(named: &Named) -> anyhow::Result<Workload> {
    let (word, name) = match named.which.as_slice() {
        [one] => one.split_once('/').context("which one? write `deployment/NAME`")?,
        [word, name] => (word.as_str(), name.as_str()),
        _ => bail!("which one? write `deployment/NAME`"),
    };
    if kind_of(word) != Some(Kind::Deployment) {
        bail!("{word:?} has no rollouts: deployments have");
    }
    let (kind, namespace) = (Kind::Deployment, named.namespace.clone());
    Ok(Workload { kind, namespace, name: name.to_owned() })
}

fn change(
    api: &Api,
    named: &Named,
    done: &str,
    deed: impl Fn(&mut Value) -> anyhow::Result<()>,
) -> anyhow::Result<i32> {
    let workload = workload(named)?;
    workload.change(api, deed)?;
    say(&format!("deployment.apps/{} {done}", workload.name))
}

fn say(line: &str) -> anyhow::Result<i32> {
    let mut output = Output::default();
    output.line(format_args!("{line}"));
    output.end()?;
    Ok(0)
}

/// kubectl's sentences, each when it begins to be so.
fn status(api: &Api, args: &StatusArgs) -> anyhow::Result<i32> {
    let workload = workload(&args.named)?;
    let begun = Instant::now();
    let mut output = Output::default();
    let mut told = String::new();
    let first = workload.find(api)?;
    loop {
        let object = workload.find(api)?;
        if object["metadata"]["uid"] != first["metadata"]["uid"] {
            bail!("deployments {:?} was deleted, and another one has its name", workload.name);
        }
        let (line, is_done) = progress(&object, &workload.name)?;
        if line != told {
            output.line(format_args!("{line}"));
            told = line;
        }
        if is_done || !args.watch || output.is_broken() {
            output.end()?;
            return Ok(0);
        }
        if !args.timeout.is_zero() && begun.elapsed() > args.timeout {
            output.end()?;
            complain(&format!(
                "it took longer than {}; `podshim get pods` shows which pods it waits for, and `podshim \
                 explain POD` why",
                humantime::format_duration(args.timeout)
            ));
            return Ok(FAILED);
        }
        std::thread::sleep(LOOK);
    }
}

/// How far it is, and whether that is all.
fn progress(object: &Value, name: &str) -> anyhow::Result<(String, bool)> {
    let number = |at: &str| object.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Ok(("Waiting for deployment spec update to be observed...".into(), false));
    }
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    if conditions.any(|c| c["reason"] == "ProgressDeadlineExceeded") {
        bail!(
            "deployment {name:?} exceeded its progress deadline; `podshim get pods` shows its pods, `podshim \
             explain POD` why one is not ready, `podshim rollout undo deployment/{name}` goes back"
        );
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let replicas = number("/status/replicas");
    let updated = number("/status/updatedReplicas");
    let available = number("/status/availableReplicas");
    let what = if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if replicas > updated {
        format!("{} old replicas are pending termination...", replicas - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available...")
    } else {
        return Ok((format!("deployment {name:?} successfully rolled out"), true));
    };
    Ok((format!("Waiting for deployment {name:?} rollout to finish: {what}"), false))
}

/// Its replica sets with their revisions, the oldest first.
fn revisions(
    api: &Api,
    workload: &Workload,
    deployment: &Value,
) -> anyhow::Result<Vec<(u64, Value)>> {
    let sets = api.list(Kind::ReplicaSet, Some(&workload.namespace))?;
    let is_own = |set: &Value| {
        let mut owners = set["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|owner| owner["uid"] == deployment["metadata"]["uid"])
    };
    let mut own: Vec<(u64, Value)> =
        sets.into_iter().filter(is_own).map(|set| (revision_of(&set), set)).collect();
    own.sort_by_key(|(revision, _)| *revision);
    Ok(own)
}

fn revision_of(object: &Value) -> u64 {
    let revision = object["metadata"]["annotations"][REVISION].as_str();
    revision.and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

fn history(api: &Api, args: &HistoryArgs) -> anyhow::Result<i32> {
    let workload = workload(&args.named)?;
    let revisions = revisions(api, &workload, &workload.find(api)?)?;
    let mut output = Output::default();
    if let Some(wanted) = args.revision {
        let (_, set) = find(&revisions, wanted)?;
        output.line(format_args!("deployment.apps/{} with revision #{wanted}", workload.name));
        let template = json!({ "template": set["spec"]["template"] });
        output.write(bundles::yaml::to_string(&template).context("cannot print YAML")?.as_bytes());
    } else {
        output.line(format_args!("deployment.apps/{}", workload.name));
        output.line(format_args!("{:<9} CHANGE-CAUSE", "REVISION"));
        for (revision, set) in &revisions {
            let cause = set["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>");
            output.line(format_args!("{revision:<9} {}", printable(cause)));
        }
    }
    output.end()?;
    Ok(0)
}

fn find(revisions: &[(u64, Value)], wanted: u64) -> anyhow::Result<&(u64, Value)> {
    revisions.iter().find(|(revision, _)| *revision == wanted).with_context(|| {
        let there: Vec<String> = revisions.iter().map(|(n, _)| n.to_string()).collect();
        format!("unable to find the revision {wanted}: there are {}", there.join(", "))
    })
}

fn undo(api: &Api, args: &UndoArgs) -> anyhow::Result<i32> {
    let workload = workload(&args.named)?;
    let deployment = workload.find(api)?;
    if deployment["spec"]["paused"] == true {
        bail!(
            "you cannot rollback a paused deployment; resume it first with `podshim rollout resume`"
        );
    }
    let revisions = revisions(api, &workload, &deployment)?;
    let current = revision_of(&deployment);
    let (revision, set) = match args.to_revision {
        0 => revisions.iter().rev().find(|(revision, _)| *revision != current).with_context(
            || format!("no rollout history found for deployment {:?}", workload.name),
        )?,
        wanted => find(&revisions, wanted)?,
    };
    if *revision == current {
        return say(&format!(
            "deployment.apps/{} skipped rollback (current template already matches revision {revision})",
            workload.name
        ));
    }
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let cause = set["metadata"]["annotations"].get(CAUSE).cloned();
    workload.change(api, |object| {
        object["spec"]["template"] = template.clone();
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.remove(CAUSE);
            annotations.extend(cause.clone().map(|cause| (CAUSE.to_owned(), cause)));
        }
        Ok(())
    })?;
    say(&format!("deployment.apps/{} rolled back", workload.name))
}
