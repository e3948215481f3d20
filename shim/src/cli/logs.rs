//! `podshim logs POD [-c NAME]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use bundles::layout::Layout;
use runtime::log::reader::{Follower, Line, Start};
use serde_json::Value;

use super::prune::names_in;
use super::terminal::Output;
use super::{Connection, LogsArgs, default_container, find_pod};

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
    let mut output = Output::default();
    let timestamps = args.timestamps;
    if args.previous {
        follower.read_run(&mut |line| print(&mut output, &line, timestamps))?;
    } else {
        follower.poll(&mut |line| print(&mut output, &line, timestamps))?;
        while args.follow
            && !output.is_broken()
            && find_pod(layout, &args.namespace, &args.pod).is_ok()
        {
            std::thread::sleep(Duration::from_millis(50));
            follower.poll(&mut |line| print(&mut output, &line, timestamps))?;
        }
        follower.poll(&mut |line| print(&mut output, &line, timestamps))?;
        follower.finish(&mut |line| print(&mut output, &line, timestamps));
    }
    output.end()?;
    Ok(0)
}

fn print(output: &mut Output, line: &Line<'_>, timestamps: bool) {
    let mut text = Vec::with_capacity(line.bytes.len() + 40);
    if timestamps {
        text.extend_from_slice(line.time.rfc3339().as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(line.bytes);
    text.push(b'\n');
    output.write(&text);
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

/// The container that is meant, also of a pod that is gone.
fn container(
    args: &LogsArgs,
    object: Option<&Value>,
    logs: &std::path::Path,
) -> anyhow::Result<String> {
    if let Some(object) = object {
        return default_container(&args.pod, args.container.as_deref(), object);
    }
    if let Some(name) = &args.container {
        return Ok(name.clone());
    }
    match names_in(logs)?.as_slice() {
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
