//! The heart of podshim: a pod's life as a pure function of facts and time.
//!
//! ```text
//! fold(pod, state, fact)   what happened
//! change(pod, fact)        what the pod is after that
//! plan(pod, state, now)    what to do now, what is waited for, and when to look again
//! status(pod, state, now)  what a user is told: phase, conditions, container statuses
//! narrate(pod, state, fact) the Kubernetes events that a fact is worth
//! ```
//!
//! The shim, the tests and (later) the simulator run these same functions; nothing else in the
//! project decides anything about a pod's life. This crate reads no clock, no file, no environment
//! and no random source: time, identifiers and outcomes come in as values.

mod exit_code;
mod fact;
mod fold;
mod model;
mod narrate;
mod plan;
mod rules;
mod state;
mod status;
mod time;
pub mod workload;

pub use exit_code::exit_code;
pub use fact::{
    Action, Change, End, Exit, Fact, Hook, Plan, ProbeKind, StartError, Stop, Subject, Waiting,
};
pub use fold::fold;
pub use model::{
    Container, Kind, Pod, Probe, PullWhen, RESTART_DELAY_MAX_S, RestartPolicy, Rule, RuleAction,
    change,
};
pub use narrate::{Event, narrate};
pub use plan::plan;
pub use rules::asked::refusal;
pub use state::{Incarnation, Life, SandboxPhase, State};
pub use status::{
    Condition, ContainerState, ContainerStatus, Deletion, PodPhase, PodStatus, deletion, status,
};
pub use time::{At, Mono, Wall};
