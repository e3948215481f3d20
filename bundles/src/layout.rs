//! Where everything lies on disk: the only place that knows.
//!
//! Three directories belong to an instance ("a root in use"):
//!
//! ```text
//! <root>    /var/lib/podshim          on disk: images, what pods keep over a reboot, emptyDir volumes
//! <state>   /run/podshim              a private tmpfs, mounted while pods of this root live
//! <log dir> /var/log/podshim/pods     Kubernetes' layout, CRI log format
//! ```
//!
//! `docs/state-directory.md` describes each file.

use std::path::PathBuf;

/// The three directories of an instance, and the one that it shares with all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `--root`: what outlives a reboot.
    pub root: PathBuf,
    /// `--state`: what dies with the host's boot, as the pods' processes do.
    pub state: PathBuf,
    /// `--log-dir`.
    pub logs: PathBuf,
    /// Where the network of the host's pods is remembered: of the host, and so of every instance.
    pub network: PathBuf,
}

impl Layout {
    /// flocked while the state directory is mounted, unmounted, or asked for its last user.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held by the daemon for as long as it lives: there is one a root.
    #[must_use]
    pub fn daemon_lock(&self) -> PathBuf {
        self.root.join("daemon.lock")
    }

    /// Where the daemon listens: beside the state directory, which is mounted only while pods live.
    #[must_use]
    pub fn daemon_socket(&self) -> PathBuf {
        let mut name = self.state.file_name().unwrap_or_default().to_owned();
        name.push(".sock");
        self.state.with_file_name(name)
    }

    /// The objects that the daemon was given.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// How a pod of the daemon's has ended, and what happened to it.
    #[must_use]
    pub fn result(&self, uid: &str) -> PathBuf {
        self.results().join(format!("{uid}.json"))
    }

    /// How pods of the daemon's have ended.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// What a controller of the daemon's did to a job, a deployment or a replica set.
    #[must_use]
    pub fn event_log(&self, uid: &str) -> PathBuf {
        self.event_logs().join(format!("{uid}.jsonl"))
    }

    /// What the daemon's controllers did.
    #[must_use]
    pub fn event_logs(&self) -> PathBuf {
        self.root.join("events")
    }

    /// Space on the disk that is kept free.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Seccomp profiles of the user's, as a kubelet has them below its root.
    #[must_use]
    pub fn seccomp(&self) -> PathBuf {
        self.root.join("seccomp")
    }

    /// One directory a living pod.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// The mount points that keep the pods' mount namespaces.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.state.join("pins")
    }

    /// `<namespace>_<name>` → uid, as symbolic links: a name is taken by making its link.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.state.join("names")
    }

    /// One file for each job and deployment of a living `podshim run`.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.state.join("objects")
    }

    /// The link that takes a pod's name.
    #[must_use]
    pub fn name(&self, namespace: &str, name: &str) -> PathBuf {
        self.names().join(format!("{namespace}_{name}"))
    }

    /// What the pod keeps on disk.
    #[must_use]
    pub fn kept(&self, uid: &str) -> PathBuf {
        self.all_kept().join(uid)
    }

    /// What all pods of this root keep on disk.
    #[must_use]
    pub fn all_kept(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Links from uids to the pods' log directories: what `podshim prune` may remove.
    #[must_use]
    pub fn log_records(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// A pod's live directory.
    #[must_use]
    pub fn pod(&self, uid: &str) -> PodDir {
        PodDir { dir: self.pods().join(uid), pin: self.pins().join(uid), kept: self.kept(uid) }
    }

    /// A pod's log directory.
    #[must_use]
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }
}

/// The file name of a shim's diagnostics, in its pod's live directory.
pub const DIAGNOSTICS: &str = "shim.log";

/// The paths of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDir {
    /// `<state>/pods/<uid>`.
    pub dir: PathBuf,
    /// `<state>/pins/<uid>`: the bind mount that keeps the pod's mount namespace.
    pub pin: PathBuf,
    /// `<root>/pods/<uid>`.
    pub kept: PathBuf,
}

