//! Attempts in children. A program without the harness, because a process with threads does not fork;
//! its servers are processes of their own, started from the same file.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime::probe::{Check, HttpCheck, Outcome, Prober, Purpose, read_outcome, spawn};
use runtime::sys::process::{Reaped, reap};

const LONG: Option<Duration> = Some(Duration::from_secs(30));
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", kind] => return serve(kind),
        ["orphan", port] => return leave_an_orphan(port.parse().unwrap()),
        _ => {}
    }
    let tests: [(&str, fn()); 7] = [
        ("the_outcome_comes_through_the_pipe", the_outcome_comes_through_the_pipe),
        ("what_a_server_says_is_short_and_legible", what_a_server_says_is_short_and_legible),
        ("a_child_ends_by_itself_at_the_timeout", a_child_ends_by_itself_at_the_timeout),
        (
            "a_child_has_nothing_of_ours_and_can_be_killed",
            a_child_has_nothing_of_ours_and_can_be_killed,
        ),
        ("a_child_does_not_outlive_us", a_child_does_not_outlive_us),
        (
            "a_pod_without_an_address_is_asked_from_within",
            a_pod_without_an_address_is_asked_from_within,
        ),
        ("a_flood_does_not_fill_the_memory", a_flood_does_not_fill_the_memory),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!("{} passed, 0 failed", tests.len());
}

/// A server that ends with its owner.
struct Server {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut server =
            Self { lines: BufReader::new(process.stdout.take().unwrap()), process, port: 0 };
        server.port = server.line().parse().expect("a port");
        server
    }

    fn of(kind: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["serve", kind]);
        Self::start(command)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a server's process, which has one connection at a time.
fn serve(kind: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    for mut stream in listener.incoming().flatten() {
        println!("connected");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let noise = "\u{1b}[31m\"\\\u{0}".repeat(10_000);
        let (first, again) = match kind {
            "ok" => ("HTTP/1.1 200 OK\r\n\r\nok".to_owned(), ""),
            "noise" => (format!("HTTP/1.1 302 x\r\n\r\n{noise}"), ""),
            "hold" => (String::new(), ""),
            "headers" => ("HTTP/1.1 200 OK\r\n".to_owned(), "a: b\r\n"),
            "line" => ("HTTP/1.1 200 OK\r\n".to_owned(), "x"),
            "body" => ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), "xxxx"),
            "chunk" => (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n".to_owned(),
                "x",
            ),
            "pings" => ("\0\0\0\u{4}\0\0\0\0\0".to_owned(), "\0\0\u{8}\u{6}\0\0\0\0\0pingpong"),
            "frames" => ("\0\0\0\u{4}\0\0\0\0\0".to_owned(), "\0\u{40}\0\u{4}\0\0\0\0\0"),
            other => panic!("no server {other}"),
        };
        let again = again.repeat(4096);
        let mut sent = stream.write_all(first.as_bytes());
        while !again.is_empty() && sent.is_ok() {
            sent = stream.write_all(again.as_bytes());
        }
        if kind == "hold" {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while stream.read(&mut request).is_ok_and(|n| n > 0) {}
    }
}

fn get(port: u16, purpose: Purpose) -> Check {
    let (host, path) = ("127.0.0.1".to_owned(), "/".to_owned());
    Check::Http(HttpCheck { https: false, host, port, path, headers: Vec::new(), purpose })
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the outcome, then for the child.
fn outcome(prober: &Prober) -> (io::Result<Outcome>, Reaped) {
    let outcome = until("the outcome", || read_outcome(&prober.message).transpose());
    (outcome, until("the end", || reap().filter(|reaped| reaped.pid == prober.pid)))
}

fn ended(prober: &Prober) -> Outcome {
    let (outcome, reaped) = outcome(prober);
    assert_eq!((reaped.code, reaped.signal), (0, None));
    outcome.unwrap()
}

fn success(output: &str) -> Outcome {
    Outcome::Success { output: output.into() }
}

fn the_outcome_comes_through_the_pipe() {
    let server = Server::of("ok");
    let prober = spawn(&get(server.port, Purpose::Probe), LONG, None).unwrap();
    assert_eq!(ended(&prober), success("ok"));
    // There is one only.
    assert_eq!(read_outcome(&prober.message).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let tcp = Check::Tcp { host: "127.0.0.1".into(), port: 1 };
    let output = "dial tcp 127.0.0.1:1: connect: connection refused".into();
    assert_eq!(ended(&spawn(&tcp, LONG, None).unwrap()), Outcome::Failure { output });
    // Names are looked up by a thread of the child's.
    let tcp = Check::Tcp { host: "localhost".into(), port: server.port };
    assert_eq!(ended(&spawn(&tcp, LONG, None).unwrap()), success(""));
}

fn what_a_server_says_is_short_and_legible() {
    let server = Server::of("noise");
    let prober = spawn(&get(server.port, Purpose::Probe), LONG, None).unwrap();
    let Outcome::Warning { output } = ended(&prober) else { panic!("no warning") };
    let begin = "Probe terminated redirects, Response body: \u{fffd}[31m\"\\\u{fffd}\u{fffd}[31m";
    assert!(output.starts_with(begin), "{output}");
    assert!((1000..=1024).contains(&output.len()), "{}", output.len());
}

fn a_child_ends_by_itself_at_the_timeout() {
    let server = Server::of("hold");
    let timeout = Some(Duration::from_secs(1));
    let prober = spawn(&get(server.port, Purpose::Probe), timeout, None).unwrap();
    assert!(matches!(read_outcome(&prober.message), Ok(None)));
    let Outcome::Failure { output } = ended(&prober) else { panic!("no failure") };
    assert!(output.ends_with("(Client.Timeout exceeded while awaiting headers)"), "{output}");
}

/// What a process has open, by number.
fn open_files(pid: &str) -> Vec<(u32, String)> {
    let read = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, fs::read_link(path).ok()?.to_str()?.to_owned()))
    };
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(read).collect()
}

