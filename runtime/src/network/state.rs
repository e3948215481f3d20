//! What the host's network remembers: a directory that belongs to the host and to no root.
//!
//! ```text
//! <dir>            /run/podshim-host/<bridge>, mode 0700
//!   lock           flocked by whoever looks at or changes anything here
//!   network        JSON: the range, what was switched on and must be switched off again
//!   cursor-<n>     the address given last on bridge n: the next one comes after it
//!   addresses/A    JSON: the pod that has address A. The truth about who has what
//!   pods/UID       a symbolic link to its address: an index, made before the record and removed
//!                  after it, so one without a record means nothing
//!   ports/P        <protocol>-<port>-<host address>: the pod that has this hostPort
//! ```
//!
//! Every file appears complete or not at all. Nothing is synced: the directory and the kernel's
//! state that it tells of die together with the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state_dir::make_dir;

/// A file or directory of the network's state that cannot be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct StateError {
    /// What was tried.
    pub verb: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

type Result<T> = std::result::Result<T, StateError>;

fn failed<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> StateError {
    move |e| StateError { verb, path: path.into(), source: e.into() }
}

/// The file `network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Which addresses the pods get, as text ([`super::Cidr`]).
    pub range: String,
    /// `net.ipv4.ip_forward` before it was switched on here; `None`: it was on already.
    #[serde(default)]
    pub forwarding_was: Option<u8>,
    /// firewalld was told to trust the range.
    #[serde(default)]
    pub firewalld: bool,
    /// Written last: everything else was done.
    #[serde(default)]
    pub ready: bool,
}

/// A file of `addresses/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRecord {
    /// The pod.
    pub uid: String,
    /// The host's end of its pair of interfaces. When it is gone, so is the pod's.
    pub link: String,
}

/// A file of `ports/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// The pod.
    pub uid: String,
    /// Where packets go.
    pub address: Ipv4Addr,
    /// To which port of it.
    pub container_port: u16,
}

/// The directory, locked.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    lock: File,
}

