//! What is mounted where in a container, and in which order.
//!
//! The list that containerd's CRI plugin makes: the kernel's file systems, the files that the pod's
//! containers share, then the volumes; what a volume covers is left out, and parents come before
//! what is mounted in them. Sources are paths in the pod's mount namespace, made by the runtime.
//!
use std::cell::Cell;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use oci_spec::runtime::Mount;

use crate::env::Env;
use crate::expand::expand;
use crate::layout::PodDir;
use crate::oci::CgroupVersion;
use crate::payload;
use crate::security;
use crate::volume::{self, EMPTY_DIR};

/// Why a container's mounts cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A mount of a volume that the pod does not have.
    #[error("volumeMount {mount:?}: the pod has no volume of this name")]
    Volume {
        /// The mount's name.
        mount: String,
    },
    /// A volume of a kind that this release does not make.
    #[error(
        "volume {volume:?}: a volume is an emptyDir, configMap, secret, downwardAPI, projected or \
         hostPath in this release"
    )]
    Kind {
        /// The volume's name.
        volume: String,
    },
    /// A path that nothing can be mounted at.
    #[error(
        "volumeMount {mount:?}: mountPath {path:?} must be a path below /, without ':' and control \
         characters"
    )]
    Path {
        /// The mount's name.
        mount: String,
        /// The path.
        path: String,
    },
    /// A `subPathExpr` with a variable that has no value.
    #[error("volumeMount {mount:?}: missing value for {variable:?} in subPathExpr")]
    Variable {
        /// The mount's name.
        mount: String,
        /// The variable.
        variable: String,
    },
    /// A `subPath` that could lead out of the volume.
    #[error("volumeMount {mount:?}: subPath {path:?} must be relative and must not contain '..'")]
    SubPath {
        /// The mount's name.
        mount: String,
        /// The path.
        path: String,
    },
    /// A setting that this release does not carry out.
    #[error("volumeMount {mount:?}: {field} {value:?} is not supported by this release")]
    Unsupported {
        /// The mount's name.
        mount: String,
        /// The field.
        field: &'static str,
        /// What it is set to.
        value: String,
    },
}

/// What is mounted in a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mounts {
    /// The mounts, in the order in which they are made. Every one has a source.
    pub list: Vec<Mount>,
    /// What has to be bound first, because it is a source of one of them.
    pub sub_paths: Vec<SubPath>,
}

/// A part of a volume that a container has mounted. Containers can change the volume at any time, so
/// it is opened without following a link out of it, and bound by its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// The root of the volume.
    pub volume: PathBuf,
    /// The path below it: relative, without `..`. If nothing is there, it becomes a directory.
    pub path: PathBuf,
    /// Where it is bound.
    pub at: PathBuf,
}

/// Which incarnation of which container has the mounts.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The pod's directories.
    pub dir: &'a PodDir,
    /// The incarnation.
    pub inc: u32,
    /// Which kind of cgroup there is.
    pub cgroup: CgroupVersion,
}

/// The mounts of a container. `env` is what its spec sets: `subPathExpr` is expanded with it.
///
/// # Errors
/// If the spec asks for a mount that cannot be made.
pub fn mounts(
    spec: &PodSpec,
    container: &Container,
    env: &Env,
    place: Place<'_>,
) -> Result<Mounts, MountError> {
    let mut sub_paths = Vec::new();
    let volumes = volumes(spec, container, env, place, &mut sub_paths)?;
    let mut list = kernel(spec, container, place);
    list.extend(shared_files(container, place.dir));
    list.extend(termination(container, place)?);
    list.retain(|mount| !volumes.iter().any(|volume| covers(volume, mount)));
    list.extend(volumes);
    // Stable: what is equally deep stays in the order in which it was listed.
    list.sort_by_key(|mount| mount.destination().components().count());
    Ok(Mounts { list, sub_paths })
}

