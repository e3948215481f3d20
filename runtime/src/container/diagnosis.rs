//! Why a create failed.
//!
//! libcontainer's error says only the outermost step; the cause is in the tracing events of three
//! processes (creator, intermediate, init). The creator sends them to a file that all three inherit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libcontainer::error::LibcontainerError;
use nix::errno::Errno;

use crate::{chain, diagnostics};

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

    /// Why the create failed, in one line: the causes, innermost first, with the kernel's words for errors
    /// that are only named.
    #[must_use]
    pub fn of(self, error: &LibcontainerError) -> String {
        let mut causes = self.causes();
        if causes.is_empty() {
            causes.push(chain(error));
        }
        in_words(
            &format!(
                "failed to create container: {}",
                causes[..causes.len().min(CAUSES)].join("; ")
            ),
            error,
        )
    }

    /// The lines collected so far, innermost cause first, without those that say only that another process
    /// has said why.
    fn causes(mut self) -> Vec<String> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        let mut lines: Vec<String> = match read {
            Ok(_) => {
                text.lines().map(|l| l.trim_start_matches("ERROR ").trim().to_owned()).collect()
            }
            Err(e) => vec![format!("the causes cannot be read: {e}")],
        };
        lines.dedup();
        lines.retain(|line| !line.contains(HEARSAY));
        lines
    }
}

/// What libcontainer says in a process that has only heard of a failure.
const HEARSAY: &str = "exec process failed with error";

/// How many of the causes are told: those that follow say which larger step that was a part of.
const CAUSES: usize = 2;

/// Adds the words for the first error number that is named in the text, or else in the whole error.
fn in_words(text: &str, error: &LibcontainerError) -> String {
    match errno_in(text).or_else(|| errno_in(&format!("{error:?}"))).map(|e| e.to_string()) {
        Some(words) if !text.contains(&words) => format!("{text}: {words}"),
        _ => text.to_owned(),
    }
}

fn errno_in(text: &str) -> Option<io::Error> {
    let all: Vec<(String, i32)> =
        (1..=ERRNO_MAX).map(|number| (format!("{:?}", Errno::from_raw(number)), number)).collect();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let mut named = words.filter_map(|word| all.iter().find(|(name, _)| name == word));
    named.next().map(|(_, number)| io::Error::from_raw_os_error(*number))
}

/// The highest error number (errno(3): EHWPOISON).
const ERRNO_MAX: i32 = 133;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_only_named_gets_the_kernels_words() {
        let other = LibcontainerError::Other("nothing".into());
        let said = |text| in_words(text, &other);
        assert_eq!(
            said("no groups err=ENOMEM"),
            "no groups err=ENOMEM: Cannot allocate memory (os error 12)"
        );
        let busy = "x err=Nix(EBUSY) y: Device or resource busy (os error 16)";
        assert_eq!(said("x err=Nix(EBUSY) y"), busy);
        assert_eq!(said("EXEC of ERROR failed"), "EXEC of ERROR failed");
        let silent = LibcontainerError::OtherIO(io::Error::from_raw_os_error(24));
        let told = "io error: Too many open files (os error 24)";
        assert_eq!(
            in_words("io error of EMFILE", &silent).split(": ").last(),
            told.split(": ").last()
        );
        assert_eq!(in_words(told, &silent), told);
    }
}
