//! What a container may do: capabilities, paths it must not see or change, privilege escalation,
//! system call filter.
//!
//! Reads the security contexts of pod and container and answers with values; the runtime applies
//! them. A setting that narrows what a container may do and that is not built is an error, never
//! left out. Users and groups are [`crate::user`]'s.

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use serde::{Deserialize, Serialize};

use crate::capability::{CapSet, UnknownCapability};
use crate::host::Host;

/// Hidden from every container: what the kubelet, moby, containerd, podman or CRI-O hide. The
/// host's `thermal_throttle` directories come on top.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Read-only in every container.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Why a container's security settings cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// A capability in `add` or `drop` that does not exist.
    #[error("securityContext.capabilities.{list}: {source}")]
    Capability {
        /// `add` or `drop`.
        list: &'static str,
        /// Which.
        source: UnknownCapability,
    },
    /// A capability that podshim cannot give away because it has not got it.
    #[error(
        "securityContext.capabilities.add: podshim itself has not got {missing}: run it with all \
         capabilities, or ask for less"
    )]
    Missing {
        /// Which.
        missing: CapSet,
    },
    /// A setting that this release does not carry out.
    #[error("{field}: {value} is not supported by this release")]
    Unsupported {
        /// The field, below the container or pod spec.
        field: &'static str,
        /// What it is set to.
        value: String,
    },
}

/// Which filter of system calls a container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The default profile. What a container has if nobody says otherwise.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// That of a file below the root's `seccomp` directory.
    Localhost {
        /// The path below it.
        file: String,
    },
}

/// What a container may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The bounding set.
    pub capabilities: CapSet,
    /// Defaults that podshim has not got itself and that the container goes without.
    pub withheld: CapSet,
    /// Whether executing a file can never give more privileges.
    pub no_new_privs: bool,
    /// Whether it has all devices, and kernel interfaces that it may write to.
    pub privileged: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Paths that are covered.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<String>,
}

/// The security settings of `container` in a pod of this spec.
///
/// # Errors
/// If one of them is unknown or cannot be honoured.
pub fn resolve(
    spec: &PodSpec,
    container: &Container,
    host: &Host,
) -> Result<Security, SecurityError> {
    refuse_unsupported(spec, container)?;
    let own = container.security_context.as_ref();
    if is_privileged(container) {
        return Ok(Security {
            // All that there is to give.
            capabilities: host.capabilities,
            withheld: CapSet::EMPTY,
            no_new_privs: false,
            privileged: true,
            seccomp: Seccomp::Unconfined,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        });
    }
    let (capabilities, withheld) = capabilities(container, host)?;
    let masked = MASKED_PATHS.iter().map(ToString::to_string);
    Ok(Security {
        capabilities,
        withheld,
        privileged: false,
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        seccomp: seccomp(spec, container)?,
        masked_paths: masked.chain(host.thermal_throttle_paths.iter().cloned()).collect(),
        readonly_paths: READONLY_PATHS.iter().map(ToString::to_string).collect(),
    })
}

/// `securityContext.privileged`.
#[must_use]
pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged) == Some(true)
}

/// The order is containerd's: `ALL` in `add`, `ALL` in `drop`, then the names in `add`, then those
/// in `drop`.
fn capabilities(container: &Container, host: &Host) -> Result<(CapSet, CapSet), SecurityError> {
    let lists = container.security_context.as_ref().and_then(|c| c.capabilities.as_ref());
    let (add_all, add) = named("add", lists.and_then(|lists| lists.add.as_deref()))?;
    let (drop_all, drop) = named("drop", lists.and_then(|lists| lists.drop.as_deref()))?;
    let base = match (drop_all, add_all) {
        (true, _) => CapSet::EMPTY,
        // All is all that there is to give.
        (false, true) => host.capabilities,
        (false, false) => CapSet::DEFAULT,
    };
    let asked = add - drop;
    if !host.capabilities.contains(asked) {
        return Err(SecurityError::Missing { missing: asked - host.capabilities });
    }
    let wanted = (base | add) - drop;
    Ok((wanted & host.capabilities, wanted - host.capabilities))
}

