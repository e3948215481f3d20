//! `podshim upgrade POD|--all`: pods that live go on with this binary.

use std::os::fd::AsFd;

use anyhow::Context;
use bundles::layout::Layout;

use super::terminal::{Output, complain};
use super::{Connection, FAILED, PodRef, UpgradeArgs, find_pod, pods};
use crate::protocol::{Reply, Request};

/// Upgrades each pod, and goes on with the others if one stays what it was.
pub fn upgrade(layout: &Layout, args: &UpgradeArgs) -> anyhow::Result<i32> {
    let wanted = if args.all {
        pods(layout)?
    } else {
        let named = args.pods.iter().map(|name| find_pod(layout, &args.namespace, name));
        named.collect::<anyhow::Result<Vec<_>>>()?
    };
    let binary = runtime::seal::own_binary(&layout.root)
        .context("cannot make a sealed copy of podshim (is vm.memfd_noexec 2?)")?;
    let mut output = Output::default();
    let mut code = 0;
    for pod in wanted {
        match one(layout, &pod, &binary) {
            Ok(()) => output.line(format_args!("pod {:?} upgraded", pod.name)),
            Err(e) => {
                complain(&format!("pod {:?}: {e:#}", pod.name));
                code = FAILED;
            }
        }
    }
    output.end()?;
    Ok(code)
}

fn one(layout: &Layout, pod: &PodRef, binary: impl AsFd) -> anyhow::Result<()> {
    let before = upgrades(layout, pod)?;
    // It waits until nobody creates a container, which may take a while.
    let mut connection = Connection::open(layout, pod)?.patient()?;
    connection.send_with(&Request::Upgrade, &[binary.as_fd()])?;
    match connection.receive()? {
        None => {}
        Some(Reply::Error(text)) => anyhow::bail!(text),
        Some(other) => anyhow::bail!("unexpected answer: {other:?}"),
    }
    let after = upgrades(layout, pod)?;
    anyhow::ensure!(after > before, "it did not go on as this version; `podshim events` says more");
    Ok(())
}

/// How often a pod has been upgraded.
fn upgrades(layout: &Layout, pod: &PodRef) -> anyhow::Result<u32> {
    match Connection::open(layout, pod)?.ask(&Request::Events)? {
        Reply::Events(events) => {
            Ok(events.iter().filter(|e| e.reason == "Upgraded").map(|e| e.count).sum())
        }
        other => anyhow::bail!("unexpected answer: {other:?}"),
    }
}
