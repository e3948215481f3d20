//! Compressing what was rotated: all but the newest of a run's rotated files, as a kubelet does. It takes
//! a processor for a while, so it is done by a child of the shim, with the least priority.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::Errno;

use super::files::{self, How};
use super::rotation::{self, Rotated};
use crate::child::settle;
use crate::sys::process::{Fork, exit_now, fork};

/// Least of all.
const NICE: i32 = 19;

/// Forks a child that compresses what is due in these containers' log directories; its pid. It ends by
/// itself, or with this process, and must be reaped. What it leaves undone is due the next time.
///
/// # Errors
/// Those of [`fork`]: this process must have one thread only.
pub fn spawn(directories: &[PathBuf]) -> io::Result<i32> {
    let parent = rustix::process::getpid();
    match fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let done = settle(parent, &[], None).is_ok() && {
                // It is only slower for others without.
                let _ = rustix::process::setpriority_process(None, NICE);
                directories.iter().all(|directory| pack(directory).is_ok())
            };
            exit_now(i32::from(!done))
        }
    }
}

/// Compresses what is due in a container's log directory.
pub(super) fn pack(path: &Path) -> io::Result<()> {
    let directory = files::directory(path).map_err(io::Error::other)?;
    let rotated = rotation::list(&directory)?;
    let due = rotated.windows(2).filter(|pair| pair[0].run == pair[1].run && !pair[0].packed);
    for pair in due {
        pack_one(&directory, path, &pair[0])?;
    }
    Ok(())
}

/// The compressed file appears whole, and only then the plain one goes.
fn pack_one(directory: &OwnedFd, path: &Path, file: &Rotated) -> io::Result<()> {
    let from = match files::open(directory, &file.name, &path.join(&file.name), How::Read) {
        Ok(from) => from,
        // It was the oldest.
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(io::Error::other(e)),
    };
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let to = File::from(openat(directory, ".", flags, Mode::from_raw_mode(0o640))?);
    let mut packed = GzEncoder::new(to, Compression::fast());
    io::copy(&mut File::from(from), &mut packed)?;
    let to = packed.finish()?;
    let name = rotation::packed_name(&file.name);
    match linkat(to.as_fd(), "", directory, &name, AtFlags::EMPTY_PATH) {
        // Somebody was here, and died before the next step.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    match unlinkat(directory, &file.name, AtFlags::empty()) {
        Ok(()) => Ok(()),
        // It became too old meanwhile, and so is this.
        Err(Errno::NOENT) => Ok(unlinkat(directory, &name, AtFlags::empty())?),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Read;

    use plan::Wall;

    use super::*;

    #[test]
    fn all_but_the_newest_of_each_run_are_compressed_and_say_the_same() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pod/main");
        std::fs::create_dir_all(&directory).unwrap();
        let name = |run: &str, s: u64| {
            rotation::rotated_name(OsStr::new(run), Wall(s * 1_000_000_000)).into_string().unwrap()
        };
        let text = "2026-11-24T16:40:15Z stdout F one\n".repeat(1000);
        for name in [name("0.log", 1), name("0.log", 2), name("0.log", 3), name("1.log", 1)] {
            std::fs::write(directory.join(name), &text).unwrap();
        }
        std::fs::write(directory.join("0.log"), &text).unwrap();
        pack(&directory).unwrap();
        // And again there is nothing to do.
        pack(&directory).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let packed = |s| name("0.log", s) + ".gz";
        let mut expected =
            vec!["0.log".into(), packed(1), packed(2), name("0.log", 3), name("1.log", 1)];
        expected.sort();
        assert_eq!(left, expected);
        let file = File::open(directory.join(packed(1))).unwrap();
        let mut again = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut again).unwrap();
        assert_eq!(again, text);
        assert!(directory.join(packed(1)).metadata().unwrap().len() < text.len() as u64 / 10);
    }
}
