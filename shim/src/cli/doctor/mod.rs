//! `podshim doctor`: what this host lacks, what will not work because of it, and what mends it.
//!
//! It tries what can be tried (namespaces, an overlay, a sealed copy) instead of looking for signs of
//! it, in namespaces of its own, and leaves nothing.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anstyle::{AnsiColor, Style};
use bundles::capability::CapSet;
use bundles::layout::Layout;
use bundles::volume;
use k8s_openapi::api::core::v1::PodSpec;
use nix::sched::{CloneFlags, unshare};

use super::terminal::{Output, colour_wanted, complain, printable};
use super::{DoctorArgs, FAILED};
use checks::{Facts, Finding, Verdict, examine};

mod checks;

/// Prints all findings. The exit code is 1 if no pod can run here.
pub fn doctor(layout: &Layout, args: &DoctorArgs) -> anyhow::Result<i32> {
    let found = examine(&facts(layout));
    let mut output = Output::default();
    if args.output.is_some() {
        output.line(serde_json::to_string_pretty(&found)?);
    } else {
        let colour = colour_wanted(&io::stdout());
        found.iter().for_each(|finding| print(&mut output, finding, colour));
    }
    output.end()?;
    let worst = found.iter().map(|f| f.verdict).max();
    Ok(if worst == Some(Verdict::Bad) { FAILED } else { 0 })
}

/// What a run may have failed for besides what makes every pod impossible.
const MAY_STOP_A_RUN: [&str; 4] = ["cgroups", "disk", "inotify", "nft"];

/// Names what is wrong with this host, after a run that has failed. Another process looks, because the
/// doctor leaves the namespaces of its own.
pub fn after_a_failure(layout: &Layout) {
    let asked = Command::new("/proc/self/exe")
        .arg("doctor")
        .arg("--output=json")
        .args([OsStr::new("--root"), layout.root.as_os_str()])
        .args([OsStr::new("--state"), layout.state.as_os_str()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    // It only adds to what was said: if it cannot look, nothing is lost.
    let found: Vec<serde_json::Value> =
        asked.ok().and_then(|said| serde_json::from_slice(&said.stdout).ok()).unwrap_or_default();
    for finding in &found {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let is_named = text("verdict") == "bad"
            || (text("verdict") == "warning" && MAY_STOP_A_RUN.contains(&text("subject")));
        if is_named {
            let (subject, found) = (text("subject"), text("found"));
            let said = format!("the doctor finds: {subject} {found}; so {}", text("effect"));
            complain(&format!("{said}; mend: {}", text("remedy")));
        }
    }
}

fn print(output: &mut Output, finding: &Finding, colour: bool) {
    let (word, shade) = match finding.verdict {
        Verdict::Good => ("good", AnsiColor::Green),
        Verdict::Warning => ("warning", AnsiColor::Yellow),
        Verdict::Bad => ("bad", AnsiColor::Red),
    };
    let style = if colour { Style::new().fg_color(Some(shade.into())) } else { Style::new() };
    let found = printable(&finding.found);
    output.line(format_args!("{style}{word:7}{style:#}  {:12}  {found}", finding.subject));
    for (key, text) in [("so", &finding.effect), ("mend", &finding.remedy)] {
        if let Some(text) = text {
            output.line(format_args!("{:23}{key}: {text}", ""));
        }
    }
}

fn facts(layout: &Layout) -> Facts {
    let root = rustix::process::geteuid().is_root();
    let host = runtime::host::read();
    // Before the namespaces are tried: afterwards this process is in others.
    let nft = runtime::network::nft_works().map_err(|e| runtime::chain(&e));
    let firewalls = runtime::network::other_firewalls().unwrap_or_default();
    let cgroups = cgroups();
    let namespaces = try_namespaces();
    Facts {
        root,
        kernel: kernel(),
        cgroups,
        overlay: namespaces.clone().and_then(|()| try_overlay(&layout.root)),
        namespaces,
        sealed_copy: runtime::seal::own_binary(&layout.root).map(drop).map_err(|e| e.to_string()),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        capabilities: host.as_ref().map_or(CapSet::EMPTY, |host| host.capabilities),
        nft,
        firewalls,
        resolver: resolver(),
        free_bytes: free_bytes(&layout.root),
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
        swap_accounting: host.is_ok_and(|host| host.swap_accounting) || !has_swap(),
    }
}

fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn cgroups() -> Result<(&'static str, BTreeSet<String>), String> {
    let cgroups = runtime::cgroup::detect().map_err(|e| runtime::chain(&e))?;
    let version = match cgroups.version() {
        runtime::cgroup::Version::V1 => "v1",
        runtime::cgroup::Version::V2 => "v2",
    };
    Ok((version, cgroups.controllers().map_err(|e| runtime::chain(&e))?))
}

/// Those of a pod, made for this process: it ends soon.
fn try_namespaces() -> Result<(), String> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|e| format!("cannot be made: {e}"))
}

/// In the mount namespace that was just made: it goes with this process.
fn try_overlay(root: &Path) -> Result<(), String> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let text =
        |e: &dyn std::fmt::Display| format!("cannot be mounted below {}: {e}", root.display());
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(|e| text(&e))?;
    fs::create_dir_all(root).map_err(|e| text(&e))?;
    let dir = root.join(format!(".doctor-{}", std::process::id()));
    let tried = (|| -> io::Result<()> {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let options =
            format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", dir.display());
        let options = std::ffi::CString::new(options)?;
        mount("overlay", dir.join("merged"), "overlay", MountFlags::empty(), Some(&*options))?;
        fs::write(dir.join("merged/file"), "x")?;
        rustix::mount::unmount(dir.join("merged"), rustix::mount::UnmountFlags::empty())?;
        Ok(())
    })();
    let _ = fs::remove_dir_all(&dir);
    let _ = fs::remove_dir(root);
    tried.map_err(|e| text(&e))
}

fn resolver() -> Vec<String> {
    let text = |path: &str| fs::read_to_string(path).ok();
    let host = text("/etc/resolv.conf").unwrap_or_default();
    let upstream = text(crate::pod::sandbox::SYSTEMD_RESOLVED);
    volume::host_resolver(&PodSpec::default(), &host, upstream.as_deref()).warnings
}

/// Of the nearest directory that is there.
fn free_bytes(root: &Path) -> Option<u64> {
    let there = root.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}
