//! Which devices a container may touch, as data.
//!
//! The list is containerd's (`WithDefaultUnixDevices`). It goes into `resources.devices`, which
//! cgroup v1 knows how to enforce, and to whoever writes the device program of cgroup v2.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Block devices.
    Block,
    /// Character devices.
    Char,
    /// Both.
    All,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
    /// Made with mknod.
    pub mknod: bool,
}

impl Access {
    /// `rwm`.
    pub const ALL: Access = Access { read: true, write: true, mknod: true };
    /// `m`: a node may be made, not opened.
    pub const MKNOD: Access = Access { read: false, write: false, mknod: true };

    /// As the `devices` controller writes it.
    #[must_use]
    pub fn letters(self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')]
            .into_iter()
            .filter_map(|(given, letter)| given.then_some(letter))
            .collect()
    }
}

/// What is allowed; everything that no rule allows is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Which table the numbers belong to.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: Access,
}

const fn char_device(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Char, major: Some(major), minor, access: Access::ALL }
}

/// What every container has: null, zero, full, random, urandom, tty, console, ptmx, pts. As in
/// containerd any node may be *made* (which takes `CAP_MKNOD` too), as unpacking archives does; to
/// open it is another thing.
pub const DEFAULT: &[DeviceRule] = &[
    DeviceRule { kind: DeviceKind::Char, major: None, minor: None, access: Access::MKNOD },
    DeviceRule { kind: DeviceKind::Block, major: None, minor: None, access: Access::MKNOD },
    char_device(1, Some(3)),
    char_device(1, Some(5)),
    char_device(1, Some(7)),
    char_device(1, Some(8)),
    char_device(1, Some(9)),
    char_device(5, Some(0)),
    char_device(5, Some(1)),
    char_device(5, Some(2)),
    char_device(136, None),
];

/// The rules as the OCI specification has them: first everything is denied.
#[must_use]
pub fn to_oci(rules: &[DeviceRule]) -> Vec<LinuxDeviceCgroup> {
    let mut list = vec![rule(false, LinuxDeviceType::A, (None, None), Access::ALL)];
    list.extend(rules.iter().map(|r| rule(true, r.kind.to_oci(), (r.major, r.minor), r.access)));
    list
}

impl DeviceKind {
    fn to_oci(self) -> LinuxDeviceType {
        match self {
            DeviceKind::Block => LinuxDeviceType::B,
            DeviceKind::Char => LinuxDeviceType::C,
            DeviceKind::All => LinuxDeviceType::A,
        }
    }
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (Option<u32>, Option<u32>),
    access: Access,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major.map(i64::from))
        .set_minor(minor.map(i64::from))
        .set_access(Some(access.letters()));
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_denied_before_anything_is_allowed() {
        let list = to_oci(DEFAULT);
        assert_eq!(list[0].to_string(), "a *:* rwm");
        assert!(!list[0].allow());
        let allowed: Vec<String> = list[1..].iter().map(ToString::to_string).collect();
        assert!(list[1..].iter().all(|r| r.allow()));
        assert_eq!(
            allowed,
            [
                "c *:* m",
                "b *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:1 rwm",
                "c 5:2 rwm",
                "c 136:* rwm",
            ]
        );
    }
}
