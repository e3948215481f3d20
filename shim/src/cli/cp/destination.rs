//! Where `podshim cp` puts what a container sent, which is to be trusted no more than an image: nothing
//! is written outside of the destination, and no link, device, owner or set-id bit is taken over.
//!
//! The container may be able to write to the destination too, if it is a volume of its: it is opened
//! before anything is run there, and every path below it is opened anew, beneath it and without links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use bundles::image::tarball::{CopyError, Entry, Kind, Reader};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;

use super::super::terminal::complain;

const PLAIN: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A name in a directory that is there.
#[derive(Debug)]
pub struct Destination {
    directory: OwnedFd,
    name: OsString,
    /// As the user wrote it.
    shown: PathBuf,
}

impl Destination {
    /// As with cp(1): in the directory `to` if there is one, else under this new name.
    pub fn open(to: &Path, name: &str) -> anyhow::Result<Destination> {
        let (parent, name) = if to.is_dir() {
            (to, OsStr::new(name))
        } else {
            let Some(name) = to.file_name() else {
                bail!("{} does not name a file or directory", to.display());
            };
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")), name)
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .with_context(|| format!("cannot copy to {}", parent.display()))?;
        Ok(Destination { directory, name: name.to_owned(), shown: parent.to_owned() })
    }

    /// Unpacks a tar stream of `name` and what is below it.
    pub fn unpack(&self, from: impl Read, name: &str) -> anyhow::Result<()> {
        let mut reader = Reader::new(from);
        let mut buffer = vec![0; 128 << 10];
        let mut skipped = 0_usize;
        while let Some(entry) = reader.next().context("cannot read what tar sent")? {
            let sent = Path::new(OsStr::from_bytes(&entry.path));
            let Some(below) = below(sent, name) else {
                bail!("tar sent {}, which is not below what was asked for", sent.display());
            };
            // Joining nothing would add a slash.
            let path = match below.as_os_str().is_empty() {
                true => PathBuf::from(&self.name),
                false => Path::new(&self.name).join(below),
            };
            let place = || self.shown.join(&path);
            match entry.kind {
                Kind::Directory => self
                    .make_directories(&path)
                    .with_context(|| format!("cannot make {}", place().display()))?,
                Kind::File if !entry.is_sparse() => {
                    let file = self.create(&path, &entry);
                    let failed = || format!("cannot write {}", place().display());
                    match reader.copy(&mut buffer, &mut file.with_context(failed)?) {
                        Ok(()) => {}
                        Err(CopyError::Read(e)) => {
                            return Err(e).context("cannot read what tar sent");
                        }
                        Err(CopyError::Write(e)) => return Err(e).with_context(failed),
                    }
                }
                _ => skipped += 1,
            }
        }
        if skipped > 0 {
            complain(&format!("{skipped} links and special files were not copied"));
        }
        Ok(())
    }

    fn make_directories(&self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::new();
        for part in path.components() {
            let parent = self.directory(&made)?;
            match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => made.push(part),
                Err(e) => return Err(e.into()),
            }
        }
        self.directory(&made).map(drop)
    }

    /// A directory of the destination, or the one that it is in.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.directory, path, flags, Mode::empty(), PLAIN)?)
    }

    /// A file for writing, empty: a new one, or a regular one that is there.
    fn create(&self, path: &Path, entry: &Entry) -> io::Result<File> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.make_directories(parent)?;
        let (parent, name) = (self.directory(parent)?, path.file_name().unwrap_or_default());
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match openat2(&parent, name, new, mode, PLAIN) {
            Ok(file) => return Ok(file.into()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        // Looked at before it is opened: to open a device or a FIFO does something.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = openat2(&parent, name, flags, Mode::empty(), PLAIN)?;
        if FileType::from_raw_mode(fstat(&old)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("there is something else than a file"));
        }
        let own = format!("/proc/self/fd/{}", old.as_raw_fd());
        File::options().write(true).truncate(true).open(own)
    }
}

