//! Unpacks one layer into a directory, in the form that overlayfs takes as a lower directory.
//!
//! A layer is written by a stranger and unpacked by root, so no path of it ever reaches a system
//! call whole: the parent is opened beneath the layer's own root (`openat2`, RESOLVE_IN_ROOT, no
//! magic links) and the last component is made there, never followed. What is ambiguous is refused
//! rather than repaired. Memory does not grow with the layer. Whether the layer is the one that was
//! asked for is `layer`'s to find out.
//!
//! Whiteouts (OCI image-spec, `layer.md`) become overlayfs' own: a character device 0:0, and the
//! extended attribute `trusted.overlay.opaque`. Device nodes are left out: a container's `/dev` is
//! made by the runtime, and the host's disks are nobody's layer.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::entry_name::{Target, target};
use super::overlay::{
    is_directory, is_whiteout, make_parent, reopen, set_opaque, unmark, whiteout,
};
use super::parents::{self, MARK};
pub use super::tarball::TarError;
use super::tarball::{CopyError, Entry, Kind, Reader};
use super::temp;

/// Entries of one layer; each costs an inode of the host. The largest images have some 10^6.
const MAX_ENTRIES: u64 = 4_000_000;
/// The last id that Kubernetes allows; above it ids turn negative somewhere (CVE-2024-40635).
const MAX_ID: u64 = i32::MAX as u64;
/// 1901 to 9999: what is beyond is clamped, and by the file system again to what it can hold.
const TIMES: (i64, i64) = (i32::MIN as i64, 253_402_300_799);

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is no tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry's name is not taken.
    #[error("layer entry {path:?} is refused: {why}")]
    Name {
        /// The name as it is written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry's owner is no user or group of Linux.
    #[error("layer entry {path:?} is refused: its owner {owner} is above 2147483647")]
    Owner {
        /// The entry.
        path: String,
        /// The number.
        owner: u64,
    },
    /// A hard link has nothing to link to.
    #[error("layer entry {path:?}: hard link to {target:?}, which is not a file of this layer")]
    HardLink {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// An entry cannot be made.
    #[error("layer entry {path:?}: {verb}")]
    Write {
        /// The entry.
        path: String,
        /// What failed.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There are too many entries.
    #[error("a layer has more than {MAX_ENTRIES} entries")]
    Entries,
}

type Result<T> = std::result::Result<T, UnpackError>;

/// What a layer had in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All entries.
    pub entries: u64,
    /// Device nodes, which were left out.
    pub devices_left_out: u64,
}

/// Unpacks the plain tar stream `input` into the empty directory `root`, and gives what is left of
/// `input` after the tar's end back. `scratch` is a directory of ours on the same file system.
pub fn unpack<R: Read>(
    input: R,
    root: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
) -> Result<(Summary, R)> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC;
    let times = rustix::fs::openat(scratch, "times", flags, Mode::from_raw_mode(0o600));
    let times = BufWriter::new(File::from(times.map_err(|e| write_error(b"", "prepare", e))?));
    let implied = rustix::fs::openat(scratch, "made", flags, Mode::from_raw_mode(0o600));
    let implied = BufWriter::new(File::from(implied.map_err(|e| write_error(b"", "prepare", e))?));
    let buffer = vec![0; 128 << 10].into();
    let mut extractor =
        Extractor { root, scratch, times, implied, buffer, summary: Summary::default() };
    extractor.note_implied(&[]).map_err(|e| write_error(b"", "prepare", e))?;
    let mut reader = Reader::new(input);
    while let Some(entry) = reader.next()? {
        extractor.summary.entries += 1;
        if extractor.summary.entries > MAX_ENTRIES {
            return Err(UnpackError::Entries);
        }
        extractor.entry(&entry, &mut reader)?;
    }
    let summary = extractor.finish()?;
    Ok((summary, reader.into_inner()))
}

struct Extractor<'a> {
    root: BorrowedFd<'a>,
    scratch: BorrowedFd<'a>,
    /// Directories' times, set at the end: making what is in a directory changes its time.
    /// On disk, because there may be millions.
    times: BufWriter<File>,
    /// Directories that were made without an entry; those that get one later are among them.
    implied: BufWriter<File>,
    buffer: Box<[u8]>,
    summary: Summary,
}

