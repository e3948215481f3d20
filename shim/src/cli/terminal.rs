//! What a command prints: its result on standard output, complaints on standard error.
//!
//! `println!` and `eprintln!` panic when nobody reads any more (`podshim get pods | head -1`) or the
//! disk is full; these here do not, and clippy holds the rest of the tree to them.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

use anyhow::Context;

/// Standard output, for a command that goes on even if what it prints cannot be written.
#[must_use = "`end` says whether everything was written"]
#[derive(Debug, Default)]
pub struct Output {
    broken: Option<io::Error>,
}

impl Output {
    /// Writes bytes, and nothing more once that has failed.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            let mut out = io::stdout().lock();
            self.broken = out.write_all(bytes).and_then(|()| out.flush()).err();
        }
    }

    /// Writes a line.
    pub fn line(&mut self, text: impl Display) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Whether nothing that is printed from now on arrives anywhere.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// # Errors
    /// That something could not be written. A reader that has gone had what it wanted: no error.
    pub fn end(self) -> anyhow::Result<()> {
        match self.broken {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(e).context("cannot write to standard output")
            }
            _ => Ok(()),
        }
    }
}

/// Says on standard error what is wrong. Where that cannot be written either, the exit code tells.
pub fn complain(text: &str) {
    tell(&format!("podshim: {}\n", printable(text)));
}

/// Writes to standard error, as it is.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A text from elsewhere (an image, a registry, a program) as one line: control characters, with
/// which it could move the cursor, paint over other lines or write some of its own, are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "{}", c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// A terminal gets colours unless `NO_COLOR` is set (no-color.org).
pub fn colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_text_cannot_do_anything_to_the_terminal() {
        assert_eq!(
            printable("naïve\tname\n\u{1b}[2J\u{9b}1m\r"),
            "naïve\\tname\\n\\u{1b}[2J\\u{9b}1m\\r"
        );
        assert!(matches!(printable("plain – text"), std::borrow::Cow::Borrowed(_)));
    }
}
