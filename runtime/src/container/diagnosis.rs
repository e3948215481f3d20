//! Why a create failed.
//!
//! libcontainer's error says only the outermost step; the cause is in the tracing events of three
//! processes (creator, intermediate, init). The creator sends them to a file that all three inherit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::diagnostics;

/// Errors of one create.
#[derive(Debug)]
pub struct Diagnosis {
    file: File,
}

impl Diagnosis {
    /// Starts to collect into a file in the bundle.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn begin(bundle: &Path) -> io::Result<Diagnosis> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(bundle.join("create.log"))?;
        diagnostics::redirect(file.try_clone()?, true);
        Ok(Diagnosis { file })
    }

    /// The lines collected so far, innermost cause first.
    #[must_use]
    pub fn causes(mut self) -> Vec<String> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        let mut lines: Vec<String> = match read {
            Ok(_) => {
                text.lines().map(|l| l.trim_start_matches("ERROR ").trim().to_owned()).collect()
            }
            Err(e) => vec![format!("the causes cannot be read: {e}")],
        };
        lines.dedup();
        lines
    }
}
