//! How a pod of the daemon's has ended, and what happened to it: written by its shim before the last of the
//! pod goes. The daemon takes note of it, whenever that comes; it stays for who asks later.

use std::io;

use anyhow::Context;
use bundles::layout::Layout;
use runtime::state_dir::make_dir;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::names_in;
use crate::durable::Reserve;
use crate::protocol::Event;

/// The last that a shim has to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodResult {
    /// The whole Kubernetes object.
    pub object: Value,
    /// What `podshim run` of this pod would exit with.
    pub exit_code: i32,
    /// What happened to it, the oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
}

impl PodResult {
    /// Writes it; it is there after a power cut.
    pub fn write(&self, layout: &Layout, uid: &str) -> anyhow::Result<()> {
        make_dir(&layout.results(), 0o700)?;
        let path = layout.result(uid);
        Reserve::at(layout.reserve())
            .write(&path, &serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it, if there is one.
    pub fn read(layout: &Layout, uid: &str) -> anyhow::Result<Option<PodResult>> {
        let path = layout.result(uid);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let result = serde_json::from_slice(&bytes);
        result.map(Some).with_context(|| format!("{} is no result of a pod", path.display()))
    }

    /// All that are remembered. One that goes at this moment, or is none, is none of them.
    pub fn all(layout: &Layout) -> anyhow::Result<Vec<PodResult>> {
        let mut all = Vec::new();
        for name in names_in(&layout.results())? {
            let Some(uid) = name.strip_suffix(SUFFIX) else { continue };
            match PodResult::read(layout, uid) {
                Ok(result) => all.extend(result),
                Err(e) => tracing::warn!("{e:#}"),
            }
        }
        Ok(all)
    }
}

const SUFFIX: &str = ".json";
