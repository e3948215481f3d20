//! What containers say of themselves on their notification sockets (sd_notify(3)): `READY=1` makes a
//! container `started`, `STATUS=` is shown beside what is waited for. Everything else is ignored.
//!
//! A socket is mounted in its own container only, and holds few datagrams (unix(7)). It is looked at a
//! few times a second at most: whoever floods it waits, and costs the host nothing. Descriptors that come with a datagram are not taken, so the kernel closes them, which is
//! what `BARRIER=1` waits for.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;

use anyhow::Context;
use plan::{Fact, Life, Mono};
use runtime::probe::legible;
use runtime::state_dir;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::machine::Machine;
use super::watch;
use super::{kept, tokens};

/// What a message may have, in bytes; systemd takes as much.
const MESSAGE_MAX_BYTES: usize = 4096;
/// What is kept of a status, in characters.
const STATUS_MAX: usize = 200;
/// How many messages are taken before anything else has its turn.
const AT_ONCE: usize = 16;
/// How often a socket is looked at within [`WINDOW_S`]; then it rests.
const LOOKS_MAX: u32 = 20;
/// In seconds.
const WINDOW_S: u32 = 1;

/// A container's socket.
#[derive(Debug)]
pub struct Notifier {
    c: usize,
    socket: UnixDatagram,
    /// What it said last of what it is doing.
    status: Option<String>,
    /// When the first of the looks was that are counted.
    window: Mono,
    looks: u32,
    /// Until when it is not looked at.
    rests: Option<Mono>,
}

impl Notifier {
    fn new(c: usize, socket: UnixDatagram) -> Notifier {
        let (window, looks, rests) = Default::default();
        Notifier { c, socket, status: None, window, looks, rests }
    }

    /// Whose it is.
    pub(super) fn container(&self) -> usize {
        self.c
    }

    /// The socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// When it is looked at again, if it rests.
    pub(super) fn rests(&self) -> Option<Mono> {
        self.rests
    }

    /// Counts a look at `now`; `true` if that was the last for a while.
    fn tires(&mut self, now: Mono) -> bool {
        if now >= self.window.plus_s(WINDOW_S) {
            (self.window, self.looks) = (now, 0);
        }
        self.looks += 1;
        self.rests = (self.looks >= LOOKS_MAX).then(|| self.window.plus_s(WINDOW_S));
        self.rests.is_some()
    }
}

impl Machine {
    /// Goes on with the sockets that the shim before this one had: what is mounted in containers is these.
    pub(super) fn take_notifiers(
        &mut self,
        held: &mut HashMap<String, OwnedFd>,
    ) -> anyhow::Result<()> {
        let expected = self.pod.containers.iter().enumerate().filter(|(_, k)| k.notify);
        let mut notifiers = Vec::new();
        for (c, container) in expected {
            match held.remove(&kept::notifier(c)) {
                Some(socket) => notifiers.push(Notifier::new(c, UnixDatagram::from(socket))),
                // Without a keeper it is lost, and what a container that runs says now goes nowhere.
                None => {
                    tracing::warn!("the notification socket of {} is lost", container.name);
                    let _ = fs::remove_file(self.dir.notify(&container.name));
                    notifiers.push(self.make_notifier(c, &container.name)?);
                }
            }
        }
        self.watch_notifiers(notifiers)
    }

    /// Makes the sockets of the containers that have one.
    pub(super) fn open_notifiers(&mut self) -> anyhow::Result<()> {
        let expected = self.pod.containers.iter().enumerate().filter(|(_, k)| k.notify);
        let made = expected.map(|(c, container)| self.make_notifier(c, &container.name));
        let made = made.collect::<anyhow::Result<Vec<_>>>()?;
        self.watch_notifiers(made)
    }

    fn make_notifier(&self, c: usize, name: &str) -> anyhow::Result<Notifier> {
        let dir = self.dir.notify_dir();
        state_dir::make_dir(&dir, 0o700)?;
        let path = self.dir.notify(name);
        let socket = bind(&dir, name)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        // Whatever user the container has.
        fs::set_permissions(&path, Permissions::from_mode(0o666))
            .with_context(|| format!("cannot open {} for all", path.display()))?;
        Ok(Notifier::new(c, socket))
    }

