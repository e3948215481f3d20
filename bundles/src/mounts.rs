//! What is mounted where in a container, and in which order.
//!
//! The list that containerd's CRI plugin makes: the kernel's file systems, the files that the pod's
//! containers share, then the volumes; what a volume covers is left out, and parents come before
//! what is mounted in them. Sources are paths in the pod's mount namespace, made by the runtime.
//!
//! `/dev/termination-log` is not among them in this release.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use oci_spec::runtime::Mount;

use crate::layout::PodDir;
use crate::oci::CgroupVersion;
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
    #[error("volume {volume:?}: only emptyDir volumes are supported by this release")]
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

/// The mounts of a container, in the order in which they are made. Every one has a source.
///
/// # Errors
/// If the spec asks for a mount that cannot be made.
pub fn mounts(
    spec: &PodSpec,
    container: &Container,
    dir: &PodDir,
    cgroup: CgroupVersion,
) -> Result<Vec<Mount>, MountError> {
    let volumes = volumes(spec, container, dir)?;
    let mut mounts = kernel(spec, dir, cgroup);
    mounts.extend(shared_files(container, dir));
    mounts.retain(|mount| !volumes.iter().any(|volume| covers(volume, mount)));
    mounts.extend(volumes);
    // Stable: what is equally deep stays in the order in which it was listed.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

/// A volume takes the place of a default mount; one at `/dev` takes that of all below it too.
fn covers(volume: &Mount, default: &Mount) -> bool {
    let (volume, default) = (volume.destination(), default.destination());
    volume == default || (volume == Path::new("/dev") && default.starts_with("/dev"))
}

fn kernel(spec: &PodSpec, dir: &PodDir, cgroup: CgroupVersion) -> Vec<Mount> {
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
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/dev/shm", "bind", &shm, "rbind,rprivate,rw,nosuid,noexec,nodev"),
    ];
    if cgroup == CgroupVersion::V2 {
        // Not on v1, where a mount of a hierarchy could be written to.
        let options = "nosuid,noexec,nodev,relatime,ro";
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", options));
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

fn volumes(spec: &PodSpec, container: &Container, dir: &PodDir) -> Result<Vec<Mount>, MountError> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts.map(|mount| volume(spec, mount, dir)).collect()
}

fn volume(spec: &PodSpec, wanted: &VolumeMount, dir: &PodDir) -> Result<Mount, MountError> {
    let missing = || MountError::Volume { mount: wanted.name.clone() };
    let mut volumes = spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == wanted.name).ok_or_else(missing)?;
    if volume::empty_dir_source(volume).is_none() {
        return Err(MountError::Kind { volume: volume.name.clone() });
    }
    let unsupported = |field, value: &str| MountError::Unsupported {
        mount: wanted.name.clone(),
        field,
        value: value.into(),
    };
    for (field, value) in [("subPath", &wanted.sub_path), ("subPathExpr", &wanted.sub_path_expr)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            return Err(unsupported(field, value));
        }
    }
    let propagation = match wanted.mount_propagation.as_deref() {
        None | Some("None" | "") => "rprivate",
        Some("HostToContainer") => "rslave",
        Some(other) => return Err(unsupported("mountPropagation", other)),
    };
    let access = match (wanted.read_only == Some(true), wanted.recursive_read_only.as_deref()) {
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
    Ok(mount(destination(wanted)?, "bind", dir.volume(EMPTY_DIR, &volume.name), &options))
}

/// The mount's path: absolute, without `.`, `..` and repeated slashes.
fn destination(wanted: &VolumeMount) -> Result<String, MountError> {
    let path = &wanted.mount_path;
    let refused = || MountError::Path { mount: wanted.name.clone(), path: path.clone() };
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

fn mount(
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
        mounts(pod.spec.as_ref().expect("a spec"), &container, &fixture::dir(), cgroup)
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
            "subPath: a",
            "subPathExpr: $(A)",
            "mountPropagation: Bidirectional",
            "readOnly: true, recursiveReadOnly: Sometimes",
            "bindMountOptions: [suid]",
        ] {
            let refused = with_mount(&format!("{{name: v, mountPath: /v, {fields}}}"));
            assert!(matches!(refused, Err(MountError::Unsupported { .. })), "{fields}");
        }
        let mount = "volumeMounts: [{name: v, mountPath: /v}]";
        let other = "volumes: [{name: v, hostPath: {path: /}}]";
        let refused = list(other, mount, CgroupVersion::V1);
        assert_eq!(refused, Err(MountError::Kind { volume: "v".into() }));
        let refused = list("", mount, CgroupVersion::V1);
        assert_eq!(refused, Err(MountError::Volume { mount: "v".into() }));
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
