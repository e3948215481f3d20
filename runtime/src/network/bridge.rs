//! Bridges and the pairs of interfaces that join pods to them, by messages to the kernel.
//!
//! Everything here may have been done before, wholly or half, by somebody who was killed: what exists
//! and is right stays, what is another's is never touched.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sched::{CloneFlags, setns};

use super::address::Place;
use super::cidr::{self, Cidr, Used};
use super::names::{self, Mac, Names, POD_INTERFACE};
use super::netlink::{Link, Netlink, NetlinkError, Step, failed};
use super::{NetworkError, Result, forwarding};

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const THERE_ALREADY: &[i32] = &[libc::EEXIST];
/// Kernels without IPv6 do not know its settings: nothing is to be set there.
const NO_IPV6: &[i32] = &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL, libc::ENODEV];

/// The ranges that the host uses, but for what this network's own bridges have.
pub fn used(netlink: &mut Netlink, names: &Names) -> Result<Vec<Used>> {
    let links = netlink.links()?;
    let link = |index: u32| links.iter().find(|link| link.index == index);
    let ours = |index: u32| link(index).is_some_and(|l| names.range_of(&l.alias).is_some());
    let by = |what: &str, index: u32| match link(index) {
        Some(link) => format!("{what} {}", link.name),
        None => format!("{what} no interface"),
    };
    let mut used = Vec::new();
    for route in netlink.routes()? {
        // A default route leads everywhere and says nothing.
        if route.range.prefix() > 0 && !ours(route.link) {
            used.push(Used { range: route.range, by: by("a route to", route.link) });
        }
    }
    for address in netlink.addresses()? {
        if !ours(address.link) {
            used.push(Used { range: address.range, by: by("an address of", address.link) });
        }
    }
    Ok(used)
}

/// The range of the living network of this name; `None` if it has no bridge.
pub fn live_range(netlink: &mut Netlink, names: &Names) -> Result<Option<Cidr>> {
    let name = names.bridge(0);
    match netlink.link(&name)? {
        None => Ok(None),
        Some(link) => match names.range_of(&link.alias) {
            Some(range) => Ok(Some(range)),
            None => Err(NetworkError::ForeignBridge { name }),
        },
    }
}

