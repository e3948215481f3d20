//! The disk is full: what runs goes on, what cannot be done says so and is tried again, what makes room is done,
//! and nothing that happens meanwhile is lost. Or it has lost a file: all others are served.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Instance, is_ready, kill_now, pod, run, status_of, until};
use nix::errno::Errno;
use serde_json::Value;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A small disk, mounted where the instance's root is.
struct Disk(PathBuf);

impl Disk {
    fn at_root_of(podshim: &Instance) -> Disk {
        if !Path::new("/dev/loop-control").exists() {
            run("modprobe loop");
        }
        let image = podshim.root().with_file_name("disk");
        // Without blocks that only root may use: this is root.
        run(&format!("truncate -s 64M {0} && mkfs.ext4 -q -m 0 {0}", image.display()));
        let disk = Disk::mounted(podshim);
        let loaded = podshim.podshim(&["load", "-i", integration::image().to_str().unwrap()]);
        assert_eq!(loaded.code, 0, "{}", loaded.err);
        disk
    }

    /// One that is there already.
    fn mounted(podshim: &Instance) -> Disk {
        let root = podshim.root();
        let image = root.with_file_name("disk");
        run(&format!("mount -o loop {} {}", image.display(), root.display()));
        Disk(root)
    }

    /// Not a block is free afterwards.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).and_then(|()| file.sync_data()).is_ok() {}
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn unmount(self) {
        until("the disk is free", || {
            let done = Command::new("umount").arg(&self.0).output().unwrap();
            if done.status.success() { Ok(()) } else { Err(format!("{done:?}")) }
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).output();
    }
}

fn spec(main: &str) -> String {
    format!(
        "  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: log, image: 'alpine:latest', imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}}
  containers:
  - {{name: main, image: 'alpine:latest', imagePullPolicy: Never, command: [sh, -c, '{main}']}}
"
    )
}

fn named(name: &str) -> String {
    let manifest = pod(&spec("trap \"exit 0\" TERM; while :; do sleep 0.1; done"));
    manifest
        .replace("name: p\n", &format!("name: {name}\n"))
        .replace("{name: p}", &format!("{{name: {name}}}"))
}

#[test]
fn a_full_disk_stops_nothing_that_runs_and_nothing_that_makes_room() {
    let podshim = Instance::new();
    let disk = Disk::at_root_of(&podshim);
    let daemon = podshim.daemon();
    for name in ["stays", "goes"] {
        let said = podshim.podshim(&["create", "-f", &podshim.manifest(&named(name))]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    podshim.until_pods("both are ready", |pods| pods.len() == 2 && pods.iter().all(is_ready));
    let one = |name: &str| daemon.ask("GET", &format!("{PODS}/{name}"), "").1;
    // That of the container with this index that was created first.
    let pid = |pod: &Value, c: u64| {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let facts = podshim.facts(uid);
        let is = |fact: &&Value| fact["fact"] == "created" && fact["c"] == c;
        i32::try_from(facts.iter().find(is).unwrap()["pid"].as_i64().unwrap()).unwrap()
    };
    let before = one("stays");
    let (log, main) = (pid(&before, 0), pid(&before, 1));
    disk.fill();

    // Nothing new is taken on, and it is said why.
    let said = podshim.podshim(&["create", "-f", &podshim.manifest(&named("new"))]);
    assert!(said.code != 0 && said.err.contains("No space left on device"), "{}", said.err);
    assert_eq!(daemon.ask("GET", &format!("{PODS}/new"), "").0, 404);

    // What is restarted finds the room that it had before, or says that there is none.
    kill_now(main);
    let full = |pod: &Value| status_of(pod, "main").to_string().contains("No space left on device");
    podshim.until_pods("it is restarted, or it is said why not", |pods| {
        let restarted = |pod: &Value| is_ready(pod) && status_of(pod, "main")["restartCount"] == 1;
        pods.len() == 2 && pods.iter().any(|pod| restarted(pod) || full(pod))
    });
    disk.fill();
    let events = podshim.podshim(&["events", "stays"]).out;
    assert!(!events.contains("JournalFailed"), "{events}");

    // Whoever takes the pod on now knows all of it.
    podshim.kill_shims();
    let adopted = podshim.until_pods("adopted", |pods| {
        pods.len() == 2
            && pods.iter().all(|pod| status_of(pod, "log")["state"]["running"].is_object())
    });
    let adopted = adopted.iter().find(|pod| pod["metadata"]["name"] == "stays").unwrap();
    let main = status_of(adopted, "main");
    assert!(main["restartCount"] == 1 || full(adopted), "{adopted:#}");
    assert!(main.to_string().contains("\"exitCode\":137"), "{adopted:#}");
    let alive = fs::read_to_string(format!("/proc/{log}/cgroup")).unwrap();
    assert!(alive.contains(before["metadata"]["uid"].as_str().unwrap()), "{alive}");

    // Room can be made by deleting.
    let said = podshim.podshim(&["delete", "pod", "goes"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(daemon.ask("GET", &format!("{PODS}/goes"), "").0, 404);

    fs::remove_file(disk.filler()).unwrap();
    let again = podshim.until("ready again", is_ready);
    assert_eq!(status_of(&again, "log")["restartCount"], 0, "{again:#}");
    assert_eq!(status_of(&again, "main")["restartCount"], 1, "{again:#}");
    let said = podshim.podshim(&["create", "-f", &podshim.manifest(&named("new"))]);
    assert_eq!(said.code, 0, "{}", said.err);
    for name in ["stays", "new"] {
        let said = podshim.podshim(&["delete", "pod", name]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let (code, text) = daemon.end();
    assert_eq!(code, 0, "{text}");
    let said = podshim.podshim(&["prune", "--all"]);
    assert_eq!(said.code, 0, "{}", said.err);
    disk.unmount();
    podshim.nothing_is_left();
}

#[test]
fn a_file_that_the_disk_has_lost_keeps_no_daemon_from_what_the_others_say() {
    let podshim = Instance::new();
    let disk = Disk::at_root_of(&podshim);
    let daemon = podshim.daemon();
    for name in ["one", "two"] {
        podshim.apply(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{is: here}}}}"
        ));
    }
    let (code, text) = daemon.end();
    assert_eq!(code, 0, "{text}");
    disk.unmount();

    // Its entry stays, and leads to an inode that was never written.
    let name = "objects/configmaps/default_one.json";
    let image = podshim.root().with_file_name("disk");
    run(&format!("debugfs -w -R 'clri /{name}' {} 2>&1", image.display()));
    let disk = Disk::mounted(&podshim);
    let lost = fs::read(podshim.root().join(name)).unwrap_err();
    assert_eq!(lost.raw_os_error(), Some(Errno::EUCLEAN as i32), "{lost}");

    let daemon = podshim.daemon();
    let said = podshim.podshim(&["get", "configmaps", "-o", "name"]);
    assert_eq!(said.out, "configmap/two\n", "{}", said.err);
    let (code, text) = daemon.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("default_one.json: Structure needs cleaning"), "{text}");
    disk.unmount();
    podshim.nothing_is_left();
}
