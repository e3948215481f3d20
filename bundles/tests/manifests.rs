//! Manifests as their authors see them: whole files in, whole reports out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use bundles::manifest::{Object, Source, read, sources};

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What is said about a file of `testdata`, under its bare name.
fn report(path: &str) -> String {
    let text = fs::read_to_string(here("testdata").join(path)).unwrap();
    let name = path.rsplit('/').next().unwrap().to_owned();
    let report = read(&[Source { name, text }]);
    let kinds: Vec<&str> = report.objects.iter().map(Object::kind).collect();
    let verdict = if report.is_ok(false) { "ok" } else { "not ok" };
    format!("{verdict}: {}\n\n{}", kinds.join(", "), report.render(false))
}

#[test]
fn the_examples_have_nothing_wrong_with_them() {
    let found = read(&sources(&[here("../examples")]).unwrap());
    assert_eq!(found.render(false), "");
    assert!(found.is_ok(true));
    let kinds: Vec<&str> = found.objects.iter().map(Object::kind).collect();
    assert!(kinds.contains(&"Deployment") && kinds.contains(&"Job"), "{kinds:?}");
}

#[test]
fn each_file_gets_the_report_that_its_author_needs() {
    let mut names: Vec<String> = fs::read_dir(here("testdata/yaml"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        insta::assert_snapshot!(name.clone(), report(&format!("yaml/{name}")));
    }
}