    fn watch_notifiers(&mut self, notifiers: Vec<Notifier>) -> anyhow::Result<()> {
        for notifier in &notifiers {
            let data = EventData::new_u64(tokens::notify(notifier.c));
            watch::add(&self.epoll, &notifier.socket, data, EventFlags::IN)
                .context("cannot watch a notification socket")?;
            self.hold(&kept::notifier(notifier.c), notifier.socket.as_fd());
        }
        self.notifiers = notifiers;
        Ok(())
    }

    /// Closes the sockets, which the keeper has open too.
    pub(super) fn end_notifiers(&mut self) {
        for notifier in std::mem::take(&mut self.notifiers) {
            let _ = epoll::delete(&self.epoll, &notifier.socket);
            self.release(&kept::notifier(notifier.c));
        }
    }

    /// Looks again at the sockets that have rested.
    pub(super) fn wake_notifiers(&mut self, now: Mono) {
        for notifier in &mut self.notifiers {
            if notifier.rests.is_some_and(|until| until <= now) {
                notifier.rests = None;
                watch(&self.epoll, notifier, EventFlags::IN);
            }
        }
    }

    pub(super) fn on_notification(&mut self, c: usize) {
        let now = runtime::clock::mono();
        if let Some(notifier) = self.notifiers.iter_mut().find(|n| n.c == c)
            && notifier.tires(now)
        {
            watch(&self.epoll, notifier, EventFlags::empty());
        }
        for _ in 0..AT_ONCE {
            let Some(text) = self.notifiers.iter().find(|n| n.c == c).and_then(receive) else {
                return;
            };
            for line in text.lines() {
                if line == "READY=1" {
                    self.notified(c);
                } else if let Some(status) = line.strip_prefix("STATUS=") {
                    self.note_status(c, status);
                }
            }
        }
    }

    fn notified(&mut self, c: usize) {
        // It cannot have said so before it was executed, only before that was looked at.
        let starting = self.incarnation(c, Life::Starting);
        let process = self.living.iter().find(|i| i.c == c && Some(i.inc) == starting);
        if let Some(pid) = process.map(|i| i.process.pid) {
            self.on_start_pipe(pid);
        }
        if let Some(inc) = self.incarnation(c, Life::Running) {
            self.record(Fact::Notified { c, inc });
        }
    }

    fn incarnation(&self, c: usize, phase: Life) -> Option<u32> {
        self.state.incarnations(c).iter().find(|i| i.phase == phase).map(|i| i.inc)
    }

    fn note_status(&mut self, c: usize, status: &str) {
        if let Some(notifier) = self.notifiers.iter_mut().find(|n| n.c == c) {
            let text: String = legible(status.as_bytes()).chars().take(STATUS_MAX).collect();
            notifier.status = Some(text).filter(|text| !text.is_empty());
        }
    }

    /// What a container says that it is doing.
    pub(super) fn status_of(&self, c: usize) -> Option<&str> {
        self.notifiers.iter().find(|n| n.c == c)?.status.as_deref()
    }

    /// What an incarnation that has ended said is not to be taken for the next one's word.
    pub(super) fn forget_notifications(&mut self, c: usize) {
        if let Some(notifier) = self.notifiers.iter_mut().find(|n| n.c == c) {
            while receive(notifier).is_some() {}
            notifier.status = None;
        }
    }
}

fn watch(epoll: &OwnedFd, notifier: &Notifier, flags: EventFlags) {
    let data = EventData::new_u64(tokens::notify(notifier.c));
    if let Err(e) = watch::modify(epoll, &notifier.socket, data, flags) {
        tracing::warn!("cannot watch a notification socket: {e}");
    }
}

/// A path may be longer than a socket's address, so the socket is named through its directory.
fn bind(dir: &std::path::Path, name: &str) -> io::Result<UnixDatagram> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(dir)?;
    let socket = UnixDatagram::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The next message; what is no text or too long is passed over.
fn receive(notifier: &Notifier) -> Option<String> {
    let mut buffer = [0; MESSAGE_MAX_BYTES];
    let n = notifier.socket.recv(&mut buffer).ok()?;
    Some(std::str::from_utf8(&buffer[..n]).unwrap_or_default().to_owned())
}
