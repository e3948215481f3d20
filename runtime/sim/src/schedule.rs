//! When a probe is to be tried, as a diary that is carried forward.
//!
//! "Probes are tried every `periodSeconds`, at most one at a time; an attempt that cannot be made is
//! repeated, up to three in all, and then counts for nothing." Between two dates a startup or readiness
//! probe with bursts is also tried early, until it has succeeded once.

use plan::{Mono, Probe, ProbeKind};

/// What an attempt said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Yes,
    No,
    /// It could not be made.
    Nothing,
}

/// The diary of one probe of one incarnation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schedule {
    /// When it may first be tried, once that is known.
    pub origin: Option<Mono>,
    /// The next date.
    pub tick: Mono,
    /// One is under way; whether it is early.
    pub in_flight: Option<bool>,
    /// An attempt of this date could not be made so often.
    pub errors: u32,
    /// After how long the next early attempt comes, if one does, and since when that is counted.
    pub pause: Option<(u64, Mono)>,
    /// How many early ones were begun.
    pub early: u32,
    pub failures: u32,
    pub successes: u32,
    pub verdict: Option<bool>,
    pub ever: bool,
}

const TRIES: u32 = 3;
/// From a failure to the first early attempt; then twice as long each time.
const FIRST_PAUSE: u64 = Mono::SECOND / 100;

impl Schedule {
    /// An attempt begins.
    pub(crate) fn begin(&mut self, probe: &Probe, now: Mono, early: bool) {
        self.in_flight = Some(early);
        self.pause = None;
        if early {
            self.early += 1;
        } else if self.errors == 0 {
            let period = u64::from(probe.period_s.max(1)) * Mono::SECOND;
            while self.tick <= now {
                self.tick = Mono(self.tick.0 + period);
            }
        }
    }

    /// It ends.
    pub(crate) fn end(&mut self, probe: &Probe, now: Mono, said: Said) {
        let Some(early) = self.in_flight.take() else { return };
        let mut rest = Some((FIRST_PAUSE << self.early.min(30), now));
        match (said, early) {
            (Said::Nothing, false) => {
                self.errors += 1;
                if self.errors == TRIES {
                    self.errors = 0;
                }
                // What could not be tried is not tried early either.
                rest = None;
            }
            (Said::Nothing | Said::No, true) => {}
            (Said::Yes, _) => {
                (self.errors, self.failures) = (0, 0);
                self.successes += 1;
                if self.successes >= probe.success_threshold.max(1) {
                    (self.verdict, self.ever) = (Some(true), true);
                }
            }
            (Said::No, false) => {
                (self.errors, self.successes) = (0, 0);
                self.failures += 1;
                if self.failures >= probe.failure_threshold.max(1) {
                    self.verdict = Some(false);
                }
            }
        }
        self.pause = rest;
    }

    /// When the next attempt is to begin, and whether it is early; `None` while one is under way.
    pub(crate) fn due(&self, kind: ProbeKind, probe: &Probe) -> Option<(Mono, bool)> {
        if self.in_flight.is_some() {
            return None;
        }
        let origin = self.origin?;
        if self.errors > 0 {
            return Some((origin, false));
        }
        let bursts = probe.burst && kind != ProbeKind::Liveness && probe.success_threshold <= 1;
        let period = u64::from(probe.period_s.max(1)) * Mono::SECOND;
        if let Some((pause, since)) = self.pause
            && bursts
            && !self.ever
            && pause < period
            && Mono(since.0 + pause) < self.tick
        {
            return Some((Mono(since.0 + pause), true));
        }
        Some((self.tick, false))
    }
}
