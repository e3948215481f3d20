//! `pod.json`: the pod as it is, and where it lives. Written before the shim starts, and replaced by
//! the shim when the pod is changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bundles::layout::Layout;
use bundles::manifest::Object;
use bundles::objects::Objects;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::log::Rotation;
use serde::{Deserialize, Serialize};

use super::compile::containers;

/// `--pull` of `podshim run`: overrides every `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PullOverride {
    /// Ask the registry at each start.
    Always,
    /// Pull only what is not here.
    Missing,
    /// Use only what is here.
    Never,
    /// Ask once; use what is here if the registry cannot be reached.
    Newer,
}

/// Who takes the pod down when it is done: a process, known by more than its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> anyhow::Result<Owner> {
        let pid = i32::try_from(std::process::id())?;
        let start_ticks = start_ticks(pid).context("cannot read this process's start time")?;
        Ok(Owner { pid, start_ticks })
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// Field 22 of `/proc/<pid>/stat`; the second field, in brackets, may hold anything.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// `--network bridge` of `podshim run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// `--pod-cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
}

/// What a pod is made from, and what a change of it brings anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// See [`PodFile::pod`].
    pub pod: Pod,
    /// See [`PodFile::objects`].
    pub objects: Objects,
    /// See [`PodFile::always_written`].
    pub always_written: Vec<usize>,
    /// See [`PodFile::at_start`].
    pub at_start: Vec<usize>,
}

impl Definition {
    /// That of a pod among the ConfigMaps and Secrets of its manifests.
    pub fn of(pod: Pod, objects: &[Object]) -> Definition {
        let spec = pod.spec.clone().unwrap_or_default();
        let indexes = |which: &dyn Fn(&Container) -> bool| -> Vec<usize> {
            let all = containers(&spec).enumerate().filter(|(_, c)| which(c));
            all.map(|(index, _)| index).collect()
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Definition {
            objects: Objects::of_namespace(objects, namespace).of_pod(&spec),
            always_written: indexes(&|c| c.image_pull_policy.as_deref() == Some("Always")),
            at_start: indexes(&|c| bundles::mounts::depend_on_others(&spec, c, &|p| p.exists())),
            pod,
        }
    }
}

/// What a container was before it was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OldDefinition {
    /// Whose.
    pub c: usize,
    /// The first incarnation that was made from a later one.
    pub before: u32,
    /// What it was.
    pub container: Container,
}

/// Everything that a shim is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodFile {
    /// The pod, with uid and with defaults applied.
    pub pod: Pod,
    /// Which making of the pod's live directory this is: another one means that all that lived is gone.
    #[serde(default)]
    pub life: String,
    /// The pod as it was first, if a podshim changed it whose journals (format 0) do not say that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<plan::Pod>,
    /// The change that made it what it is, if there was one: its journal may not have it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<plan::Fact>,
    /// Definitions that it has no more, and of which something may exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<OldDefinition>,
    /// The ConfigMaps and Secrets that it refers to.
    #[serde(default)]
    pub objects: Objects,
    /// `--root`.
    pub root: PathBuf,
    /// `--state`.
    pub state: PathBuf,
    /// `--log-dir`.
    pub logs: PathBuf,
    /// Where the network of the host's pods is remembered.
    pub network_state: PathBuf,
    /// The network that it is on, unless it has only a loopback, or the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<PodNetwork>,
    /// `--pull`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullOverride>,
    /// Indexes (inits first, then mains) of the containers whose `imagePullPolicy: Always` was
    /// written and not defaulted.
    #[serde(default)]
    pub always_written: Vec<usize>,
    /// `--max-container-restart-period`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_delay_max_s: Option<u32>,
    /// How its containers' logs are rotated.
    #[serde(default)]
    pub rotation: Rotation,
    /// Whether its owner wants its timeline at the end.
    #[serde(default)]
    pub timeline: bool,
    /// Indexes of the containers whose mounts depend on what the containers before them write.
    #[serde(default)]
    pub at_start: Vec<usize>,
    /// The variables that a pull looks at, as the user had them: a shim has no environment, and its
    /// pulls are to find the user's logins and proxies.
    #[serde(default)]
    pub pull_environment: BTreeMap<String, String>,
    /// The `podshim run` that made it; `None` if it is the daemon's, which may come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl PodFile {
    /// Whether it is the daemon's, and outlives its processes and its host's boot.
    pub fn is_kept(&self) -> bool {
        self.owner.is_none()
    }

    /// Whether somebody lives who gives the pod a new keeper if it loses its own.
    pub fn has_owner(&self) -> bool {
        match &self.owner {
            Some(owner) => owner.is_alive(),
            None => UnixStream::connect(self.layout().daemon_socket()).is_ok(),
        }
    }

    /// The directories of the instance that the pod belongs to.
    pub fn layout(&self) -> Layout {
        Layout {
            root: self.root.clone(),
            state: self.state.clone(),
            logs: self.logs.clone(),
            network: self.network_state.clone(),
        }
    }

    /// What the pod is made from.
    pub fn definition(self) -> Definition {
        let PodFile { pod, objects, always_written, at_start, .. } = self;
        Definition { pod, objects, always_written, at_start }
    }

    /// Reads a pod's file.
    pub fn read(path: &Path) -> anyhow::Result<PodFile> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a pod's file", path.display()))
    }

    /// Writes it beside the file that it is to replace, and gives its path.
    pub fn stage(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let staged = path.with_extension("new");
        // One that was left by a failure.
        let _ = fs::remove_file(&staged);
        let written = self.write(&staged);
        written.inspect_err(|_| {
            let _ = fs::remove_file(&staged);
        })?;
        Ok(staged)
    }

    /// Writes it, readable for root only: environments hold secrets.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self)?;
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_another_start_time_is_not() {
        let me = Owner::this().expect("start time");
        assert!(me.is_alive());
        assert!(!Owner { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }
}
