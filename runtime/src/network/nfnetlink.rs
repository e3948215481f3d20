//! Two questions to the kernel's netfilter that need no program: is our table there, and which
//! connections must be forgotten.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::netlink::{HEADER, NetlinkError, attributes, collect, failed, ipv4, receive, text};
use super::ports::{Mapping, Protocol};

type Result<T> = std::result::Result<T, NetlinkError>;

// linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_conntrack.h: a message's kind is that of the
// subsystem and a number in it.
const NFT_GET_RULE: u16 = (10 << 8) | 7;
const CONNECTION_GET: u16 = (1 << 8) | 1;
const CONNECTION_DELETE: u16 = (1 << 8) | 2;

const NFTA_RULE_TABLE: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;

/// `struct nfgenmsg`: family, version, and a number that is not used.
const FAMILY_HEADER: [u8; 4] = [2, 0, 0, 0];

/// How many rules a table of family `ip` has; 0 if there is no such table, and where the kernel has
/// no nftables. What every attach can afford.
///
/// # Errors
/// The kernel's.
pub fn count_rules(table: &str) -> Result<usize> {
    let mut name = table.as_bytes().to_vec();
    name.push(0);
    match ask(NFT_GET_RULE, NLM_F_DUMP, &[(NFTA_RULE_TABLE, &name)]) {
        // The kernel filters by table; one that did not would be caught here.
        Ok(rules) => Ok(rules.iter().filter(|body| is_of_table(body, table)).count()),
        Err(e) if is_absence(&e) => Ok(0),
        Err(e) => Err(failed(format!("count the rules of the nftables table {table}"))(e)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT))
}

fn is_of_table(body: &[u8], table: &str) -> bool {
    attributes(body, FAMILY_HEADER.len())
        .any(|a| a.kind() == NFTA_RULE_TABLE && text(a.value()) == table)
}

/// Makes the kernel forget UDP "connections" that would go on as they began, before the host port led
/// to the pod, or to the last pod that had it: whoever keeps sending would keep them alive.
///
/// # Errors
/// The kernel's.
pub fn forget(mappings: &[Mapping]) -> Result<()> {
    let udp: Vec<&Mapping> = mappings.iter().filter(|m| m.port.protocol == Protocol::Udp).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let all = match ask(CONNECTION_GET, NLM_F_DUMP, &[]) {
        Ok(all) => all,
        // Nothing is tracked here.
        Err(e) if is_absence(&e) => return Ok(()),
        Err(e) => return Err(failed("list the connections that are tracked")(e)),
    };
    all.iter().filter(|body| udp.iter().any(|mapping| is_stale(body, mapping))).try_for_each(
        |body| {
            match delete(body) {
                // It ended by itself meanwhile.
                Err(e) if is_absence(&e) => Ok(()),
                other => other.map_err(failed("make the kernel forget a connection")),
            }
        },
    )
}

fn delete(connection: &[u8]) -> io::Result<()> {
    let attributes: Vec<_> = attributes(connection, FAMILY_HEADER.len()).collect();
    let key = attributes.iter().filter_map(|attribute| match attribute.kind() {
        CTA_TUPLE_ORIG => Some((CTA_TUPLE_ORIG | NESTED, attribute.value())),
        CTA_ZONE => Some((CTA_ZONE, attribute.value())),
        _ => None,
    });
    ask(CONNECTION_DELETE, NLM_F_ACK, &key.collect::<Vec<_>>()).map(drop)
}

/// One side of a connection.
#[derive(Default)]
struct Tuple {
    protocol: u8,
    from: Option<Ipv4Addr>,
    to: Option<Ipv4Addr>,
    to_port: u16,
}

fn tuple(value: &[u8]) -> Tuple {
    let mut tuple = Tuple::default();
    for part in attributes(value, 0) {
        for field in attributes(part.value(), 0) {
            let value = field.value();
            match (part.kind(), field.kind()) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC) => tuple.from = ipv4(value),
                (CTA_TUPLE_IP, CTA_IP_V4_DST) => tuple.to = ipv4(value),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => {
                    tuple.protocol = value.first().copied().unwrap_or_default();
                }
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                    tuple.to_port = value.try_into().map(u16::from_be_bytes).unwrap_or_default();
                }
                _ => {}
            }
        }
    }
    tuple
}

/// To the host port, and answered by whom it was sent to (it led nowhere then) or by the pod.
fn is_stale(body: &[u8], mapping: &Mapping) -> bool {
    const UDP: u8 = 17;
    let side = |kind: u16| {
        attributes(body, FAMILY_HEADER.len()).find(|a| a.kind() == kind).map(|a| tuple(a.value()))
    };
    let (Some(sent), Some(answered)) = (side(CTA_TUPLE_ORIG), side(CTA_TUPLE_REPLY)) else {
        return false;
    };
    let meant = (sent.protocol, sent.to_port) == (UDP, mapping.port.host_port)
        && mapping.port.host_address.is_none_or(|host| sent.to == Some(host));
    meant && (answered.from == sent.to || answered.from == Some(mapping.address))
}

/// The answers to one question.
fn ask(kind: u16, flags: u16, with: &[(u16, &[u8])]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = vec![0; HEADER];
    request.extend(FAMILY_HEADER);
    for (kind, value) in with {
        let length = u16::try_from(4 + value.len()).map_err(io::Error::other)?;
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(*value);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    request[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request, 0)?;
    collect(|| receive(&socket), 1, flags & NLM_F_DUMP == NLM_F_DUMP)
}
