//! The cgroups of pods and containers, on cgroup v1 (also hybrid) and v2.
//!
//! ```text
//! podshim/<qos>/pod<uid>/                            the pod's limits
//! podshim/<qos>/pod<uid>/<container>-<incarnation>/  a container's limits and device list
//! podshim/<qos>/pod<uid>/make/<container>-<incarnation>/  the process that creates it
//! ```
//!
//! On v1 that tree stands in every hierarchy (`make` only in pids), on v2 once. Every directory is
//! made, limited and removed here, before and after libcontainer, which is given a finished leaf
//! ([`Cgroups::oci_path`]) and only moves the container's first process into it. The parents
//! (`podshim`, `podshim/<qos>`) are shared by everybody on the host and stay.
//!
//! Where systemd is PID 1 on cgroup v2 the pod's directory is in a scope of its own ([`scope`]):
//! `podshim.slice/podshim-pods.slice/podshim-<uid>.scope/pod<uid>`, with the shim in a leaf beside it.
//!
//! It does not decide limits (`bundles::resources` does) and does not freeze. Called by the shim, its creators and its exec'd probes; nothing is remembered between
//! calls, so any process may take over from another.

mod ahead;
mod detect;
mod error;
mod files;
mod kill;
mod limits;
pub mod scope;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::devices::DeviceRule;
use crate::keeper::Keeper;
pub use ahead::expect_moves;
pub use bundles::resources::CgroupValues;
pub use error::CgroupError;
use v1::Hierarchies;
use v2::Unified;

/// The directory below which podshim keeps its pods.
pub const BASE: &str = "podshim";

/// The directory, in a pod's cgroup, of the cgroups of the processes that create its containers.
const MAKE: &str = "make";

type Result<T> = std::result::Result<T, CgroupError>;

/// Which interface the kernel's controllers are used through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy a controller: the legacy and the hybrid layout.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// Which of a pod's processes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members<'a> {
    /// All: containers and creators.
    Pod,
    /// Everything that creates containers.
    Creators,
    /// One incarnation of a container.
    Container(&'a str),
    /// One incarnation of a container and what creates it.
    Incarnation(&'a str),
    /// One program that was executed in a running container: the container, and the program's name.
    Exec(&'a str, &'a str),
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was made, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Its working set in bytes: memory that cannot be given back at once (Kubernetes:
    /// `container_memory_working_set_bytes`).
    pub memory_bytes: Option<u64>,
}

/// A pod's cgroup that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundPod {
    /// The pod's uid.
    pub uid: String,
    /// Its cgroup, as the other functions take it.
    pub cgroup: String,
}

/// The cgroup of a process that is about to create a container.
#[derive(Clone, Debug)]
pub struct Creator {
    file: PathBuf,
}

impl Creator {
    /// Moves the calling process there. It must have a single thread.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Enter`].
    pub fn enter(&self) -> Result<()> {
        files::enter(&self.file)
    }
}

/// The cgroups of a program that is about to be executed in a running container.
#[derive(Clone, Debug)]
pub struct ExecHome {
    files: Vec<PathBuf>,
}

impl ExecHome {
    /// Moves the calling process there. It must have a single thread.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Enter`].
    pub fn enter(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| files::enter(file))
    }
}

/// The host's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    V1(Hierarchies),
    V2(Unified),
}

/// Looks at what is mounted.
///
/// cgroup2 on `/sys/fs/cgroup` is v2; otherwise the controllers that have hierarchies of their own
/// are used, and a cgroup2 mounted elsewhere (hybrid) is left alone.
///
/// # Errors
///
/// [`CgroupError::ReadMounts`], [`CgroupError::NotMounted`].
pub fn detect() -> Result<Cgroups> {
    detect::detect()
}

impl Cgroups {
    /// Which interface is used.
    #[must_use]
    pub fn version(&self) -> Version {
        match self.kind {
            Kind::V1(_) => Version::V1,
            Kind::V2(_) => Version::V2,
        }
    }

    /// The controllers that exist, for `doctor`.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`] if the v2 root's list cannot be read.
    pub fn controllers(&self) -> Result<BTreeSet<String>> {
        match &self.kind {
            Kind::V1(hierarchies) => Ok(hierarchies.controllers()),
            Kind::V2(unified) => unified.controllers(),
        }
    }

