//! `podshim run` where a daemon is: the daemon has the pods, `run` shows them and removes them at their end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use integration::api::Daemon;
use integration::notify::NotifySocket;
use integration::{Instance, Running, kill_now, pod, status_of, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const CORE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

/// A container; `more` is written as its other fields.
fn container(command: &str, more: &str) -> String {
    format!(
        "{{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sh, -c, '{command}']{more}}}"
    )
}

fn job(name: &str, retries: u32, container: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  backoffLimit: {retries}
  template:\n    spec:\n      restartPolicy: Never\n      terminationGracePeriodSeconds: 1\n      containers: [{container}]\n"
    )
}

fn config_map(value: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{k: {value}}}\n")
}

const READS: &str = ", env: [{name: K, valueFrom: {configMapKeyRef: {name: m, key: k}}}]";

fn start<'a>(podshim: &'a Instance, options: &[&str], manifest: &str) -> Running<'a> {
    let path = podshim.manifest(manifest);
    podshim.start_command(podshim.command(&[&["run"], options, &[&path]].concat()))
}

fn run(podshim: &Instance, manifest: &str) -> (i32, String) {
    start(podshim, &[], manifest).wait()
}

/// Whether the daemon has anything.
fn has_nothing(daemon: &Daemon<'_>) {
    for list in [PODS, JOBS, &format!("{CORE}/configmaps"), "/apis/apps/v1/deployments"] {
        let (code, found) = daemon.ask("GET", list, "");
        assert_eq!((code, found["items"].as_array().unwrap().len()), (200, 0), "{found:#}");
    }
}

#[test]
fn what_is_run_is_the_daemon_s_and_its_end_is_run_s() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let side = "{name: side, image: 'alpine:latest', imagePullPolicy: Never, restartPolicy: Always, \
                command: [sh, -c, 'trap \"exit 0\" TERM; echo up; while :; do sleep 0.1; done']}";
    let main = container("echo out; sleep 1; exit 4", "");
    let spec = format!(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  initContainers: [{side}]\n  containers: [{main}]\n"
    );
    let running = start(&podshim, &[], &pod(&spec));
    running.until_printed("main | out");
    let (_, stored) = daemon.ask("GET", &format!("{PODS}/p"), "");
    assert_eq!(stored["kind"], "Pod", "{stored:#}");
    let (code, text) = running.wait();
    assert_eq!(code, 4, "{text}");
    for wanted in ["side | up", "main | out", "main Started", "side Killing", "side Exited"] {
        assert_eq!(text.matches(wanted).count(), 1, "{wanted}: {text}");
    }
    has_nothing(&daemon);
    // A job that fails, with what it reads; its last pod's code.
    let failing = job("j", 0, &container("echo it is $K; exit 7", READS));
    let (code, text) = run(&podshim, &format!("{failing}{}", config_map("one")));
    assert_eq!((code, text.matches("| it is one").count()), (7, 1), "{text}");
    has_nothing(&daemon);
    let (code, text) = run(&podshim, &job("j", 0, &container("true", "")));
    assert_eq!(code, 0, "{text}");
    // As text for programs: events, then whole objects.
    let path = podshim.manifest(&job("j", 0, &container("true", "")));
    let said = podshim.podshim(&["run", "-o", "json", &path]);
    let objects: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let of = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("Pod")[0]["status"]["phase"], "Succeeded", "{objects:#?}");
    assert_eq!(of("Job")[0]["status"]["succeeded"], 1, "{objects:#?}");
    assert!(of("Event").iter().any(|e| e["reason"] == "Started"), "{objects:#?}");
    has_nothing(&daemon);
    podshim.end_daemon(daemon);
}

