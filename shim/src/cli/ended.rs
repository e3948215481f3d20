//! Pods that do not live: those that only the daemon knows, and what is remembered of those that have ended.

use bundles::layout::Layout;
use serde_json::Value;

use super::PodRef;
use super::api::Api;
use crate::daemon::store::Kind;
use crate::pod::result::PodResult;
use crate::protocol::Event;

/// A pod of the daemon's and what happened to it, if there is a daemon that has one of that name.
pub fn find(
    layout: &Layout,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Option<(Value, Vec<Event>)>> {
    let Some(api) = Api::find(layout)? else { return Ok(None) };
    let Some(object) = api.get(Kind::Pod, namespace, name)? else { return Ok(None) };
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let events = PodResult::read(layout, uid)?.map(|result| result.events).unwrap_or_default();
    Ok(Some((object, events)))
}

/// All pods of a namespace that only the daemon knows: what has ended, or has not begun.
pub fn all(
    layout: &Layout,
    namespace: Option<&str>,
    living: &[PodRef],
) -> anyhow::Result<Vec<Value>> {
    let Some(api) = Api::find(layout)? else { return Ok(Vec::new()) };
    let mut pods = api.list(Kind::Pod, namespace)?;
    pods.retain(|pod| !living.iter().any(|other| pod["metadata"]["uid"] == *other.uid));
    Ok(pods)
}

/// The ends of pods that are remembered, also of those that were deleted: of those that are wanted, and that
/// do not live.
pub fn remembered(
    layout: &Layout,
    living: &[PodRef],
    wanted: impl Fn(&PodRef) -> bool,
) -> anyhow::Result<Vec<PodResult>> {
    let mut all = PodResult::all(layout)?;
    all.retain(|result| {
        let pod = PodRef::of(&result.object);
        wanted(&pod) && living.iter().all(|other| other.uid != pod.uid)
    });
    Ok(all)
}
