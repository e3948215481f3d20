//! The kernel refuses a call of the daemon: what it answered yes to happens, what it could not do it says, and
//! the same asked again is done.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who reads of a failure wants to know which case it was")]

use std::process::Command;
use std::time::{Duration, Instant};

use integration::api::{Daemon, try_request};
use integration::strace::{
    BROKEN, Calls, DISK_FULL, Fault, INTERRUPTED, NO_DESCRIPTORS, NO_MEMORY, NO_PIDS, SLOW, Wrong,
    each,
};
use integration::{Instance, PATIENCE, is_ready, until};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

/// What tokio writes into its own eventfd, and reads from its own signal pipe: if the kernel refuses that, which
/// it has no reason to, the daemon ends, and the next one goes on.
const OF_THE_RUNTIME: [&str; 2] = [r#""\1\0\0\0\0\0\0\0", 8)"#, "recvfrom("];

fn deployment(version: &str) -> String {
    let container = |name: &str| {
        json!({
            "name": name, "image": "alpine:latest", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done"],
        })
    };
    let mut sidecar = container("side");
    sidecar["restartPolicy"] = json!("Always");
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"version": version}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "initContainers": [sidecar],
                    "containers": [container("main")],
                },
            },
        },
    })
    .to_string()
}

/// A client that asks again what could not be done, and notes that this was said.
struct Client<'a> {
    podshim: &'a Instance,
    refusals: Vec<String>,
    /// Started again if it dies.
    daemon: Option<Daemon<'a>>,
    deaths: u32,
}

impl<'a> Client<'a> {
    fn new(podshim: &'a Instance, daemon: Option<Daemon<'a>>) -> Client<'a> {
        Client { podshim, refusals: Vec::new(), daemon, deaths: 0 }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match try_request(&self.podshim.daemon_socket(), method, path, body) {
                Ok((code, text)) if code < 500 => {
                    return (code, serde_json::from_str(&text).unwrap());
                }
                Ok((_, text)) => self.refusals.push(text),
                Err(e) => self.refusals.push(e.to_string()),
            }
            if self.daemon.as_mut().is_some_and(Daemon::has_ended) {
                self.deaths += 1;
                self.daemon = Some(self.podshim.daemon());
            }
            assert!(Instant::now() < deadline, "{:?}", self.refusals.last());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn items(&mut self, path: &str) -> Vec<Value> {
        self.ask("GET", path, "").1["items"].as_array().cloned().unwrap_or_default()
    }

    fn until_version(&mut self, version: &str) -> Value {
        until("one pod of the template", || {
            let pods = self.items(PODS);
            let is_it = |pod: &Value| pod["metadata"]["annotations"]["version"] == version;
            let done = pods.len() == 1 && is_ready(&pods[0]) && is_it(&pods[0]);
            if done { Ok(pods[0].clone()) } else { Err(format!("{pods:#?}")) }
        })
    }
}

/// A deployment comes, gets another template and goes while a call of the daemon goes wrong; `false` if it
/// makes no so many.
fn live(client: &mut Client<'_>, fault: Fault) -> bool {
    println!("{fault:?}");
    (client.deaths, client.refusals) = (0, Vec::new());
    let pid = client.daemon.as_ref().unwrap().pid();
    let traced = fault.attach(pid, false, client.podshim.root().join("trace"));
    let one = format!("{DEPLOYMENTS}/web");
    // It may have been taken on before it could not be answered.
    let code = client.ask("POST", DEPLOYMENTS, &deployment("one")).0;
    assert!(code == 201 || (code == 409 && !client.refusals.is_empty()), "{code}");
    client.until_version("one");
    assert_eq!(client.ask("PUT", &one, &deployment("two")).0, 200);
    let pod = client.until_version("two");
    for list in ["initContainerStatuses", "containerStatuses"] {
        assert_eq!(pod["status"][list][0]["restartCount"], 0, "{pod:#}");
    }
    let code = client.ask("DELETE", &one, "").0;
    assert!(code == 200 || (code == 404 && !client.refusals.is_empty()), "{code}");
    until("it has gone", || match client.ask("GET", &one, "") {
        (404, _) => Ok(()),
        (_, object) => Err(format!("{object:#}")),
    });
    assert_eq!(client.items(PODS), Vec::<Value>::new());
    assert_eq!(client.items(SETS), Vec::<Value>::new());
    let struck = fault.find(&traced.let_go());
    // What was refused in the kernel's words was this, and not something that it led to.
    let words = fault.wrong.words;
    let is_runtimes_own = |line: &String| OF_THE_RUNTIME.iter().any(|part| line.contains(part));
    assert!(client.deaths == 0 || struck.as_ref().is_some_and(is_runtimes_own), "{struck:?}");
    for refusal in client.refusals.iter().filter(|text| text.contains("InternalError")) {
        assert!(struck.is_some() && refusal.contains(words), "{fault:?}: {refusal}");
    }
    struck.is_some()
}

