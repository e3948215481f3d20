//! Reading and writing the cgroup file system; what both versions have in common.
//!
//! A cgroup may vanish at any moment under its reader (another process cleans up): a directory
//! that is gone has no children and no processes, and removing it is done.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{CgroupError, Result};

/// How long a directory may stay busy: exiting processes leave it a moment after they are gone.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);
const REMOVE_PAUSE: Duration = Duration::from_micros(200);

/// Makes a directory; that it is there already is fine.
pub(super) fn make(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a value in one write(2), as the kernel's files want it.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    // Not fs::write: that would create, and a misspelt file's error would be about permissions.
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Moves the calling thread or process to the cgroup whose `tasks` or `cgroup.procs` this is.
pub(super) fn enter(file: &Path) -> Result<()> {
    write(file, "0").map_err(|source| CgroupError::Enter { path: file.to_owned(), source })
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// The number that a file holds.
pub(super) fn number(path: &Path) -> Result<u64> {
    let no_number = |_| CgroupError::Parse { path: path.to_owned(), key: "itself" };
    read(path)?.trim().parse().map_err(no_number)
}

/// The number behind `key` in a file of lines "key number".
pub(super) fn keyed_number(path: &Path, key: &'static str) -> Result<u64> {
    keyed_number_in(&read(path)?, key)
        .ok_or_else(|| CgroupError::Parse { path: path.to_owned(), key })
}

fn keyed_number_in(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, number)| number.trim().parse().ok())
}

/// The names of the cgroups directly below one.
pub(super) fn children(directory: &Path) -> Result<Vec<OsString>> {
    let failed = |source| CgroupError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        result => result.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(failed(error)),
            Ok(entry) => {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.push(entry.file_name());
                }
            }
        }
    }
    Ok(names)
}

/// A cgroup and all below it, children before their parents.
fn tree(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        found.extend(children(&parent)?.into_iter().map(|child| parent.join(child)));
        next += 1;
    }
    found.reverse();
    Ok(found)
}

/// The processes in these cgroups and all below them.
pub(super) fn processes(directories: &[PathBuf]) -> Result<Vec<i32>> {
    let mut found = BTreeSet::new();
    for directory in directories {
        for cgroup in tree(directory)? {
            found.extend(listed(&cgroup.join("cgroup.procs"))?);
        }
    }
    Ok(found.into_iter().collect())
}

fn listed(file: &Path) -> Result<Vec<i32>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // A threaded cgroup's processes are listed by the domain above it (v2).
        Err(error) if is_gone(&error) || has_errno(&error, Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(source) => Err(CgroupError::Read { path: file.to_owned(), source }),
    }
}

/// Removes a cgroup and all below it.
pub(super) fn remove_tree(directory: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_DEADLINE;
    tree(directory)?.iter().try_for_each(|cgroup| remove(cgroup, deadline))
}

fn remove(cgroup: &Path, deadline: Instant) -> Result<()> {
    loop {
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if has_errno(&error, Errno::BUSY) && Instant::now() < deadline => {
                sleep(REMOVE_PAUSE);
            }
            Err(source) => return Err(CgroupError::Remove { path: cgroup.to_owned(), source }),
        }
    }
}

/// The cgroup was removed before or while it was looked at.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || has_errno(error, Errno::NODEV)
}

fn has_errno(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_whole_key() {
        let events = "low 0\noom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed_number_in(events, "oom_kill"), Some(2));
        assert_eq!(keyed_number_in(events, "oom"), Some(4));
        assert_eq!(keyed_number_in(events, "max"), None);
    }

    #[test]
    fn a_tree_is_walked_children_first() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/cgroup.procs"), "1\n").unwrap();
        assert_eq!(tree(root).unwrap(), [root.join("a/b"), root.join("a"), root.to_owned()]);
    }

    #[test]
    fn a_cgroup_that_is_gone_has_nothing_and_is_removed() {
        let gone = Path::new("/sys/fs/cgroup/no/such/cgroup");
        assert!(processes(&[gone.to_owned()]).unwrap().is_empty());
        remove_tree(gone).unwrap();
    }
}
