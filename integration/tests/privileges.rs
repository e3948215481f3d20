//! What a container may do and what it is told of its surroundings, held by golden files.
//!
//! `PODSHIM_WRITE_GOLDEN=1` writes them instead (on cgroup v2 and a kernel that has all of /proc: lines
//! for what a host has not are passed over there); the difference is what is reviewed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use integration::{Instance, sources, status_of};

fn pod(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n{spec}"
    )
}

/// Masked paths differ from kernel to kernel; these are on all of them.
const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];

/// A line of mountinfo as every machine has it: mount point, propagation, type and options.
fn mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let (point, options) = (left[4], left[5]);
    let right: Vec<&str> = right.split(' ').collect();
    let is_masked = options.starts_with("ro") && ["tmpfs", "proc", "sysfs"].contains(&right[0]);
    let below = |dir: &str| point.starts_with(dir) && point.len() > dir.len();
    let known = MASKED.contains(&point) || right[0] == "proc";
    if is_masked && (below("/proc/") || below("/sys/")) && !known {
        return None;
    }
    // The file systems below the root differ: of the tmpfs and disk only the name is kept.
    let kind = match (point, right[0]) {
        ("/proc/kcore" | "/proc/keys" | "/proc/timer_list" | "/proc/interrupts", _) => "null",
        ("/dev" | "/dev/shm", _) => "tmpfs",
        (_, "ext4" | "xfs" | "btrfs" | "tmpfs" | "9p") => "host",
        (_, kind) => kind,
    };
    // Times of access are the file system's business.
    let options: Vec<&str> =
        options.split(',').filter(|o| !["relatime", "noatime"].contains(o)).collect();
    let options = options.join(",");
    let propagation = left[6..].join(" ");
    Some(format!("{point} {kind} {options} {propagation}").trim_end().to_owned())
}

/// What the container said, with what differs from machine to machine left out.
fn normalized(out: &str) -> String {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let all = own.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap();
    let mut text = String::new();
    for line in out.lines() {
        let (who, line) = line.split_once(" | ").expect(line);
        let who = who.trim_end();
        match line.split_once(' ').filter(|_| line.contains(" - ")) {
            Some(_) => {
                if let Some(mount) = mount(line) {
                    writeln!(text, "{who} mount {mount}").unwrap();
                }
            }
            None => {
                writeln!(text, "{who} {}", line.replace('\t', " ").replace(all, "(all)")).unwrap()
            }
        }
    }
    text
}

