//! Ranges of IPv4 addresses: which one the pods get, and how it is shared among bridges.
//!
//! Pure: what the host uses comes in as values.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of IPv4 addresses: a network address and the length of its prefix, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a range cannot be the pods'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It is not written as a range.
    #[error("{0:?} is not a range of IPv4 addresses; write it like 10.213.0.0/16")]
    Syntax(String),
    /// Bits behind the prefix are set.
    #[error("{given} has bits set behind its prefix; did you mean {meant}?")]
    HostBits {
        /// As it was written.
        given: String,
        /// The range that it lies in.
        meant: Cidr,
    },
    /// Too large or too small.
    #[error("{0} cannot hold the pods' addresses: its prefix must be from /8 to /29")]
    Size(Cidr),
    /// Addresses that mean something else.
    #[error("{range} overlaps {special}, which is {what}; take a private range (RFC 1918)")]
    Special {
        /// The range asked for.
        range: Cidr,
        /// What it overlaps.
        special: Cidr,
        /// What that is for.
        what: &'static str,
    },
    /// The host uses some of it.
    #[error("{range} overlaps {used}, which this host uses ({by}); name another range")]
    Taken {
        /// The range asked for.
        range: Cidr,
        /// What the host uses.
        used: Cidr,
        /// For what.
        by: String,
    },
    /// All ranges that are tried by default are in use.
    #[error("every range from {} to {} overlaps one that this host uses (the first: {used}, {by}); \
             name a range for the pods", CANDIDATES[0], CANDIDATES[CANDIDATES.len() - 1])]
    AllTaken {
        /// What the first of them overlaps.
        used: Cidr,
        /// For what.
        by: String,
    },
}

/// What is tried, in this order, when no range was given.
pub const CANDIDATES: [Cidr; 10] = {
    let mut all = [Cidr { network: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 }; 10];
    let mut i: u8 = 0;
    while i < 10 {
        all[i as usize].network = Ipv4Addr::new(10, 213 + i, 0, 0);
        i += 1;
    }
    all
};

/// A bridge takes 1,023 ports (`BR_MAX_PORTS` less one, linux/net/bridge/br_private.h), a /22 has
/// 1,021 addresses for pods: whoever got an address gets a port.
const BRIDGE_PREFIX: u8 = 22;

const SPECIAL: [(Cidr, &str); 5] = [
    (Cidr { network: Ipv4Addr::new(0, 0, 0, 0), prefix: 8 }, "\"this network\" (RFC 1122)"),
    (Cidr { network: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 }, "the loopback network"),
    (Cidr { network: Ipv4Addr::new(169, 254, 0, 0), prefix: 16 }, "link-local (RFC 3927)"),
    (Cidr { network: Ipv4Addr::new(224, 0, 0, 0), prefix: 4 }, "multicast"),
    (Cidr { network: Ipv4Addr::new(240, 0, 0, 0), prefix: 4 }, "reserved"),
];

/// A range that the host uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub range: Cidr,
    /// For what, in words.
    pub by: String,
}

impl Cidr {
    /// The range with this prefix that an address lies in. A prefix above 32 counts as 32.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix: u8) -> Cidr {
        let prefix = prefix.min(32);
        Cidr { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// The length of the prefix, in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether they have an address in common: one lies in the other then.
    #[must_use]
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The first address: the bridge's own, the pods' gateway.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many pods it has addresses for: not the network's, the gateway's and the broadcast one.
    #[must_use]
    pub fn pods(self) -> u32 {
        u32::try_from((1_u64 << (32 - self.prefix)).saturating_sub(3)).unwrap_or(u32::MAX)
    }

    /// The address of the pod with this number, from 0. Numbers go round.
    #[must_use]
    pub fn pod(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 2 + number % self.pods().max(1))
    }

    /// The number of a pod's address; `None` if it is none of this range's pods'.
    #[must_use]
    pub fn number(self, address: Ipv4Addr) -> Option<u32> {
        let number = address.to_bits().checked_sub(self.network.to_bits())?.checked_sub(2)?;
        (number < self.pods()).then_some(number)
    }

    /// The parts that bridges get, one each.
    pub fn bridges(self) -> impl Iterator<Item = Cidr> {
        let prefix = self.prefix.max(BRIDGE_PREFIX);
        let size = 1_u32 << (32 - prefix);
        let network = self.network.to_bits();
        (0..1_u32 << (prefix - self.prefix))
            .map(move |i| Cidr { network: Ipv4Addr::from_bits(network + i * size), prefix })
    }

    /// Which bridge's part an address of this range lies in.
    #[must_use]
    pub fn bridge_of(self, address: Ipv4Addr) -> Option<usize> {
        let part = address.to_bits().checked_sub(self.network.to_bits())?
            >> (32 - self.prefix.max(BRIDGE_PREFIX));
        self.contains(address).then(|| usize::try_from(part).ok()).flatten()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Cidr, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let address: Ipv4Addr = address.parse().map_err(|_| syntax())?;
        // A sign is no part of a prefix, though parse() would take it.
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|p| digits && *p <= 32).ok_or_else(syntax)?;
        let meant = Cidr::around(address, prefix);
        if meant.network == address {
            Ok(meant)
        } else {
            Err(RangeError::HostBits { given: text.to_owned(), meant })
        }
    }
}

