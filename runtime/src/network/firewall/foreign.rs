//! Other firewalls' chains through which pods' packets are forwarded, and what must be said in them.
//!
//! A packet is accepted only if *every* chain hooked at forward accepts it, so accepting it in our
//! table would help nothing: where another firewall drops by default (docker's FORWARD, ufw, firewalld,
//! an administrator's own), an accepting rule goes there, in the way of that firewall. This looks when
//! a network is set up and on repair, not for every pod.
//!
//! What is found are facts; [`plan`] decides, and is pure.

use std::fs::File;
use std::path::PathBuf;

use serde_json::Value;

use super::super::cidr::Cidr;
use super::super::names::Names;
use super::super::program::{Program, ProgramError, find};
use super::super::state::State;

/// What is known of the host's firewalls.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The answer of `nft -j list ruleset`.
    pub ruleset: Value,
    /// The answer of `iptables-legacy -S`, where the kernel has rules of that kind, which nft does not
    /// show. `None`: it has none.
    pub legacy: Option<String>,
    /// An iptables that speaks to nftables.
    pub iptables: Option<PathBuf>,
    /// An iptables that speaks to the kernel's older tables.
    pub iptables_legacy: Option<PathBuf>,
    /// firewalld's program.
    pub firewall_cmd: Option<PathBuf>,
}

/// Where an accepting rule goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Into a base chain, with nft.
    Nft {
        /// `ip` or `inet`.
        family: String,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
    },
    /// At the head of a chain of the table `filter`, with iptables.
    Iptables {
        /// Which iptables.
        program: PathBuf,
        /// `DOCKER-USER`, which docker leaves to others, or `FORWARD`.
        chain: String,
    },
    /// The range becomes a source of firewalld's zone `trusted`.
    Firewalld {
        /// firewall-cmd.
        program: PathBuf,
    },
}

/// What follows from the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub openings: Vec<Opening>,
    /// What stands in the way and cannot be changed from here, for the user.
    pub obstacles: Vec<String>,
}

/// Decides where rules are needed.
#[must_use]
pub fn plan(facts: &Facts, range: Cidr) -> Plan {
    let mut plan = Plan::default();
    for chain in forward_chains(&facts.ruleset) {
        if !drops(&chain, &facts.ruleset) {
            continue;
        }
        let (family, table, name) = (text(chain.0, "family"), text(chain.0, "table"), chain.name());
        if table == "firewalld" {
            match &facts.firewall_cmd {
                Some(program) => {
                    let opening = Opening::Firewalld { program: program.clone() };
                    if !plan.openings.contains(&opening) {
                        plan.openings.push(opening);
                    }
                }
                None => plan.obstacles.push(format!(
                    "firewalld keeps pods from other networks, and firewall-cmd is missing: make \
                     {range} a source of a zone that accepts"
                )),
            }
        } else if is_owned(&facts.ruleset, family, table) {
            plan.obstacles.push(format!(
                "chain {name} of the nftables table {family} {table} keeps pods from other networks, \
                 and only the program that made it can change it: let it forward from and to {range}"
            ));
        } else if let Some(program) =
            facts.iptables.as_ref().filter(|_| (family, table, name) == ("ip", "filter", "FORWARD"))
        {
            let chain = if has_chain(&facts.ruleset, "DOCKER-USER") { "DOCKER-USER" } else { name };
            plan.openings
                .push(Opening::Iptables { program: program.clone(), chain: chain.to_owned() });
        } else {
            plan.openings.push(Opening::Nft {
                family: family.to_owned(),
                table: table.to_owned(),
                chain: name.to_owned(),
            });
        }
    }
    if let Some(rules) = facts.legacy.as_deref().filter(|rules| legacy_drops(rules)) {
        let docker = rules.lines().any(|line| line == "-N DOCKER-USER");
        let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
        match &facts.iptables_legacy {
            Some(program) => plan
                .openings
                .push(Opening::Iptables { program: program.clone(), chain: chain.to_owned() }),
            None => plan.obstacles.push(format!(
                "the kernel's old iptables drop what pods send to other networks, and \
                 iptables-legacy is missing: accept what comes from and goes to {range} in {chain}"
            )),
        }
    }
    plan
}

/// A chain of a ruleset in JSON (libnftables-json(5)).
struct Chain<'a>(&'a Value);