#[test]
fn whoever_dies_in_between_the_pods_go_on_and_run_s_code_is_right() {
    let podshim = Instance::new();
    let mut daemon = podshim.daemon();
    let main = container(
        "i=0; while [ ! -e /tmp/go ]; do echo n$i; i=$((i + 1)); sleep 0.05; done; exit 5",
        "",
    );
    let manifest = format!("{}{}", job("j", 0, &main), config_map("one"));
    let running = start(&podshim, &[], &manifest);
    running.until_printed("| n3\n");
    let first = podshim.pod().unwrap();
    // Of two that run the same, one has it.
    let (code, text) = run(&podshim, &manifest);
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("jobs \"j\" already exists") && text.contains("--resume"), "{text}");
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().0, 137);
    // The next one goes on with it, whatever becomes of the daemon and of the shim meanwhile.
    let running = start(&podshim, &["--resume"], &manifest);
    running.until_printed("| n3\n");
    daemon.kill();
    running.until_printed("no daemon answers");
    kill_now(podshim.shim());
    running.until_printed("Adopted");
    daemon = podshim.daemon();
    let now = podshim.until("it lives", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(now["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(status_of(&now, "main")["restartCount"], 0);
    let name = now["metadata"]["name"].as_str().unwrap();
    let said = podshim.podshim(&["exec", name, "--", "touch", "/tmp/go"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let (code, text) = running.wait();
    assert_eq!(code, 5, "{text}");
    let told: Vec<&str> = text.lines().filter_map(|line| line.split("| n").nth(1)).collect();
    let count: Vec<String> = (0..told.len()).map(|n| n.to_string()).collect();
    assert!(told.len() > 5 && told == count, "{told:?}");
    has_nothing(&daemon);
    podshim.end_daemon(daemon);
}

#[test]
fn signals_delete_what_runs_and_nothing_that_another_one_has_made() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let stubborn = container("trap \"\" TERM; echo up; while :; do sleep 0.1; done", READS);
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2
  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}
    spec:\n      terminationGracePeriodSeconds: 600\n      containers: [{stubborn}]\n{}",
        config_map("one")
    );
    // Another one's, and the same: it stays. One that is not the same is not touched.
    let said = podshim.podshim(&["create", "-f", &podshim.manifest(&config_map("two")[4..])]);
    assert_eq!(said.code, 0, "{}", said.err);
    for resume in [&[][..], &["--resume"]] {
        let (code, text) = start(&podshim, resume, &deployment).wait();
        assert_eq!(code, 125, "{text}");
        assert!(text.contains("configmaps \"m\" already exists"), "{text}");
    }
    let deployment = deployment.replace("{k: one}", "{k: two}");
    let both_run = |running: &Running<'_>| {
        until("both run", || {
            let text = running.text();
            if text.matches("/main | up").count() == 2 { Ok(()) } else { Err(text) }
        });
    };
    let running = start(&podshim, &[], &deployment);
    both_run(&running);
    running.signal(Signal::SIGTERM);
    running.until_printed("Killing");
    running.signal(Signal::SIGTERM);
    let (code, text) = running.wait();
    assert_eq!(code, 143, "{text}");
    assert!(text.contains("killed by SIGKILL"), "{text}");
    let (_, map) = daemon.ask("GET", &format!("{CORE}/configmaps/m"), "");
    assert_eq!(map["data"]["k"], "two", "{map:#}");
    assert_eq!(daemon.ask("DELETE", &format!("{CORE}/configmaps/m"), "").0, 200);
    has_nothing(&daemon);
    // What somebody else deletes has ended.
    let quick = "terminationGracePeriodSeconds: 0";
    let deployment = deployment.replace("terminationGracePeriodSeconds: 600", quick);
    let running = start(&podshim, &[], &deployment);
    running.until_printed("| up");
    let said = podshim.podshim(&["delete", "deployment", "web"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let (code, text) = running.wait();
    assert_eq!(code, 0, "{text}");
    has_nothing(&daemon);
    // Without a daemon nothing can be deleted; who does not want to wait for one is told what lives on.
    let running = start(&podshim, &[], &deployment);
    both_run(&running);
    daemon.kill();
    running.signal(Signal::SIGINT);
    running.until_printed("as soon as a daemon listens");
    running.signal(Signal::SIGINT);
    let (code, text) = running.wait();
    assert_eq!(code, 130, "{text}");
    assert_eq!(text.matches("as soon as a daemon listens").count(), 1, "{text}");
    assert!(!text.contains("Exited"), "{text}");
    assert_eq!(podshim.pods().len(), 2);
    let daemon = podshim.daemon();
    let said = podshim.podshim(&["delete", "deployment", "web"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let said = podshim.podshim(&["delete", "configmap", "m"]);
    assert_eq!(said.code, 0, "{}", said.err);
    podshim.end_daemon(daemon);
}

#[test]
fn standalone_pods_are_run_s_also_where_a_daemon_is() {
    let podshim = Instance::new();
    let daemon = podshim.daemon();
    let spec = format!(
        "  terminationGracePeriodSeconds: 0\n  containers: [{}]\n",
        container("echo up; exec sleep 1000", "")
    );
    for options in [&["--standalone"][..], &["--container-log-max-files=3"]] {
        let running = start(&podshim, options, &pod(&spec));
        running.until_printed("| up");
        has_nothing(&daemon);
        let (code, said) = start(&podshim, &["--resume"], &pod(&spec)).wait();
        assert!(code == 125 && said.contains("is another `podshim run`'s"), "{code}: {said}");
        running.signal(Signal::SIGKILL);
        let (_, said) = running.wait();
        let is_told = "with --container-log-max-files the pods run here and end with this command";
        assert_eq!(said.contains(is_told), options != ["--standalone"], "{said}");
        until("it has gone with its run", || {
            let pods = podshim.pods();
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:#?}")) }
        });
    }
    let (code, said) = start(&podshim, &["--resume", "--pull=never"], &pod(&spec)).wait();
    assert!(code == 125 && said.contains("leave one of them out"), "{code}: {said}");
    podshim.end_daemon(daemon);
}

/// A unit of type notify is active exactly while its pods are ready.
#[test]
fn a_service_manager_hears_whether_the_pods_are_ready() {
    let podshim = Instance::new();
    let manager = NotifySocket::new();
    let hear = || manager.hear();
    let probe = ", readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}";
    let spec = format!(
        "  terminationGracePeriodSeconds: 0\n  containers: [{}]\n",
        container("exec sleep 1000", probe)
    );
    let path = podshim.manifest(&pod(&spec));
    for served in [false, true] {
        let daemon = served.then(|| podshim.daemon());
        let mut command = podshim.command(&["run", &path]);
        command.env("NOTIFY_SOCKET", manager.path());
        let running = podshim.start_command(command);
        let first = std::iter::repeat_with(&hear).find(|text| !text.contains("not there yet"));
        assert_eq!(first.unwrap(), "STATUS=not ready: p");
        for _ in 0..2 {
            podshim.until("it runs", |pod| pod["status"]["phase"] == "Running");
            let said = podshim.podshim(&["exec", "p", "--", "touch", "/tmp/ready"]);
            assert_eq!(said.code, 0, "{}", said.err);
            assert_eq!(hear(), "READY=1 STATUS=all pods are ready");
            let said = podshim.podshim(&["exec", "p", "--", "rm", "/tmp/ready"]);
            assert_eq!(said.code, 0, "{}", said.err);
            assert_eq!(hear(), "RELOADING=1 STATUS=not ready: p");
        }
        running.signal(Signal::SIGTERM);
        let last = std::iter::repeat_with(&hear).find(|text| !text.contains("not ready"));
        assert_eq!(last.unwrap(), "STOPPING=1");
        assert_eq!(running.wait().0, 143);
        // What completes before anybody has seen it ready has been started.
        let path = podshim.manifest(&job("j", 0, &container("true", "")));
        let mut command = podshim.command(&["run", &path]);
        command.env("NOTIFY_SOCKET", manager.path());
        let (code, text) = podshim.start_command(command).wait();
        assert_eq!(code, 0, "{text}");
        let told: Vec<String> =
            std::iter::repeat_with(&hear).take_while(|text| text != "STOPPING=1").collect();
        assert!(told.iter().any(|text| text.starts_with("READY=1")), "{told:?}");
        if let Some(daemon) = daemon {
            podshim.end_daemon(daemon);
        }
    }
}
