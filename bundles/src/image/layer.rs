//! Makes a layer of the store out of the bytes that a registry or an archive has of it.
//!
//! The one place where all of an image's content goes through: decompression, the digest of what
//! comes out (the diffID, by which the config vouches for it) and unpacking happen in one pass with
//! little memory. The layer appears in the store only if the digest is right.

use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::compression::decompress;
use super::digest::{Digest, HashingReader};
use super::store::{Store, StoreError};
use super::unpack::{self, Summary, UnpackError};
use super::{parents, temp};

/// Bytes of one layer before compression: what a small blob can do to a disk has an end.
const MAX_LAYER_BYTES: u64 = 64 << 30;

/// Why a layer is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It cannot be decompressed.
    #[error("decompress layer")]
    Decompress(#[source] io::Error),
    /// It cannot be unpacked.
    #[error("unpack layer {diff_id}")]
    Unpack {
        /// The layer.
        diff_id: Digest,
        /// Why.
        source: UnpackError,
    },
    /// It is not what the image's config says.
    #[error("layer has digest {found}, but the image's config says {expected}")]
    DiffId {
        /// What the config says.
        expected: Digest,
        /// What was unpacked.
        found: Digest,
    },
    /// It cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Unpacks the layer `diff_id` from `blob` unless the store has it, and tells what was in it.
///
/// The caller holds the layer's lock if it wants nobody else to do the same work; without it the
/// result is as good.
pub(crate) fn add(store: &Store, diff_id: &Digest, blob: impl Read) -> Result<Summary, LayerError> {
    if store.has_layer(diff_id) {
        return Ok(Summary::default());
    }
    let written = |e: io::Error| store.write_error(e);
    let scratch = store.temp().map_err(written)?;
    rustix::fs::mkdirat(&scratch, "root", Mode::from_raw_mode(0o755))
        .map_err(|e| written(e.into()))?;
    let root = temp::open_directory_at(&scratch, "root").map_err(written)?;
    // Whatever the umask is, for a layer that says nothing about its root.
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|e| written(e.into()))?;

    let plain = decompress(blob, "layers").map_err(LayerError::Decompress)?;
    let hashing = HashingReader::new(plain, MAX_LAYER_BYTES);
    let input = BufReader::with_capacity(64 << 10, hashing);
    let (summary, mut rest) = unpack::unpack(input, root.as_fd(), scratch.as_fd())
        .map_err(|source| LayerError::Unpack { diff_id: diff_id.clone(), source })?;
    // The diffID is of the whole stream, padding after the tar's end included.
    io::copy(&mut rest, &mut io::sink()).map_err(LayerError::Decompress)?;
    let found = rest.into_inner().finish();
    if found != *diff_id {
        return Err(LayerError::DiffId { expected: diff_id.clone(), found });
    }
    parents::publish(store, diff_id, &scratch).map_err(written)?;
    publish(store, diff_id, &scratch, root.as_fd()).map_err(written)?;
    Ok(summary)
}

/// Moves what was unpacked to its place, on disk before its name is.
pub(crate) fn publish(
    store: &Store,
    diff_id: &Digest,
    scratch: &temp::Temp,
    root: BorrowedFd<'_>,
) -> io::Result<()> {
    // One call for ten thousand files, where fsync would be one for each.
    rustix::fs::syncfs(root)?;
    let layers = temp::open_directory(&store.layers())?;
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(scratch, "root", &layers, diff_id.short(), flags) {
        // Somebody else was faster; what they have is the same.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::fsync(&layers)?;
    Ok(())
}
