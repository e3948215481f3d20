//! Kubernetes' schema of what podshim runs, and the walk of a manifest against it.
//!
//! `kubernetes.json` is generated from k8s-openapi (descriptions left out; a test proves it
//! current), so that unknown fields and wrong types are *all* found, each with its path, where a
//! typed decoder would stop at the first. What the walk lets through decodes without errors: bad
//! parts are left out of the value that it returns. It knows types and names, no meanings: those
//! are [`crate::validate`]'s and [`crate::supported`]'s.

mod suggest;

use std::cell::LazyCell;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::manifest::MAX_PROBLEMS;
use crate::manifest::span::{Data, Finding, Node, Path};
use crate::quantity::Quantity;
pub(crate) use suggest::nearest;

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    // It is part of the binary, and a test reads it.
    serde_json::from_str(include_str!("kubernetes.json")).unwrap_or_default()
});

/// The definition of `Pod`.
pub const POD: &str = "io.k8s.api.core.v1.Pod";
/// The definition of `Deployment`.
pub const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
/// The definition of `Job`.
pub const JOB: &str = "io.k8s.api.batch.v1.Job";

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// The fields of a definition; none for one that is no object.
pub fn fields(definition: &str) -> Option<&'static Map<String, Value>> {
    DEFINITIONS.get(definition)?.get("properties")?.as_object()
}

/// The definition that a field's value is, or that its list's items are.
pub fn target(schema: &Value) -> Option<&str> {
    let reference = schema.get("$ref").or_else(|| schema.get("items")?.get("$ref"))?;
    reference.as_str()?.strip_prefix("#/$defs/")
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// The part of the manifest that fits the schema, as it decodes.
    pub value: Value,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// Fields whose values were left out, or which a misspelt name was probably meant to set: that
    /// they are missing is not worth a second complaint.
    pub damaged: Vec<Path>,
}

/// Walks an object against a definition. `text` is the source, for showing values as written.
pub fn walk(node: &Node, definition: &str, text: &str) -> Walked {
    let mut walk = Walk { text, walked: Walked::default() };
    let value = walk.definition(node, definition, &Path::default());
    walk.walked.value = value.unwrap_or_default();
    walk.walked
}

struct Walk<'a> {
    text: &'a str,
    walked: Walked,
}

