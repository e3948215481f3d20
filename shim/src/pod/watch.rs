//! What the shim waits for. The kernel may be out of memory for a moment, and what is not watched is never
//! heard of: it is tried again (epoll_ctl(2), ENOMEM and ENOSPC).

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for a descriptor from now on.
pub fn add(
    epoll: impl AsFd,
    fd: impl AsFd,
    data: EventData,
    flags: EventFlags,
) -> Result<(), Errno> {
    insist(|| epoll::add(&epoll, &fd, data, flags))
}

/// Waits for something else of it.
pub fn modify(
    epoll: impl AsFd,
    fd: impl AsFd,
    data: EventData,
    flags: EventFlags,
) -> Result<(), Errno> {
    insist(|| epoll::modify(&epoll, &fd, data, flags))
}

fn insist(mut ask: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match ask() {
            Err(Errno::NOMEM | Errno::NOSPC) => std::thread::sleep(PAUSE),
            answered => return answered,
        }
    }
    ask()
}
