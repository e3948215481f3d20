//! Talking to the kernel about links, addresses and routes (rtnetlink(7)).
//!
//! Requests go out in batches: one `send` for all that has no answer but success. Answers are read
//! attribute by attribute and only what is needed, so that an interface of a kind that nobody here
//! has heard of is no obstacle.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator,
};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, address::AddressMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::cidr::Cidr;

/// The kernel refused, or its answer is not understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct NetlinkError {
    /// What was tried, on what.
    pub what: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// Wraps the error of something that is said in words.
pub fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetlinkError {
    let what = what.into();
    move |source| NetlinkError { what, source }
}

/// A request that is answered by success or an errno.
pub struct Step {
    /// In words, behind "cannot".
    pub what: String,
    /// The request.
    pub message: RouteNetlinkMessage,
    /// Flags besides `NLM_F_REQUEST | NLM_F_ACK`.
    pub flags: u16,
    /// Errnos that mean that nothing is left to do.
    pub fine: &'static [i32],
}

/// A socket to rtnetlink, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What is read of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its maker wrote on it (`ip link` shows it).
    pub alias: String,
    /// Its Ethernet address.
    pub mac: Vec<u8>,
    /// The number of the bridge it is a port of; 0: of none.
    pub bridge: u32,
    /// The number of its other end, in that one's namespace; 0: none.
    pub peer: u32,
    /// The longest packet that it takes, in bytes.
    pub mtu: u32,
    /// Whether packets pass: both ends are up, and the kernel has told everybody
    /// (`IFLA_OPERSTATE`, RFC 2863).
    pub operational: bool,
}

/// A range that a route leads to, or an address of an interface with the net around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Which addresses.
    pub range: Cidr,
    /// The number of the interface; 0: none.
    pub link: u32,
}

// linux/if_link.h, linux/rtnetlink.h, linux/if_addr.h: what is read of answers.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_IFALIAS: u16 = 20;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const IFA_LOCAL: u16 = 2;

/// `IF_OPER_UP`.
const OPERATIONAL: u8 = 6;

const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const ADDRESS_HEADER: usize = 8;

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// That of socket(2).
    pub fn open() -> Result<Netlink> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(failed("open a netlink socket"))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends all of them at once. The kernel does them in order, each whether or not one before it
    /// failed.
    ///
    /// # Errors
    /// The first one that failed.
    pub fn batch(&mut self, steps: Vec<Step>) -> Result<()> {
        let Some(last) = steps.last() else { return Ok(()) };
        let whole = last.what.clone();
        let first = self.sequence + 1;
        let mut request = Vec::new();
        let mut names = Vec::new();
        for step in steps {
            append(&mut request, step.message, step.flags | NLM_F_ACK, self.next());
            names.push((step.what, step.fine));
        }
        self.socket.send(&request, 0).map_err(failed(whole.clone()))?;
        let mut waiting = names.len();
        let mut result = Ok(());
        while waiting > 0 {
            let answers = self.receive().map_err(failed(whole.clone()))?;
            for answer in messages(&answers) {
                let number = usize::try_from(answer.sequence.wrapping_sub(first));
                let Some((what, fine)) = number.ok().and_then(|n| names.get(n)) else { continue };
                let Some(code) = answer.error() else { continue };
                waiting -= 1;
                if code != 0 && !fine.contains(&code) && result.is_ok() {
                    let source = io::Error::from_raw_os_error(code);
                    result = Err(NetlinkError { what: what.clone(), source });
                }
            }
        }
        result
    }

    /// The link with this name; `None` if there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.ask(RouteNetlinkMessage::GetLink(message), 0);
        match answers {
            Ok(answers) => Ok(answers.iter().find_map(|body| link(body))),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(failed(format!("look for the network interface {name}"))(e)),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self
            .ask(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)
            .map_err(failed("list the network interfaces"))?;
        Ok(answers.iter().filter_map(|body| link(body)).collect())
    }

    /// The destinations of the IPv4 routes of all tables; a default route is one with prefix 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> Result<Vec<Destination>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
            .map_err(failed("list the routes"))?;
        Ok(answers.iter().filter_map(|body| route(body)).collect())
    }

    /// The IPv4 addresses of all interfaces, with the net around each.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> Result<Vec<Destination>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)
            .map_err(failed("list the addresses"))?;
        Ok(answers.iter().filter_map(|body| address(body)).collect())
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// The bodies of the answers to one question.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Vec<u8>>> {
        let mut request = Vec::new();
        let number = self.next();
        // Without NLM_F_ACK a question that is no dump is answered by one message alone.
        append(&mut request, message, flags, number);
        self.socket.send(&request, 0)?;
        collect(|| self.receive(), number, flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        receive(&self.socket)
    }
}

