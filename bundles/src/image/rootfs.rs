//! Makes an image of one layer from a directory, for those who have a root filesystem and no builder.
//!
//! The directory is written as a tar stream, owners, modes, times, hard links and extended attributes
//! included, and unpacked like every other layer: what comes out is what a registry would have
//! given. Names are sorted and nothing else is added, so the same directory gives the same image.
//! Other file systems mounted in it, device nodes and sockets are left out, and told.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::json;
use tar::{EntryType, Header};

use super::digest::{Digest, Hasher};
use super::document::{self, DocumentError};
use super::hold::Held;
use super::layer::{self, LayerError};
use super::store::{Record, Store, StoreError};
use super::{Image, ImageConfig, Reference};

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no directory.
    #[error("{} is no directory", path.display())]
    NoDirectory {
        /// Which.
        path: PathBuf,
    },
    /// A file's name means something else in a layer.
    #[error("{}: a name that begins with .wh. would remove files in an image", path.display())]
    Whiteout {
        /// Which.
        path: PathBuf,
    },
    /// A file became shorter while it was read.
    #[error("{} changed while it was read; try again when nobody writes to it", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The config is not taken.
    #[error(transparent)]
    Config(#[from] DocumentError),
    /// The layer is not taken.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is not in the image though it is in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Device nodes and sockets, as they are named in the image.
    pub special: Vec<PathBuf>,
    /// Directories on which another file system is mounted; they are there, and empty.
    pub mounts: Vec<PathBuf>,
}

/// Makes the image `name` from `dir`, to be run as `config` says.
///
/// # Errors
/// [`BuildError`].
pub fn build(
    store: &Store,
    dir: &Path,
    name: &Reference,
    config: &ImageConfig,
) -> Result<(Image, LeftOut), BuildError> {
    let written = |e| BuildError::Store(store.write_error(e));
    let temp = store.temp().map_err(written)?;
    let path = temp.path().join("layer");
    let stream = File::options().read(true).write(true).create_new(true).open(path);
    let stream = stream.map_err(written)?;
    let sink =
        Sink { out: BufWriter::with_capacity(128 << 10, &stream), hasher: Hasher::default() };
    let mut writer =
        Writer { sink, device: 0, links: BTreeMap::new(), left_out: LeftOut::default(), store };
    writer.tree(dir)?;
    let Writer { mut sink, left_out, .. } = writer;
    // The end of a tar: two blocks of zeros.
    sink.write_all(&[0; 1024]).and_then(|()| sink.flush()).map_err(written)?;
    let (size, diff_id) = (sink.hasher.bytes(), sink.hasher.finish());
    drop(sink.out);
    (&stream).rewind().map_err(written)?;

    let text = config_document(config, &diff_id);
    // Read back as any other config, so that what is refused is refused now.
    let (config, layers) = document::config(&text)?;
    let by = format!("a build of {name}");
    let _hold = store.hold(&Held { by, id: None, layers: layers.clone() })?;
    layer::add(store, &diff_id, &stream)?;
    let id = Digest::of(&text);
    let record = Record {
        reference: String::new(),
        manifest_digest: id.clone(),
        id,
        layers,
        config,
        size_bytes: size,
        patch: None,
    };
    Ok((store.put(name, &record)?, left_out))
}

