//! How a pod of the daemon's has ended, and what happened to it: written by its shim before the last of the
//! pod goes. The daemon takes note of it, whenever that comes; it stays for who asks later.

use std::io;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bundles::layout::Layout;
use runtime::state_dir::make_dir;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::names_in;
use crate::durable::{self, Reserve};
use crate::protocol::PodEvent;

/// How long what happened to a pod that was deleted is remembered: as an API server remembers events
/// (`kube-apiserver --event-ttl`).
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// How many of those are remembered at most.
pub const REMEMBERED_MAX: usize = 1000;

/// The last that a shim has to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodResult {
    /// The whole Kubernetes object.
    pub object: Value,
    /// What `podshim run` of this pod would exit with.
    pub exit_code: i32,
    /// What happened to it, the oldest first.
    #[serde(default)]
    pub events: Vec<PodEvent>,
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

    /// Forgets those that nobody asks for any more: of pods that are not there (`is_there`, by uid), all that
    /// are older than an hour, and the oldest if there are too many. Says whether any is left.
    pub fn expire(
        layout: &Layout,
        is_there: impl Fn(&str) -> bool,
        now: SystemTime,
    ) -> anyhow::Result<bool> {
        let mut gone = Vec::new();
        let names = names_in(&layout.results())?;
        for name in &names {
            let uid = name.strip_suffix(SUFFIX).unwrap_or(name);
            let path = layout.results().join(name);
            // What cannot be looked at is tried to be removed, which says why not.
            let at = path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            if !is_there(uid) {
                gone.push((at, path));
            }
        }
        gone.sort();
        let too_many = gone.len().saturating_sub(REMEMBERED_MAX);
        let is_old = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > REMEMBERED);
        let old = gone.iter().take_while(|(at, _)| is_old(at)).count();
        let forgotten = old.max(too_many);
        for (_, path) in &gone[..forgotten] {
            durable::remove(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(names.len() > forgotten)
    }
}

const SUFFIX: &str = ".json";

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn what_happened_to_pods_that_are_gone_is_forgotten_in_time_and_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let below = |name| dir.path().join(name);
        let layout = Layout {
            root: dir.path().to_owned(),
            state: below("state"),
            logs: below("logs"),
            network: below("network"),
        };
        let now = SystemTime::now();
        let make = |uid: &str, age_s: u64| {
            let result = PodResult { object: Value::Null, exit_code: 0, events: Vec::new() };
            result.write(&layout, uid).unwrap();
            let file = File::options().write(true).open(layout.result(uid)).unwrap();
            file.set_modified(now - Duration::from_secs(age_s)).unwrap();
        };
        make("lives", 9000);
        make("old", 3601);
        make("new", 3599);
        fs::write(layout.results().join("cut.new"), "").unwrap();
        let left = || {
            let mut names = names_in(&layout.results()).unwrap();
            names.sort();
            names
        };
        assert!(PodResult::expire(&layout, |uid| uid == "lives", now).unwrap());
        assert_eq!(left(), ["cut.new", "lives.json", "new.json"]);
        assert_eq!(PodResult::all(&layout).unwrap().len(), 2);
        for n in 0..REMEMBERED_MAX {
            make(&format!("n{n:04}"), 10);
        }
        assert!(PodResult::expire(&layout, |uid| uid == "lives", now).unwrap());
        // The oldest of 1002: the one before, and the first that was made.
        assert_eq!(left().len(), REMEMBERED_MAX + 1);
        assert!(!layout.result("new").exists());
        let later = now + Duration::from_secs(3700);
        assert!(PodResult::expire(&layout, |uid| uid == "lives", later).unwrap());
        assert_eq!(left(), ["lives.json"]);
        assert!(!PodResult::expire(&layout, |_| false, later).unwrap());
    }
}
