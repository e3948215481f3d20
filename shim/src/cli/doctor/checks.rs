//! What a host must have, what each lack means, and what mends it. Pure: facts in, findings out.

use std::collections::BTreeSet;

use bundles::capability::CapSet;
use serde::Serialize;

/// The oldest kernel that podshim is made for (Linux 5.15: idmapped mounts aside, all that it calls).
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// Below this an image hardly fits, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// The kernel's default of `fs.inotify.max_user_instances`; each `podshim run` takes one.
const FEW_INOTIFY: u64 = 16;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is missing.
    Good,
    /// Something works less well, or not at all for some pods.
    Warning,
    /// No pod can run.
    Bad,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// What will not work because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What was looked up on the host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether podshim runs as root.
    pub root: bool,
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// `v1` or `v2` and the controllers, or why there are none.
    pub cgroups: Result<(&'static str, BTreeSet<String>), String>,
    /// Whether namespaces can be made.
    pub namespaces: Result<(), String>,
    /// Whether an overlay can be mounted where images are kept.
    pub overlay: Result<(), String>,
    /// Whether a sealed copy of podshim can be executed.
    pub sealed_copy: Result<(), String>,
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// Our own bounding set.
    pub capabilities: CapSet,
    /// Whether nft is there and works.
    pub nft: Result<(), String>,
    /// What other firewalls do to pods.
    pub firewalls: Vec<String>,
    /// What is wrong with the host's resolver for pods.
    pub resolver: Vec<String>,
    /// Free bytes where images are kept.
    pub free_bytes: Option<u64>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
    /// Whether limits of memory include swap.
    pub swap_accounting: bool,
}

/// Looks at everything; the worst first stays where it is listed.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![user(facts), kernel(facts)];
    found.extend(cgroups(facts));
    found.extend([
        result("namespaces", &facts.namespaces, "can be made", Verdict::Bad, "no pod can be isolated", "run podshim on the host or in a virtual machine, or give its container CAP_SYS_ADMIN"),
        result("overlayfs", &facts.overlay, "can be mounted where images are kept", Verdict::Bad, "no container gets a root filesystem", "`modprobe overlay`, or put --root on ext4, xfs or btrfs"),
        result("sealed copy", &facts.sealed_copy, "of podshim can be made", Verdict::Bad, "no pod can be supervised safely", "`sysctl vm.memfd_noexec=1`"),
        seccomp(facts),
        capabilities(facts),
        result("nft", &facts.nft, "works", Verdict::Warning, "pods reach nothing outside of the host, and no hostPort leads to them; `run --network=none` and hostNetwork work", "`apt install nftables`, `modprobe nf_tables`"),
    ]);
    found.extend(facts.firewalls.iter().map(|text| Finding {
        subject: "firewall",
        verdict: Verdict::Warning,
        found: text.clone(),
        effect: None,
        remedy: None,
    }));
    found.push(resolver(facts));
    found.extend([space(facts), inotify(facts), swap(facts)]);
    found
}

fn good(subject: &'static str, found: impl Into<String>) -> Finding {
    Finding { subject, verdict: Verdict::Good, found: found.into(), effect: None, remedy: None }
}

fn lack(
    subject: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    effect: &str,
    remedy: &str,
) -> Finding {
    let (effect, remedy) = (Some(effect.to_owned()), Some(remedy.to_owned()));
    Finding { subject, verdict, found: found.into(), effect, remedy }
}

fn result(
    subject: &'static str,
    result: &Result<(), String>,
    well: &str,
    verdict: Verdict,
    effect: &str,
    remedy: &str,
) -> Finding {
    match result {
        Ok(()) => good(subject, well),
        Err(why) => lack(subject, verdict, why.clone(), effect, remedy),
    }
}

fn user(facts: &Facts) -> Finding {
    if facts.root {
        return good("user", "root");
    }
    let effect = "nothing but `check` works, and most of what follows could not be looked at";
    lack("user", Verdict::Bad, "not root", effect, "sudo podshim doctor")
}

fn kernel(facts: &Facts) -> Finding {
    let (major, minor) = facts.kernel;
    let found = format!("Linux {major}.{minor}");
    if facts.kernel >= OLDEST_KERNEL {
        return good("kernel", found);
    }
    lack("kernel", Verdict::Bad, found, "system calls are missing", "install Linux 5.15 or newer")
}

fn cgroups(facts: &Facts) -> Vec<Finding> {
    let (version, controllers) = match &facts.cgroups {
        Ok(found) => found,
        Err(why) => {
            let effect = "no pod can be limited, found or killed as a whole";
            let remedy = "mount cgroup2 on /sys/fs/cgroup (systemd does), or the v1 controllers";
            return vec![lack("cgroups", Verdict::Bad, why.clone(), effect, remedy)];
        }
    };
    let names: Vec<&str> = controllers.iter().map(String::as_str).collect();
    let mut found = vec![good("cgroups", format!("{version}: {}", names.join(" ")))];
    for (controller, effect) in [
        ("memory", "limits of memory have no effect"),
        ("cpu", "limits and requests of cpu have no effect"),
        ("pids", "a fork bomb is not contained"),
    ] {
        if !controllers.contains(controller) {
            let remedy = "boot with cgroup_enable=memory, or enable the controller in the kernel";
            let text = format!("the {controller} controller is missing");
            found.push(lack("cgroups", Verdict::Warning, text, effect, remedy));
        }
    }
    found
}

fn seccomp(facts: &Facts) -> Finding {
    if facts.seccomp {
        return good("seccomp", "filters can be loaded");
    }
    let effect = "containers start only with seccompProfile: {type: Unconfined}";
    let remedy = "use a kernel with CONFIG_SECCOMP_FILTER";
    lack("seccomp", Verdict::Bad, "the kernel has no filters", effect, remedy)
}

