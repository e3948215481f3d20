//! The objects that the daemon was given: on disk, in memory, and as a stream of changes.
//!
//! One file an object, replaced as a whole; what was acknowledged is there after a power cut. Versions
//! (`metadata.resourceVersion`) rise over all kinds and over restarts of the daemon: a block of them is
//! reserved on disk before the first of it is used. A watcher that is further behind than the changes that
//! are remembered is told so, and lists anew (Kubernetes API Concepts, "Efficient detection of changes").

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use bundles::layout::Layout;
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::brief::{Brief, version_of};
use crate::durable::{self, Reserve};

/// Changes that watchers may be behind.
pub const CHANGES_MAX: usize = 1024;
/// Versions that one write to the disk is good for.
const RESERVED: u64 = 10_000;
/// What a file begins with; a checksum of the rest of it follows.
const MAGIC: &str = "podshim-object ";
/// The format of what is written. Fields that this version does not know stay as they are; what cannot be read
/// as this has another number.
const FORMAT: u32 = 1;
/// Where the reserved versions are.
const VERSION: &str = "version";
/// The suffix of a file that is not as it was written.
const DAMAGED: &str = "damaged";
/// How often a disk is asked for a file that it does not give, and with what pause.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Of what an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
    Pod,
    Job,
    ReplicaSet,
    Deployment,
}

impl Kind {
    /// All of them; what others read comes first.
    pub const ALL: [Kind; 6] =
        [Kind::ConfigMap, Kind::Secret, Kind::Pod, Kind::Job, Kind::ReplicaSet, Kind::Deployment];

    /// `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
            Kind::Pod => "Pod",
            Kind::Job => "Job",
            Kind::ReplicaSet => "ReplicaSet",
            Kind::Deployment => "Deployment",
        }
    }

    /// As it stands in a path.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
            Kind::Pod => "pods",
            Kind::Job => "jobs",
            Kind::ReplicaSet => "replicasets",
            Kind::Deployment => "deployments",
        }
    }

    /// `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::ConfigMap | Kind::Secret | Kind::Pod => "v1",
            Kind::Job => "batch/v1",
            Kind::ReplicaSet | Kind::Deployment => "apps/v1",
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// That of an object.
    pub fn of(kind: Kind, object: &Value) -> Key {
        let field = |name| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        Key { kind, namespace: field("namespace"), name: field("name") }
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Added,
    Modified,
    Deleted,
}

/// A change, as watchers are told of it.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub happened: Happened,
    pub key: Key,
    /// As JSON.
    pub object: Rc<str>,
}

/// An object as it lies here: as text, which takes a fifth of the room that its values would.
pub struct Entry {
    text: Rc<str>,
    /// What is asked of many at a time.
    pub brief: Brief,
}

impl Entry {
    fn of(object: &Value) -> Entry {
        Entry { text: object.to_string().into(), brief: Brief::of(object) }
    }

    /// As JSON.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The object.
    pub fn object(&self) -> Value {
        parse(&self.text)
    }
}

/// An object of its JSON, which was written from one.
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// All objects.
pub struct Store {
    dir: PathBuf,
    reserve: Reserve,
    objects: BTreeMap<Key, Entry>,
    uids: HashMap<String, Key>,
    version: u64,
    reserved: u64,
    changes: VecDeque<Change>,
    news: watch::Sender<u64>,
    is_whole: bool,
}

