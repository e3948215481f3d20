//! Who reaches whom, and from which address.

use std::net::Ipv4Addr;

use runtime::network::{HostPort, Network, NetworkError, PortError, Protocol, RangeError};

use super::host::{HOST, Host, NEIGHBOUR, Namespace, port, uid};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

#[test]
fn pods_reach_each_other_the_host_and_what_lies_behind_it() {
    let host = Host::new();
    let outside = host.neighbour();
    let (one, first) = host.pod(&uid(1), &[]);
    let (two, second) = host.pod(&uid(2), &[]);
    assert_eq!(first.address.to_string(), "10.213.0.2");
    assert_eq!(second.address.to_string(), "10.213.0.3");
    assert_eq!(first.gateway.to_string(), "10.213.0.1");
    assert_eq!((first.interface, first.mac.to_string().as_str()), ("eth0", "0a:58:0a:d5:00:02"));
    two.serve("two", 80);
    host.serve("host", 81);
    outside.serve("outside", 82);
    // Pods see each other's own addresses; the world sees the host's.
    assert_eq!(one.ask(second.address, 80), "two 10.213.0.2");
    assert_eq!(one.ask_udp(second.address, 80), "two 10.213.0.2");
    assert_eq!(host.ask(second.address, 80), "two 10.213.0.1");
    assert_eq!(one.ask(first.gateway, 81), "host 10.213.0.2");
    assert_eq!(one.ask(NEIGHBOUR, 82), "outside 192.0.2.1");
    assert_eq!(one.ask_udp(NEIGHBOUR, 82), "outside 192.0.2.1");
    assert!(two.ip("link show eth0").contains("0a:58:0a:d5:00:03"));
    assert!(host.ip("-d link show").contains(&format!("podshim pod {} 10.213.0.2", uid(1))));
    assert!(!host.ip("-6 addr show").contains("ps0000"), "host ends have no address");
}

#[test]
fn a_host_port_is_reached_from_everywhere_and_only_where_it_should_be() {
    let host = Host::new();
    let outside = host.neighbour();
    let ports = [port(Protocol::Tcp, 8080), port(Protocol::Udp, 8080), port(Protocol::Sctp, 8080)];
    let (pod, attachment) = host.pod(&uid(1), &ports);
    let (other, _) = host.pod(&uid(2), &[]);
    pod.serve("pod", 80);
    assert_eq!(host.elements(), 3);
    // From outside with the client's own address, which programs like to know.
    assert_eq!(outside.ask(HOST, 8080), "pod 192.0.2.2");
    assert_eq!(outside.ask_udp(HOST, 8080), "pod 192.0.2.2");
    assert_eq!(host.ask(HOST, 8080), "pod 192.0.2.1");
    assert_eq!(host.ask(LOOPBACK, 8080), "pod 10.213.0.1");
    assert_eq!(host.ask_udp(LOOPBACK, 8080), "pod 10.213.0.1");
    assert_eq!(host.ask([127, 1, 2, 3], 8080), "pod 10.213.0.1");
    assert_eq!(other.ask(HOST, 8080), "pod 10.213.0.1");
    assert_eq!(other.ask_udp(HOST, 8080), "pod 10.213.0.1");
    assert_eq!(pod.ask(HOST, 8080), "pod 10.213.0.1", "hairpin");
    assert_eq!(other.ask(attachment.gateway, 8080), "pod 10.213.0.1");
    // What only passes the host is not caught.
    outside.serve("outside", 8080);
    assert_eq!(other.ask(NEIGHBOUR, 8080), "outside 192.0.2.1");
    assert!(outside.is_refused(HOST, 80));

    host.detach(&uid(1));
    assert_eq!((host.elements(), host.records("ports").len()), (0, 0));
    assert!(host.is_refused(HOST, 8080));
}

#[test]
fn who_keeps_sending_to_a_udp_port_reaches_the_pod_that_has_it_now() {
    let host = Host::new();
    let outside = host.neighbour();
    let ask = || {
        outside.run(|| {
            let socket = std::net::UdpSocket::bind("192.0.2.2:5000").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
            let mut buffer = [0; 64];
            for _ in 0..20 {
                // Refused while nobody listens.
                let _ = socket.send_to(b"?", (Ipv4Addr::from(HOST), 5353));
                if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                    return String::from_utf8_lossy(&buffer[..length]).into_owned();
                }
            }
            String::new()
        })
    };
    let (_first, _) = host.pod(&uid(9), &[]);
    outside.run(|| {
        let socket = std::net::UdpSocket::bind("192.0.2.2:5000").unwrap();
        socket.send_to(b"?", (Ipv4Addr::from(HOST), 5353)).unwrap();
    });
    for (number, name) in [(1, "one"), (2, "two")] {
        let (pod, _) = host.pod(&uid(number), &[port(Protocol::Udp, 5353)]);
        pod.serve(name, 80);
        assert_eq!(ask(), format!("{name} 192.0.2.2"));
        host.detach(&uid(number));
    }
}

