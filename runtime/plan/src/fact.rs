//! What can happen ([`Fact`]) and what can be done ([`Action`]): the two closed vocabularies
//! between the heart and the world.
//!
//! A fact is what the journal holds. Intent is a fact too ([`Fact::Creating`], [`Fact::Starting`],
//! [`Fact::Stopping`], …): it is folded *before* the action is carried out, so that planning again
//! while an action is under way yields nothing twice, and a successor knows what may have happened.
//!
//! A container is named by its index in [`crate::Pod::containers`] (`c`), one creation of it by its
//! incarnation number (`inc`, from 0, never used twice).

use serde::{Deserialize, Serialize};

use crate::model::Container;
use crate::time::Mono;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProbeKind {
    /// `startupProbe`: its success makes the container `started`.
    Startup,
    /// `readinessProbe`: its result is the container's readiness.
    Readiness,
    /// `livenessProbe`: its failure ends the container.
    Liveness,
}

/// Which hook of a container (`lifecycle`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    /// `postStart`: runs beside the container's first instructions, and holds back `started`.
    PostStart,
    /// `preStop`: runs before the stop signal, within the grace period.
    PreStop,
}

/// Why one container is stopped while the pod goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// Its startup probe failed `failureThreshold` times.
    StartupProbe,
    /// Its liveness probe did.
    LivenessProbe,
    /// Its `postStart` hook failed.
    PostStart,
    /// A user asked (`podshim restart POD -c NAME`); it is started again whatever the policy.
    Restart,
    /// Its definition was changed (`podshim apply`); it is started again whatever the policy.
    Changed,
    /// A user asked (`podshim stop POD -c NAME`), and it stays down.
    Asked,
}

/// A container's new definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whose.
    pub c: usize,
    /// What it is from now on.
    pub container: Container,
    /// What runs of it is to be stopped and started as this. Without that only its limits are other
    /// ones, and whoever tells this fact has set them already.
    pub restart: bool,
}

/// Why the pod as a whole ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// No main is left to run or to restart.
    Completed,
    /// An init container failed and may not be retried, or the pod was lost before all its mains had run
    /// and may not begin again.
    InitFailed,
    /// `spec.activeDeadlineSeconds` is over.
    DeadlineExceeded,
    /// Somebody deleted it, or its owner is gone.
    Deleted,
    /// Its pod sandbox cannot be made, and trying again cannot help.
    SandboxFailed,
    /// The host goes down. The pod goes on once it is up again ([`Fact::SandboxLost`]).
    Suspended,
    /// The host went down while a main ran that may not be restarted.
    Interrupted,
}

/// Why a process never reached its first instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartError {
    /// What was tried, on what, and the cause.
    pub message: String,
    /// The `errno` of `execve(2)`, if that is what failed: `ENOENT` makes `podshim run` exit 127,
    /// any other 126.
    pub errno: Option<i32>,
}

/// How an incarnation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, or 128 plus the number of the signal; 128 with a [`StartError`].
    pub code: i32,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// Its cgroup counted an OOM kill.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// Nobody knows how it ended: its process went while neither the pod's shim nor its keeper lived.
    /// Its code is 137 then, and it counts as failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// It was never executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_error: Option<StartError>,
    /// Its termination message: what it wrote into its file for it, or the end of its log, as its
    /// `terminationMessagePolicy` says; cut to its share of the pod's 12 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Something that happened. See the module's text for `c` and `inc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields' names are explained once, in the module's text")]
