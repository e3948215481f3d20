//! A parsed document that remembers where each part was written, and paths into it.
//!
//! [`super::yaml`] builds it, [`crate::schema`] and [`crate::supported`] walk it, and everything
//! that complains about a field finds the field's place here.

use std::fmt;
use std::ops::Range;

/// A range of bytes of the source.
pub type Span = Range<usize>;

/// A value and where it was written. What came through an alias or a merge has the place of its
/// definition: that is where it is put right.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where: a scalar's text, or the first line of a collection.
    pub span: Span,
    /// What.
    pub data: Data,
}

/// What a node holds, in JSON's terms.
#[derive(Clone, Debug)]
pub enum Data {
    /// Nothing.
    Null,
    /// `true`, and in YAML 1.1 also `yes`, `on`, `y`.
    Bool(bool),
    /// An integer; integral floats (`1e3`) are integers as well.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order as written.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// The entries, if this is a map; else none.
    pub fn entries(&self) -> &[Entry] {
        if let Data::Map(entries) = &self.data { entries } else { &[] }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Data::String(text) = &self.data { Some(text) } else { None }
    }

    /// Whether this is `null` or nothing was written.
    pub fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// Where to point for a complaint about `path`: at a scalar's value, at a collection's key, and
    /// for what is not there at the nearest thing around it.
    pub fn locate(&self, path: &Path) -> Span {
        let mut node = self;
        let mut place = self.span.clone();
        for step in &path.0 {
            let (next, key_span) = match (step, &node.data) {
                (Step::Index(i), Data::List(items)) => (items.get(*i), None),
                (Step::Field(key) | Step::Key(key), Data::Map(entries)) => {
                    let entry = entries.iter().find(|e| &e.key == key);
                    (entry.map(|e| &e.value), entry.map(|e| e.key_span.clone()))
                }
                _ => (None, None),
            };
            let Some(next) = next else { return place };
            node = next;
            place = match (key_span, &node.data) {
                (Some(key), Data::List(_) | Data::Map(_) | Data::Null) => key,
                _ => node.span.clone(),
            };
        }
        place
    }

    /// Where the key of the last step of `path` was written.
    pub fn locate_key(&self, path: &Path) -> Span {
        let Some((Step::Field(key) | Step::Key(key), above)) = path.0.split_last() else {
            return self.locate(path);
        };
        let parent = self.follow(above);
        let entry = parent.and_then(|p| p.entries().iter().find(|e| &e.key == key));
        entry.map_or_else(|| self.locate(path), |e| e.key_span.clone())
    }

    fn follow(&self, steps: &[Step]) -> Option<&Node> {
        steps.iter().try_fold(self, |node, step| match (step, &node.data) {
            (Step::Index(i), Data::List(items)) => items.get(*i),
            (Step::Field(key) | Step::Key(key), _) => node.get(key),
            _ => None,
        })
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Field(String),
    Key(String),
    Index(usize),
}

/// A field's path; shown in Kubernetes' notation: `spec.containers[0].resources.limits[cpu]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<Step>);

impl Path {
    /// The path of a field below this one; `name` may be several, with dots between.
    #[must_use]
    pub fn field(&self, name: &str) -> Path {
        let mut steps = self.0.clone();
        steps.extend(name.split('.').map(|part| Step::Field(part.into())));
        Path(steps)
    }

    /// The path of a field whose name is taken as it is, dots and all.
    #[must_use]
    pub fn field_of_one_name(&self, name: &str) -> Path {
        self.with(Step::Field(name.into()))
    }

    /// The path with another last step.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Path {
        let above = self.0.split_last().map_or(&[][..], |(_, above)| above);
        Path(above.to_vec()).field_of_one_name(name)
    }

    /// The path of a key of a map whose keys are the user's.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        self.with(Step::Key(key.into()))
    }

    /// The path of a list's item.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        self.with(Step::Index(index))
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0)
    }

    fn with(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if i == 0 => write!(f, "{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Key(key) => write!(f, "[{key}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A complaint about a field, before its place in a source has been looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field.
    pub path: Path,
    /// Whether the key is to be marked, not the value.
    pub at_key: bool,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    /// A complaint about a field's value.
    pub fn new(path: Path, message: impl Into<String>) -> Finding {
        Finding { path, at_key: false, message: message.into(), help: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Finding {
        self.help = Some(help.into());
        self
    }

    /// The same, marking the key.
    #[must_use]
    pub fn at_key(mut self) -> Finding {
        self.at_key = true;
        self
    }
}
