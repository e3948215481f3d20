//! `splice(2)` whose count is stored by the kernel itself, where it outlives us.
//!
//! The wrappers of nix and rustix copy the offset through a local variable: a SIGKILL between the
//! system call and that copy loses what was taken. Here the kernel is given the shared word's own
//! address, and updates it in the same system call that takes the bytes.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::shared_memory::Bytes;

/// Moves at most `len` bytes from `pipe` to `stage` at `offset`, which is advanced by as much;
/// never waits. Returns how many.
///
/// `EFAULT` means that bytes were taken but their count could not be stored: they are lost.
pub(crate) fn splice_counted(
    pipe: BorrowedFd<'_>,
    stage: &mut Bytes,
    offset: &AtomicU64,
    len: usize,
) -> Result<usize, Errno> {
    let begin = usize::try_from(offset.load(Ordering::Acquire)).map_err(|_| Errno::INVAL)?;
    let len = len.min(stage.len().checked_sub(begin).ok_or(Errno::INVAL)?);
    let word = offset.as_ptr().cast::<libc::loff_t>();
    let (from, to) = (pipe.as_raw_fd(), stage.as_fd().as_raw_fd());
    let (none, flags) = (std::ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
    // SAFETY: both descriptors are borrowed and open; `word` is a live, aligned word for the whole
    // call and is stored to like any atomic by another thread; the bytes that change are `stage`'s,
    // which is borrowed mutably, so that no reference to them exists.
    let moved = unsafe { libc::splice(from, none, to, word, len, flags) };
    usize::try_from(moved)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn the_count_is_in_the_word_when_the_call_returns() {
        let mut stage = Bytes::map(tempfile::tempfile().unwrap().into(), 4096).unwrap();
        let (read, write) = pipe().unwrap();
        let offset = AtomicU64::new(100);
        rustix::io::write(&write, b"hello").unwrap();
        assert_eq!(splice_counted(read.as_fd(), &mut stage, &offset, 3), Ok(3));
        assert_eq!(splice_counted(read.as_fd(), &mut stage, &offset, 64), Ok(2));
        assert_eq!(offset.load(Ordering::Acquire), 105);
        assert_eq!(&stage.as_slice()[100..105], b"hello");
        assert_eq!(
            splice_counted(read.as_fd(), &mut stage, &offset, 64),
            Err(Errno::AGAIN),
            "an empty pipe is no reason to wait"
        );
    }

    #[test]
    fn nothing_is_put_behind_the_buffers_end() {
        let mut stage = Bytes::map(tempfile::tempfile().unwrap().into(), 4096).unwrap();
        let (read, write) = pipe().unwrap();
        rustix::io::write(&write, b"hello").unwrap();
        let offset = AtomicU64::new(4094);
        assert_eq!(splice_counted(read.as_fd(), &mut stage, &offset, 5), Ok(2));
        assert_eq!(offset.load(Ordering::Acquire), 4096);
    }
}
