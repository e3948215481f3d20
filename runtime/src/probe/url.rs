//! URLs as a kubelet makes them of a manifest's path, and as Go's client follows them: what is escaped
//! and what is sent as it is written (Go: `net/url`; pkg/probe/http/request.go, `formatURL`).
//!
//! A library of the browsers' standard would send other bytes: that standard cleans paths up.

use std::fmt;

use super::words::quote;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// The scheme is `https`, otherwise `http`.
    pub https: bool,
    /// The host and perhaps a port, as they stand in the URL.
    pub host: String,
    /// Escaped; begins with a slash or is empty.
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

/// The parts of a text, each as it is written but for the path, which is escaped.
#[derive(Debug)]
struct Reference<'a> {
    scheme: Option<String>,
    authority: Option<&'a str>,
    path: String,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
    /// `mailto:somebody`
    is_opaque: bool,
}

/// Why there is no URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It does not parse.
    Malformed(String),
    /// It parses and leads nowhere, as the text says.
    Nowhere(String),
}

impl Url {
    /// The URL of a check. The path may be anything: what does not parse is taken literally.
    pub fn of_check(https: bool, host: &str, port: u16, path: &str) -> Result<Self, Wrong> {
        let scheme = if https { "https" } else { "http" };
        let reference = Reference::parse(path).unwrap_or_else(|_| Reference::literal(path));
        if reference.is_opaque {
            let text = format!("{scheme}:{}", reference.path);
            let why = "http: no Host in request URL";
            return Err(Wrong::Nowhere(format!("Get {}: {why}", quote(text.as_bytes()))));
        }
        let host = if host.contains(':') {
            // A zone begins with a percent sign, which must be escaped here.
            format!("[{}]:{port}", host.replace('%', "%25"))
        } else {
            format!("{host}:{port}")
        };
        let url = Self {
            https,
            host,
            path: absolute(reference.path),
            query: reference.query.map(str::to_owned),
            fragment: reference.fragment.map(str::to_owned),
        };
        match split_host(&url.host) {
            Ok(_) => Ok(url),
            Err(why) => {
                Err(Wrong::Malformed(format!("parse {}: {why}", quote(url.to_string().as_bytes()))))
            }
        }
    }

    /// Where `location` leads from here.
    pub fn join(&self, location: &str) -> Result<Self, Wrong> {
        let malformed = |why: String| {
            let location = quote(location.as_bytes());
            let text = format!("failed to parse Location header {location}: parse {location}");
            Wrong::Malformed(format!("{text}: {why}"))
        };
        let reference = Reference::parse(location).map_err(malformed)?;
        let https = match reference.scheme.as_deref() {
            None => self.https,
            Some("http") => false,
            Some("https") => true,
            Some(other) => {
                let why = format!("unsupported protocol scheme {}", quote(other.as_bytes()));
                return Err(Wrong::Nowhere(format!("Get {}: {why}", quote(location.as_bytes()))));
            }
        };
        let mut url = Self {
            https,
            host: self.host.clone(),
            path: String::new(),
            query: reference.query.map(str::to_owned),
            fragment: reference.fragment.map(str::to_owned),
        };
        match reference.authority {
            Some(authority) => {
                // A user and a password, which Go would send, are left out.
                let host = authority.rsplit('@').next().unwrap_or_default();
                split_host(host).map_err(malformed)?;
                url.host = host.to_owned();
                url.path = resolve("", &reference.path);
            }
            None if reference.scheme.is_some() => {
                let why = "http: no Host in request URL";
                return Err(Wrong::Nowhere(format!("Get {}: {why}", quote(location.as_bytes()))));
            }
            None if reference.path.is_empty() => {
                url.path.clone_from(&self.path);
                if reference.query.is_none() {
                    url.query.clone_from(&self.query);
                }
            }
            None => url.path = resolve(&self.path, &reference.path),
        }
        Ok(url)
    }

    /// Whether a location has a scheme, and so says all that there is to say.
    pub fn is_absolute(location: &str) -> bool {
        matches!(scheme(location), Ok((Some(_), _)))
    }

    /// The name or address to connect to, without brackets.
    pub fn host_name(&self) -> String {
        split_host(&self.host).map(|(name, _)| name.replace("%25", "%")).unwrap_or_default()
    }

