//! What shells and manual readers are given: completion scripts, which ask podshim itself for names of
//! living pods and their containers, and manual pages.

use std::ffi::OsStr;

use anyhow::Context;
use bundles::layout::Layout;
use clap::{CommandFactory, Parser};
use clap_complete::CompletionCandidate;
use clap_complete::env::{Bash, CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use super::terminal::Output;
use super::{Cli, Connection, ManArgs, Shell, names_in, pods};

/// The variable by which a completion script asks.
const VARIABLE: &str = "PODSHIM_COMPLETE";

/// If a completion script asks, answers it and says so.
pub fn answer() -> bool {
    let asked = std::env::var_os(VARIABLE).is_some();
    if asked {
        CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
    }
    asked
}

/// Prints a shell's script.
pub fn script(shell: Shell) -> anyhow::Result<i32> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    };
    let mut text = Vec::new();
    completer
        .write_registration(VARIABLE, "podshim", "podshim", "podshim", &mut text)
        .context("cannot write the script")?;
    let mut output = Output::default();
    output.write(&text);
    output.end()?;
    Ok(0)
}

/// Writes a page for each command.
pub fn man(args: &ManArgs) -> anyhow::Result<i32> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make {}", args.dir.display()))?;
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .with_context(|| format!("cannot write manual pages into {}", args.dir.display()))?;
    Ok(0)
}

/// The directories as far as the environment says; a completion knows no options of its command line.
fn layout() -> Option<Layout> {
    Cli::try_parse_from(["podshim", "doctor"]).ok()?.directories.layout().ok()
}

/// Names of living pods.
pub fn pod_names(begun: &OsStr) -> Vec<CompletionCandidate> {
    let names = layout().and_then(|layout| pods(&layout).ok()).unwrap_or_default();
    candidates(names.into_iter().map(|pod| pod.name), begun)
}

/// Names of containers of living pods.
pub fn container_names(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(layout) = layout() else { return Vec::new() };
    let mut names = Vec::new();
    for pod in pods(&layout).unwrap_or_default() {
        let Ok(object) = Connection::open(&layout, &pod).and_then(|mut c| c.object()) else {
            continue;
        };
        for list in ["initContainers", "containers"] {
            let containers = object["spec"][list].as_array().into_iter().flatten();
            names.extend(containers.filter_map(|c| c["name"].as_str().map(str::to_owned)));
        }
    }
    candidates(names.into_iter(), begun)
}

/// Pods that live, and pods whose logs are still there.
pub fn logged_pod_names(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(layout) = layout() else { return Vec::new() };
    // <namespace>_<name>_<uid>
    let of_log = |dir: String| Some(dir.split('_').nth(1)?.to_owned());
    let logged = names_in(&layout.logs).unwrap_or_default().into_iter().filter_map(of_log);
    candidates(logged, begun)
}

/// What `get -o` takes.
pub fn formats() -> Vec<CompletionCandidate> {
    ["json", "yaml", "wide", "name", "jsonpath="]
        .into_iter()
        .map(CompletionCandidate::new)
        .collect()
}

fn candidates(names: impl Iterator<Item = String>, begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let mut names: Vec<String> = names.filter(|name| name.starts_with(&*begun)).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}
