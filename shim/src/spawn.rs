//! Making a pod: its name, its directories, its file, and the shim that is it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use bundles::layout::{DIAGNOSTICS, Layout, PodDir};
use bundles::manifest::Object;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use runtime::log::Rotation;
use runtime::state_dir::{self, make_dir};

use crate::pod::compile::containers;
use crate::pod::file::{Definition, Owner, PodFile, PodNetwork, PullOverride};
use crate::pod::scrap::{self, Stays};

/// What a user wants of all pods of one `podshim run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--pull`.
    pub pull: Option<PullOverride>,
    /// The network that they are on.
    pub network: Option<PodNetwork>,
    /// Whether each is to send its timeline at its end.
    pub timeline: bool,
    /// `--max-container-restart-period`, in seconds.
    pub restart_delay_max_s: Option<u32>,
    /// How their logs are rotated.
    pub rotation: Rotation,
}

/// What all pods of one `podshim run`, or of a daemon, have in common.
pub struct Spawner {
    layout: Layout,
    /// This process, if they end with it.
    owner: Option<Owner>,
    /// The ConfigMaps and Secrets of the manifests.
    objects: Vec<Object>,
    options: Options,
    /// Our own binary, sealed: every shim is executed from this one copy.
    binary: OwnedFd,
}

/// A pod that was just made.
pub struct Spawned {
    /// `metadata.uid`.
    pub uid: String,
    /// The pod with its uid.
    pub pod: Pod,
    /// The shim.
    pub child: Child,
    /// The channel to it.
    pub channel: UnixStream,
    /// The log directory of each container, inits first.
    pub logs: Vec<(String, PathBuf)>,
}

impl Spawner {
    /// Seals the binary. Pods end with this process.
    pub fn new(layout: Layout, objects: Vec<Object>, options: Options) -> anyhow::Result<Spawner> {
        let owner = Some(Owner::this()?);
        Ok(Spawner { owner, objects, ..Spawner::of_daemon(layout, options)? })
    }

    /// Seals the binary. Pods outlive this process.
    pub fn of_daemon(layout: Layout, options: Options) -> anyhow::Result<Spawner> {
        make_dir(&layout.root, 0o700)?;
        let binary = runtime::seal::own_binary(&layout.root)
            .context("cannot make a sealed copy of podshim (is vm.memfd_noexec 2?)")?;
        Ok(Spawner { layout, owner: None, objects: Vec::new(), options, binary })
    }

    /// The directories of this instance.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes the pod and starts its shim.
    pub fn spawn(&self, mut pod: Pod) -> anyhow::Result<Spawned> {
        let uid = new_uid()?;
        pod.metadata.uid = Some(uid.clone());
        pod.metadata.creation_timestamp = time(runtime::clock::now().wall);
        let file = self.pod_file(pod, &self.objects)?;
        let pod = file.pod.clone();
        let (child, channel) = self.make(&uid, &file, |dir| self.keep_owned(dir))?;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let logs = self.layout.pod_logs(&namespace, &name, &uid);
        let spec = pod.spec.clone().unwrap_or_default();
        let logs = containers(&spec).map(|c| (c.name.clone(), logs.join(&c.name))).collect();
        Ok(Spawned { uid, pod, child, channel, logs })
    }

    /// Makes a pod that has its uid, and starts a shim that outlives this process.
    pub fn spawn_kept(&self, pod: Pod, objects: &[Object]) -> anyhow::Result<Child> {
        runtime::cgroup::expect_moves();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let file = self.pod_file(pod, objects)?;
        self.make(&uid, &file, |dir| self.keep(dir, None))
    }

