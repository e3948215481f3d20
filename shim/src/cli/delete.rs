//! `podshim delete KIND NAME`: a pod by its shim, whatever the daemon has by the daemon.

use anyhow::{Context, bail};
use bundles::layout::Layout;
use serde_json::Value;

use super::api::Api;
use super::client::has_name;
use super::terminal::{Output, complain};
use super::{Connection, DeleteArgs, FAILED, PodRef, daemon, find_pod, one_line};
use crate::daemon::store::Kind;
use crate::protocol::{Reply, Request};

/// Asks each to end and waits until it is gone.
pub fn delete(layout: &Layout, args: &DeleteArgs) -> anyhow::Result<i32> {
    let (word, first) = match args.kind.split_once('/') {
        Some((word, name)) => (word, Some(name.to_owned())),
        None => (args.kind.as_str(), None),
    };
    let kind = daemon::kind_of(word).with_context(|| {
        format!("podshim has no {word:?}: it has pods, jobs, deployments, configmaps and secrets")
    })?;
    let rest = args.names.iter().map(|name| match name.split_once('/') {
        None => Ok(name.clone()),
        Some((word, name)) if daemon::kind_of(word) == Some(kind) => Ok(name.to_owned()),
        Some(_) => bail!("{name:?} is not of the kind of what is before it"),
    });
    let names = first.into_iter().map(Ok).chain(rest).collect::<anyhow::Result<Vec<String>>>()?;
    anyhow::ensure!(!names.is_empty(), "which {word}? write `delete {word} NAME`");
    let api = match kind {
        Kind::Pod => Api::find(layout)?,
        _ => Some(Api::of(layout)?),
    };
    let mut code = 0;
    let mut asked = Vec::new();
    for name in &names {
        match ask(layout, api.as_ref(), kind, args, name) {
            Ok(going) => asked.push((name, going)),
            Err(e) => {
                complain(&one_line(&e));
                code = FAILED;
            }
        }
    }
    let mut output = Output::default();
    for (name, going) in asked {
        match going {
            _ if args.no_wait => {}
            Going::Shims(pod, connection) => until_gone(layout, &pod, connection)?,
            Going::Daemons(object) => {
                daemon::until_gone(&Api::of(layout)?, kind, &object)?;
            }
        }
        output.line(format_args!("{} {name:?} deleted", singular(kind)));
    }
    output.end()?;
    Ok(code)
}

fn singular(kind: Kind) -> &'static str {
    kind.plural().trim_end_matches('s')
}

/// What was asked to end.
enum Going {
    Shims(PodRef, Connection),
    Daemons(Value),
}

fn ask(
    layout: &Layout,
    api: Option<&Api>,
    kind: Kind,
    args: &DeleteArgs,
    name: &str,
) -> anyhow::Result<Going> {
    if let Some(api) = api
        && let Some(object) = daemon::ask_to_go(api, kind, name, args)?
    {
        return Ok(Going::Daemons(object));
    }
    if kind != Kind::Pod {
        bail!("{} {name:?} not found in namespace {:?}", kind.plural(), args.namespace);
    }
    let (pod, connection) = ask_shim(layout, args, name)?;
    Ok(Going::Shims(pod, connection))
}

fn ask_shim(
    layout: &Layout,
    args: &DeleteArgs,
    name: &str,
) -> anyhow::Result<(PodRef, Connection)> {
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
