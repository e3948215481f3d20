//! A server as they are: a resolver that listens on its own loopback only, and a firewall that forwards
//! nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};

use integration::{Instance, run, until};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

/// The machine that a server reaches: it is the resolver's upstream too.
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];

const SHOW: &str = "ip=$(nslookup server.example | awk \"/^Name/ {n=1} n && /^Address/ {print \\$NF; exit}\"); \
                    echo found $ip; nc -w 20 $ip 7000";

/// A network namespace that a process keeps.
struct Outside(Child);

impl Outside {
    fn new() -> Outside {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", child.id());
        until("it has its namespace", || match fs::read_link(&theirs) {
            Ok(net) if net != own => Ok(()),
            other => Err(format!("{other:?}")),
        });
        run(&format!(
            "ip link add up0 type veth peer name out0 netns {pid} && ip addr add 192.0.2.1/24 dev up0 \
             && ip link set up0 up && nsenter -t {pid} -n ip addr add 192.0.2.2/24 dev out0 \
             && nsenter -t {pid} -n ip link set out0 up",
            pid = child.id()
        ));
        Outside(child)
    }

    /// A thread in there.
    fn spawn<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers each question for an A record with one's own address.
fn serve_names() {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::from(OUTSIDE), 53)).unwrap();
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let question = &question[..length];
        let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
        let is_a = question[end - 4..end - 2] == [0, 1];
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        answer.extend(&question[12..end]);
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(OUTSIDE);
        }
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_hello() {
    for stream in TcpListener::bind((std::net::Ipv4Addr::from(OUTSIDE), 7000)).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let from = stream.peer_addr().unwrap().ip();
        let _ = writeln!(stream, "hello {from}");
    }
}

/// The host asks 127.0.0.53, which asks what is outside: with systemd-resolved where systemd runs, and
/// elsewhere with the file that it would have written.
struct Resolved {
    is_real: bool,
}

impl Resolved {
    const SETTINGS: &str = "/run/systemd/resolved.conf.d/podshim-test.conf";
    const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

    fn new(files: &Path) -> Resolved {
        // Mounts from here on are this thread's, and so of the podshim that it starts.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        run("mount --make-rslave /");
        let stub = files.join("stub");
        fs::write(&stub, "nameserver 127.0.0.53\noptions edns0\n").unwrap();
        let is_real = Path::new("/run/systemd/system").is_dir();
        if is_real {
            fs::create_dir_all(Path::new(Self::SETTINGS).parent().unwrap()).unwrap();
            fs::write(Self::SETTINGS, "[Resolve]\nDNS=192.0.2.2\nFallbackDNS=\n").unwrap();
            run("systemctl restart systemd-resolved");
        } else {
            let upstream = files.join("upstream");
            fs::write(&upstream, "nameserver 192.0.2.2\n").unwrap();
            run("mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd");
            fs::create_dir(Path::new(Self::UPSTREAM).parent().unwrap()).unwrap();
            fs::copy(&upstream, Self::UPSTREAM).unwrap();
        }
        until("the upstream is known", || {
            let text = fs::read_to_string(Self::UPSTREAM).unwrap_or_default();
            if text.contains("192.0.2.2") { Ok(()) } else { Err(text) }
        });
        // Also where it is a link.
        let target = fs::canonicalize("/etc/resolv.conf").unwrap();
        run(&format!("mount --bind {} {}", stub.display(), target.display()));
        Resolved { is_real }
    }
}

impl Drop for Resolved {
    fn drop(&mut self) {
        if self.is_real {
            let _ = fs::remove_file(Self::SETTINGS);
            run("systemctl restart systemd-resolved");
        }
    }
}

#[test]
fn a_pod_resolves_through_the_hosts_upstream_where_forward_drops_and_all_is_as_before_at_the_end() {
    let podshim = Instance::new();
    let outside = Outside::new();
    run("iptables -P FORWARD DROP && iptables -A FORWARD -i mine0 -j ACCEPT");
    let files = podshim.network().with_file_name("files");
    fs::create_dir(&files).unwrap();
    let _resolved = Resolved::new(&files);
    outside.spawn(serve_names);
    outside.spawn(serve_hello);
    let state = "ip -o link; iptables-save | grep -v '^#' | sed 's/ *\\[.*//'; nft list ruleset | sed 's/counter .*//'; \
                 cat /proc/sys/net/ipv4/ip_forward";
    let before = run(state);

    let running = podshim.start(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: side, image: 'alpine:latest', restartPolicy: Always, command: [sh, -c, '{SHOW}; exec sleep 1000']}}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, '{SHOW}; exec nc -ll -p 80 -e echo answered']
    ports: [{{containerPort: 80, hostPort: 8080}}]
"
    ));
    for container in ["side", "main"] {
        running.until_printed(&format!("{container} | found 192.0.2.2"));
        // The host's own address: pods are behind it.
        running.until_printed(&format!("{container} | hello 192.0.2.1"));
    }
    let asked = outside.spawn(|| {
        until("the host port answers", || {
            let mut text = String::new();
            let connected = TcpStream::connect("192.0.2.1:8080").map_err(|e| e.to_string());
            connected?.read_to_string(&mut text).map_err(|e| e.to_string())?;
            if text.is_empty() { Err("nothing".to_owned()) } else { Ok(text) }
        })
    });
    assert_eq!(asked.join().unwrap(), "answered\n");
    running.signal(Signal::SIGINT);
    running.wait();
    let said = podshim.podshim(&["prune", "--all"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(run(state), before);
}