    /// Makes a pod's cgroup and its parents, with the pod's limits, and the place for its creators.
    ///
    /// `pod` is relative, for example `podshim/burstable/pod<uid>`. Doing it again sets the limits
    /// again. On an error what was made is left for [`Cgroups::remove_pod`].
    ///
    /// # Errors
    ///
    /// [`CgroupError::Make`], [`CgroupError::Write`], [`CgroupError::MissingController`].
    pub fn make_pod(&self, pod: &str, values: &CgroupValues) -> Result<()> {
        check_path(pod)?;
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.make_pod(pod, values),
            Kind::V2(unified) => unified.make_pod(pod, values),
        }
    }

    /// Makes a container's leaf with its limits; only `devices` may be opened there.
    ///
    /// `name` is `<container>-<incarnation>`. No swap, and on v2 an out-of-memory kill takes the
    /// whole container and nothing else. On an error what was made is left for
    /// [`Cgroups::remove_container`].
    ///
    /// # Errors
    ///
    /// As for [`Cgroups::make_pod`], and [`CgroupError::Devices`].
    pub fn make_container(
        &self,
        pod: &str,
        name: &str,
        values: &CgroupValues,
        devices: &[DeviceRule],
    ) -> Result<()> {
        let leaf = leaf(pod, name)?;
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.make_container(&leaf, values, devices),
            Kind::V2(unified) => unified.make_container(&leaf, values, devices),
        }
    }

    /// Writes the limits of a pod, or of one of its containers, anew while it runs.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Write`]: on v1 with `EBUSY` for memory that the kernel cannot take back, and with
    /// `EINVAL` for more processor time than the pod has. On v2 a limit below what is in use kills;
    /// see [`Cgroups::memory_in_use`].
    pub fn set_limits(
        &self,
        pod: &str,
        container: Option<&str>,
        values: &CgroupValues,
    ) -> Result<()> {
        let cgroup = directory(pod, container)?;
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.write_limits(&cgroup, values),
            Kind::V2(unified) => v2::write_limits(&unified.root.join(cgroup), values),
        }
    }

    /// The memory of a pod, or of one of its containers, that the kernel cannot take back at once, in
    /// bytes; `None` if nobody counts it.
    ///
    /// # Errors
    ///
    /// As for [`Cgroups::usage`].
    pub fn memory_in_use(&self, pod: &str, container: Option<&str>) -> Result<Option<u64>> {
        let cgroup = directory(pod, container)?;
        let (directory, used, idle) = match &self.kind {
            Kind::V1(hierarchies) => {
                let Some(root) = hierarchies.controller("memory") else { return Ok(None) };
                (root.join(cgroup), "memory.usage_in_bytes", "total_inactive_file")
            }
            Kind::V2(unified) => {
                let directory = unified.root.join(cgroup);
                if !unified.has_memory(&directory)? {
                    return Ok(None);
                }
                (directory, "memory.current", "inactive_file")
            }
        };
        let idle = files::keyed_number(&directory.join("memory.stat"), idle)?;
        Ok(Some(files::number(&directory.join(used))?.saturating_sub(idle)))
    }

    /// Makes the cgroup of the process that will create container `name`.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Make`].
    pub fn make_creator(&self, pod: &str, name: &str) -> Result<Creator> {
        let directory = self.process_root().join(creator(pod, name)?);
        files::make(&directory)?;
        let file = match self.kind {
            Kind::V1(_) => v1::TASKS,
            Kind::V2(_) => v2::PROCS,
        };
        Ok(Creator { file: directory.join(file) })
    }

    /// Makes the cgroups of a program that is to be executed in a running container: the container's
    /// own leaf in every controller, so that its limits hold, and below it one more directory in
    /// which all that the program starts can be found and killed. No controller is enabled there, so
    /// that on v2 the leaf may go on having processes of its own.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Make`].
    pub fn make_exec(&self, pod: &str, container: &str, name: &str) -> Result<ExecHome> {
        let (leaf, own) = (leaf(pod, container)?, exec(pod, container, name)?);
        files::make(&self.process_root().join(&own))?;
        let home = self.process_root();
        let files = match &self.kind {
            // A thread that moves itself costs 0.1 ms; a write to cgroup.procs on v1 takes a lock
            // that waits out an RCU grace period, 10 ms on an idle machine.
            Kind::V1(hierarchies) => hierarchies
                .roots()
                .map(|root| root.join(if root == home { &own } else { &leaf }).join(v1::TASKS))
                .collect(),
            Kind::V2(unified) => vec![unified.root.join(&own).join(v2::PROCS)],
        };
        Ok(ExecHome { files })
    }

    /// The names of all cgroups below a container's leaf: of executed programs, and of the container's own.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`].
    pub fn execs(&self, pod: &str, container: &str) -> Result<Vec<String>> {
        let found = files::children(&self.process_root().join(leaf(pod, container)?))?;
        Ok(found.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Removes an executed program's own cgroup. Nobody may be in it.
    ///
    /// # Errors
    ///
    /// As for [`Cgroups::remove_container`].
    pub fn remove_exec(&self, pod: &str, container: &str, name: &str) -> Result<()> {
        files::remove_tree(&self.process_root().join(exec(pod, container, name)?))
    }

    /// The processes in a pod's or container's cgroup and below, by id, each once.
    ///
    /// A process that has ended is not listed, reaped or not; a cgroup that is not there has none.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`].
    pub fn processes(&self, pod: &str, members: Members<'_>) -> Result<Vec<i32>> {
        files::processes(&self.member_directories(pod, members)?)
    }

    /// Kills with SIGKILL until there is nobody left, and says how many processes that were.
    ///
    /// Killing a creator does not stop what it forked a moment before, so the cgroup counts as
    /// empty only when it was found so twice in a row. Blocks for a few milliseconds, at most
    /// five seconds.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Survivors`] names who does not die; [`CgroupError::Read`],
    /// [`CgroupError::Write`].
    pub fn kill(&self, pod: &str, members: Members<'_>) -> Result<usize> {
        let directories = self.member_directories(pod, members)?;
        match self.kind {
            Kind::V1(_) => kill::by_signals(&directories),
            Kind::V2(_) => kill::by_file(&directories),
        }
    }

    /// Removes a container's leaf, and what the container made below it. Nobody may be in it.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Remove`] if it is still busy after two seconds.
    pub fn remove_container(&self, pod: &str, name: &str) -> Result<()> {
        self.remove(&leaf(pod, name)?)
    }

    /// Removes a creator's cgroup. Nobody may be in it.
    ///
    /// # Errors
    ///
    /// As for [`Cgroups::remove_container`].
    pub fn remove_creator(&self, pod: &str, name: &str) -> Result<()> {
        files::remove_tree(&self.process_root().join(creator(pod, name)?))
    }

    /// Removes all of a pod's cgroups. Nobody may be in them. The parents stay.
    ///
    /// # Errors
    ///
    /// As for [`Cgroups::remove_container`].
    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        check_path(pod)?;
        self.remove(Path::new(pod))
    }

    /// How many processes of a container the kernel has killed because memory ran out, since the
    /// leaf was made; 0 on a kernel without the memory controller.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`] if the leaf is not there, [`CgroupError::Parse`].
    pub fn oom_kills(&self, pod: &str, name: &str) -> Result<u64> {
        let leaf = leaf(pod, name)?;
        let file = match &self.kind {
            Kind::V1(hierarchies) => match hierarchies.controller("memory") {
                Some(root) => root.join(leaf).join("memory.oom_control"),
                None => return Ok(0),
            },
            Kind::V2(unified) => {
                let directory = unified.root.join(leaf);
                if !unified.has_memory(&directory)? {
                    return Ok(0);
                }
                directory.join("memory.events")
            }
        };
        files::keyed_number(&file, "oom_kill")
    }

    /// What a container has used and uses; `None` for what no controller counts.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`] if the leaf is not there, [`CgroupError::Parse`].
    pub fn usage(&self, pod: &str, name: &str) -> Result<Usage> {
        let leaf = leaf(pod, name)?;
        let cpu_ns = match &self.kind {
            Kind::V1(hierarchies) => {
                let dir = hierarchies.controller("cpuacct").map(|root| root.join(&leaf));
                dir.map(|dir| files::number(&dir.join("cpuacct.usage"))).transpose()?
            }
            Kind::V2(unified) => {
                let dir = unified.root.join(leaf);
                // Counted whether or not the controller is on.
                Some(files::keyed_number(&dir.join("cpu.stat"), "usage_usec")? * 1000)
            }
        };
        Ok(Usage { cpu_ns, memory_bytes: self.memory_in_use(pod, Some(name))? })
    }

    /// The `linux.cgroupsPath` of a container: absolute, which is below the mount point of each
    /// hierarchy (OCI runtime specification, "Cgroups Path").
    ///
    /// # Errors
    ///
    /// [`CgroupError::BadName`].
    pub fn oci_path(&self, pod: &str, name: &str) -> Result<PathBuf> {
        Ok(Path::new("/").join(leaf(pod, name)?))
    }

    /// The pods that have a cgroup, half-removed ones included, wherever they lie.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`].
    pub fn all_pods(&self) -> Result<Vec<FoundPod>> {
        let mut found = self.pods(BASE)?;
        if self.version() == Version::V2 {
            found.extend(self.pods(scope::SLICE_PATH)?);
        }
        Ok(found)
    }

    /// Has systemd make a scope for a pod around this process and its keeper, if systemd is PID 1 and has one tree
    /// for all controllers; answers with the pod's cgroup there. `None` elsewhere.
    ///
    /// # Errors
    ///
    /// [`scope::ScopeError`].
    pub fn enter_scope(
        &self,
        uid: &str,
        description: &str,
        keeper: Option<&mut Keeper>,
    ) -> std::result::Result<Option<String>, scope::ScopeError> {
        let Some(unified) = self.managed() else { return Ok(None) };
        let scope = scope::enter(&unified.root, uid, description, keeper)?;
        Ok(Some(format!("{scope}/pod{uid}")))
    }

    /// Has systemd remove the scope of a dead pod, if it is there and without processes. One with processes goes
    /// with the last of them.
    ///
    /// # Errors
    ///
    /// [`scope::ScopeError`].
    pub fn remove_scope(&self, uid: &str) -> std::result::Result<(), scope::ScopeError> {
        match self.managed() {
            Some(unified) => scope::remove_empty(&unified.root, &scope::name(uid)).map(drop),
            None => Ok(()),
        }
    }

    /// The same for all scopes in which nobody has ever been; gives the uids of their pods.
    ///
    /// # Errors
    ///
    /// [`scope::ScopeError`].
    pub fn remove_empty_scopes(&self) -> std::result::Result<Vec<String>, scope::ScopeError> {
        self.managed().map_or(Ok(Vec::new()), |unified| scope::remove_all_empty(&unified.root))
    }

    /// Has systemd remove the slices of pods, unless a pod is in them.
    ///
    /// # Errors
    ///
    /// [`scope::ScopeError`].
    pub fn leave_slices(&self) -> std::result::Result<(), scope::ScopeError> {
        self.managed().map_or(Ok(()), |unified| scope::leave(&unified.root))
    }

    /// The one tree, if it is systemd's.
    fn managed(&self) -> Option<&Unified> {
        match &self.kind {
            Kind::V2(unified) if scope::is_systemd() => Some(unified),
            _ => None,
        }
    }

    /// The pods that have a cgroup below `base` (usually [`BASE`]), half-removed ones included.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`].
    pub fn pods(&self, base: &str) -> Result<Vec<FoundPod>> {
        check_path(base)?;
        let mut found = BTreeSet::new();
        for root in self.roots() {
            for class in files::children(&root.join(base))? {
                let parent = Path::new(base).join(&class);
                found.extend(found_pod(&parent));
                for pod in files::children(&root.join(&parent))? {
                    found.extend(found_pod(&parent.join(pod)));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn roots(&self) -> Vec<&Path> {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.roots().collect(),
            Kind::V2(unified) => vec![&unified.root],
        }
    }

    /// The hierarchy in which every process of ours has its place.
    fn process_root(&self) -> &Path {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.pids(),
            Kind::V2(unified) => &unified.root,
        }
    }

    fn member_directories(&self, pod: &str, members: Members<'_>) -> Result<Vec<PathBuf>> {
        check_path(pod)?;
        let cgroups = match members {
            Members::Pod => vec![PathBuf::from(pod)],
            Members::Creators => vec![Path::new(pod).join(MAKE)],
            Members::Container(name) => vec![leaf(pod, name)?],
            // The creator first: it moves its children into the container, never back.
            Members::Incarnation(name) => vec![creator(pod, name)?, leaf(pod, name)?],
            Members::Exec(container, name) => vec![exec(pod, container, name)?],
        };
        Ok(cgroups.into_iter().map(|cgroup| self.process_root().join(cgroup)).collect())
    }

    fn remove(&self, cgroup: &Path) -> Result<()> {
        self.roots().into_iter().try_for_each(|root| files::remove_tree(&root.join(cgroup)))
    }
}

/// A pod's cgroup, or a container's leaf in it, below the hierarchy's root.
fn directory(pod: &str, container: Option<&str>) -> Result<PathBuf> {
    match container {
        Some(name) => leaf(pod, name),
        None => check_path(pod).map(|()| PathBuf::from(pod)),
    }
}

/// A container's leaf below the hierarchy's root.
fn leaf(pod: &str, name: &str) -> Result<PathBuf> {
    check_path(pod)?;
    check_component(name, name)?;
    if name == MAKE {
        return Err(CgroupError::BadName { name: name.to_owned() });
    }
    Ok(Path::new(pod).join(name))
}

/// An executed program's cgroup below the hierarchy's root.
fn exec(pod: &str, container: &str, name: &str) -> Result<PathBuf> {
    check_component(name, name)?;
    Ok(leaf(pod, container)?.join(name))
}

/// A creator's cgroup below the hierarchy's root.
fn creator(pod: &str, name: &str) -> Result<PathBuf> {
    check_path(pod)?;
    check_component(name, name)?;
    Ok(Path::new(pod).join(MAKE).join(name))
}

/// Names become paths below which things are killed and removed: none may lead elsewhere.
fn check_path(path: &str) -> Result<()> {
    path.split('/').try_for_each(|component| check_component(component, path))
}

fn check_component(component: &str, whole: &str) -> Result<()> {
    let bad = matches!(component, "" | "." | "..") || component.contains(['/', '\0']);
    if bad { Err(CgroupError::BadName { name: whole.to_owned() }) } else { Ok(()) }
}

fn found_pod(cgroup: &Path) -> Option<FoundPod> {
    let uid = cgroup.file_name()?.to_str()?.strip_prefix("pod")?;
    Some(FoundPod { uid: uid.to_owned(), cgroup: cgroup.to_str()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for pod in ["", "/", "/podshim", "podshim/../x", "podshim//podx", "podshim/", "a/./b"] {
            assert!(check_path(pod).is_err(), "{pod:?}");
            assert!(leaf(pod, "main-0").is_err(), "{pod:?}");
        }
        for name in ["", ".", "..", "a/b", "make", "a\0"] {
            assert!(leaf("podshim/podx", name).is_err(), "{name:?}");
        }
        assert!(creator("podshim/podx", "../main-0").is_err());
    }

    #[test]
    fn a_containers_leaf_and_its_creator_have_their_places_in_the_pod() {
        let path = |result: Result<PathBuf>| result.unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            path(leaf("podshim/besteffort/podx", "main-0")),
            "podshim/besteffort/podx/main-0"
        );
        assert_eq!(path(creator("podshim/podx", "main-0")), "podshim/podx/make/main-0");
    }

    #[test]
    fn a_pod_is_known_by_its_directorys_name() {
        assert_eq!(
            found_pod(Path::new("podshim/burstable/pod77-ab")),
            Some(FoundPod { uid: "77-ab".into(), cgroup: "podshim/burstable/pod77-ab".into() })
        );
        assert_eq!(found_pod(Path::new("podshim/burstable")), None);
    }
}
