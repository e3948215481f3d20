//! Talking to shims from another terminal. Who is there is what the directories and the sockets
//! say; nothing else is asked.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bundles::layout::Layout;
use serde_json::Value;

use crate::pod::file::PodFile;
use crate::protocol::{Reply, Request};

/// A pod that is alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl PodRef {
    /// That of a pod's object.
    pub fn of(pod: &Value) -> PodRef {
        let field = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
        PodRef { namespace: field("namespace"), name: field("name"), uid: field("uid") }
    }
}

/// All pods of an instance, by name.
pub fn pods(layout: &Layout) -> anyhow::Result<Vec<PodRef>> {
    let names = layout.names();
    let entries = match fs::read_dir(&names) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", names.display())),
    };
    let mut pods = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", names.display()))?;
        let file_name = entry.file_name();
        // A namespace is a DNS label and has no underscore.
        let Some((namespace, name)) = file_name.to_str().and_then(|n| n.split_once('_')) else {
            continue;
        };
        let Ok(uid) = fs::read_link(entry.path()) else { continue };
        pods.push(PodRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_string_lossy().into_owned(),
        });
    }
    pods.sort();
    Ok(pods)
}

/// One pod by name.
pub fn find_pod(layout: &Layout, namespace: &str, name: &str) -> anyhow::Result<PodRef> {
    pods(layout)?
        .into_iter()
        .find(|p| p.namespace == namespace && p.name == name)
        .with_context(|| format!("pods {name:?} not found in namespace {namespace:?}"))
}

/// Whether a pod still has its name.
pub fn has_name(layout: &Layout, pod: &PodRef) -> bool {
    let link = layout.name(&pod.namespace, &pod.name);
    fs::read_link(link).is_ok_and(|uid| uid.as_os_str() == pod.uid.as_str())
}

/// A pod has its name some milliseconds before its shim listens, and if shim and keeper have died its owner
/// gives it new ones.
fn connect(layout: &Layout, pod: &PodRef, socket: &Path) -> io::Result<UnixStream> {
    const BORN_WITHIN: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + BORN_WITHIN;
    loop {
        let result = UnixStream::connect(socket);
        let may_come = match result.as_ref().err().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => true,
            Some(io::ErrorKind::ConnectionRefused) => has_owner(layout, pod),
            _ => false,
        };
        if !may_come || Instant::now() >= deadline || !has_name(layout, pod) {
            return result;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn has_owner(layout: &Layout, pod: &PodRef) -> bool {
    PodFile::read(&layout.pod(&pod.uid).spec()).is_ok_and(|file| file.has_owner())
}

/// A connection to a pod's shim.
pub struct Connection {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects. Nobody answering is an error: the shim is dead, and the pod is `prune`'s or the next
    /// daemon's.
    pub fn open(layout: &Layout, pod: &PodRef) -> anyhow::Result<Connection> {
        let socket = layout.pod(&pod.uid).socket();
        let stream = connect(layout, pod, &socket).with_context(|| {
            let is_daemons =
                PodFile::read(&layout.pod(&pod.uid).spec()).is_ok_and(|file| file.owner.is_none());
            let then = if is_daemons {
                "if no daemon runs, `podshim daemon` starts its shim again"
            } else {
                "if its `podshim run` is dead too, `podshim prune` removes it"
            };
            format!("pod {} does not answer at {}: {then}", pod.name, socket.display())
        })?;
        // A shim answers in microseconds; one that is stopped must not hang a terminal.
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Connection { stream, reader })
    }

    /// Waits for answers as long as it takes.
    pub fn patient(self) -> anyhow::Result<Connection> {
        self.stream.set_read_timeout(None)?;
        Ok(self)
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.write_all(&line).context("cannot write to the pod's socket")
    }

    /// Sends a request with descriptors.
    pub fn send_with(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let sent = runtime::descriptors::send(self.stream.as_fd(), &line, fds)
            .context("cannot write to the pod's socket")?;
        self.stream.write_all(&line[sent..]).context("cannot write to the pod's socket")
    }

    /// The socket, to be waited for.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether a reply is here that the socket no longer has.
    pub fn has_buffered(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// The next reply; `None` when the shim has gone.
    pub fn receive(&mut self) -> anyhow::Result<Option<Reply>> {
        let mut line = String::new();
        let n = match self.reader.read_line(&mut line) {
            // It ended before it read what we sent last.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read.context("the pod does not answer")?,
        };
        // One that is killed leaves half a line at most.
        if n == 0 || !line.ends_with('\n') {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).context("the pod's answer is not understood")
    }

    /// A request with one answer.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        self.send(request)?;
        match self.receive()? {
            Some(Reply::Error(text)) => bail!(text),
            Some(reply) => Ok(reply),
            None => bail!("the pod ended before it answered"),
        }
    }

    /// The pod's whole object.
    pub fn object(&mut self) -> anyhow::Result<Value> {
        match self.ask(&Request::Get)? {
            Reply::Pod(object) => Ok(*object),
            other => bail!("unexpected answer: {other:?}"),
        }
    }
}