/// The bridge of a place, made if it is missing and completed if it is not whole.
pub fn ensure(netlink: &mut Netlink, names: &Names, range: Cidr, place: &Place) -> Result<Link> {
    let name = names.bridge(place.bridge);
    if let Some(link) = netlink.link(&name)? {
        if names.range_of(&link.alias) != Some(range) {
            return Err(NetworkError::ForeignBridge { name });
        }
        // One message: the address may have been flushed.
        netlink.batch(vec![gateway(&link, &name, place.part), up(&name)])?;
        forwarding::set_up_bridge(&name)?;
        return Ok(link);
    }
    cidr::check(place.part, &used(netlink, names)?)?;
    let mut message = named(&name);
    // A bridge without an address of its own takes the lowest of its ports', which come and go.
    let mac = Mac::of(place.part.gateway());
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    if let Some(mtu) = uplink_mtu(netlink)? {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    // The kernel takes no alias at creation; but a batch is done to its end even if its sender is
    // killed, so no bridge of ours is without one.
    let create = new_link(format!("make the bridge {name}"), message, CREATE, &[]);
    let mut label = named(&name);
    label.attributes.push(LinkAttribute::IfAlias(names.bridge_alias(range)));
    let label = set_link(format!("label the bridge {name}"), label, &[]);
    netlink.batch(vec![create, label])?;
    forwarding::set_up_bridge(&name)?;
    let made = netlink.link(&name)?;
    let link = made.ok_or_else(|| vanished(&name))?;
    netlink.batch(vec![gateway(&link, &name, place.part), up(&name)])?;
    Ok(link)
}

fn gateway(link: &Link, name: &str, part: Cidr) -> Step {
    let what = format!("give the bridge {name} the address {}", part.gateway());
    new_address(what, link.index, part.gateway(), part.prefix())
}

fn up(name: &str) -> Step {
    let mut message = named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    set_link(format!("bring up {name}"), message, &[])
}

/// The longest packet that the way out takes: what pods send should not be longer.
fn uplink_mtu(netlink: &mut Netlink) -> Result<Option<u32>> {
    let routes = netlink.routes()?;
    let default = routes.iter().find(|route| route.range.prefix() == 0 && route.link != 0);
    let Some(default) = default else { return Ok(None) };
    let links = netlink.links()?;
    let uplink = links.iter().find(|link| link.index == default.link);
    Ok(uplink.map(|link| link.mtu).filter(|mtu| *mtu >= 576))
}

fn vanished(name: &str) -> NetlinkError {
    failed(format!("find {name}, which was just made"))(io::ErrorKind::NotFound.into())
}

/// Joins a pod to its bridge: afterwards its interface has its address and is up.
pub fn join(
    netlink: &mut Netlink,
    uid: &str,
    netns: BorrowedFd<'_>,
    bridge: &Link,
    place: &Place,
) -> Result<()> {
    let mut inside = open_inside(netns)?;
    let link = names::pod_link(uid);
    let mut inner = inside.link(POD_INTERFACE)?;
    let outer = netlink.link(&link)?;
    if outer.is_none() && inner.is_some() {
        return Err(NetworkError::ForeignInterface);
    }
    if let Some(outer) = outer {
        let whole = outer.bridge == bridge.index
            && outer.alias == names::pod_alias(uid, place.address)
            && inner.as_ref().is_some_and(|inner| is_pair(&outer, inner, place.address));
        if !whole {
            remove_link(netlink, uid)?;
            inner = None;
        }
    }
    if inner.is_none() {
        connect(netlink, uid, netns, bridge, place)?;
        inner = inside.link(POD_INTERFACE)?;
    }
    let inner = inner.ok_or_else(|| vanished(POD_INTERFACE))?;
    // Only now: a pair's end cannot be brought up before both exist (ENOTCONN).
    configure(&mut inside, &inner, place)?;
    netlink.batch(vec![no_ipv6_address(&link), plug_in(&link)])?;
    Ok(())
}

/// Waits until the bridge lets the pod's packets through, which it does when the kernel's link watch has
/// told it that the pair is up: some hundred microseconds later. A question for a neighbour's address that
/// is sent before would be lost, and asked again after a whole second.
pub fn wait_until_operational(netlink: &mut Netlink, uid: &str) {
    const STEP: Duration = Duration::from_micros(100);
    // A host that is so busy that this does not suffice has other troubles; the pod goes on.
    const STEPS: u32 = 5_000;
    let name = names::pod_link(uid);
    for _ in 0..STEPS {
        match netlink.link(&name) {
            Ok(Some(link)) if !link.operational => std::thread::sleep(STEP),
            // Nothing to wait for any more, or nobody to ask.
            _ => break,
        }
    }
}

fn is_pair(outer: &Link, inner: &Link, address: Ipv4Addr) -> bool {
    (inner.peer, outer.peer) == (outer.index, inner.index) && inner.mac == Mac::of(address).0
}

fn connect(
    netlink: &mut Netlink,
    uid: &str,
    netns: BorrowedFd<'_>,
    bridge: &Link,
    place: &Place,
) -> Result<()> {
    let name = names::pod_link(uid);
    let mut peer = named(POD_INTERFACE);
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    peer.attributes.push(LinkAttribute::Address(Mac::of(place.address).0.to_vec()));
    peer.attributes.push(LinkAttribute::Mtu(bridge.mtu));
    let mut pair = named(&name);
    // Told, because udev gives one of its own to interfaces that have a random one.
    pair.attributes.push(LinkAttribute::Address(Mac::of_host_end(place.address).0.to_vec()));
    pair.attributes.push(LinkAttribute::Mtu(bridge.mtu));
    pair.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut label = named(&name);
    label.attributes.push(LinkAttribute::IfAlias(names::pod_alias(uid, place.address)));
    // Labelled before it is a port: whatever hangs on the bridge says whose it is.
    let mut port = named(&name);
    port.attributes.push(LinkAttribute::Controller(bridge.index));
    let steps = vec![
        new_link(format!("make the pair of interfaces {name}"), pair, CREATE, &[]),
        set_link(format!("label {name}"), label, &[]),
        set_link(format!("make {name} a port of {}", bridge.name), port, &[]),
    ];
    netlink.batch(steps).map_err(|e| match e.source.raw_os_error() {
        Some(libc::EXFULL) => NetworkError::BridgeFull { name: bridge.name.clone(), source: e },
        _ => e.into(),
    })
}

/// The host's end needs no address; without this it would get a link-local one and announce it.
fn no_ipv6_address(link: &str) -> Step {
    let mut message = named(link);
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]));
    set_link(format!("keep {link} without an address"), message, NO_IPV6)
}

