//! A set of Linux capabilities: one bit each, numbered as the kernel numbers them
//! (`include/uapi/linux/capability.h`).
//!
//! Written and read as a list of names in the kernel's order, so that equal sets are equal texts.

use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};
use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names without `CAP_`; the index is the kernel's number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A name that no capability has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no capability is called {name:?}: names are those of capabilities(7), as NET_ADMIN")]
pub struct UnknownCapability {
    /// The name, as it was written.
    pub name: String,
}

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(u64);

impl CapSet {
    /// None.
    pub const EMPTY: CapSet = CapSet(0);
    /// All that this version knows.
    pub const ALL: CapSet = CapSet((1 << NAMES.len()) - 1);
    /// What containers have if nobody says otherwise: containerd's fourteen.
    pub const DEFAULT: CapSet = CapSet(
        1 | 1 << 1
            | 1 << 3
            | 1 << 4
            | 1 << 5
            | 1 << 6
            | 1 << 7
            | 1 << 8
            | 1 << 10
            | 1 << 13
            | 1 << 18
            | 1 << 27
            | 1 << 29
            | 1 << 31,
    );
    /// `CAP_SETPCAP`.
    pub const SETPCAP: CapSet = CapSet(1 << 8);
    /// `CAP_SYS_ADMIN`.
    pub const SYS_ADMIN: CapSet = CapSet(1 << 21);
    /// `CAP_SYS_RESOURCE`.
    pub const SYS_RESOURCE: CapSet = CapSet(1 << 24);

    /// The set whose bits are these, as in `CapBnd` of `/proc/<pid>/status`; bits that this version
    /// has no name for are left out.
    #[must_use]
    pub fn from_bits(bits: u64) -> CapSet {
        CapSet(bits) & Self::ALL
    }

    /// The kernel's bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub fn contains(self, other: CapSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names with `CAP_`, in the kernel's order.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.short_names().map(|name| format!("CAP_{name}")).collect()
    }

    /// As the OCI specification's types have it.
    #[must_use]
    pub fn to_oci(self) -> Capabilities {
        self.short_names().filter_map(|name| Capability::from_str(name).ok()).collect()
    }

    fn short_names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, n)| *n)
    }
}

impl BitOr for CapSet {
    type Output = CapSet;

    fn bitor(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }
}

impl BitAnd for CapSet {
    type Output = CapSet;

    fn bitand(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }
}

impl Sub for CapSet {
    type Output = CapSet;

    fn sub(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }
}

impl FromStr for CapSet {
    type Err = UnknownCapability;

    /// The set of the one capability of this name, with or without `CAP_`, in any case, as
    /// container runtimes take them.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let bit = NAMES.iter().position(|known| *known == short);
        bit.map(|bit| CapSet(1 << bit)).ok_or_else(|| UnknownCapability { name: name.into() })
    }
}

impl fmt::Display for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet[{self}]")
    }
}

impl Serialize for CapSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = CapSet::EMPTY;
        for name in Vec::<String>::deserialize(deserializer)? {
            set = set | name.parse().map_err(serde::de::Error::custom)?;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_containerds_fourteen() {
        let names = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
                     NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
        let expected = names
            .split_whitespace()
            .map(|name| name.parse::<CapSet>().expect(name))
            .fold(CapSet::EMPTY, BitOr::bitor);
        assert_eq!(CapSet::DEFAULT, expected);
        assert_eq!(CapSet::DEFAULT.names().len(), 14);
        // What /proc/self/status of a container shows, known from docker and containerd.
        assert_eq!(CapSet::DEFAULT.bits(), 0xa804_25fb);
    }

    #[test]
    fn the_named_constants_are_the_kernels_numbers() {
        for (set, name) in [
            (CapSet::SETPCAP, "SETPCAP"),
            (CapSet::SYS_ADMIN, "SYS_ADMIN"),
            (CapSet::SYS_RESOURCE, "SYS_RESOURCE"),
        ] {
            assert_eq!(set, name.parse().expect(name));
        }
    }

    #[test]
    fn none_is_lost_on_the_way_to_the_oci_types() {
        assert_eq!(CapSet::ALL.to_oci().len(), NAMES.len());
    }

    #[test]
    fn names_are_taken_with_and_without_prefix_and_in_any_case() {
        for name in ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"] {
            assert_eq!(name.parse(), Ok(CapSet(1 << 12)), "{name}");
        }
        for name in ["", "CAP_", "ALL", "NET-ADMIN", "CAP_CAP_NET_ADMIN", " NET_ADMIN", "root"] {
            assert!(name.parse::<CapSet>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_set_survives_being_written_and_read() {
        let text = serde_json::to_string(&CapSet::DEFAULT).expect("a list of strings");
        assert_eq!(serde_json::from_str::<CapSet>(&text).expect(&text), CapSet::DEFAULT);
        assert!(serde_json::from_str::<CapSet>(r#"["CAP_NOTHING"]"#).is_err());
    }
}