#[test]
fn a_host_port_with_an_address_is_for_that_address() {
    let host = Host::new();
    let outside = host.neighbour();
    host.ip("addr add 192.0.2.9/24 dev up0");
    let at = |address: [u8; 4]| HostPort {
        host_address: Some(Ipv4Addr::from(address)),
        ..port(Protocol::Tcp, 8080)
    };
    let (one, _) = host.pod(&uid(1), &[at(HOST)]);
    let (two, _) = host.pod(&uid(2), &[at([192, 0, 2, 9])]);
    let (three, _) = host.pod(&uid(3), &[at(LOOPBACK)]);
    one.serve("one", 80);
    two.serve("two", 80);
    three.serve("three", 80);
    assert_eq!(outside.ask(HOST, 8080), "one 192.0.2.2");
    assert_eq!(outside.ask([192, 0, 2, 9], 8080), "two 192.0.2.2");
    assert_eq!(host.ask(LOOPBACK, 8080), "three 10.213.0.1");
}

#[test]
fn nobody_outside_reaches_what_listens_on_the_host_s_loopback() {
    let host = Host::new();
    let outside = host.neighbour();
    let (pod, attachment) = host.pod(&uid(1), &[]);
    host.serve("host", 81);
    // As hostile as root in a pod, or a machine on the same wire, can be: they send packets for
    // 127.0.0.2 to the host, whose bridge would take them for its own.
    let way = |namespace: &Namespace, device: &str, via: &str| {
        namespace.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip addr del 127.0.0.1/8 dev lo
             ip route add 127.0.0.2 via {via} dev {device}"
        ));
    };
    way(&pod, "eth0", &attachment.gateway.to_string());
    way(&outside, "out0", "192.0.2.1");
    assert_eq!(pod.ask(attachment.gateway, 81), "host 10.213.0.2");
    assert!(pod.is_refused([127, 0, 0, 2], 81));
    assert!(outside.is_refused([127, 0, 0, 2], 81));
    let dropped = "nft insert rule ip podshim guard iifname podshim0 ip daddr 127.0.0.2 counter";
    host.sh(dropped);
    assert!(pod.is_refused([127, 0, 0, 2], 81));
    let seen = host.sh("nft list chain ip podshim guard");
    assert!(!seen.contains("packets 0 "), "the packets came and were dropped: {seen}");
}

#[test]
fn who_is_outside_reaches_pods_by_their_host_ports_only() {
    let host = Host::new();
    let outside = host.neighbour();
    let (pod, attachment) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    let (other, _) = host.pod(&uid(2), &[]);
    pod.serve("pod", 80);
    outside.serve("outside", 82);
    outside.ip("route add 10.213.0.0/16 via 192.0.2.1");
    assert!(outside.is_refused(attachment.address, 80));
    assert_eq!(outside.ask(HOST, 8080), "pod 192.0.2.2");
    assert_eq!(host.ask(attachment.address, 80), "pod 10.213.0.1");
    assert_eq!(other.ask(attachment.address, 80), "pod 10.213.0.3");
    assert_eq!(pod.ask(NEIGHBOUR, 82), "outside 192.0.2.1");
    // It came, and it is this rule.
    host.sh("nft flush chain ip podshim forward");
    assert_eq!(outside.ask(attachment.address, 80), "pod 192.0.2.2");
}

#[test]
fn a_port_that_another_pod_has_is_refused_by_name_and_nothing_is_left() {
    let host = Host::new();
    let (_one, _) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    let second = Namespace::new();
    let wanted = [port(Protocol::Tcp, 8081), port(Protocol::Tcp, 8080)];
    let error = host.attach(&second, &uid(2), &wanted).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, NetworkError::Port(PortError::Taken { .. })), "{said}");
    assert!(said.contains("tcp 8080") && said.contains(&uid(1)), "{said}");
    assert_eq!(host.records("addresses"), ["10.213.0.2"]);
    assert_eq!(host.records("ports"), ["tcp-8080-0.0.0.0"]);
    assert_eq!(second.links(), ["lo"]);
    assert_eq!(host.attach(&second, &uid(2), &wanted[..1]).unwrap().address, addr("10.213.0.4"));
}

