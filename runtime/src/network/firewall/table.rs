//! The one table: masquerade for what pods send out, and host ports.
//!
//! It is static; pods with host ports are elements of its two maps, and other pods are not in it at
//! all. Family `ip`, because pods have IPv4 and inet tables would make every IPv6 packet of the host
//! pass them.
//!
//! * Only packets for an address of the host's own are looked up (`fib daddr type local`): a hostPort
//!   never catches what passes through (CVE-2025-67499).
//! * A pod that comes back by a hostPort, to another pod or to itself, gets the bridge's address as its
//!   source: the answer would otherwise take the short way and come from an address that was not
//!   asked. Between pods that speak directly nothing is translated.
//! * `route_localnet` on the bridges lets the host reach host ports at 127.0.0.1. `guard` refuses what
//!   pods send to or from 127.0.0.0/8, before connections are tracked (CVE-2020-8558).
//! * The host forwards, so a machine on its network could send to pods' addresses: `forward` lets only
//!   what came by a host port, and answers, through to them. The host itself reaches them all.

use std::fmt::Write;

use super::super::cidr::Cidr;
use super::super::names::Names;
use super::super::netlink::NetlinkError;
use super::super::nfnetlink;
use super::super::ports::Mapping;
use super::super::program::{Program, ProgramError};
use super::super::state::State;

/// How many rules [`whole`] makes: what a look at the kernel must find.
const RULES: usize = 10;

/// Whether the table is there with all its rules. Asks the kernel, runs nothing.
///
/// # Errors
/// The kernel's.
pub fn is_whole(names: &Names) -> Result<bool, NetlinkError> {
    Ok(nfnetlink::count_rules(&names.tag())? == RULES)
}

/// Makes the table, or makes it anew, with these elements: one transaction, so no packet sees it
/// without them.
///
/// # Errors
/// `nft`'s.
pub fn install(
    state: &State,
    names: &Names,
    range: Cidr,
    mappings: &[Mapping],
) -> Result<(), ProgramError> {
    nft(state, "make the pods' table", &whole(names, range, mappings))
}

/// Adds elements. Those that are there with the same meaning stay.
///
/// # Errors
/// `nft`'s: an element is there with another meaning, or the table is missing.
pub fn add(state: &State, names: &Names, mappings: &[Mapping]) -> Result<(), ProgramError> {
    nft(state, "add host ports", &elements("add", names, mappings))
}

/// Removes elements.
///
/// # Errors
/// `nft`'s: one of them or the table is missing.
pub fn delete(state: &State, names: &Names, mappings: &[Mapping]) -> Result<(), ProgramError> {
    nft(state, "remove host ports", &elements("delete", names, mappings))
}

/// Removes the table. None is no error.
///
/// # Errors
/// `nft`'s.
pub fn remove(state: &State, names: &Names) -> Result<(), ProgramError> {
    // `add` makes sure that there is one to delete.
    let tag = names.tag();
    nft(state, "remove the pods' table", &format!("add table ip {tag}\ndelete table ip {tag}\n"))
}

fn nft(state: &State, what: &str, script: &str) -> Result<(), ProgramError> {
    Program::nft()?.change(what, &["-f", "-"], script, state.held())
}

fn whole(names: &Names, range: Cidr, mappings: &[Mapping]) -> String {
    let (tag, bridges) = (names.tag(), names.stem());
    let table = format!(
        r#"add table ip {tag}
delete table ip {tag}
table ip {tag} {{
	map by_port {{
		type inet_proto . inet_service : ipv4_addr . inet_service
	}}
	map by_address {{
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}}
	chain guard {{
		type filter hook prerouting priority -300; policy accept;
		iifname "{bridges}*" ip daddr 127.0.0.0/8 drop
		iifname "{bridges}*" ip saddr 127.0.0.0/8 drop
	}}
	chain forward {{
		type filter hook forward priority 0; policy accept;
		iifname != "{bridges}*" oifname "{bridges}*" ct state {{ new, invalid }} ct status & dnat == 0 drop
	}}
	chain host_ports {{
		dnat ip to ip daddr . meta l4proto . th dport map @by_address
		dnat ip to meta l4proto . th dport map @by_port
	}}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local jump host_ports
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump host_ports
	}}
	chain postrouting {{
		type nat hook postrouting priority 100; policy accept;
		ip saddr {range} ip daddr != {range} ip daddr != 224.0.0.0/4 masquerade
		ip saddr {range} ip daddr {range} ct status dnat masquerade
		ip saddr 127.0.0.0/8 oifname "{bridges}*" ct status dnat masquerade
	}}
}}
"#
    );
    table + &elements("add", names, mappings)
}

fn elements(verb: &str, names: &Names, mappings: &[Mapping]) -> String {
    let mut script = String::new();
    for Mapping { address, port, .. } in mappings {
        let key = format!("{} . {}", port.protocol.name(), port.host_port);
        let (map, key) = match port.host_address {
            Some(host) => ("by_address", format!("{host} . {key}")),
            None => ("by_port", key),
        };
        let (tag, to) = (names.tag(), port.container_port);
        // Writing to a String cannot fail.
        let _ = writeln!(script, "{verb} element ip {tag} {map} {{ {key} : {address} . {to} }}");
    }
    script
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::super::ports::{HostPort, Protocol};
    use super::*;

    fn mapping(host: Option<[u8; 4]>) -> Mapping {
        let port = HostPort {
            protocol: Protocol::Udp,
            host_address: host.map(Ipv4Addr::from),
            host_port: 5353,
            container_port: 53,
        };
        Mapping { uid: "me".into(), address: Ipv4Addr::new(10, 213, 0, 2), port }
    }

    #[test]
    fn a_host_port_is_an_element_of_the_map_for_its_address() {
        let names = Names::of("podshim0").expect("a name");
        let mappings = [mapping(None), mapping(Some([192, 0, 2, 1]))];
        assert_eq!(
            elements("add", &names, &mappings),
            "add element ip podshim by_port { udp . 5353 : 10.213.0.2 . 53 }\n\
             add element ip podshim by_address { 192.0.2.1 . udp . 5353 : 10.213.0.2 . 53 }\n"
        );
    }

    #[test]
    fn the_table_has_as_many_rules_as_are_looked_for() {
        let names = Names::of("podshim0").expect("a name");
        let script = whole(&names, "10.213.0.0/16".parse().expect("range"), &[]);
        let rule = |line: &&str| {
            let verdicts = ["drop", "masquerade", "jump host_ports", "@by_address", "@by_port"];
            verdicts.iter().any(|verdict| line.ends_with(verdict))
        };
        assert_eq!(script.lines().filter(rule).count(), RULES);
    }
}
