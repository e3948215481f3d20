//! The pod network: a bridge that belongs to the host, an address for each pod, masquerade and host
//! ports.
//!
//! It belongs to the *host* and to no root: two instances share it, under one lock
//! ([`state`]). Everything that is made says whose it is ([`names`]), everything that was written down
//! is compared with what the kernel has before it counts, and every step may be the last one before a
//! kill -9: the next attach, [`Network::prune`] or [`Network::repair`] goes on from there.
//!
//! ```text
//! attach   lock → the network is set up → an address → host ports → the bridge → the pair → elements
//! detach   the pair → lock → elements → host ports → the address, last
//! ```
//!
//! A bridge takes 1,023 ports. So each gets a /22 of the range (1,021 pods), and when one is full the
//! next is made: `podshim1` beside `podshim0`. Pods on different bridges reach each other by the host.
//!
//! All functions are called by a thread in the host's network namespace. IPv4 only.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

pub mod address;
mod bridge;
pub mod cidr;
mod doctor;
mod error;
pub mod firewall;
pub mod forwarding;
pub mod names;
pub mod netlink;
mod nfnetlink;
pub mod ports;
pub mod program;
mod setup;
pub mod state;

pub use cidr::{Cidr, RangeError};
pub use doctor::{nft_works, other_firewalls};
pub use error::NetworkError;
pub use names::{DEFAULT_BRIDGE, Mac};
pub use ports::{HostPort, PortError, Protocol};

use address::Place;
use firewall::{foreign, table};
use names::{Names, POD_INTERFACE};
use netlink::Netlink;
use ports::Mapping;
use setup::recorded_range;
use state::{AddressRecord, State};

type Result<T> = std::result::Result<T, NetworkError>;

/// Which network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is remembered: a directory of the host's, on a tmpfs.
    pub dir: PathBuf,
    /// The name of its first bridge.
    pub bridge: String,
    /// The range, if the user named one. Otherwise the first of [`cidr::CANDIDATES`] that is free.
    pub range: Option<Cidr>,
}

impl Default for Config {
    fn default() -> Config {
        Config::of_bridge(DEFAULT_BRIDGE)
    }
}

impl Config {
    /// The network with this first bridge, remembered in `/run/podshim-host/<bridge>`.
    #[must_use]
    pub fn of_bridge(bridge: &str) -> Config {
        let dir = Path::new("/run/podshim-host").join(bridge);
        Config { dir, bridge: bridge.into(), range: None }
    }
}

/// A pod that wants to be on the network.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its uid: letters, digits and `-`.
    pub uid: &'a str,
    /// Its network namespace.
    pub netns: BorrowedFd<'a>,
    /// The host's ports that lead to it.
    pub ports: &'a [HostPort],
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its address: `status.podIP`.
    pub address: Ipv4Addr,
    /// The length of the prefix of the net around it, in bits.
    pub prefix: u8,
    /// Where its default route leads: the host, on the bridge.
    pub gateway: Ipv4Addr,
    /// Its interface.
    pub interface: &'static str,
    /// That one's Ethernet address; it goes with the address.
    pub mac: Mac,
    /// The bridge.
    pub bridge: String,
    /// The host's end of the pair.
    pub host_interface: String,
    /// What the user should know about the host's firewalls: said by the attach that set the network
    /// up or repaired it.
    pub notes: Vec<String>,
}

/// The network of a host's pods.
#[derive(Clone, Debug)]
pub struct Network {
    config: Config,
    names: Names,
}

impl Network {
    /// Names a network; touches nothing.
    ///
    /// # Errors
    /// [`NetworkError::BridgeName`], or a range that cannot be one.
    pub fn new(config: Config) -> Result<Network> {
        let names = Names::of(&config.bridge);
        let names = names.ok_or_else(|| NetworkError::BridgeName(config.bridge.clone()))?;
        if let Some(range) = config.range {
            cidr::check(range, &[])?;
        }
        Ok(Network { config, names })
    }