fn a_child_has_nothing_of_ours_and_can_be_killed() {
    assert!(nix::unistd::geteuid().is_root(), "a prober's descriptors are seen by root only");
    // What a shim has open, inherited by an exec and not.
    let temp = tempfile::tempdir().unwrap();
    let lock = File::create(temp.path().join("lock")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (fifo, fifo_end) = io::pipe().unwrap();
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
    rustix::io::fcntl_setfd(&fifo, rustix::io::FdFlags::empty()).unwrap();

    // A shim blocks the signals that it reads from a descriptor.
    let blocked = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGTERM);
    blocked.thread_block().unwrap();

    let mut server = Server::of("hold");
    let prober = spawn(&get(server.port, Purpose::Hook), None, None).unwrap();
    blocked.thread_unblock().unwrap();
    assert_eq!(server.line(), "connected");
    let status = fs::read_to_string(format!("/proc/{}/status", prober.pid)).unwrap();
    let mask = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        // The C library has 32 and 33 for itself.
        u64::from_str_radix(value.trim(), 16).unwrap() & 0x7fff_ffff
    };
    // But one: who writes to a connection that is gone must not die.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:")), (0x1000, 0), "{status}");
    let ours: BTreeSet<String> = open_files("self").into_iter().map(|(_, file)| file).collect();
    assert!(ours.iter().any(|file| file.ends_with("/lock")), "{ours:?}");
    let theirs = open_files(&prober.pid.to_string());
    let pipe = fs::read_link(format!("/proc/self/fd/{}", prober.message.as_raw_fd())).unwrap();
    let pipe = pipe.to_str().unwrap();
    let shared: Vec<_> = theirs
        .iter()
        .filter(|(_, file)| ours.contains(file) && !file.starts_with("anon_inode:"))
        .collect();
    assert!(matches!(shared[..], [(_, file)] if file == pipe), "{shared:?} of {theirs:?}");
    // Those of the kernel's have no names of their own: the numbers are few.
    let anonymous = theirs.iter().filter(|(_, file)| file.starts_with("anon_inode:")).count();
    assert!(anonymous <= 4, "{theirs:?}");
    drop((lock, listener, client, fifo, fifo_end));

    assert!(matches!(read_outcome(&prober.message), Ok(None)));
    let pid = rustix::process::Pid::from_raw(prober.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let (outcome, reaped) = outcome(&prober);
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!((reaped.code, reaped.signal), (137, Some(9)));
}

/// In a process of its own: begins a hook without a timeout, says its pid, and ends.
fn leave_an_orphan(port: u16) {
    let prober = spawn(&get(port, Purpose::Hook), None, None).unwrap();
    println!("{}", prober.pid);
    // Not before the hook is under way.
    let _ = io::stdin().read(&mut [0]);
}

fn a_child_does_not_outlive_us() {
    let mut server = Server::of("hold");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["orphan", &server.port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    assert_eq!(server.line(), "connected");
    let status = PathBuf::from(format!("/proc/{}/status", pid.trim()));
    let lives = || fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
    assert!(lives());
    drop(parent.stdin.take());
    assert!(parent.wait().unwrap().success());
    until("the orphan's end", || (!lives()).then_some(()));
}

fn a_pod_without_an_address_is_asked_from_within() {
    assert!(nix::unistd::geteuid().is_root(), "network namespaces are made by root");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap()).args(["serve", "ok"]);
    let server = Server::start(command);
    let netns = File::open(format!("/proc/{}/ns/net", server.process.id())).unwrap();
    let check = get(server.port, Purpose::Probe);
    let prober = spawn(&check, LONG, Some(netns.as_fd())).unwrap();
    assert_eq!(ended(&prober), success("ok"));
    // Not on this side.
    let outcome = ended(&spawn(&check, LONG, None).unwrap());
    assert!(matches!(outcome, Outcome::Failure { .. }), "{outcome:?}");
    let no_netns = File::open("/proc/self/ns/uts").unwrap();
    let message = "cannot enter the pod's network namespace: Invalid argument (os error 22)".into();
    let prober = spawn(&check, LONG, Some(no_netns.as_fd())).unwrap();
    assert_eq!(ended(&prober), Outcome::Error { message });
}

/// The largest child that was reaped so far, this program's other tests included.
fn largest_child_bytes() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    usage.unwrap().max_rss() << 10
}

fn a_flood_does_not_fill_the_memory() {
    let before = largest_child_bytes();
    assert!(before > 0);
    for kind in ["headers", "line", "body", "chunk", "pings", "frames"] {
        let server = Server::of(kind);
        for check in [
            get(server.port, Purpose::Probe),
            get(server.port, Purpose::Hook),
            Check::Grpc { host: "127.0.0.1".into(), port: server.port, service: String::new() },
        ] {
            let prober = spawn(&check, Some(Duration::from_secs(1)), None).unwrap();
            ended(&prober);
        }
    }
    // Loopback brings some gigabytes in this time.
    let grown = largest_child_bytes() - before;
    assert!(grown < 24 << 20, "{grown} bytes more than others");
}
