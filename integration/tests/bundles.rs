//! `podshim bundle`: what it writes runs under other runtimes as it would have run in the pod.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::{Instance, pod};
use serde_json::Value;

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status; \
                      hostname; ulimit -n; umask; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";

fn manifest() -> String {
    let spec = format!(
        "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  hostname: boxed
  securityContext: {{sysctls: [{{name: net.ipv4.ip_unprivileged_port_start, value: '7'}}]}}
  volumes:
  - {{name: e, emptyDir: {{medium: Memory}}}}
  - {{name: c, configMap: {{name: settings}}}}
  - {{name: s, secret: {{secretName: keys, defaultMode: 0o444}}}}
  initContainers:
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sleep, '0.2']
    volumeMounts: [{{name: e, mountPath: /field}}]
  - name: seed
    image: alpine:latest
    command: [sh, -c, \"{STATUS}; echo sown > /field/said; echo $0 $WHO; mount | grep -c ' /dev/shm '\"]
    env: [{{name: WHO, valueFrom: {{configMapKeyRef: {{name: settings, key: who}}}}}}]
    volumeMounts: [{{name: e, mountPath: /field}}]
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, \"{STATUS}; cat /etc/app.conf /field/said /keys/token; touch /x 2>/dev/null || echo read-only; unshare -r true 2>/dev/null || echo confined\"]
    securityContext:
      runAsUser: 1000
      runAsGroup: 2000
      runAsNonRoot: true
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
    resources: {{limits: {{memory: 64Mi, cpu: 500m}}}}
    volumeMounts:
    - {{name: e, mountPath: /field}}
    - {{name: c, mountPath: /etc/app.conf, subPath: app.conf}}
    - {{name: s, mountPath: /keys, readOnly: true}}
"
    );
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{who: someone, app.conf: \"a=1\\n\"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{token: \"hidden\\n\"}}
---
{}",
        pod(&spec)
    )
}

/// The runtimes that are here: runc where the tests run on a host, crun in the virtual machine. (crun
/// refuses to run with both versions of control groups.)
fn runtimes() -> Vec<&'static str> {
    let is_v2 = !Path::new("/sys/fs/cgroup/pids").exists();
    let is_here = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let usable = ["runc", "crun"].into_iter().filter(|name| is_v2 || *name != "crun");
    let found: Vec<_> = usable.filter(is_here).collect();
    assert!(!found.is_empty(), "install runc or crun");
    found
}

fn run_bundle(runtime: &str, state: &Path, bundle: &Path) -> (bool, String) {
    let name = bundle.file_name().unwrap().to_str().unwrap();
    let id = format!("podshim-test-{}-{name}", std::process::id());
    let ran = Command::new(runtime)
        .arg("--root")
        .arg(state)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(&id)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    (ran.status.success(), text + &String::from_utf8_lossy(&ran.stderr))
}

#[test]
fn bundles_run_under_other_runtimes_as_their_containers_in_the_pod() {
    let podshim = Instance::new();
    let said = podshim.run_with(&["--network=none"], &manifest());
    assert_eq!(said.code, 0, "{}", said.err);
    let of = |container: &str| -> String {
        let prefix = format!("{container} | ");
        let lines = said.out.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let path = podshim.manifest(&manifest());
    for runtime in runtimes() {
        let out = podshim.root().with_file_name(format!("bundles-{runtime}"));
        let written = podshim.podshim(&["bundle", &path, "-o", out.to_str().unwrap()]);
        assert_eq!(written.code, 0, "{}", written.err);
        let expected: Vec<String> = ["side", "seed", "main"]
            .iter()
            .map(|name| out.join("p").join(name).display().to_string())
            .collect();
        assert_eq!(written.out.lines().collect::<Vec<_>>(), expected);
        let state = podshim.root().with_file_name("state-of-others");
        for container in ["side", "seed", "main"] {
            let (ok, text) = run_bundle(runtime, &state, &out.join("p").join(container));
            assert!(ok, "{runtime} {container}: {text}");
            assert_eq!(text, of(container), "{runtime} {container}");
        }
        let config = out.join("p/main/config.json");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let config: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(config["linux"]["resources"]["cpu"]["quota"], 50_000);
        assert_eq!(config["root"]["path"], "rootfs");
        assert_eq!(config["linux"].get("cgroupsPath"), None);

        // What is there is not written over.
        let again = podshim.podshim(&["bundle", &path, "-o", out.to_str().unwrap()]);
        assert_eq!((again.code, again.out.as_str()), (125, ""));
        assert!(again.err.contains("it must be new"), "{}", again.err);
        assert!(out.join("p/main/config.json").exists());
    }
}

#[test]
fn a_bundle_that_cannot_be_or_is_killed_leaves_no_mount_and_no_half() {
    let podshim = Instance::new();
    let out = podshim.root().with_file_name("bundles");
    let out_text = out.to_str().unwrap();
    let bad = pod("  containers:
  - {name: good, image: alpine:latest, command: ['true']}
  - {name: bad, image: alpine:latest, command: ['true'], securityContext: {runAsNonRoot: true}}
");
    let said = podshim.podshim(&["bundle", &podshim.manifest(&bad), "-o", out_text]);
    assert_eq!(said.code, 125);
    assert!(said.err.contains("container bad"), "{}", said.err);
    assert!(!out.join("p").exists());
    // Another container could put a link to the host there before this one is run.
    let swappable = pod("  volumes: [{name: e, emptyDir: {}}]
  containers:
  - {name: main, image: alpine:latest, volumeMounts: [{name: e, mountPath: /e, subPath: part}]}
");
    let said = podshim.podshim(&["bundle", &podshim.manifest(&swappable), "-o", out_text]);
    assert_eq!(said.code, 125);
    assert!(said.err.contains("mount the whole volume"), "{}", said.err);
    assert!(!out.join("p").exists());

    let path = podshim.manifest(&manifest());
    for step in 0..10 {
        let mut child = podshim.command(&["bundle", &path, "-o", out_text]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * 10));
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_dir_all(out.join("p"));
        // Also when its cp(1) outlives it.
        podshim.nothing_is_left();
    }
}
