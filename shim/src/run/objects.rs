//! Jobs and deployments as files: what `podshim get` in another terminal sees of them, and what
//! takes their names. They live as long as the `podshim run` that controls them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pod::file::Owner;

#[derive(Serialize, Deserialize)]
struct Stored {
    owner: Owner,
    object: Value,
}

/// One job or deployment of ours.
#[derive(Debug)]
pub struct ObjectFile {
    path: PathBuf,
    last: Value,
}

impl ObjectFile {
    /// Takes the name. Somebody else's is `AlreadyExists`.
    pub fn create(layout: &Layout, kind: &str, object: Value) -> anyhow::Result<ObjectFile> {
        let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (field("namespace"), field("name"));
        let dir = layout.objects().join(kind);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{namespace}_{name}.json"));
        match write(&path, &object, true) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => bail!(
                "{}s {name:?} already exists in namespace {namespace:?}: another `podshim run` has \
                 it (if that is dead, `podshim prune` frees the name)",
                kind.to_lowercase()
            ),
            result => result.with_context(|| format!("cannot write {}", path.display()))?,
        }
        Ok(ObjectFile { path, last: object })
    }

    /// Replaces the object, if it changed.
    pub fn update(&mut self, object: Value) -> anyhow::Result<()> {
        if object == self.last {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        write(&new, &object, false)
            .and_then(|()| fs::rename(&new, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.last = object;
        Ok(())
    }

    /// The object as it was last told.
    pub fn object(&self) -> &Value {
        &self.last
    }

    /// Gives the name back.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        if let Some(kind) = self.path.parent() {
            // Only if it was the last of its kind.
            let _ = fs::remove_dir(kind);
        }
    }
}

fn write(path: &std::path::Path, object: &Value, new: bool) -> io::Result<()> {
    let stored = Stored { owner: Owner::this().map_err(io::Error::other)?, object: object.clone() };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(!new).create_new(new).mode(0o600);
    options.open(path)?.write_all(&serde_json::to_vec(&stored)?)
}

/// All objects of a kind.
pub fn read(layout: &Layout, kind: &str) -> anyhow::Result<Vec<Value>> {
    Ok(stored(layout, kind)?.into_iter().map(|(_, s)| s.object).collect())
}

fn stored(layout: &Layout, kind: &str) -> anyhow::Result<Vec<(PathBuf, Stored)>> {
    let dir = layout.objects().join(kind);
    let mut found = Vec::new();
    for name in crate::cli::names_in(&dir)? {
        let path = dir.join(&name);
        // One that is being replaced or removed at this moment is not there.
        let Ok(text) = fs::read(&path) else { continue };
        if !name.ends_with(".json") {
            continue;
        }
        match serde_json::from_slice(&text) {
            Ok(stored) => found.push((path, stored)),
            Err(e) => tracing::warn!("{}: {e}", path.display()),
        }
    }
    Ok(found)
}

/// Removes the objects of dead owners and gives their kinds and names.
pub fn prune(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for kind in ["Job", "Deployment"] {
        for (path, stored) in stored(layout, kind)? {
            if !stored.owner.is_alive() {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
                let name = &stored.object["metadata"]["name"];
                removed.push(format!("{} {name}", kind.to_lowercase()));
            }
        }
        let _ = fs::remove_dir(layout.objects().join(kind));
    }
    Ok(removed)
}
