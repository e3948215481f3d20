//! Volumes, environments from objects, and last words, as containers see them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use integration::{Instance, run};
use serde_json::Value;

const OBJECTS: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {app.conf: 'port=80', COLOUR: red}
binaryData: {blob: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {token: c2VjcmV0}
stringData: {USER: admin}
---
";

fn pod(spec: &str) -> String {
    format!(
        "{OBJECTS}apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: web}}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n{spec}"
    )
}

#[test]
fn a_pod_gets_its_config_maps_secrets_and_itself_as_files_and_variables() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  initContainers:
  - name: side
    image: alpine:latest
    restartPolicy: Always
    command: [sh, -c, 'cat /s/token; echo; sleep 1000']
    volumeMounts: [{name: secret, mountPath: /s}]
  containers:
  - name: main
    image: alpine:latest
    resources: {limits: {memory: 64Mi}}
    envFrom: [{configMapRef: {name: settings}, prefix: C_}, {secretRef: {name: keys}}]
    env:
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: NONE, valueFrom: {configMapKeyRef: {name: nothing, key: x, optional: true}}}
    volumeMounts:
    - {name: config, mountPath: /c}
    - {name: config, mountPath: /etc/app.conf, subPath: app.conf}
    - {name: secret, mountPath: /s}
    - {name: self, mountPath: /self}
    - {name: all, mountPath: /all}
    command: [sh, -c]
    args:
    - |
      echo env $C_COLOUR $USER $TOKEN $LIMIT ${NONE-unset}
      echo files $(ls /c) : $(cat /c/app.conf) : $(cat /etc/app.conf) : $(wc -c < /c/blob)
      echo link $(readlink /c/app.conf)
      echo modes $(stat -L -c %a /s/token /c/app.conf) $(cat /s/token)
      echo self $(cat /self/labels) $(cat /self/deep/name) $(cat /self/limit)
      echo all $(ls /all | tr '\\n' ' ')
      touch /c/x /s/x /all/x || echo read-only
  volumes:
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: keys, defaultMode: 0400}}
  - name: self
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: deep/name, fieldRef: {fieldPath: metadata.name}}
      - {path: limit, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings, items: [{key: app.conf, path: conf}]}}
      - {secret: {name: keys, items: [{key: token, path: token}]}}
      - {configMap: {name: nothing, optional: true}}
"));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for line in [
        "main | env red admin secret 64 unset",
        "main | files COLOUR app.conf blob : port=80 : port=80 : 3",
        "main | link ..data/app.conf",
        "main | modes 400 644 secret",
        "main | self app=\"web\" p 64",
        "main | all conf token",
        "main | read-only",
        "side | secret",
    ] {
        assert!(said.out.contains(line), "{line:?} in {}{}", said.out, said.err);
    }
}

#[test]
fn what_a_pod_refers_to_must_be_there_and_is_looked_for_before_anything_runs() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  containers:
  - name: main
    image: alpine:latest
    env:
    - {name: A, valueFrom: {configMapKeyRef: {name: setings, key: COLOUR}}}
    - {name: B, valueFrom: {secretKeyRef: {name: keys, key: tokn}}}
    envFrom: [{secretRef: {name: elsewhere}}]
  volumes: [{name: v, configMap: {name: settings, items: [{key: nope, path: x}]}}]
"));
    assert_eq!(said.code, 125);
    for text in [
        "Not found: \"setings\"",
        "did you mean settings?",
        "Not found: \"tokn\"",
        "did you mean token?",
        "Not found: \"elsewhere\"",
        "add the Secret to the files",
        "Not found: \"nope\"",
    ] {
        assert!(said.err.contains(text), "{text:?} in {}", said.err);
    }
}

