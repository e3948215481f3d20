//! Manifests: text in, Kubernetes objects out, and all that is wrong with them in one go.
//!
//! Four looks at each object, each independent of what the others found: the text
//! (`yaml`), names and types ([`crate::schema`]), what podshim does not do yet
//! ([`crate::supported`]), the API server's rules ([`crate::validate`]). Runs nothing and asks
//! nobody. Called by every command that takes `-f`.

mod decode;
mod defaults;
mod diagnostic;
pub(crate) mod scalar;
mod source;
pub(crate) mod span;
mod yaml;

use std::sync::Arc;

use annotate_snippets::{Level, Renderer};

pub use decode::Object;
pub use diagnostic::Problem;
use diagnostic::printable;
pub use source::{MAX_BYTES, Source, SourceError, sources};

pub(crate) use defaults::is_empty_selector;

/// What is shown of one kind; more would not be read.
const MAX_SHOWN: usize = 50;
/// Problems, or warnings, that are looked for: far more than are shown, and few enough that comparing
/// each with all others takes no time. Without an end a file could be made of nothing but mistakes.
pub(crate) const MAX_PROBLEMS: usize = 1_000;

/// What was read.
#[derive(Debug, Default)]
pub struct Report {
    /// The objects in their order, with Kubernetes' defaults. Only to be used if there are no
    /// problems: parts that could not be understood are missing.
    pub objects: Vec<Object>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What has no effect or is probably not meant.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Whether the objects may be used. Strictly, warnings are problems too.
    #[must_use]
    pub fn is_ok(&self, strict: bool) -> bool {
        self.problems.is_empty() && (!strict || self.warnings.is_empty())
    }

    /// Everything that is wrong or doubtful, with the lines it is about, for a terminal (`color`) or
    /// a pipe. Empty if there is nothing.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for (problems, level, name) in
            [(&self.problems, Level::ERROR, "errors"), (&self.warnings, Level::WARNING, "warnings")]
        {
            for problem in problems.iter().take(MAX_SHOWN) {
                text += &problem.render(level.clone(), &renderer);
                text += "\n\n";
            }
            if problems.len() > MAX_SHOWN {
                let least = if problems.len() < MAX_PROBLEMS { "" } else { "at least " };
                text += &format!("… and {least}{} more {name}\n\n", problems.len() - MAX_SHOWN);
            }
        }
        text.truncate(text.trim_end().len());
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Reads all objects of all sources.
#[must_use]
pub fn read(sources: &[Source]) -> Report {
    let mut reader = decode::Reader::default();
    let sources: Vec<Arc<Source>> = sources.iter().map(printable_name).collect();
    for source in &sources {
        reader.source(source);
    }
    reader.finish(sources.first())
}

fn printable_name(source: &Source) -> Arc<Source> {
    Arc::new(Source { name: printable(&source.name), text: source.text.clone() })
}
