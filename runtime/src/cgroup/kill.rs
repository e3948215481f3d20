//! Killing everybody in some cgroups, and being sure of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files::{self, is_gone};
use super::v1::ForkBrake;
use super::{CgroupError, Result};

/// After this a process is stuck in the kernel (a dead disk or network file system) and more
/// signals change nothing.
const DEADLINE: Duration = Duration::from_secs(5);
/// An exit takes a fraction of a millisecond; this is how often it is looked for.
const PAUSE: Duration = Duration::from_micros(300);

/// cgroup v1: signals to each process, with forks stopped meanwhile.
pub(super) fn by_signals(directories: &[PathBuf]) -> Result<usize> {
    let _brakes: Vec<ForkBrake> =
        directories.iter().filter_map(|directory| ForkBrake::new(directory)).collect();
    until_empty(directories, |processes| {
        // A listed id may have been given to a stranger before we send. So: take hold of the
        // processes, look again who is listed, and signal only those through what we hold.
        let held: Vec<(i32, OwnedFd)> = processes.iter().filter_map(|id| hold(*id)).collect();
        let listed: BTreeSet<i32> = files::processes(directories)?.into_iter().collect();
        for (_, process) in held.iter().filter(|(id, _)| listed.contains(id)) {
            // That it has ended (ESRCH) is what we want; anything else shows as a survivor.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        Ok(())
    })
}

fn hold(id: i32) -> Option<(i32, OwnedFd)> {
    match pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()) {
        Ok(process) => Some((id, process)),
        Err(Errno::SRCH) => None,
        Err(error) => {
            // No descriptors, no memory: the next round tries again, until the deadline.
            tracing::debug!(id, %error, "cannot open a process to kill it");
            None
        }
    }
}

/// cgroup v2: the kernel's own kill of a whole subtree, which forks cannot outrun (Linux 5.14).
pub(super) fn by_file(directories: &[PathBuf]) -> Result<usize> {
    until_empty(directories, |_| {
        directories.iter().try_for_each(|directory| {
            let path = directory.join("cgroup.kill");
            match files::write(&path, "1") {
                Err(error) if !is_gone(&error) => {
                    Err(CgroupError::Write { path, value: "1".to_owned(), source: error })
                }
                _ => Ok(()),
            }
        })
    })
}

/// Kills round by round until nobody was found twice in a row; returns how many were found.
fn until_empty(
    directories: &[PathBuf],
    mut kill: impl FnMut(&[i32]) -> Result<()>,
) -> Result<usize> {
    let deadline = Instant::now() + DEADLINE;
    let mut found = BTreeSet::new();
    let mut times_empty = 0;
    loop {
        let processes = files::processes(directories)?;
        if processes.is_empty() {
            times_empty += 1;
            if times_empty == 2 {
                return Ok(found.len());
            }
            continue;
        }
        times_empty = 0;
        if Instant::now() >= deadline {
            return Err(survivors(directories, &processes));
        }
        kill(&processes)?;
        found.extend(processes);
        sleep(PAUSE);
    }
}

fn survivors(directories: &[PathBuf], processes: &[i32]) -> CgroupError {
    CgroupError::Survivors {
        path: directories.last().cloned().unwrap_or_default(),
        seconds: DEADLINE.as_secs(),
        survivors: processes.iter().map(|id| describe(*id)).collect::<Vec<_>>().join(", "),
    }
}

/// `4711 (dd, state D)`, from proc_pid_stat(5).
fn describe(id: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    match name_and_state(&stat) {
        Some((name, state)) => format!("{id} ({name}, state {state})"),
        None => id.to_string(),
    }
}

/// The name may hold blanks and parentheses; the state follows the last closing one.
fn name_and_state(stat: &str) -> Option<(&str, &str)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name, after.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_is_named_with_its_state() {
        assert_eq!(name_and_state("7 (my (odd) name) D 1 7 7"), Some(("my (odd) name", "D")));
        assert_eq!(name_and_state(""), None);
    }
}