impl Store {
    /// Reads what is there. A file that is not as it was written is set aside, one that the disk does not give
    /// stays where it is; either is told in the log.
    pub fn open(dir: PathBuf, reserve: Reserve) -> anyhow::Result<Store> {
        let (mut objects, mut uids) = (BTreeMap::new(), HashMap::new());
        let (mut newest, mut is_whole) = (0, true);
        for kind in Kind::ALL {
            let of_kind = dir.join(kind.plural());
            fs::create_dir_all(&of_kind)
                .with_context(|| format!("cannot make {}", of_kind.display()))?;
            for name in crate::cli::names_in(&of_kind)? {
                let path = of_kind.join(&name);
                is_whole &= path.extension().is_none_or(|e| e != DAMAGED);
                if path.extension().is_some_and(|e| e == durable::UNFINISHED) {
                    fs::remove_file(&path)
                        .with_context(|| format!("cannot remove {}", path.display()))?;
                }
                if path.extension().is_none_or(|e| e != "json") {
                    continue;
                }
                let bytes = match read(&path) {
                    Err(e) if is_of_the_disk(&e) => {
                        is_whole = false;
                        tracing::error!(
                            "cannot read {}: {e}: the object is unknown until its file system is repaired \
                             (fsck) and the daemon started again",
                            path.display()
                        );
                        continue;
                    }
                    read => read.with_context(|| format!("cannot read {}", path.display()))?,
                };
                if let Some(format) = other_format(&bytes) {
                    anyhow::bail!(
                        "{} has format {format}, and this podshim reads {FORMAT}: run the podshim that \
                         wrote it, or a later one",
                        path.display()
                    );
                }
                let Some(object) = decode(&bytes) else {
                    is_whole = false;
                    let aside = path.with_extension(DAMAGED);
                    fs::rename(&path, &aside)
                        .with_context(|| format!("cannot rename {}", path.display()))?;
                    tracing::error!(
                        "{} is damaged (its checksum is another one): it is {} now, and the object \
                         is unknown",
                        path.display(),
                        aside.display()
                    );
                    continue;
                };
                newest = newest.max(version_of(&object));
                let (key, entry) = (Key::of(kind, &object), Entry::of(&object));
                uids.insert(entry.brief.uid.clone(), key.clone());
                objects.insert(key, entry);
            }
        }
        let text = match fs::read_to_string(dir.join(VERSION)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", dir.join(VERSION).display()))?,
        };
        let version = newest.max(text.trim().parse().unwrap_or(0));
        let changes = VecDeque::new();
        let (news, _) = watch::channel(version);
        reserve.keep();
        Ok(Store {
            dir,
            reserve,
            objects,
            uids,
            version,
            reserved: version,
            changes,
            news,
            is_whole,
        })
    }

