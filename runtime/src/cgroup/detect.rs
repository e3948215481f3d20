//! Finds out what is mounted, from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::fs;
use std::path::PathBuf;

use super::v1::{Hierarchies, Hierarchy};
use super::v2::Unified;
use super::{CgroupError, Cgroups, Kind, Result};

/// Where libcontainer, systemd and everybody else expect the unified hierarchy.
const UNIFIED_ROOT: &str = "/sys/fs/cgroup";

pub(super) fn detect() -> Result<Cgroups> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::ReadMounts)?;
    kind(&mounts).map(|kind| Cgroups { kind }).ok_or(CgroupError::NotMounted)
}

fn kind(mountinfo: &str) -> Option<Kind> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(mount).collect();
    let unified = PathBuf::from(UNIFIED_ROOT);
    if mounts.iter().any(|mount| mount.file_system == "cgroup2" && mount.point == unified) {
        return Some(Kind::V2(Unified { root: unified }));
    }
    let hierarchies = mounts.into_iter().filter(|mount| mount.file_system == "cgroup");
    Hierarchies::new(hierarchies.map(|mount| Hierarchy {
        root: mount.point,
        controllers: mount.super_options.split(',').map(str::to_owned).collect(),
    }))
    .map(Kind::V1)
}

struct Mount<'a> {
    point: PathBuf,
    file_system: &'a str,
    super_options: &'a str,
}

/// One line: `id parent major:minor root mount-point options [tag…] - type source super-options`.
fn mount(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let point = unescape(before.split(' ').nth(4)?);
    let mut after = after.split(' ');
    let file_system = after.next()?;
    let super_options = after.nth(1)?;
    Some(Mount { point, file_system, super_options })
}

/// Blanks, tabs, newlines and backslashes are written as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain));
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn cgroup2_on_the_usual_place_is_v2_whatever_else_is_mounted() {
        let mounts = "\
24 1 0:22 / /proc rw - proc proc rw
31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
40 24 0:28 / /opt/net_cls rw - cgroup none rw,net_cls
";
        let Some(Kind::V2(unified)) = kind(mounts) else { panic!("not v2") };
        assert_eq!(unified.root, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn the_hybrid_layout_is_v1() {
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let Some(Kind::V1(hierarchies)) = kind(mounts) else { panic!("not v1") };
        assert_eq!(
            hierarchies.roots().collect::<Vec<_>>(),
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/pids"].map(Path::new)
        );
    }

    #[test]
    fn without_cgroups_there_is_nothing_to_use() {
        assert!(kind("24 1 0:22 / /proc rw - proc proc rw\n").is_none());
        assert!(kind("24 1 0:22 / /cg rw - cgroup2 cgroup2 rw\n").is_none());
    }

    #[test]
    fn a_mount_point_with_blanks_is_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
    }
}