impl Walk<'_> {
    fn definition(&mut self, node: &Node, name: &str, path: &Path) -> Option<Value> {
        match name {
            QUANTITY => self.quantity(node, path),
            INT_OR_STRING => self.int_or_string(node, path),
            _ => self.schema(node, DEFINITIONS.get(name)?, path),
        }
    }

    fn schema(&mut self, node: &Node, schema: &Value, path: &Path) -> Option<Value> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.definition(node, reference.trim_start_matches("#/$defs/"), path);
        }
        match (schema.get("type").and_then(Value::as_str), &node.data) {
            (Some("object"), Data::Map(_)) => Some(self.object(node, schema, path)),
            (Some("array"), Data::List(items)) => Some(self.list(items, schema, path)),
            (Some("string"), Data::String(text)) => self.string(text, schema, path),
            (Some("boolean"), Data::Bool(value)) => Some(Value::Bool(*value)),
            (Some("integer"), Data::Int(value)) => self.integer(*value, schema, path),
            (None, _) => Some(plain(node)),
            (Some(expected), _) => self.mismatch(node, expected, schema, path),
        }
    }

    fn object(&mut self, node: &Node, schema: &Value, path: &Path) -> Value {
        if let Some(values) = schema.get("additionalProperties") {
            return self.map(node, values, path);
        }
        let Some(fields) = schema.get("properties").and_then(Value::as_object) else {
            return plain(node);
        };
        let is_free = |field: &&str| node.get(field).is_none();
        let free: LazyCell<Vec<&str>, _> =
            LazyCell::new(|| fields.keys().map(String::as_str).filter(is_free).collect());
        let mut object = Map::new();
        for entry in node.entries() {
            let path = path.field_of_one_name(&entry.key);
            match fields.get(&entry.key) {
                None => self.unknown(&entry.key, || &free, path),
                // As in Go's decoder, null is the same as nothing.
                Some(_) if entry.value.is_null() => {}
                Some(schema) => {
                    if let Some(value) = self.schema(&entry.value, schema, &path) {
                        object.insert(entry.key.clone(), value);
                    }
                }
            }
        }
        Value::Object(object)
    }

    fn map(&mut self, node: &Node, values: &Value, path: &Path) -> Value {
        let mut map = Map::new();
        for entry in node.entries() {
            let path = path.key(&entry.key);
            if entry.value.is_null() {
                self.null(path);
            } else if let Some(value) = self.schema(&entry.value, values, &path) {
                map.insert(entry.key.clone(), value);
            }
        }
        Value::Object(map)
    }

    /// Items that do not fit are replaced by empty ones, so that the others keep their indexes.
    fn list(&mut self, items: &[Node], schema: &Value, path: &Path) -> Value {
        let item_schema = schema.get("items").unwrap_or(&Value::Null);
        let mut list = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = path.index(i);
            let value = if item.is_null() {
                self.null(path);
                None
            } else {
                self.schema(item, item_schema, &path)
            };
            list.push(value.unwrap_or_else(|| empty_of(item_schema)));
        }
        Value::Array(list)
    }

    fn string(&mut self, text: &str, schema: &Value, path: &Path) -> Option<Value> {
        let value = Value::String(text.into());
        let is_time = schema.get("format").and_then(Value::as_str) == Some("date-time");
        if is_time && serde_json::from_value::<Time>(value.clone()).is_err() {
            let help = "times are written like 2026-11-24T12:00:00Z";
            self.damage(Finding::new(path.clone(), format!("{text:?} is no time")).help(help));
            return None;
        }
        Some(value)
    }

    fn integer(&mut self, value: i128, schema: &Value, path: &Path) -> Option<Value> {
        let (min, max) = match schema.get("format").and_then(Value::as_str) {
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => (i64::MIN, i64::MAX),
        };
        match i64::try_from(value) {
            Ok(fits) if (min..=max).contains(&fits) => Some(Value::from(fits)),
            _ => {
                let message = format!("{value} does not fit: the field takes {min} to {max}");
                self.damage(Finding::new(path.clone(), message));
                None
            }
        }
    }

    fn quantity(&mut self, node: &Node, path: &Path) -> Option<Value> {
        let text = match &node.data {
            Data::String(text) => text.clone(),
            Data::Int(value) => value.to_string(),
            Data::Float(value) => value.to_string(),
            _ => return self.mismatch(node, "quantity", &Value::Null, path),
        };
        if let Err(error) = text.parse::<Quantity>() {
            self.damage(Finding::new(path.clone(), format!("Invalid value: {text:?}: {error}")));
            return None;
        }
        Some(Value::String(text))
    }

    fn int_or_string(&mut self, node: &Node, path: &Path) -> Option<Value> {
        match &node.data {
            Data::String(text) => Some(Value::String(text.clone())),
            Data::Int(value) => self.integer(*value, &serde_json::json!({"format": "int32"}), path),
            _ => self.mismatch(node, "integer or string", &Value::Null, path),
        }
    }

    /// `free` are the fields that are not set, which it may have been meant to set.
    fn unknown<'a>(&mut self, key: &str, free: impl FnOnce() -> &'a [&'a str], path: Path) {
        if self.is_full() {
            return;
        }
        let meant = nearest(key, free().iter().copied());
        let help = match meant {
            Some(field) => format!("did you mean `{field}`?"),
            None => "remove it, or look whether its indentation puts it where it belongs".into(),
        };
        if let Some(field) = meant {
            self.walked.damaged.push(path.sibling(field));
        }
        let message = format!("unknown field {key:?}");
        self.damage(Finding::new(path, message).help(help).at_key());
    }

    fn null(&mut self, path: Path) {
        let help = "write a value; \"\" is the empty text";
        self.damage(Finding::new(path, "null where a value is required").help(help));
    }

    fn mismatch<T>(
        &mut self,
        node: &Node,
        expected: &str,
        schema: &Value,
        path: &Path,
    ) -> Option<T> {
        let written = self.text.get(node.span.clone()).unwrap_or_default();
        let found = describe(node, written);
        let expected_words = match expected {
            "object" => "a map",
            "array" => "a list",
            "integer" => "an integer",
            "boolean" => "true or false",
            "quantity" => "a quantity like 100m or 64Mi",
            "integer or string" => "an integer or a string",
            _ => "a string",
        };
        let mut finding =
            Finding::new(path.clone(), format!("expected {expected_words}, found {found}"));
        finding.help = remedy(node, expected, schema, written);
        self.damage(finding);
        None
    }

    fn is_full(&self) -> bool {
        self.walked.findings.len() >= MAX_PROBLEMS
    }

    fn damage(&mut self, finding: Finding) {
        if self.is_full() {
            return;
        }
        self.walked.damaged.push(finding.path.clone());
        self.walked.findings.push(finding);
    }
}

fn describe(node: &Node, written: &str) -> String {
    match &node.data {
        Data::Null => "nothing".into(),
        Data::Bool(_) => format!("the boolean {written}"),
        Data::Int(_) | Data::Float(_) => format!("the number {written}"),
        Data::String(text) if text.chars().count() > 40 => "a text".into(),
        Data::String(text) => format!("the text {text:?}"),
        Data::List(_) => "a list".into(),
        Data::Map(_) => "a map".into(),
    }
}

fn remedy(node: &Node, expected: &str, schema: &Value, written: &str) -> Option<String> {
    let help = match (expected, &node.data) {
        ("string", Data::Bool(_) | Data::Int(_) | Data::Float(_)) => {
            format!("put it in quotes: \"{written}\"")
        }
        ("integer" | "boolean", Data::String(text)) => {
            let plain = crate::manifest::scalar::plain(text);
            let fits = matches!(
                (expected, plain),
                ("integer", Some(Data::Int(_))) | ("boolean", Some(Data::Bool(_)))
            );
            if !fits {
                return None;
            }
            format!("remove the quotes: {text}")
        }
        ("array", Data::String(_)) if schema["items"]["type"] == "string" => {
            format!("write a list: [{written}]")
        }
        ("array", Data::Map(_)) => "begin each item with `- `".into(),
        ("object", Data::List(_)) => "write `key: value` lines without the `- `".into(),
        _ => return None,
    };
    Some(help)
}

fn empty_of(schema: &Value) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Value::String(String::new()),
        Some("integer") => Value::from(0),
        Some("boolean") => Value::Bool(false),
        Some("array") => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

/// A node as a JSON value, whatever its schema.
fn plain(node: &Node) -> Value {
    match &node.data {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Int(value) => i64::try_from(*value)
            .map_or_else(|_| u64::try_from(*value).map_or(Value::Null, Value::from), Value::from),
        Data::Float(value) => Value::from(*value),
        Data::String(text) => Value::String(text.clone()),
        Data::List(items) => Value::Array(items.iter().map(plain).collect()),
        Data::Map(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.clone(), plain(&e.value))).collect())
        }
    }
}
