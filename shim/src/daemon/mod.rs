//! `podshim daemon`: pods, jobs and deployments that outlive whoever asked for them.
//!
//! It keeps what it was given (`store`), makes the pods (`pods`, `control`) and answers in the words of the
//! Kubernetes API over a unix socket (`api`). It is on nobody's way: a pod is its shim, and lives on while
//! the daemon is stopped, killed or another version. One thread; nothing in it waits but for sockets, and
//! for the disk where something is acknowledged.
//!
//! ```text
//! client ──HTTP──► api ──► admit ──► store ──► disk
//!                           │          ▲
//!              control ◄────┴─► pods ──┴──► keeper, shim
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use bundles::layout::Layout;
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};

use crate::cli::{DaemonArgs, names_in, printable, tell};
use crate::durable::Reserve;
use crate::knobs;
use crate::pod::file::PodFile;
use crate::pod::scrap::{self, Stays};
use crate::protocol::Request;
use crate::remembered;
use crate::service;
use crate::spawn::Spawner;

mod admit;
mod api;
mod brief;
mod control;
mod pods;
mod stale;
pub mod store;
mod tell;

use brief::Brief;
use store::{Key, Kind, Store};

/// What there is one of.
pub struct Daemon {
    layout: Layout,
    args: crate::cli::PodArgs,
    spawner: Spawner,
    store: RefCell<Store>,
    links: RefCell<pods::Links>,
    controllers: RefCell<control::Controllers>,
    /// Keepers that were started, until they are reaped.
    children: RefCell<Vec<Child>>,
    /// Something that a controller may want to know has changed.
    wake: Notify,
    /// Pods that live and have not been heard since this daemon began.
    unheard: RefCell<HashSet<String>>,
    /// One less of them.
    heard: Notify,
    /// There is something that is to be forgotten one day.
    remembers: Notify,
    /// The host goes down: no pod is started any more.
    suspends: Cell<bool>,
    /// For what a pod has done to the disk or a process: one after the other, with clients answered in between
    /// when a thousand start or end at once.
    turns: Semaphore,
}

/// A daemon that was killed holds its lock until the kernel has closed all that it had open.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// How long a daemon that begins waits for the word of the pods that live.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// How often is looked for what is to be forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Serves until it is told to end. The pods live on.
pub fn run(layout: Layout, args: DaemonArgs) -> anyhow::Result<i32> {
    let passed = service::passed_socket()?;
    let is_own = passed.is_none();
    if let Ok(errors) = std::io::stderr().as_fd().try_clone_to_owned() {
        runtime::diagnostics::begin(errors.into());
    }
    // The runtime would go on without the task that has panicked, and so without whoever follows a pod. The
    // pods live on, and the next daemon takes them on.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::abort();
    }));
    // A moment that an object tells may lie before the host's boot.
    runtime::clock::set_ahead(runtime::clock::ahead_as_wall());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _lock = lock(&layout)?;
    let service = service::Service::of_systemd();
    let spawner = Spawner::of_daemon(layout.clone(), knobs::options(&args.pods)?)?;
    let store = Store::open(layout.store(), Reserve::at(layout.reserve()))?;
    let daemon = Rc::new(Daemon {
        layout,
        args: args.pods,
        spawner,
        store: RefCell::new(store),
        links: RefCell::default(),
        controllers: RefCell::default(),
        children: RefCell::default(),
        wake: Notify::new(),
        unheard: RefCell::default(),
        heard: Notify::new(),
        remembers: Notify::new(),
        suspends: Cell::new(false),
        turns: Semaphore::new(1),
    });
    let ended = tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = listen(&daemon.layout, passed)?;
        daemon.take_on_all()?;
        daemon.until_heard().await;
        let mut ends = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
        let mut children = signal(SignalKind::child())?;
        let control = tokio::task::spawn_local(control::control(daemon.clone()));
        tokio::task::spawn_local(api::serve(daemon.clone(), listener));
        tokio::task::spawn_local(forget(daemon.clone()));
        service.ready("serves").await;
        tokio::task::spawn_local(service.watchdog());
        let socket = daemon.layout.daemon_socket();
        say(&format!("serves at {}", socket.display()));
        let [interrupt, terminate] = &mut ends;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = children.recv() => daemon.reap(),
            }
        }
        service.stopping().await;
        if service.host_goes_down().await {
            control.abort();
            say("the host goes down: the pods are stopped, and go on when it is up again");
            daemon.suspend_all().await;
        }
        if is_own {
            let _ = std::fs::remove_file(&socket);
        }
        say("ends; the pods live on");
        Ok(0)
    });
    runtime.shutdown_timeout(service::PATIENCE);
    ended
}

/// Forgets what happened to what is gone, in time; sleeps while there is nothing to forget.
async fn forget(daemon: Rc<Daemon>) {
    let layout = &daemon.layout;
    loop {
        let mut is_more = false;
        for dir in [layout.results(), layout.event_logs()] {
            let is_there = |uid: &str| daemon.store.borrow().has(uid);
            is_more |= remembered::expire(&dir, is_there, SystemTime::now()).unwrap_or_else(|e| {
                tracing::warn!("{e:#}");
                true
            });
        }
        if !is_more {
            daemon.remembers.notified().await;
        }
        tokio::time::sleep(FORGET).await;
    }
}

/// A line of the daemon's log, which is standard error.
fn say(text: &str) {
    tell(&format!("podshim daemon: {}\n", printable(text)));
}

/// One daemon a root.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    runtime::state_dir::make_dir(&layout.root, 0o700)?;
    let path = layout.daemon_lock();
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            bail!("a daemon of this root runs already: it holds {}", path.display());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(file)
}

