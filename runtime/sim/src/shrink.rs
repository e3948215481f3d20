//! Making a failure small: what can be left out of a life, and out of its pod, so that it still fails.
//!
//! Every choice has a name of its own ([`crate::choice`]), so leaving one out moves no other. First
//! choices are left out, then containers, then what is written into them; then numbers are made round.

use plan::{Container, Pod, PullWhen, RESTART_DELAY_MAX_S};

use crate::book::Broken;
use crate::choice::{Deed, Line};
use crate::life::Case;

/// More lives than that are not spent on one failure.
const LIVES_MAX: u32 = 4000;

/// A smaller case that breaks the same promise, and how it says so.
#[must_use]
pub fn shrink(case: &Case, broken: &Broken) -> (Case, Broken) {
    let lines = case.live(true).lines;
    let written = Case { script: Some(lines), until_s: Some(case.until_s()), ..case.clone() };
    let mut search = Search { kind: kind(broken), best: (case.clone(), broken.clone()), lives: 0 };
    if !search.fails(written) {
        return search.best;
    }
    loop {
        let before = search.best.0.clone();
        search.leave_lines_out();
        search.leave_containers_out();
        search.leave_fields_out();
        search.make_round();
        if search.best.0 == before || search.lives >= LIVES_MAX {
            return search.best;
        }
    }
}

/// A sentence without what differs from pod to pod.
fn kind(broken: &Broken) -> String {
    let words = broken.0.split([':', ';', '(']).next().unwrap_or_default().split_whitespace();
    let common = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
    words.filter(common).collect::<Vec<_>>().join(" ")
}

struct Search {
    kind: String,
    best: (Case, Broken),
    lives: u32,
}

impl Search {
    /// Whether a case breaks the same promise; then it is the best one.
    fn fails(&mut self, case: Case) -> bool {
        self.lives += 1;
        if self.lives > LIVES_MAX {
            return false;
        }
        match case.live(false).broken {
            Some(broken) if kind(&broken) == self.kind => {
                self.best = (case, broken);
                true
            }
            _ => false,
        }
    }

    fn lines(&self) -> Vec<Line> {
        self.best.0.script.clone().unwrap_or_default()
    }

    /// Leaves parts out, halves first, then smaller and smaller ones.
    fn leave_lines_out(&mut self) {
        let mut size = self.lines().len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.lines().len() {
                let mut lines = self.lines();
                lines.drain(from..(from + size).min(lines.len()));
                if !self.fails(Case { script: Some(lines), ..self.best.0.clone() }) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    fn leave_containers_out(&mut self) {
        for c in (0..self.best.0.pod.containers.len()).rev() {
            let mut case = self.best.0.clone();
            case.pod.containers.remove(c);
            if case.pod.mains().next().is_some() {
                let lines = self.lines();
                case.script = Some(lines.into_iter().filter_map(|l| without(l, c)).collect());
                let _ = self.fails(case.clone()) || self.fails_at_another_number(&case);
            }
        }
    }

    /// With fewer containers there are fewer facts and actions, so what strikes one of them by its number
    /// has to strike earlier.
    fn fails_at_another_number(&mut self, case: &Case) -> bool {
        let lines = case.script.as_deref().unwrap_or_default();
        let Some(index) = lines.iter().position(strikes) else { return false };
        (0..lines[index].choice.after_ms).rev().any(|number| {
            let mut lines = lines.to_vec();
            lines[index].choice.after_ms = number;
            self.fails(Case { script: Some(lines), ..case.clone() })
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut Pod)) {
        let mut case = self.best.0.clone();
        change(&mut case.pod);
        if case != self.best.0 {
            self.fails(case);
        }
    }

    fn leave_fields_out(&mut self) {
        self.change(|pod| pod.active_deadline_s = None);
        self.change(|pod| pod.restart_delay_max_s = RESTART_DELAY_MAX_S);
        self.change(|pod| pod.gates.clear());
        self.change(|pod| pod.grace_s = 30);
        self.change(|pod| pod.grace_s = 5);
        for c in 0..self.best.0.pod.containers.len() {
            let fields: [fn(&mut Container); 11] = [
                |k| k.startup = None,
                |k| k.readiness = None,
                |k| k.liveness = None,
                |k| k.post_start = false,
                |k| k.pre_stop = false,
                |k| k.notify = false,
                |k| k.standby = false,
                |k| k.at_start = false,
                |k| k.rules.clear(),
                |k| k.policy = None,
                |k| k.pull = PullWhen::Once,
            ];
            for field in fields {
                self.change(|pod| field(&mut pod.containers[c]));
            }
            while self.best.0.pod.containers[c].rules.len() > 1 {
                let before = self.lives;
                self.change(|pod| pod.containers[c].rules.truncate(1));
                if self.lives == before || self.best.0.pod.containers[c].rules.len() > 1 {
                    break;
                }
            }
        }
    }

    fn make_round(&mut self) {
        for seconds in [5, 60] {
            if self.best.0.until_s.is_some_and(|until| until > seconds) {
                self.fails(Case { until_s: Some(seconds), ..self.best.0.clone() });
            }
        }
        for index in 0..self.lines().len() {
            let line = self.lines()[index];
            let strikes =
                matches!(line.key.deed, Deed::Crash | Deed::Double | Deed::Jump | Deed::Oversleep);
            if strikes {
                continue;
            }
            let ms = line.choice.after_ms;
            for round in [0, 1000, ms / 1000 * 1000, ms / 100 * 100] {
                if round != self.lines()[index].choice.after_ms && round < ms {
                    let mut lines = self.lines();
                    lines[index].choice.after_ms = round;
                    if self.fails(Case { script: Some(lines), ..self.best.0.clone() }) {
                        break;
                    }
                }
            }
        }
    }
}

/// Whether it strikes something by its number.
fn strikes(line: &Line) -> bool {
    matches!(line.key.deed, Deed::Crash | Deed::Double | Deed::Jump | Deed::Oversleep)
}

/// A line for a pod without container `c`; `None` if it was about that.
fn without(mut line: Line, c: usize) -> Option<Line> {
    let moved = |of: usize| (of != c).then(|| if of > c { of - 1 } else { of });
    let of_pod = matches!(
        line.key.deed,
        Deed::Sandbox | Deed::User | Deed::Crash | Deed::Double | Deed::Jump | Deed::Oversleep
    );
    if !of_pod {
        line.key.c = moved(line.key.c)?;
    }
    if let Some(of) = line.choice.how.container_mut() {
        *of = moved(*of)?;
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Choice, How, Key};

    #[test]
    fn lines_follow_their_container() {
        let line = |c| Line { key: Key::of(Deed::Life, c, 1), choice: Choice::new(5, How::Fails) };
        assert_eq!(without(line(0), 1), Some(line(0)));
        assert_eq!(without(line(1), 1), None);
        assert_eq!(without(line(2), 1), Some(line(1)));
    }

    #[test]
    fn sentences_are_the_same_but_for_names_and_numbers() {
        let kind = |text: &str| kind(&Broken(text.into()));
        assert_eq!(kind("main0 is killed at Mono(3)"), kind("side2 is killed at Mono(5)"));
        assert_ne!(kind("main0 is killed"), kind("main0 is created"));
    }
}
