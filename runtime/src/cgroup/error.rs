//! What can go wrong with cgroups, in the operator's words.

use std::io;
use std::path::PathBuf;

use crate::devices::DeviceFilterError;

/// Why something could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The table of mounts.
    #[error("cannot read /proc/self/mountinfo to find the cgroups")]
    ReadMounts(#[source] io::Error),
    /// Neither layout is there.
    #[error(
        "no usable cgroups are mounted: neither cgroup2 on /sys/fs/cgroup \
         nor a cgroup v1 hierarchy with the pids controller"
    )]
    NotMounted,
    /// A limit was asked for that this host cannot hold.
    #[error(
        "the host has no {file} in {}: its cgroup controller is off or lacks that feature \
         (see /proc/cgroups and the kernel's command line)",
        cgroup.display()
    )]
    MissingController {
        /// The file that would take the limit.
        file: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
    },
    /// A name with path components that lead elsewhere.
    #[error("{name:?} is not the name of a cgroup")]
    BadName {
        /// The name.
        name: String,
    },
    /// A directory could not be made.
    #[error("cannot make cgroup {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value could not be set.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// Controllers could not be handed down.
    #[error(
        "cannot enable {controllers:?} in {} (no process may be in a cgroup that hands \
         controllers down, except in the root)",
        path.display()
    )]
    Enable {
        /// The `cgroup.subtree_control` file.
        path: PathBuf,
        /// What was to be written.
        controllers: String,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file says something unexpected.
    #[error("{} has no number for {key:?}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        key: &'static str,
    },
    /// The calling process could not move.
    #[error("cannot enter a cgroup through {}", path.display())]
    Enter {
        /// The file that takes the process.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device filter.
    #[error("cannot restrict a container's devices")]
    Devices(#[from] DeviceFilterError),
    /// Processes that SIGKILL does not end.
    #[error("killed for {seconds} s, and still alive in {}: {survivors}", path.display())]
    Survivors {
        /// The cgroup.
        path: PathBuf,
        /// For how long it was tried.
        seconds: u64,
        /// Process ids, names and states.
        survivors: String,
    },
    /// A directory could not be removed.
    #[error("cannot remove cgroup {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