    /// Gives a pod its interface, address, route and host ports. Once more, it completes what is
    /// missing and answers the same.
    ///
    /// # Errors
    /// [`NetworkError`]. What was made for the pod is removed then.
    pub fn attach(&self, request: &Request<'_>) -> Result<Attachment> {
        if !names::is_uid(request.uid) {
            return Err(NetworkError::Uid(request.uid.to_owned()));
        }
        let state = State::lock(&self.config.dir)?;
        let mut netlink = Netlink::open()?;
        let (range, notes) = self.ready(&state, &mut netlink)?;
        let attached = self.attach_at(&state, &mut netlink, range, request);
        if attached.is_err() {
            // The first error says more than what is left, which prune finds again.
            let _ = bridge::remove_link(&mut netlink, request.uid);
            let _ = self.release(&state, range, request.uid);
        } else {
            // Others may attach meanwhile.
            drop(state);
            bridge::wait_until_operational(&mut netlink, request.uid);
        }
        attached.map(|attachment| Attachment { notes, ..attachment })
    }

    fn attach_at(
        &self,
        state: &State,
        netlink: &mut Netlink,
        range: Cidr,
        request: &Request<'_>,
    ) -> Result<Attachment> {
        let (uid, link) = (request.uid.to_owned(), names::pod_link(request.uid));
        let record = AddressRecord { uid, link: link.clone() };
        let place = match address::allocate(state, range, &record)? {
            Some(place) => place,
            None => {
                self.reclaim(state, netlink, range)?;
                address::allocate(state, range, &record)?.ok_or_else(|| full(range))?
            }
        };
        let mappings = self.claim(state, netlink, range, &place, request)?;
        let bridge = bridge::ensure(netlink, &self.names, range, &place)?;
        bridge::join(netlink, request.uid, request.netns, &bridge, &place)?;
        self.publish(state, range, &mappings)?;
        Ok(Attachment {
            address: place.address,
            prefix: place.part.prefix(),
            gateway: place.part.gateway(),
            interface: POD_INTERFACE,
            mac: Mac::of(place.address),
            bridge: bridge.name,
            host_interface: link,
            notes: Vec::new(),
        })
    }

    /// Writes down the pod's host ports; none asked for costs nothing.
    fn claim(
        &self,
        state: &State,
        netlink: &mut Netlink,
        range: Cidr,
        place: &Place,
        request: &Request<'_>,
    ) -> Result<Vec<Mapping>> {
        if request.ports.is_empty() {
            return Ok(Vec::new());
        }
        let decide =
            |taken: &[Mapping]| ports::decide(request.uid, place.address, request.ports, taken);
        let decided = match decide(&ports::all(state)?) {
            // A dead pod may hold it.
            Err(PortError::Taken { .. }) => {
                self.reclaim(state, netlink, range)?;
                decide(&ports::all(state)?)?
            }
            other => other?,
        };
        ports::take(state, &decided)?;
        Ok(decided)
    }

    fn publish(&self, state: &State, range: Cidr, mappings: &[Mapping]) -> Result<()> {
        if mappings.is_empty() {
            return Ok(());
        }
        if table::add(state, &self.names, mappings).is_err() {
            // An element of somebody who was killed is in the way: make the table what the records say.
            table::install(state, &self.names, range, &ports::all(state)?)?;
        }
        forget(mappings);
        Ok(())
    }

    /// Takes a pod from the network and frees what it had. A pod that is not there is no error. It may
    /// take as long as the kernel needs to remove an interface: call it off everybody's path.
    ///
    /// # Errors
    /// [`NetworkError`]: what could not be removed is still there and on record.
    pub fn detach(&self, uid: &str) -> Result<()> {
        if !names::is_uid(uid) {
            return Err(NetworkError::Uid(uid.to_owned()));
        }
        // Without the lock: others may attach meanwhile, and the address is still the pod's.
        bridge::remove_link(&mut Netlink::open()?, uid)?;
        let Some(state) = State::lock_if_there(&self.config.dir)? else { return Ok(()) };
        match recorded_range(&state.network()?) {
            Some(range) => self.release(&state, range, uid),
            None => Ok(()),
        }
    }

    /// Frees what a pod had whose link is gone: the address last.
    fn release(&self, state: &State, range: Cidr, uid: &str) -> Result<()> {
        self.withdraw(state, range, |mapping| mapping.uid == uid)?;
        match state.address_of(uid)? {
            Some((address, _)) => state.free_address(address, uid)?,
            None => state.forget_pod(uid)?,
        }
        Ok(())
    }

    fn withdraw(&self, state: &State, range: Cidr, which: impl Fn(&Mapping) -> bool) -> Result<()> {
        let (gone, stay): (Vec<_>, Vec<_>) = ports::all(state)?.into_iter().partition(which);
        if gone.is_empty() {
            return Ok(());
        }
        if table::is_whole(&self.names)? && table::delete(state, &self.names, &gone).is_err() {
            // Some of them were never there: make the table what the records will say.
            table::install(state, &self.names, range, &stay)?;
        }
        forget(&gone);
        Ok(ports::free(state, &gone)?)
    }

