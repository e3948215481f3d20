//! Moments, as values. Two clocks travel together because they answer different questions.

use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_BOOTTIME`, in nanoseconds. Deadlines, periods and back-off are counted on it,
/// so that a step of the wall clock shifts none of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

/// A moment of `CLOCK_REALTIME`, in nanoseconds since 1970-01-01T00:00:00Z. It is only shown to
/// people (`startedAt`, `finishedAt`, …); nothing is decided by it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub u64);

/// When something happened, on both clocks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct At {
    /// For deciding.
    pub mono: Mono,
    /// For showing.
    pub wall: Wall,
}

impl Mono {
    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// This moment plus whole seconds; saturates.
    #[must_use]
    pub fn plus_s(self, seconds: u32) -> Mono {
        Mono(self.0.saturating_add(u64::from(seconds) * Mono::SECOND))
    }

    /// Whole seconds from `earlier` to this moment, truncated (a kubelet's accounting of grace);
    /// zero if `earlier` is later.
    #[must_use]
    pub fn whole_s_since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0) / Mono::SECOND
    }
}

impl Wall {
    /// `2026-11-24T16:40:15Z`: RFC 3339 in UTC with whole seconds, as Kubernetes' `metav1.Time`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = self.0 / Mono::SECOND;
        let (year, month, day) = civil(seconds / 86_400);
        let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        // By hand: a status has a dozen of these, and `format!` takes most of its time.
        let mut text = String::with_capacity(24);
        let parts = [(year, '-'), (month, '-'), (day, 'T'), (h, ':'), (m, ':'), (s, 'Z')];
        for (index, (number, end)) in parts.into_iter().enumerate() {
            if index == 0 {
                digits(&mut text, number / 100);
            }
            digits(&mut text, number % 100);
            text.push(end);
        }
        text
    }
}

/// Two digits. (The last year that nanoseconds in 64 bits can tell is 2554.)
fn digits(text: &mut String, number: u64) {
    text.push(char::from(b'0' + u8::try_from(number / 10).unwrap_or(0)));
    text.push(char::from(b'0' + u8::try_from(number % 10).unwrap_or(0)));
}

/// Days since 1970-01-01 as a proleptic Gregorian date. Counts in eras of 400 years that begin on
/// 1 March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_corners() {
        let shown = |s: u64| Wall(s * Mono::SECOND).rfc3339();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(shown(1_767_225_600 + 45_296), "2026-01-01T12:34:56Z");
    }

    #[test]
    fn grace_is_counted_in_whole_seconds() {
        let t = Mono(5 * Mono::SECOND);
        assert_eq!(Mono(6 * Mono::SECOND + 999_999_999).whole_s_since(t), 1);
        assert_eq!(t.whole_s_since(Mono(9 * Mono::SECOND)), 0);
    }
}