/// A volume takes the place of a default mount; one at `/dev` takes that of all below it too.
fn covers(volume: &Mount, default: &Mount) -> bool {
    let (volume, default) = (volume.destination(), default.destination());
    volume == default || (volume == Path::new("/dev") && default.starts_with("/dev"))
}

fn kernel(spec: &PodSpec, container: &Container, place: Place<'_>) -> Vec<Mount> {
    let Place { dir, cgroup, .. } = place;
    let access = if security::is_privileged(container) { "rw" } else { "ro" };
    let pts = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5";
    let dev = "nosuid,strictatime,mode=755,size=65536k";
    let host_shm = spec.host_ipc == Some(true);
    let shm = if host_shm { Path::new("/dev/shm").into() } else { dir.shm() };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", dev),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        // With the host's network too: without a user namespace the kernel allows it.
        mount("/sys", "sysfs", "sysfs", &format!("nosuid,noexec,nodev,{access}")),
        mount("/dev/shm", "bind", &shm, "rbind,rprivate,rw,nosuid,noexec,nodev"),
    ];
    if cgroup == CgroupVersion::V2 {
        // Not on v1, where a mount of a hierarchy could be written to.
        let options = format!("nosuid,noexec,nodev,relatime,{access}");
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }
    mounts
}

/// One copy a pod, writable unless the container's root is read-only.
fn shared_files(container: &Container, dir: &PodDir) -> Vec<Mount> {
    let context = container.security_context.as_ref();
    let read_only = context.and_then(|c| c.read_only_root_filesystem) == Some(true);
    let options = if read_only { "rbind,rprivate,ro" } else { "rbind,rprivate,rw" };
    ["hosts", "hostname", "resolv.conf"]
        .into_iter()
        .map(|name| mount(format!("/etc/{name}"), "bind", dir.shared_file(name), options))
        .collect()
}

/// Whether what a container mounts depends on what containers before it write: a part of a volume
/// that can be written, or a path of the host that is not there yet and that nobody has promised.
#[must_use]
pub fn depend_on_others(
    spec: &PodSpec,
    container: &Container,
    exists: &dyn Fn(&Path) -> bool,
) -> bool {
    container.volume_mounts.iter().flatten().any(|wanted| {
        let set = |field: &Option<String>| field.as_deref().is_some_and(|text| !text.is_empty());
        let part = set(&wanted.sub_path) || set(&wanted.sub_path_expr);
        let mut volumes = spec.volumes.iter().flatten();
        volumes.find(|volume| volume.name == wanted.name).is_some_and(|volume| {
            let unchecked = volume.host_path.as_ref().is_some_and(|source| {
                source.type_.as_deref().is_none_or(str::is_empty)
                    && !exists(Path::new(&source.path))
            });
            unchecked || (part && payload::plugin(volume).is_none())
        })
    })
}

/// Whether what is mounted on the host later is to appear in one of the container's volumes. (Then it
/// does in all of them.)
#[must_use]
pub fn follow_the_host(container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| mount.mount_propagation.as_deref() == Some("HostToContainer"))
}

/// The file for the container's last words, writable also in a read-only root.
fn termination(container: &Container, place: Place<'_>) -> Result<Option<Mount>, MountError> {
    let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let destination = destination("terminationMessagePath", path)?;
    let source = place.dir.termination(&container.name, place.inc);
    Ok(Some(mount(destination, "bind", source, "rbind,rprivate,rw")))
}

fn volumes(
    spec: &PodSpec,
    container: &Container,
    env: &Env,
    place: Place<'_>,
    sub_paths: &mut Vec<SubPath>,
) -> Result<Vec<Mount>, MountError> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let (mut source, writable) = source(spec, wanted, place.dir)?;
        if let Some(path) = sub_path(wanted, env)? {
            let at =
                place.dir.sub_paths(&container.name, place.inc).join(sub_paths.len().to_string());
            sub_paths.push(SubPath { volume: source, path, at: at.clone() });
            source = at;
        }
        let destination = destination(&wanted.name, &wanted.mount_path)?;
        mounts.push(mount(destination, "bind", source, &options(wanted, writable)?));
    }
    Ok(mounts)
}

