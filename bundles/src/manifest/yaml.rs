//! YAML (and with it JSON) text to nodes that know their places.
//!
//! The events come from serde-saphyr's parser; what is made of them is here: documents, anchors,
//! merge keys, duplicate keys, and limits, so that no input hangs, overflows the stack or fills the
//! memory. It knows nothing of Kubernetes. Called by [`super::read`].
//!
//! A text is first cut at its `---` lines, as kubectl does it, so that a syntax error in one
//! document does not hide what is wrong with the others.

use std::collections::HashMap;
use std::rc::Rc;

use serde_saphyr::granit_parser::{
    self, ErrorKind, Event, Parser, ScalarStyle, ScanError, StructureStyle, Tag,
};

use super::diagnostic::floor;
use super::span::{Data, Entry, Node, Span};
use super::{MAX_PROBLEMS, scalar};

/// Documents in one text.
const MAX_DOCUMENTS: usize = 256;
/// Values in one text: some hundred large Deployments. Those that come by alias are counted each time,
/// those with an anchor twice, for they are kept. It is one budget for all documents, because all are
/// in memory at once.
const MAX_NODES: usize = 50_000;
/// Bytes of all scalars of one text, likewise; as many as the text itself may have.
const MAX_SCALAR_BYTES: usize = 8 << 20;
/// Aliases in one document.
const MAX_ALIASES: usize = 1_000;
/// Collections within collections.
const MAX_DEPTH: usize = 64;
/// Stray commas that are read over in one text to find what else is wrong: a document is read again
/// for each.
const MAX_COMMAS: usize = 32;
/// How many bytes of its first line the place of a collection has: JSON may be one line.
const MAX_LINE: usize = 1_000;

/// Something wrong with the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, in the whole text.
    pub span: Span,
    /// What.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Fault {
    fn new(span: Span, message: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault { span, message: message.into(), help: Some(help.into()) }
    }
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The roots of the documents that are not empty.
    pub documents: Vec<Node>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is valid and probably not meant.
    pub doubts: Vec<Fault>,
}

/// Reads all documents of a text.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let chunks = documents(text);
    if let Some(first_too_many) = chunks.get(MAX_DOCUMENTS) {
        parsed.faults.push(Fault::new(
            first_too_many.start..first_too_many.start + 3,
            format!("more than {MAX_DOCUMENTS} documents in one file"),
            "split the file",
        ));
    }
    let mut spent = Spent::default();
    for chunk in chunks.into_iter().take(MAX_DOCUMENTS) {
        parse_chunk(text, &chunk, &mut spent, &mut parsed);
        parsed.faults.truncate(MAX_PROBLEMS);
        parsed.doubts.truncate(MAX_PROBLEMS);
        if spent.is_too_much() {
            break;
        }
    }
    parsed
}

/// What was taken from the budgets of a text.
#[derive(Clone, Copy, Default)]
struct Spent {
    nodes: usize,
    bytes: usize,
    commas: usize,
}

impl Spent {
    fn is_too_much(self) -> bool {
        self.nodes > MAX_NODES || self.bytes > MAX_SCALAR_BYTES
    }
}

/// Parses one document, reading over stray commas.
fn parse_chunk(text: &str, chunk: &Span, spent: &mut Spent, parsed: &mut Parsed) {
    let mut patched = text[chunk.clone()].to_owned();
    loop {
        let mut composer = Composer::new(chunk.start, *spent);
        let result = composer.run(&patched);
        let Err(mut fault) = result else {
            *spent = composer.spent;
            parsed.documents.append(&mut composer.documents);
            parsed.faults.append(&mut composer.faults);
            parsed.doubts.append(&mut composer.doubts);
            return;
        };
        fault.span = within(&fault.span, chunk);
        let stray = is_stray_comma(text, &fault.span);
        let at = fault.span.start - chunk.start;
        if stray {
            fault.message = "a comma after an item of a block list".into();
            fault.help = Some("block list items take no comma: remove it".into());
        }
        parsed.faults.push(fault);
        if !stray || spent.commas == MAX_COMMAS {
            *spent = composer.spent;
            return;
        }
        spent.commas += 1;
        patched.replace_range(at..=at, " ");
    }
}

