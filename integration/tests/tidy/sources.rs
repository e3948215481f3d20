//! What every source file looks like, and what the heart must not touch.
//!
//! Works on text, line by line, with comments left out: it is a net for slips, not for tricks.

use crate::tree::{File, assert_none, files, rust_files};

/// The one folder that may hold unsafe code.
const UNSAFE_FOLDER: &str = "runtime/src/sys/";
const UNSAFE_MODULE: &str = "runtime/src/sys.rs";

/// What makes a result depend on more than its arguments. Hash order is random in each process.
const IMPURE: [&str; 14] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread_local!",
    "static mut",
];

fn is_source(file: &File) -> bool {
    file.path.contains("/src/")
}

/// The line without its comment. A `//` inside a string is taken for one too: good enough here.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether the word stands in the text on its own.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    let wrong: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| is_source(file) && !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    assert_none("files whose first line is no `//!` comment", &wrong);
}

#[test]
fn unsafe_code_lives_in_one_folder() {
    // Spelled in two parts, so that this file does not find itself.
    let keyword = concat!("un", "safe");
    let permission = concat!("un", "safe_code");
    let mut wrong = Vec::new();
    for file in rust_files() {
        if file.path.starts_with(UNSAFE_FOLDER) || file.path == UNSAFE_MODULE {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let outside_strings: String = code(line).split('"').step_by(2).collect();
            if has_word(&outside_strings, keyword) || has_word(&outside_strings, permission) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert_none(&format!("unsafe outside {UNSAFE_FOLDER}"), &wrong);
}

#[test]
fn no_file_speaks_of_one_developer_s_machine_or_names_a_package_registry() {
    let places = [concat!("/wo", "rk/"), concat!("../", "shared")];
    let hosts =
        [concat!("crates", ".io"), concat!("deb.deb", "ian.org"), concat!("proxy.golang", ".org")];
    let mut wrong = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            let place = places.iter().any(|place| begins_a_path(line, place));
            // The lock file says where each crate comes from.
            let host = file.path != "Cargo.lock" && hosts.iter().any(|host| line.contains(host));
            if place || host {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert_none("lines with names that mean nothing to a reader elsewhere", &wrong);
}

/// Whether a path that begins with `place` stands in the line; `a/b/c` holds `/b` but does not
/// begin with it.
fn begins_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.})>/".contains(c))
    })
}

#[test]
fn a_path_is_told_from_the_end_of_a_longer_one() {
    let place = concat!("/wo", "rk/");
    assert!(begins_a_path(&format!("see {place}notes"), place));
    assert!(begins_a_path(&format!("workdir={place}x"), place));
    assert!(!begins_a_path(&format!("overlay/1{place}x"), place));
    assert!(!begins_a_path(&format!("{{dir}}{place}x"), place));
}

/// A seed is an argument too: the simulator gives the same life for it on every machine.
#[test]
fn the_simulator_is_pure() {
    assert_pure("runtime/sim/src/");
}

#[test]
fn the_heart_is_pure() {
    assert_pure("runtime/plan/src/");
}

fn assert_pure(folder: &str) {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in rust_files().iter().filter(|file| file.path.starts_with(folder)) {
        seen += 1;
        // Unit tests at the end of a file may use what they like.
        let shipped = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        let shipped: String = shipped.lines().map(|line| format!("{}\n", code(line))).collect();
        for impure in impurities(&shipped) {
            wrong.push(format!("{}: {impure}", file.path));
        }
    }
    assert!(seen > 0, "found no file in {folder}");
    assert_none(&format!("{folder} reads more than its arguments"), &wrong);
}

/// The impure names that the text uses, `use std::{fs, net}` included.
fn impurities(text: &str) -> Vec<String> {
    let mut found: Vec<String> =
        IMPURE.iter().filter(|name| text.contains(*name)).map(|name| (*name).to_owned()).collect();
    let dense: String = text.split_whitespace().collect();
    for (at, opening) in dense.match_indices("std::{") {
        let group = dense[at + opening.len()..].split(';').next().unwrap_or_default();
        for part in group.split(['{', '}', ',']) {
            let name = format!("std::{}", part.split("::").next().unwrap_or_default());
            if IMPURE.contains(&name.as_str()) {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn impurity_is_seen_in_paths_and_in_groups() {
    assert_eq!(impurities("let t = std::time::SystemTime::now();"), ["SystemTime::now"]);
    assert_eq!(impurities("use std::{\n    collections::BTreeMap,\n    fs,\n};"), ["std::fs"]);
    assert_eq!(impurities("use std::{net::IpAddr, time::Duration};"), ["std::net"]);
    assert!(impurities("use std::{collections::BTreeMap, time::Duration};").is_empty());
}
