//! Files as shared memory: what is stored here outlives the process that stored it.
//!
//! Two views, never of the same file: [`Words`], counters that the kernel may store into, and
//! [`Bytes`], a buffer that system calls fill. The log pump is the user of both. This module knows
//! no layout; whoever maps a file keeps other writers out (the pump holds a lock on it) and never
//! makes the file shorter: touching a page beyond its end is a SIGBUS.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, munmap};

/// A mapped range, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    fn new(file: BorrowedFd<'_>, len: usize, flags: MapFlags) -> Result<Mapping, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so the kernel chooses one that nothing else uses.
        let start =
            unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED | flags, file, 0) }?;
        let mapping =
            NonNull::new(start).map(|start| Mapping { start, len }).ok_or(Errno::NOMEM)?;
        // A mapping holds its file open, and with it a lock: a container's waiting init, which is a fork
        // of ours, would keep it for as long as it waits.
        // SAFETY: children have nothing at these addresses then, and no value of theirs leads there: they
        // are forked to do other things, and run no destructors.
        unsafe { madvise(mapping.start.as_ptr(), len, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone, and every reference into it borrows from `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours cannot be unmapped: {unmapped:?}");
    }
}

/// A file seen as 64-bit counters.
#[derive(Debug)]
pub(crate) struct Words {
    mapping: Mapping,
    count: usize,
    locked: bool,
    file: OwnedFd,
}

impl Words {
    /// Maps the first `count` words of `file`, whose space is allocated first, so that no later
    /// store can fail for want of it. New words are zero.
    ///
    /// The pages are kept in memory if the process may do that (see [`Words::is_locked`]), else
    /// only brought in now.
    pub(crate) fn map(file: OwnedFd, count: usize) -> Result<Words, Errno> {
        let len = count * size_of::<u64>();
        let bytes = u64::try_from(len).map_err(|_| Errno::FBIG)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        let mapping = Mapping::new(file.as_fd(), len, MapFlags::POPULATE)?;
        // SAFETY: the range is mapped, and locking changes no byte of it.
        let locked = match unsafe { mlock(mapping.start.as_ptr(), len) } {
            Ok(()) => true,
            Err(Errno::PERM | Errno::NOMEM | Errno::AGAIN) => false,
            Err(errno) => return Err(errno),
        };
        Ok(Words { mapping, count, locked, file })
    }

    /// The counters.
    pub(crate) fn as_slice(&self) -> &[AtomicU64] {
        let start = self.mapping.start.as_ptr().cast::<AtomicU64>().cast_const();
        // SAFETY: `count` words are mapped at a page boundary, zero or more bits each a valid
        // word; whoever else stores into them (the kernel) is what atomics are for.
        unsafe { std::slice::from_raw_parts(start, self.count) }
    }

    /// Whether the pages can never be swapped out.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A sparse file seen as a buffer. System calls that fill it take it as `&mut`.
#[derive(Debug)]
pub(crate) struct Bytes {
    mapping: Mapping,
    file: OwnedFd,
}

impl Bytes {
    /// Maps the first `len` bytes of `file`, which is made that long; it stays sparse. Only bytes
    /// that were written may be read: on a full tmpfs, reading a hole is a SIGBUS.
    pub(crate) fn map(file: OwnedFd, len: usize) -> Result<Bytes, Errno> {
        let wanted = u64::try_from(len).map_err(|_| Errno::FBIG)?;
        if u64::try_from(fstat(&file)?.st_size).unwrap_or(0) < wanted {
            ftruncate(&file, wanted)?;
        }
        let mapping = Mapping::new(file.as_fd(), len, MapFlags::empty())?;
        Ok(Bytes { mapping, file })
    }

    /// How many bytes are mapped.
    pub(crate) fn len(&self) -> usize {
        self.mapping.len
    }

    /// The whole buffer.
    pub(crate) fn as_slice(&self) -> &[u8] {
        let start = self.mapping.start.as_ptr().cast::<u8>().cast_const();
        // SAFETY: `len` bytes are mapped, and nothing writes to them while `self` is borrowed:
        // the file's lock keeps other processes out, our own writers take `&mut self`.
        unsafe { std::slice::from_raw_parts(start, self.mapping.len) }
    }

    /// Copies the bytes of `from` to `to`.
    pub(crate) fn copy_within(&mut self, from: Range<usize>, to: usize) {
        let start = self.mapping.start.as_ptr().cast::<u8>();
        // SAFETY: as in `as_slice`, and `&mut self` says that nobody reads.
        let all = unsafe { std::slice::from_raw_parts_mut(start, self.mapping.len) };
        all.copy_within(from, to);
    }
}

impl AsFd for Bytes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    #[test]
    fn words_outlive_their_mapping() {
        let file = file();
        let words = Words::map(file.try_clone().unwrap(), 3).unwrap();
        assert_eq!(words.as_slice()[2].swap(7, Relaxed), 0);
        drop(words);
        assert_eq!(Words::map(file, 3).unwrap().as_slice()[2].load(Relaxed), 7);
    }

    #[test]
    fn bytes_are_those_of_the_file_and_can_be_moved() {
        let file = file();
        let mut bytes = Bytes::map(file.try_clone().unwrap(), 8192).unwrap();
        rustix::io::pwrite(&file, b"abc", 5000).unwrap();
        bytes.copy_within(5000..5003, 0);
        assert_eq!(&bytes.as_slice()[..3], b"abc");
        assert_eq!(fstat(&file).unwrap().st_size, 8192);
    }
}