/// What was in an entry's place.
#[derive(PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    /// Something of this layer that hides the lower layers' directory of that name.
    Replaced,
}

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, content: &mut Reader<R>) -> Result<()> {
        let path = &entry.path;
        for owner in [entry.uid, entry.gid] {
            if owner > MAX_ID {
                return Err(UnpackError::Owner { path: lossy(path), owner });
            }
        }
        let name_error = |why| UnpackError::Name { path: lossy(path), why };
        match target(path).map_err(name_error)? {
            Target::Root if entry.kind == Kind::Directory => self.set_root(entry),
            Target::Root => Err(name_error("the root of a layer is a directory")),
            Target::Whiteout { parents, name } => {
                let parent = self.parent(path, &parents, ResolveFlags::NO_SYMLINKS)?;
                whiteout(&parent, name).map_err(|e| write_error(path, "make whiteout", e))
            }
            Target::Opaque { parents } => {
                let parent = self.parent(path, &parents, ResolveFlags::NO_SYMLINKS)?;
                set_opaque(&parent).map_err(|e| write_error(path, "make opaque", e))
            }
            Target::Aufs => Ok(()),
            Target::Place { parents, name } => {
                let parent = self.parent(path, &parents, ResolveFlags::empty())?;
                match entry.kind {
                    Kind::File => self.file(&parent, name, entry, content),
                    Kind::Directory => self.directory(&parent, name, entry),
                    Kind::HardLink => self.hard_link(&parent, name, entry),
                    Kind::Symlink | Kind::Fifo => self.special(&parent, name, entry),
                    Kind::Device => {
                        self.summary.devices_left_out += 1;
                        Ok(())
                    }
                }
            }
        }
    }

    fn set_root(&mut self, entry: &Entry) -> Result<()> {
        let root = reopen(self.root).map_err(|e| write_error(&entry.path, "open", e))?;
        // Without these a container's own user could not look up a single path.
        set_attributes(&root, entry, entry.mode | 0o555)?;
        unmark(&root).map_err(|e| write_error(&entry.path, "open", e))?;
        self.note_time(entry)
    }

    fn directory(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        let failed = |verb| move |e: Errno| write_error(&entry.path, verb, e);
        let before = self.clear(parent, name, entry, true)?;
        if before != Before::Directory {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                .map_err(failed("make directory"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open"))?;
        set_attributes(&directory, entry, entry.mode)?;
        if before == Before::Directory {
            unmark(&directory).map_err(failed("make explicit"))?;
        }
        if before == Before::Replaced {
            set_opaque(&directory).map_err(failed("make opaque"))?;
        }
        self.note_time(entry)
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        content: &mut Reader<R>,
    ) -> Result<()> {
        self.clear(parent, name, entry, false)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| write_error(&entry.path, "create", e))?;
        let mut file = File::from(file);
        let failed = |error| match error {
            CopyError::Read(error) => UnpackError::from(error),
            CopyError::Write(error) => write_error(&entry.path, "write", error),
        };
        match &entry.sparse {
            None => content.copy(&mut self.buffer, &mut file).map_err(failed)?,
            Some(map) => {
                let written = |e: io::Error| write_error(&entry.path, "write", e);
                for (offset, length) in &map.parts {
                    file.seek(io::SeekFrom::Start(*offset)).map_err(written)?;
                    content.copy_some(&mut self.buffer, &mut file, *length).map_err(failed)?;
                }
                file.set_len(map.size).map_err(written)?;
            }
        }
        set_attributes(&file, entry, entry.mode)?;
        rustix::fs::futimens(&file, &times(entry.mtime, entry.mtime_ns))
            .map_err(|e| write_error(&entry.path, "set time", e))
    }

    /// Links to the file itself, which may be a symbolic link: never to what that points to.
    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        let refused = |e: io::Error| UnpackError::HardLink {
            path: lossy(&entry.path),
            target: lossy(&entry.link),
            source: e,
        };
        let name_error = |why| UnpackError::Name { path: lossy(&entry.link), why };
        let Target::Place { parents, name: last } = target(&entry.link).map_err(name_error)? else {
            return Err(refused(Errno::PERM.into()));
        };
        let from = self.open(&parents, ResolveFlags::empty()).map_err(|e| refused(e.into()))?;
        let there = rustix::fs::statat(&from, last, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| refused(e.into()))?;
        if is_directory(&there) || is_whiteout(&there) {
            return Err(refused(Errno::PERM.into()));
        }
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // To link a file to itself is nothing to do; to clear its place would lose it.
            Ok(here) if temp::same_file(&here, &there) => return Ok(()),
            _ => self.clear(parent, name, entry, false)?,
        };
        rustix::fs::linkat(&from, last, parent, name, AtFlags::empty())
            .map_err(|e| refused(e.into()))
    }

    fn special(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        let failed = |verb| move |e: Errno| write_error(&entry.path, verb, e);
        self.clear(parent, name, entry, false)?;
        if entry.kind == Kind::Symlink {
            if entry.link.contains(&0) {
                let why = "a link's target has a NUL byte";
                return Err(UnpackError::Name { path: lossy(&entry.path), why });
            }
            rustix::fs::symlinkat(&entry.link[..], parent, name).map_err(failed("make link"))?;
        } else {
            rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .map_err(failed("make fifo"))?;
        }
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set owner"))?;
        if entry.kind == Kind::Fifo {
            // Follows links, but this is the FIFO that we made a moment ago in a directory of ours.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(failed("set mode"))?;
        }
        let times = times(entry.mtime, entry.mtime_ns);
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set time"))
    }

    /// Takes away what is in an entry's place: the last entry of a name wins.
    fn clear(&self, parent: &OwnedFd, name: &[u8], entry: &Entry, keep: bool) -> Result<Before> {
        let failed = |e: Errno| write_error(&entry.path, "replace", e);
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(Before::Nothing),
            Err(error) => return Err(failed(error)),
        };
        if !is_directory(&there) {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed)?;
            return Ok(Before::Replaced);
        }
        if keep {
            return Ok(Before::Directory);
        }
        rustix::fs::renameat(parent, name, self.scratch, "replaced").map_err(failed)?;
        self.scratch
            .try_clone_to_owned()
            .and_then(|scratch| crate::tree::remove_at(&scratch, b"replaced"))
            .map_err(|e| write_error(&entry.path, "replace", e))?;
        Ok(Before::Replaced)
    }

    /// The directory in which an entry is made; what is missing of it is made too, as `0755 root`.
    fn parent(&mut self, path: &[u8], parents: &[&[u8]], more: ResolveFlags) -> Result<OwnedFd> {
        let failed = |e: Errno| write_error(path, "open its directory", e);
        match self.open(parents, more) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return other.map_err(failed),
        }
        let mut at = self.open(&[], more).map_err(failed)?;
        for (i, name) in parents.iter().enumerate() {
            at = match self.open(&parents[..=i], more) {
                Ok(next) => next,
                Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
                    let made = make_parent(&at, name, error).map_err(failed)?;
                    self.note_implied(&parents[..=i])
                        .map_err(|e| write_error(path, "note its directory", e))?;
                    made
                }
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(at)
    }

    /// Opens a directory of the layer, as if the layer were the whole file system.
    fn open(&self, parents: &[&[u8]], more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        const ATTEMPTS: u32 = 1000;
        let path = if parents.is_empty() { b".".to_vec() } else { parents.join(&b'/') };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(self.root, &path[..], flags, Mode::empty(), resolve) {
                // `..` in a link while anybody renames anything on the host (openat2(2)).
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    fn note_implied(&mut self, path: &[&[u8]]) -> io::Result<()> {
        if path.is_empty() {
            let root = reopen(self.root)?;
            rustix::fs::fsetxattr(root, MARK, b"y", XattrFlags::empty())?;
        }
        self.implied.write_all(&path.join(&b'/'))?;
        self.implied.write_all(&[0])
    }

    fn note_time(&mut self, entry: &Entry) -> Result<()> {
        let mut record = Vec::with_capacity(16 + entry.path.len());
        record.extend(entry.mtime.to_ne_bytes());
        record.extend(entry.mtime_ns.to_ne_bytes());
        // The path was checked to be shorter than PATH_MAX.
        record.extend(u32::try_from(entry.path.len()).unwrap_or_default().to_ne_bytes());
        record.extend(&entry.path);
        self.times.write_all(&record).map_err(|e| write_error(&entry.path, "note time", e))
    }

    fn finish(self) -> Result<Summary> {
        let failed = |e: io::Error| write_error(b"", "set times", e);
        let Extractor { root, scratch, times: noted, implied, summary, .. } = self;
        list_implied(root, scratch, implied).map_err(failed)?;
        let mut file = noted.into_inner().map_err(|e| failed(e.into_error()))?;
        let size = file.stream_position().map_err(failed)?;
        file.rewind().map_err(failed)?;
        let mut noted = BufReader::new(file.take(size));
        let mut head = [0; 16];
        while read_whole(&mut noted, &mut head).map_err(failed)? {
            let (seconds, rest) = head.split_at(8);
            let (nanoseconds, length) = rest.split_at(4);
            let seconds = i64::from_ne_bytes(seconds.try_into().unwrap_or_default());
            let nanoseconds = u32::from_ne_bytes(nanoseconds.try_into().unwrap_or_default());
            let length = u32::from_ne_bytes(length.try_into().unwrap_or_default());
            let mut path = vec![0; usize::try_from(length).unwrap_or_default()];
            noted.read_exact(&mut path).map_err(failed)?;
            set_directory_time(root, &path, &times(seconds, nanoseconds))
                .map_err(|e| write_error(&path, "set time", e))?;
        }
        Ok(summary)
    }
}

/// Writes the list of those directories that still have no entry; see `parents`.
fn list_implied(
    root: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    made: BufWriter<File>,
) -> io::Result<()> {
    let mut made = made.into_inner().map_err(io::IntoInnerError::into_error)?;
    made.rewind()?;
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let list = rustix::fs::openat(scratch, parents::LIST, flags, Mode::from_raw_mode(0o600))?;
    let mut list = BufWriter::new(File::from(list));
    let mut made = BufReader::new(made);
    let mut path = Vec::new();
    while io::BufRead::read_until(&mut made, 0, &mut path)? > 0 {
        path.pop();
        let relative = if path.is_empty() { &b"."[..] } else { &path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // One that was reached through a link has another name, and one that is gone has none.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        if let Ok(there) = rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve)
            && rustix::fs::fgetxattr(&there, MARK, &mut [0; 8][..]).is_ok()
        {
            path.push(0);
            list.write_all(&path)?;
        }
        path.clear();
    }
    list.flush()
}

fn read_whole(input: &mut impl Read, head: &mut [u8; 16]) -> io::Result<bool> {
    match input.read_exact(head) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn set_directory_time(
    root: BorrowedFd<'_>,
    path: &[u8],
    times: &Timestamps,
) -> rustix::io::Result<()> {
    let relative = path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b"."));
    let relative: Vec<&[u8]> = relative.collect();
    let relative = if relative.is_empty() { b".".to_vec() } else { relative.join(&b'/') };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, &relative[..], flags, Mode::empty(), resolve) {
            Ok(directory) => return rustix::fs::futimens(directory, times),
            Err(Errno::AGAIN) => {}
            // A later entry has replaced it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Owner, mode and extended attributes, in this order: chown(2) clears set-id bits and capabilities.
fn set_attributes(file: impl AsFd, entry: &Entry, mode: u32) -> Result<()> {
    let failed = |verb| move |e: Errno| write_error(&entry.path, verb, e);
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed("set owner"))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("set mode"))?;
    for (name, value) in &entry.xattrs {
        if !is_kept(name) {
            continue;
        }
        match rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty()) {
            Ok(()) => {}
            // A file system without them: an application's notes to itself are not worth the image.
            Err(Errno::OPNOTSUPP) if name.starts_with(b"user.") => {}
            Err(error) => return Err(failed("set extended attribute")(error)),
        }
    }
    Ok(())
}

/// Which extended attributes a layer may set: file capabilities, and what users could set
/// themselves. Not overlayfs' own, in either namespace, nor labels of a security module.
fn is_kept(name: &[u8]) -> bool {
    let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (name == b"security.capability" || is_users) && !name.contains(&0)
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    // Both were checked to be at most MAX_ID.
    let id = |id: u64| u32::try_from(id).unwrap_or_default();
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds.clamp(TIMES.0, TIMES.1), tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned()
}

fn write_error(path: &[u8], verb: &'static str, source: impl Into<io::Error>) -> UnpackError {
    UnpackError::Write { path: lossy(path), verb, source: source.into() }
}
