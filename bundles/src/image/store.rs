//! The image store: what is in it is whole, whoever was killed while it was made.
//!
//! ```text
//! <dir>/refs/<sha256 of the name>.json   what the name means: digests, layers, config
//! <dir>/layers/<26 characters>/          an unpacked layer, named by its diffID, shared by images
//! <dir>/implied/<26 characters>          directories that the layer has no entry for; see `parents`
//! <dir>/holds/                           who needs which layers; see `hold`
//! <dir>/lock                             see `hold`
//! <dir>/partial/<sha256 of a blob>       the beginning of a blob; see `partial`
//! <dir>/tmp/                             what is being made; see `temp`
//! ```
//!
//! Any number of processes use a store at the same time. A layer or a name appears by one rename,
//! after it was written to disk, and is never changed in place; a layer belongs to no image, so a
//! name is written after its layers. It knows nothing about registries or archives.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::digest::Digest;
use super::parents;
use super::partial;
use super::temp::{self, Lock, Temp};
use super::{Image, ImageConfig, Reference};
use crate::tree;

/// An image store in use.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's directories cannot be made.
    #[error("open image store {}", dir.display())]
    Open {
        /// The store.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the store cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the store does not say what it should.
    #[error("{} is damaged; remove it and pull or load the image again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        source: serde_json::Error,
    },
    /// Something cannot be written into the store.
    #[error("write into image store {}", dir.display())]
    Write {
        /// The store.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// What a name means, as it is kept in `refs`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    pub(crate) reference: String,
    pub(crate) manifest_digest: Digest,
    pub(crate) id: Digest,
    /// diffIDs, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
    pub(crate) size_bytes: u64,
    /// A layer on top of them that no registry has; see `parents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) patch: Option<Digest>,
}

impl Record {
    /// All layers that it needs, lowest first.
    pub(crate) fn stack(&self) -> Vec<Digest> {
        self.layers.iter().chain(&self.patch).cloned().collect()
    }
}

impl Store {
    /// Opens the store at `dir`, making it if needed, and removes what dead processes left half
    /// done.
    pub fn open(dir: &Path) -> Result<Store> {
        let store = Store { dir: dir.to_owned() };
        for part in std::iter::once(store.dir.clone()).chain(store.parts()) {
            // 0700: a setuid program in a layer is not for the host's users.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(part)
                .map_err(|source| StoreError::Open { dir: dir.to_owned(), source })?;
        }
        // What stays is never read, and the next one to come tries again.
        let _ = temp::clean(&store.tmp());
        let _ = partial::clean(&store.partial());
        Ok(store)
    }

    /// Removes the store at `dir`, whoever uses it: what a store makes, and the directory if there is
    /// nothing else in it. Says whether there was one.
    pub fn remove(dir: &Path) -> Result<bool> {
        let store = Store { dir: dir.to_owned() };
        let mut existed = false;
        for part in store.parts().into_iter().chain([store.lock_path()]) {
            existed |= fs::symlink_metadata(&part).is_ok();
            tree::remove(&part).map_err(|source| store.write_error(source))?;
        }
        // Not empty: what is in there is not ours.
        let _ = fs::remove_dir(dir);
        Ok(existed)
    }

    fn parts(&self) -> [PathBuf; 6] {
        [self.refs(), self.layers(), self.implied(), self.holds(), self.partial(), self.tmp()]
    }

