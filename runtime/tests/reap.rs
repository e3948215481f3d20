//! Reaping. A program of its own with one test, because it waits for any child.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use runtime::sys::process::{Reaped, reap};

#[expect(clippy::zombie_processes, reason = "it is reaped by what is tested")]
fn reaped(script: &str) -> (i32, Option<i32>) {
    let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
    loop {
        if let Some(Reaped { pid, code, signal }) = reap() {
            assert_eq!(u32::try_from(pid).unwrap(), child.id());
            return (code, signal);
        }
        std::thread::yield_now();
    }
}

#[test]
fn every_end_is_told_also_that_by_a_real_time_signal() {
    assert_eq!(reap(), None);
    for signal in [9, 34, 37, 64] {
        assert_eq!(reaped(&format!("kill -{signal} $$")), (128 + signal, Some(signal)));
    }
    assert_eq!(reaped("exit 7"), (7, None));
    assert_eq!(reap(), None);
}