impl<'a> Chain<'a> {
    fn name(&self) -> &'a str {
        text(self.0, "name")
    }

    fn is_rule_of(&self, rule: &Value) -> bool {
        ["family", "table"].iter().all(|key| rule.get(key) == self.0.get(key))
            && text(rule, "chain") == self.name()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The objects of one kind.
fn objects<'a>(ruleset: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    ruleset["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

fn forward_chains(ruleset: &Value) -> impl Iterator<Item = Chain<'_>> {
    objects(ruleset, "chain")
        .filter(|chain| text(chain, "hook") == "forward" && text(chain, "type") == "filter")
        .filter(|chain| matches!(text(chain, "family"), "ip" | "inet"))
        .map(Chain)
}

/// By its policy, or by a rule of its own that drops or rejects whatever comes to it.
fn drops(chain: &Chain<'_>, ruleset: &Value) -> bool {
    text(chain.0, "policy") == "drop"
        || objects(ruleset, "rule").any(|rule| chain.is_rule_of(rule) && refuses_all(rule))
}

fn refuses_all(rule: &Value) -> bool {
    let statements = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    // iptables' REJECT is one of the statements that nft cannot say in its own words.
    let refuses = |s: &Value| {
        s.get("drop").is_some() || s.get("reject").is_some() || s["xt"]["name"] == "REJECT"
    };
    let looks = |s: &Value| s.get("counter").is_none() && s.get("log").is_none();
    statements.iter().any(refuses) && statements.iter().filter(|s| looks(s)).all(refuses)
}

fn is_owned(ruleset: &Value, family: &str, table: &str) -> bool {
    let owned = |flags: &Value| {
        flags == "owner" || flags.as_array().is_some_and(|all| all.iter().any(|f| f == "owner"))
    };
    objects(ruleset, "table")
        .any(|t| (text(t, "family"), text(t, "name")) == (family, table) && owned(&t["flags"]))
}

fn has_chain(ruleset: &Value, name: &str) -> bool {
    objects(ruleset, "chain").any(|chain| {
        (text(chain, "family"), text(chain, "table"), text(chain, "name")) == ("ip", "filter", name)
    })
}

fn legacy_drops(rules: &str) -> bool {
    rules.lines().any(|line| {
        line == "-P FORWARD DROP"
            || line == "-A FORWARD -j DROP"
            || line.starts_with("-A FORWARD -j REJECT")
    })
}

/// Looks at the host.
///
/// # Errors
/// A program's, but for those that are missing.
pub fn look() -> Result<Facts, ProgramError> {
    let text = Program::nft()?.ask("list the ruleset", &["-j", "list", "ruleset"])?;
    // An empty ruleset is no text at all for some versions.
    let ruleset = serde_json::from_slice(&text).unwrap_or_default();
    let mut facts = Facts { ruleset, firewall_cmd: find("firewall-cmd"), ..Facts::default() };
    (facts.iptables, facts.iptables_legacy) = iptables()?;
    // The file is the namespace's: it names the tables that exist in it.
    let legacy =
        std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        facts.legacy = Some(match &facts.iptables_legacy {
            Some(program) => {
                let rules = Program(program.clone()).ask("list rules", &["-w", "-S"])?;
                String::from_utf8_lossy(&rules).into_owned()
            }
            // Unknown: better one message too many.
            None => "-P FORWARD DROP".into(),
        });
    }
    Ok(facts)
}

/// Which iptables speaks to nftables, and which to the older tables.
fn iptables() -> Result<(Option<PathBuf>, Option<PathBuf>), ProgramError> {
    let mut newer = find("iptables-nft");
    let mut older = find("iptables-legacy");
    if let Some(plain) = find("iptables").filter(|_| newer.is_none() || older.is_none()) {
        let version = Program(plain.clone()).ask("tell its version", &["--version"])?;
        let place =
            if version.windows(9).any(|w| w == b"nf_tables") { &mut newer } else { &mut older };
        place.get_or_insert(plain);
    }
    Ok((newer, older))
}