fn config_document(config: &ImageConfig, diff_id: &Digest) -> Vec<u8> {
    let document = json!({
        "architecture": document::architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "Env": config.env,
            "WorkingDir": config.working_dir,
            "User": config.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    document.to_string().into_bytes()
}

/// Writes, and computes the digest of what is written.
struct Sink<W: Write> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Something in the tree, held: whoever can change the tree meanwhile cannot put something else of the
/// host's in its place.
struct Found {
    /// As the user knows it.
    path: PathBuf,
    /// `O_PATH`.
    file: File,
    metadata: Metadata,
}

impl Found {
    /// The directory that the user named, through links if they wish.
    fn open(path: &Path) -> Result<Found, BuildError> {
        let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Found::of(path.to_owned(), opened)
    }

    /// What `name` is in this directory; a link is the link.
    fn beneath(&self, name: &Path) -> Result<Found, BuildError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(&self.file, name, flags, Mode::empty(), how);
        Found::of(self.path.join(name), opened)
    }

    fn of(path: PathBuf, opened: Result<OwnedFd, Errno>) -> Result<Found, BuildError> {
        let found = opened.map_err(io::Error::from).and_then(|fd| {
            let file = File::from(fd);
            Ok((file.metadata()?, file))
        });
        let (metadata, file) = found.map_err(|e| read_error(&path, e))?;
        Ok(Found { path, file, metadata })
    }

    /// A path that leads to it and nothing else, for a file or directory.
    fn itself(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// The names in this directory, behind `name`, the first one last.
    fn listed(&self, name: &Path) -> Result<Vec<PathBuf>, BuildError> {
        let failed = |e| read_error(&self.path, e);
        let entries = fs::read_dir(self.itself()).map_err(failed)?;
        let names = entries.map(|entry| entry.map(|e| name.join(e.file_name())));
        let mut names = names.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        names.sort_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
        Ok(names)
    }
}

struct Writer<'a, W: Write> {
    sink: Sink<W>,
    /// The file system that the directory is on.
    device: u64,
    /// Files with several names, by device and inode: the first name.
    links: BTreeMap<(u64, u64), PathBuf>,
    left_out: LeftOut,
    store: &'a Store,
}

impl<W: Write> Writer<'_, W> {
    /// `dir` and all that is in it, each directory before its files, in the order of the names.
    fn tree(&mut self, dir: &Path) -> Result<(), BuildError> {
        let top = Found::open(dir)?;
        if !top.metadata.is_dir() {
            return Err(BuildError::NoDirectory { path: dir.to_owned() });
        }
        self.device = top.metadata.dev();
        self.entry(&top, Path::new(""))?;
        // Names in the tree that are still to be written, the next one last.
        let mut rest = top.listed(Path::new(""))?;
        while let Some(name) = rest.pop() {
            let found = top.beneath(&name)?;
            if name.file_name().is_some_and(|n| n.as_bytes().starts_with(b".wh.")) {
                return Err(BuildError::Whiteout { path: found.path });
            }
            self.entry(&found, &name)?;
            if found.metadata.dev() != self.device {
                self.left_out.mounts.push(name);
            } else if found.metadata.is_dir() {
                rest.extend(found.listed(&name)?);
            }
        }
        Ok(())
    }

    fn entry(&mut self, found: &Found, name: &Path) -> Result<(), BuildError> {
        let Found { path, metadata, .. } = found;
        let kind = metadata.file_type();
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        let mut written = name.as_os_str().as_bytes().to_vec();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            written =
                if written.is_empty() { b"./".to_vec() } else { [&written, &b"/"[..]].concat() };
        } else if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = rustix::fs::readlinkat(&found.file, "", Vec::new());
            let target = target.map_err(|e| read_error(path, e.into()))?;
            put_link(&mut header, &mut records, target.as_bytes());
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
        } else if !kind.is_file() {
            self.left_out.special.push(name.to_owned());
            return Ok(());
        }
        let inode = (metadata.dev(), metadata.ino());
        let first = self.links.get(&inode).filter(|_| metadata.nlink() > 1 && !kind.is_dir());
        if let Some(first) = first {
            header.set_entry_type(EntryType::Link);
            records.clear();
            let first = first.as_os_str().as_bytes().to_vec();
            put_link(&mut header, &mut records, &first);
            put_name(&mut header, &mut records, &written);
            return self.put(header, records, metadata, 0);
        }
        if metadata.nlink() > 1 && !kind.is_dir() {
            self.links.insert(inode, name.to_owned());
        }
        put_name(&mut header, &mut records, &written);
        if !kind.is_file() {
            if kind.is_dir() {
                attributes(found, &mut records)?;
            }
            return self.put(header, records, metadata, 0);
        }
        header.set_entry_type(EntryType::Regular);
        attributes(found, &mut records)?;
        let file = File::open(found.itself()).map_err(|e| read_error(path, e))?;
        let size = file.metadata().map_err(|e| read_error(path, e))?.len();
        self.put(header, records, metadata, size)?;
        self.content(path, file, size)
    }

    fn put(
        &mut self,
        mut header: Header,
        mut records: Vec<Pax>,
        metadata: &Metadata,
        size: u64,
    ) -> Result<(), BuildError> {
        /// What an octal number of ustar holds.
        const MAX_OCTAL: u64 = 0o7_777_777;
        header.set_mode(metadata.mode() & 0o7777);
        for (key, id) in [("uid", metadata.uid()), ("gid", metadata.gid())] {
            let number = u64::from(id);
            let kept = if number > MAX_OCTAL { 0 } else { number };
            if key == "uid" {
                header.set_uid(kept)
            } else {
                header.set_gid(kept)
            }
            if number > MAX_OCTAL {
                records.push((key.into(), number.to_string().into_bytes()));
            }
        }
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        if metadata.mtime_nsec() != 0 || metadata.mtime() < 0 {
            records.push(("mtime".into(), time(metadata.mtime(), metadata.mtime_nsec())));
        }
        if size > 0o77_777_777_777 {
            records.push(("size".into(), size.to_string().into_bytes()));
        } else {
            header.set_size(size);
        }
        header.set_cksum();
        let written = |store: &Store, e| BuildError::Store(store.write_error(e));
        if !records.is_empty() {
            let content = pax(&records);
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            put(&mut extended.as_old_mut().name, "path", &mut Vec::new(), b"PaxHeaders/x");
            extended.set_mode(0o644);
            extended.set_size(content.len() as u64);
            extended.set_cksum();
            self.block(extended.as_bytes()).map_err(|e| written(self.store, e))?;
            self.block(&content).map_err(|e| written(self.store, e))?;
        }
        self.block(header.as_bytes()).map_err(|e| written(self.store, e))
    }

    /// Bytes, filled up to a block.
    fn block(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(512) - bytes.len();
        self.sink.write_all(&[0; 512][..padding])
    }

    fn content(&mut self, path: &Path, file: File, size: u64) -> Result<(), BuildError> {
        let written = |store: &Store, e| BuildError::Store(store.write_error(e));
        let mut left = size;
        let mut file = file.take(size);
        let mut buffer = vec![0; 128 << 10];
        while left > 0 {
            let count = match file.read(&mut buffer) {
                Ok(0) => return Err(BuildError::Changed { path: path.to_owned() }),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(read_error(path, e)),
            };
            self.sink.write_all(&buffer[..count]).map_err(|e| written(self.store, e))?;
            left -= count as u64;
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default();
        self.sink.write_all(&[0; 512][..padding]).map_err(|e| written(self.store, e))
    }
}

