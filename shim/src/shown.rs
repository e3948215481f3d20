//! Which events have been shown to somebody who hears of each as it happens, and of all once more when a shim or
//! a daemon has died in between.

use plan::Wall;

/// Up to when events have been shown, and how many of that moment: one fact may be several events.
#[derive(Debug, Default)]
pub struct Shown {
    until: Wall,
    of_that: usize,
}

impl Shown {
    /// One of that moment has been shown, as it happened.
    pub fn add(&mut self, at: Wall) {
        if at > self.until {
            *self = Shown { until: at, of_that: 0 };
        }
        self.of_that += usize::from(at == self.until);
    }

    /// Of all that has happened so far, in its order, what has not been shown; now it has.
    pub fn news<T>(&mut self, all: Vec<T>, at: impl Fn(&T) -> Wall) -> Vec<T> {
        let Shown { until, of_that: mut known } = *self;
        let mut is_new = |event: &T| {
            let is_known = at(event) == until && known > 0;
            known -= usize::from(is_known);
            !is_known && at(event) >= until
        };
        let new: Vec<T> = all.into_iter().filter(|event| is_new(event)).collect();
        new.iter().for_each(|event| self.add(at(event)));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_are_shown_each_once() {
        let mut shown = Shown::default();
        let mut news = |all: &[(u64, char)]| -> String {
            let new = shown.news(all.to_vec(), |(at, _)| Wall(*at));
            new.iter().map(|(_, name)| *name).collect()
        };
        assert_eq!(news(&[(1, 'a'), (2, 'b')]), "ab");
        assert_eq!(news(&[(1, 'a'), (2, 'b'), (2, 'c'), (3, 'd'), (3, 'e')]), "cde");
        assert_eq!(news(&[(1, 'a'), (2, 'b'), (2, 'c'), (3, 'd'), (3, 'e')]), "");
        // Two that are told as they happen, then all again.
        shown.add(Wall(4));
        shown.add(Wall(4));
        let all = [(3, 'e'), (4, 'f'), (4, 'g'), (4, 'h')];
        assert_eq!(shown.news(all.to_vec(), |(at, _)| Wall(*at)), [(4, 'h')]);
    }
}