/// Where a volume lies, and whether containers may write into it.
fn source(
    spec: &PodSpec,
    wanted: &VolumeMount,
    dir: &PodDir,
) -> Result<(PathBuf, bool), MountError> {
    let missing = || MountError::Volume { mount: wanted.name.clone() };
    let mut volumes = spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == wanted.name).ok_or_else(missing)?;
    if volume::empty_dir_source(volume).is_some() {
        return Ok((dir.volume(EMPTY_DIR, &volume.name), true));
    }
    if let Some(plugin) = payload::plugin(volume) {
        return Ok((dir.payload(plugin, &volume.name), false));
    }
    match &volume.host_path {
        Some(source) => Ok((PathBuf::from(&source.path), true)),
        None => Err(MountError::Kind { volume: volume.name.clone() }),
    }
}

/// `subPath`, or `subPathExpr` with its variables replaced.
fn sub_path(wanted: &VolumeMount, env: &Env) -> Result<Option<PathBuf>, MountError> {
    let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let path = match (set(&wanted.sub_path), set(&wanted.sub_path_expr)) {
        (Some(path), _) => path,
        (None, Some(text)) => {
            // Here, unlike elsewhere, a variable must have a value.
            let missing = Cell::new(None);
            let path = expand(&text, |name| {
                let value = env.get(name).filter(|value| !value.is_empty());
                if value.is_none() {
                    missing.set(Some(name.to_owned()));
                }
                value
            });
            if let Some(variable) = missing.take() {
                return Err(MountError::Variable { mount: wanted.name.clone(), variable });
            }
            path
        }
        (None, None) => return Ok(None),
    };
    let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if leaves || path.contains('\0') {
        return Err(MountError::SubPath { mount: wanted.name.clone(), path });
    }
    Ok(Some(path.into()))
}

fn options(wanted: &VolumeMount, writable: bool) -> Result<String, MountError> {
    let unsupported = |field, value: &str| MountError::Unsupported {
        mount: wanted.name.clone(),
        field,
        value: value.into(),
    };
    let propagation = match wanted.mount_propagation.as_deref() {
        None | Some("None" | "") => "rprivate",
        Some("HostToContainer") => "rslave",
        Some(other) => return Err(unsupported("mountPropagation", other)),
    };
    let read_only = wanted.read_only == Some(true) || !writable;
    let access = match (read_only, wanted.recursive_read_only.as_deref()) {
        (false, _) => "rw",
        (true, None | Some("Disabled" | "")) => "ro",
        // Every kernel that podshim runs on can (Linux 5.12).
        (true, Some("IfPossible" | "Enabled")) => "rro",
        (true, Some(other)) => return Err(unsupported("recursiveReadOnly", other)),
    };
    let mut options = format!("rbind,{propagation},{access}");
    for option in wanted.bind_mount_options.iter().flatten() {
        if !["noexec", "nodev", "nosuid"].contains(&option.as_str()) {
            return Err(unsupported("bindMountOptions", option));
        }
        options.push(',');
        options.push_str(option);
    }
    Ok(options)
}

/// The mount's path: absolute, without `.`, `..` and repeated slashes.
fn destination(mount: &str, path: &str) -> Result<String, MountError> {
    let refused = || MountError::Path { mount: mount.into(), path: path.into() };
    if path.contains(':') || path.chars().any(char::is_control) {
        return Err(refused());
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Err(refused()) } else { Ok(format!("/{}", parts.join("/"))) }
}

