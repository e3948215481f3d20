//! The pod as the heart knows it: compiled once from the manifest, never changed.
//!
//! Only what a decision depends on stands here. Images' contents, mounts, environments and users
//! are the bundles' business.

use serde::{Deserialize, Serialize};

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Restart after every exit.
    Always,
    /// Restart after an exit that is not 0.
    OnFailure,
    /// Do not restart.
    Never,
}

/// Which of a pod's three kinds a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An entry of `spec.initContainers` without `restartPolicy: Always`: runs to completion.
    Init,
    /// An entry of `spec.initContainers` with `restartPolicy: Always` (KEP-753).
    Sidecar,
    /// An entry of `spec.containers`.
    Main,
}

/// When an image is looked for (SEMANTICS of `imagePullPolicy`; which of these a manifest means is
/// decided where it is compiled).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullWhen {
    /// `imagePullPolicy: Always`, written: the registry is asked at each start of the container.
    EachStart,
    /// Any other policy: once when the pod starts; restarts use the same image.
    Once,
}

/// Thresholds and times of one probe, in seconds, with Kubernetes' defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// From the start of the process to the first attempt.
    pub initial_delay_s: u32,
    /// From one attempt to the next; never 0.
    pub period_s: u32,
    /// After which an attempt has failed.
    pub timeout_s: u32,
    /// Consecutive failures after which the probe has failed.
    pub failure_threshold: u32,
    /// Replaces the pod's grace period for a kill that this probe causes.
    pub grace_s: Option<u32>,
}

/// One container of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `name`.
    pub name: String,
    /// Init, sidecar or main.
    pub kind: Kind,
    /// `image`, as written.
    pub image: String,
    /// When the image is looked for.
    pub pull: PullWhen,
    /// `startupProbe`; never on [`Kind::Init`].
    pub startup: Option<Probe>,
    /// Named by the annotation `podshim.dev/standby`: its next incarnation is created while the
    /// current one runs, so that a restart is one write.
    pub standby: bool,
    /// What it mounts depends on what the containers before it have written (`subPath`): it is not
    /// created before it may start, and has no spare.
    pub at_start: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`; a negative one has been made 1.
    pub grace_s: u32,
    /// `spec.activeDeadlineSeconds`.
    pub active_deadline_s: Option<u32>,
    /// All containers: `spec.initContainers` in their order, then `spec.containers` in theirs.
    /// An index into this list names a container in every fact and action.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The mains, with their indexes.
    pub fn mains(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.of(Kind::Main)
    }

    /// The sidecars, with their indexes, in spec order.
    pub fn sidecars(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.of(Kind::Sidecar)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (usize, &Container)> {
        self.containers.iter().enumerate().filter(move |(_, c)| c.kind == kind)
    }
}