impl State {
    /// Makes the directory if it is missing, and waits for its lock.
    ///
    /// # Errors
    /// The directory or the lock.
    pub fn lock(dir: &Path) -> Result<State> {
        let path = dir.join("lock");
        loop {
            for sub in ["", "addresses", "pods", "ports"] {
                let sub = dir.join(sub);
                make_dir(&sub, 0o700).map_err(|e| failed("make", &sub)(io::Error::other(e)))?;
            }
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path);
            let file = match opened {
                // Somebody removed the directory this moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed("open", &path))?,
            };
            flock(&file, FlockOperation::LockExclusive).map_err(failed("lock", &path))?;
            // Whoever removes the network removes the lock: then what is held here is nobody's.
            let held = file.metadata().map_err(failed("look at", &path))?;
            match fs::symlink_metadata(&path) {
                Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => {
                    return Ok(State { dir: dir.into(), lock: file });
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("look at", &path)(e)),
            }
        }
    }

    /// Like [`State::lock`], but `None` if there is no directory.
    ///
    /// # Errors
    /// The same.
    pub fn lock_if_there(dir: &Path) -> Result<Option<State>> {
        if dir.exists() { State::lock(dir).map(Some) } else { Ok(None) }
    }

    /// The lock that is held: for programs, which hold it too while they run.
    #[must_use]
    pub fn held(&self) -> &File {
        &self.lock
    }

    /// The file `network`; `None` if it is missing.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn network(&self) -> Result<Option<NetworkRecord>> {
        read(&self.dir.join("network"))
    }

    /// Writes the file `network`.
    ///
    /// # Errors
    /// That of the file.
    pub fn set_network(&self, record: &NetworkRecord) -> Result<()> {
        self.replace(&self.dir.join("network"), &to_json(record))
    }

    /// The address given last on a bridge.
    #[must_use]
    pub fn cursor(&self, bridge: usize) -> Option<Ipv4Addr> {
        // One that cannot be read costs an order of addresses, no pod.
        fs::read_to_string(self.cursor_path(bridge)).ok()?.trim().parse().ok()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// That of the file.
    pub fn set_cursor(&self, bridge: usize, address: Ipv4Addr) -> Result<()> {
        self.replace(&self.cursor_path(bridge), address.to_string().as_bytes())
    }

    fn cursor_path(&self, bridge: usize) -> PathBuf {
        self.dir.join(format!("cursor-{bridge}"))
    }

    /// The address that a pod has, with its record.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn address_of(&self, uid: &str) -> Result<Option<(Ipv4Addr, AddressRecord)>> {
        let Ok(target) = fs::read_link(self.dir.join("pods").join(uid)) else { return Ok(None) };
        let Some(address) = target.to_str().and_then(|t| t.parse::<Ipv4Addr>().ok()) else {
            return Ok(None);
        };
        let record: Option<AddressRecord> = read(&self.address_path(address))?;
        Ok(record.filter(|r| r.uid == uid).map(|r| (address, r)))
    }

    /// Gives an address to a pod; `false` if another one has it.
    ///
    /// # Errors
    /// That of a file.
    pub fn take_address(&self, address: Ipv4Addr, record: &AddressRecord) -> Result<bool> {
        let path = self.address_path(address);
        if path.exists() {
            return Ok(false);
        }
        let index = self.dir.join("pods").join(&record.uid);
        remove(&index)?;
        symlink(address.to_string(), &index).map_err(failed("make", &index))?;
        self.replace(&path, &to_json(record))?;
        Ok(true)
    }

    /// Takes the address from a pod, if it is the pod's.
    ///
    /// # Errors
    /// That of a file.
    pub fn free_address(&self, address: Ipv4Addr, uid: &str) -> Result<()> {
        let path = self.address_path(address);
        let record: Option<AddressRecord> = read(&path)?;
        if record.is_some_and(|record| record.uid == uid) {
            remove(&path)?;
        }
        self.forget_pod(uid)
    }

    /// Removes the index of a pod that has no address: what a killed one left.
    ///
    /// # Errors
    /// That of the file.
    pub fn forget_pod(&self, uid: &str) -> Result<()> {
        remove(&self.dir.join("pods").join(uid))
    }

    /// Every address in use. What is no address's file is left out.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn addresses(&self) -> Result<Vec<(Ipv4Addr, AddressRecord)>> {
        let mut all = Vec::new();
        for name in names(&self.dir.join("addresses"))? {
            let Ok(address) = name.parse::<Ipv4Addr>() else { continue };
            if let Some(record) = read(&self.address_path(address))? {
                all.push((address, record));
            }
        }
        Ok(all)
    }

    fn address_path(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join("addresses").join(address.to_string())
    }

    /// Every hostPort in use, by the name of its file.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn ports(&self) -> Result<Vec<(String, PortRecord)>> {
        let dir = self.dir.join("ports");
        let mut all = Vec::new();
        for name in names(&dir)? {
            if let Some(record) = read(&dir.join(&name))? {
                all.push((name, record));
            }
        }
        Ok(all)
    }

    /// Gives a hostPort to a pod.
    ///
    /// # Errors
    /// That of the file.
    pub fn take_port(&self, name: &str, record: &PortRecord) -> Result<()> {
        self.replace(&self.dir.join("ports").join(name), &to_json(record))
    }

    /// Takes it back.
    ///
    /// # Errors
    /// That of the file.
    pub fn free_port(&self, name: &str) -> Result<()> {
        remove(&self.dir.join("ports").join(name))
    }

    /// Removes links of `pods/` that lead to no record of theirs.
    ///
    /// # Errors
    /// That of a file.
    pub fn sweep(&self) -> Result<()> {
        for uid in names(&self.dir.join("pods"))? {
            if self.address_of(&uid)?.is_none() {
                self.forget_pod(&uid)?;
            }
        }
        Ok(())
    }

    /// Removes the directory, the lock last; whoever waits for that makes a new one.
    ///
    /// # Errors
    /// That of a file.
    pub fn destroy(self) -> Result<()> {
        for name in names(&self.dir)?.into_iter().filter(|name| name != "lock") {
            let path = self.dir.join(name);
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed("remove", &path))?;
        }
        remove(&self.dir.join("lock"))?;
        match fs::remove_dir(&self.dir) {
            // Somebody was quick to make it again.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => removed.map_err(failed("remove", &self.dir))?,
        }
        // Shared with other bridges' directories: stays if there is one.
        if let Some(parent) = self.dir.parent().filter(|p| p.ends_with("podshim-host")) {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Writes a file aside and renames it. Under the lock there is one writer, so one name will do,
    /// and what a killed one left is overwritten.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let aside = self.dir.join("new");
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(content)?;
            fs::rename(&aside, path)
        };
        write().map_err(failed("write", path))
    }
}

/// What is written cannot fail to be JSON: strings and numbers.
fn to_json<T: Serialize>(record: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(record).unwrap_or_default();
    text.push(b'\n');
    text
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| failed("understand", path)(e))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}
