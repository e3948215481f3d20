//! `podshim restart POD -c NAME`.

use bundles::layout::Layout;

use super::{Connection, RestartArgs, find_pod};
use crate::protocol::Request;

/// Asks a pod to restart one of its containers.
pub fn restart(layout: &Layout, args: &RestartArgs) -> anyhow::Result<i32> {
    let pod = find_pod(layout, &args.namespace, &args.pod)?;
    let mut connection = Connection::open(layout, &pod)?;
    connection.ask(&Request::Restart { container: args.container.clone() })?;
    println!("container {:?} of pod {:?} restarts", args.container, args.pod);
    Ok(0)
}