    /// The image that `reference` names, if it and all its layers are here.
    ///
    /// Reads one small file and looks at each layer's directory: it is on every container's way.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Image>> {
        Ok(self.record(reference)?.and_then(|record| self.present(record)))
    }

    /// What `reference` means.
    pub(crate) fn record(&self, reference: &Reference) -> Result<Option<Record>> {
        let path = self.ref_path(reference);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// All names in the store with their images, in the order of the names.
    ///
    /// An image that was pulled by tag is listed by tag and by digest.
    pub fn list(&self) -> Result<Vec<Image>> {
        let records = self.records_strictly()?.into_iter();
        let mut images: Vec<Image> =
            records.filter_map(|(_, record)| self.present(record)).collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// The image that a record means, if all its layers are here.
    pub(crate) fn present(&self, record: Record) -> Option<Image> {
        let stack = record.stack();
        if !stack.iter().all(|layer| self.has_layer(layer)) {
            return None;
        }
        Some(Image {
            reference: record.reference,
            manifest_digest: record.manifest_digest.into(),
            id: record.id.into(),
            layers: self.stack(&stack),
            config: record.config,
            size_bytes: record.size_bytes,
        })
    }

    /// The layers' directories, each one once: many images have an empty layer several times, and
    /// overlayfs refuses a directory that it was given before. Of equal layers the topmost stays,
    /// which has all that the others have.
    fn stack(&self, layers: &[Digest]) -> Vec<PathBuf> {
        let is_topmost = |(at, layer): &(usize, &Digest)| !layers[at + 1..].contains(layer);
        let kept = layers.iter().enumerate().filter(is_topmost);
        kept.map(|(_, layer)| self.layer_path(layer)).collect()
    }

    /// Makes `reference` mean what `record` says. Its layers must be here.
    pub(crate) fn put(&self, reference: &Reference, record: &Record) -> Result<Image> {
        // Until the name says so nothing else does that the patch is needed.
        let lock = self.lock(FlockOperation::LockShared);
        let _lock = lock.map_err(|source| self.write_error(source))?;
        let patch = match record.layers.iter().all(|layer| self.has_layer(layer)) {
            true => parents::patch(self, &record.layers).map_err(|e| self.write_error(e))?,
            false => None,
        };
        let record = Record { reference: reference.canonical(), patch, ..record.clone() };
        let path = self.ref_path(reference);
        let written = serde_json::to_vec(&record).map_err(io::Error::other);
        let written = written.and_then(|bytes| self.replace(&path, &bytes).map(|()| bytes));
        let bytes = written.map_err(|source| self.write_error(source))?;
        match self.present(parse(&path, &bytes)?) {
            Some(image) => Ok(image),
            None => Err(self.write_error(io::Error::other("a layer was removed meanwhile"))),
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temp = self.temp()?;
        let fresh = temp.path().join("record");
        let mut file = fs::File::create_new(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        fs::File::open(self.refs())?.sync_all()
    }

    /// The config with the digest `id` and its layers' diffIDs, if an image in the store has it.
    pub(crate) fn config(&self, id: &Digest) -> Result<Option<(ImageConfig, Vec<Digest>)>> {
        let found = self.records()?.into_iter().find(|(_, record)| record.id == *id);
        Ok(found.map(|(_, record)| (record.config, record.layers)))
    }

    /// All that can be read of what names mean, with the files that say it.
    pub(crate) fn records(&self) -> Result<Vec<(PathBuf, Record)>> {
        // A damaged one is told where it is asked for by its name.
        Ok(self.all_records()?.into_iter().filter_map(|(path, r)| Some((path, r.ok()?))).collect())
    }

    /// What all names mean, with the files that say it.
    pub(crate) fn records_strictly(&self) -> Result<Vec<(PathBuf, Record)>> {
        self.all_records()?.into_iter().map(|(path, record)| Ok((path, record?))).collect()
    }

    fn all_records(&self) -> Result<Vec<(PathBuf, Result<Record>)>> {
        let refs = self.refs();
        let unreadable = |source| StoreError::Read { path: refs.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&refs).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            match fs::read(&path) {
                Ok(bytes) => {
                    let record = parse(&path, &bytes);
                    records.push((path, record));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::Read { path, source }),
            }
        }
        Ok(records)
    }

    /// A directory for what is being made.
    pub(crate) fn temp(&self) -> io::Result<Temp> {
        Temp::new(&self.tmp())
    }

    /// Held while a layer is made, so that two who need it do not both work for it.
    pub(crate) fn lock_layer(&self, layer: &Digest, waiting: &mut dyn FnMut()) -> Result<Lock> {
        Lock::take(&self.tmp(), &layer.short(), waiting).map_err(|source| self.write_error(source))
    }

    /// Whether a layer is here. What is here is whole.
    pub(crate) fn has_layer(&self, layer: &Digest) -> bool {
        self.layer_path(layer).is_dir()
    }

    pub(crate) fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.layers().join(layer.short())
    }

    pub(crate) fn write_error(&self, source: io::Error) -> StoreError {
        StoreError::Write { dir: self.dir.clone(), source }
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    /// Lists of directories; see `parents`.
    pub(crate) fn implied(&self) -> PathBuf {
        self.dir.join("implied")
    }

    pub(crate) fn implied_path(&self, layer: &Digest) -> PathBuf {
        self.implied().join(layer.short())
    }

    pub(crate) fn holds(&self) -> PathBuf {
        self.dir.join("holds")
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.dir.join("partial")
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn ref_path(&self, reference: &Reference) -> PathBuf {
        // A name may be longer than a file name and holds slashes; its hash is neither.
        let name = Digest::of(reference.key().as_bytes());
        self.refs().join(format!("{}.json", name.hex()))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Record> {
    serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Damaged { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record(layers: &[Digest]) -> Record {
        Record {
            reference: String::new(),
            manifest_digest: Digest::of(b"manifest"),
            id: Digest::of(b"config"),
            layers: layers.to_vec(),
            config: ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() },
            size_bytes: 7,
            patch: None,
        }
    }

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_found_however_it_is_written_and_not_before_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = Digest::of(b"layer");
        assert_eq!(store.resolve(&reference("alpine")).unwrap(), None);
        store.put(&reference("alpine"), &record(std::slice::from_ref(&layer))).unwrap_err();
        assert_eq!(store.resolve(&reference("alpine")).unwrap(), None);

        fs::create_dir(store.layer_path(&layer)).unwrap();
        let put = store.put(&reference("alpine"), &record(std::slice::from_ref(&layer))).unwrap();
        let found = store.resolve(&reference("docker.io/library/alpine:latest")).unwrap().unwrap();
        assert_eq!(found, put);
        assert_eq!(found.reference, "docker.io/library/alpine:latest");
        assert_eq!(found.layers, [dir.path().join("layers").join(layer.short())]);
        assert_eq!(found.config.cmd, ["sh"]);
        assert_eq!(store.list().unwrap(), [found]);
    }

    #[test]
    fn an_image_without_one_of_its_layers_is_not_here() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = Digest::of(b"layer");
        fs::create_dir(store.layer_path(&layer)).unwrap();
        store.put(&reference("a"), &record(std::slice::from_ref(&layer))).unwrap();
        fs::remove_dir(store.layer_path(&layer)).unwrap();
        assert_eq!(store.resolve(&reference("a")).unwrap(), None);
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn of_equal_layers_the_topmost_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (base, empty) = (Digest::of(b"base"), Digest::of(b"empty"));
        for layer in [&base, &empty] {
            fs::create_dir(store.layer_path(layer)).unwrap();
        }
        let layers = [empty.clone(), base.clone(), empty.clone(), empty.clone()];
        let put = store.put(&reference("a"), &record(&layers)).unwrap();
        assert_eq!(put.layers, [store.layer_path(&base), store.layer_path(&empty)]);
    }

    #[test]
    fn a_damaged_record_is_told_and_not_taken_for_an_absent_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(&reference("a"), &record(&[])).unwrap();
        fs::write(store.ref_path(&reference("a")), "{").unwrap();
        let error = store.resolve(&reference("a")).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn no_other_user_can_look_into_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("images")).unwrap();
        for part in [store.dir.clone(), store.layers(), store.refs(), store.partial(), store.tmp()]
        {
            assert_eq!(fs::metadata(part).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