/// Whether a range may be the pods', given what the host uses.
///
/// # Errors
/// The reason why not.
pub fn check(range: Cidr, used: &[Used]) -> Result<(), RangeError> {
    if !(8..=29).contains(&range.prefix) {
        return Err(RangeError::Size(range));
    }
    if let Some((special, what)) = SPECIAL.iter().find(|(special, _)| special.overlaps(range)) {
        return Err(RangeError::Special { range, special: *special, what });
    }
    match used.iter().find(|used| used.range.overlaps(range)) {
        Some(Used { range: used, by }) => {
            Err(RangeError::Taken { range, used: *used, by: by.clone() })
        }
        None => Ok(()),
    }
}

/// The first candidate that overlaps nothing that the host uses.
///
/// # Errors
/// [`RangeError::AllTaken`].
pub fn choose(used: &[Used]) -> Result<Cidr, RangeError> {
    let mut first = None;
    for range in CANDIDATES {
        match check(range, used) {
            Ok(()) => return Ok(range),
            Err(e) => first = first.or(Some(e)),
        }
    }
    Err(match first {
        Some(RangeError::Taken { used, by, .. }) => RangeError::AllTaken { used, by },
        Some(other) => other,
        None => RangeError::Syntax(String::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a range")
    }

    fn used(text: &str) -> Used {
        Used { range: cidr(text), by: "a route".into() }
    }

    #[test]
    fn the_first_range_that_overlaps_nothing_is_chosen() {
        assert_eq!(choose(&[]).expect("free"), cidr("10.213.0.0/16"));
        let taken = [used("10.213.4.0/24"), used("10.214.0.0/15"), used("192.168.0.0/16")];
        assert_eq!(choose(&taken).expect("free"), cidr("10.216.0.0/16"));
    }

    #[test]
    fn a_network_that_holds_all_candidates_is_named() {
        let error = choose(&[used("10.0.0.0/8")]).expect_err("taken").to_string();
        assert!(error.contains("10.213.0.0/16 to 10.222.0.0/16"), "{error}");
        assert!(error.contains("10.0.0.0/8, a route"), "{error}");
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for text in ["", "10.1.2.3", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "fd00::/64", "x/8"]
        {
            assert!(matches!(text.parse::<Cidr>(), Err(RangeError::Syntax(_))), "{text}");
        }
        let error = "10.1.2.3/16".parse::<Cidr>().expect_err("host bits").to_string();
        assert!(error.contains("did you mean 10.1.0.0/16"), "{error}");
        for text in ["10.0.0.0/7", "10.0.0.0/30", "0.0.0.0/0"] {
            let range = Cidr::around("10.0.0.0".parse().expect("address"), 0);
            let range = text.parse().unwrap_or(range);
            assert!(matches!(check(range, &[]), Err(RangeError::Size(_))), "{text}");
        }
        for text in ["127.0.0.0/16", "169.254.8.0/24", "224.1.0.0/16", "0.0.0.0/8", "255.0.0.0/8"] {
            let wrong = check(cidr(text), &[]);
            assert!(matches!(wrong, Err(RangeError::Special { .. })), "{text}");
        }
        let error = check(cidr("172.17.0.0/16"), &[used("172.17.0.0/24")]).expect_err("taken");
        assert!(error.to_string().contains("172.17.0.0/24, which this host uses (a route)"));
    }

    #[test]
    fn every_pod_of_a_range_has_a_number_and_no_other_address_has() {
        let range = cidr("10.213.0.0/29");
        assert_eq!(range.gateway().to_string(), "10.213.0.1");
        let pods: Vec<String> = (0..range.pods()).map(|n| range.pod(n).to_string()).collect();
        assert_eq!(pods, ["10.213.0.2", "10.213.0.3", "10.213.0.4", "10.213.0.5", "10.213.0.6"]);
        assert_eq!(range.pod(5), range.pod(0));
        for address in ["10.212.255.255", "10.213.0.0", "10.213.0.1", "10.213.0.7", "10.213.0.8"] {
            assert_eq!(range.number(address.parse().expect("address")), None, "{address}");
        }
        assert_eq!(range.number(range.pod(3)), Some(3));
    }

    #[test]
    fn a_bridge_has_fewer_addresses_than_ports() {
        let range = cidr("10.213.0.0/16");
        let parts: Vec<Cidr> = range.bridges().collect();
        assert_eq!(parts.len(), 64);
        assert_eq!((parts[0], parts[63]), (cidr("10.213.0.0/22"), cidr("10.213.252.0/22")));
        assert!(parts.iter().all(|part| part.pods() == 1021));
        assert_eq!(range.bridge_of("10.213.5.9".parse().expect("address")), Some(1));
        assert_eq!(range.bridge_of("10.214.5.9".parse().expect("address")), None);
        assert_eq!(cidr("10.9.8.0/24").bridges().collect::<Vec<_>>(), [cidr("10.9.8.0/24")]);
    }
}
