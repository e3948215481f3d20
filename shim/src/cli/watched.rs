//! Pods that are watched: their shims tell what changes, and nobody asks again and again.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use bundles::layout::Layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::client::has_name;
use super::{Connection, PodRef, complain, one_line, pods};
use crate::protocol::{Event, Reply, Request};

/// One of them.
pub struct Watched {
    /// Which.
    pub pod: PodRef,
    /// Its object, as it was told last.
    pub object: Value,
    connection: Connection,
    layout: Layout,
    asked: bool,
    /// Somebody wants to know what happens.
    wants_events: bool,
    /// What happened so far is still to come.
    awaits_events: bool,
}

impl Watched {
    /// From now on, everything is heard.
    pub fn open(layout: &Layout, pod: PodRef) -> anyhow::Result<Watched> {
        let mut connection = Connection::open(layout, &pod)?;
        match connection.ask(&Request::Watch)? {
            Reply::Pod(object) => Ok(Watched {
                pod,
                object: *object,
                connection,
                layout: layout.clone(),
                asked: false,
                wants_events: false,
                awaits_events: false,
            }),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// Takes on what was told next; `None` when the shim has ended.
    pub fn hear(&mut self) -> anyhow::Result<Option<Heard>> {
        Ok(Some(match self.connection.receive()? {
            // Its shim has died, and another one has the pod.
            None if has_name(&self.layout, &self.pod) => {
                let events = self.wants_events;
                // Unless nobody is there who could start one.
                let Ok(again) = Watched::open(&self.layout, self.pod.clone()) else {
                    return Ok(None);
                };
                *self = again;
                if events && self.ask_events().is_err() {
                    return Ok(None);
                }
                Heard::Object
            }
            None => return Ok(None),
            Some(Reply::Pod(object)) => {
                self.object = *object;
                self.asked = false;
                Heard::Object
            }
            Some(Reply::Status(status)) => {
                self.object["status"] = *status;
                Heard::Change
            }
            // It is in the answer that comes.
            Some(Reply::Event(_)) if self.awaits_events => Heard::Change,
            Some(Reply::Event(event)) => Heard::Happened(event),
            Some(Reply::Events(events)) => {
                self.awaits_events = false;
                Heard::Events(events)
            }
            Some(_) => Heard::Change,
        }))
    }

    /// Asks for all that has happened so far; of another shim of the pod's again.
    pub fn ask_events(&mut self) -> anyhow::Result<()> {
        (self.wants_events, self.awaits_events) = (true, true);
        self.connection.send(&Request::Events)
    }

    /// Asks for the whole object: metadata are not told when they change.
    pub fn ask_again(&mut self) {
        if !self.asked {
            // One that cannot be asked any more has ended, which is heard next.
            self.asked = self.connection.send(&Request::Get).is_ok();
        }
    }
}

/// What a shim said.
#[derive(Debug)]
pub enum Heard {
    /// The object is what was asked for.
    Object,
    /// Its status is another, or something else of it may be.
    Change,
    /// Something happened.
    Happened(Event),
    /// All that has happened so far, as was asked.
    Events(Vec<Event>),
}

/// Pods that come while others are watched.
pub struct Arrivals<'a> {
    layout: &'a Layout,
    known: BTreeSet<String>,
    /// Those that were complained about.
    silent: BTreeSet<String>,
    /// Some did not answer.
    pub failed: bool,
}

impl Arrivals<'_> {
    /// None is known yet.
    pub fn new(layout: &Layout) -> Arrivals<'_> {
        Arrivals { layout, known: BTreeSet::new(), silent: BTreeSet::new(), failed: false }
    }

    /// How often is looked for new ones: at names in a directory, never at a living pod.
    pub const LOOK: Duration = Duration::from_millis(200);

    /// Those that are new, or that answer again. Each that does not answer is complained about once.
    pub fn next(&mut self, wanted: impl Fn(&PodRef) -> bool) -> anyhow::Result<Vec<Watched>> {
        let all = pods(self.layout)?;
        let uids: BTreeSet<&str> = all.iter().map(|pod| pod.uid.as_str()).collect();
        self.known.retain(|uid| uids.contains(uid.as_str()));
        self.silent.retain(|uid| uids.contains(uid.as_str()));
        let mut arrived = Vec::new();
        for pod in all.iter().filter(|pod| wanted(pod)) {
            let is_silent = || {
                let socket = self.layout.pod(&pod.uid).socket();
                self.silent.contains(&pod.uid) && UnixStream::connect(socket).is_err()
            };
            if self.known.contains(&pod.uid) || is_silent() {
                continue;
            }
            match Watched::open(self.layout, pod.clone()) {
                Ok(watched) => {
                    self.known.insert(pod.uid.clone());
                    self.silent.remove(&pod.uid);
                    arrived.push(watched);
                }
                // It ended between the list and the question.
                Err(_) if !has_name(self.layout, pod) => {}
                Err(e) => {
                    if self.silent.insert(pod.uid.clone()) {
                        complain(&one_line(&e));
                    }
                    self.failed = true;
                }
            }
        }
        Ok(arrived)
    }

    /// One that arrived is heard no more. If it is there still, it is new when it answers again.
    pub fn lost(&mut self, pod: &PodRef) {
        self.known.remove(&pod.uid);
    }
}

/// Waits until some of them have something to tell, and says which; none if the time is over first.
pub fn speaking(watched: &[Watched], limit: Duration) -> anyhow::Result<Vec<usize>> {
    let buffered: Vec<usize> =
        (0..watched.len()).filter(|i| watched[*i].connection.has_buffered()).collect();
    if !buffered.is_empty() {
        return Ok(buffered);
    }
    let mut fds: Vec<PollFd<'_>> = watched
        .iter()
        .map(|w| PollFd::from_borrowed_fd(w.connection.socket(), PollFlags::IN))
        .collect();
    let limit = Timespec::try_from(limit).context("a time that is too long")?;
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e).context("cannot wait for the pods' shims"),
    }
    Ok((0..fds.len()).filter(|i| !fds[*i].revents().is_empty()).collect())
}
