//! Blobs on their way into the store: what has arrived stays, whoever was killed meanwhile.
//!
//! `<store>/partial/<digest>` is the beginning of the blob with that digest, as far as anybody got.
//! It is locked (flock) while somebody adds to it. Nothing in it is believed: whoever goes on with
//! it computes the digest of what is there, and what is whole but wrong is thrown away.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::digest::{Digest, Hasher};

/// For how long the beginning of a blob that nobody asks for any more is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The beginning of a blob, ours to add to.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

impl Partial {
    /// Opens what there is of the blob `digest`; `waiting` is called before another's work on it is
    /// waited for.
    pub(crate) fn open(
        dir: &Path,
        digest: &Digest,
        waiting: &mut dyn FnMut(),
    ) -> io::Result<Partial> {
        let path = dir.join(digest.hex());
        loop {
            let file = open(&path, OFlags::CREATE)?;
            if !lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                waiting();
                lock(&file, FlockOperation::LockExclusive)?;
            }
            // Its last owner may have removed it.
            if is_at(&path, &file)? {
                let mut partial = Partial { path, file, hasher: Hasher::default() };
                partial.look()?;
                return Ok(partial);
            }
        }
    }

    /// How many bytes are there.
    pub(crate) fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Adds the next bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher = Hasher::default();
        Ok(())
    }

    /// The digest of what is there.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Reads it from its beginning.
    pub(crate) fn read(&mut self) -> io::Result<&File> {
        self.file.rewind()?;
        Ok(&self.file)
    }

    /// Throws it away.
    pub(crate) fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.hasher.update(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Removes what nobody has added to for a week.
pub(crate) fn clean(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_old = |m: fs::Metadata| {
            let age = m.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok());
            age.is_some_and(|age| age > KEPT)
        };
        if !entry.metadata().is_ok_and(is_old) {
            continue;
        }
        let path = entry.path();
        let file = open(&path, OFlags::empty())?;
        if lock(&file, FlockOperation::NonBlockingLockExclusive)? && is_at(&path, &file)? {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?))
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let ours = rustix::fs::fstat(file)?;
    match rustix::fs::lstat(path) {
        Ok(there) => Ok(super::temp::same_file(&ours, &there)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_there_for_the_next_and_knows_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"whole");
        let mut first = Partial::open(dir.path(), &digest, &mut || {}).unwrap();
        first.add(b"who").unwrap();
        drop(first);
        let mut next = Partial::open(dir.path(), &digest, &mut || {}).unwrap();
        assert_eq!(next.bytes(), 3);
        next.add(b"le").unwrap();
        assert_eq!(next.digest(), digest);
        let mut text = String::new();
        next.read().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
        next.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_is_old_and_nobody_s_is_cleaned_away() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - KEPT - Duration::from_secs(60);
        let make = |text: &[u8], is_old: bool| {
            let mut partial = Partial::open(dir.path(), &Digest::of(text), &mut || {}).unwrap();
            partial.add(b"x").unwrap();
            if is_old {
                partial.file.set_modified(old).unwrap();
            }
            partial
        };
        drop(make(b"old", true));
        drop(make(b"fresh", false));
        let _held = make(b"held", true);
        clean(dir.path()).unwrap();
        let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = names.map(|n| n.to_str().unwrap().to_owned()).collect();
        names.sort();
        let mut expected = [Digest::of(b"fresh"), Digest::of(b"held")].map(|d| d.hex().to_owned());
        expected.sort();
        assert_eq!(names, expected);
    }
}
