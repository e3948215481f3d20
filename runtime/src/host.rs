//! Facts of this host that a container's configuration depends on, read once a pod.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bundles::capability::CapSet;
use bundles::host::Host;
use rustix::process::{Resource, getrlimit};

/// A fact that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct HostError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads them.
///
/// # Errors
/// A file of /proc that every Linux has cannot be read or understood.
pub fn read() -> Result<Host, HostError> {
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy().into_owned();
    Ok(Host {
        memory_bytes: number_in("/proc/meminfo", "MemTotal:")?.saturating_mul(1024),
        cpus: cpus(),
        host_ip: host_ip(),
        node_name: hostname.clone(),
        hostname,
        nofile_hard: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        pid_max: whole("/proc/sys/kernel/pid_max")?,
        capabilities: bounding_set()?,
        own_oom_score_adj: whole("/proc/self/oom_score_adj")?,
        swap_accounting: swap_accounting(),
        thermal_throttle_paths: thermal_throttle_paths(),
    })
}

fn text(path: &str) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(|source| HostError { path: path.into(), source })
}

fn not_understood(path: &str) -> HostError {
    HostError { path: path.into(), source: io::Error::other("its content is not understood") }
}

fn whole<N: std::str::FromStr>(path: &str) -> Result<N, HostError> {
    text(path)?.trim().parse().map_err(|_| not_understood(path))
}

/// The number behind a key at the beginning of a line.
fn number_in(path: &str, key: &str) -> Result<u64, HostError> {
    text(path)?
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| not_understood(path))
}

fn cpus() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What no process of this one can have more of (capabilities(7)).
fn bounding_set() -> Result<CapSet, HostError> {
    const PATH: &str = "/proc/self/status";
    let status = text(PATH)?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .map(CapSet::from_bits)
        .ok_or_else(|| not_understood(PATH))
}

/// The address that the default route uses: a datagram socket is connected (nothing is sent) and
/// asked for its own end.
fn host_ip() -> Option<String> {
    // 192.0.2.1 is TEST-NET-1 (RFC 5737): routed by the default route and nobody's.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string())
}

fn swap_accounting() -> bool {
    [
        "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
        "/sys/fs/cgroup/system.slice/memory.swap.max",
        "/sys/fs/cgroup/init.scope/memory.swap.max",
    ]
    .iter()
    .any(|path| Path::new(path).exists())
}

fn thermal_throttle_paths() -> Vec<String> {
    const CPUS: &str = "/sys/devices/system/cpu";
    let Ok(entries) = fs::read_dir(CPUS) else { return Vec::new() };
    let mut paths: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.strip_prefix("cpu")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|name| format!("{CPUS}/{name}/thermal_throttle"))
        .filter(|path| Path::new(path).exists())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linux_has_memory_processors_and_a_name() {
        let host = read().expect("facts");
        assert!(host.memory_bytes > 16 << 20);
        assert!(host.cpus > 0);
        assert!(host.pid_max > 100);
        assert!(!host.hostname.is_empty());
    }
}
