//! What has been told of a pod or of a controller's object, for who asks later.
//!
//! A repeated event is one entry with a count, as an API server keeps it: a probe that fails every
//! second must not push out why the container beside it failed.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::Event;

/// How much is kept of each.
pub const EVENTS_MAX: usize = 256;

/// Events, the one that happened last at the end.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: VecDeque<Event>,
}

impl History {
    /// Adds an event and gives it with its count.
    pub fn add(&mut self, event: Event) -> Event {
        let known = self.events.iter().position(|known| known.is_repeated_by(&event));
        let event = match known.and_then(|index| self.events.remove(index)) {
            Some(known) => Event {
                first_at: Some(known.first()),
                count: known.count.saturating_add(event.count),
                ..event
            },
            None => event,
        };
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        event
    }

    /// What [`History::recall`] makes the same history of.
    pub fn keep(&self) -> Value {
        serde_json::to_value(&self.events).unwrap_or_default()
    }

    /// A history that was kept; of one that is not understood nothing is remembered.
    pub fn recall(kept: &Value) -> History {
        History { events: VecDeque::deserialize(kept).unwrap_or_default() }
    }

    /// All of them.
    pub fn events(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use plan::Wall;

    use super::*;

    fn event(at: u64, message: &str) -> Event {
        Event {
            at: Wall(at),
            warning: true,
            reason: "Unhealthy".into(),
            message: message.into(),
            container: Some("main".into()),
            first_at: None,
            count: 1,
        }
    }

    #[test]
    fn a_repeated_event_is_counted_and_is_the_newest() {
        let mut history = History::default();
        for (at, message) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
            history.add(event(at, message));
        }
        let told: Vec<_> = history
            .events()
            .into_iter()
            .map(|e| (e.message.clone(), e.count, e.first().0, e.at.0))
            .collect();
        assert_eq!(told, [("b".to_owned(), 1, 2, 2), ("a".to_owned(), 3, 1, 4)]);
    }

    #[test]
    fn repetition_pushes_nothing_out_and_only_the_newest_stay() {
        let mut history = History::default();
        history.add(event(0, "why it failed"));
        for at in 1..2000 {
            history.add(event(at, "again"));
        }
        assert_eq!(history.events().len(), 2);
        for at in 2000..2300 {
            history.add(event(at, &format!("{at}")));
        }
        assert_eq!(history.events().len(), EVENTS_MAX);
    }
}
