//! Running the programs that firewalls are spoken to with.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A program that a firewall needs did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not there.
    #[error("the program {program} is missing; install the package {package}")]
    Missing {
        /// Which.
        program: &'static str,
        /// What Debian and Ubuntu call its package.
        package: &'static str,
    },
    /// It cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{} refused to {what}: {said}", program.display())]
    Refused {
        /// Which.
        program: PathBuf,
        /// What it was asked.
        what: String,
        /// Its last words.
        said: String,
    },
}

/// Where system programs lie even if `PATH` does not say so, as a user's often does not.
const PLACES: [&str; 6] =
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Looks for a program in the system's directories and then in `PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = PLACES.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    places.filter(|place| place.is_absolute()).map(|place| place.join(name)).find(|p| p.is_file())
}

/// A program with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub PathBuf);

impl Program {
    /// The nftables program.
    ///
    /// # Errors
    /// It is not installed.
    pub fn nft() -> Result<Program, ProgramError> {
        let missing = ProgramError::Missing { program: "nft", package: "nftables" };
        find("nft").map(Program).ok_or(missing)
    }

    /// Asks it something, and gives what it wrote to standard output.
    ///
    /// # Errors
    /// It cannot be run, or ended with another code than 0.
    pub fn ask<S: AsRef<OsStr>>(
        &self,
        what: &str,
        arguments: &[S],
    ) -> Result<Vec<u8>, ProgramError> {
        let output = self.output(arguments, "", Stdio::piped())?;
        self.judge(what, output).map(|output| output.stdout)
    }

    /// Has it change something. `lock` becomes its standard output, of which it makes no use: so the
    /// lock is held until it has ended, also if we are killed meanwhile, and whoever comes next does
    /// not find a change that is still to happen.
    ///
    /// # Errors
    /// It cannot be run, or ended with another code than 0.
    pub fn change<S: AsRef<OsStr>>(
        &self,
        what: &str,
        arguments: &[S],
        input: &str,
        lock: &File,
    ) -> Result<(), ProgramError> {
        let output = self.output(arguments, input, self.held(lock)?)?;
        self.judge(what, output).map(drop)
    }

    /// Like [`Program::change`], but tells by its exit code whether there was something to change.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn succeeds<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        lock: &File,
    ) -> Result<bool, ProgramError> {
        Ok(self.output(arguments, "", self.held(lock)?)?.status.success())
    }

    fn held(&self, lock: &File) -> Result<Stdio, ProgramError> {
        let lock = lock.try_clone();
        lock.map(Stdio::from)
            .map_err(|source| ProgramError::Run { program: self.0.clone(), source })
    }

    fn judge(&self, what: &str, output: Output) -> Result<Output, ProgramError> {
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(ProgramError::Refused { program: self.0.clone(), what: what.into(), said })
    }

    fn output<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        input: &str,
        stdout: Stdio,
    ) -> Result<Output, ProgramError> {
        let run = || {
            let mut child = Command::new(&self.0)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()?;
            // These programs read all of their input before they say anything. One that ended early
            // says why by its exit code.
            if let Some(mut stdin) = child.stdin.take() {
                match stdin.write_all(input.as_bytes()) {
                    Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                        let _ = child.wait();
                        return Err(e);
                    }
                    _ => {}
                }
            }
            child.wait_with_output()
        };
        run().map_err(|source| ProgramError::Run { program: self.0.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted_in_one_line() {
        let shell = Program(find("sh").expect("a shell"));
        let script = "echo first >&2; echo second >&2; exit 3";
        let error = shell.ask("do it", &["-c", script]).expect_err("fails").to_string();
        assert!(error.ends_with("sh refused to do it: first second"), "{error}");
        assert_eq!(shell.ask("say", &["-c", "echo word"]).expect("runs"), b"word\n");
        assert_eq!(find("podshim-no-such-program"), None);
    }

    #[test]
    fn a_program_reads_its_input_and_holds_the_lock() {
        let shell = Program(find("sh").expect("a shell"));
        let lock = tempfile::tempfile().expect("a file");
        shell.change("read", &["-c", "test $(cat) = input"], "input", &lock).expect("reads");
        let script = "exec 3>&1; test $(stat -Lc %i /proc/self/fd/3) = ";
        let inode = std::os::unix::fs::MetadataExt::ino(&lock.metadata().expect("metadata"));
        assert!(shell.succeeds(&["-c", &format!("{script}{inode}")], &lock).expect("runs"));
    }
}
