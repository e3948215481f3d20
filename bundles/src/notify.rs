//! Readiness that a container tells itself: the protocol of sd_notify(3).

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use oci_spec::runtime::Mount;

use crate::layout::PodDir;
use crate::mounts::mount;

/// Names the sidecars and mains, separated by commas, that are `started` once they have said so.
pub const ANNOTATION: &str = "podshim.dev/notify";
/// The socket in a container. `/dev` is the container's own, so nothing of an image or a volume is in
/// its way.
pub const SOCKET: &str = "/dev/podshim-notify";
/// The variable that names it.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// Whether a container of a pod has a socket to notify.
#[must_use]
pub fn is_expected(pod: &Pod, container: &str) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let list = annotations.and_then(|all| all.get(ANNOTATION));
    list.is_some_and(|list| list.split(',').any(|name| name.trim() == container))
}

/// The socket's mount.
pub(crate) fn socket_mount(dir: &PodDir, container: &str) -> Mount {
    mount(Path::new(SOCKET), "bind", dir.notify(container), "rbind,rprivate,rw")
}
