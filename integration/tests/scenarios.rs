//! The scenarios that the simulator lives, by the real shim on the real kernel: `podshim simulate` makes
//! each into a manifest of shell scripts, and judges what `podshim run` says of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::{Instance, sources};
use serde_json::Value;

/// What a user does, how long after what had happened to the containers.
struct Deed {
    after: Duration,
    /// Container, starts, exits.
    seen: Vec<(String, u64, u64)>,
    words: Vec<String>,
}

/// `# 500 ms after log starts=1 exits=0, app starts=2 exits=1: restart log`.
fn deeds(manifest: &str) -> Vec<Deed> {
    let seen = |text: &str| {
        let (name, counts) = text.trim().split_once(" starts=").unwrap();
        let (starts, exits) = counts.split_once(" exits=").unwrap();
        (name.to_owned(), starts.parse().unwrap(), exits.parse().unwrap())
    };
    let deed = |line: &str| {
        let (ms, rest) = line.strip_prefix("# ")?.split_once(" ms after")?;
        let (after, words) = rest.split_once(": ")?;
        Some(Deed {
            after: Duration::from_millis(ms.parse().ok()?),
            seen: after.split(',').filter(|part| !part.is_empty()).map(seen).collect(),
            words: words.split(' ').map(str::to_owned).collect(),
        })
    };
    manifest.lines().filter_map(deed).collect()
}

/// Whether a container was started and has ended that often.
fn has_happened(pod: &Value, (name, starts, exits): &(String, u64, u64)) -> bool {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let Some(status) = all.find(|status| status["name"] == **name) else { return false };
    let (state, last) = (&status["state"], &status["lastState"]);
    let ever = state["waiting"].is_null() || last["terminated"].is_object();
    let seen = if ever { 1 + status["restartCount"].as_u64().unwrap() } else { 0 };
    let running = u64::from(state["running"].is_object());
    seen >= *starts && seen - running >= *exits
}

/// The manifest with another variable in a container.
fn changed(manifest: &str, container: &str) -> String {
    let name = format!("  - name: {container}\n");
    assert!(manifest.contains(&name), "{manifest}");
    let env = "    env: [{name: CHANGED, value: \"1\"}]\n";
    manifest.replace(&name, &(name.clone() + env))
}

fn does(podshim: &Instance, manifest: &str, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["delete"] => podshim.podshim(&["delete", "pod", "scenario", "--no-wait"]),
        ["delete", grace] => {
            let grace = grace.replace("grace", "--grace-period");
            podshim.podshim(&["delete", "pod", "scenario", "--no-wait", &grace])
        }
        [verb @ ("restart" | "stop" | "start"), container] => {
            podshim.podshim(&[verb, "scenario", "-c", container])
        }
        ["change", container] => {
            let path = podshim.manifest(&changed(manifest, container));
            podshim.podshim(&["apply", "-f", &path])
        }
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
    let deeds = deeds(&manifest.out);
    let comments = manifest.out.lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(deeds.len() + 1, comments, "{}", manifest.out);
    for deed in deeds {
        podshim.until(path, |pod| deed.seen.iter().all(|seen| has_happened(pod, seen)));
        thread::sleep(deed.after);
        does(podshim, &manifest.out, &deed.words);
    }
    let (_, text) = running.wait();
    let observed = podshim.root().join("observed");
    let objects = text.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>();
    fs::write(&observed, objects.join("\n")).unwrap();
    let observed = observed.to_str().unwrap();
    let verdict = podshim.podshim(&["simulate", "--scenario", path, "--observed", observed]);
    if verdict.code == 0 { String::new() } else { verdict.err }
}

/// They sleep most of the time.
const AT_ONCE: usize = 3;

#[test]
fn what_is_told_of_pods_comes_true_on_this_kernel() {
    let mut paths: Vec<_> = fs::read_dir(sources().join("runtime/sim/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // Reboots (`runtime/sim/scenarios/reboot`) are for tests of their own.
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(paths.len() > 40, "{paths:?}");
    let part = &|first: usize| {
        let podshim = Instance::beside_others();
        let mut wrong = String::new();
        for path in paths.iter().skip(first).step_by(AT_ONCE) {
            let said = live(&podshim, path);
            if !said.is_empty() {
                wrong += &format!("{}\n{said}\n", path.display());
            }
            podshim.nothing_is_left();
        }
        wrong
    };
    let wrong: String = thread::scope(|scope| {
        let parts: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(move || part(first))).collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong}");
}
