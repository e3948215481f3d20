//! Stories: a pod, what happens to it, and what the heart answers.
//!
//! Each file in `tests/stories` begins with the sentence that it shows; `sim::play` says how it is read.
//! The answers are compared, and every step is checked as in a simulated life.
//!
//! `PODSHIM_WRITE_STORIES=1` writes the answers into the files instead; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken story is to stop the test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

#[test]
fn every_story_happens_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut wrong = String::new();
    let mut count = 0;
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let told = fs::read_to_string(&path).unwrap();
        let played =
            sim::play(&told, None, None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        count += 1;
        if let Some(broken) = played.broken {
            writeln!(wrong, "{}: a promise is broken: {}", path.display(), broken.0).unwrap();
        }
        if std::env::var_os("PODSHIM_WRITE_STORIES").is_some() {
            fs::write(&path, played.text).unwrap();
        } else if told != played.text {
            let difference = difference(&told, &played.text);
            writeln!(wrong, "{}:\n{difference}", path.display()).unwrap();
        }
    }
    assert!(count > 0, "no stories in {}", folder.display());
    assert!(wrong.is_empty(), "{wrong}");
}

fn difference(told: &str, happened: &str) -> String {
    let (told, happened): (Vec<_>, Vec<_>) = (told.lines().collect(), happened.lines().collect());
    let first = told.iter().zip(&happened).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], from: usize| {
        lines.iter().skip(from).take(8).map(|l| format!("  {l}\n")).collect::<String>()
    };
    format!(
        "after line {first}\n{}told:\n{}happened:\n{}",
        part(&told, first.saturating_sub(2)).lines().take(2).collect::<Vec<_>>().join("\n") + "\n",
        part(&told, first),
        part(&happened, first)
    )
}
