//! The daemon dies at each of its steps, alone or with all shims and keepers, and at any moment, alone or with
//! all shims: what it has acknowledged happens, and nothing happens twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use integration::api::{Daemon, try_request};
use integration::{Instance, PATIENCE, is_full, is_ready, is_slow, tabulate};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whom {
    Daemon,
    Shims,
    All,
}

/// A daemon that is started again whenever it has died.
struct Immortal<'a> {
    podshim: &'a Instance,
    daemon: Option<Daemon<'a>>,
    whom: Whom,
    deaths: u32,
}

impl Immortal<'_> {
    fn again(&mut self) {
        if let Some(dead) = self.daemon.take() {
            dead.kill();
        }
        self.deaths += 1;
        match self.whom {
            Whom::Daemon => {}
            Whom::Shims => kill_each(self.podshim, &["shim"]),
            Whom::All => kill_each(self.podshim, &["keep", "shim"]),
        }
        self.daemon = Some(self.podshim.daemon());
    }

    /// Asks until there is an answer.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match try_request(&self.podshim.daemon_socket(), method, path, body) {
                Ok((code, text)) => return (code, serde_json::from_str(&text).unwrap()),
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            self.again();
        }
    }

    fn until(&mut self, what: &str, mut seen: impl FnMut(&mut Self) -> Result<(), String>) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(text) = seen(self) {
            assert!(Instant::now() < deadline, "not until now: {what}: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn pods(&mut self) -> Vec<Value> {
        let (_, list) = self.ask("GET", PODS, "");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    fn until_ready(&mut self) -> Value {
        let mut found = Value::Null;
        self.until("one pod is ready", |own| {
            let pods = own.pods();
            let ready = pods.len() == 1 && is_ready(&pods[0]);
            found = pods.first().cloned().unwrap_or_default();
            if ready { Ok(()) } else { Err(format!("{pods:#?}")) }
        });
        found
    }
}

/// Those that are there: one that ends in this moment needs no killing.
fn kill_each(podshim: &Instance, kinds: &[&str]) {
    for kind in kinds {
        podshim.processes(kind).into_iter().for_each(|pid| {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        });
    }
}

fn deployment(version: &str) -> String {
    let container = |name: &str| {
        json!({
            "name": name, "image": "alpine:latest", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"],
        })
    };
    let mut sidecar = container("side");
    sidecar["restartPolicy"] = json!("Always");
    json!({
        "metadata": {"name": "web"},
        "spec": {
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

/// A deployment is made, loses its shim and keeper, gets another template, and is deleted.
fn live(own: &mut Immortal<'_>) {
    let one = format!("{DEPLOYMENTS}/web");
    let (mut code, _) = own.ask("POST", DEPLOYMENTS, &deployment("one"));
    if code == 409 {
        // It was stored, and the daemon died before it could say so.
        code = 201;
    }
    assert_eq!(code, 201);
    let pod = own.until_ready();
    let pids = own.podshim.pids();
    kill_each(own.podshim, &["keep", "shim"]);
    own.until("it is taken on again", |own| {
        // The pod's own word, which only a new shim can give.
        let said = own.podshim.podshim(&["exec", name(&pod), "-c", "main", "--", "true"]);
        own.pods();
        if said.code == 0 { Ok(()) } else { Err(said.err) }
    });
    let same = own.until_ready();
    assert_eq!(same["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(own.podshim.pids(), pids);
    for list in ["initContainerStatuses", "containerStatuses"] {
        assert_eq!(same["status"][list][0]["restartCount"], 0, "{same:#}");
    }
    assert_eq!(own.ask("PUT", &one, &deployment("two")).0, 200);
    own.until("there is one pod of the new template", |own| {
        let pods = own.pods();
        let is_new = |pod: &Value| pod["metadata"]["annotations"]["version"] == "two";
        let done = pods.len() == 1 && is_ready(&pods[0]) && is_new(&pods[0]);
        if done { Ok(()) } else { Err(format!("{pods:#?}")) }
    });
    let sets = own.ask("GET", SETS, "").1;
    assert_eq!(sets["items"].as_array().map(Vec::len), Some(2), "{sets:#}");
    let (code, body) = own.ask("DELETE", &one, "");
    assert!(code == 200 || code == 404, "{body:#}");
    own.until("it is gone", |own| match own.ask("GET", &one, "") {
        (404, _) => Ok(()),
        (_, object) => Err(format!("{object:#} {:#?}", own.pods())),
    });
    assert_eq!(own.pods(), Vec::<Value>::new());
    assert_eq!(own.ask("GET", SETS, "").1["items"], json!([]));
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

#[test]
fn it_dies_at_each_of_its_steps_and_all_goes_on() {
    let podshim = Instance::new();
    let said = podshim.podshim(&["failpoints"]);
    let points: Vec<&str> = said.out.lines().filter(|p| p.starts_with("daemon:")).collect();
    assert!(points.len() > 10, "{points:?}");
    let (mut cases, mut longest) = (0, Duration::ZERO);
    let points = points.iter().enumerate().step_by(if is_slow() { 3 } else { 1 });
    for (number, point) in points {
        let both = is_full();
        for whom in [Whom::Daemon, Whom::All] {
            if !both && (number % 2 == 0) != (whom == Whom::Daemon) {
                continue;
            }
            let daemon = podshim.daemon();
            let armed = podshim.root().join("failpoint");
            fs::write(&armed, format!("{point} daemon")).unwrap();
            let mut own = Immortal { podshim: &podshim, daemon: Some(daemon), whom, deaths: 0 };
            let begun = Instant::now();
            live(&mut own);
            (cases, longest) = (cases + 1, longest.max(begun.elapsed()));
            assert!(own.deaths == 1 && !armed.exists(), "{point} {whom:?}: {}", own.deaths);
            podshim.end_daemon(own.daemon.unwrap());
            let image = integration::image();
            assert_eq!(podshim.podshim(&["load", "-i", image.to_str().unwrap()]).code, 0);
        }
    }
    tabulate("a fault point kills", "daemon; daemon, shims and keepers", cases, longest);
}

#[test]
fn it_is_killed_again_and_again_while_pods_come_and_go() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let mut own =
        Immortal { podshim: &podshim, daemon: Some(daemon), whom: Whom::Daemon, deaths: 0 };
    let lives = match (is_full(), is_slow()) {
        (true, _) => 1000,
        (false, false) => 12,
        (false, true) => 4,
    };
    let job = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": "alpine:latest", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "echo once; sleep 0.05; echo twice"],
                }],
            }}},
        })
        .to_string()
    };
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    // Numbers that only look random: each run is the same.
    let mut seed: u64 = 12;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut longest = Duration::ZERO;
    for life in 0..lives {
        let begun = Instant::now();
        let name = format!("job-{life}");
        own.ask("POST", jobs, &job(&name));
        std::thread::sleep(Duration::from_millis(random() % 120));
        own.whom = if random() % 2 == 0 { Whom::Daemon } else { Whom::Shims };
        own.again();
        let one = format!("{jobs}/{name}");
        own.until("the job completes", |own| {
            let (code, object) = own.ask("GET", &one, "");
            assert_eq!(code, 200, "acknowledged, and lost: {object:#}");
            let status = &object["status"];
            assert!(status["failed"].as_u64().unwrap_or(0) == 0, "{object:#} {:#?}", own.pods());
            if status["succeeded"] == 1 { Ok(()) } else { Err(format!("{object:#}")) }
        });
        let pods = own.pods();
        assert_eq!(pods.len(), 1, "{pods:#?}");
        let log = podshim.podshim(&["logs", self::name(&pods[0])]);
        assert_eq!(log.out, "once\ntwice\n", "life {life}: {}", log.err);
        own.ask("DELETE", &one, "");
        own.until("it is gone", |own| match own.ask("GET", &one, "").0 {
            404 => Ok(()),
            code => Err(code.to_string()),
        });
        longest = longest.max(begun.elapsed());
    }
    tabulate("kill -9 in the life of a job", "daemon; daemon and shims", lives, longest);
    podshim.end_daemon(own.daemon.unwrap());
}
