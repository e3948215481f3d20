//! The scenarios that the simulator lives, by the real shim on the real kernel: `podshim simulate` makes
//! each into a manifest of shell scripts, and judges what `podshim run` says of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use integration::{Instance, sources};

/// What a user does: `# after 500 ms: restart log`.
fn deeds(manifest: &str) -> Vec<(Duration, Vec<String>)> {
    let deed = |line: &str| {
        let (ms, what) = line.strip_prefix("# after ")?.split_once(" ms: ")?;
        let words = what.split(' ').map(str::to_owned).collect();
        Some((Duration::from_millis(ms.parse().ok()?), words))
    };
    manifest.lines().filter_map(deed).collect()
}

fn does(podshim: &Instance, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["delete"] => podshim.podshim(&["delete", "pod", "scenario", "--no-wait"]),
        ["delete", grace] => {
            let grace = grace.replace("grace", "--grace-period");
            podshim.podshim(&["delete", "pod", "scenario", "--no-wait", &grace])
        }
        ["restart", container] => podshim.podshim(&["restart", "scenario", "-c", container]),
        _ => panic!("{words:?}"),
    };
    assert_eq!(said.code, 0, "{words:?}: {}", said.err);
}

/// What is not as expected; empty if all is.
fn live(podshim: &Instance, path: &Path) -> String {
    let path = path.to_str().unwrap();
    let virtually = podshim.podshim(&["simulate", "--scenario", path]);
    if virtually.code != 0 {
        return format!("in virtual time: {}", virtually.err);
    }
    let manifest = podshim.podshim(&["simulate", "--scenario", path, "-o", "manifest"]);
    assert_eq!(manifest.code, 0, "{path}: {}", manifest.err);
    let running = podshim.start_with(&["-o", "json"], &manifest.out);
    podshim.until("accepted", |pod| pod["status"]["startTime"].is_string());
    let began = Instant::now();
    for (after, words) in deeds(&manifest.out) {
        std::thread::sleep(after.saturating_sub(began.elapsed()));
        does(podshim, &words);
    }
    let (_, text) = running.wait();
    let observed = podshim.root().join("observed");
    let objects = text.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>();
    fs::write(&observed, objects.join("\n")).unwrap();
    let observed = observed.to_str().unwrap();
    let verdict = podshim.podshim(&["simulate", "--scenario", path, "--observed", observed]);
    if verdict.code == 0 { String::new() } else { verdict.err }
}

#[test]
fn what_is_told_of_pods_comes_true_on_this_kernel() {
    let podshim = Instance::new();
    let mut paths: Vec<_> = fs::read_dir(sources().join("runtime/sim/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    let mut wrong = String::new();
    for path in &paths {
        let said = live(&podshim, path);
        if !said.is_empty() {
            wrong += &format!("{}\n{said}\n", path.display());
        }
        podshim.nothing_is_left();
    }
    assert!(wrong.is_empty(), "{wrong}");
}
