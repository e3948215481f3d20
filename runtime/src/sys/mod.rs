//! The one room for `unsafe`: each file wraps one thing that the safe wrappers of rustix and nix
//! cannot say, with typed arguments and owned descriptors, and each block tells why it is sound.
//! Nothing is decided here.

pub(crate) mod bpf;
pub mod process;
pub(crate) mod seccomp;
pub(crate) mod shared_memory;
pub(crate) mod splice;
