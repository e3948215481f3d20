//! What the network's interfaces, table and rules are called, and what is written on them.
//!
//! Whatever is made on the host says whose it is: links by their alias (`ip link` shows it), rules by
//! their comment. Only what says so is ever changed or removed.

use std::net::Ipv4Addr;

use super::cidr::Cidr;

/// The bridge that pods of this host share unless another one is named.
pub const DEFAULT_BRIDGE: &str = "podshim0";

/// The pod's end of its pair, as every runtime calls it.
pub const POD_INTERFACE: &str = "eth0";

/// IFNAMSIZ less the final zero, and less room for the numbers of further bridges.
const BRIDGE_NAME_MAX: usize = 13;

/// The names of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    first: String,
    stem: String,
    number: usize,
}

impl Names {
    /// `None` if no bridge can have that name.
    #[must_use]
    pub fn of(bridge: &str) -> Option<Names> {
        let fits = (1..=BRIDGE_NAME_MAX).contains(&bridge.len())
            && bridge.starts_with(|c: char| c.is_ascii_alphabetic())
            && bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let stem = bridge.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = bridge[stem.len()..].parse().unwrap_or(0);
        fits.then(|| Names { first: bridge.into(), stem: stem.into(), number })
    }

    /// The name of a bridge, from 0.
    #[must_use]
    pub fn bridge(&self, bridge: usize) -> String {
        if bridge == 0 {
            return self.first.clone();
        }
        format!("{}{}", self.stem, self.number + bridge)
    }

    /// What all bridges' names begin with.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The nftables table, and the comment of every rule in somebody else's.
    #[must_use]
    pub fn tag(&self) -> String {
        if self.first == DEFAULT_BRIDGE {
            "podshim".into()
        } else {
            format!("podshim-{}", self.first)
        }
    }

    /// What is written on a bridge.
    #[must_use]
    pub fn bridge_alias(&self, range: Cidr) -> String {
        format!("podshim network {} {range}", self.first)
    }

    /// The range of the network that a bridge says it is of; `None` if it is none of this one's.
    #[must_use]
    pub fn range_of(&self, alias: &str) -> Option<Cidr> {
        let rest = alias.strip_prefix("podshim network ")?;
        rest.strip_prefix(&self.first)?.strip_prefix(' ')?.parse().ok()
    }
}

/// The host's end of a pod's pair: `ps`, what the uid begins with, and a checksum of all of it.
#[must_use]
pub fn pod_link(uid: &str) -> String {
    let begin: String =
        uid.bytes().filter(u8::is_ascii_alphanumeric).take(8).map(char::from).collect();
    format!("ps{begin}{:05x}", crc32fast::hash(uid.as_bytes()) & 0xf_ffff)
}

/// What is written on it.
#[must_use]
pub fn pod_alias(uid: &str, address: Ipv4Addr) -> String {
    format!("podshim pod {uid} {address}")
}

/// The pod that a link says it is of, and its address.
#[must_use]
pub fn pod_of(alias: &str) -> Option<(&str, Ipv4Addr)> {
    let (uid, address) = alias.strip_prefix("podshim pod ")?.split_once(' ')?;
    is_uid(uid).then_some((uid, address.parse().ok()?))
}

/// Whether a uid may be one: it becomes a file's name and part of a link's.
#[must_use]
pub fn is_uid(uid: &str) -> bool {
    (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one that goes with an address, as CNI's bridges have it: so who gets an address again is
    /// found where the last one was.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Mac {
        let [a, b, c, d] = address.octets();
        Mac([0x0a, 0x58, a, b, c, d])
    }

    /// The one of the other end of that pod's pair.
    #[must_use]
    pub fn of_host_end(address: Ipv4Addr) -> Mac {
        let Mac([_, b, c, d, e, g]) = Mac::of(address);
        Mac([0xfe, b, c, d, e, g])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_numbered_on_from_the_first() {
        let names = Names::of("podshim0").expect("a name");
        assert_eq!([names.bridge(0), names.bridge(1)], ["podshim0", "podshim1"]);
        assert_eq!((names.stem(), names.tag().as_str()), ("podshim", "podshim"));
        let names = Names::of("br-test").expect("a name");
        assert_eq!([names.bridge(0), names.bridge(12)], ["br-test", "br-test12"]);
        assert_eq!(names.tag(), "podshim-br-test");
        assert_eq!(Names::of("net9").expect("a name").bridge(1), "net10");
        for wrong in ["", "0x", "a b", "fourteen-chars", "a/b", "ü", "a;b", "a\n"] {
            assert_eq!(Names::of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn links_tell_whose_they_are() {
        let names = Names::of("podshim0").expect("a name");
        let range = "10.213.0.0/16".parse().expect("a range");
        assert_eq!(names.range_of(&names.bridge_alias(range)), Some(range));
        assert_eq!(Names::of("podshim").expect("name").range_of(&names.bridge_alias(range)), None);
        assert_eq!(names.range_of("somebody's"), None);
        let address = Ipv4Addr::new(10, 213, 0, 2);
        assert_eq!(pod_of(&pod_alias("abc-1", address)), Some(("abc-1", address)));
        for wrong in ["", "podshim pod", "podshim pod x", "podshim pod ../x 10.0.0.1"] {
            assert_eq!(pod_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pod_s_link_has_a_name_of_its_own_that_fits() {
        let one = pod_link("0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a77");
        assert!(one.starts_with("ps0b0dd9b5") && one.len() == 15, "{one}");
        assert_ne!(one, pod_link("0b0dd9b5-3c5e-4e0b-8f4e-6a3c8f1f2a78"));
        assert!(pod_link("x").len() <= 15);
        assert_eq!(Mac::of(Ipv4Addr::new(10, 213, 0, 255)).to_string(), "0a:58:0a:d5:00:ff");
    }
}
