//! `podshim restart POD -c NAME`.

use bundles::layout::Layout;

use super::terminal::Output;
use super::{Connection, RestartArgs, find_pod};
use crate::protocol::Request;

/// Asks a pod to restart one of its containers.
pub fn restart(layout: &Layout, args: &RestartArgs) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let mut connection = Connection::open(layout, &pod)?;
    connection.ask(&Request::Restart { container: args.container.clone() })?;
    let mut output = Output::default();
    output.line(format_args!("container {:?} of pod {:?} restarts", args.container, args.pod));
    output.end()?;
    Ok(0)
}
