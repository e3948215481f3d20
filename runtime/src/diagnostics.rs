//! Where tracing events go: the shim's own log, or, in a creator, a file beside the bundle.
//!
//! A creator is a fork of the shim and inherits its subscriber, but by the time libcontainer has
//! something to say, standard error is the container's log. So the destination is a descriptor of
//! our own that a creator replaces, and there only errors are kept: the causes of a failed create.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

static DESTINATION: Mutex<Destination> = Mutex::new(Destination { file: None, only_errors: false });

struct Destination {
    file: Option<File>,
    only_errors: bool,
}

/// Sends warnings and errors of this process to `file`. Only the first call in a process counts.
pub fn begin(file: File) {
    redirect(file, false);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(Writer)
        .finish();
    // There is one already: it writes to the same destination.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Sends them elsewhere from now on.
pub fn redirect(file: File, only_errors: bool) {
    if let Ok(mut destination) = DESTINATION.lock() {
        let before =
            std::mem::replace(&mut *destination, Destination { file: Some(file), only_errors });
        if only_errors {
            // A creator has closed it already, with all that it inherited; to close that number
            // again would hit another descriptor.
            std::mem::forget(before);
        }
    }
}

/// Lets go of the destination: what comes now is said to nobody.
pub fn end() {
    if let Ok(mut destination) = DESTINATION.lock() {
        *destination = Destination { file: None, only_errors: false };
    }
}

/// One event's writer.
struct Writer;

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Box<dyn io::Write>;

    fn make_writer(&'a self) -> Self::Writer {
        destination(false)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        destination(*meta.level() != Level::ERROR)
    }
}

fn destination(minor: bool) -> Box<dyn io::Write> {
    let Ok(destination) = DESTINATION.lock() else { return Box::new(io::sink()) };
    if minor && destination.only_errors {
        return Box::new(io::sink());
    }
    match destination.file.as_ref().map(File::try_clone) {
        Some(Ok(file)) => Box::new(file),
        _ => Box::new(io::sink()),
    }
}