pub enum Fact {
    /// The shim took the pod on: `status.startTime`.
    Accepted,
    /// The shim that had taken it on is gone, and another one has taken it over; or (`upgraded`) it has
    /// become another version of itself.
    Adopted {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        upgraded: bool,
    },
    /// Everything of the pod that lived is gone, because the host was booted anew or its state directory
    /// emptied. The pod's counts, its last exits and its volumes on disk are still there.
    SandboxLost,
    /// Intent of [`Action::MakeSandbox`].
    SandboxMaking,
    /// The pod's namespaces, cgroup and volumes exist.
    SandboxReady,
    /// They could not be made, for `reason`: `FailedCreatePodSandBox`, or `FailedMount` if it was a
    /// volume. What was made has been removed again.
    SandboxFailed { reason: String, message: String, again: bool },
    /// The image is not here, or must be asked for: a pull began.
    ImagePulling { c: usize },
    /// The image is in the store. `pulled` if a pull brought it, in `took_ms` for `bytes`. `stale`
    /// if the registry was to be asked and could not be (why): the image that is here is used.
    ImageReady {
        c: usize,
        image_id: String,
        pulled: bool,
        took_ms: u64,
        bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stale: Option<String>,
    },
    /// It cannot be had: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, ….
    ImageFailed { c: usize, reason: String, message: String },
    /// Intent of [`Action::Create`].
    Creating { c: usize, inc: u32 },
    /// The process waits for its start. `inode` is its pidfd's (unique for the machine's life).
    Created { c: usize, inc: u32, pid: i32, inode: u64, container_id: String },
    /// `CreateContainerError` or `CreateContainerConfigError`, as `reason`; nothing is left of it.
    CreateFailed { c: usize, inc: u32, reason: String, message: String },
    /// Intent of [`Action::Start`].
    Starting { c: usize, inc: u32 },
    /// `execve(2)` happened.
    Started { c: usize, inc: u32 },
    /// Intent of [`Action::Hook`].
    HookRunning { c: usize, inc: u32, hook: Hook },
    /// It is over; `failure` is what went wrong. `notice` is a warning that is no failure.
    HookEnded {
        c: usize,
        inc: u32,
        hook: Hook,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notice: Option<String>,
    },
    /// The container said `READY=1` on its notification socket (sd_notify(3)).
    Notified { c: usize, inc: u32 },
    /// Intent of [`Action::Probe`]. `early` if it is between two periods.
    Probing {
        c: usize,
        inc: u32,
        kind: ProbeKind,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        early: bool,
    },
    /// One attempt ended. `output` is what it said, cut and without control characters; `warned` if
    /// it is a success that a user should look at (a redirect to another host).
    Probed {
        c: usize,
        inc: u32,
        kind: ProbeKind,
        success: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        warned: bool,
        output: String,
    },
    /// An attempt could not be made; it counts for nothing.
    ProbeErrored { c: usize, inc: u32, kind: ProbeKind, message: String },
    /// A user asked for the deletion of the pod; `None` is the pod's own grace period. Repeated, it
    /// can only shorten.
    DeleteAsked { grace_s: Option<u32> },
    /// Every container is to be killed at once: no hook, no order, no grace.
    KillAsked,
    /// The host goes down: all containers are to be stopped as at the pod's end. Those that are stopped by it
    /// have not completed, whatever their code.
    SuspendAsked,
    /// A user asked for the restart of one container.
    RestartAsked { c: usize },
    /// A user changed the manifest. All of it holds at once: from the next fact on the pod is what
    /// [`crate::change`] makes of it, and what is told of an image is told of the new one.
    Changed {
        containers: Vec<Change>,
        /// The pod's deadline, if it has another one now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        active_deadline_s: Option<u32>,
    },
    /// A user wants a sidecar to stop and to stay down.
    StopAsked { c: usize },
    /// A user wants it to run again.
    StartAsked { c: usize },
    /// Intent of [`Action::End`]: the pod's one grace clock starts here.
    Ending { why: End, grace_s: u32 },
    /// Intent of [`Action::RestartAll`]: the exit of container `c` matched a rule
    /// `RestartAllContainers`.
    RestartingAll { c: usize },
    /// Intent of [`Action::Stop`]: this container's grace clock starts here.
    Stopping { c: usize, inc: u32, why: Stop, grace_s: u32 },
    /// The stop signal was sent. `handled` is false if the process has no handler for it and is
    /// pid 1 of its namespace, so that the kernel drops the signal.
    Signalled { c: usize, inc: u32, signal: i32, handled: bool },
    /// SIGKILL was sent to all of it.
    Killed { c: usize, inc: u32 },
    /// The process of a created or started incarnation is gone, and all that it wrote is in its log.
    Exited { c: usize, inc: u32, exit: Exit },
    /// Its mounts, cgroup and bundle are removed.
    Gone { c: usize, inc: u32 },
    /// The pod's processes, cgroup, namespaces and volumes are removed: nothing is left to do.
    TornDown,
}

/// Something to do now. Carrying one out begins with folding its intent, where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields' names are explained once, in the module's text")]
pub enum Action {
    /// Make cgroup, namespaces and volumes.
    MakeSandbox,
    /// Find the image in the store or pull it; ends in `ImageReady` or `ImageFailed`.
    ResolveImage { c: usize },
    /// Create incarnation `inc`: cgroup, root filesystem, namespaces, a process that waits.
    Create { c: usize, inc: u32 },
    /// Let it execute. `restart_count` is the number of its log file.
    Start { c: usize, inc: u32, restart_count: u32 },
    /// One attempt of a probe.
    Probe { c: usize, inc: u32, kind: ProbeKind, early: bool, timeout_s: u32 },
    /// Run a hook; ends in `HookEnded`. Nobody waits for one whose container has ended.
    Hook { c: usize, inc: u32, hook: Hook },
    /// Begin to start the pod over: every container that runs is killed.
    RestartAll { c: usize },
    /// Begin to stop one container of a living pod.
    Stop { c: usize, inc: u32, why: Stop, grace_s: u32 },
    /// Begin to end the pod.
    End { why: End, grace_s: u32 },
    /// Send the stop signal to its main process.
    Signal { c: usize, inc: u32 },
    /// Kill every process of it (also of an incarnation that was created and never started).
    Kill { c: usize, inc: u32 },
    /// Remove what a dead incarnation left.
    Clean { c: usize, inc: u32 },
    /// Remove the pod's cgroup, namespaces and volumes.
    Teardown,
}

/// What a [`Waiting`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The pod.
    Pod,
    /// The container with this index.
    Container(usize),
}

/// One thing that is not done yet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Who waits.
    pub subject: Subject,
    /// For what, as a clause that a person reads: "sidecar log is not started".
    pub reason: String,
    /// Since when, if a fact says.
    pub since: Option<Mono>,
    /// When time alone ends the wait.
    pub until: Option<Mono>,
}

/// What follows from the facts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan that nobody carries out keeps the pod waiting"]
pub struct Plan {
    /// To be carried out now, in this order.
    pub actions: Vec<Action>,
    /// One entry for each thing that is not done yet.
    pub waiting: Vec<Waiting>,
    /// The next moment at which time alone changes the answer.
    pub wake_at: Option<Mono>,
}