pub(crate) fn mount(
    destination: impl AsRef<Path>,
    kind: &str,
    source: impl AsRef<Path>,
    options: &str,
) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.as_ref().into())
        .set_typ(Some(kind.into()))
        .set_source(Some(source.as_ref().into()))
        .set_options(Some(options.split(',').map(Into::into).collect()));
    mount
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    fn list(spec: &str, container: &str, cgroup: CgroupVersion) -> Result<Vec<Mount>, MountError> {
        let pod = fixture::pod(&format!("spec: {{{spec}}}"));
        let container = fixture::yaml(&format!("{{name: main, {container}}}"));
        let dir = fixture::dir();
        let mut env = Env::default();
        env.set("POD", "web");
        env.set("EMPTY", "");
        let place = Place { dir: &dir, inc: 3, cgroup };
        mounts(pod.spec.as_ref().expect("a spec"), &container, &env, place).map(|m| m.list)
    }

    fn with_mount(mount: &str) -> Result<Vec<Mount>, MountError> {
        list("volumes: [{name: v}]", &format!("volumeMounts: [{mount}]"), CgroupVersion::V1)
    }

    fn paths(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().filter_map(|mount| mount.destination().to_str()).collect()
    }

    fn at<'m>(mounts: &'m [Mount], path: &str) -> &'m Mount {
        mounts.iter().find(|m| m.destination() == Path::new(path)).expect(path)
    }

    fn options(mount: &Mount) -> String {
        mount.options().as_ref().map(|options| options.join(",")).unwrap_or_default()
    }

    #[test]
    fn parents_come_before_what_is_mounted_in_them_and_all_have_a_source() {
        let mounts = list(
            "volumes: [{name: a}, {name: b}, {name: c}]",
            "volumeMounts: [{name: a, mountPath: /data/x/y}, {name: b, mountPath: /data},
                            {name: c, mountPath: /data/x}]",
            CgroupVersion::V2,
        )
        .expect("plain mounts");
        assert_eq!(
            paths(&mounts),
            [
                "/proc",
                "/dev",
                "/sys",
                "/data",
                "/dev/pts",
                "/dev/mqueue",
                "/dev/shm",
                "/etc/hosts",
                "/etc/hostname",
                "/etc/resolv.conf",
                "/data/x",
                "/sys/fs/cgroup",
                "/data/x/y",
            ]
        );
        assert!(mounts.iter().all(|mount| mount.source().is_some()));
    }

    #[test]
    fn the_cgroup_file_system_is_mounted_on_v2_only() {
        let mounts = |version| list("", "", version).expect("plain mounts");
        assert!(!paths(&mounts(CgroupVersion::V1)).contains(&"/sys/fs/cgroup"));
        let v2 = mounts(CgroupVersion::V2);
        assert!(options(at(&v2, "/sys/fs/cgroup")).ends_with(",ro"));
    }

    #[test]
    fn only_a_privileged_container_may_write_to_the_kernels_file_systems() {
        for (context, access) in [("", ",ro"), ("securityContext: {privileged: true}", ",rw")] {
            let mounts = list("", context, CgroupVersion::V2).expect("plain mounts");
            for path in ["/sys", "/sys/fs/cgroup"] {
                assert!(options(at(&mounts, path)).ends_with(access), "{path} {context}");
            }
        }
    }

    #[test]
    fn a_volume_takes_the_place_of_a_default_mount() {
        let mounts = with_mount("{name: v, mountPath: /etc/hosts}").expect("plain mounts");
        let hosts: Vec<_> = paths(&mounts).into_iter().filter(|p| *p == "/etc/hosts").collect();
        assert_eq!(hosts.len(), 1);
        assert!(at(&mounts, "/etc/hosts").source().as_ref().is_some_and(|s| s.ends_with("v")));

        let mounts = with_mount("{name: v, mountPath: /dev/}").expect("plain mounts");
        assert!(!paths(&mounts).iter().any(|path| path.starts_with("/dev/")), "{mounts:?}");
        let mounts = with_mount("{name: v, mountPath: /etc}").expect("plain mounts");
        assert!(paths(&mounts).contains(&"/etc/hosts"), "below it the files stay");
    }

    #[test]
    fn shared_files_are_read_only_with_a_read_only_root() {
        let read_only = "securityContext: {readOnlyRootFilesystem: true}";
        for (container, expected) in [("", "rbind,rprivate,rw"), (read_only, "rbind,rprivate,ro")] {
            let mounts = list("", container, CgroupVersion::V1).expect("plain mounts");
            for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
                assert_eq!(options(at(&mounts, path)), expected, "{path}");
            }
        }
    }

    #[test]
    fn volumes_are_bound_as_the_mount_says() {
        for (fields, expected) in [
            ("", "rbind,rprivate,rw"),
            ("readOnly: true", "rbind,rprivate,ro"),
            ("readOnly: true, recursiveReadOnly: Enabled", "rbind,rprivate,rro"),
            ("readOnly: true, recursiveReadOnly: Disabled", "rbind,rprivate,ro"),
            ("mountPropagation: HostToContainer", "rbind,rslave,rw"),
            ("bindMountOptions: [noexec, nodev]", "rbind,rprivate,rw,noexec,nodev"),
        ] {
            let mounts = with_mount(&format!("{{name: v, mountPath: /v, {fields}}}"));
            let mounts = mounts.expect(fields);
            assert_eq!(options(at(&mounts, "/v")), expected, "{fields}");
            assert_eq!(at(&mounts, "/v").source(), &Some(fixture::dir().volume(EMPTY_DIR, "v")));
        }
    }

    #[test]
    fn mount_paths_are_made_absolute_and_clean() {
        for (path, expected) in
            [("v", "/v"), ("/v//w/", "/v/w"), ("/v/./w/../x", "/v/x"), ("/../../v", "/v")]
        {
            let mounts = with_mount(&format!("{{name: v, mountPath: {path:?}}}")).expect(path);
            assert!(paths(&mounts).contains(&expected), "{path}");
        }
        for path in ["", "/", ".", "/v/..", "/a:b", "/a\\nb", "/a\\0"] {
            let refused = with_mount(&format!("{{name: v, mountPath: \"{path}\"}}"));
            assert!(matches!(refused, Err(MountError::Path { .. })), "{path:?}");
        }
    }

    #[test]
    fn what_is_not_built_is_refused() {
        for fields in [
            "mountPropagation: Bidirectional",
            "readOnly: true, recursiveReadOnly: Sometimes",
            "bindMountOptions: [suid]",
        ] {
            let refused = with_mount(&format!("{{name: v, mountPath: /v, {fields}}}"));
            assert!(matches!(refused, Err(MountError::Unsupported { .. })), "{fields}");
        }
        let mount = "volumeMounts: [{name: v, mountPath: /v}]";
        let other = "volumes: [{name: v, nfs: {server: s, path: /}}]";
        let refused = list(other, mount, CgroupVersion::V1);
        assert_eq!(refused, Err(MountError::Kind { volume: "v".into() }));
        let refused = list("", mount, CgroupVersion::V1);
        assert_eq!(refused, Err(MountError::Volume { mount: "v".into() }));
    }

    fn with_volume(volume: &str, mount: &str) -> Result<Mounts, MountError> {
        let pod = fixture::pod(&format!("spec: {{volumes: [{{name: v, {volume}}}]}}"));
        let container = fixture::yaml(&format!(
            "{{name: main, terminationMessagePath: /dev/termination-log,
               volumeMounts: [{{name: v, mountPath: /v, {mount}}}]}}"
        ));
        let dir = fixture::dir();
        let mut env = Env::default();
        env.set("POD", "web");
        env.set("EMPTY", "");
        let place = Place { dir: &dir, inc: 3, cgroup: CgroupVersion::V1 };
        mounts(pod.spec.as_ref().expect("a spec"), &container, &env, place)
    }

    #[test]
    fn volumes_of_files_are_never_writable_and_a_host_path_is_where_it_says() {
        let source = |volume: &str, mount: &str| {
            let mounts = with_volume(volume, mount).expect(volume).list;
            let mount = at(&mounts, "/v");
            let source = mount.source().as_ref().expect("a source").display().to_string();
            (source, options(mount))
        };
        let mnt = "/run/podshim/pods/0b0e8d4c/mnt/volumes";
        for (volume, plugin) in [
            ("configMap: {name: x}", "kubernetes.io~configmap"),
            ("secret: {secretName: x}", "kubernetes.io~secret"),
            ("downwardAPI: {}", "kubernetes.io~downward-api"),
            ("projected: {}", "kubernetes.io~projected"),
        ] {
            let expected = (format!("{mnt}/{plugin}/v"), "rbind,rprivate,ro".to_owned());
            assert_eq!(source(volume, "readOnly: false"), expected);
        }
        let (path, options) =
            source("hostPath: {path: /srv/x}", "mountPropagation: HostToContainer");
        assert_eq!((path.as_str(), options.as_str()), ("/srv/x", "rbind,rslave,rw"));
    }

    #[test]
    fn a_part_of_a_volume_is_bound_before_it_is_mounted() {
        for (mount, expected) in
            [("subPath: a/b", "a/b"), ("subPathExpr: '$(POD)-$$(X)/b'", "web-$(X)/b")]
        {
            let made = with_volume("hostPath: {path: /srv}", mount).expect(mount);
            let at_path = fixture::dir().sub_paths("main", 3).join("0");
            let expected =
                SubPath { volume: "/srv".into(), path: expected.into(), at: at_path.clone() };
            assert_eq!(made.sub_paths, [expected]);
            assert_eq!(at(&made.list, "/v").source(), &Some(at_path));
        }
        for mount in ["subPathExpr: $(NO)", "subPathExpr: x$(EMPTY)"] {
            let refused = with_volume("emptyDir: {}", mount);
            assert!(matches!(refused, Err(MountError::Variable { .. })), "{mount}: {refused:?}");
        }
        for mount in ["subPath: /a", "subPath: ../a", "subPath: a/../b"] {
            let refused = with_volume("emptyDir: {}", mount);
            assert!(matches!(refused, Err(MountError::SubPath { .. })), "{mount}: {refused:?}");
        }
    }

    #[test]
    fn only_parts_of_what_can_be_written_and_missing_paths_depend_on_others() {
        let depends = |volume: &str, mount: &str| {
            let pod = fixture::pod(&format!("spec: {{volumes: [{{name: v, {volume}}}]}}"));
            let mount = format!("{{name: m, volumeMounts: [{{name: v, mountPath: /v, {mount}}}]}}");
            let exists = |path: &Path| path == Path::new("/there");
            depend_on_others(pod.spec.as_ref().expect("a spec"), &fixture::yaml(&mount), &exists)
        };
        assert!(depends("emptyDir: {}", "subPath: a"));
        assert!(depends("hostPath: {path: /there}", "subPathExpr: a"));
        assert!(depends("hostPath: {path: /not}", ""));
        assert!(!depends("hostPath: {path: /there}", ""));
        assert!(!depends("hostPath: {path: /not, type: DirectoryOrCreate}", ""));
        assert!(!depends("configMap: {name: c}", "subPath: a"));
        assert!(!depends("emptyDir: {}", ""));
    }

    #[test]
    fn each_incarnation_has_a_file_for_its_last_words() {
        let mounts = with_volume("emptyDir: {}", "").expect("plain mounts").list;
        let log = at(&mounts, "/dev/termination-log");
        assert_eq!(log.source(), &Some(fixture::dir().termination("main", 3)));
        assert_eq!(options(log), "rbind,rprivate,rw");
    }

    #[test]
    fn pods_in_the_hosts_ipc_namespace_share_the_hosts_shm() {
        let source = |spec: &str| {
            let mounts = list(spec, "", CgroupVersion::V1).expect("plain mounts");
            at(&mounts, "/dev/shm").source().clone()
        };
        assert_eq!(source("hostIPC: true"), Some("/dev/shm".into()));
        assert_eq!(source(""), Some(fixture::dir().shm()));
    }
}
