//! `podshim shim POD_DIR`: the process that *is* a pod.
//!
//! One thread, one epoll set. It is the parent of the pod's containers, holds the pod's namespaces,
//! carries out the heart's plan and reports facts to it. It decides nothing: what to do comes from
//! [`plan::plan`], and what is true from the facts in its journal.
//!
//! ```text
//! epoll ──► facts ──► journal, fold ──► plan ──► actions ──► facts …
//!                       └─► clients: events, status, what is waited for
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use bundles::layout::Layout;

mod actions;
mod adopt;
mod change;
mod children;
mod clients;
pub mod compile;
mod execs;
pub mod failpoint;
pub mod file;
mod hooks;
mod image;
mod kept;
mod last_words;
mod machine;
pub mod network;
mod notify;
mod output;
pub mod past;
mod probes;
mod requests;
pub mod result;
pub mod sandbox;
pub mod scrap;
mod signals;
mod tokens;
mod upgrade;
mod watch;

pub use image::UNREACHABLE;
pub use machine::Machine;

/// How the keeper starts it.
#[derive(Debug)]
pub struct Start<'a> {
    /// The pod's directory.
    pub pod_dir: &'a Path,
    /// Standard input is the channel to the pod's owner.
    pub owned: bool,
    /// The same process was another version before.
    pub upgraded: bool,
    /// The socket to the keeper.
    pub keeper: i32,
    /// What it holds: `LABEL=NUMBER`.
    pub held: &'a [String],
}

/// Runs a pod to its end.
pub fn run(start: &Start<'_>) -> anyhow::Result<()> {
    let Start { pod_dir, owned, .. } = *start;
    let inheritance = runtime::keeper::inherit(start.keeper, start.held)
        .context("`podshim shim` is started by the pod's keeper")?;
    open_log(pod_dir)?;
    if !runtime::seal::is_sealed() {
        bail!("`podshim shim` is started by podshim itself, from a sealed copy");
    }
    rustix::thread::set_name(c"podshim").context("cannot set the process's name")?;
    // Fails only if this process leads a session already, which is as good.
    let _ = rustix::process::setsid();
    runtime::sys::process::cloexec_all().context("cannot close inherited descriptors on exec")?;
    let owner = if owned { Some(owner_channel()?) } else { None };
    let mut machine = Machine::new(pod_dir, owner, inheritance)
        .with_context(|| format!("cannot take on the pod in {}", pod_dir.display()))?;
    machine.run(start.upgraded)?;
    machine.finish()
}

/// Standard output and error become the shim's own log. The descriptor that warnings go to has another
/// number, because in a creator standard error becomes the container's log.
fn open_log(pod_dir: &Path) -> anyhow::Result<()> {
    let path = pod_dir.join(bundles::layout::DIAGNOSTICS);
    let log = File::options().append(true).create(true).mode(0o600).open(&path);
    let log = log.with_context(|| format!("cannot open {}", path.display()))?;
    rustix::stdio::dup2_stdout(&log).context("cannot redirect standard output")?;
    rustix::stdio::dup2_stderr(&log).context("cannot redirect standard error")?;
    runtime::diagnostics::begin(log);
    Ok(())
}

/// Takes the owner's channel from standard input, which becomes `/dev/null`.
fn owner_channel() -> anyhow::Result<UnixStream> {
    let channel = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("the channel to the owner is missing")?;
    let null = File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot redirect standard input")?;
    Ok(UnixStream::from(channel))
}

/// The last lines of a dead shim.
pub fn diagnostics(layout: &Layout, uid: &str) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(layout.pod(uid).diagnostics()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    if lines.is_empty() { String::new() } else { format!(":\n{}", lines[from..].join("\n")) }
}
