//! What a pump must not forget: one record of sixteen words a container, in shared memory.
//!
//! Every store is a release store, and their order is the whole protocol (`lane` tells it); so each
//! goes through [`Record::set`], which is also where tests let a pump die.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::failpoint;
use super::files::Identity;
use super::format::Stream;
use crate::sys::shared_memory::Words;

/// Words of the file's head, and of each record.
const STRIDE: usize = 16;

/// `podshim` and the layout's version; the stage's geometry is part of it.
const MAGIC: u64 = u64::from_le_bytes(*b"podshim\x01");

/// A word of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// 0, or 1 + the stream whose batch is being appended. Stored last, cleared last.
    Intent,
    /// Where a stream's bytes end in the stage file; stored by the kernel.
    Pos(Stream),
    /// Up to where they are in the log for good.
    Done(Stream),
    /// `Done` when the intent has been carried out.
    Next,
    /// Time of the batch's first line.
    Time,
    /// No later line may have an earlier time than this.
    NextTime,
    /// Size of the log before the batch.
    LogSize,
    /// Bytes of the batch.
    LogLen,
    /// Which file.
    LogIno,
    /// Made when: inode numbers are used again.
    LogBtime,
}

impl Field {
    fn index(self) -> usize {
        match self {
            Field::Intent => 0,
            Field::Pos(Stream::Stdout) => 1,
            Field::Pos(Stream::Stderr) => 2,
            Field::Done(Stream::Stdout) => 3,
            Field::Done(Stream::Stderr) => 4,
            Field::Next => 5,
            Field::Time => 6,
            Field::NextTime => 7,
            Field::LogSize => 8,
            Field::LogLen => 9,
            Field::LogIno => 10,
            Field::LogBtime => 11,
        }
    }
}

/// The records of all of a pod's containers.
#[derive(Debug)]
pub(super) struct Records {
    words: Words,
}

/// What was in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or a beginning that nobody finished: call [`Records::complete`].
    Fresh,
    /// Records of these containers.
    Ours,
    /// Records of another version, or of other containers.
    Other,
}

impl Records {
    pub(super) fn map(file: OwnedFd, containers: &[String]) -> Result<(Records, Found), Errno> {
        let words = Words::map(file, STRIDE * (1 + containers.len()))?;
        let head = |i: usize| words.as_slice()[i].load(Ordering::Acquire);
        let found = match head(0) {
            0 => Found::Fresh,
            MAGIC if head(1) == fingerprint(containers) => Found::Ours,
            _ => Found::Other,
        };
        Ok((Records { words }, found))
    }

    /// Says that every record has its first values: the magic number is stored last.
    pub(super) fn complete(&self, containers: &[String]) {
        let words = self.words.as_slice();
        failpoint::point();
        words[1].store(fingerprint(containers), Ordering::Release);
        failpoint::point();
        words[0].store(MAGIC, Ordering::Release);
    }

    pub(super) fn of(&self, container: usize) -> Record<'_> {
        let begin = STRIDE * (1 + container);
        Record { words: &self.words.as_slice()[begin..begin + STRIDE] }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.words.is_locked()
    }
}

/// Which containers, in which order.
fn fingerprint(containers: &[String]) -> u64 {
    u64::from(crc32fast::hash(containers.join("/").as_bytes()))
}

/// One container's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Record<'a> {
    pub(super) fn get(self, field: Field) -> u64 {
        self.word(field).load(Ordering::Acquire)
    }

    pub(super) fn set(self, field: Field, value: u64) {
        failpoint::point();
        self.word(field).store(value, Ordering::Release);
        failpoint::point();
    }

    /// The word itself, for the kernel to store into.
    pub(super) fn word(self, field: Field) -> &'a AtomicU64 {
        &self.words[field.index()]
    }

    /// Whether the open batch belongs to this file.
    pub(super) fn names(self, file: &Identity) -> bool {
        (self.get(Field::LogIno), self.get(Field::LogBtime)) == (file.ino, file.btime)
    }

    /// Names the file that the batch goes to, and the size it has before it.
    ///
    /// In this order, because a successor may find any mix of old and new values: until the birth
    /// time is stored, it finds no such file, and comes here again.
    pub(super) fn name(self, file: &Identity) {
        self.set(Field::LogSize, file.size);
        self.set(Field::LogIno, file.ino);
        self.set(Field::LogBtime, file.btime);
    }
}
