//! Removing a pod whose shim is dead, or what a boot has left of it.
//!
//! Never next to a living shim: the pod's lock comes first. Never from inside: everything is done
//! from the host's mount namespace, and what the pod mounted goes with its namespace.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, bail};
use bundles::layout::{Layout, PodDir};
use runtime::cgroup::Members;
use runtime::state_dir::{self, RootLock};
use rustix::fs::{FlockOperation, flock};

use super::failpoint;
use super::file::PodFile;
use super::network;
use super::sandbox::remove_tree;

/// What became of a pod that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its shim or its owner lives.
    Alive,
    /// It is removed; this was its name.
    Scrapped(String),
}

/// Removes a pod if its shim is dead and so is the process that owns it. A pod of the daemon's is left for
/// it to take on, unless `all` are to go.
pub fn if_dead(layout: &Layout, uid: &str, all: bool) -> anyhow::Result<Verdict> {
    let dir = layout.pod(uid);
    let file = PodFile::read(&dir.spec()).ok();
    // Without its file nobody could have started a shim.
    let is_daemons = file.as_ref().is_some_and(|file| file.owner.is_none());
    if (is_daemons && !all) || file.as_ref().is_some_and(PodFile::has_owner) {
        return Ok(Verdict::Alive);
    }
    let Some(lock) = lock(&dir.lock())? else { return Ok(Verdict::Alive) };
    let name = file.map(|f| f.pod.metadata.name.unwrap_or_default()).unwrap_or_default();
    remove(layout, uid, lock, Stays::Nothing)?;
    Ok(Verdict::Scrapped(name))
}

/// What is to stay of a pod whose live directory is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Nothing.
    Nothing,
    /// What it needs to be made again: its journal and its volumes on disk.
    Kept,
}

/// Removes a pod of ours whose shim has died under us, or was never born.
pub fn own(layout: &Layout, uid: &str, stays: Stays) -> anyhow::Result<()> {
    let Some(lock) = lock(&layout.pod(uid).lock())? else {
        bail!("the shim of pod {uid} lives and does not answer");
    };
    remove(layout, uid, lock, stays)
}

/// Whether a shim or a keeper has the pod.
pub fn is_held(path: &Path) -> anyhow::Result<bool> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// `None` if somebody holds it. A pod that never had a shim has no lock file yet: it gets one.
fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn remove(layout: &Layout, uid: &str, lock: File, stays: Stays) -> anyhow::Result<()> {
    remove_cgroups(uid)?;
    let dir = layout.pod(uid);
    runtime::sandbox::unpin(&dir.pin)?;
    network::of(layout, None)?.detach(uid)?;
    let root_lock = state_dir::lock(layout)?;
    disown(&dir)?;
    remove_names(layout, uid)?;
    remove_kept(&dir, stays)?;
    drop(lock);
    remove_tree(&dir.dir)?;
    unpin_nobodys(layout, &root_lock)?;
    state_dir::leave_if_last(layout, &root_lock)?;
    Ok(())
}

/// Removes pins without a pod, which keep namespaces and the state directory: the kernel has refused to
/// unmount one before. Gives the uids.
pub fn unpin_nobodys(layout: &Layout, _held: &RootLock) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for uid in crate::cli::names_in(&layout.pins())? {
        let dir = layout.pod(&uid);
        // Whoever makes a pin has made the directory before, and removes it after.
        if is_uid(&uid) && !dir.dir.exists() {
            runtime::sandbox::unpin(&dir.pin)?;
            removed.push(uid);
        }
    }
    Ok(removed)
}

fn remove_cgroups(uid: &str) -> anyhow::Result<()> {
    let cgroups = runtime::cgroup::detect()?;
    for pod in cgroups.all_pods()?.into_iter().filter(|pod| pod.uid == uid) {
        cgroups.kill(&pod.cgroup, Members::Pod)?;
        cgroups.remove_pod(&pod.cgroup)?;
    }
    Ok(cgroups.remove_scope(uid)?)
}

