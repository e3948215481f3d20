//! The pods of one `podshim run`: their channels, their logs, what is known of them.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use plan::At;
use runtime::log::reader::{Follower, Start};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::print::Printer;

use crate::pod::result::PodResult;
use crate::protocol::{Event, PodWaiting, Reply, Request};
use crate::shown::Shown;
use crate::spawn::Spawned;

/// What comes from the shims, in the order in which it is noticed.
#[derive(Debug)]
pub struct Message {
    /// From whose.
    pub uid: String,
    /// What.
    pub said: Said,
}

/// What there is to tell of a shim.
#[derive(Debug)]
pub enum Said {
    /// It is there, or another one is; what happened so far comes.
    Met,
    /// It says something.
    Reply(Reply),
    /// The channel to it is closed.
    Left,
    /// Its pod has ended, and this is how.
    Ended(Box<PodResult>),
    /// Its pod has ended, and how cannot be read.
    Unreadable,
}

/// How many replies may wait; a shim buffers more for its owner.
const MESSAGES_MAX: usize = 1024;

/// One pod.
pub struct PodRun {
    /// Its object; `status` is kept up to date.
    pub object: Value,
    /// Which workload it belongs to.
    pub workload: usize,
    /// What it exits with, once its shim said so.
    pub exit_code: Option<i32>,
    /// Its shim has ended.
    pub gone: bool,
    /// It was asked to end by us or by its controller.
    pub deleting: bool,
    /// When it was made.
    pub created: At,
    /// When it was over.
    pub finished: Option<At>,
    /// What it waits for.
    pub waiting: Vec<PodWaiting>,
    /// A shim of its has said something.
    pub is_met: bool,
    /// What happened so far is still to come: it was asked for.
    pub awaits_events: bool,
    /// Which events have been shown.
    shown: Shown,
    /// If it is this process's.
    own: Option<Own>,
    logs: Vec<(String, PathBuf)>,
    followers: Vec<Log>,
}

/// What there is of a pod that ends with this process.
struct Own {
    /// Its keeper.
    child: Child,
    /// When that was started.
    kept_since: Instant,
    /// How many have died, one soon after another.
    keepers_lost: u32,
    /// How the pod is to end, if it was asked to.
    asked: Option<Request>,
    writer: OwnedWriteHalf,
}

struct Log {
    prefix: String,
    follower: Follower,
}

impl PodRun {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Of all that has happened so far, what was not shown before.
    pub fn news(&mut self, events: Vec<Event>) -> Vec<Event> {
        self.shown.news(events, |event| event.at)
    }

    /// An event that is told as it happens is to be shown.
    pub fn shows(&mut self, event: &Event) {
        self.shown.add(event.at);
    }

    async fn say(&mut self, request: &Request) {
        let Ok(mut line) = serde_json::to_vec(request) else { return };
        // Behind what a dead shim may have read the beginning of.
        line.insert(0, b'\n');
        line.push(b'\n');
        if let Some(own) = &mut self.own {
            // A closed channel is reported by the reader.
            let _ = own.writer.write_all(&line).await;
        }
    }

    /// Prints what is new in the containers' logs.
    pub fn print_logs(&mut self, printer: &Printer) {
        for log in &mut self.followers {
            let prefix = &log.prefix;
            if let Err(e) = log.follower.poll(&mut |line| printer.output(prefix, &line)) {
                printer.warn(&runtime::chain(&e));
            }
        }
    }

    fn finish_logs(&mut self, printer: &Printer) {
        self.print_logs(printer);
        for log in &mut self.followers {
            let prefix = &log.prefix;
            log.follower.finish(&mut |line| printer.output(prefix, &line));
        }
    }
}

/// inotify, as tokio wants its descriptors.
struct Watcher(Inotify);

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// All of them.
pub struct Pods {
    /// By uid.
    pub list: HashMap<String, PodRun>,
    inotify: AsyncFd<Watcher>,
    watches: HashMap<WatchDescriptor, String>,
    sender: mpsc::Sender<Message>,
}

