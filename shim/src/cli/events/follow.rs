//! What happens to objects, as it happens: living pods' shims tell it; the rest comes into files.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

use bundles::layout::Layout;
use plan::Wall;
use serde_json::Value;

use super::kind_in;
use crate::cli::watched::{Arrivals, Heard, Watched, speaking};
use crate::cli::{PodRef, names_in};
use crate::event_log;
use crate::pod::result::PodResult;
use crate::protocol::Event;
use crate::shown::Shown;

/// Tells what has happened after a moment, and then what happens, of objects that are wanted (by kind and
/// name). `tell` hears of everything once, is also called when there is no news, and says whether to go on.
/// Says whether a pod did not answer.
pub fn follow(
    layout: &Layout,
    wanted: impl Fn(&str, &PodRef) -> bool,
    after: Wall,
    mut tell: impl FnMut(Vec<(Value, Event)>) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let mut arrivals = Arrivals::new(layout);
    let mut watched: Vec<Watched> = Vec::new();
    let mut memory = Memory { after, known: HashMap::new() };
    loop {
        let mut news = memory.by_files(layout, &wanted, &watched)?;
        news.sort_by_key(|(_, event)| event.at.0);
        if !tell(news)? {
            return Ok(arrivals.failed);
        }
        for mut one in arrivals.next(|pod| wanted("Pod", pod))? {
            if one.ask_events().is_ok() {
                watched.push(one);
            } else {
                arrivals.lost(&one.pod);
            }
        }
        for index in speaking(&watched, Arrivals::LOOK)?.into_iter().rev() {
            let one = &mut watched[index];
            let events = match one.hear()? {
                Some(Heard::Happened(event)) => {
                    memory.note(&one.pod.uid, &event);
                    vec![event]
                }
                Some(Heard::Events(events)) => memory.news(&one.pod.uid, events),
                Some(_) => continue,
                None => {
                    arrivals.lost(&watched.swap_remove(index).pod);
                    continue;
                }
            };
            let object = &one.object;
            if !tell(events.into_iter().map(|event| (object.clone(), event)).collect())? {
                return Ok(arrivals.failed);
            }
        }
    }
}

/// What was told.
struct Memory {
    after: Wall,
    /// By uid.
    known: HashMap<String, Known>,
}

#[derive(Default)]
struct Known {
    /// Which events.
    shown: Shown,
    /// The file that was read: its inode and size.
    file: (u64, u64),
}

impl Memory {
    fn note(&mut self, uid: &str, event: &Event) {
        self.known.entry(uid.to_owned()).or_default().shown.add(event.at);
    }

    /// What of this was not told yet.
    fn news(&mut self, uid: &str, mut events: Vec<Event>) -> Vec<Event> {
        events.retain(|event| event.at.0 > self.after.0);
        self.known.entry(uid.to_owned()).or_default().shown.news(events, |event| event.at)
    }

    /// Of pods that have ended, and are not heard to the end, and of what controllers did.
    fn by_files(
        &mut self,
        layout: &Layout,
        wanted: impl Fn(&str, &PodRef) -> bool,
        watched: &[Watched],
    ) -> anyhow::Result<Vec<(Value, Event)>> {
        let mut all = Vec::new();
        let heard: HashSet<&str> = watched.iter().map(|one| one.pod.uid.as_str()).collect();
        let mut there: HashSet<String> = heard.iter().map(|uid| (*uid).to_owned()).collect();
        for dir in [layout.results(), layout.event_logs()] {
            for name in names_in(&dir)? {
                let Some((uid, "json" | "jsonl")) = name.split_once('.') else { continue };
                // One that has gone meanwhile is told no more.
                let Ok(meta) = dir.join(&name).metadata() else { continue };
                there.insert(uid.to_owned());
                let file = (meta.ino(), meta.len());
                let known = self.known.get(uid);
                if heard.contains(uid) || known.is_some_and(|known| known.file == file) {
                    continue;
                }
                let read = if dir == layout.results() {
                    let result = PodResult::read(layout, uid);
                    result.map(|found| found.map(|result| (result.object, result.events)))
                } else {
                    let told = event_log::read(layout, uid);
                    told.map(|found| found.map(|told| (told.object, told.events)))
                };
                let found = read.unwrap_or_else(|e| {
                    tracing::warn!("{e:#}");
                    None
                });
                self.known.entry(uid.to_owned()).or_default().file = file;
                let Some((object, events)) = found else { continue };
                if wanted(kind_in(&object), &PodRef::of(&object)) {
                    let news = self.news(uid, events).into_iter();
                    all.extend(news.map(|event| (object.clone(), event)));
                }
            }
        }
        self.known.retain(|uid, _| there.contains(uid));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_in_one_moment_is_told_each_once_also_by_the_next_shim() {
        let event = |at: u64, reason: &str| Event {
            at: Wall(at),
            warning: false,
            reason: reason.to_owned(),
            message: String::new(),
            container: None,
            first_at: None,
            count: 1,
        };
        let mut memory = Memory { after: Wall(1), known: HashMap::new() };
        let all =
            [event(1, "Before"), event(2, "Killing"), event(2, "Stopping"), event(3, "Killed")];
        // Its shim dies when it has told one of two.
        memory.note("uid", &all[1]);
        let news = memory.news("uid", all.to_vec());
        let reasons: Vec<&str> = news.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(reasons, ["Stopping", "Killed"]);
        assert!(memory.news("uid", all.to_vec()).is_empty());
    }
}
