//! Kernel parameters of a pod's namespaces.
//!
//! After the kubelet's `pkg/kubelet/sysctl`: which are confined to a namespace, which are safe (they
//! cannot hurt other pods or the host), and which must be allowed by name.

use k8s_openapi::api::core::v1::PodSpec;

/// Safe in every pod, as Kubernetes' documentation lists them.
const SAFE: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The namespace that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`.
    Ipc,
    /// `net.*`.
    Net,
}

/// A parameter to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The file below `/proc/sys`.
    pub file: String,
    /// What is written into it.
    pub value: String,
}

/// A name with dots between its parts, whichever separator it was written with. As in sysctl(8),
/// the first separator decides: with slashes, dots are part of names (`net/ipv4/conf/eth0.1/…`).
#[must_use]
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.into(),
    }
}

/// The namespace that a parameter is confined to; `None` if it is the whole machine's.
#[must_use]
pub fn namespace(name: &str) -> Option<Namespace> {
    let name = normalized(name);
    let starts = |prefix: &str| name.starts_with(prefix);
    if starts("net.") {
        return Some(Namespace::Net);
    }
    let ipc =
        name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].into_iter().any(starts);
    ipc.then_some(Namespace::Ipc)
}

/// Whether a parameter may be set: it is safe, or `allowed` has its name or a pattern that ends with
/// `*`, as the kubelet's `--allowed-unsafe-sysctls`.
#[must_use]
pub fn is_allowed(name: &str, allowed: &[String]) -> bool {
    let name = normalized(name);
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *pattern,
    };
    SAFE.contains(&name.as_str()) || allowed.iter().map(|p| normalized(p)).any(|p| matches(&p))
}

/// The names in a pod's spec that are neither safe nor allowed.
#[must_use]
pub fn forbidden<'a>(spec: &'a PodSpec, allowed: &[String]) -> Vec<&'a str> {
    let context = spec.security_context.as_ref();
    let asked = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    asked.map(|s| s.name.as_str()).filter(|name| !is_allowed(name, allowed)).collect()
}

/// What is to be written for a pod, in the spec's order.
#[must_use]
pub fn of_pod(spec: &PodSpec) -> Vec<Sysctl> {
    let context = spec.security_context.as_ref();
    let asked = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    asked
        .map(|sysctl| {
            let file = normalized(&sysctl.name)
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect();
            Sysctl { file, value: sysctl.value.clone() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    #[test]
    fn either_separator_names_the_same_file() {
        let pod = fixture::pod(
            "spec: {securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '0'},
               {name: net/ipv4/conf/eth0.1/forwarding, value: '1'},
               {name: net.ipv4.conf.eth0/1.forwarding, value: '1'}]}}",
        );
        let files: Vec<String> =
            of_pod(pod.spec.as_ref().expect("a spec")).into_iter().map(|s| s.file).collect();
        let deep = "net/ipv4/conf/eth0.1/forwarding";
        assert_eq!(files, ["net/ipv4/tcp_syncookies", deep, deep]);
    }

    #[test]
    fn only_what_is_confined_to_a_namespace_has_one() {
        for (name, expected) in [
            ("net.core.somaxconn", Some(Namespace::Net)),
            ("net/core/somaxconn", Some(Namespace::Net)),
            ("kernel.shmmax", Some(Namespace::Ipc)),
            ("kernel.msgmnb", Some(Namespace::Ipc)),
            ("kernel.sem", Some(Namespace::Ipc)),
            ("kernel.semaphore", None),
            ("fs.mqueue.msg_max", Some(Namespace::Ipc)),
            ("kernel.panic", None),
            ("vm.swappiness", None),
            ("network.x", None),
        ] {
            assert_eq!(namespace(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_safe_must_be_allowed_by_name_or_pattern() {
        let allowed = ["net.core.somaxconn".to_owned(), "kernel.msg*".to_owned()];
        for (name, expected) in [
            ("net.ipv4.tcp_syncookies", true),
            ("net/ipv4/tcp_syncookies", true),
            ("net.core.somaxconn", true),
            ("kernel.msgmax", true),
            ("kernel.shmmax", false),
            ("net.core.somaxconn2", false),
        ] {
            assert_eq!(is_allowed(name, &allowed), expected, "{name}");
        }
    }
}