fn golden(name: &str, out: &str) {
    let path = sources().join("integration/tests/golden").join(name);
    let text = normalized(out);
    if std::env::var_os("PODSHIM_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    // Only cgroup v2 is shown to containers, and not every kernel has every file of /proc.
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let is_here = |line: &&str| match line.split(' ').nth(2).filter(|_| line.contains(" mount ")) {
        Some("/sys/fs/cgroup") => v2,
        Some(path) if path.starts_with("/proc/") => Path::new(path).exists(),
        _ => true,
    };
    let relevant =
        |text: &str| -> Vec<String> { text.lines().filter(is_here).map(str::to_owned).collect() };
    let (found, expected) = (relevant(&text), relevant(&expected));
    for line in &found {
        assert!(expected.contains(line), "{name} has not: {line}\n{text}");
    }
    assert_eq!(found, expected, "{name}");
}

const SHOW: &str = "grep -E \"^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)\" /proc/self/status";

/// The probe runs first and leaves what it sees for main, then `podshim exec`.
fn observed(context: &str, of_pod: &str) -> String {
    pod(&format!(
        "{of_pod}  containers:
  - name: main
    image: alpine:latest
    securityContext: {{{context}}}
    command: [sh, -c, 'while [ ! -e /v/execed ]; do sleep 0.1; done; {SHOW}; cat /proc/self/mountinfo; sed \"s/^/probe: /\" /v/probed; sed \"s/^/exec: /\" /v/execed']
    startupProbe: {{periodSeconds: 1, exec: {{command: [sh, -c, '{SHOW} > /v/probing; mv /v/probing /v/probed']}}}}
    volumeMounts: [{{name: v, mountPath: /v}}]
  volumes: [{{name: v, emptyDir: {{}}}}]
"
    ))
}

#[test]
fn the_default_the_restricted_and_the_privileged_container_are_as_they_were() {
    let podshim = Instance::new();
    for (name, context, of_pod) in [
        ("default.txt", "", ""),
        (
            "restricted.txt",
            "allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}",
            "  securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, supplementalGroups: [3000]}\n",
        ),
        ("privileged.txt", "privileged: true", ""),
    ] {
        let running = podshim.start(&observed(context, of_pod));
        podshim.until("started", |pod| status_of(pod, "main")["started"] == true);
        let show = format!("{SHOW} > /v/execing; mv /v/execing /v/execed");
        let said = podshim.podshim(&["exec", "p", "--", "sh", "-c", &show]);
        assert_eq!(said.code, 0, "{name}: {}", said.err);
        let (code, text) = running.wait();
        assert_eq!(code, 0, "{name}: {text}");
        let of_containers = text.lines().filter(|line| line.contains(" | "));
        golden(name, &of_containers.map(|line| format!("{line}\n")).collect::<String>());
    }
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_others_have_not() {
    let podshim = Instance::new();
    let show = |context: &str| {
        podshim.run(&pod(&format!(
            "  containers:
  - name: main
    image: alpine:latest
    securityContext: {{{context}}}
    command: [sh, -c, 'ls /dev | tr \"\\\\n\" \" \"; echo; head -c 0 /dev/kmsg && echo opened; mkdir /sys/fs/cgroup/x 2>/dev/null; true']
"
        )))
    };
    let said = show("privileged: true");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for device in ["kmsg", "null", "ptmx"] {
        assert!(said.out.contains(device), "{}", said.out);
    }
    // Not every host gives us /dev/kmsg; where it can be opened, so can the container.
    assert_eq!(said.out.contains("opened"), fs::File::open("/dev/kmsg").is_ok(), "{}", said.out);
    let said = show("");
    assert!(!said.out.contains("kmsg ") && !said.out.contains("opened"), "{}", said.out);
}

#[test]
fn kernel_parameters_are_the_pods_own_and_only_the_safe_ones_are_free() {
    let podshim = Instance::new();
    let manifest = |sysctls: &str| {
        pod(&format!(
            "  securityContext: {{sysctls: [{sysctls}]}}
  containers:
  - {{name: main, image: alpine:latest, command: [sh, -c, 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax']}}
"
        ))
    };
    let safe = "{name: net.ipv4.ip_unprivileged_port_start, value: '77'}";
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let said = podshim.run(&manifest(safe));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("main | 77\n"), "{}", said.out);

    let unsafe_one = format!("{safe}, {{name: kernel.msgmax, value: '4321'}}");
    let refused = podshim.run(&manifest(&unsafe_one));
    assert_eq!(refused.code, 125);
    assert!(refused.err.contains("--allowed-unsafe-sysctls=kernel.msgmax"), "{}", refused.err);
    let path = podshim.manifest(&manifest(&unsafe_one));
    let said =
        podshim.podshim(&["run", "--pull=never", "--allowed-unsafe-sysctls=kernel.msg*", &path]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("main | 4321\n"), "{}", said.out);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);

    let whole_host = podshim.run(&manifest("{name: vm.swappiness, value: '1'}"));
    assert_eq!(whole_host.code, 125);
    assert!(whole_host.err.contains("it is the whole host's"), "{}", whole_host.err);
}

#[test]
fn a_profile_from_a_file_filters_and_a_missing_one_is_waited_for() {
    let podshim = Instance::new();
    let manifest = pod("  containers:
  - name: main
    image: alpine:latest
    securityContext: {seccompProfile: {type: Localhost, localhostProfile: mine/no-mkdir.json}}
    command: [sh, -c, 'mkdir /x || echo refused; grep Seccomp: /proc/self/status']
");
    let running = podshim.start(&manifest);
    podshim.until("the profile is missed", |p| {
        let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["message"].as_str().is_some_and(|m| m.contains("mine/no-mkdir.json"))
    });
    let dir = podshim.root().join("seccomp/mine");
    fs::create_dir_all(&dir).unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]}"#;
    fs::write(dir.join("no-mkdir.json"), profile).unwrap();
    let (code, text) = running.wait();
    assert_eq!(code, 0, "{text}");
    for line in ["Disk quota exceeded", "main | refused", "main | Seccomp:\t2"] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
}

#[test]
fn names_and_resolvers_are_as_the_spec_says() {
    let podshim = Instance::new();
    let said = podshim.run(&pod("  hostname: web
  subdomain: shop
  setHostnameAsFQDN: true
  hostAliases: [{ip: 192.0.2.7, hostnames: [db, db.example]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example.com], options: [{name: ndots, value: '2'}]}
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'hostname; grep 192 /etc/hosts; cat /etc/resolv.conf']}
"));
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "main | web.shop.default.svc.cluster.local",
        "main | 192.0.2.7\tdb\tdb.example",
        "main | search example.com",
        "main | nameserver 192.0.2.53",
        "main | options ndots:2",
    ] {
        assert!(said.out.contains(line), "{line:?} in {}", said.out);
    }
}
