//! The kernel's wait before a process is moved, begun before it is needed.
//!
//! A process is moved by its number only after an RCU grace period (8 to 20 ms on a quiet host), unless somebody
//! else was moved within the last one (`cgroup_attach_lock` in the kernel's kernel/cgroup/cgroup.c: a
//! percpu_rw_semaphore). libcontainer moves the first process of each container so. Who knows that a pod
//! will be made has that wait pass beside all that comes before: it moves itself to where it is.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::v2::PROCS;
use super::{Cgroups, Kind, detect, files};

/// Such a wait is under way, and one is enough for everybody.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// A thread needs no more: it reads two files and writes one.
const STACK_BYTES: usize = 128 << 10;

/// Begins it, in a thread of its own, and returns at once. It is for speed alone: that it cannot be done is
/// no error.
pub fn expect_moves() {
    if UNDER_WAY.swap(true, Ordering::Relaxed) {
        return;
    }
    let begun = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let own = detect().ok().and_then(|cgroups| own_file(&cgroups));
        if let Some(file) = own {
            let _ = files::write(&file, &std::process::id().to_string());
        }
        UNDER_WAY.store(false, Ordering::Relaxed);
    });
    if begun.is_err() {
        UNDER_WAY.store(false, Ordering::Relaxed);
    }
}

/// The `cgroup.procs` in which this process is now. A path that is seen otherwise than it is mounted (in a
/// container) could be another group's, so the process must be in it.
fn own_file(cgroups: &Cgroups) -> Option<PathBuf> {
    let places = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = places.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it = match &cgroups.kind {
            Kind::V1(_) => controllers.split(',').any(|controller| controller == "pids"),
            Kind::V2(_) => controllers.is_empty(),
        };
        is_it.then_some(path)
    })?;
    let file = cgroups.process_root().join(path.trim_start_matches('/')).join(PROCS);
    let own = std::process::id().to_string();
    fs::read_to_string(&file).ok()?.lines().any(|line| line == own).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_that_of_the_group_in_which_this_process_is_and_stays() {
        let cgroups = detect().expect("control groups");
        let file = own_file(&cgroups).expect("a group");
        let before = fs::read_to_string("/proc/self/cgroup").expect("proc");
        files::write(&file, &std::process::id().to_string()).expect("as root");
        assert_eq!(fs::read_to_string("/proc/self/cgroup").expect("proc"), before);
        expect_moves();
        while UNDER_WAY.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        assert_eq!(fs::read_to_string("/proc/self/cgroup").expect("proc"), before);
    }
}
