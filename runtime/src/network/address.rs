//! Allocation of addresses: each to one living pod at a time, on the first bridge with room.
//!
//! Round-robin on each bridge: the address given next comes after the one given last, so that one that
//! was freed rests for as long as there are others (peers' caches and connections die meanwhile).

use std::net::Ipv4Addr;

use super::cidr::Cidr;
use super::state::{AddressRecord, State, StateError};

/// A pod's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which bridge, from 0.
    pub bridge: usize,
    /// That bridge's part of the range.
    pub part: Cidr,
    /// The pod's address in it.
    pub address: Ipv4Addr,
}

/// The place that a pod has or gets; `None` if every address of the range is taken.
///
/// # Errors
/// That of a record.
pub fn allocate(
    state: &State,
    range: Cidr,
    record: &AddressRecord,
) -> Result<Option<Place>, StateError> {
    if let Some((address, held)) = state.address_of(&record.uid)? {
        if let Some(place) = place(range, address) {
            return Ok(Some(place));
        }
        // Of another range, from before: nobody uses that any more.
        state.free_address(address, &held.uid)?;
    }
    for (bridge, part) in range.bridges().enumerate() {
        let last = state.cursor(bridge).and_then(|address| part.number(address));
        let first = last.map_or(0, |number| number + 1);
        for number in first..first + part.pods() {
            let address = part.pod(number);
            if state.take_address(address, record)? {
                state.set_cursor(bridge, address)?;
                return Ok(Some(Place { bridge, part, address }));
            }
        }
    }
    Ok(None)
}

/// Where an address of the range lies.
#[must_use]
pub fn place(range: Cidr, address: Ipv4Addr) -> Option<Place> {
    let bridge = range.bridge_of(address)?;
    let part = range.bridges().nth(bridge)?;
    part.number(address).map(|_| Place { bridge, part, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::lock(&dir.path().join("net")).expect("a lock");
        (dir, state)
    }

    fn pod(uid: &str) -> AddressRecord {
        AddressRecord { uid: uid.into(), link: format!("ps-{uid}") }
    }

    fn take(state: &State, range: &str, uid: &str) -> Option<String> {
        let range = range.parse().expect("a range");
        let place = allocate(state, range, &pod(uid)).expect("records");
        place.map(|place| place.address.to_string())
    }

    #[test]
    fn a_pod_keeps_its_address_and_the_next_gets_another() {
        let (_dir, state) = state();
        let range = "10.213.0.0/16";
        assert_eq!(take(&state, range, "a").as_deref(), Some("10.213.0.2"));
        assert_eq!(take(&state, range, "b").as_deref(), Some("10.213.0.3"));
        assert_eq!(take(&state, range, "a").as_deref(), Some("10.213.0.2"));
    }

    #[test]
    fn the_address_freed_last_is_given_last() {
        let (_dir, state) = state();
        let range = "10.213.0.0/29";
        for uid in ["a", "b", "c"] {
            take(&state, range, uid);
        }
        state.free_address(Ipv4Addr::new(10, 213, 0, 2), "a").expect("freed");
        state.free_address(Ipv4Addr::new(10, 213, 0, 4), "c").expect("freed");
        let next: Vec<_> = ["d", "e", "f", "g"].map(|uid| take(&state, range, uid)).into();
        let expected = ["10.213.0.5", "10.213.0.6", "10.213.0.2", "10.213.0.4"];
        assert_eq!(next, expected.map(|a| Some(a.to_owned())));
        assert_eq!(take(&state, range, "h"), None, "full");
    }

    #[test]
    fn what_is_not_the_pod_s_is_not_freed() {
        let (_dir, state) = state();
        take(&state, "10.213.0.0/29", "a");
        state.free_address(Ipv4Addr::new(10, 213, 0, 2), "b").expect("nothing to do");
        assert_eq!(state.addresses().expect("records").len(), 1);
    }

    #[test]
    fn a_full_bridge_is_followed_by_the_next() {
        let (_dir, state) = state();
        for number in 0..1021 {
            take(&state, "10.213.0.0/21", &format!("pod-{number}"));
        }
        assert_eq!(take(&state, "10.213.0.0/21", "next").as_deref(), Some("10.213.4.2"));
        let place = place("10.213.0.0/21".parse().expect("range"), Ipv4Addr::new(10, 213, 4, 2));
        let place = place.expect("a place");
        assert_eq!((place.bridge, place.part.to_string().as_str()), (1, "10.213.4.0/22"));
    }

    #[test]
    fn a_killed_writer_s_leftovers_mean_nothing() {
        let (dir, state) = state();
        take(&state, "10.213.0.0/29", "a");
        // Between the index and the record, and between the record aside and its renaming.
        std::os::unix::fs::symlink("10.213.0.2", dir.path().join("net/pods/b")).expect("link");
        std::fs::write(dir.path().join("net/new"), "{\"uid").expect("file");
        assert_eq!(take(&state, "10.213.0.0/29", "b").as_deref(), Some("10.213.0.3"));
        std::os::unix::fs::symlink("10.213.0.2", dir.path().join("net/pods/c")).expect("link");
        state.sweep().expect("swept");
        assert!(!dir.path().join("net/pods/c").is_symlink());
        assert_eq!(state.addresses().expect("records").len(), 2);
    }
}