/// Whether the place is a comma that ends a line of a block list's quoted item: `- 'sh',`.
fn is_stray_comma(text: &str, span: &Span) -> bool {
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[span.start..].find('\n').map_or(text.len(), |at| span.start + at);
    let before = text[start..span.start].trim();
    let after = text[span.start..end].trim_end();
    let quoted = before.ends_with('\'') || before.ends_with('"');
    before.starts_with("- ") && quoted && after == ","
}

fn within(span: &Span, chunk: &Span) -> Span {
    let start = span.start.clamp(chunk.start, chunk.end);
    start..span.end.clamp(start, chunk.end)
}

/// Cuts a text at the lines that begin a document. Comments and directives before such a line
/// belong to the document that it begins.
fn documents(text: &str) -> Vec<Span> {
    let bom = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut chunks = Vec::new();
    let mut start = bom;
    let mut has_content = false;
    let mut at = bom;
    for line in text[bom..].split_inclusive('\n') {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            if has_content {
                chunks.push(start..at);
                start = at;
            }
            has_content = true;
        } else {
            let trimmed = line.trim_start();
            has_content |= !(trimmed.is_empty() || trimmed.starts_with(['#', '%']));
        }
        at += line.len();
    }
    if has_content {
        chunks.push(start..at);
    }
    chunks
}

/// A collection that is being read.
struct Open {
    anchor: usize,
    span: Span,
    /// A block list: its plain items are looked at for stray commas.
    block: bool,
    height: usize,
    nodes: usize,
    bytes: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, names: HashMap<String, Span>, key: Option<Key>, merges: Vec<Node> },
}

enum Key {
    Name(String, Span),
    Merge(Span),
}

/// A finished node and what it costs to copy it.
#[derive(Clone)]
struct Built {
    node: Node,
    height: usize,
    nodes: usize,
    bytes: usize,
}

struct Composer {
    /// Where the text begins in the whole text.
    offset: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Built>>,
    documents: Vec<Node>,
    faults: Vec<Fault>,
    doubts: Vec<Fault>,
    spent: Spent,
    aliases: usize,
}

impl Composer {
    fn new(offset: usize, spent: Spent) -> Composer {
        Composer {
            offset,
            open: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            faults: Vec::new(),
            doubts: Vec::new(),
            spent,
            aliases: 0,
        }
    }

