//! The checkout as a list of text files: what the other pages read.

use std::fs;
use std::path::{Path, PathBuf};

/// The checkout's own folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration lies in the checkout")
        .to_path_buf()
}

/// A text file of the checkout.
pub struct File {
    /// Relative to the checkout, with slashes.
    pub path: String,
    pub text: String,
}

/// All text files, in the order of their paths. What was built, what git keeps and hidden folders other
/// than `.ci` and `.github` are no part of the tree.
pub fn files() -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    assert!(
        found.iter().any(|file| file.path == "Cargo.toml"),
        "the walk did not find the checkout"
    );
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The Rust files, in the same order.
pub fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<File>) {
    for entry in fs::read_dir(dir).expect("read a folder of the checkout") {
        let entry = entry.expect("read a folder of the checkout");
        let name = entry.file_name().into_string().expect("names in the checkout are UTF-8");
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().expect("the type of a file of the checkout");
        if kind.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci" && name != ".github";
            if !hidden && path != "target" {
                walk(&entry.path(), &path, found);
            }
        } else if name == ".git" {
            // A worktree's is a file that names a folder of this machine.
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            found.push(File { path, text });
        }
    }
}

/// Fails with one line for each thing that is wrong, so that all are seen at once.
#[track_caller]
pub fn assert_none(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}
