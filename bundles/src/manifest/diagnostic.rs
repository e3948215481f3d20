//! What is wrong, where, and what to do: a problem and how it is shown.
//!
//! Shown in rustc's manner, by rustc's own renderer. Finding problems is everybody else's business.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::Source;

/// Longer lines are shown in part: manifests in JSON may be one line.
const MAX_LINE: usize = 400;
/// What is shown of such a line to each side of the mark.
const AROUND: usize = 60;
/// What is shown of a text that a message quotes: its first and its last bytes, for the reason stands
/// behind the value.
const MAX_TEXT: (usize, usize) = (600, 300);

/// Something wrong with, or doubtful in, a manifest. Its `Display` is one line,
/// `file:line:column: path: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Problem {
    /// A problem at a place of a source. The texts may quote the manifest: they are made printable.
    pub(super) fn new(
        source: &Arc<Source>,
        span: Range<usize>,
        path: &str,
        message: &str,
        help: Option<&str>,
    ) -> Problem {
        Problem {
            source: Arc::clone(source),
            span,
            path: printable(path),
            message: printable(message),
            help: help.map(printable),
        }
    }

    /// The name of the source: a path as it was given, or `<stdin>`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source.name
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        // Over bytes, which takes a millisecond for the largest manifest.
        self.source.text.as_bytes()[..self.span.start].iter().filter(|b| **b == b'\n').count() + 1
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.source.text[self.line_start()..self.span.start]
            .trim_start_matches('\u{feff}')
            .chars()
            .count()
            + 1
    }

    /// The field in Kubernetes' notation, `spec.containers[0].image`; empty if it is about no field.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong; in the API server's words where it has any.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    fn line_start(&self) -> usize {
        self.source.text[..self.span.start].rfind('\n').map_or(0, |at| at + 1)
    }

    fn title(&self) -> String {
        if self.path.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.path, self.message)
        }
    }

    pub(super) fn render(&self, level: Level<'_>, renderer: &Renderer) -> String {
        let (excerpt, mark) = self.excerpt();
        let (title, line) = (self.title(), self.line());
        // The renderer replaces all control characters but these; what they become is as long.
        let shown = excerpt.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "·");
        let snippet = Snippet::source(shown.as_str())
            .line_start(line)
            .annotation(AnnotationKind::Primary.span(mark));
        let name = self.source.name.as_str();
        let title = level.primary_title(title.as_str());
        let mut group: Group<'_> = if excerpt.len() < self.line_text().len() {
            // Of a part of a line the renderer cannot know the column.
            let origin = Origin::path(name).line(line).char_column(self.column());
            title.element(origin).element(snippet)
        } else {
            title.element(snippet.path(name))
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// The line that is marked.
    fn line_text(&self) -> &str {
        let rest = &self.source.text[self.line_start()..];
        let rest = rest.strip_prefix('\u{feff}').unwrap_or(rest);
        let line = rest.split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// The line that is marked, or the part of it around the mark, and the mark within.
    fn excerpt(&self) -> (&str, Range<usize>) {
        let line = self.line_text();
        let start = self.line_start();
        let bom = if self.source.text[start..].starts_with('\u{feff}') { 3 } else { 0 };
        let from = self.span.start.saturating_sub(start + bom).min(line.len());
        let to = self.span.end.saturating_sub(start + bom).clamp(from, line.len());
        if line.len() <= MAX_LINE {
            return (line, from..to);
        }
        let first = floor(line, from.saturating_sub(AROUND));
        let last = floor(line, (to.min(from + AROUND) + AROUND).min(line.len()));
        let end = floor(line, to.min(last));
        (&line[first..last], from - first..end - first)
    }
}

/// The last end of a character that is not after `at`, which is not after the end.
pub(super) fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text of a stranger for a terminal: in one line, with nothing in it that a terminal obeys, and in
/// part if it is long.
pub(super) fn printable(text: &str) -> String {
    let (first, last) = MAX_TEXT;
    if text.len() > first + last {
        let (head, tail) = (floor(text, first), floor(text, text.len() - last));
        return format!("{} … {}", escaped(&text[..head]), escaped(&text[tail..]));
    }
    escaped(text)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_direction(c) {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a character makes what follows run the other way, over what stands there.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source(), self.line(), self.column(), self.title())
    }
}
