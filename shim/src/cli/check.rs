//! `podshim check`: all that is wrong with manifests, in one go.

use std::path::PathBuf;

use bundles::manifest;

use super::CANNOT;
use super::terminal::{Output, colour_wanted, tell};

/// Prints problems and warnings to standard error. The exit code is 0 or [`CANNOT`].
pub fn check(files: &[PathBuf], strict: bool) -> anyhow::Result<i32> {
    let sources = manifest::sources(files)?;
    let report = manifest::read(&sources);
    tell(&report.render(colour_wanted(&std::io::stderr())));
    if !report.is_ok(strict) {
        return Ok(CANNOT);
    }
    let mut output = Output::default();
    output.line(format_args!(
        "{} object(s) can be run",
        report.objects.iter().filter(|o| o.is_run()).count()
    ));
    output.end()?;
    Ok(0)
}
