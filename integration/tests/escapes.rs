//! What an image or a container may try against the host, and that it gets nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use integration::{Instance, pod, status_of, until};
use nix::sys::signal::Signal;

/// More descriptors than a process has that becomes a container's.
const DESCRIPTORS: std::ops::Range<u32> = 3..24;

/// A directory of the host that is still open when a container enters its working directory, or when
/// its program is looked for, is the way out of CVE-2024-21626: its `..` leads to the host's root.
#[test]
fn no_directory_of_the_host_is_open_when_a_container_looks_for_its_program() {
    let podshim = Instance::new();
    // A program at a path that no container has.
    let folder = podshim.network().with_file_name("outside");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("busybox");
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let way = format!("{}{}", "../".repeat(20), program.strip_prefix("/").unwrap().display());

    let mut spec =
        String::from("  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n");
    for fd in DESCRIPTORS {
        writeln!(
            spec,
            "  - {{name: cwd{fd}, image: 'alpine:latest', workingDir: /proc/self/fd/{fd}, command: [{way}, echo, it is outside]}}
  - {{name: program{fd}, image: 'alpine:latest', command: [/proc/self/fd/{fd}/{way}, echo, it is outside]}}"
        )
        .unwrap();
    }
    let running = podshim.start(&pod(&spec));
    // Each was tried, and failed on its own. What could not be created is tried again.
    until("all have failed", || {
        let text = running.text();
        let failed: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.contains("Failed: Error: "))
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        if failed.len() == 2 * DESCRIPTORS.len() { Ok(()) } else { Err(text) }
    });
    running.signal(Signal::SIGINT);
    let (_, text) = running.wait();
    assert!(!text.contains("it is outside"), "{text}");
}

/// Whoever enters a container to run a program there is a copy of the shim until its execve: it has
/// what the shim has, other containers' secrets and the operator's logins for registries.
#[test]
fn who_enters_a_container_cannot_be_looked_into_from_there() {
    let podshim = Instance::new();
    // It searches long for its program, and the container does nothing but look.
    let path = "/nowhere:".repeat(3_000);
    let said = podshim.run(&pod(&format!(
        "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: nosy
    image: alpine:latest
    restartPolicy: Always
    env: [{{name: PATH, value: '{path}/bin'}}]
    command:
    - /bin/sh
    - -c
    - |
      while :; do
        for p in /proc/[0-9]*; do
          read -r name < $p/comm
          [ \"$name\" = podshim ] || continue
          echo someone entered
          {{ read -r name < $p/comm; [ \"$name\" = podshim ] && echo and can be read; }} < $p/mem
        done 2>/dev/null
      done
    startupProbe: {{exec: {{command: ['true']}}, initialDelaySeconds: 1, timeoutSeconds: 60}}
  containers:
  - {{name: main, image: alpine:latest, command: [sleep, '0.1']}}
"
    )));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("someone entered"), "{}", said.out);
    assert!(!said.out.contains("and can be read"), "{}", said.out);
}

/// With a descriptor of the host's `/dev/null` a container could change its mode and owner.
#[test]
fn no_program_gets_a_device_of_the_host() {
    let podshim = Instance::new();
    let spec = "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: alpine:latest
    command:
    - sh
    - -c
    - |
      rm /bin/tar
      cat >/bin/tar <<'END'
      #!/bin/sh
      for fd in 0 1 2; do [ -c /proc/$$/fd/$fd ] && echo it has a device >&2; done
      printf 'tar: \\033]0;title\\007 says\\n' >&2
      exec /bin/busybox tar \"$@\"
      END
      chmod +x /bin/tar
      exec sleep 1000
    startupProbe: {exec: {command: [sh, -c, '[ -x /bin/tar ] && [ -p /proc/self/fd/0 ]']}, periodSeconds: 1}
";
    let running = podshim.start(&pod(spec));
    podshim.until("it has started", |pod| status_of(pod, "main")["started"] == true);
    let said = podshim.podshim(&["exec", "p", "--", "sh", "-c", "[ ! -c /proc/self/fd/0 ]"]);
    assert_eq!(said.code, 0, "{}", said.err);

    let folder = podshim.network().with_file_name("copied");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    for said in [
        podshim.podshim(&["cp", "p:/etc/passwd", folder]),
        podshim.podshim(&["cp", &format!("{folder}/passwd"), "p:/tmp/passwd"]),
    ] {
        assert_eq!((said.code, said.err.as_str()), (0, "tar: \\u{1b}]0;title\\u{7} says\n"));
    }
    let said = podshim.podshim(&["exec", "p", "--", "cmp", "/etc/passwd", "/tmp/passwd"]);
    assert_eq!(said.code, 0, "{}", said.err);
    running.signal(Signal::SIGINT);
    running.wait();
}

/// Whoever finds a shim's program (CVE-2019-5736) cannot write it, and it is not a copy in memory.
#[test]
fn a_shims_program_is_the_file_and_cannot_be_written() {
    let podshim = Instance::new();
    // On a file system that overlays take, beside the root and not around it.
    let folder = podshim.network().with_file_name("program");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("podshim");
    fs::copy(integration::binary(), &program).unwrap();
    let before = fs::read(&program).unwrap();
    let path = podshim.manifest(&pod(
        "  terminationGracePeriodSeconds: 1\n  containers: [{name: main, image: 'alpine:latest', command: [sleep, '1000']}]\n",
    ));
    let running = podshim.start_copy(&program, &["run", "--pull=never", &path]);
    podshim.until("running", |pod| pod["status"]["phase"] == "Running");
    let shim = format!("/proc/{}/exe", podshim.shim());
    let leads = fs::read_link(&shim).unwrap();
    assert_eq!(leads, Path::new("/podshim"), "a memfd, or the file itself");
    let refused = fs::OpenOptions::new().write(true).open(&shim).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS));
    assert!(fs::read(&shim).unwrap() == before);
    running.signal(Signal::SIGINT);
    running.wait();
}