/// Up, and with hairpin: a pod that asks for its own hostPort is answered through the port that it
/// asked on.
fn plug_in(link: &str) -> Step {
    let mut message = named(link);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    new_link(format!("bring up {link}"), message, 0, &[])
}

fn configure(inside: &mut Netlink, eth0: &Link, place: &Place) -> Result<()> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    let gateway = place.part.gateway();
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    route.attributes.push(RouteAttribute::Oif(eth0.index));
    let what = format!("give the pod's {POD_INTERFACE} the address {}", place.address);
    inside.batch(vec![
        new_address(what, eth0.index, place.address, place.part.prefix()),
        up(POD_INTERFACE),
        Step {
            what: format!("give the pod a default route by {gateway}"),
            message: RouteNetlinkMessage::NewRoute(route),
            flags: CREATE,
            fine: THERE_ALREADY,
        },
    ])?;
    Ok(())
}

/// A socket in the pod's namespace: it stays there when its opener goes back.
fn open_inside(netns: BorrowedFd<'_>) -> Result<Netlink> {
    let entering =
        |what: &'static str| move |source: io::Error| NetworkError::Namespace { what, source };
    let host = File::open("/proc/thread-self/ns/net").map_err(entering("open the host's"))?;
    if same_file(netns, host.as_fd()).map_err(entering("look at the pod's"))? {
        return Err(NetworkError::HostNetwork);
    }
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| entering("enter the pod's")(e.into()))?;
    let opened = forwarding::set_up_pod().map_err(NetworkError::from);
    let opened = opened.and_then(|()| Ok(Netlink::open()?));
    setns(&host, CloneFlags::CLONE_NEWNET)
        .map_err(|e| entering("go back to the host's")(e.into()))?;
    opened
}

fn same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Removes a pod's pair of interfaces: both ends. One that is not there is no error.
pub fn remove_link(netlink: &mut Netlink, uid: &str) -> Result<()> {
    let name = names::pod_link(uid);
    let Some(link) = netlink.link(&name)? else { return Ok(()) };
    // One without a label was made by somebody who was killed in the middle, and leads nowhere.
    match names::pod_of(&link.alias) {
        Some((holder, _)) if holder != uid => {
            Err(NetworkError::LinkTaken { name, holder: holder.to_owned() })
        }
        None if !link.alias.is_empty() => Err(NetworkError::LinkTaken { name, holder: link.alias }),
        _ => Ok(delete(netlink, &link)?),
    }
}

/// Removes every bridge of this network.
pub fn remove_bridges(netlink: &mut Netlink, names: &Names) -> Result<()> {
    for link in netlink.links()?.iter().filter(|link| names.range_of(&link.alias).is_some()) {
        delete(netlink, link)?;
    }
    Ok(())
}

/// By its number: a name may have become another's.
fn delete(netlink: &mut Netlink, link: &Link) -> std::result::Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    netlink.batch(vec![Step {
        what: format!("remove the interface {}", link.name),
        message: RouteNetlinkMessage::DelLink(message),
        flags: 0,
        fine: &[libc::ENODEV],
    }])
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

fn new_link(what: String, message: LinkMessage, flags: u16, fine: &'static [i32]) -> Step {
    Step { what, message: RouteNetlinkMessage::NewLink(message), flags, fine }
}

fn set_link(what: String, message: LinkMessage, fine: &'static [i32]) -> Step {
    Step { what, message: RouteNetlinkMessage::SetLink(message), flags: 0, fine }
}

fn new_address(what: String, link: u32, address: Ipv4Addr, prefix: u8) -> Step {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
    if let Some(broadcast) = broadcast(address, prefix) {
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    let message = RouteNetlinkMessage::NewAddress(message);
    Step { what, message, flags: CREATE, fine: THERE_ALREADY }
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let ones = u32::MAX.checked_shr(u32::from(prefix))?;
    Some(Ipv4Addr::from_bits(address.to_bits() | ones))
}
