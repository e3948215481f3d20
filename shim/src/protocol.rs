//! What is said over a pod's socket: JSON values, one a line, each an externally tagged request or
//! reply. Root only (the socket lies in a directory of mode 0700).
//!
//! A client may send [`Request`]s at any time. After [`Request::Watch`] it is sent every event and
//! every change of status until the pod is over; the channel to the pod's owner is a watching client
//! from the start.

use plan::{Mono, Wall};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pod::file::Definition;
use crate::timeline::Timeline;

/// From a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The pod as it is: one [`Reply::Pod`].
    Get,
    /// Everything from now on, after one [`Reply::Pod`].
    Watch,
    /// Delete the pod; `null` is its own grace period. One [`Reply::Done`] at once.
    Delete {
        /// Seconds.
        grace_s: Option<u32>,
    },
    /// Kill every container of the pod at once. One [`Reply::Done`].
    Kill,
    /// Stop all containers, because the host goes down; what the pod needs to go on stays. One
    /// [`Reply::Done`] at once.
    Suspend,
    /// What has happened so far: one [`Reply::Events`].
    Events,
    /// What is waited for: one [`Reply::Waiting`].
    Waiting,
    /// What the containers use: one [`Reply::Usage`].
    Usage,
    /// Run a program in a container. The request's first byte brings descriptors: standard input,
    /// output and error; or, for a terminal, one socket on which its other side is sent back. One
    /// [`Reply::Exited`] or [`Reply::Error`] when it is over. If the client goes, so does the program.
    Exec {
        /// The container's name.
        container: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Lines and columns of the terminal that it is to have.
        terminal: Option<(u16, u16)>,
    },
    /// Restart one container. One [`Reply::Done`] or [`Reply::Error`].
    Restart {
        /// Its name.
        container: String,
    },
    /// Stop a sidecar, which then stays down. One [`Reply::Done`] or [`Reply::Error`].
    Stop {
        /// Its name.
        container: String,
    },
    /// Start one that was stopped. One [`Reply::Done`] or [`Reply::Error`].
    Start {
        /// Its name.
        container: String,
    },
    /// Become the binary that comes with the request, in the same process. [`Reply::Error`] if that
    /// cannot be; else the connection ends, and the shim's next event is `Upgraded`.
    Upgrade,
    /// Make the pod another one. One [`Reply::Changed`], [`Reply::Refused`] or [`Reply::Error`].
    Change {
        /// What it is to be.
        definition: Box<Definition>,
        /// Only say whether that can be done.
        check: bool,
    },
}

/// From the shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The whole Kubernetes object.
    Pod(Box<Value>),
    /// Another shim has the pod now, and this is it, with all that has happened. An empty line comes
    /// before it, because the shim before may have died in the middle of one.
    Adopted {
        /// The whole Kubernetes object.
        object: Box<Value>,
        /// What has happened so far, the oldest first; at most a few hundred.
        events: Vec<Event>,
    },
    /// The pod's `status`, which has changed.
    Status(Box<Value>),
    /// Something happened.
    Event(Event),
    /// What has happened so far, the oldest first; at most a few hundred.
    Events(Vec<Event>),
    /// What each container that runs uses.
    Usage(Vec<ContainerUsage>),
    /// All that the pod waits for; to those who watch, when it has changed.
    Waiting(Vec<PodWaiting>),
    /// A request was taken.
    Done,
    /// A request was refused.
    Error(String),
    /// A pod is what it was to become; or can become it, if only that was asked.
    Changed {
        /// It was another one before.
        changed: bool,
    },
    /// A pod cannot become that, and nothing was changed: each reason with its field.
    Refused(Vec<String>),
    /// A program that was asked for has ended.
    Exited {
        /// Its exit code; 126 or 127 if it could not be executed or was not there.
        code: i32,
        /// Why it was not executed.
        failure: Option<String>,
    },
    /// The pod's life, if its owner wants to draw it; right before [`Reply::Over`].
    Timeline(Box<Timeline>),
    /// The pod is over and nothing is left of it.
    Over {
        /// What `podshim run` of this pod exits with.
        exit_code: i32,
    },
}

/// A Kubernetes event: of a pod, or of what its controller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Wall,
    /// `Warning` and not `Normal`.
    pub warning: bool,
    /// `Started`, `Killing`, ….
    pub reason: String,
    /// For people.
    pub message: String,
    /// The container it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// When it happened first, if `at` is not that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<Wall>,
    /// How often it has happened.
    #[serde(default = "once")]
    pub count: u32,
}

fn once() -> u32 {
    1
}

impl Event {
    /// When it happened first.
    pub fn first(&self) -> Wall {
        self.first_at.unwrap_or(self.at)
    }

    /// Whether `other` is the same happening at another time.
    pub fn is_repeated_by(&self, other: &Event) -> bool {
        (self.warning, &self.reason, &self.message, &self.container)
            == (other.warning, &other.reason, &other.message, &other.container)
    }
}

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerUsage {
    /// Its name.
    pub container: String,
    /// Which incarnation: what was used before is another one's.
    pub inc: u32,
    /// When this was read.
    pub at: Mono,
    /// Processor time in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Working set in bytes.
    pub memory_bytes: Option<u64>,
}

/// One thing that a pod waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodWaiting {
    /// The container that waits; the pod itself if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// For what.
    pub reason: String,
    /// Since when, on `CLOCK_BOOTTIME`, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Mono>,
    /// When time alone ends it, on `CLOCK_BOOTTIME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Mono>,
}

impl PodWaiting {
    /// Whether somebody waits for a container to stop.
    pub fn is_stop(&self) -> bool {
        self.until.is_some() && self.reason.contains("grace")
    }
}
