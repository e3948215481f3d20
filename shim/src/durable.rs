//! Files that are there after a power cut once they were written, whole or as they were before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The suffix of a file that is being written. What a crash leaves of it is nobody's.
pub const UNFINISHED: &str = "new";

/// What is kept free for the day when the disk is full.
const RESERVED_BYTES: u64 = 1 << 20;

/// Space on the disk that nobody else can use: a file without content. It is given up when what must be
/// written then (that something is deleted, how a pod has ended) finds the disk full.
#[derive(Clone, Debug)]
pub struct Reserve(PathBuf);

impl Reserve {
    /// The one at `path`.
    pub fn at(path: PathBuf) -> Reserve {
        Reserve(path)
    }

    /// Takes the space, unless it is taken already or the disk has none.
    pub fn keep(&self) {
        if self.0.exists() {
            return;
        }
        let taken = File::create(&self.0)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES)?));
        if taken.is_err() {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// As [`write`]; on a full disk, with the space that was kept.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match write(path, bytes) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                fs::remove_file(&self.0).map_err(|_| e)?;
                write(path, bytes)
            }
            written => written,
        }
    }
}

/// Replaces the file at `path`, for root's eyes only: written beside it, synced, renamed, and its directory
/// synced (rename(2), fsync(2)).
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(UNFINISHED);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .and_then(|()| fs::rename(&beside, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&beside);
        return Err(e);
    }
    sync_parent(path)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    let is_missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    match fs::remove_file(path) {
        Err(e) if !is_missing(&e) => Err(e),
        // It may have been removed before, and that could not be synced.
        _ => sync_parent(path).or_else(|e| if is_missing(&e) { Ok(()) } else { Err(e) }),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
