//! What documents and examples promise: links lead somewhere, every example is run by a test.

use crate::tree::{assert_none, files, root};

#[test]
fn every_link_in_a_document_leads_to_a_file() {
    let root = root();
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = root.join(&file.path).parent().expect("a file lies in a folder").to_path_buf();
        for link in links(&file.text) {
            if !folder.join(&link).exists() {
                wrong.push(format!("{}: {link}", file.path));
            }
        }
    }
    assert_none("links to what is not there", &wrong);
}

/// The files that a Markdown text links to: no addresses, no anchors, nothing in code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect();
        for rest in prose.split("](").skip(1) {
            let target = rest.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[test]
fn links_are_told_from_addresses_anchors_and_code() {
    let text = "[a](docs/a.md) [b](https://example.org/) [c](#c) [d](d.md#part)\n`[e](e.md)`\n```\n[f](f.md)\n```\n[g](g.md \"title\")";
    assert_eq!(links(text), ["docs/a.md", "d.md", "g.md"]);
}

#[test]
fn every_example_is_named_by_a_test() {
    let files = files();
    let tests: Vec<&str> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && file.text.contains("#[test]"))
        .map(|file| file.text.as_str())
        .collect();
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("examples/"))
        .filter(|name| !name.ends_with(".md") && !tests.iter().any(|test| test.contains(name)))
        .map(ToOwned::to_owned)
        .collect();
    assert_none("examples that no test names", &wrong);
}
