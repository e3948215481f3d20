//! `podshim prune`: removes what dead instances of this root left behind, and nothing that it
//! cannot prove to be theirs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use bundles::image::Store;
use bundles::layout::Layout;

use super::terminal::{Output, complain};
use super::{FAILED, PruneArgs, one_line};
use crate::pod::network;
use crate::pod::sandbox::remove_tree;
use crate::pod::scrap::{self, Stays, Verdict};
use crate::run::objects;

/// Scraps pods whose shim and owner are dead, removes leftovers and the logs of pods that are gone.
/// With `--all`, everything else of podshim's goes too. What fails is told and keeps nothing else
/// from being removed.
pub fn prune(layout: &Layout, args: &PruneArgs) -> anyhow::Result<i32> {
    if args.all {
        no_daemon(layout)?;
    }
    let mut pruning = Pruning::default();
    for uid in names_in(&layout.pods())? {
        pruning.step(scrap::if_dead(layout, &uid, args.all), |verdict| match verdict {
            Verdict::Scrapped(name) => Some(format!("removed pod {name} ({uid})")),
            Verdict::Alive => None,
        });
    }
    for name in objects::prune(layout)? {
        pruning.output.line(format_args!("removed {name}"));
    }
    for uid in names_in(&layout.all_kept())? {
        // A daemon goes on with it.
        if !args.all && layout.pod(&uid).kept_journal().exists() {
            continue;
        }
        pruning.step(scrap::leftover(layout, &uid, Stays::Nothing), |found| {
            found.then(|| format!("removed what was left of pod {uid}"))
        });
    }
    let logs = if args.keep_logs { Vec::new() } else { names_in(&layout.log_records())? };
    for uid in logs {
        pruning.step(remove_logs(layout, &uid), |removed| {
            removed.map(|name| format!("removed the logs of {name}"))
        });
    }
    let freed = network::of(layout, None).and_then(|network| Ok(network.prune()?));
    for uid in pruning.done(freed).unwrap_or_default() {
        pruning.output.line(format_args!("freed the address of pod {uid}"));
    }
    let scopes = runtime::cgroup::detect().map_err(anyhow::Error::from);
    let scopes = scopes.and_then(|cgroups| Ok(cgroups.remove_empty_scopes()?));
    for uid in pruning.done(scopes).unwrap_or_default() {
        pruning.output.line(format_args!("removed the empty scope of pod {uid}"));
    }
    if layout.state.exists() {
        let lock = runtime::state_dir::lock(layout)?;
        for uid in pruning.done(scrap::unpin_nobodys(layout, &lock)).unwrap_or_default() {
            pruning.output.line(format_args!("removed the namespaces of pod {uid}"));
        }
        runtime::state_dir::leave_if_last(layout, &lock)?;
    }
    if args.all {
        remove_all(layout, &mut pruning)?;
    }
    pruning.output.end()?;
    Ok(if pruning.failed { FAILED } else { 0 })
}

#[derive(Default)]
struct Pruning {
    output: Output,
    failed: bool,
}

impl Pruning {
    /// Complains about what failed.
    fn done<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result
            .map_err(|e| {
                complain(&one_line(&e));
                self.failed = true;
            })
            .ok()
    }

    /// Says what was done, if anything was.
    fn step<T>(&mut self, result: anyhow::Result<T>, say: impl FnOnce(T) -> Option<String>) {
        if let Some(line) = self.done(result).and_then(say) {
            self.output.line(line);
        }
    }
}

/// What a daemon has and goes on with is not to be removed below it.
fn no_daemon(layout: &Layout) -> anyhow::Result<()> {
    // systemd may listen for one that does not run yet.
    let socket = layout.daemon_socket();
    if scrap::is_held(&layout.daemon_lock())? || UnixStream::connect(&socket).is_ok() {
        anyhow::bail!(
            "a daemon of this root runs, at {}: stop it first (`systemctl stop podshim.socket \
             podshim.service` if it is systemd's)",
            socket.display()
        );
    }
    Ok(())
}

/// What a host has of podshim when no pod lives. Only what podshim made, whatever directories it was
/// told are its own: profiles that the user put below the root stay, as does anything else.
fn remove_all(layout: &Layout, pruning: &mut Pruning) -> anyhow::Result<()> {
    let kept = names_in(&layout.all_kept())?.into_iter().filter(|name| scrap::is_uid(name));
    let living: BTreeSet<String> = names_in(&layout.pods())?.into_iter().chain(kept).collect();
    if !living.is_empty() {
        anyhow::bail!(
            "{} in {} or could not be removed: end what lives first (`podshim delete pod NAME`)",
            if living.len() == 1 {
                "1 pod lives".into()
            } else {
                format!("{} pods live", living.len())
            },
            layout.state.display()
        );
    }
    // One may have begun meanwhile.
    no_daemon(layout)?;
    pruning.done(crate::daemon::store::Store::remove_all(layout));
    if layout.network.exists() {
        let removed = network::of(layout, None).and_then(|network| Ok(network.remove_all()?));
        pruning.step(removed, |()| Some("removed the network of pods".into()));
    }
    let slices = runtime::cgroup::detect().map_err(anyhow::Error::from);
    let left = slices.and_then(|cgroups| Ok(cgroups.leave_slices()?));
    pruning.done(left);
    let images = Store::remove(&layout.images()).map_err(anyhow::Error::from);
    pruning.step(images, |existed| existed.then(|| "removed all images".into()));
    let _ = fs::remove_file(layout.lock());
    let mut ours = vec![layout.all_kept(), layout.log_records(), layout.logs.clone()];
    ours.extend([layout.root.clone(), layout.state.clone()]);
    ours.extend(layout.network.parent().map(Path::to_owned));
    // The default one is in a directory of ours.
    ours.extend(layout.logs.parent().filter(|dir| dir.ends_with("podshim")).map(Path::to_owned));
    for dir in ours {
        // What is not ours keeps its directory.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// Removes the logs of a pod of this root, unless it is there, and gives the name of their directory.
fn remove_logs(layout: &Layout, uid: &str) -> anyhow::Result<Option<String>> {
    let dir = layout.pod(uid);
    if !scrap::is_uid(uid) || dir.dir.exists() || dir.kept.exists() {
        return Ok(None);
    }
    let record = layout.log_records().join(uid);
    let logs = fs::read_link(&record)
        .with_context(|| format!("cannot read the link {}", record.display()))?;
    let name = logs.file_name().unwrap_or_default().to_string_lossy().into_owned();
    anyhow::ensure!(
        name.rsplit_once('_').is_some_and(|(_, of)| of == uid),
        "{} leads to {}, which is no log directory of this pod: remove the link",
        record.display(),
        logs.display()
    );
    remove_tree(&logs)?;
    fs::remove_file(&record).with_context(|| format!("cannot remove {}", record.display()))?;
    Ok(Some(name))
}

/// The names in a directory; none if it does not exist.
pub fn names_in(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.extend(entry.file_name().into_string()),
            // It has been removed meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            // What cannot be read is not to be taken for what is not there.
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", dir.display())),
        }
    }
    names.sort();
    Ok(names)
}