/// Makes an opening unless it is there.
///
/// # Errors
/// The program's.
pub fn open(
    state: &State,
    opening: &Opening,
    names: &Names,
    range: Cidr,
    facts: &Facts,
) -> Result<(), ProgramError> {
    let lock = state.held();
    match opening {
        Opening::Nft { family, table, chain } => {
            let tag = names.tag();
            let ours = objects(&facts.ruleset, "rule").filter(|rule| {
                text(rule, "comment") == tag
                    && (text(rule, "family"), text(rule, "table")) == (family, table)
                    && text(rule, "chain") == chain
            });
            let rules = nft_rules(names);
            if ours.count() == rules.len() {
                return Ok(());
            }
            let script: String = rules
                .iter()
                .map(|rule| format!("insert rule {family} {table} {chain} {rule}\n"))
                .collect();
            Program::nft()?.change("let pods through another firewall", &["-f", "-"], &script, lock)
        }
        Opening::Iptables { program, chain } => {
            let program = Program(program.clone());
            for rule in iptables_rules(names) {
                let arguments = |verb: &'static str| {
                    ["-w", verb, chain].into_iter().chain(rule.iter().map(String::as_str))
                };
                if !program.succeeds(&arguments("-C").collect::<Vec<_>>(), lock)? {
                    let arguments: Vec<&str> = arguments("-I").collect();
                    program.change("let pods through the FORWARD chain", &arguments, "", lock)?;
                }
            }
            Ok(())
        }
        Opening::Firewalld { program } => {
            let program = Program(program.clone());
            let ask = |verb: &str| ["--zone=trusted".into(), format!("--{verb}-source={range}")];
            if program.succeeds(&ask("query"), lock)? {
                return Ok(());
            }
            program.change("trust the pods' range", &ask("add"), "", lock)
        }
    }
}

/// What pods send, and what belongs to it or comes by a hostPort. Nobody outside gets further.
fn nft_rules(names: &Names) -> [String; 3] {
    let (tag, bridges) = (names.tag(), names.stem());
    [
        format!(r#"iifname "{bridges}*" accept comment "{tag}""#),
        format!(r#"oifname "{bridges}*" ct state established,related accept comment "{tag}""#),
        format!(r#"oifname "{bridges}*" ct status dnat accept comment "{tag}""#),
    ]
}

fn iptables_rules(names: &Names) -> [Vec<String>; 2] {
    let (tag, bridges) = (names.tag(), format!("{}+", names.stem()));
    let words = |words: &str| words.split(' ').map(ToOwned::to_owned).collect();
    [
        words(&format!("-i {bridges} -m comment --comment {tag} -j ACCEPT")),
        words(&format!(
            "-o {bridges} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment \
             {tag} -j ACCEPT"
        )),
    ]
}

/// Removes every opening of this network, wherever one is found. `firewalld` says that it was told of
/// the range.
///
/// # Errors
/// A program's.
pub fn close(
    state: &State,
    names: &Names,
    range: Option<Cidr>,
    firewalld: bool,
) -> Result<(), ProgramError> {
    let lock = state.held();
    let facts = look()?;
    for program in [&facts.iptables, &facts.iptables_legacy].into_iter().flatten() {
        if Some(program) == facts.iptables_legacy.as_ref() && facts.legacy.is_none() {
            // Asking it would make the older tables.
            continue;
        }
        remove_iptables_rules(&Program(program.clone()), names, lock)?;
    }
    let tag = names.tag();
    let mut script = String::new();
    for rule in objects(&look()?.ruleset, "rule").filter(|rule| text(rule, "comment") == tag) {
        let (family, table, chain) =
            (text(rule, "family"), text(rule, "table"), text(rule, "chain"));
        if let Some(handle) = rule["handle"].as_u64().filter(|_| (family, table) != ("ip", &tag)) {
            script += &format!("delete rule {family} {table} {chain} handle {handle}\n");
        }
    }
    if !script.is_empty() {
        Program::nft()?.change("remove rules from other firewalls", &["-f", "-"], &script, lock)?;
    }
    if let (true, Some(range), Some(program)) = (firewalld, range, facts.firewall_cmd) {
        let source = format!("--remove-source={range}");
        Program(program).succeeds(&["--zone=trusted", &source], lock)?;
    }
    Ok(())
}

fn remove_iptables_rules(
    program: &Program,
    names: &Names,
    lock: &File,
) -> Result<(), ProgramError> {
    for chain in ["DOCKER-USER", "FORWARD"] {
        for rule in iptables_rules(names) {
            let arguments: Vec<&str> =
                ["-w", "-D", chain].into_iter().chain(rule.iter().map(String::as_str)).collect();
            while program.succeeds(&arguments, lock)? {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
