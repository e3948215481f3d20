//! `podshim bundle`: the containers of manifests as OCI bundles that stand alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bundles::host::Host;
use bundles::image::{Hold, Image, Reference, Store};
use bundles::layout::{Layout, PodDir};
use bundles::manifest::Object;
use bundles::objects::Objects;
use bundles::security::{self, Seccomp};
use bundles::standalone::{Alone, LinuxSeccomp};
use bundles::volume::{self, Medium};
use clap::Args;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use runtime::cgroup::Cgroups;
use runtime::standalone::{self, Order};
use runtime::{clock, state_dir};

use super::terminal::{Output, complain};
use super::{CANNOT, PullArgs, images};
use crate::pod::compile::containers;
use crate::pod::sandbox;
use crate::run;
use crate::spawn;
use crate::workload::give_name;

/// `podshim bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Files, directories, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the bundles go: DIR/POD/CONTAINER; what pods share is in DIR/POD/_pod
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Fields without effect are errors, not warnings
    #[arg(long)]
    strict: bool,
}

/// No container has such a name.
const SHARED: &str = "_pod";

/// Writes the bundles and prints their directories in the order in which a pod starts them.
pub fn bundle(layout: &Layout, args: &BundleArgs) -> anyhow::Result<i32> {
    let Some((objects, read)) = run::objects_of(&args.files, args.strict)? else {
        return Ok(CANNOT);
    };
    let pods = objects.iter().map(pod_of).collect::<anyhow::Result<Vec<Option<Pod>>>>()?;
    let pods: Vec<Pod> = pods.into_iter().flatten().collect();
    let out = std::path::absolute(&args.output)
        .with_context(|| format!("cannot use {}", args.output.display()))?;
    let mut writer = Writer {
        layout,
        objects: &read,
        host: sandbox::host()?,
        cgroups: runtime::cgroup::detect()?,
        store: Store::open(&layout.images())?,
        output: Output::default(),
    };
    let images = pods.iter().map(|pod| writer.images(pod)).collect::<anyhow::Result<Vec<_>>>()?;
    // Images are copied in the sight of this process alone, and no thread is left of the pulls.
    standalone::leave_mounts_of_the_host()?;
    state_dir::make_dir(&out, 0o700)?;
    for (pod, images) in pods.iter().zip(images) {
        let dir = out.join(pod.metadata.name.as_deref().unwrap_or_default());
        fs::create_dir(&dir).with_context(|| {
            format!("cannot make {}: it must be new, so that nothing is lost", dir.display())
        })?;
        if let Err(e) = writer.pod(&dir, pod, &images) {
            if let Err(left) = bundles::tree::remove(&dir) {
                complain(&format!("cannot remove {}: {left}", dir.display()));
            }
            return Err(e);
        }
    }
    writer.output.end()?;
    Ok(0)
}

/// The pod, or one of those that a workload would make, under the workload's name.
fn pod_of(object: &Object) -> anyhow::Result<Option<Pod>> {
    if let Object::Pod(pod) = object {
        let mut pod = (**pod).clone();
        give_name(&mut pod.metadata)?;
        return Ok(Some(pod));
    }
    let Some(template) = object.template().cloned() else { return Ok(None) };
    let mut pod =
        Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
    let of = object.metadata();
    pod.metadata.name.clone_from(&of.name);
    pod.metadata.generate_name.clone_from(&of.generate_name);
    pod.metadata.namespace.clone_from(&of.namespace);
    give_name(&mut pod.metadata)?;
    Ok(Some(pod))
}

struct Writer<'a> {
    layout: &'a Layout,
    /// ConfigMaps and Secrets of the manifests.
    objects: &'a [Object],
    host: Host,
    cgroups: Cgroups,
    store: Store,
    output: Output,
}

