//! The header of a request: a kubelet's own fields, and those of the manifest (Kubernetes:
//! pkg/probe/http/request.go), in the order in which Go's client writes them.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::url::Url;
use super::words::quote;
use super::{HttpCheck, KUBERNETES_VERSION, Purpose};

/// Fields that the client itself decides on; what a manifest says of them is not sent.
const OWN: [&str; 5] = ["Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer"];
/// Fields that belong to a connection of HTTP/1.1, which HTTP/2 does not allow.
const OF_CONNECTION: [&str; 5] = ["Connection", "Keep-Alive", "Proxy-Connection", "Te", "Upgrade"];

/// The header, but for what depends on where the request goes.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// By their names in Go's spelling. Go writes them in this order too.
    fields: BTreeMap<String, Vec<String>>,
    /// Whether the manifest gives a `Referer`.
    has_referer: bool,
}

impl Header {
    pub fn of(check: &HttpCheck) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &check.headers {
            fields.entry(canonical(name)).or_default().push(value.clone());
        }
        fields.entry("User-Agent".into()).or_insert_with(|| vec![user_agent(check.purpose)]);
        let accept = fields.entry("Accept".into()).or_insert_with(|| vec!["*/*".into()]);
        if accept.first().is_some_and(String::is_empty) {
            fields.remove("Accept");
        }
        let has_referer = fields.contains_key("Referer");
        Self { fields, has_referer }
    }

    /// The first value of a field, if it is not empty.
    fn first(&self, name: &str) -> Option<&str> {
        let first = self.fields.get(name)?.first()?;
        (!first.is_empty()).then_some(first)
    }

    /// What a hook no longer says when it goes on without TLS.
    pub fn remove_authorization(&mut self) {
        self.fields.remove("Authorization");
    }

    /// Says from where a redirect came, unless the manifest says something else. That of an HTTPS page is
    /// not told in the open.
    pub fn refer(&mut self, from: &Url, to: &Url) {
        if self.has_referer {
            return;
        }
        self.fields.remove("Referer");
        if to.https || !from.https {
            self.fields.insert("Referer".into(), vec![from.to_string()]);
        }
    }

    /// The manifest's `Host`.
    pub fn host(&self) -> Option<&str> {
        self.first("Host")
    }

    /// Every field to be sent, checked.
    ///
    /// # Errors
    /// The text about a name or value that HTTP does not know.
    fn sent(&self) -> Result<Vec<(&str, HeaderValue)>, String> {
        let agent = self.first("User-Agent").map(|agent| ("User-Agent", agent));
        let others = self.fields.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| (name.as_str(), value.as_str()))
        });
        let mut sent = Vec::new();
        for (name, value) in agent.into_iter().chain(others.filter(|(name, _)| !OWN.contains(name)))
        {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                let name = quote(name.as_bytes());
                return Err(format!("net/http: invalid header field name {name}"));
            }
            let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
                .map_err(|_| {
                    format!("net/http: invalid header field value for {}", quote(name.as_bytes()))
                })?;
            sent.push((name, value));
        }
        Ok(sent)
    }

    /// The request as HTTP/1.1 has it.
    ///
    /// # Errors
    /// The text about a field that cannot be sent.
    pub fn http1(&self, url: &Url, host: &str) -> Result<Vec<u8>, String> {
        let mut text = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n", url.target()).into_bytes();
        let mut closes = false;
        for (name, value) in self.sent()? {
            closes |= name == "Connection" && value.as_bytes().eq_ignore_ascii_case(b"close");
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(if closes { b"\r\n" } else { b"Connection: close\r\n\r\n" });
        Ok(text)
    }

    /// The request as HTTP/2 has it.
    ///
    /// # Errors
    /// The text about a field that cannot be sent.
    pub fn http2(&self, url: &Url, host: &str) -> Result<http::Request<()>, String> {
        // HTTP/1.1 takes a query with a space in it; this does not.
        let target = url.target().replace(' ', "%20");
        let uri = http::Uri::builder().scheme("https").authority(host).path_and_query(target);
        let mut request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .uri(uri.build().map_err(|e| format!("http2: {e}"))?);
        for (name, value) in self.sent()? {
            if !OF_CONNECTION.contains(&name) {
                request = request.header(name, value);
            }
        }
        request.body(()).map_err(|e| format!("http2: {e}"))
    }
}

/// `kube-probe/1.37`
pub(super) fn user_agent(purpose: Purpose) -> String {
    let what = match purpose {
        Purpose::Probe => "probe",
        Purpose::Hook => "lifecycle",
    };
    format!("kube-{what}/{KUBERNETES_VERSION}")
}

