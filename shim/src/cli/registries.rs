//! How this user pulls: the files and variables that docker and podman read, and their credential
//! helpers, which this module runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bundles::image::registry::Options;
use bundles::image::registry::credentials::{Credentials, HelperAnswer};
use bundles::image::registry::places::{Places, PlacesError};

/// How long a helper may take: some ask a keyring or a cloud.
const HELPER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a helper's answer.
const HELPER_OUTPUT: u64 = 64 << 10;

/// Where certificates of registries lie, in the order of their weight.
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The variables of the environment that a pull looks at: those of docker's and podman's files, of
/// proxies and of certificates, and the way to helpers.
const VARIABLES: [&str; 16] = [
    "DOCKER_CONFIG",
    "HOME",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "CONTAINERS_REGISTRIES_CONF",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// How variables begin that helpers for the clouds' registries read.
const PREFIXES: [&str; 4] = ["AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_"];

/// Those of [`VARIABLES`] and [`PREFIXES`] that are set, for a pull by a process without an environment.
pub fn environment() -> BTreeMap<String, String> {
    let is_ours = |name: &str| {
        VARIABLES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let all = std::env::vars_os();
    let texts =
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| is_ours(name)).collect()
}

/// The options of a pull by this process' user.
pub fn options(plain_http: bool, insecure: bool) -> Result<Options, PlacesError> {
    let variable = |name: &str| -> Option<OsString> { std::env::var_os(name) };
    let uid = rustix::process::geteuid().as_raw();
    Ok(Options {
        places: Places::of(&variable)?,
        credentials: Credentials { helper: Some(ask_helper), ..Credentials::of(&variable, uid) },
        plain_http,
        insecure,
        certificates: CERTIFICATES.map(PathBuf::from).to_vec(),
        ..Options::default()
    })
}

/// Asks `docker-credential-<name>` for the login at `server`.
fn ask_helper(name: &str, server: &str) -> io::Result<HelperAnswer> {
    run_helper(Command::new(format!("docker-credential-{name}")), server, HELPER_TIME)
}

fn run_helper(mut helper: Command, server: &str, time: Duration) -> io::Result<HelperAnswer> {
    let (output, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // What it says on standard error may be anything, so it is not passed on.
    let mut child =
        helper.arg("get").stdin(Stdio::piped()).stdout(theirs).stderr(Stdio::null()).spawn()?;
    // The command holds the pipe's other end.
    drop(helper);
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input may still answer.
        let _ = input.write_all(server.as_bytes());
    }
    let end = Instant::now() + time;
    let result = read_until(&File::from(output), end).and_then(|bytes| {
        let success = wait_until(&mut child, end)?;
        Ok(HelperAnswer { success, output: bytes })
    });
    if result.is_err() {
        // It is ours, it was not waited for, and it has no more to say to us.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn read_until(mut output: &File, end: Instant) -> io::Result<Vec<u8>> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(output, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
            0 => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end")),
            _ => match output.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend(&buffer[..count]),
            },
        }
        if bytes.len() as u64 > HELPER_OUTPUT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it says too much"));
        }
    }
}

fn wait_until(child: &mut Child, end: Instant) -> io::Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, time: Duration) -> io::Result<HelperAnswer> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "helper"]);
        run_helper(command, "r.example", time)
    }

    #[test]
    fn a_helper_is_given_the_word_get_and_the_registry() {
        let answer = shell("echo $1 $(cat)", HELPER_TIME).unwrap();
        assert_eq!((answer.success, &answer.output[..]), (true, &b"get r.example\n"[..]));
        assert!(!shell("exit 1", HELPER_TIME).unwrap().success);
    }

    #[test]
    fn a_helper_without_end_is_ended_and_its_answer_has_a_limit() {
        let short = Duration::from_millis(100);
        for script in ["exec sleep 60", "exec >&-; exec sleep 60"] {
            let error = shell(script, short).map(|a| a.success).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
        let error = shell("exec yes", HELPER_TIME).map(|a| a.success).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
