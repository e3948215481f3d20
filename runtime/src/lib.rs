//! Mechanism: carries out a pod's actions on Linux. Its verbs are CRI's verbs; it decides nothing.
//!
//! The shim calls it from one thread. Slow work (creating a container) happens in forked children.

pub mod cgroup;
pub mod clock;
pub mod devices;
pub mod journal;
pub mod log;
pub mod rootfs;
pub mod sandbox;
pub mod seal;
pub mod state_dir;
pub mod sys;