fn remove_names(layout: &Layout, uid: &str) -> anyhow::Result<()> {
    for name in crate::cli::names_in(&layout.names())? {
        let link = layout.names().join(name);
        if fs::read_link(&link).is_ok_and(|to| to == Path::new(uid)) {
            fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
        }
    }
    Ok(())
}

/// Takes back what was made for a pod that has never had a shim, however far that came.
pub fn unmade(layout: &Layout, uid: &str, stays: Stays) -> anyhow::Result<()> {
    let dir = layout.pod(uid);
    if dir.dir.exists() {
        return own(layout, uid, stays);
    }
    let held = state_dir::lock(layout)?;
    remove_names(layout, uid)?;
    remove_kept(&dir, stays)?;
    state_dir::leave_if_last(layout, &held)?;
    Ok(())
}

/// Removes what is left of a pod of this root that has no live directory any more: a state directory
/// that was emptied (a reboot, or by hand), or a removal that was cut short. Survivors found by their
/// control groups are killed first. Says whether there was something.
pub fn leftover(layout: &Layout, uid: &str, stays: Stays) -> anyhow::Result<bool> {
    let dir = layout.pod(uid);
    // Mostly there is nothing, and the lock is what a thousand ending shims wait for.
    if !dir.kept.exists() {
        return Ok(false);
    }
    // Under the root's lock nobody is about to make this pod.
    let _held = state_dir::lock(layout)?;
    // Through the link too: it may live below a state directory that we were not told of.
    if !is_uid(uid) || !dir.kept.exists() || dir.dir.exists() || dir.live().exists() {
        return Ok(false);
    }
    remove_cgroups(uid)?;
    runtime::sandbox::unpin(&dir.pin)?;
    network::of(layout, None)?.detach(uid)?;
    remove_names(layout, uid)?;
    remove_kept(&dir, stays)?;
    Ok(true)
}

/// Removes a pod's directories and its name. `held` is the pod's lock; the root's is held too.
pub fn remove_directories(
    layout: &Layout,
    pod: &plan::Pod,
    held: Option<File>,
    stays: Stays,
) -> anyhow::Result<()> {
    let dir = layout.pod(&pod.uid);
    disown(&dir)?;
    failpoint::at(layout, "finish:disowned");
    remove_kept(&dir, stays)?;
    failpoint::at(layout, "finish:forgotten");
    remove_name(layout, pod);
    drop(held);
    remove_tree(&dir.dir)
}

/// From here on no shim can begin: one that found the pod's file and no journal would run the pod once more.
fn disown(dir: &PodDir) -> anyhow::Result<()> {
    match fs::remove_file(dir.spec()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.spec().display()))
        }
        _ => Ok(()),
    }
}

/// The link is removed only if it is this pod's.
fn remove_name(layout: &Layout, pod: &plan::Pod) {
    let link = layout.name(&pod.namespace, &pod.name);
    if fs::read_link(&link).is_ok_and(|uid| uid == Path::new(&pod.uid)) {
        let _ = fs::remove_file(&link);
    }
}

fn remove_kept(dir: &PodDir, stays: Stays) -> anyhow::Result<()> {
    if stays == Stays::Nothing {
        return remove_tree(&dir.kept);
    }
    let stays = [dir.kept_journal(), dir.kept_volumes()];
    for name in crate::cli::names_in(&dir.kept)? {
        let path = dir.kept.join(name);
        if !stays.contains(&path) {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Whether a name has the form of a uid: it becomes a path below which things are removed.
pub fn is_uid(name: &str) -> bool {
    name.len() == 36
        && name.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uids_are_taken_for_uids() {
        assert!(is_uid("0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a77"));
        for other in [
            "",
            "..",
            "0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a7/",
            "0b0dd9b53c5e4e0b8f4e6a3c8f1f2a770000",
        ] {
            assert!(!is_uid(other), "{other}");
        }
    }
}
