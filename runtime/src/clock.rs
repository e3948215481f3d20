//! The two clocks, read together.

use plan::{At, Mono, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now, on both clocks.
#[must_use]
pub fn now() -> At {
    At { mono: mono(), wall: Wall(nanoseconds(clock_gettime(ClockId::Realtime))) }
}

/// Now, on `CLOCK_BOOTTIME`.
#[must_use]
pub fn mono() -> Mono {
    Mono(nanoseconds(clock_gettime(ClockId::Boottime)))
}

fn nanoseconds(t: Timespec) -> u64 {
    // Neither clock is before its epoch on a running system.
    u64::try_from(t.tv_sec).unwrap_or(0) * Mono::SECOND + u64::try_from(t.tv_nsec).unwrap_or(0)
}
