//! Where a pump may die: between any two stores and system calls.
//!
//! In the crate's own tests each [`point`] can be made the last thing that a pump does (an unwinding
//! that nobody but the test catches; the pump's destructors store nothing, so this leaves the same
//! state as SIGKILL), and writes can be made short. Everywhere else both are nothing at all.

#[cfg(not(test))]
#[inline(always)]
pub(super) fn point() {}

/// How much of `len` bytes the next write is given.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn write_at_most(len: usize) -> usize {
    len
}

#[cfg(test)]
pub(super) use armed::{Killed, arm, point, short_writes, write_at_most};

#[cfg(test)]
mod armed {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<u32> = const { Cell::new(0) };
        static LONGEST: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// What a killed pump unwinds with.
    pub(crate) struct Killed;

    /// Die at the `nth` point from now on; 0: never.
    pub(crate) fn arm(nth: u32) {
        LEFT.set(nth);
    }

    /// No write takes more than `longest` bytes from now on.
    pub(crate) fn short_writes(longest: usize) {
        LONGEST.set(longest);
    }

    pub(crate) fn point() {
        match LEFT.get() {
            0 => {}
            1 => {
                LEFT.set(0);
                std::panic::resume_unwind(Box::new(Killed));
            }
            n => LEFT.set(n - 1),
        }
    }

    pub(crate) fn write_at_most(len: usize) -> usize {
        len.min(LONGEST.get())
    }
}