    fn make<T>(
        &self,
        uid: &str,
        file: &PodFile,
        start: impl FnOnce(&Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let dir = self.layout.pod(uid);
        let meta = &file.pod.metadata;
        let made = {
            let held = state_dir::lock(&self.layout)?;
            state_dir::enter(&self.layout, &held)?;
            let field = |f: &Option<String>| f.clone().unwrap_or_default();
            self.take_name(&field(&meta.namespace), &field(&meta.name), uid)?;
            make_dirs(&dir, file)
        };
        let made = made
            .and_then(|()| file.write(&dir.spec()))
            .and_then(|()| self.make_log_dirs(file))
            .and_then(|()| start(&dir.dir));
        made.inspect_err(|_| {
            // Nothing runs yet: what was made is taken back, and not what was there before.
            let stays = if file.is_kept() { Stays::Kept } else { Stays::Nothing };
            if let Err(left) = scrap::unmade(&self.layout, uid, stays) {
                tracing::warn!("{left:#}");
            }
        })
    }

    fn pod_file(&self, pod: Pod, objects: &[Object]) -> anyhow::Result<PodFile> {
        let Definition { pod, objects, always_written, at_start } = Definition::of(pod, objects);
        Ok(PodFile {
            objects,
            pod,
            life: new_uid()?,
            origin: None,
            changed: None,
            superseded: Vec::new(),
            root: self.layout.root.clone(),
            state: self.layout.state.clone(),
            logs: self.layout.logs.clone(),
            network_state: self.layout.network.clone(),
            network: self.options.network.clone(),
            restart_delay_max_s: self.options.restart_delay_max_s,
            rotation: self.options.rotation,
            timeline: self.options.timeline,
            pull: self.options.pull,
            always_written,
            at_start,
            pull_environment: crate::cli::registries::environment(),
            owner: self.owner.clone(),
        })
    }

    fn take_name(&self, namespace: &str, name: &str, uid: &str) -> anyhow::Result<()> {
        let link = self.layout.name(namespace, name);
        match std::os::unix::fs::symlink(uid, &link) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "pods {name:?} already exists in namespace {namespace:?} (`podshim get pods -n \
                 {namespace}` shows it; if its `podshim run` is dead, `podshim prune` frees the name)"
            ),
            Err(e) => Err(e).with_context(|| format!("cannot make {}", link.display())),
        }
    }

    /// A new keeper, and with it a new shim, for a pod of ours whose keeper and shim are dead.
    pub fn adopt(&self, uid: &str) -> anyhow::Result<(Child, UnixStream)> {
        self.keep_owned(&self.layout.pod(uid).dir)
    }

    /// The same for a pod that outlives this process.
    pub fn adopt_kept(&self, uid: &str) -> anyhow::Result<Child> {
        self.keep(&self.layout.pod(uid).dir, None)
    }

    fn keep_owned(&self, dir: &Path) -> anyhow::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a channel to the shim")?;
        Ok((self.keep(dir, Some(theirs))?, ours))
    }

    fn keep(&self, dir: &Path, channel: Option<UnixStream>) -> anyhow::Result<Child> {
        let log = fs::File::options().append(true).create(true).open(dir.join(DIAGNOSTICS));
        let log = log.context("cannot make the shim's log")?;
        // Until it has a session of its own, the terminal's Ctrl-C would kill it; it unblocks them itself.
        let blocked: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let before = blocked
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals for the pod's shim")?;
        let mut command = Command::new(format!("/proc/self/fd/{}", self.binary.as_raw_fd()));
        command.arg0("podshim").arg("keep");
        if channel.is_some() {
            command.arg("--owned");
        }
        let child = command
            .arg(dir)
            .env_clear()
            .stdin(channel.map_or_else(Stdio::null, |channel| Stdio::from(OwnedFd::from(channel))))
            .stdout(log.try_clone().context("cannot share the shim's log")?)
            .stderr(log)
            .spawn();
        before.thread_set_mask().context("cannot unblock signals")?;
        child.context("cannot start the pod's shim")
    }

    /// They are made here so that they can be watched before anything is in them.
    fn make_log_dirs(&self, file: &PodFile) -> anyhow::Result<()> {
        let meta = &file.pod.metadata;
        let field = |f: &Option<String>| f.clone().unwrap_or_default();
        let pod =
            self.layout.pod_logs(&field(&meta.namespace), &field(&meta.name), &field(&meta.uid));
        make_dir(&self.layout.log_records(), 0o700)?;
        let record = self.layout.log_records().join(field(&meta.uid));
        // A pod that is made again has it.
        if fs::read_link(&record).ok().as_ref() != Some(&pod) {
            link(&pod, &record)?;
        }
        let spec = file.pod.spec.clone().unwrap_or_default();
        for container in containers(&spec) {
            make_dir(&pod.join(&container.name), 0o755)?;
        }
        Ok(())
    }
}

fn make_dirs(dir: &PodDir, file: &PodFile) -> anyhow::Result<()> {
    make_dir(&dir.kept, 0o700)?;
    link(&dir.dir, &dir.live())?;
    make_dir(&dir.dir, 0o700)?;
    if file.is_kept() {
        link(&dir.kept_journal(), &dir.journal())?;
    }
    Ok(())
}

fn link(to: &Path, at: &Path) -> anyhow::Result<()> {
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot make {}", at.display()))
}

fn time(wall: plan::Wall) -> Option<Time> {
    serde_json::from_value(wall.rfc3339().into()).ok()
}

/// A version 4 UUID (RFC 9562).
pub fn new_uid() -> anyhow::Result<String> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Random bytes.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let uid = new_uid().expect("uid");
        assert!(scrap::is_uid(&uid));
        assert_eq!(&uid[14..15], "4");
    }
}
