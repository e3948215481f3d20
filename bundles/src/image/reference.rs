//! Names of images, read by Docker's rules (`github.com/distribution/reference`).
//!
//! `alpine` is `docker.io/library/alpine:latest`. A name says where an image may be found; whether
//! it is in the store or in a registry is asked of those.

use std::fmt;

use super::digest::Digest;

/// The name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {text:?}: {why}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

const DOCKER_HUB: &str = "docker.io";

impl Reference {
    /// Reads a name: `[registry[:port]/]repository[:tag][@digest]`.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        parse(text).map_err(|why| ReferenceError { text: text.chars().take(300).collect(), why })
    }

    /// The registry's host and, if it was written, port, as in `docker.io` and `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, as in `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither tag nor digest was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_ref().map(Digest::as_str)
    }

    /// The one text that all ways to write this name share.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.to_string()
    }

    /// The same repository by digest, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// What the store files an image under: a digest says all, so a tag beside it says nothing.
    pub(crate) fn key(&self) -> String {
        match &self.digest {
            Some(digest) => self.with_digest(digest).canonical(),
            None => self.canonical(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Reference::parse(text)
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("it is an image's id; write the image's name");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let digest = digest
        .map(|d| Digest::parse(d).map_err(|_| "after @ comes sha256: and 64 lower-case digits"))
        .transpose()?;
    let (name, tag) = split_tag(rest);
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err(
            "a tag is 1 to 128 letters, digits, _, . and -, and starts with none of . and -",
        );
    }
    let (registry, repository) = split_registry(name);
    if !is_registry(&registry) {
        return Err("the part before the first / is not a host name");
    }
    if repository.len() > 255 {
        return Err("the repository has more than 255 characters");
    }
    if !repository.split('/').all(is_component) {
        return Err(
            "a repository is words in lower case, joined by /, and within by one of . _ __ -",
        );
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    };
    Ok(Reference { registry, repository, tag, digest })
}

/// A colon after the last slash starts a tag; one before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Docker's rule: the first word is a host if it could not be a word of a repository on Docker Hub.
/// A host is the same in upper case (RFC 3986, 3.2.2): there is one spelling from here on, except of one
/// that is a host by its case alone.
fn split_registry(name: &str) -> (String, String) {
    if let Some((first, rest)) = name.split_once('/') {
        let lower = first.to_ascii_lowercase();
        let is_plainly = lower == "localhost" || lower.contains(['.', ':']);
        let host = if is_plainly { lower } else { first.to_owned() };
        let is_host = is_plainly || first.bytes().any(|b| b.is_ascii_uppercase());
        if is_host && host != DOCKER_HUB && host != "index.docker.io" {
            return (host, rest.to_owned());
        }
        let repository = if is_host { rest } else { name };
        if repository.contains('/') {
            return (DOCKER_HUB.to_owned(), repository.to_owned());
        }
        return (DOCKER_HUB.to_owned(), format!("library/{repository}"));
    }
    (DOCKER_HUB.to_owned(), format!("library/{name}"))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 253 && host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(word: &str) -> bool {
    let is_alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = word.split(is_alnum).filter(|s| !s.is_empty());
    word.starts_with(is_alnum)
        && word.ends_with(is_alnum)
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Reference::parse(text).unwrap_or_else(|e| panic!("{e}")).canonical()
    }

    #[test]
    fn short_names_are_on_docker_hub() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("docker.io/a/b", "docker.io/a/b:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest"),
        ] {
            assert_eq!(canonical(text), full);
        }
    }

    #[test]
    fn a_first_word_with_a_dot_a_colon_or_localhost_is_a_host() {
        for (text, full) in [
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:v1", "localhost:5000/a:v1"),
            ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest"),
            ("LocalHost/a", "localhost/a:latest"),
            ("Ghcr.IO/a", "ghcr.io/a:latest"),
            ("Docker.io/a", "docker.io/library/a:latest"),
        ] {
            assert_eq!(canonical(text), full);
        }
        assert_eq!(Reference::parse("localhost:5000/a").unwrap().registry(), "localhost:5000");
    }

    #[test]
    fn a_digest_stands_beside_a_tag_or_instead_of_it() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let both = Reference::parse(&format!("alpine:3@{digest}")).unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("3"), Some(digest.as_str())));
        let only = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!((only.tag(), only.digest()), (None, Some(digest.as_str())));
        assert_eq!(both.key(), only.key());
        assert_eq!(only.canonical(), format!("docker.io/library/alpine@{digest}"));
    }

    #[test]
    fn a_canonical_name_reads_as_itself() {
        for text in ["alpine", "localhost:5000/a:v1", "quay.io/a/b"] {
            assert_eq!(canonical(&canonical(text)), canonical(text));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = format!("a/{}", "r".repeat(255));
        let id = "ab".repeat(32);
        for text in [
            "",
            ":",
            "/",
            "a:",
            "a/",
            "/a",
            "Alpine",
            "a//b",
            "a b",
            "a:b c",
            "a@",
            "a@sha256:12",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:-t",
            "a:.t",
            "ho_st.x/a",
            "h:99999/a",
            "h:x/a",
            "../a",
            "a/../b",
            "a\n",
            "[::1/a",
            "a.b",
            "x.y:5000/",
            &long_tag,
            &long_name,
            &id,
        ] {
            // `a.b` without a slash is a repository on Docker Hub.
            assert_eq!(Reference::parse(text).is_ok(), text == "a.b", "{text:?}");
        }
    }
}
