//! `podshim logs POD [-c NAME]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use plan::Wall;
use runtime::log::reader::{Follower, Line, Start};
use serde_json::Value;

use super::api::Api;
use super::prune::names_in;
use super::terminal::Output;
use super::{Connection, LogsArgs, default_container, find_pod};
use crate::daemon::store::Kind;

/// Prints logs: of a living pod, or of one whose logs are still there.
pub fn logs(layout: &Layout, args: &LogsArgs) -> anyhow::Result<i32> {
    let (pod_logs, object) = find(layout, args)?;
    let containers = if args.all_containers {
        all_containers(object.as_ref(), &pod_logs)?
    } else {
        vec![container(args, object.as_ref(), &pod_logs)?]
    };
    let mut sources = Vec::new();
    for name in containers {
        let start = start(args, &name, object.as_ref())?;
        let mut follower = Follower::new(&pod_logs.join(&name), start);
        if let Some(lines) = args.tail {
            follower = follower.tail(lines);
        }
        let prefix =
            if args.prefix { format!("[pod/{}/{name}] ", args.pod) } else { String::new() };
        sources.push((prefix, follower));
    }
    let since = since(args)?;
    let mut output = Output::default();
    let how = How { since, timestamps: args.timestamps };
    if !args.follow {
        // One run, even if the next begins meanwhile.
        for (prefix, follower) in &mut sources {
            follower.read_run(&mut |line| how.print(&mut output, prefix, &line))?;
        }
    } else {
        how.poll(&mut output, &mut sources)?;
        while !output.is_broken() && find_pod(layout, &args.namespace, &args.pod).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
            how.poll(&mut output, &mut sources)?;
        }
        how.poll(&mut output, &mut sources)?;
        for (prefix, follower) in &mut sources {
            follower.finish(&mut |line| how.print(&mut output, prefix, &line));
        }
    }
    output.end()?;
    Ok(0)
}

/// How lines are printed, and which.
struct How {
    since: Wall,
    timestamps: bool,
}

impl How {
    fn poll(&self, output: &mut Output, sources: &mut [(String, Follower)]) -> anyhow::Result<()> {
        for (prefix, follower) in sources {
            follower.poll(&mut |line| self.print(output, prefix, &line))?;
        }
        Ok(())
    }

    fn print(&self, output: &mut Output, prefix: &str, line: &Line<'_>) {
        if line.time < self.since {
            return;
        }
        let mut text = Vec::with_capacity(line.bytes.len() + prefix.len() + 40);
        text.extend_from_slice(prefix.as_bytes());
        if self.timestamps {
            text.extend_from_slice(line.time.rfc3339().as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.bytes);
        text.push(b'\n');
        output.write(&text);
    }
}

/// The time from which on lines are wanted.
fn since(args: &LogsArgs) -> anyhow::Result<Wall> {
    let nanoseconds = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    if let Some(text) = &args.since_time {
        let time = humantime::parse_rfc3339(text).with_context(|| {
            format!("--since-time {text:?} is no time like 2026-11-24T12:00:00Z")
        })?;
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return Ok(Wall(nanoseconds(since)));
    }
    let Some(text) = &args.since else { return Ok(Wall(0)) };
    let since = humantime::parse_duration(text)
        .with_context(|| format!("--since {text:?} is no duration like 5s, 2m or 3h"))?;
    Ok(Wall(runtime::clock::now().wall.0.saturating_sub(nanoseconds(since))))
}

/// The names of all containers, inits first; of a pod that is gone, those that have logs.
fn all_containers(object: Option<&Value>, logs: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let Some(object) = object else { return names_in(logs) };
    let of = |list: &str| object["spec"][list].as_array().cloned().unwrap_or_default();
    let all = of("initContainers").into_iter().chain(of("containers"));
    Ok(all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect())
}

/// The pod's log directory and, if it lives, its object.
fn find(layout: &Layout, args: &LogsArgs) -> anyhow::Result<(PathBuf, Option<Value>)> {
    match find_pod(layout, &args.namespace, &args.pod) {
        Ok(pod) => {
            let object = Connection::open(layout, &pod).and_then(|mut c| c.object()).ok();
            Ok((layout.pod_logs(&pod.namespace, &pod.name, &pod.uid), object))
        }
        Err(not_found) => {
            // One that has ended, and that the daemon still has.
            let kept = Api::find(layout)?
                .map(|api| api.get(Kind::Pod, &args.namespace, &args.pod))
                .transpose()?
                .flatten();
            if let Some(object) = kept {
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                let dir = layout.pod_logs(&args.namespace, &args.pod, uid);
                return Ok((dir, Some(object)));
            }
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

/// The container that is meant, also of a pod that is gone.
fn container(
    args: &LogsArgs,
    object: Option<&Value>,
    logs: &std::path::Path,
) -> anyhow::Result<String> {
    if let Some(object) = object {
        return default_container(&args.pod, args.container.as_deref(), object);
    }
    let all = names_in(logs)?;
    if let Some(name) = &args.container {
        let had = all.join(", ");
        anyhow::ensure!(
            all.contains(name),
            "pod {} had no container {name:?}; it had: {had}",
            args.pod
        );
        return Ok(name.clone());
    }
    match all.as_slice() {
        [] => bail!("pod {} has no logs", args.pod),
        [one] => Ok(one.clone()),
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
