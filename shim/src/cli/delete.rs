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
            Going::Gone => {}
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
    /// It ended by itself while it was asked.
    Gone,
}

/// How many shims of a pod may die of those that are asked.
const SHIMS_MAX: u32 = 3;

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
    ask_shim(layout, &find_pod(layout, &args.namespace, name)?, args.grace_period)
}

fn ask_shim(layout: &Layout, pod: &PodRef, grace_s: Option<u32>) -> anyhow::Result<Going> {
    let request = Request::Delete { grace_s };
    for _ in 0..SHIMS_MAX {
        let asked = Connection::open(layout, pod).and_then(|mut connection| {
            // What cannot be written was not read either.
            let answer = connection.send(&request).map_or(Ok(None), |()| connection.receive())?;
            Ok((connection, answer))
        });
        match asked {
            Ok((_, Some(Reply::Error(text)))) => bail!(text),
            Ok((connection, Some(_))) => return Ok(Going::Shims(pod.clone(), connection)),
            _ if !has_name(layout, pod) => return Ok(Going::Gone),
            // The shim has died, and there will be another one.
            Ok((_, None)) => {}
            Err(e) => return Err(e),
        }
    }
    bail!("pod {}: its shim dies each time it is asked", pod.name)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;

    use super::*;

    fn layout(dir: &Path) -> Layout {
        let at = |name: &str| dir.join(name);
        Layout { root: at("root"), state: at("state"), logs: at("logs"), network: at("network") }
    }

    /// What `delete` finds, where the shims that are asked first say nothing before they end, and their pod
    /// with the last of them if it `ends`.
    fn asked(silent: u32, ends: bool) -> anyhow::Result<Going> {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let [namespace, name, uid] = ["default", "p", "some-uid"].map(str::to_owned);
        let pod = PodRef { namespace, name, uid };
        let link = layout.name("default", "p");
        fs::create_dir_all(layout.names()).unwrap();
        symlink(&pod.uid, &link).unwrap();
        let socket = layout.pod(&pod.uid).socket();
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=SHIMS_MAX {
                    let (stream, _) = listener.accept().unwrap();
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    assert!(line.contains("elete"), "{line}");
                    if number > silent {
                        let done = serde_json::to_string(&Reply::Done).unwrap();
                        return (&stream).write_all((done + "\n").as_bytes()).unwrap();
                    }
                    if ends && number == silent {
                        return fs::remove_file(&link).unwrap();
                    }
                }
            });
            ask_shim(&layout, &pod, None)
        })
    }

    #[test]
    fn a_pod_that_ends_while_it_is_asked_is_gone_and_a_shim_that_dies_is_followed_by_another() {
        assert!(matches!(asked(0, false), Ok(Going::Shims(..))));
        assert!(matches!(asked(1, true), Ok(Going::Gone)));
        assert!(matches!(asked(2, true), Ok(Going::Gone)));
        assert!(matches!(asked(2, false), Ok(Going::Shims(..))));
        let error = asked(SHIMS_MAX, false).err().unwrap();
        assert!(error.to_string().contains("dies each time"), "{error}");
    }
}