impl PodDir {
    /// A link to the live directory, which may be below another `--state`.
    #[must_use]
    pub fn live(&self) -> PathBuf {
        self.kept.join("live")
    }

    /// Held by the pod's shim for as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// What happened, one checksummed record a line.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Where a pod that outlives a boot has it: on disk, with a link from there.
    #[must_use]
    pub fn kept_journal(&self) -> PathBuf {
        self.kept.join("journal")
    }

    /// The pod's volumes on disk.
    #[must_use]
    pub fn kept_volumes(&self) -> PathBuf {
        self.kept.join("volumes")
    }

    /// The pod object and how this pod is to be run.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.dir.join("pod.json")
    }

    /// Where the shim listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("shim.sock")
    }

    /// The shim's own diagnostics.
    #[must_use]
    pub fn diagnostics(&self) -> PathBuf {
        self.dir.join(DIAGNOSTICS)
    }

    /// FIFOs, stages and records of the log pump.
    #[must_use]
    pub fn io(&self) -> PathBuf {
        self.dir.join("io")
    }

    /// One OCI bundle an incarnation.
    #[must_use]
    pub fn bundle(&self, container: &str, inc: u32) -> PathBuf {
        self.dir.join("bundle").join(format!("{container}-{inc}"))
    }

    /// Bind mounts of the pod's namespaces, visible in its mount namespace only.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> PathBuf {
        self.dir.join("ns").join(kind)
    }

    /// A tmpfs in the pod's mount namespace only: root filesystems, volumes and files are here.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// Where an incarnation's root filesystem is mounted.
    #[must_use]
    pub fn rootfs(&self, container: &str, inc: u32) -> PathBuf {
        self.mounts().join("rootfs").join(format!("{container}-{inc}"))
    }

    /// The writable layer of an incarnation's root filesystem, on disk.
    #[must_use]
    pub fn scratch(&self, container: &str, inc: u32) -> PathBuf {
        self.kept.join("scratch").join(format!("{container}-{inc}"))
    }

    /// A volume of the pod, as Kubernetes lays them out: `plugin` is `kubernetes.io~empty-dir`, ….
    #[must_use]
    pub fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.kept_volumes().join(plugin).join(name)
    }

    /// A volume of files (configMap, secret, downwardAPI, projected): in the pod's tmpfs, so that
    /// nothing of a secret is ever on disk.
    #[must_use]
    pub fn payload(&self, plugin: &str, name: &str) -> PathBuf {
        self.mounts().join("volumes").join(plugin).join(name)
    }

    /// Where the parts of volumes that an incarnation has mounted (`subPath`) are bound.
    #[must_use]
    pub fn sub_paths(&self, container: &str, inc: u32) -> PathBuf {
        self.mounts().join("subpaths").join(format!("{container}-{inc}"))
    }

    /// The file that an incarnation writes its last words into, on disk.
    #[must_use]
    pub fn termination(&self, container: &str, inc: u32) -> PathBuf {
        self.kept.join("containers").join(format!("{container}-{inc}"))
    }

    /// A file that the pod's containers share (`hosts`, `resolv.conf`, `hostname`).
    #[must_use]
    pub fn shared_file(&self, name: &str) -> PathBuf {
        self.mounts().join("etc").join(name)
    }

    /// The socket on which a container says that it is ready (sd_notify(3)).
    #[must_use]
    pub fn notify(&self, container: &str) -> PathBuf {
        self.notify_dir().join(container)
    }

    /// Where those sockets are.
    #[must_use]
    pub fn notify_dir(&self) -> PathBuf {
        self.mounts().join("notify")
    }

    /// The pod's `/dev/shm`.
    #[must_use]
    pub fn shm(&self) -> PathBuf {
        self.mounts().join("shm")
    }
}
