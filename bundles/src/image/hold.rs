//! Who needs which layers, so that nobody removes them: living pods, and pulls that are not done.
//!
//! A hold is a file in `<store>/holds` that says what is needed, flocked by who needs it: when that
//! process dies, however it does, the hold is void. `<store>/lock` is flocked, shared, while a hold
//! is made and, alone, while layers are removed, so a hold is either seen by the remover or finds
//! the layer gone.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::digest::Digest;
use super::store::{Result, Store, StoreError};
use super::{Image, Reference, temp};

/// Bytes of a hold's file: an image has 500 layers at most.
const MAX_HOLD: u64 = 1 << 20;

/// Keeps layers in the store for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    // Closing it gives the lock up.
    file: File,
}

impl Hold {
    /// The locked file: as long as anybody has it open, the hold is not void.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // If it stays, whoever removes layers next finds it without a lock and removes it too.
        let _ = fs::remove_file(&self.path);
    }
}

/// What a hold says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Held {
    /// Who needs it, for messages: `pod default/app`.
    pub(crate) by: String,
    /// The image's id, if a pod runs it.
    pub(crate) id: Option<Digest>,
    pub(crate) layers: Vec<Digest>,
}

impl Store {
    /// As [`Store::resolve`], with a promise that the image stays until the hold is dropped. `by`
    /// says in messages who needs it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn resolve_held(&self, reference: &Reference, by: &str) -> Result<Option<(Image, Hold)>> {
        let Some(record) = self.record(reference)? else { return Ok(None) };
        let (by, id) = (by.to_owned(), Some(record.id.clone()));
        let hold = self.hold(&Held { by, id, layers: record.stack() })?;
        // It may have gone before it was held, or mean something else since.
        match self.record(reference)? {
            Some(now) if now == record => Ok(self.present(record).map(|image| (image, hold))),
            _ => Ok(None),
        }
    }

    /// Keeps layers, also those that are still to come.
    pub(crate) fn hold(&self, held: &Held) -> Result<Hold> {
        self.make_hold(held).map_err(|source| self.write_error(source))
    }

    fn make_hold(&self, held: &Held) -> io::Result<Hold> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let path = self.holds().join(format!("{:016x}", temp::random()?));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        file.write_all(&serde_json::to_vec(held).map_err(io::Error::other)?)?;
        Ok(Hold { path, file })
    }

    /// Keeps everybody from making holds, until it is dropped.
    pub(crate) fn lock_alone(&self) -> Result<OwnedFd> {
        self.lock(FlockOperation::LockExclusive).map_err(|source| self.write_error(source))
    }

    pub(crate) fn lock(&self, operation: FlockOperation) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.lock_path(), flags, Mode::from_raw_mode(0o600))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))?;
        Ok(file)
    }

    /// What living processes hold. Removes what the dead left; the caller has the lock alone.
    pub(crate) fn held(&self) -> Result<Vec<Held>> {
        let dir = self.holds();
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Read { path, source }
        };
        let mut held = Vec::new();
        for entry in fs::read_dir(&dir).map_err(unreadable(&dir))? {
            let path = entry.map_err(unreadable(&dir))?.path();
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StoreError::Read { path, source }),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let _ = fs::remove_file(&path);
                    continue;
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(StoreError::Read { path, source: error.into() }),
            }
            let mut bytes = Vec::new();
            file.take(MAX_HOLD).read_to_end(&mut bytes).map_err(unreadable(&path))?;
            let said = serde_json::from_slice(&bytes);
            held.push(said.map_err(|source| StoreError::Damaged { path, source })?);
        }
        Ok(held)
    }
}
