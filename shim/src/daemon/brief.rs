//! What the daemon asks of many objects at a time, so that it need not read them each time.

use plan::Wall;
use serde_json::Value;

use crate::workload::{Outline, wall};

/// The few facts about an object.
#[derive(Clone, Debug)]
pub struct Brief {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// It was asked to go.
    pub is_deleting: bool,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace_s: Option<u64>,
    /// The uids of its owners.
    pub owners: Vec<String>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Wall>,
    /// When the last of a pod's containers ended.
    pub finished: Option<Wall>,
    /// How a pod is.
    pub outline: Outline,
}

impl Brief {
    /// Of an object.
    pub fn of(object: &Value) -> Brief {
        let metadata = &object["metadata"];
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let statuses = ["containerStatuses", "initContainerStatuses"];
        let statuses =
            statuses.iter().filter_map(|list| object["status"][list].as_array()).flatten();
        let ends = statuses.filter_map(|s| s["state"]["terminated"]["finishedAt"].as_str());
        Brief {
            uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
            version: version_of(object),
            is_deleting: metadata["deletionTimestamp"].is_string(),
            grace_s: metadata["deletionGracePeriodSeconds"].as_u64(),
            owners: owners.filter_map(|o| o["uid"].as_str().map(str::to_owned)).collect(),
            created: metadata["creationTimestamp"].as_str().and_then(wall),
            finished: ends.filter_map(wall).max(),
            outline: Outline::of(object),
        }
    }
}

/// `metadata.resourceVersion`.
pub fn version_of(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}