    fn run(&mut self, text: &str) -> Result<(), Fault> {
        let options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| self.syntax(text, &error))?;
            let range = span.byte_range().unwrap_or(0..0);
            let span = self.offset + range.start..self.offset + range.end.max(range.start);
            self.event(text, event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, text: &str, event: Event<'_>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.scalar(&value, style, anchor, tag.as_deref(), span)
            }
            Event::Alias(id) => self.alias(id, span),
            Event::SequenceStart(style, anchor, _) => {
                self.begin(text, anchor, style, span, Content::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => {
                let map = Content::Map {
                    entries: Vec::new(),
                    names: HashMap::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.begin(text, anchor, style, span, map)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Fault> {
        self.spend(1, value.len(), &span)?;
        let plain = style == ScalarStyle::Plain;
        let in_map =
            matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }));
        if in_map && plain && tag.is_none() && value == "<<" {
            return self.key(Key::Merge(span));
        }
        if plain && value.len() > 1 && value.ends_with(',') && self.in_block_list() {
            self.doubts.push(Fault::new(
                span.end.saturating_sub(1)..span.end,
                format!("the comma is part of the text {value:?}"),
                "block list items take no comma: remove it, or put the text in quotes if it is meant",
            ));
        }
        let data = self.resolve(value, plain, tag, &span);
        let built = Built { node: Node { span, data }, height: 0, nodes: 1, bytes: value.len() };
        self.anchor(anchor, &built)?;
        self.place(built)
    }

    fn in_block_list(&self) -> bool {
        matches!(self.open.last(), Some(Open { block: true, content: Content::List(_), .. }))
    }

    /// The value of a scalar; a tag decides before the notation does.
    fn resolve(&mut self, value: &str, plain: bool, tag: Option<&Tag>, span: &Span) -> Data {
        let text = || Data::String(value.to_owned());
        let Some(tag) = tag else {
            if !plain {
                return text();
            }
            return scalar::plain(value).unwrap_or_else(|| {
                self.faults.push(Fault::new(
                    span.clone(),
                    format!("{value} is a number that JSON, and so Kubernetes, does not have"),
                    "write it in quotes if it is a text",
                ));
                text()
            });
        };
        let known = tag.suffix_in_namespace("tag:yaml.org,2002:");
        match known.as_deref() {
            Some("binary") => self.binary(value, span),
            Some(kind @ ("int" | "float" | "bool" | "null")) => {
                let data = scalar::plain(value).unwrap_or_else(text);
                let fits = matches!(
                    (kind, &data),
                    ("int", Data::Int(_))
                        | ("float", Data::Int(_) | Data::Float(_))
                        | ("bool", Data::Bool(_))
                        | ("null", Data::Null)
                );
                if !fits {
                    self.faults.push(Fault::new(
                        span.clone(),
                        format!("{value:?} is no value of its tag !!{kind}"),
                        "remove the tag",
                    ));
                }
                data
            }
            _ => text(),
        }
    }

    fn binary(&mut self, value: &str, span: &Span) -> Data {
        let compact: String = value.chars().filter(|c| !c.is_whitespace()).collect();
        let bytes: Result<k8s_openapi::ByteString, _> =
            serde_json::from_value(serde_json::Value::String(compact));
        match bytes.map(|bytes| String::from_utf8(bytes.0)) {
            Ok(Ok(text)) => Data::String(text),
            _ => {
                self.faults.push(Fault::new(
                    span.clone(),
                    "not base64 of a text, as its tag !!binary says",
                    "write the text itself",
                ));
                Data::String(value.into())
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Fault> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(Fault::new(
                span,
                format!("more than {MAX_ALIASES} aliases in one document"),
                "write the values out",
            ));
        }
        let Some(built) = self.anchors.get(&id).map(Rc::clone) else {
            return Err(Fault::new(span, "an alias within its own anchor", "write the value out"));
        };
        self.spend(built.nodes, built.bytes, &span)?;
        if self.open.len() + built.height > MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.place(Built::clone(&built))
    }

    fn begin(
        &mut self,
        text: &str,
        anchor: usize,
        style: StructureStyle,
        span: Span,
        content: Content,
    ) -> Result<(), Fault> {
        self.spend(1, 0, &span)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        if matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. })) {
            return Err(Fault::new(span, "a list or a map as a key", "keys are texts"));
        }
        let rest = &text[(span.start - self.offset).min(text.len())..];
        let rest = &rest[..floor(rest, rest.len().min(MAX_LINE))];
        let line = rest.lines().next().map_or(0, |line| line.trim_end().len());
        let span = span.start..span.start + line;
        let block = style == StructureStyle::Block;
        self.open.push(Open { anchor, span, block, height: 0, nodes: 1, bytes: 0, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let data = match open.content {
            Content::List(items) => Data::List(items),
            Content::Map { mut entries, names, merges, .. } => {
                merge(&mut entries, names, merges);
                Data::Map(entries)
            }
        };
        let built = Built {
            node: Node { span: open.span, data },
            height: open.height + 1,
            nodes: open.nodes,
            bytes: open.bytes,
        };
        self.anchor(open.anchor, &built)?;
        self.place(built)
    }

    fn anchor(&mut self, anchor: usize, built: &Built) -> Result<(), Fault> {
        if anchor != 0 {
            self.spend(built.nodes, built.bytes, &built.node.span)?;
            self.anchors.insert(anchor, Rc::new(built.clone()));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: the document's root, an item, a key or a value.
    fn place(&mut self, built: Built) -> Result<(), Fault> {
        let Some(open) = self.open.last_mut() else {
            if !built.node.is_null() {
                self.documents.push(built.node);
            }
            return Ok(());
        };
        open.height = open.height.max(built.height);
        open.nodes += built.nodes;
        open.bytes += built.bytes;
        let (entries, key, merges) = match &mut open.content {
            Content::List(items) => {
                items.push(built.node);
                return Ok(());
            }
            Content::Map { entries, key, merges, .. } => (entries, key, merges),
        };
        match key.take() {
            None => {
                let name = key_text(&built.node)?;
                self.key(Key::Name(name, built.node.span))
            }
            Some(Key::Name(key, key_span)) => {
                entries.push(Entry { key, key_span, value: built.node });
                Ok(())
            }
            Some(Key::Merge(span)) => match built.node.data {
                Data::Map(_) => {
                    merges.push(built.node);
                    Ok(())
                }
                Data::List(items) if items.iter().all(|i| matches!(i.data, Data::Map(_))) => {
                    merges.extend(items);
                    Ok(())
                }
                _ => Err(Fault::new(span, "a merge of what is no map", "`<<` takes a map's alias")),
            },
        }
    }

    fn key(&mut self, next: Key) -> Result<(), Fault> {
        let Some(Open { content: Content::Map { names, key, .. }, .. }) = self.open.last_mut()
        else {
            return Ok(());
        };
        if let Key::Name(name, span) = &next
            && let Some(first) = names.insert(name.clone(), span.clone())
        {
            let same = first == *span;
            self.faults.push(Fault::new(
                span.clone(),
                format!("key {name:?} is already set in this map"),
                if same { "set it once" } else { "remove one of the two" },
            ));
        }
        *key = Some(next);
        Ok(())
    }

    /// Takes from the budgets of the text.
    fn spend(&mut self, nodes: usize, bytes: usize, span: &Span) -> Result<(), Fault> {
        self.spent.nodes += nodes;
        self.spent.bytes += bytes;
        if !self.spent.is_too_much() {
            return Ok(());
        }
        let message = if self.spent.nodes > MAX_NODES {
            format!("more than {MAX_NODES} values in one file")
        } else {
            format!("more than {} MiB of text in one file", MAX_SCALAR_BYTES >> 20)
        };
        let help =
            "nothing that Kubernetes takes is that large; aliases count each time they are used";
        Err(Fault::new(span.clone(), message, help))
    }

    fn syntax(&self, text: &str, error: &ScanError) -> Fault {
        let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
        let width = text[at..].chars().next().map_or(0, char::len_utf8);
        let span = self.offset + at..self.offset + at + width;
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return too_deep(span);
        }
        Fault {
            span,
            message: format!("invalid YAML: {}", error.info()),
            help: advice(error.kind()),
        }
    }
}

fn too_deep(span: Span) -> Fault {
    Fault::new(
        span,
        format!("more than {MAX_DEPTH} lists and maps within each other"),
        "nothing that Kubernetes takes is nested that deep",
    )
}

/// What to do about a syntax error, where there is one usual cause.
fn advice(kind: &ErrorKind) -> Option<String> {
    use ErrorKind as K;
    let advice = match kind {
        K::TabNotAllowed | K::TabInBlockIndentation | K::TabInIndentation => {
            "indent with blanks: YAML allows no tabs there"
        }
        K::InvalidIndentation | K::ExpectedBlockMappingKey | K::ExpectedBlockSequenceEntry => {
            "entries of one map or list begin in the same column"
        }
        K::UnclosedQuotedScalar | K::DocumentIndicatorInQuotedScalar => {
            "close the quote that begins here"
        }
        K::InvalidTrailingSingleQuotedScalar | K::InvalidTrailingDoubleQuotedScalar => {
            "nothing may follow the closing quote"
        }
        K::UnclosedFlowCollection { .. }
        | K::UnexpectedEofFlowSequence
        | K::UnexpectedEofFlowMapping => "close the bracket that was opened",
        K::ExpectedFlowSequenceSeparator | K::ExpectedFlowMappingSeparator => {
            "entries between brackets are separated by commas"
        }
        K::UnknownAnchor => {
            "`*name` is an alias: define it with `&name` before, or put the text in quotes"
        }
        K::UnexpectedCharacter { .. } => "put the text in quotes",
        K::SimpleKeyExpected | K::InvalidSimpleKey => "a key is followed by a colon and a blank",
        _ => return None,
    };
    Some(advice.into())
}

/// Keys are texts in JSON; `true`, `1` and their like are written out.
fn key_text(node: &Node) -> Result<String, Fault> {
    Ok(match &node.data {
        Data::String(text) => text.clone(),
        Data::Bool(value) => value.to_string(),
        Data::Int(value) => value.to_string(),
        Data::Float(value) => value.to_string(),
        Data::Null | Data::List(_) | Data::Map(_) => {
            return Err(Fault::new(node.span.clone(), "a key that is no text", "keys are texts"));
        }
    })
}

/// What is written wins over what is merged, and what is merged first over what comes later.
fn merge(entries: &mut Vec<Entry>, mut names: HashMap<String, Span>, merges: Vec<Node>) {
    for map in merges {
        let Data::Map(merged) = map.data else { continue };
        for entry in merged {
            if names.insert(entry.key.clone(), entry.key_span.clone()).is_none() {
                entries.push(entry);
            }
        }
    }
}
