//! From where images come instead: containers' `registries.conf` (version 2, its manual page is
//! containers-registries.conf(5)), as podman, skopeo and CRI-O read it.
//!
//! Taken: `[[registry]]` with `prefix`, `location`, `insecure`, `blocked`, `mirror-by-digest-only` and
//! mirrors with `location`, `insecure` and `pull-from-mirror`. Not taken: search lists and aliases for
//! short names, which are Docker Hub's here whatever a host says, so that a manifest means the same
//! everywhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::image::Reference;

/// Why `registries.conf` is not followed. Nothing is pulled then: what it says may forbid it.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// A file or directory cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no TOML, or its fields are not what they should be.
    #[error("{}, line {line}: {message}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file is of the format that was replaced in 2019.
    #[error(
        "{}: [registries.insecure] and [registries.block] are version 1 of this file and not \
         supported; write [[registry]] tables", path.display()
    )]
    Version1 {
        /// Which.
        path: PathBuf,
    },
    /// A registry has no name.
    #[error("{}: a [[registry]] has neither prefix nor location", path.display())]
    Nameless {
        /// Which.
        path: PathBuf,
    },
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// By prefix.
    rules: BTreeMap<String, Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
    /// The file that says so.
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: From,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum From {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<Rule>,
    registries: Option<Version1>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port.
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) insecure: bool,
}

/// Where an image may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// In this order.
    At(Vec<Place>),
    /// Nowhere, says this file.
    Blocked(PathBuf),
}

impl Places {
    /// Reads the files of the user whose environment `variable` gives: their own or the system's,
    /// and then those of the directories beside both.
    ///
    /// # Errors
    /// [`PlacesError`].
    pub fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Places, PlacesError> {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let system = PathBuf::from("/etc/containers");
        let config = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
        let own = config.map(|config| config.join("containers"));
        let main = path("CONTAINERS_REGISTRIES_CONF")
            .or_else(|| own.as_ref().map(|dir| dir.join(FILE)).filter(|file| file.exists()))
            .unwrap_or_else(|| system.join(FILE));
        let dirs = [Some(system), own].into_iter().flatten().map(|dir| dir.join(DIRECTORY));
        Places::read(&main, &dirs.collect::<Vec<_>>())
    }

    /// Reads one file and all of the directories' `*.conf`; none of them has to be there. What is
    /// read later replaces what has the same prefix.
    ///
    /// # Errors
    /// [`PlacesError`].
    pub fn read(file: &Path, dirs: &[PathBuf]) -> Result<Places, PlacesError> {
        let mut places = Places::default();
        places.add(file)?;
        for dir in dirs {
            let failed = |source| PlacesError::Read { path: dir.clone(), source };
            let entries = match fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(e) if is_absent(&e) => continue,
                Err(source) => return Err(failed(source)),
            };
            let paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
            let mut paths = paths.map_err(failed)?;
            paths.retain(|path| path.extension().is_some_and(|e| e == "conf"));
            paths.sort();
            paths.iter().try_for_each(|path| places.add(path))?;
        }
        Ok(places)
    }

    fn add(&mut self, path: &Path) -> Result<(), PlacesError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if is_absent(&e) => return Ok(()),
            Err(source) => return Err(PlacesError::Read { path: path.to_owned(), source }),
        };
        let document: Document = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = error.message().replace('\n', ": ");
            PlacesError::Format { path: path.to_owned(), line, message }
        })?;
        let old = document.registries.unwrap_or_default();
        if !old.insecure.registries.is_empty() || !old.block.registries.is_empty() {
            return Err(PlacesError::Version1 { path: path.to_owned() });
        }
        for rule in document.registry {
            let prefix = rule.prefix.as_ref().or(rule.location.as_ref());
            let prefix = prefix.map(|p| p.trim_end_matches('/').to_owned());
            let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) else {
                return Err(PlacesError::Nameless { path: path.to_owned() });
            };
            self.rules.insert(compared(&prefix), Rule { path: path.to_owned(), ..rule });
        }
        Ok(())
    }

    /// Where `reference` may come from.
    pub(super) fn find(&self, reference: &Reference) -> Where {
        let own = format!("{}/{}", reference.registry(), reference.repository());
        let name = compared(&own);
        let own = || place(&own, false);
        let matching = self.rules.iter().filter_map(|(prefix, rule)| {
            let whole = compared(&reference.to_string());
            // A prefix may also name one image, with its tag.
            let length = matched(&name, prefix).or((whole == *prefix).then_some(name.len()))?;
            Some((prefix.len(), length, rule))
        });
        // Of two that match the longer one counts.
        let Some((_, length, rule)) = matching.max_by_key(|(prefix, ..)| *prefix) else {
            return Where::At(vec![own()]);
        };
        if rule.blocked {
            return Where::Blocked(rule.path.clone());
        }
        let moved = |location: &str, insecure| {
            place(&format!("{}{}", location.trim_end_matches('/'), &name[length..]), insecure)
        };
        let mirrors = rule.mirror.iter().filter(|mirror| {
            let from = match mirror.pull_from_mirror {
                From::All if rule.mirror_by_digest_only => From::DigestOnly,
                from => from,
            };
            match from {
                From::All => true,
                From::DigestOnly => reference.digest().is_some(),
                From::TagOnly => reference.digest().is_none(),
            }
        });
        let mut all: Vec<Place> =
            mirrors.map(|mirror| moved(&mirror.location, mirror.insecure)).collect();
        all.push(match rule.location.as_deref().filter(|location| !location.is_empty()) {
            Some(location) => moved(location, rule.insecure),
            None => Place { insecure: rule.insecure, ..own() },
        });
        Where::At(all)
    }
}

const FILE: &str = "registries.conf";
const DIRECTORY: &str = "registries.conf.d";

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A name or prefix as it is compared: its host in lower case and without the port that is meant
/// anyway. Who blocks a registry blocks all its spellings.
fn compared(name: &str) -> String {
    let (host, path) = name.split_at(name.find('/').unwrap_or(name.len()));
    let host = host.to_ascii_lowercase();
    format!("{}{path}", host.strip_suffix(":443").unwrap_or(&host))
}

/// How much of `name` a prefix matches: whole words, or the host by its parent domain.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = name.split('/').next().unwrap_or_default();
        let (domain, path) = domain.split_once('/').map_or((domain, ""), |(d, path)| (d, path));
        let is_below = host.strip_suffix(domain).is_some_and(|start| start.len() > 1)
            && host.ends_with(&format!(".{domain}"));
        let rest = name[host.len()..].trim_start_matches('/');
        let is_path = path.is_empty() || matched(rest, path).is_some();
        let length = if path.is_empty() { host.len() } else { host.len() + 1 + path.len() };
        return (is_below && is_path).then_some(length);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn place(name: &str, insecure: bool) -> Place {
    let (host, repository) = name.split_once('/').unwrap_or((name, ""));
    Place { host: host.to_owned(), repository: repository.to_owned(), insecure }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
