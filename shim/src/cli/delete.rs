//! `podshim delete pod NAME`.

use bundles::layout::Layout;

use super::client::has_name;
use super::terminal::{Output, complain};
use super::{Connection, DeleteArgs, FAILED, PodRef, find_pod, one_line, pods_named};
use crate::protocol::{Reply, Request};

/// Asks each pod to end and waits until it is gone.
pub fn delete(layout: &Layout, args: &DeleteArgs) -> anyhow::Result<i32> {
    let names = pods_named(&args.kind, &args.names, "deleted")?;
    anyhow::ensure!(!names.is_empty(), "which pod? write `delete pod NAME`");
    let mut code = 0;
    let mut waiting = Vec::new();
    for name in &names {
        match ask(layout, args, name) {
            Ok(asked) => waiting.push((name, asked)),
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    let mut output = Output::default();
    for (name, (pod, connection)) in waiting {
        if !args.no_wait {
            until_gone(layout, &pod, connection)?;
        }
        output.line(format_args!("pod {name:?} deleted"));
    }
    output.end()?;
    Ok(code)
}

fn ask(layout: &Layout, args: &DeleteArgs, name: &str) -> anyhow::Result<(PodRef, Connection)> {
    let pod = find_pod(layout, &args.namespace, name)?;
    let mut connection = Connection::open(layout, &pod)?;
    connection.ask(&Request::Delete { grace_s: args.grace_period })?;
    Ok((pod, connection))
}

/// The end of the connection is the end of the shim, which comes last of all, unless it has died.
fn until_gone(layout: &Layout, pod: &PodRef, connection: Connection) -> anyhow::Result<()> {
    let mut connection = connection.patient()?;
    loop {
        // What cannot be asked any more has ended.
        let mut next = connection.send(&Request::Watch).and_then(|()| connection.receive());
        while let Ok(Some(reply)) = next {
            if matches!(reply, Reply::Over { .. }) {
                return Ok(());
            }
            next = connection.receive();
        }
        if !has_name(layout, pod) {
            return Ok(());
        }
        match Connection::open(layout, pod) {
            Ok(again) => connection = again.patient()?,
            Err(_) if !has_name(layout, pod) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
