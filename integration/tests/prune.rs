//! What `podshim prune` removes, and what it must not touch.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use integration::{Instance, pod};
use nix::sys::signal::Signal;

const SLEEP: &str = "  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: alpine:latest, command: [sh, -c, 'echo up; exec sleep 1000']}
";

/// A pod whose shim dies together with its `podshim run`.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Deeper than a process has descriptors, and longer than a path may be.
#[test]
fn directories_of_any_depth_go_with_their_pod() {
    let limit = rustix::process::Rlimit { current: Some(1024), maximum: Some(1024) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let podshim = Instance::new();
    let spec = "  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: main
    image: alpine:latest
    volumeMounts: [{name: v, mountPath: /v}]
    command:
    - sh
    - -c
    - |
      long=$(printf 'd/%.0s' $(seq 750))
      for top in /v /root; do
        cd $top
        for i in 1 2 3; do
          mkdir -p $i/$long || exit
          ln -s / $i/link
          [ $i = 1 ] || mv $((i-1)) $i/$long || exit
        done
      done
      echo they are made
";
    let said = podshim.run(&pod(spec));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("they are made"), "{}", said.out);
    podshim.nothing_is_left();

    let running = podshim.start(&pod(&format!("{spec}      exec sleep 1000\n")));
    running.until_printed("they are made");
    podshim.kill_podshim(running);
    let pruned = podshim.podshim(&["prune"]);
    assert_eq!((pruned.code, pruned.err.as_str()), (0, ""), "{}", pruned.out);
}

/// A directory that was given by mistake, or is shared with others.
#[test]
fn what_is_not_this_roots_stays() {
    let podshim = Instance::new();
    let logs = podshim.root().with_file_name("logs");
    let others = "default_other_0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a77";
    fs::create_dir_all(logs.join(others)).unwrap();
    fs::create_dir_all(podshim.root().join("pods/mine")).unwrap();
    fs::write(podshim.root().join("images/mine"), "x").unwrap();

    let running = podshim.start(&pod(SLEEP));
    running.until_printed("up");
    // With the wrong state directory the pod seems gone.
    let elsewhere = podshim.state().with_extension("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    for args in [vec!["prune"], vec!["prune", "--all"]] {
        let pruned = podshim.podshim(&[&["--state", elsewhere], &args[..]].concat());
        assert_eq!(pruned.out, "", "{args:?}: {}", pruned.err);
    }
    let said = podshim.podshim(&["exec", "p", "--", "true"]);
    assert_eq!(said.code, 0, "{}", said.err);
    running.signal(Signal::SIGINT);
    running.wait();
    assert_eq!(names(&logs).len(), 2, "{:?}", names(&logs));

    let pruned = podshim.podshim(&["prune", "--keep-logs"]);
    assert_eq!((pruned.code, pruned.out.as_str()), (0, ""), "{}", pruned.err);
    assert_eq!(names(&logs).len(), 2);
    let pruned = podshim.podshim(&["prune", "--all"]);
    assert_eq!((pruned.code, pruned.err.as_str()), (0, ""), "{}", pruned.out);
    assert!(pruned.out.contains("removed the logs of default_p_"), "{}", pruned.out);
    assert!(pruned.out.contains("removed all images"), "{}", pruned.out);
    assert_eq!(names(&logs), [others]);
    assert_eq!(names(&podshim.root().join("pods")), ["mine"]);
    assert_eq!(names(&podshim.root().join("images")), ["mine"]);
    fs::remove_dir(podshim.root().join("pods/mine")).unwrap();

    // Where there is nothing, nothing is made.
    let nowhere = podshim.root().with_file_name("nowhere");
    let said = podshim.podshim(&["prune", "--root", nowhere.to_str().unwrap()]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    assert!(!nowhere.exists());
}

/// What cannot be removed is told, and the rest is removed.
#[test]
fn one_failure_does_not_keep_the_rest() {
    let podshim = Instance::new();
    let running = podshim.start(&pod(SLEEP));
    running.until_printed("up");
    podshim.kill_podshim(running);
    let kept = podshim.root().join("pods");
    let bad = "00000000-3c5e-4e0b-8f4e-6a3c8f1f2a77";
    fs::create_dir_all(kept.join(bad).join("busy")).unwrap();
    let busy = kept.join(bad).join("busy");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&busy)
        .status()
        .unwrap();
    assert!(mounted.success());
    fs::write(busy.join("file"), "x").unwrap();
    let pruned = podshim.podshim(&["prune"]);
    let is_there = busy.join("file").exists();
    rustix::mount::unmount(&busy, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(is_there);
    assert_eq!(pruned.code, 1, "{}", pruned.err);
    assert!(pruned.err.contains(&format!("cannot remove {}", kept.join(bad).display())));
    assert!(pruned.out.contains("removed pod p"), "{}", pruned.out);
    assert!(pruned.out.contains("removed the logs of default_p_"), "{}", pruned.out);
    let again = podshim.podshim(&["prune"]);
    assert_eq!((again.code, again.err.as_str()), (0, ""), "{}", again.out);
}
