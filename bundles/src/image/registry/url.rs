//! Addresses of HTTP, as far as a registry's answers need them: parts, joining, escaping.
//!
//! Not a full reader of URLs. What is odd (a user's name in it, another scheme) is no address.

use std::fmt;

/// `http://` or `https://`, a host with its port if it is written, and a path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    tls: bool,
    host: String,
    /// Begins with a slash.
    path: String,
}

impl Url {
    pub(super) fn new(tls: bool, host: &str, path: &str) -> Url {
        Url { tls, host: host.to_owned(), path: path.to_owned() }
    }

    /// Reads a whole address.
    pub(super) fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let is_odd = |c: char| c.is_ascii_control() || c.is_whitespace();
        if host.is_empty() || host.contains(['@', '\\']) || text.contains(is_odd) {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Url::new(tls, &host.to_ascii_lowercase(), &format!("{slash}{path}")))
    }

    /// The address that `text` means when it is found at this one (RFC 3986, section 5, without
    /// dot segments).
    pub(super) fn join(&self, text: &str) -> Option<Url> {
        if let Some(rest) = text.strip_prefix("//") {
            let scheme = if self.tls { "https" } else { "http" };
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        if text.contains("://") && !text.starts_with(['/', '?']) {
            return Url::parse(text);
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let joined = match text.chars().next() {
            Some('/') => text.to_owned(),
            Some('?') => format!("{path}{text}"),
            _ => format!("{}/{text}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        let scheme = if self.tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}{joined}", self.host))
    }

    /// Whether it is `https`.
    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host and port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What must be the same for a secret to be told again.
    pub(super) fn origin(&self) -> (bool, &str) {
        (self.tls, &self.host)
    }

    /// The same with more in its query.
    pub(super) fn with_query(&self, pairs: &[(&str, &str)]) -> Url {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{mark}{}", self.path, form(pairs)), ..self.clone() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.path)
    }
}

/// `a=b&c=d`, escaped.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
    pairs.join("&")
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_browsers_do() {
        let at = Url::parse("https://r.example:5000/v2/a/blobs/1?x=y").unwrap();
        for (text, whole) in [
            ("/other", "https://r.example:5000/other"),
            ("2", "https://r.example:5000/v2/a/blobs/2"),
            ("?z", "https://r.example:5000/v2/a/blobs/1?z"),
            ("//s.example/x", "https://s.example/x"),
            ("http://S.example/x?sig=http://y", "http://s.example/x?sig=http://y"),
            ("https://s.example", "https://s.example/"),
            ("/x?next=https://y/", "https://r.example:5000/x?next=https://y/"),
        ] {
            assert_eq!(at.join(text).unwrap().to_string(), whole, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_registry_is_none() {
        for text in ["ftp://a/", "https://", "https://user:pass@a/", "https://a b/", "https:\\\\a"]
        {
            assert_eq!(Url::parse(text), None, "{text}");
        }
        let at = Url::parse("https://a/").unwrap();
        assert_eq!(at.join("file:///etc/passwd"), None);
        assert_eq!(at.join("https://evil@a/"), None);
    }

    #[test]
    fn a_query_is_escaped() {
        let at = Url::parse("https://a/token?x=1").unwrap();
        let asked = at.with_query(&[("scope", "repository:a/b:pull"), ("service", "a b&c")]);
        let expected = "https://a/token?x=1&scope=repository%3Aa%2Fb%3Apull&service=a%20b%26c";
        assert_eq!(asked.to_string(), expected);
    }
}
