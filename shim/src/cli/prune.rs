//! `podshim prune`: removes what dead instances of this root left behind, and nothing that it
//! cannot prove to be theirs.

use std::fs;
use std::path::Path;

use anyhow::Context;
use bundles::layout::Layout;

use super::PruneArgs;
use super::terminal::Output;
use crate::pod::network;
use crate::pod::scrap::{self, Verdict};
use crate::run::objects;

/// Scraps pods whose shim and owner are dead, removes leftovers and the logs of pods that are gone.
/// With `--all`, everything else of podshim's goes too.
pub fn prune(layout: &Layout, args: &PruneArgs) -> anyhow::Result<i32> {
    let mut output = Output::default();
    for uid in names_in(&layout.pods())? {
        match scrap::if_dead(layout, &uid)? {
            Verdict::Scrapped(name) => output.line(format_args!("removed pod {name} ({uid})")),
            Verdict::Alive => {}
        }
    }
    for name in objects::prune(layout)? {
        output.line(format_args!("removed {name}"));
    }
    for uid in scrap::leftovers(layout)? {
        output.line(format_args!("removed what was left of pod {uid}"));
    }
    for name in prune_logs(layout)? {
        output.line(format_args!("removed the logs of {name}"));
    }
    for uid in network::of(layout, None)?.prune()? {
        output.line(format_args!("freed the address of pod {uid}"));
    }
    let lock = runtime::state_dir::lock(layout)?;
    runtime::state_dir::leave_if_last(layout, &lock)?;
    if args.all {
        remove_all(layout, &mut output)?;
    }
    output.end()?;
    Ok(0)
}

/// What a host has of podshim when no pod lives. Profiles that the user put below the root stay.
fn remove_all(layout: &Layout, output: &mut Output) -> anyhow::Result<()> {
    let living = names_in(&layout.pods())?;
    if !living.is_empty() {
        anyhow::bail!(
            "{} pods live in {}: end them first (`podshim delete pod NAME`)",
            living.len(),
            layout.state.display()
        );
    }
    if layout.network.exists() {
        network::of(layout, None)?.remove_all()?;
        output.line("removed the network of pods");
    }
    for (path, what) in [
        (layout.images(), "all images"),
        (layout.root.join("pods"), "what pods kept"),
        (layout.logs.clone(), "all logs"),
    ] {
        match fs::remove_dir_all(&path) {
            Ok(()) => output.line(format_args!("removed {what}")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    let _ = fs::remove_file(layout.lock());
    // What is not ours keeps its directory.
    let _ = fs::remove_dir(&layout.root);
    let _ = fs::remove_dir(&layout.state);
    if let Some(of_host) = layout.network.parent() {
        let _ = fs::remove_dir(of_host);
    }
    Ok(())
}

/// `<namespace>_<name>_<uid>` whose pod is not alive.
fn prune_logs(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in names_in(&layout.logs)? {
        let Some((_, uid)) = name.rsplit_once('_') else { continue };
        if scrap::is_uid(uid) && !layout.pod(uid).dir.exists() {
            let path = layout.logs.join(&name);
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The names in a directory; none if it does not exist.
pub fn names_in(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
