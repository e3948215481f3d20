//! `podshim restart POD -c NAME`, `podshim stop`, `podshim start`: one container of a pod.

use bundles::layout::Layout;

use super::terminal::Output;
use super::{Connection, OneContainerArgs, find_pod};
use crate::protocol::Request;

/// Asks a pod to restart one of its containers.
pub fn restart(layout: &Layout, args: &OneContainerArgs) -> anyhow::Result<i32> {
    ask(layout, args, |container| Request::Restart { container }, "restarts")
}

/// Asks a pod to stop one of its sidecars.
pub fn stop(layout: &Layout, args: &OneContainerArgs) -> anyhow::Result<i32> {
    ask(layout, args, |container| Request::Stop { container }, "stops, and stays down")
}

/// Asks a pod to start a sidecar that was stopped.
pub fn start(layout: &Layout, args: &OneContainerArgs) -> anyhow::Result<i32> {
    ask(layout, args, |container| Request::Start { container }, "starts")
}

fn ask(
    layout: &Layout,
    args: &OneContainerArgs,
    request: impl FnOnce(String) -> Request,
    what: &str,
) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let mut connection = Connection::open(layout, &pod)?;
    connection.ask(&request(args.container.clone()))?;
    let mut output = Output::default();
    output.line(format_args!("container {:?} of pod {:?} {what}", args.container, args.pod));
    output.end()?;
    Ok(0)
}
