//! What a request is about, by its path and query.

use http::Uri;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Refusal;
use crate::cli::Selector;
use crate::daemon::store::{Key, Kind};

/// Objects of a kind.
#[derive(Debug)]
pub struct List {
    pub kind: Kind,
    /// `None` is all.
    pub namespace: Option<String>,
    pub selector: Option<Selector>,
    /// `metadata.name` of a field selector.
    pub name: Option<String>,
    pub watch: bool,
    /// `resourceVersion`.
    pub version: Option<u64>,
    pub timeout_s: Option<u64>,
}

/// Events.
#[derive(Debug)]
pub struct Events {
    /// `None` is all.
    pub namespace: Option<String>,
    /// A field selector: names of fields and their values.
    fields: Vec<(String, String)>,
    pub watch: bool,
    /// `resourceVersion`.
    pub version: Option<u64>,
    pub timeout_s: Option<u64>,
}

impl Events {
    /// Fields of an Event that can be selected by (as the API server's registry of events has them).
    const FIELDS: [&str; 8] = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
    ];

    fn of(namespace: Option<&str>, query: &Query) -> Result<Events, Refusal> {
        let mut fields = Vec::new();
        for part in query.text("fieldSelector").unwrap_or_default().split(',') {
            match part.split_once('=') {
                None if part.is_empty() => {}
                Some((name, value)) if Events::FIELDS.contains(&name) => {
                    fields.push((name.to_owned(), value.trim_start_matches('=').to_owned()));
                }
                _ => {
                    let known = Events::FIELDS.join(", ");
                    return Err(Refusal::bad(format!(
                        "fieldSelector {part:?}: write FIELD=VALUE with one of {known}"
                    )));
                }
            }
        }
        Ok(Events {
            namespace: namespace.map(str::to_owned),
            fields,
            watch: query.flag("watch"),
            version: query.number("resourceVersion")?,
            timeout_s: query.number("timeoutSeconds")?,
        })
    }

    /// The value that a field is to have, if any.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether an event is wanted.
    pub fn fits(&self, event: &Value) -> bool {
        self.fields.iter().all(|(name, value)| {
            let field = name.split('.').fold(event, |object, field| &object[field]);
            field.as_str().unwrap_or_default() == value
        })
    }
}

/// What of a log is wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    pub container: Option<String>,
    pub previous: bool,
    pub follow: bool,
    pub tail: Option<usize>,
    pub timestamps: bool,
}

/// What a request is about.
#[derive(Debug)]
pub enum Target {
    Health,
    Version,
    List(List),
    Events(Events),
    One(Key),
    Status(Key),
    Log(Key, Wanted),
}

impl Target {
    /// Reads path and query.
    pub fn of(uri: &Uri) -> Result<Target, Refusal> {
        let path =
            percent_decode_str(uri.path().trim_matches('/')).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let unknown = || Refusal::not_found("path", uri.path());
        let (version, rest) = match parts.as_slice() {
            ["healthz" | "livez" | "readyz"] => return Ok(Target::Health),
            ["version"] => return Ok(Target::Version),
            ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return Err(unknown()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", "", ..] => return Err(unknown()),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else { return Err(unknown()) };
        if (version.as_str(), *plural, rest) == ("v1", "events", &[]) {
            return Ok(Target::Events(Events::of(namespace, &Query::of(uri))?));
        }
        let kind =
            Kind::ALL.into_iter().find(|k| k.plural() == *plural && k.api_version() == version);
        let kind = kind.ok_or_else(unknown)?;
        let query = Query::of(uri);
        let key = |name: &str| -> Result<Key, Refusal> {
            let namespace = namespace.ok_or_else(unknown)?.to_owned();
            Ok(Key { kind, namespace, name: name.to_owned() })
        };
        Ok(match rest {
            [] => Target::List(query.list(kind, namespace)?),
            [name] => Target::One(key(name)?),
            [name, "status"] => Target::Status(key(name)?),
            [name, "log"] if kind == Kind::Pod => Target::Log(key(name)?, query.log()?),
            _ => return Err(unknown()),
        })
    }
}

/// `NAME=VALUE&…`, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// That of an address.
    pub fn of(uri: &Uri) -> Query {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "true")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Refusal::bad(format!("{name}={text} is not a number from 0 on")))
        };
        self.text(name).map(parse).transpose()
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value == "1" || value == "true")
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<List, Refusal> {
        let name = match self.text("fieldSelector") {
            None => None,
            Some(text) => {
                Some(text.strip_prefix("metadata.name=").map(str::to_owned).ok_or_else(|| {
                    Refusal::bad(format!(
                        "fieldSelector {text:?}: only metadata.name=NAME is known"
                    ))
                })?)
            }
        };
        let selector = self.text("labelSelector").map(Selector::parse).transpose();
        Ok(List {
            kind,
            namespace: namespace.map(str::to_owned),
            selector: selector.map_err(|e| Refusal::bad(format!("labelSelector: {e:#}")))?,
            name,
            watch: self.flag("watch"),
            version: self.number("resourceVersion")?,
            timeout_s: self.number("timeoutSeconds")?,
        })
    }

    fn log(&self) -> Result<Wanted, Refusal> {
        let tail = self.number("tailLines")?;
        Ok(Wanted {
            container: self.text("container").map(str::to_owned),
            previous: self.flag("previous"),
            follow: self.flag("follow"),
            tail: tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            timestamps: self.flag("timestamps"),
        })
    }
}
