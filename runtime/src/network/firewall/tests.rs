//! What is decided about rulesets as hosts have them (`testdata`: answers of `nft -j list ruleset`).

use super::*;

fn facts(ruleset: &str) -> Facts {
    Facts {
        ruleset: serde_json::from_str(ruleset).expect("JSON"),
        legacy: None,
        iptables: Some("/usr/sbin/iptables-nft".into()),
        iptables_legacy: Some("/usr/sbin/iptables-legacy".into()),
        firewall_cmd: Some("/usr/bin/firewall-cmd".into()),
    }
}

fn decide(facts: &Facts) -> Plan {
    plan(facts, "10.213.0.0/16".parse().expect("a range"))
}

fn iptables(program: &str, chain: &str) -> Opening {
    Opening::Iptables { program: format!("/usr/sbin/{program}").into(), chain: chain.into() }
}

fn nft(family: &str, table: &str, chain: &str) -> Opening {
    Opening::Nft { family: family.into(), table: table.into(), chain: chain.into() }
}

const ADMINISTRATOR: &str = include_str!("testdata/administrator.json");
const DOCKER: &str = include_str!("testdata/docker.json");
const UFW: &str = include_str!("testdata/ufw.json");
const REJECT_AT_END: &str = include_str!("testdata/reject-at-end.json");
const FIREWALLD: &str = include_str!("testdata/firewalld.json");
const OPEN: &str = include_str!("testdata/open.json");

#[test]
fn a_host_without_a_dropping_chain_needs_nothing() {
    assert_eq!(decide(&Facts::default()), Plan::default());
    // Rules that drop some, chains of other hooks and of IPv6 do not count.
    assert_eq!(decide(&facts(OPEN)), Plan::default());
}

#[test]
fn docker_gets_its_rule_where_docker_wants_it() {
    let docker = decide(&facts(DOCKER));
    assert_eq!(docker.openings, [iptables("iptables-nft", "DOCKER-USER")]);
    assert!(docker.obstacles.is_empty());
}

#[test]
fn ufw_and_a_rejecting_last_rule_are_preceded_in_forward() {
    assert_eq!(decide(&facts(UFW)).openings, [iptables("iptables-nft", "FORWARD")]);
    assert_eq!(decide(&facts(REJECT_AT_END)).openings, [iptables("iptables-nft", "FORWARD")]);
}

#[test]
fn an_administrator_s_own_chain_is_opened_with_nft() {
    let opened = decide(&facts(ADMINISTRATOR));
    assert_eq!(opened.openings, [nft("inet", "filter", "forward")]);
}

#[test]
fn chains_of_iptables_are_opened_with_nft_where_iptables_is_missing() {
    let without = Facts { iptables: None, ..facts(UFW) };
    assert_eq!(decide(&without).openings, [nft("ip", "filter", "FORWARD")]);
}

#[test]
fn firewalld_is_asked_and_not_overruled() {
    let program = "/usr/bin/firewall-cmd".into();
    assert_eq!(decide(&facts(FIREWALLD)).openings, [Opening::Firewalld { program }]);
    let without = decide(&Facts { firewall_cmd: None, ..facts(FIREWALLD) });
    assert!(without.openings.is_empty());
    assert!(without.obstacles[0].contains("firewall-cmd is missing: make 10.213.0.0/16"));
}

#[test]
fn a_table_that_only_its_owner_can_change_is_told_to_the_user() {
    let owned = ADMINISTRATOR.replace(
        r#""name": "filter", "handle": 1}}"#,
        r#""name": "filter", "handle": 1, "flags": ["owner", "persist"]}}"#,
    );
    assert_ne!(owned, ADMINISTRATOR);
    let plan = decide(&facts(&owned));
    assert!(plan.openings.is_empty());
    assert!(plan.obstacles[0].contains("chain forward of the nftables table inet filter"));
}

#[test]
fn the_kernel_s_older_tables_are_seen_by_their_rules() {
    let with = |rules: &str| Facts { legacy: Some(rules.into()), ..facts(OPEN) };
    assert_eq!(decide(&with("-P FORWARD ACCEPT\n-A FORWARD -i x -j DROP")), Plan::default());
    let forward = [iptables("iptables-legacy", "FORWARD")];
    assert_eq!(decide(&with("-P FORWARD DROP")).openings, forward);
    let rejects = "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited";
    assert_eq!(decide(&with(rejects)).openings, forward);
    let docker = decide(&with("-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN"));
    assert_eq!(docker.openings, [iptables("iptables-legacy", "DOCKER-USER")]);
    let without = decide(&Facts { iptables_legacy: None, ..with("-P FORWARD DROP") });
    assert!(without.obstacles[0].contains("iptables-legacy is missing"));
}
