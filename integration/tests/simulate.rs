//! `podshim simulate`: lives in virtual time. Nothing is run, so none of it needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use integration::{Instance, sources};

fn file(name: &str) -> String {
    sources().join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let podshim = Instance::new();
    let job = file("examples/job.yaml");
    let tell = |seed: &str, output: &str| {
        let said = podshim.podshim(&["simulate", &job, "--seed", seed, "-o", output]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    let story = tell("1", "table");
    assert_eq!(story, tell("1", "table"));
    assert_ne!(story, tell("2", "table"));
    for word in ["logshipper", "myjob", "is accepted", "is gone"] {
        assert!(story.contains(word), "{word} in {story}");
    }
    let picture = tell("1", "svg");
    assert!(picture.starts_with("<svg ") && picture.contains("logshipper (sidecar)"), "{picture}");
    let value: serde_json::Value = serde_json::from_str(&tell("1", "json")).unwrap();
    assert_eq!(value["facts"][0]["fact"]["fact"], "accepted");
    assert!(value["events"].as_array().is_some_and(|events| !events.is_empty()));
}

#[test]
fn a_script_says_what_happens_and_a_wrong_word_is_said_with_its_line() {
    let podshim = Instance::new();
    let job = file("examples/job.yaml");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    let play = |text: &str| {
        std::fs::write(&path, text).unwrap();
        podshim.podshim(&["simulate", &job, "--script", path.to_str().unwrap(), "--until", "1m"])
    };
    let said = play("0s accept\n3s exit logshipper 1\n8s exit myjob 3\n9s exit-code\n");
    assert_eq!(said.code, 0, "{}", said.err);
    for words in ["runs (restart 1)", "ends (Completed)", "exit code 3", "is gone"] {
        assert!(said.out.contains(words), "{words} in {}", said.out);
    }
    let said = play("0s accept\n1s dance\n");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("line 2: nobody knows how to dance"), "{}", said.err);
}

#[test]
fn many_lives_are_counted_and_a_failure_is_stepped_through() {
    let podshim = Instance::new();
    let said = podshim.podshim(&["simulate", "--lives", "300", "--seed", "5"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("checks") && said.out.contains("probe failed"), "{}", said.out);
    let found = file("runtime/sim/tests/found/early_attempt_errs.json");
    let said = podshim.podshim(&["simulate", "--replay", &found]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("could not be tried"), "{}", said.out);
    // One that somebody has damaged.
    let text = std::fs::read_to_string(&found).unwrap();
    for (damaged, why) in [
        (text.replace("\"deed\"", "\"c\": 7, \"deed\""), "it speaks of container 7 of"),
        (text.replace("\"Main\"", "\"Init\""), "its pod has no main"),
        (text[..text.len() / 2].to_owned(), "EOF while parsing"),
    ] {
        let said = podshim.podshim(&["simulate", "--replay", &podshim.manifest(&damaged)]);
        assert_eq!(said.code, 1, "{}", said.out);
        assert!(said.err.contains("is no file of a failure"), "{}", said.err);
        assert!(said.err.contains(why), "{}", said.err);
    }
}
