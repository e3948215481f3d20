//! cgroup v1: one hierarchy a controller (or a few), each with the whole tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, MAKE, Result, files};
use super::{CgroupValues, limits};
use crate::devices::{DeviceRule, EVERY_DEVICE};

/// The file that moves a single thread: writing "0" moves the writer, cheaply.
pub(super) const TASKS: &str = "tasks";

/// The controllers whose hierarchies get our tree: those in which libcontainer wants its cgroups.
/// A hierarchy of others (`name=systemd`, misc, rdma) is somebody else's.
const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
];

/// One mount of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) root: PathBuf,
    pub(super) controllers: Vec<String>,
}

/// The hierarchies in use; pids is one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchies {
    all: Vec<Hierarchy>,
    pids: PathBuf,
}

impl Hierarchies {
    /// Keeps what we use of all that is mounted; `None` without the pids controller, without
    /// which nothing could be killed reliably.
    pub(super) fn new(mounted: impl IntoIterator<Item = Hierarchy>) -> Option<Hierarchies> {
        let mut all: Vec<Hierarchy> = Vec::new();
        for mut hierarchy in mounted {
            // A controller has one hierarchy, which may be mounted in several places: first wins.
            hierarchy.controllers.retain(|controller| {
                CONTROLLERS.contains(&controller.as_str())
                    && !all.iter().any(|known| known.controllers.contains(controller))
            });
            if !hierarchy.controllers.is_empty() {
                all.push(hierarchy);
            }
        }
        let pids = find(&all, "pids")?.to_owned();
        Some(Hierarchies { all, pids })
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().map(|hierarchy| hierarchy.root.as_path())
    }

    pub(super) fn pids(&self) -> &Path {
        &self.pids
    }

    pub(super) fn controller(&self, controller: &str) -> Option<&Path> {
        find(&self.all, controller)
    }

    pub(super) fn controllers(&self) -> BTreeSet<String> {
        self.all.iter().flat_map(|hierarchy| hierarchy.controllers.iter().cloned()).collect()
    }

    pub(super) fn make_pod(&self, pod: &str, values: &CgroupValues) -> Result<()> {
        for hierarchy in &self.all {
            let mut cgroup = hierarchy.root.clone();
            for component in pod.split('/') {
                cgroup.push(component);
                hierarchy.make(&cgroup)?;
            }
        }
        self.write_limits(Path::new(pod), values)?;
        files::make(&self.pids.join(pod).join(MAKE))
    }

    pub(super) fn make_container(
        &self,
        leaf: &Path,
        values: &CgroupValues,
        devices: &[DeviceRule],
    ) -> Result<()> {
        self.all.iter().try_for_each(|hierarchy| hierarchy.make(&hierarchy.root.join(leaf)))?;
        self.write_limits(leaf, values)?;
        self.write_devices(leaf, devices)
    }

    pub(super) fn write_limits(&self, cgroup: &Path, values: &CgroupValues) -> Result<()> {
        limits::v1(values).iter().try_for_each(|setting| {
            setting.write(self.controller(setting.controller).map(|root| root.join(cgroup)))
        })
    }

    fn write_devices(&self, leaf: &Path, devices: &[DeviceRule]) -> Result<()> {
        let Some(root) = self.controller("devices") else {
            if devices.contains(&EVERY_DEVICE) {
                return Ok(());
            }
            return Err(CgroupError::MissingController {
                file: "devices.allow",
                cgroup: PathBuf::from("any cgroup hierarchy"),
            });
        };
        let cgroup = root.join(leaf);
        let write = |file: &str, value: String| {
            let path = cgroup.join(file);
            files::write(&path, &value).map_err(|source| CgroupError::Write { path, value, source })
        };
        write("devices.deny", EVERY_DEVICE.to_string())?;
        devices.iter().try_for_each(|rule| write("devices.allow", rule.to_string()))
    }
}

impl Hierarchy {
    /// Makes one directory. A cpuset without CPUs takes no process (ENOSPC): it gets its parent's,
    /// also if somebody else made it a moment ago and has not come to that yet.
    fn make(&self, cgroup: &Path) -> Result<()> {
        files::make(cgroup)?;
        if !self.controllers.iter().any(|controller| controller == "cpuset") {
            return Ok(());
        }
        ["cpuset.cpus", "cpuset.mems"].into_iter().try_for_each(|file| fill(cgroup, file))
    }
}

fn fill(cgroup: &Path, file: &str) -> Result<()> {
    let path = cgroup.join(file);
    if !files::read(&path)?.trim().is_empty() {
        return Ok(());
    }
    let Some(parent) = cgroup.parent() else { return Ok(()) };
    let value = files::read(&parent.join(file))?.trim().to_owned();
    files::write(&path, &value).map_err(|source| CgroupError::Write { path, value, source })
}

fn find<'a>(all: &'a [Hierarchy], controller: &str) -> Option<&'a Path> {
    all.iter()
        .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
        .map(|hierarchy| hierarchy.root.as_path())
}

/// Stops forks below a cgroup for as long as it lives, so that killing has an end.
pub(super) struct ForkBrake {
    file: PathBuf,
    before: String,
}

impl ForkBrake {
    /// `None` if the cgroup is gone, or has no limit that could be set (it is no cgroup of ours).
    pub(super) fn new(cgroup: &Path) -> Option<ForkBrake> {
        let file = cgroup.join("pids.max");
        let before = fs::read_to_string(&file).ok()?;
        files::write(&file, "0").ok()?;
        Some(ForkBrake { file, before })
    }
}

impl Drop for ForkBrake {
    fn drop(&mut self) {
        // It can only fail if the cgroup has been removed, and then there is nothing to restore.
        let _ = files::write(&self.file, self.before.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(root: &str, controllers: &[&str]) -> Hierarchy {
        let controllers = controllers.iter().map(ToString::to_string).collect();
        Hierarchy { root: root.into(), controllers }
    }

    #[test]
    fn controllers_that_share_a_hierarchy_have_one_tree() {
        let all = Hierarchies::new([
            hierarchy("/c/cpu,cpuacct", &["cpu", "cpuacct"]),
            hierarchy("/c/systemd", &["name=systemd"]),
            hierarchy("/c/pids", &["pids"]),
            hierarchy("/elsewhere/pids", &["pids"]),
        ])
        .unwrap();
        assert_eq!(all.roots().collect::<Vec<_>>(), ["/c/cpu,cpuacct", "/c/pids"].map(Path::new));
        assert_eq!(all.controller("cpuacct"), Some(Path::new("/c/cpu,cpuacct")));
        assert_eq!(all.controller("memory"), None);
        assert_eq!(all.pids(), Path::new("/c/pids"));
    }

    #[test]
    fn without_the_pids_controller_v1_is_not_usable() {
        assert_eq!(Hierarchies::new([hierarchy("/c/cpu", &["cpu"])]), None);
    }
}
