//! `podshim delete pod NAME`.

use bundles::layout::Layout;

use super::terminal::{Output, complain};
use super::{Connection, DeleteArgs, FAILED, find_pod, one_line, pods_named};
use crate::protocol::{Reply, Request};

/// Asks each pod to end and waits until it is gone.
pub fn delete(layout: &Layout, args: &DeleteArgs) -> anyhow::Result<i32> {
    let names = pods_named(&args.kind, &args.names, "deleted")?;
    anyhow::ensure!(!names.is_empty(), "which pod? write `delete pod NAME`");
    let mut code = 0;
    let mut waiting = Vec::new();
    for name in &names {
        match ask(layout, args, name) {
            Ok(connection) => waiting.push((name, connection)),
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    let mut output = Output::default();
    for (name, connection) in waiting {
        if !args.no_wait {
            until_gone(connection)?;
        }
        output.line(format_args!("pod {name:?} deleted"));
    }
    output.end()?;
    Ok(code)
}

fn ask(layout: &Layout, args: &DeleteArgs, name: &str) -> anyhow::Result<Connection> {
    let pod = find_pod(layout, &args.namespace, name)?;
    let mut connection = Connection::open(layout, &pod)?;
    connection.ask(&Request::Delete { grace_s: args.grace_period })?;
    Ok(connection)
}

/// The end of the connection is the end of the shim, which comes last of all.
fn until_gone(connection: Connection) -> anyhow::Result<()> {
    let mut connection = connection.patient()?;
    if connection.send(&Request::Watch).is_err() {
        // It has ended already.
        return Ok(());
    }
    while let Some(reply) = connection.receive()? {
        if matches!(reply, Reply::Over { .. }) {
            break;
        }
    }
    Ok(())
}
