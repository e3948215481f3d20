//! cgroup v2: one tree, in which each level hands controllers down to the next.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{CgroupError, MAKE, Result, files};
use super::{CgroupValues, limits};
use crate::devices::{self, DeviceRule, EVERY_DEVICE};

/// The file that moves a process.
pub(super) const PROCS: &str = "cgroup.procs";

/// The controllers that containers get, where the kernel has them.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "io", "memory", "pids"];

/// The unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unified {
    pub(super) root: PathBuf,
}

impl Unified {
    pub(super) fn controllers(&self) -> Result<BTreeSet<String>> {
        names(&self.root.join("cgroup.controllers"))
    }

    pub(super) fn has_memory(&self, cgroup: &Path) -> Result<bool> {
        Ok(names(&cgroup.join("cgroup.controllers"))?.contains("memory"))
    }

    /// From the top down: each level takes what the level above has just handed down, and the pod
    /// hands it to its containers. So no process may ever be in the pod's own cgroup ("no internal
    /// processes"); creators live in leaves below `make`, which hands nothing down.
    pub(super) fn make_pod(&self, pod: &str, values: &CgroupValues) -> Result<()> {
        let mut cgroup = self.root.clone();
        for component in pod.split('/') {
            hand_down(&cgroup)?;
            cgroup.push(component);
            files::make(&cgroup)?;
        }
        write_limits(&cgroup, values)?;
        hand_down(&cgroup)?;
        files::make(&cgroup.join(MAKE))
    }

    pub(super) fn make_container(
        &self,
        leaf: &Path,
        values: &CgroupValues,
        devices: &[DeviceRule],
    ) -> Result<()> {
        let cgroup = self.root.join(leaf);
        files::make(&cgroup)?;
        write_limits(&cgroup, values)?;
        if self.has_memory(&cgroup)? {
            // Without it the kernel ends one process and leaves a container of cripples.
            let path = cgroup.join("memory.oom.group");
            let value = "1".to_owned();
            files::write(&path, &value).map_err(|source| CgroupError::Write {
                path,
                value,
                source,
            })?;
        }
        if devices.contains(&EVERY_DEVICE) {
            return Ok(());
        }
        devices::attach(&cgroup, devices)?;
        Ok(())
    }
}

pub(super) fn write_limits(cgroup: &Path, values: &CgroupValues) -> Result<()> {
    limits::v2(values).iter().try_for_each(|setting| setting.write(Some(cgroup.to_owned())))
}

/// Enables our controllers for the children of a cgroup, as far as it has them itself.
fn hand_down(cgroup: &Path) -> Result<()> {
    let path = cgroup.join("cgroup.subtree_control");
    let missing = missing(&names(&cgroup.join("cgroup.controllers"))?, &names(&path)?);
    if missing.is_empty() {
        return Ok(());
    }
    files::write(&path, &missing).map_err(|source| CgroupError::Enable {
        path,
        controllers: missing,
        source,
    })
}

/// What to write so that all that is `available` and ours is enabled; nothing if it is already.
fn missing(available: &BTreeSet<String>, enabled: &BTreeSet<String>) -> String {
    let wanted = CONTROLLERS
        .iter()
        .filter(|name| available.contains(**name) && !enabled.contains(**name))
        .map(|name| format!("+{name}"));
    wanted.collect::<Vec<_>>().join(" ")
}

fn names(file: &Path) -> Result<BTreeSet<String>> {
    Ok(files::read(file)?.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_what_is_there_and_ours_and_not_yet_enabled_is_enabled() {
        let available = set("cpuset cpu io memory hugetlb pids rdma misc");
        assert_eq!(missing(&available, &set("memory pids")), "+cpu +cpuset +io");
        assert_eq!(missing(&available, &available), "");
        assert_eq!(missing(&set("pids"), &set("")), "+pids");
    }
}
