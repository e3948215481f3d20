//! Removes images: names first, then the layers that nothing needs any more.
//!
//! Whoever is killed in between leaves layers without a name, which the next removal takes; never a
//! name without its layers. A layer stays while any name, any living pod or any pull under way needs
//! it (see `hold`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::digest::Digest;
use super::store::{Record, Store, StoreError};
use super::{Reference, ReferenceError, temp};

/// Hexadecimal digits from which on a text may be the beginning of an id.
const MIN_ID: usize = 4;

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It is not here.
    #[error("no image {text:?} in the store; `podshim images` lists them")]
    NotFound {
        /// What was asked for.
        text: String,
    },
    /// It is the beginning of several ids.
    #[error("several images have an id that begins with {text:?}; write more of it")]
    Ambiguous {
        /// What was asked for.
        text: String,
    },
    /// A pod that lives runs it.
    #[error(
        "image {image} is used by {by}; delete that first, or use --force: then its name goes now \
         and its layers with the next `podshim rmi` after it"
    )]
    InUse {
        /// The image.
        image: String,
        /// By whom.
        by: String,
    },
    /// It is no name of an image.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that mean nothing any more.
    pub names: Vec<String>,
    /// Ids of images that have no name any more.
    pub images: Vec<String>,
    /// How many layers went.
    pub layers: usize,
}

/// Removes the image with the name or id `text`: by name that name, and the image if it was its
/// last; by id all its names. With `force` also if a living pod runs it.
///
/// # Errors
/// [`RemoveError`].
pub fn remove(store: &Store, text: &str, force: bool) -> Result<Removed, RemoveError> {
    let lock = store.lock_alone()?;
    let records = store.records()?;
    let going = going(&records, text)?;
    let stays = |id: &Digest| {
        records.iter().any(|(path, r)| r.id == *id && !going.iter().any(|(gone, _)| gone == path))
    };
    let mut removed = Removed::default();
    for (_, record) in &going {
        let id = record.id.to_string();
        if !stays(&record.id) && !removed.images.contains(&id) {
            removed.images.push(id);
        }
    }
    if !force {
        for held in store.held()? {
            let id = held.id.map(String::from).filter(|id| removed.images.contains(id));
            if id.is_some() {
                return Err(RemoveError::InUse { image: text.to_owned(), by: held.by });
            }
        }
    }
    for (path, record) in &going {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(store.write_error(e).into());
            }
            _ => removed.names.push(record.reference.clone()),
        }
    }
    let gone = take_layers(store)?;
    drop(lock);
    removed.layers = gone.len();
    Ok(removed)
}

/// Removes the layers that nothing needs, and tells how many there were.
///
/// # Errors
/// [`StoreError`].
pub fn sweep(store: &Store) -> Result<usize, StoreError> {
    let lock = store.lock_alone()?;
    let gone = take_layers(store)?;
    drop(lock);
    Ok(gone.len())
}

/// Layers that are out of everybody's sight, and removed with this.
struct Gone {
    // Dropped without the lock: to remove a million files takes its time.
    _temp: Option<temp::Temp>,
    count: usize,
}

impl Gone {
    fn len(&self) -> usize {
        self.count
    }
}

/// The caller has the lock alone.
fn take_layers(store: &Store) -> Result<Gone, StoreError> {
    let mut needed = BTreeSet::new();
    // A name that cannot be read may need any layer, so then none is removed.
    for (_, record) in store.records_strictly()? {
        needed.extend(record.stack().iter().map(Digest::short));
    }
    for held in store.held()? {
        needed.extend(held.layers.iter().map(Digest::short));
    }
    let written = |e| store.write_error(e);
    let mut gone = Gone { _temp: None, count: 0 };
    for entry in fs::read_dir(store.layers()).map_err(written)? {
        let entry = entry.map_err(written)?;
        if entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
            continue;
        }
        let temp = match gone._temp.take() {
            Some(temp) => temp,
            None => store.temp().map_err(written)?,
        };
        fs::rename(entry.path(), temp.path().join(entry.file_name())).map_err(written)?;
        gone._temp = Some(temp);
        gone.count += 1;
        // Made anew with the layer, so it does not matter if it stays.
        let _ = fs::remove_file(store.implied().join(entry.file_name()));
    }
    Ok(gone)
}

type Named = (PathBuf, Record);

/// The names that go.
fn going(records: &[Named], text: &str) -> Result<Vec<Named>, RemoveError> {
    let by_id = by_id(records, text)?;
    if !by_id.is_empty() {
        return Ok(by_id);
    }
    let not_found = || RemoveError::NotFound { text: text.to_owned() };
    if is_id(text) && text.len() == 64 {
        return Err(not_found());
    }
    let reference = Reference::parse(text)?;
    let is_it = |record: &Record| {
        Reference::parse(&record.reference).is_ok_and(|other| other.key() == reference.key())
    };
    let named = records.iter().find(|(_, r)| is_it(r)).ok_or_else(not_found)?;
    let mut going = vec![named.clone()];
    // With the last tag goes the digest under which the same pull noted it.
    let others = || records.iter().filter(|(path, r)| r.id == named.1.id && *path != named.0);
    let is_tagless =
        |(_, r): &&Named| Reference::parse(&r.reference).is_ok_and(|other| other.tag().is_none());
    if others().all(|other| is_tagless(&other)) {
        going.extend(others().cloned());
    }
    Ok(going)
}

fn is_id(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() >= MIN_ID && text.bytes().all(is_hex)
}

/// All names of the one image whose id begins with `text`.
fn by_id(records: &[Named], text: &str) -> Result<Vec<Named>, RemoveError> {
    let start = text.strip_prefix("sha256:").unwrap_or(text);
    if !is_id(start) {
        return Ok(Vec::new());
    }
    let found: Vec<Named> =
        records.iter().filter(|(_, r)| r.id.hex().starts_with(start)).cloned().collect();
    if found.iter().any(|(_, r)| r.id != found[0].1.id) {
        return Err(RemoveError::Ambiguous { text: text.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
