//! Manifests of people who mean harm, and of programs that went wrong.
//!
//! Whatever the text: reading it ends soon, without a panic, with a report that points into the text,
//! that a person can read, and that says nothing to the terminal behind their back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mutated;
mod shapes;

use std::time::{Duration, Instant};

use bundles::manifest::{Object, Problem, Report, Source, read};

/// Debug builds on a busy machine. What grows with the square of the text takes minutes or hours.
const PATIENCE: Duration = Duration::from_secs(20);
/// Two kinds of complaints, fifty shown of each, with the lines they are about.
const MAX_REPORT: usize = 256 << 10;

/// Reads a text, and looks whether all that is promised of a report holds of this one.
fn report(text: &str) -> Report {
    let started = Instant::now();
    let report = read(&[Source { name: "hostile.yaml".into(), text: text.into() }]);
    let rendered = report.render(false);
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    assert!(rendered.len() <= MAX_REPORT, "a report of {} bytes", rendered.len());
    is_printable(&rendered);
    assert_eq!(rendered.is_empty(), report.is_ok(true));
    only_colours(&report.render(true));
    for problem in report.problems.iter().chain(&report.warnings).take(100) {
        is_within(problem, text);
        let line = problem.to_string();
        is_printable(&line);
        assert!(!line.contains('\n'), "{line:?}");
    }
    report
}

fn is_printable(text: &str) {
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{text:?}");
}

/// Escape sequences are the renderer's own, which set colours and nothing else.
fn only_colours(text: &str) {
    let mut pieces = text.split('\u{1b}');
    is_printable(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find('m').unwrap_or_else(|| panic!("{piece:?}"));
        let arguments = piece[..end].strip_prefix('[').unwrap_or_else(|| panic!("{piece:?}"));
        assert!(arguments.chars().all(|c| c.is_ascii_digit() || c == ';'), "{piece:?}");
        is_printable(&piece[end..]);
    }
}

/// The place is one that an editor can go to.
fn is_within(problem: &Problem, text: &str) {
    let line = text.split('\n').nth(problem.line() - 1);
    let Some(line) = line else { panic!("no line {} in {text:?}", problem.line()) };
    let columns = line.chars().count() + 1;
    assert!((1..=columns).contains(&problem.column()), "{problem} in {line:?}");
}

/// The object as it would be written to a file, which must read as the same object.
fn survives(object: &Object) {
    let value = match object {
        Object::Pod(pod) => serde_json::to_value(pod),
        Object::Deployment(deployment) => serde_json::to_value(deployment),
        Object::Job(job) => serde_json::to_value(job),
    };
    let text = bundles::yaml::to_string(&value.unwrap()).unwrap();
    let again = report(&text);
    assert!(again.is_ok(false), "{}\n{text}", again.render(false));
    assert_eq!(again.objects, std::slice::from_ref(object), "{text}");
}