#[test]
fn parts_of_a_volume_are_mounted_and_a_link_out_of_it_is_not_followed() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  initContainers:
  - name: prep
    image: alpine:latest
    command: [sh, -c, 'mkdir /d/real; echo inside > /d/real/f; ln -s real /d/alias; chmod 2775 /d']
    volumeMounts: [{name: data, mountPath: /d}]
  containers:
  - name: main
    image: alpine:latest
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    command: [sh, -c, 'cat /a/f /f; echo x > /own/x; stat -c %a /own; ls /whole']
    volumeMounts:
    - {name: data, mountPath: /a, subPath: alias}
    - {name: data, mountPath: /f, subPath: real/f}
    - {name: data, mountPath: /own, subPathExpr: 'of-$(POD)'}
    - {name: data, mountPath: /whole, readOnly: true, recursiveReadOnly: Enabled}
  volumes: [{name: data, emptyDir: {}}]
"));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for line in ["main | inside\nmain | inside\nmain | 2775", "main | of-p"] {
        assert!(said.out.contains(line), "{line:?} in {}", said.out);
    }

    for link in ["/etc", "../../../../../../../etc"] {
        let running = podshim.start(&pod(&format!(
            "  initContainers:
  - name: prep
    image: alpine:latest
    command: [ln, -s, {link}, /d/out]
    volumeMounts: [{{name: data, mountPath: /d}}]
  containers:
  - name: main
    image: alpine:latest
    command: [cat, /a/shadow]
    volumeMounts: [{{name: data, mountPath: /a, subPath: out}}]
  volumes: [{{name: data, emptyDir: {{}}}}]
"
        )));
        podshim.until("the container is refused", |p| {
            let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError"
                && waiting["message"].as_str().unwrap().contains("leads out of it")
        });
        running.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(running.wait().0, 130);
    }
}

#[test]
fn paths_of_the_host_are_checked_waited_for_and_shared() {
    let podshim = Instance::new();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().display();
    fs::write(host.path().join("file"), "of the host").unwrap();
    symlink("file", host.path().join("link")).unwrap();
    let said = podshim.run(&pod(&format!(
        "  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'cat /file; echo; echo written > /made/deep/x; test -c /null && echo device']
    volumeMounts:
    - {{name: file, mountPath: /file, readOnly: true}}
    - {{name: made, mountPath: /made}}
    - {{name: made, mountPath: /made/deep, subPath: deep}}
    - {{name: device, mountPath: /null}}
  volumes:
  - {{name: file, hostPath: {{path: {path}/link, type: File}}}}
  - {{name: made, hostPath: {{path: {path}/new/directory, type: DirectoryOrCreate}}}}
  - {{name: device, hostPath: {{path: /dev/null, type: CharDevice}}}}
"
    )));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("main | of the host\n"), "{}", said.out);
    assert!(said.out.contains("main | device"), "{}", said.out);
    let written = fs::read_to_string(host.path().join("new/directory/deep/x")).unwrap();
    assert_eq!(written, "written\n");

    // What is mounted on the host later is seen only by who asked for it.
    let mounts = |propagation: &str| {
        let inner = host.path().join("inner");
        let _ = fs::create_dir(&inner);
        let said = podshim.run(&pod(&format!(
            "  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'grep \" /v \" /proc/self/mountinfo']
    volumeMounts: [{{name: v, mountPath: /v, mountPropagation: {propagation}}}]
  volumes: [{{name: v, hostPath: {{path: {path}}}}}]
"
        )));
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        said.out
    };
    // The source's own propagation is the host's business: on many it is private from the start.
    assert!(!mounts("None").contains("master:"));
    let source = run(&format!("findmnt -n -o PROPAGATION -T {path}"));
    assert_eq!(mounts("HostToContainer").contains("master:"), source.contains("shared"));

    // Nobody has promised it: an init container makes it, or it becomes a directory.
    let said = podshim.run(&pod(&format!(
        "  initContainers:
  - name: prep
    image: alpine:latest
    command: [sh, -c, 'echo by init > /host/unpromised']
    volumeMounts: [{{name: host, mountPath: /host}}]
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c, 'cat /x; echo y > /dir/y']
    volumeMounts: [{{name: x, mountPath: /x}}, {{name: dir, mountPath: /dir}}]
  volumes:
  - {{name: host, hostPath: {{path: {path}}}}}
  - {{name: x, hostPath: {{path: {path}/unpromised}}}}
  - {{name: dir, hostPath: {{path: {path}/a/b}}}}
"
    )));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("main | by init"), "{}", said.out);
    assert_eq!(fs::read_to_string(host.path().join("a/b/y")).unwrap(), "y\n");

    // Not there yet: it is said, and looked for again.
    let running = podshim.start(&pod(&format!(
        "  containers:
  - name: main
    image: alpine:latest
    command: [cat, /later/x]
    volumeMounts: [{{name: later, mountPath: /later}}]
  volumes: [{{name: later, hostPath: {{path: {path}/later, type: Directory}}}}]
"
    )));
    podshim.until("the pod waits", |p| p["status"]["phase"] == "Pending");
    fs::create_dir(host.path().join("later")).unwrap();
    fs::write(host.path().join("later/x"), "at last\n").unwrap();
    let (code, text) = running.wait();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("main | at last"), "{text}");
    let check = format!("hostPath type check failed: {path}/later does not exist");
    assert!(text.contains("Warning FailedMount") && text.contains(&check), "{text}");
}