impl Writer<'_> {
    /// The images of a pod's containers, pulled if they are not here.
    fn images(&self, pod: &Pod) -> anyhow::Result<Vec<(Image, Hold)>> {
        let spec = pod.spec.clone().unwrap_or_default();
        containers(&spec).map(|c| self.image(c.image.as_deref().unwrap_or_default())).collect()
    }

    fn image(&self, name: &str) -> anyhow::Result<(Image, Hold)> {
        let reference = Reference::parse(name)?;
        let find = || self.store.resolve_held(&reference, "podshim bundle");
        if let Some(found) = find()? {
            return Ok(found);
        }
        images::pull(self.layout, &PullArgs::of(name))?;
        find()?.with_context(|| format!("image {name} is not here"))
    }

    fn pod(&mut self, out: &Path, pod: &Pod, images: &[(Image, Hold)]) -> anyhow::Result<()> {
        let mut pod = pod.clone();
        pod.metadata.uid = Some(spawn::new_uid()?);
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let objects = Objects::of_namespace(self.objects, &namespace);
        let shared = out.join(SHARED);
        let dir = PodDir { dir: shared.clone(), pin: shared.join("pin"), kept: shared };
        let wanted = sandbox::wanted(&pod, &self.host)?;
        // On the host's network it has the host's; a network of its own has nothing but a loopback.
        let pod_ips: Vec<String> =
            self.host.host_ip.iter().filter(|_| wanted.host_network).cloned().collect();
        self.shared(&dir, &pod, &spec, &objects, &pod_ips)?;
        for (container, (image, _)) in containers(&spec).zip(images) {
            let bundle = out.join(&container.name);
            let alone = Alone {
                container,
                rootfs: Path::new("rootfs"),
                namespaces: wanted.own(),
                hostname: &wanted.hostname,
                sysctls: &wanted.sysctls,
                seccomp: self.seccomp(&spec, container)?,
            };
            let clamped = standalone::write(&Order {
                pod: &pod,
                objects: &objects,
                image,
                dir: &dir,
                bundle: &bundle,
                host: &self.host,
                cgroups: &self.cgroups,
                pod_ips: &pod_ips,
                alone: &alone,
            })
            .with_context(|| format!("container {}", container.name))?;
            for clamp in clamped {
                complain(&format!("container {}: {clamp}", container.name));
            }
            self.output.line(bundle.display());
        }
        Ok(())
    }

    /// Volumes, all of them directories, and the files that containers share.
    fn shared(
        &self,
        dir: &PodDir,
        pod: &Pod,
        spec: &PodSpec,
        objects: &Objects,
        pod_ips: &[String],
    ) -> anyhow::Result<()> {
        let payloads = sandbox::payloads(pod, objects, &self.host, pod_ips)?;
        for host_path in volume::host_paths(spec) {
            runtime::volume::check_host_path(&host_path)?;
            runtime::volume::make_missing_host_path(&host_path)?;
        }
        runtime::volume::make_shm_directory(dir)?;
        for mut empty_dir in volume::empty_dirs(spec, &self.host)? {
            empty_dir.medium = Medium::Disk;
            runtime::volume::make_empty_dir(dir, &empty_dir)?;
        }
        for payload in &payloads {
            runtime::payload::make(dir, payload, clock::now().wall)?;
        }
        let hosts = dir.shared_file("hosts");
        state_dir::make_dir(hosts.parent().unwrap_or(&dir.dir), 0o755)?;
        for warning in sandbox::write_shared_files(dir, pod, &self.host, pod_ips)? {
            complain(&warning);
        }
        Ok(())
    }

    fn seccomp(
        &self,
        spec: &PodSpec,
        container: &Container,
    ) -> anyhow::Result<Option<LinuxSeccomp>> {
        let security = security::resolve(spec, container, &self.host)?;
        match security.seccomp {
            Seccomp::Unconfined => Ok(None),
            Seccomp::RuntimeDefault => {
                Ok(Some(runtime::seccomp::oci::described(security.capabilities)?))
            }
            Seccomp::Localhost { file } => {
                let path = self.layout.seccomp().join(file);
                // What a pod's container could not have is no use to another runtime either.
                runtime::seccomp::profile::load(&path)?;
                let text =
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let profile = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no seccomp profile", path.display()))?;
                Ok(Some(profile))
            }
        }
    }
}