/// systemd's socket, or one of our own in place of a dead daemon's.
fn listen(layout: &Layout, passed: Option<OwnedFd>) -> anyhow::Result<UnixListener> {
    let path = layout.daemon_socket();
    let listener = match passed {
        Some(fd) => std::os::unix::net::UnixListener::from(fd),
        None => {
            let _ = std::fs::remove_file(&path);
            let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
            let bound = std::os::unix::net::UnixListener::bind(&path);
            rustix::process::umask(before);
            bound.with_context(|| format!("cannot listen at {}", path.display()))?
        }
    };
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

impl Daemon {
    /// Goes on with all that was there before, whoever has died in between.
    fn take_on_all(self: &Rc<Self>) -> anyhow::Result<()> {
        self.release_orphans()?;
        for name in names_in(&self.layout.pods())? {
            self.recover(&name)?;
        }
        for uid in names_in(&self.layout.all_kept())? {
            if self.is_nobodys(&uid) && scrap::leftover(&self.layout, &uid, Stays::Nothing)? {
                tracing::warn!("removed what was left of pod {uid}, which is over");
            }
        }
        let pods: Vec<(Key, Brief)> = {
            let store = self.store.borrow();
            store.list(Kind::Pod).map(|(key, pod)| (key.clone(), pod.brief.clone())).collect()
        };
        let unfinished = pods.into_iter().filter(|(_, pod)| self.is_unfinished(pod));
        for (key, pod) in unfinished {
            if self.layout.pod(&pod.uid).dir.exists() {
                self.unheard.borrow_mut().insert(pod.uid.clone());
            } else if !pod.outline.is_terminal() {
                let mut store = self.store.borrow_mut();
                if let Some(object) = store.get(&key) {
                    store.note(Kind::Pod, stale::unready(object, runtime::clock::now().wall))?;
                }
            }
            self.begin(key, pod.uid);
        }
        Ok(())
    }

    /// Until each pod that lives has said how it is: what the store has of that is older. Nobody is to see or
    /// decide by it, but for a shim that does not speak.
    async fn until_heard(&self) {
        let all = async {
            while !self.unheard.borrow().is_empty() {
                self.heard.notified().await;
            }
        };
        if tokio::time::timeout(HEARD_WITHIN, all).await.is_err() {
            let silent = self.unheard.borrow().len();
            say(&format!("{silent} pods say nothing of themselves; they are shown as they were"));
        }
    }

    /// There is news of a pod, or nothing more to wait for.
    fn is_heard(&self, uid: &str) {
        if self.unheard.borrow_mut().remove(uid) {
            self.heard.notify_one();
        }
    }

    /// What was made for a job or deployment that is not there is removed, as a cluster's garbage collector does:
    /// a disk that failed has kept what nobody was told of. Not if the owner may be a file that was damaged.
    fn release_orphans(&self) -> anyhow::Result<()> {
        if !self.store.borrow().is_whole() {
            return Ok(());
        }
        for kind in [Kind::ReplicaSet, Kind::Pod] {
            let orphans: Vec<Key> = {
                let store = self.store.borrow();
                let is_orphan = |brief: &Brief| {
                    !brief.owners.is_empty() && !brief.owners.iter().any(|owner| store.has(owner))
                };
                let all = store.list(kind).filter(|(_, entry)| is_orphan(&entry.brief));
                all.map(|(key, _)| key.clone()).collect()
            };
            for key in orphans {
                say(&format!(
                    "{} {}/{} has no owner any more: it is deleted",
                    kind.name(),
                    key.namespace,
                    key.name
                ));
                match kind {
                    Kind::Pod => drop(self.delete_pod(&key, None)?),
                    _ => self.store.borrow_mut().remove(&key)?,
                }
            }
        }
        Ok(())
    }

    /// Whether what is kept of a pod is of no use: it was the daemon's, and is over or was removed.
    fn is_nobodys(&self, uid: &str) -> bool {
        let store = self.store.borrow();
        let pod = store.find(Kind::Pod, uid);
        self.layout.pod(uid).kept_journal().exists()
            && pod.is_none_or(|(_, pod)| !self.is_unfinished(pod))
    }

    /// A pod of the daemon's that lives and is not in the store: the store was damaged.
    fn recover(&self, uid: &str) -> anyhow::Result<()> {
        let Ok(file) = PodFile::read(&self.layout.pod(uid).spec()) else { return Ok(()) };
        let mut store = self.store.borrow_mut();
        if file.owner.is_some() || store.find(Kind::Pod, uid).is_some() {
            return Ok(());
        }
        let object = crate::workload::object_of("v1", "Pod", &file.pod, runtime::clock::now())?;
        let key = Key::of(Kind::Pod, &object);
        if store.brief(&key).is_none() {
            tracing::warn!("pod {}/{} lives and was forgotten", key.namespace, key.name);
            store.put(Kind::Pod, object)?;
        }
        Ok(())
    }

    /// Stops all pods as at their end, each within its own grace period, and waits until they have; the service
    /// manager may lose its patience before.
    async fn suspend_all(&self) {
        self.suspends.set(true);
        let links: Vec<_> = self.links.borrow().values().cloned().collect();
        for link in links {
            // It fails for one that is over.
            let _ = link.send(Request::Suspend).await;
        }
        while !self.links.borrow().is_empty() {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// Follows a pod, which is started if it is not there.
    fn begin(self: &Rc<Self>, key: Key, uid: String) {
        pods::follow(self, key, uid);
    }

    fn reap(&self) {
        self.children.borrow_mut().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
