//! `podshim logs POD [-c NAME]`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use runtime::log::reader::{Follower, Line, Start};
use serde_json::Value;

use super::prune::names_in;
use super::{Connection, LogsArgs, find_pod};

/// Prints a container's log: of a living pod, or of one whose logs are still there.
pub fn logs(layout: &Layout, args: &LogsArgs) -> anyhow::Result<i32> {
    let (pod_logs, object) = find(layout, args)?;
    let container = container(args, object.as_ref(), &pod_logs)?;
    let dir = pod_logs.join(&container);
    let start = start(args, &container, object.as_ref())?;
    let mut follower = Follower::new(&dir, start);
    if let Some(lines) = args.tail {
        follower = follower.tail(lines);
    }
    let mut printer = Printer { timestamps: args.timestamps, broken: None };
    if args.previous {
        follower.read_run(&mut |line| printer.print(&line))?;
        return printer.end();
    }
    follower.poll(&mut |line| printer.print(&line))?;
    while args.follow
        && printer.broken.is_none()
        && find_pod(layout, &args.namespace, &args.pod).is_ok()
    {
        std::thread::sleep(Duration::from_millis(50));
        follower.poll(&mut |line| printer.print(&line))?;
    }
    follower.poll(&mut |line| printer.print(&line))?;
    follower.finish(&mut |line| printer.print(&line));
    printer.end()
}

/// Writes lines to standard output; a reader that has gone ends it.
struct Printer {
    timestamps: bool,
    broken: Option<io::Error>,
}

impl Printer {
    fn print(&mut self, line: &Line<'_>) {
        if self.broken.is_none() {
            self.broken = self.write(line).err();
        }
    }

    fn write(&self, line: &Line<'_>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.timestamps {
            write!(out, "{} ", line.time.rfc3339())?;
        }
        out.write_all(line.bytes)?;
        out.write_all(b"\n")
    }

    fn end(self) -> anyhow::Result<i32> {
        match self.broken {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(e).context("cannot write to standard output")
            }
            _ => Ok(0),
        }
    }
}

/// The pod's log directory and, if it lives, its object.
fn find(layout: &Layout, args: &LogsArgs) -> anyhow::Result<(PathBuf, Option<Value>)> {
    match find_pod(layout, &args.namespace, &args.pod) {
        Ok(pod) => {
            let object = Connection::open(layout, &pod).and_then(|mut c| c.object()).ok();
            Ok((layout.pod_logs(&pod.namespace, &pod.name, &pod.uid), object))
        }
        Err(not_found) => {
            let prefix = format!("{}_{}_", args.namespace, args.pod);
            let newest = names_in(&layout.logs)?
                .into_iter()
                .filter(|name| name.starts_with(&prefix))
                .map(|name| layout.logs.join(name))
                .max_by_key(|dir| dir.metadata().and_then(|m| m.modified()).ok());
            newest.map(|dir| (dir, None)).ok_or(not_found)
        }
    }
}

fn container(
    args: &LogsArgs,
    object: Option<&Value>,
    logs: &std::path::Path,
) -> anyhow::Result<String> {
    if let Some(name) = &args.container {
        return Ok(name.clone());
    }
    let names = |pointer: &str| -> Vec<String> {
        object
            .and_then(|o| o.pointer(pointer))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let default = object
        .and_then(|o| o.pointer("/metadata/annotations"))
        .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
        .and_then(Value::as_str);
    if let Some(name) = default {
        return Ok(name.to_owned());
    }
    let mains = match object {
        Some(_) => names("/spec/containers"),
        None => names_in(logs)?,
    };
    match mains.as_slice() {
        [] => bail!("pod {} has no logs", args.pod),
        [one] => Ok(one.clone()),
        [first, ..] if object.is_some() => {
            let inits = names("/spec/initContainers");
            eprintln!(
                "Defaulted container {first:?} out of: {}",
                mains
                    .iter()
                    .cloned()
                    .chain(inits.iter().map(|n| format!("{n} (init)")))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            Ok(first.clone())
        }
        many => bail!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            args.pod,
            many.join(" ")
        ),
    }
}

/// From the current run, or the one before it.
fn start(args: &LogsArgs, container: &str, object: Option<&Value>) -> anyhow::Result<Start> {
    let restarts = object.and_then(|o| {
        ["/status/initContainerStatuses", "/status/containerStatuses"]
            .iter()
            .filter_map(|p| o.pointer(p)?.as_array())
            .flatten()
            .find(|s| s["name"] == container)
            .and_then(|s| s["restartCount"].as_u64())
    });
    match (args.previous, restarts) {
        (true, Some(count)) if count > 0 => Ok(Start::Restart(u32::try_from(count - 1)?)),
        (true, _) => {
            bail!("previous terminated container {container:?} in pod {:?} not found", args.pod)
        }
        (false, _) => Ok(Start::Newest),
    }
}
