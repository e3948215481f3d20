//! The last steps inside the container: seccomp filter, capabilities, execve.
//!
//! libcontainer leaves the init with the container's final capabilities plus CAP_SYS_ADMIN and
//! CAP_SETPCAP. With these a filter can be loaded without no_new_privs, which Kubernetes does not
//! set unless told. The filter comes first, then the five capability sets get their final values,
//! then the program runs. The same steps end an exec into a running container.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bundles::oci::FinalProcess;
use caps::{CapSet, Capability, CapsHashSet};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};

use super::StartFailure;
use crate::chain;
use crate::seccomp::{self, Filter};
use crate::sys::process::{close_all_but, exit_now};

/// What the init does when it is started.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The process as the container is to have it.
    pub process: Arc<FinalProcess>,
    /// Its seccomp filter; none if unconfined.
    pub filter: Option<Arc<Filter>>,
    /// The start pipe's writing end; close-on-exec.
    pub started: Arc<OwnedFd>,
}

impl Executor for Payload {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        // libcontainer's are close-on-exec, but a program is looked for before they are closed, and
        // `/proc/self/fd` leads through them.
        let closed = close_all_but(&[self.started.as_raw_fd()])
            .map_err(|e| plain(format!("cannot close inherited descriptors: {e}")));
        let failure = match closed.and_then(|()| run(&self.process, self.filter.as_deref())) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        report(std::os::fd::AsFd::as_fd(&*self.started), &failure);
        exit_now(128)
    }

    /// Whether the program can be executed is found out by executing it: until then a volume may
    /// still get it.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is given to execve, in its order; that of this process is not touched.
    fn setup_envs(
        &self,
        _envs: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Sends a failure through a start pipe. If the shim is gone there is nobody to tell.
pub fn report(pipe: BorrowedFd<'_>, failure: &StartFailure) {
    let message = serde_json::to_vec(&failure.short()).unwrap_or_default();
    let _ = rustix::io::write(pipe, &message);
}

/// A look at where it is, filter, capabilities, execve.
///
/// # Errors
/// Why the program does not run.
pub fn run(process: &FinalProcess, filter: Option<&Filter>) -> Result<Infallible, StartFailure> {
    stay_inside()?;
    // The change of user may have undone it (prctl(2), fs.suid_dumpable).
    hide_memory()?;
    if let Some(filter) = filter {
        seccomp::load(filter)
            .map_err(|e| plain(format!("cannot load the seccomp filter: {}", chain(&e))))?;
    }
    set_capabilities(process)?;
    execute(process)
}

/// Hides this process's memory and descriptors from others, also from root of a container that it
/// enters (ptrace(2), "access mode checking"): until its execve it is a copy of the shim.
pub fn hide_memory() -> Result<(), StartFailure> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| plain(format!("cannot hide its memory: {e}")))
}

/// Refuses a working directory that cannot be reached from the container's root (CVE-2024-21626). The
/// kernel says so with a path that does not begin with a slash (getcwd(2)); the C library's function
/// would walk up instead, and take the root of another mount of the same file system for `/`.
fn stay_inside() -> Result<(), StartFailure> {
    let directory = rustix::process::getcwd(Vec::new())
        .map_err(|e| plain(format!("cannot tell the working directory: {e}")))?;
    if !directory.as_bytes().starts_with(b"/") {
        return Err(plain("the working directory is outside of the container".into()));
    }
    Ok(())
}

fn plain(message: String) -> StartFailure {
    StartFailure { message, errno: None }
}

/// Inheritable and ambient empty, bounding, permitted and effective final. The bounding set goes
/// first: dropping from it needs CAP_SETPCAP.
fn set_capabilities(process: &FinalProcess) -> Result<(), StartFailure> {
    let failed = |e: caps::errors::CapsError| plain(format!("cannot set capabilities: {e}"));
    let wanted: CapsHashSet = process
        .capabilities
        .names()
        .iter()
        .map(|name| name.parse::<Capability>())
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    for capability in caps::runtime::thread_all_supported() {
        if !wanted.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &wanted).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &wanted).map_err(failed)
}

/// execve(2), with a search in the container's own `PATH` if the name has no slash. A program that
/// may not be executed is reported only if no later directory has one that may (execvp(3)).
fn execute(process: &FinalProcess) -> Result<Infallible, StartFailure> {
    let strings = |list: &[String]| -> Result<Vec<CString>, StartFailure> {
        list.iter()
            .map(|s| CString::new(s.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_| plain("an argument or variable contains a NUL byte".into()))
    };
    let (argv, envp) = (strings(&process.argv)?, strings(&process.env)?);
    let Some(program) = process.argv.first() else {
        return Err(plain("no command is specified".into()));
    };
    let path = process.env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or_default();
    let mut worst = nix::errno::Errno::ENOENT;
    for candidate in candidates(program, path) {
        let Ok(file) = CString::new(candidate) else { continue };
        let errno = match nix::unistd::execve(&file, &argv, &envp) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        use nix::errno::Errno::{EACCES, ENOENT, ENOTDIR};
        match errno {
            ENOENT | ENOTDIR => {}
            EACCES => worst = EACCES,
            other => return Err(not_executed(program, other)),
        }
    }
    Err(not_executed(program, worst))
}

fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':')
        .map(|dir| if dir.is_empty() { "." } else { dir })
        .map(|dir| format!("{dir}/{program}"))
        .collect()
}

fn not_executed(program: &str, errno: nix::errno::Errno) -> StartFailure {
    let message = match errno {
        nix::errno::Errno::ENOENT if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        _ => format!("exec: {program:?}: {}", errno.desc().to_lowercase()),
    };
    StartFailure { message, errno: Some(errno as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_searched_in_path() {
        assert_eq!(candidates("sh", "/bin::/usr/bin"), ["/bin/sh", "./sh", "/usr/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
    }

    #[test]
    fn a_program_that_is_not_there_says_so_with_its_errno() {
        for name in ["x", "\u{1}", "ä", "\""].map(|c| c.repeat(100_000)) {
            let short = not_executed(&name, nix::errno::Errno::ENOENT).short();
            let encoded = serde_json::to_vec(&short).unwrap();
            assert!(encoded.len() <= super::super::MESSAGE_MAX_BYTES, "{}", encoded.len());
        }
        let failure = not_executed("nope", nix::errno::Errno::ENOENT);
        assert_eq!(failure.errno, Some(libc::ENOENT));
        assert_eq!(failure.message, "exec: \"nope\": executable file not found in $PATH");
    }
}