/// What is said to be asked for: the manifest's host, or the URL's. Go sends an empty one for what no
/// host can look like.
///
/// # Errors
/// Go would translate other than ASCII; that is left out.
pub(super) fn host_field(written: Option<&str>, url: &Url) -> Result<String, String> {
    let host = written.unwrap_or(&url.host);
    if !host.is_ascii() {
        return Err("http: invalid Host header".into());
    }
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&b);
    if !host.bytes().all(may_stand) {
        return Ok(String::new());
    }
    // The zone of an address means something on this machine only.
    Ok(match (host.find('%'), host.find(']')) {
        (Some(zone), Some(end)) if host.starts_with('[') && zone < end => {
            format!("{}{}", &host[..zone], &host[end..])
        }
        _ => host.to_owned(),
    })
}

/// `X-Forwarded-For` for `x-forwarded-for` (Go: `textproto.CanonicalMIMEHeaderKey`).
fn canonical(name: &str) -> String {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return name.to_owned();
    }
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(purpose: Purpose, headers: &[(&str, &str)]) -> Result<String, String> {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let (host, path) = ("10.0.0.2".to_owned(), "/".to_owned());
        let check = HttpCheck { https: false, host, port: 80, path, headers, purpose };
        let url = Url::of_check(false, &check.host, 80, &check.path).expect("a URL");
        let header = Header::of(&check);
        let text = header.http1(&url, &host_field(header.host(), &url)?)?;
        let text = String::from_utf8(text).expect("text");
        let begin = "GET / HTTP/1.1\r\nHost: ";
        let rest = text.strip_prefix(begin).and_then(|text| text.strip_suffix("\r\n\r\n"));
        Ok(rest.expect(&text).replace("\r\n", "|"))
    }

    /// What Go's client sent for these headers.
    #[test]
    fn a_header_is_sent_as_a_kubelet_sends_it() {
        let own = "10.0.0.2:80|User-Agent: kube-probe/1.37|Accept: */*|Connection: close";
        for (headers, text) in [
            (&[][..], own),
            (
                &[
                    ("x-foo", "1"),
                    ("hOst", "my.example"),
                    ("user-agent", "me"),
                    ("Accept", "text/plain"),
                    ("X-FOO", "2"),
                    ("accept", "b"),
                    ("accept-encoding", "gzip"),
                    ("Content-Length", "5"),
                    ("transfer-encoding", "chunked"),
                    ("X-Empty", ""),
                    ("Trailer", "x"),
                    ("x-sp", "  a b  "),
                ],
                "my.example|User-Agent: me|Accept: text/plain|Accept: b|Accept-Encoding: gzip\
                 |X-Empty: |X-Foo: 1|X-Foo: 2|X-Sp: a b|Connection: close",
            ),
            (&[("accept", "")], "10.0.0.2:80|User-Agent: kube-probe/1.37|Connection: close"),
            (
                &[("accept", ""), ("Accept", "b")],
                "10.0.0.2:80|User-Agent: kube-probe/1.37|Connection: close",
            ),
            (&[("User-Agent", "")], "10.0.0.2:80|Accept: */*|Connection: close"),
            (
                &[("User-Agent", "a"), ("User-Agent", "b")],
                "10.0.0.2:80|User-Agent: a|Accept: */*|Connection: close",
            ),
            (&[("Host", "")], own),
            (
                &[("Host", "a"), ("Host", "b")],
                "a|User-Agent: kube-probe/1.37|Accept: */*|Connection: close",
            ),
            (&[("Host", "a b/c")], "|User-Agent: kube-probe/1.37|Accept: */*|Connection: close"),
            (
                &[("connection", "close")],
                "10.0.0.2:80|User-Agent: kube-probe/1.37|Accept: */*|Connection: close",
            ),
        ] {
            assert_eq!(sent(Purpose::Probe, headers).as_deref(), Ok(text), "{headers:?}");
        }
        assert_eq!(
            sent(Purpose::Hook, &[]).as_deref(),
            Ok("10.0.0.2:80|User-Agent: kube-lifecycle/1.37|Accept: */*|Connection: close")
        );
    }

    #[test]
    fn a_field_cannot_hold_another() {
        for (headers, text) in [
            ([("X", "a\r\nb: c")], "net/http: invalid header field value for \"X\""),
            ([("X y", "a")], "net/http: invalid header field name \"X y\""),
            ([("Host", "b\u{fc}cher.example")], "http: invalid Host header"),
        ] {
            assert_eq!(sent(Purpose::Probe, &headers), Err(text.into()));
        }
        let smuggled = sent(Purpose::Probe, &[("Host", "a\r\nb: c")]);
        assert_eq!(smuggled.map(|text| text.starts_with("|User-Agent")), Ok(true));
    }

    #[test]
    fn names_are_spelled_as_in_go() {
        for (name, spelled) in
            [("x-foo-BAR", "X-Foo-Bar"), ("ETag", "Etag"), ("a--b-", "A--B-"), ("b d", "b d")]
        {
            assert_eq!(canonical(name), spelled);
        }
    }
}