/// A record of an extended header.
type Pax = (String, Vec<u8>);

fn put_name(header: &mut Header, records: &mut Vec<Pax>, name: &[u8]) {
    put(&mut header.as_old_mut().name, "path", records, name);
}

fn put_link(header: &mut Header, records: &mut Vec<Pax>, target: &[u8]) {
    put(&mut header.as_old_mut().linkname, "linkpath", records, target);
}

/// Into the header's field if it fits, into a record otherwise.
fn put(field: &mut [u8; 100], key: &str, records: &mut Vec<Pax>, text: &[u8]) {
    if text.len() > field.len() {
        records.push((key.to_owned(), text.to_vec()));
    } else {
        field[..text.len()].copy_from_slice(text);
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn pax(records: &[Pax]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        out.extend(format!("{length} {key}=").bytes());
        out.extend(value);
        out.push(b'\n');
    }
    out
}

/// Seconds with their fraction. Before 1970 both are negative in a PAX time.
fn time(seconds: i64, nanoseconds: i64) -> Vec<u8> {
    if seconds < 0 && nanoseconds > 0 {
        let (whole, part) = (seconds + 1, 1_000_000_000 - nanoseconds);
        return format!("-{}.{part:09}", whole.unsigned_abs()).into_bytes();
    }
    format!("{seconds}.{nanoseconds:09}").into_bytes()
}

/// Extended attributes that a layer may have; see `unpack`.
fn attributes(found: &Found, records: &mut Vec<Pax>) -> Result<(), BuildError> {
    let failed = |e: Errno| read_error(&found.path, e.into());
    let itself = found.itself();
    let mut names = vec![0; 64 << 10];
    let count = match rustix::fs::listxattr(&itself, &mut names[..]) {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut names: Vec<&[u8]> = names[..count].split(|b| *b == 0).collect();
    names.sort_unstable();
    for name in names {
        let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if !is_users && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match rustix::fs::getxattr(&itself, text, &mut value[..]) {
            Ok(count) => value.truncate(count),
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(failed(error)),
        }
        records.push((format!("SCHILY.xattr.{text}"), value));
    }
    Ok(())
}

fn read_error(path: &Path, source: io::Error) -> BuildError {
    BuildError::Read { path: path.to_owned(), source }
}
