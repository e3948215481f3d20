//! What is remembered of objects that are gone, for as long as somebody may ask what happened: a directory
//! of files, each named by an object's uid.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::cli::names_in;
use crate::durable;

/// How long: as an API server remembers events (`kube-apiserver --event-ttl`).
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Of how many that are gone, at most.
const REMEMBERED_MAX: usize = 1000;

/// Forgets what nobody asks for any more: of objects that are not there (`is_there`, by uid), all that is older
/// than an hour, and the oldest if there are too many. Says whether any is left.
pub fn expire(
    dir: &Path,
    is_there: impl Fn(&str) -> bool,
    now: SystemTime,
) -> anyhow::Result<bool> {
    let mut gone = Vec::new();
    let names = names_in(dir)?;
    for name in &names {
        let uid = name.split_once('.').map_or(name.as_str(), |(uid, _)| uid);
        let path = dir.join(name);
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_happened_to_what_is_gone_is_forgotten_in_time_and_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let make = |name: &str, age_s: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(now - Duration::from_secs(age_s)).unwrap();
        };
        make("lives.json", 9000);
        make("old.json", 3601);
        make("new.json", 3599);
        make("cut.new", 0);
        let left = || {
            let mut names = names_in(dir.path()).unwrap();
            names.sort();
            names
        };
        assert!(expire(dir.path(), |uid| uid == "lives", now).unwrap());
        assert_eq!(left(), ["cut.new", "lives.json", "new.json"]);
        for n in 0..REMEMBERED_MAX {
            make(&format!("n{n:04}.json"), 10);
        }
        assert!(expire(dir.path(), |uid| uid == "lives", now).unwrap());
        // The oldest of 1002: the one before, and the first that was made.
        assert_eq!(left().len(), REMEMBERED_MAX + 1);
        assert!(!left().contains(&"new.json".to_owned()));
        let later = now + Duration::from_secs(3700);
        assert!(expire(dir.path(), |uid| uid == "lives", later).unwrap());
        assert_eq!(left(), ["lives.json"]);
        assert!(!expire(dir.path(), |_| false, later).unwrap());
    }
}
