//! Mechanism: carries out a pod's actions on Linux. Its verbs are CRI's verbs; it decides nothing.
//!
//! The shim calls it from one thread. Slow work (creating a container) happens in forked children.

pub mod cgroup;
mod child;
pub mod clock;
pub mod container;
pub mod descriptors;
pub mod devices;
pub mod diagnostics;
pub mod exec;
pub mod host;
pub mod journal;
pub mod keeper;
pub mod log;
pub mod network;
pub mod payload;
pub mod probe;
pub mod rootfs;
pub mod sandbox;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod standalone;
pub mod state_dir;
pub mod sub_path;
pub mod sys;
pub mod termination;
pub mod volume;

/// An error and all its causes in one line, each said once.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