    /// The port that is written, or the scheme's.
    pub fn port(&self) -> u16 {
        let written = split_host(&self.host).ok().and_then(|(_, port)| port);
        written.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// What stands in the first line of a request.
    pub fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.https { "s" } else { "" }, self.host, self.path)?;
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        if let Some(fragment) = &self.fragment {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let (text, fragment) = cut(text, '#');
        if text.bytes().any(|b| b.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".into());
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = cut(rest, '?');
        let mut reference = Self {
            scheme,
            authority: None,
            path: String::new(),
            query,
            fragment,
            is_opaque: false,
        };
        let path = if let Some(after) = rest.strip_prefix("//") {
            let end = after.find('/').unwrap_or(after.len());
            reference.authority = Some(&after[..end]);
            &after[end..]
        } else if reference.scheme.is_some() && !rest.is_empty() && !rest.starts_with('/') {
            reference.is_opaque = true;
            rest
        } else {
            let (segment, _) = cut(rest, '/');
            if reference.scheme.is_none() && segment.contains(':') {
                return Err("first path segment in URL cannot contain colon".into());
            }
            rest
        };
        reference.path = escaped(path)?;
        Ok(reference)
    }

    fn literal(path: &str) -> Self {
        let path = escape(path.as_bytes());
        let (scheme, authority, query, fragment) = (None, None, None, None);
        Self { scheme, authority, path, query, fragment, is_opaque: false }
    }
}

/// The text before a character, and that after it if it is there.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The scheme in lower case, if there is one, and the rest.
fn scheme(text: &str) -> Result<(Option<String>, &str), String> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match text.split_once(':') {
        Some(("", _)) => Err("missing protocol scheme".into()),
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(is_inside) =>
        {
            Ok((Some(scheme.to_ascii_lowercase()), rest))
        }
        _ => Ok((None, text)),
    }
}

/// The host without brackets, and the port.
fn split_host(host: &str) -> Result<(&str, Option<u16>), String> {
    let (name, port) = if let Some(after) = host.strip_prefix('[') {
        let (name, port) = after.split_once(']').ok_or("missing ']' in host")?;
        if !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '%' | '_' | '-'))
        {
            return Err("invalid host".into());
        }
        (name, port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        let is_wrong = |c: char| c.is_ascii_control() || " \"#%/<>?@[\\]^`{|}".contains(c);
        if let Some(wrong) = name.chars().find(|c| is_wrong(*c)) {
            let wrong = quote(wrong.to_string().as_bytes());
            return Err(format!("invalid character {wrong} in host name"));
        }
        (name, port)
    };
    let invalid = || format!("invalid port {} after host", quote(port.as_bytes()));
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((name, None)),
        Some("") => Ok((name, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((name, Some(digits.parse().map_err(|_| invalid())?)))
        }
        _ => Err(invalid()),
    }
}

/// A path as it is sent: as it is written if every byte may stand there, else escaped anew.
fn escaped(path: &str) -> Result<String, String> {
    let plain = unescape(path)?;
    let may_stand = |b: u8| is_plain(b) || b"!'()*[]%".contains(&b);
    Ok(if path.bytes().all(may_stand) { path.to_owned() } else { escape(&plain) })
}

fn unescape(path: &str) -> Result<Vec<u8>, String> {
    let bytes = path.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            plain.push(bytes[at]);
            at += 1;
            continue;
        }
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            let wrong = &bytes[at..bytes.len().min(at + 3)];
            return Err(format!("invalid URL escape {}", quote(wrong)));
        };
        plain.extend(u8::try_from(16 * high + low));
        at += 3;
    }
    Ok(plain)
}

/// What Go leaves as it is in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn absolute(path: String) -> String {
    if path.is_empty() || path.starts_with('/') { path } else { format!("/{path}") }
}

