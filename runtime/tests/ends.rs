//! How a process ended that somebody else reaps, or has reaped, or is reaping.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Child, Command};
use std::sync::Barrier;

use runtime::container::Process;

fn child() -> (Child, Process) {
    let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let process = Process::open(child.id().cast_signed()).unwrap();
    (child, process)
}

fn is_told_of_the_reaped() -> bool {
    let release = rustix::system::uname().release().to_str().unwrap().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn a_zombie_tells_and_one_that_was_reaped_where_the_kernel_knows() {
    let (mut child, process) = child();
    while !process.is_over() {
        std::thread::yield_now();
    }
    assert_eq!(process.end(), Some((7, None)));
    child.wait().unwrap();
    assert!(process.is_over());
    assert_eq!(process.end(), is_told_of_the_reaped().then_some((7, None)));
    assert_eq!(Process::gone(process.pid).end(), None);
}

/// In the middle of it there is neither a zombie nor a process that is gone.
#[test]
fn while_it_is_reaped_there_is_an_answer() {
    for _ in 0..300 {
        let (mut child, process) = child();
        let begin = Barrier::new(2);
        std::thread::scope(|scope| {
            let reaper = scope.spawn(|| {
                begin.wait();
                child.wait().unwrap()
            });
            begin.wait();
            while !process.is_over() {
                std::thread::yield_now();
            }
            let told = process.end();
            if is_told_of_the_reaped() || told.is_some() {
                assert_eq!(told, Some((7, None)));
            }
            assert_eq!(reaper.join().unwrap().code(), Some(7));
        });
    }
}
