//! The kernel's switches that a pod network needs: forwarding for the host, and what belongs to its
//! bridges and to a pod's namespace. `/proc/sys/net` is that of the calling thread's namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

/// A switch that cannot be read or set.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {} (set it with `sysctl -w {}={value}`)", path.display(), name(path))]
pub struct SysctlError {
    verb: &'static str,
    path: PathBuf,
    value: u8,
    #[source]
    source: io::Error,
}

fn name(path: &std::path::Path) -> String {
    path.strip_prefix("/proc/sys").unwrap_or(path).display().to_string().replace('/', ".")
}

type Result<T> = std::result::Result<T, SysctlError>;

const FORWARD: &str = "ipv4/ip_forward";

/// The value of `net.ipv4.ip_forward`: 0 is off.
///
/// # Errors
/// It cannot be read.
pub fn get() -> Result<u8> {
    let path = path(FORWARD);
    fs::read_to_string(&path)
        .and_then(|text| text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()))
        .map_err(|source| SysctlError { verb: "read", path, value: 1, source })
}

/// Sets `net.ipv4.ip_forward`. The kernel sets all interfaces' with it.
///
/// # Errors
/// It cannot be written.
pub fn set(value: u8) -> Result<()> {
    write(FORWARD, value)
}

/// What a bridge for pods needs:
///
/// * `route_localnet`: the host's own connections to 127.0.0.1 and a hostPort leave through the
///   bridge (the table's chain `guard` keeps out what others send to 127.0.0.0/8);
/// * `forwarding`, should the default for new interfaces be another one;
/// * no IPv6: a pod could otherwise send the host router advertisements (CVE-2020-10749).
///
/// # Errors
/// One that exists cannot be written.
pub fn set_up_bridge(name: &str) -> Result<()> {
    set_if_other(&format!("ipv4/conf/{name}/route_localnet"), 1)?;
    set_if_other(&format!("ipv4/conf/{name}/forwarding"), 1)?;
    if_there(set_if_other(&format!("ipv6/conf/{name}/disable_ipv6"), 1))
}

/// In a pod's namespace, before it has an interface: another pod's router advertisements are not
/// listened to.
///
/// # Errors
/// The switch exists and cannot be written.
pub fn set_up_pod() -> Result<()> {
    if_there(set_if_other("ipv6/conf/default/accept_ra", 0))
}

fn if_there(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reading costs less than writing, which takes the kernel's lock on all interfaces.
fn set_if_other(below: &str, value: u8) -> Result<()> {
    match fs::read_to_string(path(below)) {
        Ok(text) if text.trim().parse() == Ok(value) => Ok(()),
        _ => write(below, value),
    }
}

fn write(below: &str, value: u8) -> Result<()> {
    let path = path(below);
    fs::write(&path, value.to_string()).map_err(|source| SysctlError {
        verb: "write",
        path,
        value,
        source,
    })
}

fn path(below: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_cannot_be_set_says_how_to_set_it() {
        let error = write("ipv4/conf/podshim-none/forwarding", 1).expect_err("no interface");
        let said = error.to_string();
        assert!(said.contains("`sysctl -w net.ipv4.conf.podshim-none.forwarding=1`"), "{said}");
        if_there(Err(error)).expect("what is not there needs no setting");
    }

    #[test]
    fn forwarding_is_on_or_off() {
        assert!(get().expect("reads") <= 1);
    }
}
