//! The shim's side of its control socket: clients, their buffers, and the owner.
//!
//! Nobody can block the shim: sockets are non-blocking, and a client that does not read is dropped
//! when too much waits for it. The owner is never dropped for that; what it misses it can ask for.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::watch;
use crate::protocol::{Reply, Request};

/// What may wait in front of a client when more comes. One answer may be longer: a history is.
const OUTPUT_MAX_BYTES: usize = 1 << 20;
/// The longest request: a pod's new manifest, with the ConfigMaps and Secrets that it refers to.
const REQUEST_MAX_BYTES: usize = 4 << 20;
/// Clients at one time.
const CLIENTS_MAX: usize = 64;

/// One connected client.
#[derive(Debug)]
struct Client {
    id: u32,
    stream: UnixStream,
    input: Vec<u8>,
    /// What came with the request that is being read.
    descriptors: Vec<OwnedFd>,
    output: Vec<u8>,
    watching: bool,
    owner: bool,
    /// The first line may be the end of one that a shim before this one has read the beginning of.
    torn: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Clients {
    /// `None` once the pod is over.
    listener: Option<UnixListener>,
    list: Vec<Client>,
    next_id: u32,
}

/// What a client's socket brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Requests with the descriptors that came with them, or what is wrong with them.
    pub requests: Vec<Result<(Request, Vec<OwnedFd>), String>>,
    /// The owner is gone.
    pub owner_gone: bool,
    /// The client is gone.
    pub gone: bool,
}

