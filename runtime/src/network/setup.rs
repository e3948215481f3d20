//! Setting the network up, once for the host, and seeing cheaply that it still is.

use super::cidr::{self, Cidr};
use super::firewall::{foreign, table};
use super::netlink::Netlink;
use super::state::{AddressRecord, NetworkRecord, State};
use super::{Network, NetworkError, Result, bridge, forwarding, names, ports};

impl Network {
    /// The network's range, everything being in place. Where nothing is missing this asks the kernel
    /// one question and reads two files.
    pub(super) fn ready(
        &self,
        state: &State,
        netlink: &mut Netlink,
    ) -> Result<(Cidr, Vec<String>)> {
        let record = state.network()?;
        if let (Some(range), Some(record)) = (recorded_range(&record), record)
            && record.ready
            && table::is_whole(&self.names)?
        {
            self.same_range(range)?;
            self.forward(state, record)?;
            return Ok((range, Vec::new()));
        }
        self.set_up(state, netlink)
    }

    /// Sets up everything but the bridges, which [`bridge::ensure`] makes when a pod needs one.
    pub(super) fn set_up(
        &self,
        state: &State,
        netlink: &mut Netlink,
    ) -> Result<(Cidr, Vec<String>)> {
        let record = state.network()?;
        let range = self.range(state, netlink, recorded_range(&record))?;
        let before = record.unwrap_or_else(|| NetworkRecord::of(range));
        let record = NetworkRecord { range: range.to_string(), ready: false, ..before };
        state.set_network(&record)?;
        let mut record = self.forward(state, record)?;
        table::install(state, &self.names, range, &ports::all(state)?)?;
        let facts = foreign::look()?;
        let plan = foreign::plan(&facts, range);
        record.firewalld |=
            plan.openings.iter().any(|o| matches!(o, foreign::Opening::Firewalld { .. }));
        state.set_network(&record)?;
        let mut notes = plan.obstacles;
        for opening in &plan.openings {
            // Pods that reach each other and the host are worth more than none.
            if let Err(e) = foreign::open(state, opening, &self.names, range, &facts) {
                notes.push(format!(
                    "a firewall keeps pods from other networks, and a rule for {range} could not be \
                     added: {}",
                    crate::chain(&e)
                ));
            }
        }
        record.ready = true;
        state.set_network(&record)?;
        Ok((range, notes))
    }

    /// The range: what the living bridge says, what was written down, what was asked for, the first
    /// that is free.
    fn range(&self, state: &State, netlink: &mut Netlink, recorded: Option<Cidr>) -> Result<Cidr> {
        if let Some(live) = bridge::live_range(netlink, &self.names)? {
            if recorded != Some(live) {
                adopt(state, netlink, live)?;
            }
            self.same_range(live)?;
            return Ok(live);
        }
        if let Some(recorded) = recorded.filter(|_| self.config.range.is_none()) {
            return Ok(recorded);
        }
        let used = bridge::used(netlink, &self.names)?;
        match self.config.range {
            Some(range) => Ok(cidr::check(range, &used).map(|()| range)?),
            None => Ok(cidr::choose(&used)?),
        }
    }

    fn same_range(&self, has: Cidr) -> Result<()> {
        match self.config.range {
            Some(wanted) if wanted != has => {
                Err(NetworkError::OtherRange { bridge: self.names.bridge(0), has, wanted })
            }
            _ => Ok(()),
        }
    }

    /// Switches forwarding on, and writes down first that it was off.
    fn forward(&self, state: &State, mut record: NetworkRecord) -> Result<NetworkRecord> {
        let before = forwarding::get()?;
        if before == 0 {
            record.forwarding_was = Some(before);
            state.set_network(&record)?;
            forwarding::set(1)?;
        }
        Ok(record)
    }
}

impl NetworkRecord {
    fn of(range: Cidr) -> NetworkRecord {
        let range = range.to_string();
        NetworkRecord { range, forwarding_was: None, firewalld: false, ready: false }
    }
}

/// The range that was written down.
pub(super) fn recorded_range(record: &Option<NetworkRecord>) -> Option<Cidr> {
    record.as_ref().and_then(|record| record.range.parse().ok())
}

/// The records are gone and the bridge lives: living pods' links say who has which address. (Their host
/// ports are not on them: those come back when the pods are attached again.)
fn adopt(state: &State, netlink: &mut Netlink, range: Cidr) -> Result<()> {
    for link in netlink.links()? {
        let Some((uid, address)) = names::pod_of(&link.alias) else { continue };
        if range.contains(address) {
            let record = AddressRecord { uid: uid.to_owned(), link: link.name.clone() };
            state.take_address(address, &record)?;
        }
    }
    Ok(())
}