/// Whether `ALL` is in the list, and the set of the others.
fn named(list: &'static str, names: Option<&[String]>) -> Result<(bool, CapSet), SecurityError> {
    let (mut all, mut set) = (false, CapSet::EMPTY);
    for name in names.unwrap_or_default() {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            let unknown = |source| SecurityError::Capability { list, source };
            set = set | name.parse().map_err(unknown)?;
        }
    }
    Ok((all, set))
}

fn seccomp(spec: &PodSpec, container: &Container) -> Result<Seccomp, SecurityError> {
    let own = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let of_pod = spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let Some(SeccompProfile { type_, localhost_profile }) = own.or(of_pod) else {
        return Ok(Seccomp::RuntimeDefault);
    };
    match type_.as_str() {
        "Localhost" => {
            let file = localhost_profile.clone().unwrap_or_default();
            // Validation lets nothing else through; a profile is never left out.
            let is_part = |part: &str| !matches!(part, "" | "." | "..");
            if !file.split('/').all(is_part) {
                return Err(unsupported("securityContext.seccompProfile.localhostProfile", &file));
            }
            Ok(Seccomp::Localhost { file })
        }
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        other => Err(unsupported("securityContext.seccompProfile.type", other)),
    }
}

fn refuse_unsupported(spec: &PodSpec, container: &Container) -> Result<(), SecurityError> {
    let own = container.security_context.as_ref();
    if spec.host_users == Some(false) {
        return Err(unsupported("hostUsers", "false"));
    }
    if let Some(other) = own.and_then(|c| c.proc_mount.as_deref()).filter(|m| *m != "Default") {
        return Err(unsupported("securityContext.procMount", other));
    }
    let of_pod = spec.security_context.as_ref();
    let profile = own
        .and_then(|c| c.app_armor_profile.as_ref())
        .or(of_pod.and_then(|c| c.app_armor_profile.as_ref()));
    match profile.map(|profile| profile.type_.as_str()) {
        None | Some("RuntimeDefault" | "Unconfined") => Ok(()),
        Some(other) => Err(unsupported("securityContext.appArmorProfile.type", other)),
    }
}