/// The path below `name`, if it is plain and there.
fn below(path: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    if parts.next()? != Component::Normal(OsStr::new(name)) {
        return None;
    }
    parts.try_fold(PathBuf::new(), |below, part| match part {
        Component::Normal(part) => Some(below.join(part)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Set as they are: the builder would refuse what a hostile container may send.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            if *kind == tar::EntryType::Symlink {
                header.set_link_name("/etc").expect("link");
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("entry");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn what_a_container_sends_stays_below_its_destination() {
        use std::os::unix::fs::PermissionsExt;
        use tar::EntryType::{Directory, Regular, Symlink};
        let dir = tempfile::tempdir().expect("directory");
        let to = dir.path().join("to");
        let good = archive(&[
            ("d/", Directory, ""),
            ("d/link", Symlink, ""),
            ("d/sub/file", Regular, "text"),
        ]);
        let unpack = |archive: &[u8]| {
            Destination::open(&to, "d").and_then(|destination| destination.unpack(archive, "d"))
        };
        unpack(&good).expect("unpacked");
        assert_eq!(std::fs::read_to_string(to.join("sub/file")).expect("file"), "text");
        let mode = std::fs::metadata(to.join("sub/file")).expect("file").permissions().mode();
        assert_eq!(mode & 0o7000, 0, "no setuid");
        assert!(std::fs::symlink_metadata(to.join("link")).is_err());
        for path in ["e/x", "/d/x", "d/../../x", "../x"] {
            let bad = archive(&[(path, Regular, "evil")]);
            assert!(unpack(&bad).is_err(), "{path}");
        }
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn what_is_at_the_destination_already_leads_nowhere() {
        use tar::EntryType::{Directory, Regular};
        let dir = tempfile::tempdir().expect("directory");
        let (to, victim) = (dir.path().join("to"), dir.path().join("victim"));
        std::fs::create_dir_all(to.join("d")).expect("to");
        std::fs::create_dir(&victim).expect("victim");
        std::os::unix::fs::symlink(&victim, to.join("d/link")).expect("link");
        std::os::unix::fs::symlink(victim.join("new"), to.join("d/new")).expect("link");
        nix::unistd::mkfifo(&to.join("d/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        std::fs::write(to.join("d/old"), "longer than the new one").expect("file");
        let send = |path, kind, content| {
            let destination = Destination::open(&to, "d").expect("to");
            destination.unpack(archive(&[(path, kind, content)]).as_slice(), "d")
        };
        for path in ["d/link/file", "d/new", "d/link", "d/fifo"] {
            assert!(send(path, Regular, "evil").is_err(), "{path}");
        }
        assert!(send("d/link", Directory, "").is_err());
        assert!(send("d/link/sub", Directory, "").is_err());
        assert_eq!(std::fs::read_dir(&victim).expect("victim").count(), 0);
        send("d/old", Regular, "new").expect("overwritten");
        assert_eq!(std::fs::read_to_string(to.join("d/old")).expect("file"), "new");
    }

    #[test]
    fn the_destination_is_the_one_that_was_opened() {
        let dir = tempfile::tempdir().expect("directory");
        let (to, victim) = (dir.path().join("to"), dir.path().join("victim"));
        std::fs::create_dir(&to).expect("to");
        std::fs::create_dir(&victim).expect("victim");
        let destination = Destination::open(&to, "d").expect("to");
        std::fs::rename(&to, dir.path().join("moved")).expect("moved");
        std::os::unix::fs::symlink(&victim, &to).expect("link");
        let sent = archive(&[("d", tar::EntryType::Regular, "text")]);
        destination.unpack(sent.as_slice(), "d").expect("unpacked");
        assert!(dir.path().join("moved/d").exists());
        assert_eq!(std::fs::read_dir(&victim).expect("victim").count(), 0);
    }

    #[test]
    fn a_name_of_gigabytes_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 31);
        header.set_cksum();
        let endless = header.as_bytes().as_slice().chain(io::repeat(b'a'));
        let dir = tempfile::tempdir().expect("directory");
        let destination = Destination::open(dir.path(), "d").expect("to");
        assert!(destination.unpack(endless, "d").is_err());
    }
}
