//! Why a create failed.
//!
//! libcontainer's error says only the outermost step; the cause is in the tracing events of three
//! processes (creator, intermediate, init), whose standard error is the container's own log by then.
//! So the creator installs a subscriber that appends errors to a file that all three inherit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;

/// Errors of one create.
#[derive(Debug)]
pub struct Diagnosis {
    file: File,
}

impl Diagnosis {
    /// Starts to collect into a file in the bundle. Only the first call in a process can; a creator
    /// lives for one create.
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
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::ERROR)
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .with_writer(Mutex::new(file.try_clone()?))
            .finish();
        // An error means that a subscriber is there already: then its log has the causes.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(Diagnosis { file })
    }

    /// The lines collected so far, innermost cause first.
    #[must_use]
    pub fn causes(mut self) -> Vec<String> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        let mut lines: Vec<String> = match read {
            Ok(_) => text.lines().map(str::to_owned).collect(),
            Err(e) => vec![format!("the causes cannot be read: {e}")],
        };
        lines.dedup();
        lines
    }
}