    /// Removes all that a daemon that is not there has kept.
    pub fn remove_all(layout: &Layout) -> anyhow::Result<()> {
        for dir in [layout.store(), layout.results(), layout.event_logs()] {
            bundles::tree::remove(&dir)
                .with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        for file in [layout.daemon_lock(), layout.daemon_socket(), layout.reserve()] {
            durable::remove(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        Ok(())
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Hears of every version.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.objects.get(key).map(Entry::object)
    }

    /// What is asked of it most.
    pub fn brief(&self, key: &Key) -> Option<&Brief> {
        self.objects.get(key).map(|entry| &entry.brief)
    }

    /// Those of a kind, by namespace and name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    /// The one of a kind that has this uid.
    pub fn find(&self, kind: Kind, uid: &str) -> Option<(&Key, &Brief)> {
        let key = self.uids.get(uid).filter(|key| key.kind == kind)?;
        self.objects.get_key_value(key).map(|(key, entry)| (key, &entry.brief))
    }

    /// Whether an object of this uid is there.
    pub fn has(&self, uid: &str) -> bool {
        self.uids.contains_key(uid)
    }

    /// Whether nothing is missing that is damaged.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes on an object that is new, or a new state of one, and is done when it is on the disk.
    pub fn put(&mut self, kind: Kind, object: Value) -> anyhow::Result<Value> {
        self.take(kind, object, true)
    }

    /// Takes on what is known elsewhere too, and is asked for there after a crash.
    pub fn note(&mut self, kind: Kind, object: Value) -> anyhow::Result<Value> {
        self.take(kind, object, false)
    }

    fn take(&mut self, kind: Kind, mut object: Value, durable: bool) -> anyhow::Result<Value> {
        let key = Key::of(kind, &object);
        let before = self.objects.get(&key);
        if let Some(before) = before {
            object["metadata"]["resourceVersion"] = json!(before.brief.version.to_string());
            if !durable && before.text == Entry::of(&object).text {
                return Ok(object);
            }
        }
        let happened = if before.is_some() { Happened::Modified } else { Happened::Added };
        let version = self.next()?;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if durable {
            let path = self.path(&key);
            let bytes = encode(&object);
            // What is new can wait; a deletion and an end are what makes room.
            let written = match happened {
                Happened::Added => {
                    self.reserve.keep();
                    // Nobody is told that it is there, so that it may not come back with the next daemon.
                    durable::write(&path, &bytes).inspect_err(|_| drop(durable::remove(&path)))
                }
                _ => self.reserve.write(&path, &bytes),
            };
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        let entry = Entry::of(&object);
        let change = Change { version, happened, key: key.clone(), object: entry.text.clone() };
        self.uids.insert(entry.brief.uid.clone(), key.clone());
        self.objects.insert(key, entry);
        self.tell(change);
        Ok(object)
    }

    /// Forgets an object, and is done when the disk has.
    pub fn remove(&mut self, key: &Key) -> anyhow::Result<()> {
        let Some(mut last) = self.get(key) else { return Ok(()) };
        let version = self.next()?;
        last["metadata"]["resourceVersion"] = json!(version.to_string());
        let path = self.path(key);
        durable::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        if let Some(gone) = self.objects.remove(key) {
            self.uids.remove(&gone.brief.uid);
        }
        let object = last.to_string().into();
        self.tell(Change { version, happened: Happened::Deleted, key: key.clone(), object });
        Ok(())
    }

    /// What has changed after a version; `None` if that is longer ago than is remembered.
    pub fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let forgotten = match self.changes.front() {
            Some(first) => first.version - 1,
            None => self.version,
        };
        (forgotten <= version)
            .then(|| self.changes.iter().skip_while(move |change| change.version <= version))
    }

    fn next(&mut self) -> anyhow::Result<u64> {
        if self.version >= self.reserved {
            let reserved = self.version + RESERVED;
            let path = self.dir.join(VERSION);
            self.reserve
                .write(&path, reserved.to_string().as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.reserved = reserved;
        }
        self.version += 1;
        Ok(self.version)
    }

    fn tell(&mut self, change: Change) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        self.news.send_replace(self.version);
    }

    /// A namespace is a DNS label and has no underscore.
    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.kind.plural()).join(format!("{}_{}.json", key.namespace, key.name))
    }
}

/// As `fs::read`, but a disk is asked again before it is believed that it has lost something.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut tries = 1;
    loop {
        match fs::read(path) {
            Err(e) if is_of_the_disk(&e) && tries < READ_TRIES => {
                tries += 1;
                std::thread::sleep(READ_PAUSE);
            }
            read => return read,
        }
    }
}

/// Whether it is told by a disk or file system that this file is lost, where another error may be this
/// process's: who has no descriptor or memory left knows nothing of the file.
fn is_of_the_disk(error: &io::Error) -> bool {
    // EUCLEAN and EBADMSG are what the kernel's file systems call EFSCORRUPTED and EFSBADCRC.
    let errnos = [Errno::IO, Errno::UCLEAN, Errno::BADMSG];
    Errno::from_io_error(error).is_some_and(|errno| errnos.contains(&errno))
}

fn encode(object: &Value) -> Vec<u8> {
    let body = object.to_string();
    let sum = crc32fast::hash(body.as_bytes());
    format!("{MAGIC}{FORMAT} {sum:08x}\n{body}\n").into_bytes()
}

/// The format of a file, if it is another one.
fn other_format(bytes: &[u8]) -> Option<u32> {
    let head = std::str::from_utf8(bytes.split(|byte| *byte == b'\n').next()?).ok()?;
    let (format, sum) = head.strip_prefix(MAGIC)?.split_once(' ')?;
    // The whole line is as one is: a byte that has changed makes no other format.
    let is_whole = sum.len() == 8 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    format.parse().ok().filter(|format| is_whole && *format != FORMAT)
}

