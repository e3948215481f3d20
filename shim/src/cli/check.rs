//! `podshim check`: all that is wrong with manifests, in one go.

use std::io::IsTerminal;
use std::path::PathBuf;

use bundles::manifest;

use super::CANNOT;

/// Prints problems and warnings to standard error. The exit code is 0 or [`CANNOT`].
pub fn check(files: &[PathBuf], strict: bool) -> anyhow::Result<i32> {
    let sources = manifest::sources(files)?;
    let report = manifest::read(&sources);
    eprint!("{}", report.render(colour_wanted(&std::io::stderr())));
    if !report.is_ok(strict) {
        return Ok(CANNOT);
    }
    println!("{} object(s) can be run", report.objects.len());
    Ok(0)
}

/// A terminal gets colours unless `NO_COLOR` is set (no-color.org).
pub fn colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
