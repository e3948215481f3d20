//! The pod as the heart knows it: compiled once from the manifest, and changed by facts only
//! ([`change`]), so that whoever has the first pod and its facts has every later one.
//!
//! Only what a decision depends on stands here. Images' contents, mounts, environments and users
//! are the bundles' business.

use serde::{Deserialize, Serialize};

use crate::fact::{Change, Fact, ProbeKind};

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

/// One rule of `restartPolicyRules` (KEP-5307, KEP-5532).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What follows from an exit that it matches.
    pub action: RuleAction,
    /// `operator: In`; else `NotIn`.
    pub within: bool,
    /// `exitCodes.values`.
    pub codes: Vec<i32>,
}

/// What a [`Rule`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// The container is restarted.
    Restart,
    /// The pod starts over with its first init container.
    RestartAllContainers,
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
    /// Consecutive successes after which it has succeeded; more than 1 for readiness only.
    pub success_threshold: u32,
    /// Between two periods it is also tried early, until it has succeeded once.
    pub burst: bool,
    /// Replaces the pod's grace period for a kill that this probe causes.
    pub grace_s: Option<u32>,
}

impl Default for Probe {
    /// Kubernetes' defaults.
    fn default() -> Probe {
        Probe {
            initial_delay_s: 0,
            period_s: 10,
            timeout_s: 1,
            failure_threshold: 3,
            success_threshold: 1,
            burst: true,
            grace_s: None,
        }
    }
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
    /// Its own `restartPolicy`, on mains and regular init containers.
    pub policy: Option<RestartPolicy>,
    /// Its `restartPolicyRules`, in their order.
    pub rules: Vec<Rule>,
    /// `startupProbe`; no probe and no hook is ever on [`Kind::Init`].
    pub startup: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// It has a `lifecycle.postStart`.
    pub post_start: bool,
    /// It has a `lifecycle.preStop`.
    pub pre_stop: bool,
    /// Named by the annotation `podshim.dev/notify`: it is started once it has said so itself.
    pub notify: bool,
    /// Named by the annotation `podshim.dev/standby`: its next incarnation is created while the
    /// current one runs, so that a restart is one write.
    pub standby: bool,
    /// What it mounts depends on what the containers before it have written (`subPath`): it is not
    /// created before it may start, and has no spare.
    pub at_start: bool,
}

/// What [`Pod::restart_delay_max_s`] is if nobody says.
pub const RESTART_DELAY_MAX_S: u32 = 300;

fn restart_delay_max_s() -> u32 {
    RESTART_DELAY_MAX_S
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
    /// The longest delay before a container is restarted, in seconds: a kubelet's
    /// `crashLoopBackOff.maxContainerRestartPeriod`, from 1 to [`RESTART_DELAY_MAX_S`].
    #[serde(default = "restart_delay_max_s")]
    pub restart_delay_max_s: u32,
    /// `spec.readinessGates`: conditions that somebody else would have to set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// All containers: `spec.initContainers` in their order, then `spec.containers` in theirs.
    /// An index into this list names a container in every fact and action.
    pub containers: Vec<Container>,
}

impl Container {
    /// A container with neither probes nor hooks nor a policy of its own.
    #[must_use]
    pub fn new(name: &str, kind: Kind, image: &str) -> Container {
        Container {
            name: name.to_owned(),
            kind,
            image: image.to_owned(),
            pull: PullWhen::Once,
            policy: None,
            rules: Vec::new(),
            startup: None,
            readiness: None,
            liveness: None,
            post_start: false,
            pre_stop: false,
            notify: false,
            standby: false,
            at_start: false,
        }
    }

    /// Its probe of a kind.
    #[must_use]
    pub fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
        }
    }
}

/// Makes a pod what it is after `fact`. To be called once the fact is folded: folding it takes the old
/// definitions.
pub fn change(pod: &mut Pod, fact: &Fact) {
    let Fact::Changed { containers, active_deadline_s } = fact else { return };
    for Change { c, container, .. } in containers {
        if let Some(old) = pod.containers.get_mut(*c) {
            old.clone_from(container);
        }
    }
    pod.active_deadline_s = active_deadline_s.or(pod.active_deadline_s);
}

impl Pod {
    /// The mains, with their indexes.
    pub fn mains(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.containers.iter().enumerate().filter(|(_, c)| c.kind == Kind::Main)
    }
}