#[test]
fn volumes_belong_to_the_pods_group() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, supplementalGroups: [3000]}
  containers:
  - name: main
    image: alpine:latest
    command: [sh, -c]
    args:
    - |
      echo groups $(id -G)
      echo disk $(stat -c %a:%g /disk) memory $(stat -c %a:%g /memory)
      echo secret $(stat -L -c %a:%g /s/token) $(cat /s/token)
      touch /disk/x /memory/x && echo new $(stat -c %g /disk/x /memory/x)
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: secret, mountPath: /s}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: secret, secret: {secretName: keys, defaultMode: 0400}}
"));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for line in [
        "main | groups 1000 2000 3000",
        "main | disk 2777:2000 memory 2777:2000",
        "main | secret 440:2000 secret",
        "main | new 2000 2000",
    ] {
        assert!(said.out.contains(line), "{line:?} in {}{}", said.out, said.err);
    }
}

/// The terminated state of each main of the pod at the end, by name.
fn ends(podshim: &Instance, spec: &str) -> BTreeMap<String, Value> {
    let path = podshim.manifest(&pod(spec));
    let said = podshim.podshim(&["run", "--pull=never", "-o", "json", &path]);
    let mut objects = said.out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let pod = objects.rfind(|o| o["kind"] == "Pod").expect("the pod at the end");
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap().clone();
    let name = |s: &Value| s["name"].as_str().unwrap().to_owned();
    statuses.iter().map(|s| (name(s), s["state"]["terminated"].clone())).collect()
}

#[test]
fn a_container_leaves_last_words_in_its_file_or_its_log() {
    let podshim = Instance::new();
    let ends = ends(&podshim, "  containers:
  - name: file
    image: alpine:latest
    securityContext: {readOnlyRootFilesystem: true, runAsUser: 1000}
    command: [sh, -c, 'echo said; echo bye > /dev/termination-log; exit 3']
  - name: log
    image: alpine:latest
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, 'seq 1 200; echo why >&2; exit 1']
  - name: endless
    image: alpine:latest
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, \"head -c 300000 /dev/zero | tr '\\\\0' y; exit 1\"]
  - name: well
    image: alpine:latest
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, 'echo said']
  - name: elsewhere
    image: alpine:latest
    terminationMessagePath: /var/last/words
    command: [sh, -c, 'head -c 5000 /dev/zero | tr \"\\\\0\" x > /var/last/words; echo end >> /var/last/words']
");
    assert_eq!(ends["file"]["message"], "bye\n");
    assert_eq!(ends["file"]["exitCode"], 3);
    let log = ends["log"]["message"].as_str().unwrap();
    assert!(log.starts_with("122\n") && log.ends_with("200\nwhy\n"), "{log}");
    assert_eq!(ends["well"]["message"], Value::Null);
    assert_eq!(ends["endless"]["message"], "y".repeat(2048));
    // 12 KiB for the pod: 2,457 bytes for each of five, of the last 4,096.
    let words = ends["elsewhere"]["message"].as_str().unwrap();
    assert_eq!(words, "x".repeat(2457));
}