fn capabilities(facts: &Facts) -> Finding {
    let needed = CapSet::SYS_ADMIN;
    if !facts.capabilities.contains(needed) {
        let effect = "namespaces, mounts and filters are refused";
        return lack(
            "capabilities",
            Verdict::Bad,
            "CAP_SYS_ADMIN is missing",
            effect,
            "run podshim with all capabilities",
        );
    }
    let missing = CapSet::ALL - facts.capabilities;
    if missing.is_empty() {
        return good("capabilities", "all");
    }
    let effect = "containers go without them, and without CAP_SYS_RESOURCE no limit can be raised";
    let found = format!("{missing} missing");
    lack("capabilities", Verdict::Warning, found, effect, "run podshim with all capabilities")
}

fn resolver(facts: &Facts) -> Finding {
    match facts.resolver.as_slice() {
        [] => good("resolver", "names servers that pods can reach"),
        [first, ..] => lack(
            "resolver",
            Verdict::Warning,
            first.clone(),
            "pods resolve no names",
            "install systemd-resolved's upstream list, or set dnsPolicy: None and dnsConfig",
        ),
    }
}

fn space(facts: &Facts) -> Finding {
    match facts.free_bytes {
        Some(free) if free < LITTLE_SPACE => lack(
            "disk",
            Verdict::Warning,
            format!("{} MiB free where images are kept", free >> 20),
            "images may not fit",
            "`podshim prune`, `podshim rmi`, or another --root",
        ),
        Some(free) => good("disk", format!("{} GiB free where images are kept", free >> 30)),
        None => good("disk", "not there yet"),
    }
}

fn inotify(facts: &Facts) -> Finding {
    match facts.inotify_instances {
        Some(few) if few < FEW_INOTIFY => lack(
            "inotify",
            Verdict::Warning,
            format!("fs.inotify.max_user_instances is {few}"),
            "several `podshim run` at a time may fail",
            "`sysctl fs.inotify.max_user_instances=128`",
        ),
        _ => good("inotify", "enough instances"),
    }
}

fn swap(facts: &Facts) -> Finding {
    if facts.swap_accounting {
        return good("swap", "is counted with memory");
    }
    let effect = "a container may swap beyond its limit of memory";
    lack(
        "swap",
        Verdict::Warning,
        "is not counted",
        effect,
        "boot with swapaccount=1, or without swap",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).into();
        Facts {
            root: true,
            kernel: (6, 1),
            cgroups: Ok(("v2", controllers)),
            namespaces: Ok(()),
            overlay: Ok(()),
            sealed_copy: Ok(()),
            seccomp: true,
            capabilities: CapSet::ALL,
            nft: Ok(()),
            firewalls: Vec::new(),
            resolver: Vec::new(),
            free_bytes: Some(20 << 30),
            inotify_instances: Some(128),
            swap_accounting: true,
        }
    }

    #[test]
    fn a_healthy_host_has_nothing_to_mend() {
        let found = examine(&healthy());
        assert!(
            found.iter().all(|f| f.verdict == Verdict::Good && f.remedy.is_none()),
            "{found:#?}"
        );
        assert!(
            examine(&Facts { kernel: (5, 15), ..healthy() })
                .iter()
                .all(|f| f.verdict == Verdict::Good)
        );
    }

    #[test]
    fn each_lack_says_what_it_means_and_what_mends_it() {
        let why = || Err("no".to_owned());
        for (facts, subject, verdict) in [
            (Facts { root: false, ..healthy() }, "user", Verdict::Bad),
            (Facts { kernel: (5, 10), ..healthy() }, "kernel", Verdict::Bad),
            (Facts { cgroups: Err("no".into()), ..healthy() }, "cgroups", Verdict::Bad),
            (
                Facts { cgroups: Ok(("v1", ["pids".to_owned()].into())), ..healthy() },
                "cgroups",
                Verdict::Warning,
            ),
            (Facts { namespaces: why(), ..healthy() }, "namespaces", Verdict::Bad),
            (Facts { overlay: why(), ..healthy() }, "overlayfs", Verdict::Bad),
            (Facts { sealed_copy: why(), ..healthy() }, "sealed copy", Verdict::Bad),
            (Facts { seccomp: false, ..healthy() }, "seccomp", Verdict::Bad),
            (Facts { capabilities: CapSet::EMPTY, ..healthy() }, "capabilities", Verdict::Bad),
            (
                Facts { capabilities: CapSet::ALL - CapSet::SYS_RESOURCE, ..healthy() },
                "capabilities",
                Verdict::Warning,
            ),
            (Facts { nft: why(), ..healthy() }, "nft", Verdict::Warning),
            (Facts { resolver: vec!["no".into()], ..healthy() }, "resolver", Verdict::Warning),
            (Facts { free_bytes: Some(1 << 20), ..healthy() }, "disk", Verdict::Warning),
            (Facts { inotify_instances: Some(1), ..healthy() }, "inotify", Verdict::Warning),
            (Facts { swap_accounting: false, ..healthy() }, "swap", Verdict::Warning),
        ] {
            let found = examine(&facts);
            let lacks: Vec<&Finding> =
                found.iter().filter(|f| f.verdict != Verdict::Good).collect();
            assert!(!lacks.is_empty(), "{subject}");
            for lack in lacks {
                assert_eq!((lack.subject, lack.verdict), (subject, verdict));
                assert!(lack.effect.is_some() && lack.remedy.is_some(), "{lack:?}");
            }
        }
    }
}
