//! The two clocks, read together.
//!
//! The one that decides is `CLOCK_BOOTTIME`, which begins at zero with each boot. A pod that outlives a boot
//! has a clock that goes on: it is so far ahead that the time of the boot and of what came before it has
//! passed on it as it has on the wall.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use plan::{At, Mono, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Puts this process' clock so many nanoseconds ahead of `CLOCK_BOOTTIME`.
pub fn set_ahead(ns: i64) {
    AHEAD.store(ns, Ordering::Relaxed);
}

/// How far this process' clock is ahead of `CLOCK_BOOTTIME`, in nanoseconds.
#[must_use]
pub fn ahead() -> i64 {
    AHEAD.load(Ordering::Relaxed)
}

/// How far a clock that showed `then` is to be ahead, in a boot after that, so that it shows what has passed
/// on the wall since. It never goes back, whatever the wall clock has done.
#[must_use]
pub fn ahead_after(then: At) -> i64 {
    let passed = wall().0.saturating_sub(then.wall.0);
    signed(then.mono.0.saturating_add(passed)).saturating_sub(signed(boottime()))
}

/// How far a clock is ahead that shows what the wall shows now: moments before the boot are moments on it.
#[must_use]
pub fn ahead_as_wall() -> i64 {
    signed(wall().0).saturating_sub(signed(boottime()))
}

/// Now, on both clocks.
#[must_use]
pub fn now() -> At {
    At { mono: mono(), wall: wall() }
}

/// Now, on the clock that decides.
#[must_use]
pub fn mono() -> Mono {
    Mono(boottime().saturating_add_signed(ahead()))
}

/// A moment of this process' clock on `CLOCK_BOOTTIME`; one before the boot is the boot.
#[must_use]
pub fn on_boottime(at: Mono) -> Mono {
    Mono(at.0.saturating_add_signed(ahead().saturating_neg()))
}

/// Which boot of the host this is (random(4), `boot_id`).
///
/// # Errors
/// The kernel does not tell it: `/proc` is not mounted.
pub fn boot_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?;
    Ok(text.trim().to_owned())
}

fn boottime() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

fn wall() -> Wall {
    Wall(nanoseconds(clock_gettime(ClockId::Realtime)))
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn nanoseconds(t: Timespec) -> u64 {
    // Neither clock is before its epoch on a running system.
    u64::try_from(t.tv_sec).unwrap_or(0) * Mono::SECOND + u64::try_from(t.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_over_a_boot_and_never_back() {
        let hour = 3600 * Mono::SECOND;
        let now = now();
        let shown = |ahead: i64| boottime().saturating_add_signed(ahead);
        // Down for an hour after two weeks: whatever has passed since this boot.
        let then = At { mono: Mono(14 * 24 * hour), wall: Wall(now.wall.0 - hour) };
        let after = shown(ahead_after(then)) - then.mono.0;
        assert!((hour..hour + 60 * Mono::SECOND).contains(&after), "{after}");
        // The wall clock was wrong.
        let then = At { mono: Mono(5), wall: Wall(now.wall.0 + hour) };
        assert!((5..60 * Mono::SECOND).contains(&shown(ahead_after(then))));
        assert!(shown(ahead_as_wall()).abs_diff(now.wall.0) < 60 * Mono::SECOND);
    }
}