fn unsupported(field: &'static str, value: &str) -> SecurityError {
    SecurityError::Unsupported { field, value: value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture;

    fn resolved(pod: &str, container: &str) -> Result<Security, SecurityError> {
        let pod = fixture::pod(&format!("spec: {{{pod}}}"));
        let container = fixture::yaml(&format!("{{name: main, securityContext: {{{container}}}}}"));
        resolve(pod.spec.as_ref().expect("a spec"), &container, &fixture::host())
    }

    fn set(names: &str) -> CapSet {
        let parse = |name: &str| name.parse::<CapSet>().expect(name);
        names.split_whitespace().map(parse).fold(CapSet::EMPTY, |a, b| a | b)
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_containerd_does() {
        let host = fixture::host();
        for (lists, expected) in [
            ("", CapSet::DEFAULT),
            ("add: [NET_ADMIN]", CapSet::DEFAULT | set("NET_ADMIN")),
            ("add: [CAP_NET_ADMIN]", CapSet::DEFAULT | set("NET_ADMIN")),
            ("drop: [NET_RAW, mknod]", CapSet::DEFAULT - set("NET_RAW MKNOD")),
            ("drop: [ALL]", CapSet::EMPTY),
            ("drop: [all], add: [NET_BIND_SERVICE]", set("NET_BIND_SERVICE")),
            ("add: [ALL]", host.capabilities),
            ("add: [ALL], drop: [SYS_ADMIN]", host.capabilities - set("SYS_ADMIN")),
            ("add: [ALL], drop: [ALL]", CapSet::EMPTY),
            ("add: [SYS_TIME], drop: [SYS_TIME]", CapSet::DEFAULT),
        ] {
            let security = resolved("", &format!("capabilities: {{{lists}}}"));
            assert_eq!(security.map(|s| s.capabilities), Ok(expected), "{lists}");
        }
    }

    #[test]
    fn unknown_capabilities_are_refused_in_both_lists() {
        for list in ["add", "drop"] {
            let error = resolved("", &format!("capabilities: {{{list}: [NET_ADMNI]}}"));
            let error = error.expect_err("no such capability").to_string();
            assert!(error.starts_with(&format!("securityContext.capabilities.{list}")), "{error}");
            assert!(error.contains("\"NET_ADMNI\""), "{error}");
        }
    }

    #[test]
    fn what_podshim_has_not_got_is_withheld_from_the_defaults_and_refused_if_asked_for() {
        let mut host = fixture::host();
        host.capabilities = host.capabilities - set("AUDIT_WRITE SYS_RESOURCE");
        let spec = PodSpec::default();
        let plain = resolve(&spec, &Container::default(), &host).expect("defaults");
        assert_eq!(plain.capabilities, CapSet::DEFAULT - set("AUDIT_WRITE"));
        assert_eq!(plain.withheld, set("AUDIT_WRITE"));
        let container =
            fixture::yaml("{name: a, securityContext: {capabilities: {add: [SYS_RESOURCE]}}}");
        assert_eq!(
            resolve(&spec, &container, &host),
            Err(SecurityError::Missing { missing: set("SYS_RESOURCE") })
        );
    }

    #[test]
    fn a_privileged_container_has_everything_that_podshim_has_and_nothing_hidden() {
        let host = fixture::host();
        let security = resolved("", "privileged: true, capabilities: {drop: [ALL]}");
        let security = security.expect("privileged");
        assert_eq!(security.capabilities, host.capabilities);
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert!(security.masked_paths.is_empty() && security.readonly_paths.is_empty());
        assert!(security.privileged && !security.no_new_privs);
    }

    #[test]
    fn escalation_is_forbidden_only_when_the_spec_says_so() {
        for (context, expected) in [
            ("", false),
            ("allowPrivilegeEscalation: true", false),
            ("allowPrivilegeEscalation: false", true),
        ] {
            let security = resolved("", context).expect(context);
            assert_eq!(security.no_new_privs, expected, "{context}");
        }
    }

    #[test]
    fn the_filter_is_on_unless_it_is_switched_off_and_the_container_wins() {
        let on = "seccompProfile: {type: RuntimeDefault}";
        let off = "seccompProfile: {type: Unconfined}";
        for (pod, container, expected) in [
            ("", "", Seccomp::RuntimeDefault),
            (off, "", Seccomp::Unconfined),
            (off, on, Seccomp::RuntimeDefault),
            (on, off, Seccomp::Unconfined),
        ] {
            let security = resolved(&format!("securityContext: {{{pod}}}"), container);
            assert_eq!(security.map(|s| s.seccomp), Ok(expected), "{pod} {container}");
        }
    }

    #[test]
    fn what_would_narrow_and_is_not_built_is_refused() {
        for (pod, container) in [
            ("hostUsers: false", ""),
            ("", "procMount: Unmasked"),
            ("", "seccompProfile: {type: Localhost, localhostProfile: ../x.json}"),
            ("", "seccompProfile: {type: Localhost, localhostProfile: /x.json}"),
            ("", "seccompProfile: {type: Localhost, localhostProfile: ''}"),
            ("securityContext: {appArmorProfile: {type: Localhost, localhostProfile: x}}", ""),
        ] {
            let refused = resolved(pod, container);
            assert!(matches!(refused, Err(SecurityError::Unsupported { .. })), "{pod}{container}");
        }
        assert!(resolved("hostUsers: true", "privileged: false, procMount: Default").is_ok());
    }

    #[test]
    fn the_hosts_thermal_throttle_directories_are_masked_too() {
        let masked = resolved("", "").expect("defaults").masked_paths;
        assert!(masked.contains(&"/sys/devices/system/cpu/cpu0/thermal_throttle".to_string()));
        assert!(masked.contains(&"/proc/kcore".to_string()));
    }
}