fn check(calls: &Calls<'_>) {
    let podshim = Instance::new();
    let mut client = Client::new(&podshim, Some(podshim.daemon()));
    each("the daemon", 1, calls, |fault| live(&mut client, fault));
    podshim.end_daemon(client.daemon.unwrap());
}

#[test]
fn the_store_cannot_be_written() {
    check(&[
        ("openat", &[NO_DESCRIPTORS, BROKEN, SLOW]),
        ("fsync", &[BROKEN, DISK_FULL]),
        ("rename", &[BROKEN, DISK_FULL]),
        ("unlink", &[BROKEN]),
        ("write", &[DISK_FULL, BROKEN, INTERRUPTED]),
    ]);
}

#[test]
fn nobody_can_be_heard_or_started() {
    check(&[
        ("accept4", &[NO_DESCRIPTORS, INTERRUPTED]),
        ("connect", &[NO_PIDS]),
        ("recvfrom", &[BROKEN]),
        ("sendto", &[BROKEN]),
        ("read", &[BROKEN, INTERRUPTED]),
        ("socket", &[NO_DESCRIPTORS]),
        ("epoll_ctl", &[NO_MEMORY]),
        ("epoll_wait", &[INTERRUPTED]),
        ("clone3", &[NO_PIDS, NO_MEMORY]),
    ]);
}

/// A call of a daemon that begins, with a pod that lives: it serves, or it says why not, and the next one does.
fn begin(podshim: &Instance, fault: Fault, pod: &Value) -> bool {
    println!("{fault:?}");
    let trace = podshim.root().join("trace");
    let mut strace = Command::new("strace");
    // The daemon itself is the child, and ends as it likes.
    strace.args(["-D", "-o"]).arg(&trace).args(fault.options()).arg(integration::binary());
    let mut running = podshim.start_command(podshim.command_by(strace, &["daemon"]));
    let deadline = Instant::now() + Duration::from_secs(10);
    let serves = loop {
        if let Ok((200, _)) = try_request(&podshim.daemon_socket(), "GET", "/readyz", "") {
            break true;
        }
        if running.has_ended() || Instant::now() > deadline {
            break false;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut client = Client::new(podshim, None);
    if serves {
        assert_eq!(client.until_version("one")["metadata"]["uid"], pod["metadata"]["uid"]);
        running.signal(nix::sys::signal::Signal::SIGTERM);
    }
    let (code, output) = running.wait();
    let struck = fault.find(&std::fs::read_to_string(&trace).unwrap());
    let when = format!("{fault:?}: {code}: {struck:?}\n{output}");
    let words = fault.wrong.words;
    assert!(serves || (code != 0 && output.contains(words) && !words.is_empty()), "{when}");
    let next = podshim.daemon();
    let same = client.until_version("one");
    assert_eq!(same["metadata"]["uid"], pod["metadata"]["uid"], "{when}");
    for list in ["initContainerStatuses", "containerStatuses"] {
        assert_eq!(same["status"][list][0]["restartCount"], 0, "{when}\n{same:#}");
    }
    assert_eq!(next.end().0, 0);
    struck.is_some()
}

#[test]
fn it_cannot_begin_as_it_wants_to() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let mut client = Client::new(&podshim, None);
    assert_eq!(client.ask("POST", DEPLOYMENTS, &deployment("one")).0, 201);
    let pod = client.until_version("one");
    assert_eq!(daemon.end().0, 0);
    let calls: [(&str, &[Wrong]); 8] = [
        ("openat", &[NO_DESCRIPTORS, BROKEN]),
        ("read", &[BROKEN]),
        ("flock", &[INTERRUPTED]),
        ("bind", &[BROKEN]),
        ("connect", &[NO_PIDS]),
        ("write", &[DISK_FULL]),
        ("getdents64", &[BROKEN]),
        ("fsync", &[BROKEN]),
    ];
    each("a daemon that begins", 1, &calls, |fault| begin(&podshim, fault, &pod));
    let daemon = podshim.daemon();
    assert_eq!(client.ask("DELETE", &format!("{DEPLOYMENTS}/web"), "").0, 200);
    podshim.until_pods("none is left", <[Value]>::is_empty);
    until("it has gone", || match client.ask("GET", DEPLOYMENTS, "").1["items"].as_array() {
        Some(all) if all.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    podshim.end_daemon(daemon);
}