#[test]
fn attaching_again_changes_nothing_and_completes_what_is_missing() {
    let host = Host::new();
    let ports = [port(Protocol::Tcp, 8080)];
    let (pod, first) = host.pod(&uid(1), &ports);
    pod.serve("pod", 80);
    let before = (host.ip("-o link"), pod.ip("-o addr"));
    assert_eq!(host.attach(&pod, &uid(1), &ports).unwrap(), first);
    assert_eq!((host.ip("-o link"), pod.ip("-o addr")), before);
    pod.ip("route del default");
    pod.ip("addr flush dev eth0");
    host.ip("addr flush dev podshim0");
    assert_eq!(host.attach(&pod, &uid(1), &ports).unwrap(), first);
    assert_eq!(host.ask(LOOPBACK, 8080), "pod 10.213.0.1");
    // The pod's sandbox was made anew.
    let again = Namespace::new();
    assert_eq!(host.attach(&again, &uid(1), &ports).unwrap(), first);
    again.serve("again", 80);
    assert_eq!(host.ask(LOOPBACK, 8080), "again 10.213.0.1");
    assert_eq!(pod.links(), ["lo"]);
}

#[test]
fn the_range_avoids_what_the_host_uses_and_then_stays() {
    let host = Host::new();
    let _outside = host.neighbour();
    host.ip("addr add 10.213.7.1/24 dev up0");
    host.ip("route add 10.214.0.0/15 via 192.0.2.2");
    let (_one, attachment) = host.pod(&uid(1), &[]);
    assert_eq!(attachment.address, addr("10.216.0.2"));
    host.ip("addr del 10.213.7.1/24 dev up0");
    let (_two, second) = host.pod(&uid(2), &[]);
    assert_eq!(second.address, addr("10.216.0.3"));
}

#[test]
fn a_range_that_was_asked_for_is_taken_or_refused() {
    let wish = |range: &str| {
        let range = range.parse().unwrap();
        Host::of(|config| config.range = Some(range))
    };
    let host = wish("172.30.0.0/24");
    let (_pod, attachment) = host.pod(&uid(1), &[]);
    assert_eq!((attachment.address, attachment.prefix), (addr("172.30.0.2"), 24));

    let host = wish("192.0.0.0/16");
    let _outside = host.neighbour();
    let pod = Namespace::new();
    let error = host.attach(&pod, &uid(1), &[]).unwrap_err();
    assert!(matches!(error, NetworkError::Range(RangeError::Taken { .. })), "{error}");
    assert!(error.to_string().contains("up0"), "{error}");

    // Another instance wants another range of the same network.
    let host = Host::new();
    let (_pod, _) = host.pod(&uid(1), &[]);
    let config = runtime::network::Config {
        dir: host.dir.path().join("podshim0"),
        range: Some("10.99.0.0/16".parse().unwrap()),
        ..runtime::network::Config::default()
    };
    let other = Host { network: Network::new(config).unwrap(), ..host };
    let error = other.attach(&pod, &uid(2), &[]).unwrap_err();
    assert!(matches!(error, NetworkError::OtherRange { .. }), "{error}");
}

#[test]
fn a_bridge_of_somebody_else_is_left_alone() {
    let host = Host::new();
    host.ip("link add podshim0 type bridge");
    let error = host.attach(&Namespace::new(), &uid(1), &[]).unwrap_err();
    assert!(matches!(error, NetworkError::ForeignBridge { .. }), "{error}");
    host.remove_all().unwrap();
    assert_eq!(host.links(), ["lo", "podshim0"]);
}

#[test]
fn the_host_s_own_namespace_is_not_taken_for_a_pod_s() {
    let host = Host::new();
    let error = host.attach(&host, &uid(1), &[]).unwrap_err();
    assert!(matches!(error, NetworkError::HostNetwork), "{error}");
    assert_eq!(host.records("addresses"), [""; 0]);
}

#[test]
fn a_full_bridge_is_followed_by_another_and_pods_on_both_meet() {
    let host = Host::new();
    let (one, first) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    // As if 1,020 more pods lived: their records, which nobody prunes here.
    for number in 3..=1022_u32 {
        let address = Ipv4Addr::from_bits(addr("10.213.0.0").to_bits() + number);
        let record = format!(r#"{{"uid": "pod-{number}", "link": "ps-{number}"}}"#);
        let records = host.dir.path().join("podshim0/addresses");
        std::fs::write(records.join(address.to_string()), record).unwrap();
    }
    let (two, second) = host.pod(&uid(2), &[]);
    assert_eq!((second.address, second.gateway), (addr("10.213.4.2"), addr("10.213.4.1")));
    assert_eq!((first.bridge.as_str(), second.bridge.as_str()), ("podshim0", "podshim1"));
    one.serve("one", 80);
    assert_eq!(two.ask(first.address, 80), "one 10.213.4.2");
    assert_eq!(two.ask(HOST_ON_THE_SECOND, 8080), "one 10.213.0.1");
    assert_eq!(host.prune().len(), 1020);
    host.detach(&uid(1));
    host.detach(&uid(2));
    host.remove_all().unwrap();
    assert_eq!(host.links(), ["lo"]);
}

const HOST_ON_THE_SECOND: [u8; 4] = [10, 213, 4, 1];

fn addr(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}
