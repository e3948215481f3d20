//! Where manifests come from: files, directories, standard input.
//!
//! Only finds and reads; what the texts mean is [`super::yaml`]'s business. Called by the commands
//! that take `-f`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::printable;

/// The largest manifest that is read. The API server takes requests of 3 MiB at most, so a larger
/// file is a mistake (a log, an image), and is told instead of filling the memory.
pub const MAX_BYTES: u64 = 8 << 20;

/// One text to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given but for what is not printable, or `<stdin>`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Why the texts could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{name} cannot be read")]
    Read {
        /// The path as given, or `<stdin>`.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A directory cannot be listed.
    #[error("directory {name} cannot be listed")]
    List {
        /// The directory.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A directory has nothing to read.
    #[error(
        "directory {name} holds no *.yaml, *.yml or *.json file (directories below it are not looked at)"
    )]
    Empty {
        /// The directory.
        name: String,
    },
    /// More than [`MAX_BYTES`].
    #[error("{name} is larger than {} MiB, which no manifest is", MAX_BYTES >> 20)]
    TooLarge {
        /// The path as given, or `<stdin>`.
        name: String,
    },
    /// Not text.
    #[error("{name} is not UTF-8 text (byte {at}); manifests are YAML or JSON in UTF-8")]
    Encoding {
        /// The path as given, or `<stdin>`.
        name: String,
        /// The offset of the first byte that is not.
        at: usize,
    },
    /// `-` was given twice.
    #[error("standard input (-) can be read only once")]
    StdinTwice,
}

/// Reads what the paths name: files as they are, of a directory its `*.yaml`, `*.yml` and `*.json`
/// files in the order of their names (as `kubectl -f DIR` does, not recursive), `-` is standard
/// input.
///
/// # Errors
/// The first path that cannot be read.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, SourceError> {
    let mut found = Vec::new();
    let mut stdin_read = false;
    for path in paths {
        if path.as_os_str() == "-" {
            if stdin_read {
                return Err(SourceError::StdinTwice);
            }
            stdin_read = true;
            found.push(read_from(io::stdin().lock(), "<stdin>".into())?);
        } else if path.is_dir() {
            for file in manifests_of(path)? {
                found.push(read_file(&file)?);
            }
        } else {
            found.push(read_file(path)?);
        }
    }
    Ok(found)
}

fn manifests_of(dir: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let name = printable(&dir.display().to_string());
    let list = |source| SourceError::List { name: name.clone(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let wanted = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if wanted && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(SourceError::Empty { name });
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Source, SourceError> {
    let name = printable(&path.display().to_string());
    match fs::File::open(path) {
        Ok(file) => read_from(file, name),
        Err(source) => Err(SourceError::Read { name, source }),
    }
}

fn read_from(reader: impl Read, name: String) -> Result<Source, SourceError> {
    let mut bytes = Vec::new();
    if let Err(source) = reader.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
        return Err(SourceError::Read { name, source });
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SourceError::TooLarge { name });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(e) => Err(SourceError::Encoding { name, at: e.utf8_error().valid_up_to() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_manifests_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "README.md", "d.yaml.orig"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("below.yaml")).unwrap();
        let found = sources(&[dir.path().into()]).unwrap();
        let texts: Vec<_> = found.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(texts, ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(found[0].name, dir.path().join("a.yaml").display().to_string());
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = |path: &Path| sources(&[path.into()]).unwrap_err().to_string();
        assert!(told(dir.path()).contains("holds no *.yaml"));

        let binary = dir.path().join("binary.yaml");
        fs::write(&binary, b"kind: \xff").unwrap();
        assert!(told(&binary).contains("not UTF-8 text (byte 6)"));

        let large = dir.path().join("large.yaml");
        fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(told(&large).contains("larger than 8 MiB"));

        assert!(told(&dir.path().join("missing.yaml")).contains("missing.yaml cannot be read"));
    }
}
