//! Living with other firewalls, being flushed by them, and leaving the host as it was.

use runtime::network::program::find;
use runtime::network::{NetworkError, Protocol};

use super::host::{HOST, Host, NEIGHBOUR, Namespace, port, uid};

/// A pod with a hostPort on a host whose firewall drops what is forwarded.
fn works_through(firewall: &str) -> Host {
    let host = Host::new();
    let outside = host.neighbour();
    host.sh(firewall);
    let (pod, attachment) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    assert_eq!(attachment.notes, [""; 0]);
    pod.serve("pod", 80);
    outside.serve("outside", 82);
    assert_eq!(pod.ask(NEIGHBOUR, 82), "outside 192.0.2.1");
    assert_eq!(outside.ask(HOST, 8080), "pod 192.0.2.2");
    // The opening is none for those who come by themselves.
    outside.ip("route add 10.213.0.0/16 via 192.0.2.1");
    assert!(outside.is_refused(attachment.address, 80));
    host.detach(&uid(1));
    host
}

#[test]
fn an_administrator_s_forward_policy_gets_rules_and_loses_them() {
    let policy = "nft add table inet filter
        nft 'add chain inet filter forward { type filter hook forward priority 0; policy drop; }'";
    let host = works_through(policy);
    let with = host.sh("nft list table inet filter");
    assert_eq!(with.matches("comment \"podshim\"").count(), 3, "{with}");
    assert_eq!(host.repair(), [""; 0]);
    assert_eq!(host.sh("nft list table inet filter"), with, "repair adds nothing twice");
    host.remove_all().unwrap();
    assert!(!host.sh("nft list table inet filter").contains("podshim"));
}

#[test]
fn iptables_forward_policies_get_rules_and_lose_them() {
    for program in ["iptables-nft", "iptables-legacy"] {
        for docker in ["", "iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER;"] {
            assert!(find(program).is_some(), "install the Debian package iptables");
            let policy = format!("iptables -P FORWARD DROP; {docker}").replace("iptables", program);
            let rules = |host: &Host| host.sh(&format!("{program} -S"));
            let before = {
                let host = Host::new();
                host.sh(&policy);
                rules(&host)
            };
            let host = works_through(&policy);
            let chain = if docker.is_empty() { "-A FORWARD" } else { "-A DOCKER-USER" };
            let with = rules(&host);
            let ours = with.lines().filter(|l| l.starts_with(chain) && l.contains("podshim"));
            assert_eq!(ours.count(), 2, "{with}");
            host.repair();
            assert_eq!(rules(&host), with, "repair adds nothing twice");
            host.remove_all().unwrap();
            assert_eq!(rules(&host), before);
        }
    }
}

#[test]
fn what_somebody_flushed_comes_back_with_the_next_pod() {
    let host = Host::new();
    let (pod, _) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    pod.serve("pod", 80);
    let table = host.sh("nft list table ip podshim");
    for flush in ["nft flush ruleset", "nft flush table ip podshim"] {
        host.sh(flush);
        assert!(host.is_refused([127, 0, 0, 1], 8080));
        let (_other, _) = host.pod(&uid(2), &[]);
        assert_eq!(host.ask([127, 0, 0, 1], 8080), "pod 10.213.0.1", "after {flush}");
        assert_eq!(host.sh("nft list table ip podshim"), table);
        host.detach(&uid(2));
    }
}

#[test]
fn repair_makes_everything_as_it_was() {
    let host = Host::new();
    let outside = host.neighbour();
    let (pod, _) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
    pod.serve("pod", 80);
    host.sh("nft flush ruleset
        echo 0 > /proc/sys/net/ipv4/ip_forward
        ip addr flush dev podshim0
        ip link set podshim0 down
        nft add table inet late
        nft 'add chain inet late forward { type filter hook forward priority 0; policy drop; }'");
    assert_eq!(host.repair(), [""; 0]);
    assert_eq!(outside.ask(HOST, 8080), "pod 192.0.2.2");
    // And a repair of nothing makes nothing.
    let empty = Host::new();
    assert_eq!(empty.repair(), [""; 0]);
    assert_eq!(empty.links(), ["lo"]);
}

#[test]
fn pods_that_live_keep_their_addresses_when_the_records_are_lost() {
    let host = Host::new();
    let (_one, first) = host.pod(&uid(1), &[]);
    std::fs::remove_dir_all(host.dir.path().join("podshim0")).unwrap();
    let (_two, second) = host.pod(&uid(2), &[]);
    assert_ne!(first.address, second.address);
    assert_eq!(host.records("addresses"), ["10.213.0.2", "10.213.0.3"]);
    assert!(
        matches!(host.remove_all().unwrap_err(), NetworkError::InUse { pods, .. } if pods.len() == 2)
    );
}

#[test]
fn removing_the_network_leaves_the_host_as_it_was() {
    for forwarding in ["0", "1"] {
        let host = Host::new();
        host.sh(&format!("echo {forwarding} > /proc/sys/net/ipv4/ip_forward"));
        host.sh("nft add table ip mine; nft add chain ip mine c");
        let look = |host: &Host| {
            (host.ip("-d link"), host.ip("route show table all"), host.sh("nft list ruleset"))
        };
        let before = look(&host);
        let (_one, _) = host.pod(&uid(1), &[port(Protocol::Tcp, 8080)]);
        let (two, _) = host.pod(&uid(2), &[]);
        assert_eq!(host.forwarding(), "1");
        let error = host.remove_all().unwrap_err().to_string();
        assert!(error.contains("in use by 2 pods") && error.contains(&uid(1)), "{error}");
        host.detach(&uid(1));
        // One that ended without a word is found to be dead.
        host.ip(&format!("link del {}", runtime::network::names::pod_link(&uid(2))));
        drop(two);
        host.remove_all().unwrap();
        assert_eq!(look(&host), before);
        assert_eq!(host.forwarding(), forwarding);
        assert!(!host.dir.path().join("podshim0").exists());
        host.remove_all().unwrap();
        assert!(!host.dir.path().join("podshim0").exists(), "nothing to remove makes nothing");
    }
}

#[test]
fn a_network_that_was_removed_can_be_made_again() {
    let host = Host::new();
    for _ in 0..2 {
        let pod = Namespace::new();
        host.attach(&pod, &uid(1), &[]).unwrap();
        host.detach(&uid(1));
        host.remove_all().unwrap();
    }
}