impl Pods {
    /// None yet.
    pub fn new() -> anyhow::Result<(Pods, mpsc::Receiver<Message>)> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .context("cannot watch logs (fs.inotify.max_user_instances?)")?;
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        #[expect(deprecated, reason = "its successor is unsafe; the watcher owns its descriptor")]
        let inotify = AsyncFd::new(Watcher(inotify)).context("cannot watch logs")?;
        Ok((Pods { list: HashMap::new(), inotify, watches: HashMap::new(), sender }, receiver))
    }

    /// Takes on a pod. `prefix` gives the name that its containers' lines begin with.
    pub fn add(
        &mut self,
        spawned: Spawned,
        workload: usize,
        printer: &mut Printer,
        prefix: impl Fn(&str) -> String,
    ) -> anyhow::Result<()> {
        let Spawned { uid, pod, child, channel, logs } = spawned;
        let mut object = serde_json::to_value(&pod)?;
        object["apiVersion"] = "v1".into();
        object["kind"] = "Pod".into();
        let writer = self.listen(&uid, channel)?;
        let since = Instant::now();
        let own = Own { child, kept_since: since, keepers_lost: 0, asked: None, writer };
        self.take_on(&uid, object, workload, logs, printer, prefix);
        if let Some(pod) = self.list.get_mut(&uid) {
            pod.own = Some(own);
        }
        self.watch_logs(&uid);
        Ok(())
    }

    /// Takes on a pod that somebody else has; `logs` is where its containers' are.
    pub fn take_on(
        &mut self,
        uid: &str,
        object: Value,
        workload: usize,
        logs: Vec<(String, PathBuf)>,
        printer: &mut Printer,
        prefix: impl Fn(&str) -> String,
    ) {
        let mut followers = Vec::new();
        for (container, dir) in &logs {
            let prefix = prefix(container);
            printer.expect(&prefix);
            followers.push(Log { prefix, follower: Follower::new(dir, Start::Oldest) });
        }
        let pod = PodRun {
            object,
            workload,
            exit_code: None,
            gone: false,
            deleting: false,
            created: runtime::clock::now(),
            finished: None,
            waiting: Vec::new(),
            is_met: false,
            awaits_events: false,
            shown: Shown::default(),
            own: None,
            logs,
            followers,
        };
        self.list.insert(uid.to_owned(), pod);
    }

    /// From now on its output is printed when it comes; the directories are there.
    pub fn watch_logs(&mut self, uid: &str) {
        let Some(pod) = self.list.get(uid) else { return };
        let flags =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        for (_, dir) in &pod.logs {
            // Without a watch the lines come when the pod's next event does.
            if let Ok(watch) = self.inotify.get_ref().0.add_watch(dir, flags) {
                self.watches.insert(watch, uid.to_owned());
            }
        }
    }

    /// Where messages about pods go.
    pub fn sender(&self) -> mpsc::Sender<Message> {
        self.sender.clone()
    }

    fn listen(&self, uid: &str, channel: StdUnixStream) -> anyhow::Result<OwnedWriteHalf> {
        channel.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(channel)?.into_split();
        let (sender, uid) = (self.sender.clone(), uid.to_owned());
        tokio::spawn(async move {
            if hear(reader, &uid, &sender).await {
                let _ = sender.send(Message { uid, said: Said::Left }).await;
            }
        });
        Ok(writer)
    }

    /// Waits until some log has grown, and prints what is new.
    pub async fn logs_grew(&self) -> Vec<String> {
        loop {
            let Ok(mut guard) = self.inotify.readable().await else { return Vec::new() };
            match guard.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from)) {
                Ok(Ok(events)) => {
                    let mut uids: Vec<String> =
                        events.iter().filter_map(|e| self.watches.get(&e.wd).cloned()).collect();
                    uids.sort();
                    uids.dedup();
                    return uids;
                }
                Ok(Err(_)) => return Vec::new(),
                Err(_would_block) => {}
            }
        }
    }

    /// Asks a pod for something. One that has gone needs nothing any more.
    pub async fn request(&mut self, uid: &str, request: &Request) {
        let Some(pod) = self.list.get_mut(uid) else { return };
        if matches!(request, Request::Delete { .. } | Request::Kill) {
            pod.deleting = true;
            if let Some(own) = &mut pod.own {
                own.asked = Some(request.clone());
            }
        }
        pod.say(request).await;
    }

    /// Another shim has the pod, and may not know what was asked for last.
    pub async fn ask_again(&mut self, uid: &str) {
        let Some(pod) = self.list.get_mut(uid) else { return };
        if let Some(request) = pod.own.as_ref().and_then(|own| own.asked.clone()) {
            pod.say(&request).await;
        }
    }

    /// The pod's keeper and shim are both dead: how the keeper ended, and how many have in a row, none of
    /// which lived as long as `long`.
    pub fn ended(&mut self, uid: &str, long: Duration) -> Option<(ExitStatus, u32)> {
        let own = self.list.get_mut(uid)?.own.as_mut()?;
        // The channel is closed, so it takes no time any more.
        let status = own.child.wait().ok()?;
        own.keepers_lost = if own.kept_since.elapsed() < long { own.keepers_lost + 1 } else { 1 };
        Some((status, own.keepers_lost))
    }

    /// There are new ones.
    pub fn rejoin(
        &mut self,
        uid: &str,
        (child, channel): (Child, StdUnixStream),
    ) -> anyhow::Result<()> {
        let writer = self.listen(uid, channel)?;
        if let Some(own) = self.list.get_mut(uid).and_then(|pod| pod.own.as_mut()) {
            (own.child, own.writer, own.kept_since) = (child, writer, Instant::now());
        }
        Ok(())
    }

    /// The same to all that are alive.
    pub async fn request_all(&mut self, request: &Request) {
        let uids: Vec<String> =
            self.list.iter().filter(|(_, p)| !p.gone).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.request(&uid, request).await;
        }
    }

    /// The shim has ended: its last lines are printed and it is reaped.
    pub fn end(&mut self, uid: &str, printer: &Printer) {
        let Some(pod) = self.list.get_mut(uid) else { return };
        pod.gone = true;
        pod.finished = Some(runtime::clock::now());
        pod.finish_logs(printer);
        if let Some(own) = &mut pod.own {
            // Its channel is closed by its end, which takes no time any more.
            let _ = own.child.wait();
        }
        let inotify = &self.inotify.get_ref().0;
        self.watches.retain(|watch, of| {
            let keep = of != uid;
            if !keep {
                let _ = inotify.rm_watch(*watch);
            }
            keep
        });
    }

    /// Whether any pod is left.
    pub fn anybody_alive(&self) -> bool {
        self.list.values().any(|p| !p.gone)
    }
}

/// Passes on what a shim says until it says no more; `false` if nobody hears it any more.
pub async fn hear(
    stream: impl AsyncRead + Unpin,
    uid: &str,
    sender: &mpsc::Sender<Message>,
) -> bool {
    let mut lines = BufReader::new(stream).lines();
    let mut bad = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let replies = match serde_json::from_str(&line) {
            _ if line.is_empty() => continue,
            // What a shim has left half said is no error.
            Ok(reply @ Reply::Adopted { .. }) => [None, Some(reply)],
            Ok(reply) => [bad.take(), Some(reply)],
            Err(e) => {
                let text = format!("a shim's message is not understood: {e}");
                [bad.replace(Reply::Error(text)), None]
            }
        };
        for reply in replies.into_iter().flatten() {
            let message = Message { uid: uid.to_owned(), said: Said::Reply(reply) };
            if sender.send(message).await.is_err() {
                return false;
            }
        }
    }
    true
}