/// The kernel makes datagrams of at most 32 KiB for readers with larger buffers.
pub(super) fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    loop {
        let mut buffer = Vec::with_capacity(64 << 10);
        match socket.recv(&mut buffer, 0) {
            Ok(_) => return Ok(buffer),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn append(request: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, number: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let at = request.len();
    request.resize(at + message.buffer_len(), 0);
    message.serialize(&mut request[at..]);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// Reads until the question with this number is answered.
pub(super) fn collect(
    mut receive: impl FnMut() -> io::Result<Vec<u8>>,
    number: u32,
    dump: bool,
) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    loop {
        let answers = receive()?;
        for answer in messages(&answers).filter(|answer| answer.sequence == number) {
            match answer.error() {
                Some(0) => return Ok(found),
                Some(code) => return Err(io::Error::from_raw_os_error(code)),
                None if answer.kind == DONE => return Ok(found),
                None => found.push(answer.body.to_vec()),
            }
            if !dump {
                return Ok(found);
            }
        }
    }
}

// netlink(7): the header of every message, and two kinds of them.
pub(super) const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// The errno of an answer that is one; 0 is an acknowledgement.
    fn error(&self) -> Option<i32> {
        (self.kind == ERROR).then(|| word(self.body, 0).map_or(libc::EBADMSG, |w| -w.cast_signed()))
    }
}

/// The messages of a datagram. One whose length is wrong ends it.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let answer = Answer { kind: half(datagram, 4)?, sequence: word(datagram, 8)?, body };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The attributes behind a message's own header.
pub(super) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(body.get(header..).unwrap_or_default()).map_while(std::result::Result::ok)
}

pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: word(body, 4)?, ..Link::default() };
    for attribute in attributes(body, LINK_HEADER) {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MASTER => link.bridge = word(value, 0)?,
            IFLA_LINK => link.peer = word(value, 0)?,
            IFLA_OPERSTATE => link.operational = value.first() == Some(&OPERATIONAL),
            IFLA_MTU => link.mtu = word(value, 0)?,
            _ => {}
        }
    }
    Some(link)
}

fn route(body: &[u8]) -> Option<Destination> {
    let prefix = *body.get(1)?;
    let mut to = Ipv4Addr::UNSPECIFIED;
    let mut link = 0;
    for attribute in attributes(body, ROUTE_HEADER) {
        match attribute.kind() {
            RTA_DST => to = ipv4(attribute.value())?,
            RTA_OIF => link = word(attribute.value(), 0)?,
            _ => {}
        }
    }
    Some(Destination { range: Cidr::around(to, prefix), link })
}

fn address(body: &[u8]) -> Option<Destination> {
    let prefix = *body.get(1)?;
    let link = word(body, 4)?;
    let mut local = attributes(body, ADDRESS_HEADER).filter(|a| a.kind() == IFA_LOCAL);
    Some(Destination { range: Cidr::around(ipv4(local.next()?.value())?, prefix), link })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_lo_with_its_address_and_no_link_that_nobody_made() {
        let mut netlink = Netlink::open().expect("netlink");
        let lo = netlink.link("lo").expect("asks").expect("lo");
        assert_eq!((lo.index, lo.name.as_str(), lo.bridge), (1, "lo", 0));
        assert_eq!(netlink.link("podshim-none").expect("asks"), None);
        assert!(netlink.links().expect("asks").iter().any(|link| link.name == "lo"));
        let loopback: Cidr = "127.0.0.0/8".parse().expect("range");
        if netlink.addresses().expect("asks").iter().any(|a| a.range == loopback && a.link == 1) {
            let routes = netlink.routes().expect("asks");
            assert!(routes.iter().any(|route| route.range == loopback));
        }
    }

    #[test]
    fn a_datagram_that_lies_about_lengths_ends_and_does_not_panic() {
        for length in [0_u32, 3, 15, 16, 17, 4000, u32::MAX] {
            let mut datagram = vec![0; 20];
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(messages(&datagram).count() <= 2, "{length}");
        }
        assert!(link(&[1, 2, 3]).is_none());
        assert!(route(&[]).is_none());
        assert!(address(&[0; 8]).is_none());
    }
}
