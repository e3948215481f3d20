//! `podshim attach`: the output of a container from now on, as it is.

use std::io;
use std::time::Duration;

use anyhow::Context;
use bundles::layout::Layout;
use runtime::log::Stream;
use runtime::log::reader::{Follower, Line, Start};

use super::{AttachArgs, Connection, default_container, find_pod};

/// Follows it until the pod is gone or nobody reads.
pub fn attach(layout: &Layout, args: &AttachArgs) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let object = Connection::open(layout, &pod)?.object()?;
    let container = default_container(&args.pod, args.container.as_deref(), &object)?;
    let dir = layout.pod_logs(&pod.namespace, &pod.name, &pod.uid).join(container);
    let mut follower = Follower::new(&dir, Start::Newest).tail(0);
    let mut broken = None;
    let mut show = |line: Line<'_>| {
        if broken.is_none() {
            broken = print(&line).err();
        }
    };
    follower.poll(&mut show)?;
    while find_pod(layout, &args.namespace, &args.pod).is_ok_and(|now| now.uid == pod.uid) {
        std::thread::sleep(Duration::from_millis(20));
        follower.poll(&mut show)?;
    }
    follower.poll(&mut show)?;
    follower.finish(&mut show);
    match broken {
        Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(e).context("cannot write the output")
        }
        _ => Ok(0),
    }
}

/// Each stream to its own.
fn print(line: &Line<'_>) -> io::Result<()> {
    use io::Write;
    let mut text = line.bytes.to_vec();
    if line.ended {
        text.push(b'\n');
    }
    match line.stream {
        Stream::Stdout => io::stdout().lock().write_all(&text),
        Stream::Stderr => io::stderr().lock().write_all(&text),
    }
}