/// A path seen from another, without `.` and `..` (RFC 3986, 5.2.4).
fn resolve(base: &str, path: &str) -> String {
    let full = if path.starts_with('/') || path.is_empty() {
        path.to_owned()
    } else {
        let folder = base.rfind('/').map_or("", |slash| &base[..slash]);
        format!("{folder}/{path}")
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = full.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    if kept.is_empty() { full } else { format!("/{}", kept.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's client sent and said for these paths.
    #[test]
    fn a_path_is_sent_as_a_kubelet_sends_it() {
        for (path, target) in [
            ("/", "/"),
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?a=b&c", "/healthz?a=b&c"),
            ("?x", "/?x"),
            ("/x?", "/x?"),
            ("/a b?x=y z&q=%41#frag", "/a%20b?x=y z&q=%41"),
            ("/a b/\u{fc}?x=y", "/a%20b/%C3%BC?x=y"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2Fb%zz", "/a%252Fb%25zz"),
            (
                "/a%2Fb%41[]{}|\\^`\"<>~!$&'()*+,;=:@",
                "/a/bA%5B%5D%7B%7D%7C%5C%5E%60%22%3C%3E~%21$&%27%28%29%2A+,;=:@",
            ),
            ("http://example.com/foo?bar", "/foo?bar"),
            ("//foo/bar", "/bar"),
            ("1a:b", "/1a:b"),
            ("*", "/*"),
            ("/a\u{1}b?c", "/a%01b%3Fc"),
        ] {
            let url = Url::of_check(false, "10.0.0.2", 80, path).expect(path);
            assert_eq!(url.target(), target, "{path}");
        }
        let nowhere = Wrong::Nowhere("Get \"http:foo\": http: no Host in request URL".into());
        assert_eq!(Url::of_check(false, "10.0.0.2", 80, "mailto:foo"), Err(nowhere));
    }

    #[test]
    fn a_url_is_written_as_in_go() {
        for (host, path, text) in [
            ("10.0.0.2", "/", "http://10.0.0.2:80/"),
            ("fd00::1", "/x?y#z", "http://[fd00::1]:80/x?y#z"),
            ("fe80::1%lo", "", "http://[fe80::1%25lo]:80"),
            ("name", "x", "http://name:80/x"),
        ] {
            let url = Url::of_check(false, host, 80, path).expect(host);
            assert_eq!(url.to_string(), text);
            assert_eq!((url.host_name().as_str(), url.port()), (host, 80));
        }
        for host in ["a b", "[::1]", "a/b", "a%b", "u@h"] {
            assert!(
                matches!(Url::of_check(true, host, 80, "/"), Err(Wrong::Malformed(_))),
                "{host}"
            );
        }
    }

    #[test]
    fn a_redirect_leads_where_go_goes() {
        let from = Url::of_check(false, "h", 81, "/a/b?x=1").expect("a URL");
        for (location, to) in [
            ("c/d?y", "http://h:81/a/c/d?y"),
            ("/c/../d/./e/..", "http://h:81/d/"),
            ("../../..", "http://h:81/"),
            ("?z", "http://h:81/a/b?z"),
            ("", "http://h:81/a/b?x=1"),
            ("#f", "http://h:81/a/b?x=1#f"),
            ("//u:p@h:82/zz", "http://h:82/zz"),
            ("HTTPS://h", "https://h"),
            ("http://[::1]:9/ \u{fc}", "http://[::1]:9/%20%C3%BC"),
        ] {
            assert_eq!(from.join(location).map(|url| url.to_string()), Ok(to.into()), "{location}");
        }
        let https = from.join("https://h").expect("a URL");
        assert_eq!((https.port(), https.target().as_str()), (443, "/"));
        for (location, text) in [
            (
                "http://[::1/",
                "failed to parse Location header \"http://[::1/\": parse \"http://[::1/\": missing ']' in host",
            ),
            ("ftp://h/x", "Get \"ftp://h/x\": unsupported protocol scheme \"ftp\""),
            (
                "http://h:x/",
                "failed to parse Location header \"http://h:x/\": parse \"http://h:x/\": invalid port \":x\" after host",
            ),
            (
                "http://h:99999/",
                "failed to parse Location header \"http://h:99999/\": parse \"http://h:99999/\": invalid port \":99999\" after host",
            ),
        ] {
            let (Wrong::Malformed(said) | Wrong::Nowhere(said)) =
                from.join(location).expect_err(location);
            assert_eq!(said, text);
        }
    }
}
