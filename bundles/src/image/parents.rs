//! Directories that a layer has no entry for, only files in them: they must not change the mode and
//! owner that a lower layer gave them.
//!
//! A layer with `tmp/x` and no `tmp/` has to have a directory `tmp`, and overlayfs shows the topmost
//! layer's: `/tmp` would be 0755 and not 1777. Which mode it should have depends on the layers below,
//! so it cannot be the layer's own, which images share. An image that needs it therefore gets one
//! more layer on top, of directories only, made when the image gets its name.
//!
//! Directories made in this way carry [`MARK`], and `<store>/implied/<layer>` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::digest::Digest;
use super::store::Store;
use super::{layer, temp};

/// The extended attribute of a directory that its layer has no entry for.
pub(crate) const MARK: &str = "trusted.podshim.implied";
/// Bytes of a list that are looked at; what is beyond keeps the mode that it was made with.
const MAX_LIST: u64 = 1 << 20;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Mode and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What a layer has at a path.
struct Found {
    /// The directory there, and whether it was made without an entry.
    directory: Option<(Attributes, bool)>,
    /// Whether lower layers show through.
    shows_lower: bool,
}

/// Makes the layer that gives the directories of an image of `layers` (lowest first) their modes
/// and owners; `None` if they have them.
pub(crate) fn patch(store: &Store, layers: &[Digest]) -> io::Result<Option<Digest>> {
    let mut paths = BTreeSet::new();
    for layer in layers {
        paths.extend(listed(store, layer)?);
    }
    if paths.is_empty() {
        return Ok(None);
    }
    let open = |layer: &Digest| temp::open_directory(&store.layer_path(layer));
    let stack = layers.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let mut wanted = BTreeMap::new();
    for path in paths {
        let (shown, meant) = look_through(&stack, &path)?;
        if let (true, Some(meant)) = (shown != meant, meant) {
            wanted.insert(path, meant);
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    // Those above them are in the new layer too, so they must be as they are.
    for path in wanted.keys().cloned().collect::<Vec<_>>() {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let root = (!path.is_empty()).then_some(0);
        for end in root.into_iter().chain(ends) {
            let (shown, meant) = look_through(&stack, &path[..end])?;
            if let Some(attributes) = meant.or(shown) {
                wanted.insert(path[..end].to_vec(), attributes);
            }
        }
    }
    make(store, &wanted).map(Some)
}

/// The directory at `path` as the topmost layer has it, and as the topmost layer with an entry for
/// it has it.
fn look_through(
    stack: &[OwnedFd],
    path: &[u8],
) -> io::Result<(Option<Attributes>, Option<Attributes>)> {
    let mut shown = None;
    for layer in stack.iter().rev() {
        let Found { directory, shows_lower } = look(layer, path)?;
        if let Some((attributes, is_implied)) = directory {
            shown = shown.or(Some(attributes));
            if !is_implied {
                return Ok((shown, Some(attributes)));
            }
        }
        if !shows_lower {
            break;
        }
    }
    Ok((shown, None))
}

fn look(layer: &OwnedFd, path: &[u8]) -> io::Result<Found> {
    let mut at = layer.try_clone()?;
    let mut shows_lower = !has(&at, "trusted.overlay.opaque")?;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        match rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {}
            // A whiteout, a file or a link.
            Ok(_) => return Ok(Found { directory: None, shows_lower: false }),
            Err(Errno::NOENT) => return Ok(Found { directory: None, shows_lower }),
            Err(error) => return Err(error.into()),
        }
        at = rustix::fs::openat(&at, name, DIRECTORY, Mode::empty())?;
        shows_lower &= !has(&at, "trusted.overlay.opaque")?;
    }
    let stat: Stat = rustix::fs::fstat(&at)?;
    let attributes = Attributes { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
    Ok(Found { directory: Some((attributes, has(&at, MARK)?)), shows_lower })
}

fn has(directory: &OwnedFd, attribute: &str) -> io::Result<bool> {
    match rustix::fs::fgetxattr(directory, attribute, &mut [0; 8][..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The directories that a layer has no entry for.
fn listed(store: &Store, layer: &Digest) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(store.implied_path(layer)) {
        Ok(file) => file.take(MAX_LIST).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // Each ends with a NUL; one that was cut off does not.
    let whole = bytes.iter().rposition(|b| *b == 0).map_or(&[][..], |end| &bytes[..=end]);
    let mut paths: Vec<Vec<u8>> = whole.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    paths.pop();
    Ok(paths)
}

/// A layer of these directories.
fn make(store: &Store, wanted: &BTreeMap<Vec<u8>, Attributes>) -> io::Result<Digest> {
    let mut text = b"directories\n".to_vec();
    for (path, Attributes { mode, uid, gid }) in wanted {
        text.extend(format!("{mode:o} {uid} {gid} {}\0", path.len()).bytes());
        text.extend(path);
    }
    let digest = Digest::of(&text);
    if store.has_layer(&digest) {
        return Ok(digest);
    }
    let scratch = store.temp()?;
    rustix::fs::mkdirat(&scratch, "root", Mode::from_raw_mode(0o755))?;
    let root = temp::open_directory_at(&scratch, "root")?;
    for (path, attributes) in wanted {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let made = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
                let above = rustix::fs::openat2(&root, parent, DIRECTORY, Mode::empty(), resolve)?;
                rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o700))?;
                rustix::fs::openat(&above, name, DIRECTORY, Mode::empty())?
            }
            _ => root.try_clone()?,
        };
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::fchown(&made, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(attributes.mode))?;
    }
    layer::publish(store, &digest, &scratch, root.as_fd())?;
    Ok(digest)
}

/// Keeps the list that was made in `scratch` for a layer that is about to be there.
pub(crate) fn publish(store: &Store, layer: &Digest, scratch: &temp::Temp) -> io::Result<()> {
    let list = scratch.path().join(LIST);
    match fs::metadata(&list) {
        Ok(list) if list.len() == 0 => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::rename(list, store.implied_path(layer))?;
    File::open(store.implied())?.sync_all()
}

/// The name of the list while the layer is made.
pub(crate) const LIST: &str = "implied";