    /// Frees what pods had whose interfaces are gone: their namespaces are too, or nothing leads there.
    /// Under the lock nobody is in the middle of attaching, so that is proof. Answers with their uids.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn prune(&self) -> Result<Vec<String>> {
        let Some(state) = State::lock_if_there(&self.config.dir)? else { return Ok(Vec::new()) };
        match recorded_range(&state.network()?) {
            Some(range) => self.reclaim(&state, &mut Netlink::open()?, range),
            None => Ok(Vec::new()),
        }
    }

    fn reclaim(&self, state: &State, netlink: &mut Netlink, range: Cidr) -> Result<Vec<String>> {
        let links = netlink.links()?;
        let living: HashSet<&str> =
            links.iter().filter_map(|link| Some(names::pod_of(&link.alias)?.0)).collect();
        let mut dead = state.addresses()?;
        dead.retain(|(_, record)| !living.contains(record.uid.as_str()));
        self.withdraw(state, range, |mapping| !living.contains(mapping.uid.as_str()))?;
        for (address, record) in &dead {
            state.free_address(*address, &record.uid)?;
        }
        state.sweep()?;
        Ok(dead.into_iter().map(|(_, record)| record.uid).collect())
    }

    /// Makes everything as it was set up: bridges, addresses, table, elements, other firewalls' rules,
    /// forwarding. For when somebody flushed rules, or a firewall came later. Answers with what the user
    /// should know; nothing if there is no network.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn repair(&self) -> Result<Vec<String>> {
        let Some(state) = State::lock_if_there(&self.config.dir)? else { return Ok(Vec::new()) };
        let mut netlink = Netlink::open()?;
        if state.network()?.is_none() && bridge::live_range(&mut netlink, &self.names)?.is_none() {
            return Ok(Vec::new());
        }
        let (range, notes) = self.set_up(&state, &mut netlink)?;
        let mut bridges: Vec<Place> = Vec::new();
        for (address, _) in state.addresses()? {
            let place = address::place(range, address);
            if let Some(place) = place.filter(|p| bridges.iter().all(|b| b.bridge != p.bridge)) {
                bridge::ensure(&mut netlink, &self.names, range, &place)?;
                bridges.push(place);
            }
        }
        Ok(notes)
    }

    /// Removes the network: rules, table, bridges, records; forwarding is as it was before.
    ///
    /// # Errors
    /// [`NetworkError::InUse`] while pods of any root are on it; others, and then some is left.
    pub fn remove_all(&self) -> Result<()> {
        let mut netlink = Netlink::open()?;
        let live = match bridge::live_range(&mut netlink, &self.names) {
            // Not ours to remove.
            Err(NetworkError::ForeignBridge { .. }) => None,
            other => other?,
        };
        if live.is_none() && !self.config.dir.exists() {
            return Ok(());
        }
        let state = State::lock(&self.config.dir)?;
        let record = state.network()?;
        let range = recorded_range(&record).or(live);
        if let Some(range) = range {
            self.reclaim(&state, &mut netlink, range)?;
        }
        let pods: Vec<String> = state.addresses()?.into_iter().map(|(_, r)| r.uid).collect();
        if !pods.is_empty() {
            return Err(NetworkError::InUse { bridge: self.names.bridge(0), pods });
        }
        if program::find("nft").is_some() {
            let firewalld = record.as_ref().is_some_and(|record| record.firewalld);
            foreign::close(&state, &self.names, range, firewalld)?;
            table::remove(&state, &self.names)?;
        }
        bridge::remove_bridges(&mut netlink, &self.names)?;
        if let Some(before) = record.and_then(|record| record.forwarding_was) {
            forwarding::set(before)?;
        }
        Ok(state.destroy()?)
    }
}

/// Makes connections to changed host ports follow the change. Those that do not end by themselves some
/// time after, so a failure is no reason to fail.
fn forget(mappings: &[Mapping]) {
    if let Err(e) = nfnetlink::forget(mappings) {
        tracing::warn!("{}", crate::chain(&e));
    }
}

fn full(range: Cidr) -> NetworkError {
    NetworkError::Full { range, pods: range.bridges().map(|part| u64::from(part.pods())).sum() }
}
