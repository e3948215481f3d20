//! What `podshim run` shows: a line for each lifecycle step, the containers' output with their names
//! before it, or JSON.
//!
//! The containers' output goes to standard output, lifecycle lines to standard error; with
//! `-o json` standard output has nothing but JSON objects, one a line, each in one write.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use plan::Mono;
use runtime::log::reader::Line;
use serde_json::Value;

use crate::cli::{colour_wanted, complain, event_object, printable};
use crate::protocol::Event;

/// Colours of containers' names, in the order of their first appearance.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Red,
];

/// Where lines go and what they look like.
pub struct Printer {
    began: Mono,
    quiet: bool,
    json: bool,
    colour_out: bool,
    colour_err: bool,
    known: BTreeMap<String, usize>,
    width: usize,
}

impl Printer {
    /// `width` is the longest prefix to come.
    pub fn new(quiet: bool, json: bool) -> Printer {
        Printer {
            began: runtime::clock::mono(),
            quiet,
            json,
            colour_out: colour_wanted(&io::stdout()),
            colour_err: colour_wanted(&io::stderr()),
            known: BTreeMap::new(),
            width: 0,
        }
    }

    /// Makes room for a prefix, so that columns line up from the first line on.
    pub fn expect(&mut self, prefix: &str) {
        self.width = self.width.max(prefix.chars().count());
        let next = self.known.len();
        self.known.entry(prefix.to_owned()).or_insert(next);
    }

    fn painted(&self, prefix: &str, colour: bool) -> String {
        let padded = format!("{prefix:<width$}", width = self.width);
        if !colour {
            return padded;
        }
        let at = self.known.get(prefix).copied().unwrap_or(0);
        let style = Style::new().fg_color(Some(COLOURS[at % COLOURS.len()].into()));
        format!("{style}{padded}{style:#}")
    }

    /// A container's line.
    pub fn output(&self, prefix: &str, line: &Line<'_>) {
        let colour = if self.json { self.colour_err } else { self.colour_out };
        let mut text = self.painted(prefix, colour).into_bytes();
        text.extend_from_slice(b" | ");
        text.extend_from_slice(line.bytes);
        text.push(b'\n');
        // A reader that has gone must not end the pods; Ctrl-C does.
        let _ = if self.json {
            io::stderr().lock().write_all(&text)
        } else {
            io::stdout().lock().write_all(&text)
        };
    }

    /// Something happened to a pod.
    pub fn event(&self, pod: &Value, prefix: &str, event: &Event) {
        if self.json {
            self.json_line(&event_object(pod, event));
        } else if !self.quiet {
            let warning = if event.warning { "Warning " } else { "" };
            let text = format!("{warning}{}: {}", event.reason, event.message);
            self.say(prefix, &text, event.warning);
        }
    }

    /// A line of our own.
    pub fn note(&self, prefix: &str, text: &str) {
        if !self.quiet && !self.json {
            self.say(prefix, text, false);
        }
    }

    /// A line that is shown even if lifecycle lines are not.
    pub fn warn(&self, text: &str) {
        complain(text);
    }

    fn say(&self, prefix: &str, text: &str, strong: bool) {
        let ms = runtime::clock::mono().0.saturating_sub(self.began.0) / 1_000_000;
        let time = format!("{:>4}.{:03}s", ms / 1000, ms % 1000);
        let prefix = self.painted(prefix, self.colour_err);
        let text = printable(text);
        let line = if self.colour_err {
            let dim = if strong { Style::new().bold() } else { Style::new().dimmed() };
            format!("{dim}{time}{dim:#} {prefix} {dim}{text}{dim:#}\n")
        } else {
            format!("{time} {prefix} {text}\n")
        };
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    /// A whole object, with `-o json`.
    pub fn object(&self, object: &Value) {
        if self.json {
            self.json_line(object);
        }
    }

    fn json_line(&self, value: &Value) {
        if let Ok(mut line) = serde_json::to_vec(value) {
            line.push(b'\n');
            let _ = io::stdout().lock().write_all(&line);
        }
    }
}
