//! A host of a test's own, its pods, and machines beside it: network namespaces, each with a thread
//! that lives in it and does what it is told.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use runtime::network::netlink::Netlink;
use runtime::network::{Attachment, Config, HostPort, Network, NetworkError, Protocol, Request};

/// Long enough for a slow machine; nothing that works waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is meant not to be answered is not waited for that long.
const SHORT: Duration = Duration::from_millis(700);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub netns: File,
    pub tid: i32,
}

impl Namespace {
    pub fn new() -> Namespace {
        assert!(nix::unistd::geteuid().is_root(), "the tests of the network must be run by root");
        let (jobs, queue) = channel::<Job>();
        let (born, birth) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns = File::open("/proc/thread-self/ns/net").unwrap();
            born.send((netns, nix::unistd::gettid().as_raw())).unwrap();
            for job in queue {
                job();
            }
        });
        let (netns, tid) = birth.recv().unwrap();
        let namespace = Namespace { jobs: Some(jobs), thread: Some(thread), netns, tid };
        namespace.ip("link set lo up");
        namespace
    }

    /// Does something inside.
    pub fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || {
            let _ = done.send(catch_unwind(AssertUnwindSafe(what)));
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs a program inside, which must succeed, and gives what it said.
    pub fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move || {
            let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{script}: {said}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.sh(&format!("ip {arguments}"))
    }

    /// Serves TCP and UDP on a port: tells whoever comes its name and from where they came.
    pub fn serve(&self, name: &'static str, port: u16) {
        self.run(move || {
            let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            std::thread::spawn(move || {
                for stream in tcp.incoming() {
                    let mut stream = stream.unwrap();
                    let from = stream.peer_addr().unwrap().ip();
                    // The client may be gone.
                    let _ = write!(stream, "{name} {from}");
                }
            });
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            });
        });
    }

    /// What is said at an address and port, over TCP.
    pub fn ask(&self, address: impl Into<Ipv4Addr>, port: u16) -> String {
        let to = SocketAddr::V4(SocketAddrV4::new(address.into(), port));
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
                .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said
        })
    }

    /// Whether nobody answers there.
    pub fn is_refused(&self, address: impl Into<Ipv4Addr>, port: u16) -> bool {
        let to = SocketAddr::V4(SocketAddrV4::new(address.into(), port));
        self.run(move || TcpStream::connect_timeout(&to, SHORT).is_err())
    }

    /// What is said there over UDP.
    pub fn ask_udp(&self, address: impl Into<Ipv4Addr>, port: u16) -> String {
        let to = SocketAddrV4::new(address.into(), port);
        self.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"?", to).unwrap();
            let mut buffer = [0; 64];
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        })
    }

    /// The names of its links, sorted.
    pub fn links(&self) -> Vec<String> {
        self.run(|| {
            let links = Netlink::open().unwrap().links().unwrap();
            let mut names: Vec<String> = links.into_iter().map(|link| link.name).collect();
            names.sort();
            names
        })
    }

    pub fn forwarding(&self) -> String {
        self.sh("cat /proc/sys/net/ipv4/ip_forward").trim().to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A host with a pod network.
pub struct Host {
    pub namespace: Namespace,
    pub network: Network,
    pub dir: tempfile::TempDir,
}

impl std::ops::Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Host {
    pub fn new() -> Host {
        Host::of(|_| {})
    }

    pub fn of(change: impl FnOnce(&mut Config)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { dir: dir.path().join("podshim0"), ..Config::default() };
        change(&mut config);
        let namespace = Namespace::new();
        // A new namespace may have it from the machine.
        namespace.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        Host { namespace, network: Network::new(config).unwrap(), dir }
    }

    pub fn attach(
        &self,
        pod: &Namespace,
        uid: &str,
        ports: &[HostPort],
    ) -> Result<Attachment, NetworkError> {
        let (network, uid, ports) = (self.network.clone(), uid.to_owned(), ports.to_vec());
        let netns = pod.netns.try_clone().unwrap();
        self.run(move || {
            network.attach(&Request { uid: &uid, netns: netns.as_fd(), ports: &ports })
        })
    }

    /// A pod that is on the network.
    pub fn pod(&self, uid: &str, ports: &[HostPort]) -> (Namespace, Attachment) {
        let pod = Namespace::new();
        let attachment = self.attach(&pod, uid, ports).unwrap();
        (pod, attachment)
    }

    pub fn detach(&self, uid: &str) {
        let (network, uid) = (self.network.clone(), uid.to_owned());
        self.run(move || network.detach(&uid)).unwrap();
    }

    pub fn prune(&self) -> Vec<String> {
        let network = self.network.clone();
        self.run(move || network.prune()).unwrap()
    }

    pub fn repair(&self) -> Vec<String> {
        let network = self.network.clone();
        self.run(move || network.repair()).unwrap()
    }

    pub fn remove_all(&self) -> Result<(), NetworkError> {
        let network = self.network.clone();
        self.run(move || network.remove_all())
    }

    /// The names of the records of a kind.
    pub fn records(&self, kind: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("podshim0").join(kind));
        let mut names: Vec<String> = entries
            .map(|all| all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// The host ports that lead somewhere now, as nft tells it.
    pub fn elements(&self) -> usize {
        // The maps' types are written with two more colons.
        self.sh("nft list table ip podshim").matches(" : ").count() - 2
    }

    /// A machine beside the host, at 192.0.2.2, whose only way is to the host at 192.0.2.1.
    pub fn neighbour(&self) -> Namespace {
        let outside = Namespace::new();
        self.ip("link add up0 type veth peer name out0");
        self.ip(&format!("link set out0 netns {}", outside.tid));
        self.ip("addr add 192.0.2.1/24 dev up0");
        self.ip("link set up0 up");
        outside.ip("addr add 192.0.2.2/24 dev out0");
        outside.ip("link set out0 up");
        self.ip("route add default via 192.0.2.2");
        outside
    }
}

/// A host port that leads to the pod's port 80.
pub fn port(protocol: Protocol, host_port: u16) -> HostPort {
    HostPort { protocol, host_address: None, host_port, container_port: 80 }
}

/// Uids as pods have them: different in the first digits or only in the last.
pub fn uid(number: u32) -> String {
    format!("{number:08x}-3c5e-4e0b-8f4e-6a3c{number:08x}")
}

/// Where nothing listens and nothing leads.
pub const HOST: [u8; 4] = [192, 0, 2, 1];
/// [`Host::neighbour`].
pub const NEIGHBOUR: [u8; 4] = [192, 0, 2, 2];
