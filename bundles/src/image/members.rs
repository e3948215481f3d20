//! The files of an image archive, by their names in it: put aside from a stream, or in a directory.
//!
//! Names never become paths of the host. Of a stream they are only keys of a map; in a directory they
//! are opened as if it were the whole file system (`openat2`, RESOLVE_IN_ROOT), links included.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::archive::{LoadError, Result};
use super::compression::decompress;
use super::document::MAX_DOCUMENT;
use super::store::Store;
use super::tarball::{CopyError, Kind, Reader, TarError};
use super::temp::{self, Temp};

/// Members of an archive: an image has some hundred layers at most.
const MAX_MEMBERS: usize = 20_000;
/// Links to links.
const MAX_DEPTH: usize = 8;

/// The archive's members.
pub(super) struct Members(From);

enum From {
    Aside(Aside),
    Directory(OwnedFd),
}

/// Members of a stream, put aside as files.
struct Aside {
    temp: Temp,
    /// Name in the archive → number of the file.
    files: BTreeMap<String, usize>,
    /// Name → name; older versions of docker link layers that images share.
    links: BTreeMap<String, String>,
}

impl Members {
    /// The files in a directory.
    pub(super) fn of_directory(dir: &Path) -> Result<Members> {
        let opened = temp::open_directory(dir);
        let failed = |source| LoadError::Directory { path: dir.to_owned(), source };
        Ok(Members(From::Directory(opened.map_err(failed)?)))
    }

    /// Reads the whole stream `input`.
    pub(super) fn put_aside(store: &Store, input: impl Read) -> Result<Members> {
        let written = |e| LoadError::Store(store.write_error(e));
        let temp = store.temp().map_err(written)?;
        let mut members = Aside { temp, files: BTreeMap::new(), links: BTreeMap::new() };
        let plain = decompress(input, "archives").map_err(LoadError::Decompress)?;
        let mut reader = Reader::new(io::BufReader::with_capacity(64 << 10, plain));
        let mut buffer = vec![0; 128 << 10];
        while let Some(entry) = reader.next()? {
            if members.files.len() + members.links.len() >= MAX_MEMBERS {
                return Err(LoadError::TooMuch(format!("members are more than {MAX_MEMBERS}")));
            }
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let name = join("", &path);
            let target = String::from_utf8_lossy(&entry.link);
            match entry.kind {
                Kind::File if entry.sparse.is_some() => {
                    return Err(
                        super::tarball::unsupported(&entry.path, "a sparse file".into()).into()
                    );
                }
                Kind::File => {
                    let number = members.files.len() + 1;
                    let mut file = File::create(members.path(number)).map_err(written)?;
                    reader.copy(&mut buffer, &mut file).map_err(|error| match error {
                        CopyError::Read(error) => error.into(),
                        CopyError::Write(error) => written(error),
                    })?;
                    members.links.remove(&name);
                    members.files.insert(name, number);
                }
                Kind::Symlink => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    members.links.insert(name.clone(), join(directory, &target));
                }
                Kind::HardLink => {
                    members.links.insert(name, join("", &target));
                }
                Kind::Directory | Kind::Fifo | Kind::Device => {}
            }
        }
        Ok(Members(From::Aside(members)))
    }

    /// All of a document.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let failed = |e| LoadError::Tar(TarError::Read(e));
        let mut bytes = Vec::new();
        self.open(name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(LoadError::TooMuch(format!("{name} has more than {MAX_DOCUMENT} bytes")));
        }
        Ok(bytes)
    }

    /// Bytes of a member.
    pub(super) fn size(&self, name: &str) -> Result<u64> {
        let metadata = self.open(name)?.metadata();
        Ok(metadata.map_err(|e| LoadError::Tar(TarError::Read(e)))?.len())
    }

    /// Whether there is such a member.
    pub(super) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// Opens a member.
    pub(super) fn open(&self, name: &str) -> Result<File> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(name.into()),
            _ => LoadError::Tar(TarError::Read(e)),
        };
        match &self.0 {
            From::Aside(aside) => {
                let number = aside.find(name).ok_or_else(|| LoadError::Missing(name.into()))?;
                File::open(aside.path(number)).map_err(failed)
            }
            From::Directory(dir) => {
                // Nothing is waited for, whatever it is, and only files are taken.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let opened = rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve);
                let file = File::from(opened.map_err(|e| failed(e.into()))?);
                match file.metadata().map_err(failed)?.is_file() {
                    true => Ok(file),
                    false => Err(LoadError::Missing(name.into())),
                }
            }
        }
    }
}

impl Aside {
    fn find(&self, name: &str) -> Option<usize> {
        let mut name = join("", name);
        for _ in 0..MAX_DEPTH {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return self.files.get(&name).copied(),
            }
        }
        None
    }

    fn path(&self, number: usize) -> std::path::PathBuf {
        self.temp.path().join(number.to_string())
    }
}

/// `path` as seen from `directory`, both within the archive. Names are only keys of a map here:
/// they never become paths of the host.
fn join(directory: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_archive_are_joined_without_leaving_it() {
        assert_eq!(join("", "./a//b"), "a/b");
        assert_eq!(join("one", "../two/layer.tar"), "two/layer.tar");
        assert_eq!(join("one", "../../../etc"), "etc");
        assert_eq!(join("one", "/x"), "x");
    }
}
