//! What an image says about how it is to be run: the part of the OCI image configuration that a
//! container's process is made from.
//!
//! Data only, and untrusted data: labels, annotations, ports and volumes of the image are left out
//! on purpose, because nothing of podshim may be steered by them.

use serde::{Deserialize, Serialize};

/// `config` of an OCI image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// `Entrypoint`; empty if there is none.
    pub entrypoint: Vec<String>,
    /// `Cmd`: the arguments, or the whole command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `Env`, each `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`; empty if there is none.
    pub working_dir: String,
    /// `User`: `user`, `uid`, `user:group`, `uid:gid`, …; empty for root.
    pub user: String,
    /// `StopSignal`, as the image has it.
    pub stop_signal: Option<String>,
}