/// Listens at `path`, in place of a shim that is dead.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Clients {
    /// Takes on the socket that is listened at, and the owner's channel.
    pub fn open(
        epoll: &OwnedFd,
        listener: UnixListener,
        listener_token: u64,
        client_token: impl Fn(u32) -> u64,
        owner: Option<UnixStream>,
    ) -> anyhow::Result<Clients> {
        watch::add(epoll, &listener, EventData::new_u64(listener_token), EventFlags::IN)?;
        let mut clients = Clients { listener: Some(listener), list: Vec::new(), next_id: 0 };
        if let Some(stream) = owner {
            clients.add(epoll, stream, true, client_token)?;
        }
        Ok(clients)
    }

    /// The owner's channel.
    pub fn owner(&self) -> Option<BorrowedFd<'_>> {
        self.list.iter().find(|client| client.owner).map(|client| client.stream.as_fd())
    }

    /// Where clients come from.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    fn add(
        &mut self,
        epoll: &OwnedFd,
        stream: UnixStream,
        owner: bool,
        client_token: impl Fn(u32) -> u64,
    ) -> anyhow::Result<()> {
        stream.set_nonblocking(true)?;
        let id = self.next_id;
        self.next_id += 1;
        watch::add(epoll, &stream, EventData::new_u64(client_token(id)), EventFlags::IN)?;
        self.list.push(Client {
            id,
            stream,
            input: Vec::new(),
            descriptors: Vec::new(),
            output: Vec::new(),
            watching: owner,
            owner,
            torn: false,
        });
        Ok(())
    }

    /// Takes new connections.
    pub fn accept(&mut self, epoll: &OwnedFd, client_token: impl Fn(u32) -> u64) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            // One too many is closed at once: its end-of-file is an answer.
            if self.list.len() < CLIENTS_MAX
                && let Err(e) = self.add(epoll, stream, false, &client_token)
            {
                tracing::warn!("cannot take on a client: {e:#}");
            }
        }
    }

    /// Whether anybody wants to hear of changes.
    pub fn anybody_watches(&self) -> bool {
        self.list.iter().any(|c| c.watching)
    }

    /// Reads what a client sent; writes what it can now take.
    pub fn serve(&mut self, epoll: &OwnedFd, id: u32) -> Received {
        let mut received = Received::default();
        let Some(client) = self.list.iter_mut().find(|c| c.id == id) else { return received };
        let alive = client.read(&mut received.requests) && client.flush(epoll);
        if !alive {
            received.owner_gone = client.owner;
            // The keeper has the owner's open too, so that closing it would not end its events.
            let _ = epoll::delete(epoll, &client.stream);
            received.gone = true;
            self.list.retain(|c| c.id != id);
        }
        received
    }

    /// The owner has talked to another shim so far, which may have died in the middle of a line.
    pub fn interrupted(&mut self) {
        for client in self.list.iter_mut().filter(|c| c.owner) {
            client.output.push(b'\n');
            client.torn = true;
        }
    }

    /// Marks a client as one that watches.
    pub fn watch(&mut self, id: u32) {
        if let Some(client) = self.list.iter_mut().find(|c| c.id == id) {
            client.watching = true;
        }
    }

    /// Sends to one client.
    pub fn send(&mut self, epoll: &OwnedFd, id: u32, reply: &Reply) {
        self.send_where(epoll, reply, |c| c.id == id);
    }

    /// Sends to everybody who watches.
    pub fn broadcast(&mut self, epoll: &OwnedFd, reply: &Reply) {
        self.send_where(epoll, reply, |c| c.watching);
    }

    fn send_where(&mut self, epoll: &OwnedFd, reply: &Reply, to: impl Fn(&Client) -> bool) {
        if !self.list.iter().any(&to) {
            return;
        }
        let Ok(mut line) = serde_json::to_vec(reply) else { return };
        line.push(b'\n');
        for client in self.list.iter_mut().filter(|c| to(c)) {
            let waiting = client.output.len();
            if waiting == 0 || waiting + line.len() <= OUTPUT_MAX_BYTES {
                client.output.extend_from_slice(&line);
                // A broken connection is noticed by its own event.
                client.flush(epoll);
            } else if !client.owner {
                // Its end-of-file tells it that it was too slow.
                let _ = client.stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    /// Ends the connections of everybody but the owner, and listens no more: a bound socket, and each
    /// connection to it, would keep the state directory's mount.
    pub fn dismiss_visitors(&mut self) {
        self.listener = None;
        let (owner, visitors) = std::mem::take(&mut self.list).into_iter().partition(|c| c.owner);
        self.list = owner;
        visitors.into_iter().for_each(Client::last_words);
    }

    /// Ends the owner's connection: the sign that nothing is left.
    pub fn finish(self) {
        self.list.into_iter().for_each(Client::last_words);
    }
}

impl Client {
    /// Waits until what is buffered is taken, at most a second.
    fn last_words(mut self) {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(std::time::Duration::from_secs(1)));
        let _ = self.stream.write_all(&self.output);
    }

    /// `false` if the other side is gone.
    fn read(&mut self, requests: &mut Vec<Result<(Request, Vec<OwnedFd>), String>>) -> bool {
        let mut buffer = [0; 4096];
        let alive = loop {
            match runtime::descriptors::receive(self.stream.as_fd(), &mut buffer) {
                Ok((0, _)) => break false,
                Ok((n, descriptors)) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    if !descriptors.is_empty() {
                        self.descriptors = descriptors;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
            if self.input.len() > REQUEST_MAX_BYTES {
                break false;
            }
        };
        while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let descriptors = std::mem::take(&mut self.descriptors);
            let torn = std::mem::take(&mut self.torn);
            let request = serde_json::from_slice(&line).map(|request| (request, descriptors));
            if request.is_ok() || !(torn || line == b"\n") {
                requests.push(request.map_err(|e| format!("bad request: {e}")));
            }
        }
        alive
    }

    fn flush(&mut self, epoll: &OwnedFd) -> bool {
        let alive = loop {
            if self.output.is_empty() {
                break true;
            }
            match self.stream.write(&self.output) {
                Ok(0) => break false,
                Ok(n) => {
                    self.output.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let wanted =
            if self.output.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        let token = super::tokens::client(self.id);
        // The descriptor is registered for as long as the client is listed.
        let _ = watch::modify(epoll, &self.stream, EventData::new_u64(token), wanted);
        alive
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::protocol::Event;

    #[test]
    fn one_answer_may_be_of_any_length_and_who_does_not_read_is_dropped() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut clients = Clients { listener: None, list: Vec::new(), next_id: 0 };
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        clients.add(&epoll, theirs, false, u64::from).unwrap();
        let id = clients.list[0].id;
        let event = Event {
            at: runtime::clock::now().wall,
            warning: true,
            reason: "Unhealthy".into(),
            message: "x".repeat(2 * OUTPUT_MAX_BYTES),
            container: None,
            first_at: None,
            count: 1,
        };
        let long = Reply::Events(vec![event]);
        clients.send(&epoll, id, &long);
        let whole = serde_json::to_vec(&long).unwrap();
        let mut read = vec![0; whole.len()];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| ours.read_exact(&mut read));
            while !clients.list[0].output.is_empty() {
                assert!(clients.list[0].flush(&epoll));
            }
            reader.join().unwrap().unwrap();
        });
        assert!(read == whole);
        clients.send(&epoll, id, &long);
        clients.send(&epoll, id, &Reply::Events(Vec::new()));
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < whole.len());
    }
}