fn decode(bytes: &[u8]) -> Option<Value> {
    let (head, body) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    let body = body.strip_suffix('\n')?;
    let (format, sum) = head.strip_prefix(MAGIC)?.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok().filter(|_| format == FORMAT.to_string())?;
    (sum == crc32fast::hash(body.as_bytes())).then(|| serde_json::from_str(body).ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    fn pod(name: &str, text: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name, "uid": name}, "text": text})
    }

    fn key(name: &str) -> Key {
        Key { kind: Kind::Pod, namespace: "default".into(), name: name.into() }
    }

    fn opened(dir: &Path) -> anyhow::Result<Store> {
        Store::open(dir.to_owned(), Reserve::at(dir.join("reserve")))
    }

    #[test]
    fn what_was_put_is_there_again_and_versions_rise_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let open = || opened(dir.path()).unwrap();
        let mut store = open();
        let first = store.put(Kind::Pod, pod("a", "one")).unwrap();
        let second = store.put(Kind::Pod, pod("a", "two")).unwrap();
        assert!(version_of(&second) > version_of(&first));
        store.put(Kind::Pod, pod("b", "three")).unwrap();
        store.remove(&key("b")).unwrap();
        // Noted only: not there after a crash.
        store.note(Kind::Pod, pod("a", "four")).unwrap();
        let last = store.version();
        let mut store = open();
        assert_eq!(store.get(&key("a")).unwrap()["text"], "two");
        assert!(store.get(&key("b")).is_none());
        assert!(version_of(&store.put(Kind::Pod, pod("c", "")).unwrap()) > last);
    }

    #[test]
    fn a_watcher_is_told_all_in_order_or_that_it_is_too_late() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = opened(dir.path()).unwrap();
        let begin = store.version();
        store.put(Kind::Pod, pod("a", "")).unwrap();
        store.note(Kind::Pod, pod("a", "changed")).unwrap();
        store.note(Kind::Pod, pod("a", "changed")).unwrap();
        store.remove(&key("a")).unwrap();
        let told = |store: &Store, since| -> Option<Vec<Happened>> {
            Some(store.since(since)?.map(|change| change.happened).collect())
        };
        let all = [Happened::Added, Happened::Modified, Happened::Deleted];
        assert_eq!(told(&store, begin).unwrap(), all);
        assert_eq!(told(&store, begin + 1).unwrap(), all[1..]);
        for n in 0..CHANGES_MAX {
            store.note(Kind::Pod, pod("a", &n.to_string())).unwrap();
        }
        assert!(told(&store, begin).is_none());
        assert_eq!(told(&store, store.version()).unwrap(), []);
    }

    /// What the next version has written is not damaged: nothing is touched, and what to do is said.
    #[test]
    fn another_format_is_named_and_left_and_fields_of_a_later_version_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = opened(dir.path()).unwrap();
        let mut later = pod("a", "one");
        later["later"] = json!({"than": "this"});
        store.put(Kind::Pod, later).unwrap();
        store.put(Kind::Pod, pod("b", "two")).unwrap();
        let store = opened(dir.path()).unwrap();
        assert_eq!(store.get(&key("a")).unwrap()["later"]["than"], "this");
        let path = store.path(&key("b"));
        let text = fs::read_to_string(&path).unwrap();
        for format in [FORMAT - 1, FORMAT + 1] {
            let other = text.replacen(" 1 ", &format!(" {format} "), 1);
            fs::write(&path, &other).unwrap();
            let said = opened(dir.path()).err().unwrap().to_string();
            assert!(said.contains(&format!("has format {format}, and")), "{said}");
            assert_eq!(fs::read_to_string(&path).unwrap(), other);
        }
        fs::write(&path, &text).unwrap();
        assert!(opened(dir.path()).unwrap().get(&key("b")).is_some());
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_set_aside_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = opened(dir.path()).unwrap();
        store.put(Kind::Pod, pod("a", "one")).unwrap();
        store.put(Kind::Pod, pod("b", "two")).unwrap();
        let path = store.path(&key("a"));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        fs::write(path.with_extension(durable::UNFINISHED), "half").unwrap();
        let store = opened(dir.path()).unwrap();
        assert!(store.get(&key("a")).is_none() && store.get(&key("b")).is_some());
        assert!(path.with_extension(DAMAGED).exists());
        assert!(!path.with_extension(durable::UNFINISHED).exists());
    }
}
