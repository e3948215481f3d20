//! What podshim says of a host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;

use integration::{Instance, pod, run};
use serde_json::Value;

#[test]
fn a_run_that_fails_for_the_host_names_what_mends_it() {
    let podshim = Instance::new();
    let path = podshim.manifest(&pod("  containers: [{name: main, image: 'alpine:latest'}]\n"));
    let without = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_admin"]).arg(integration::binary());
        podshim.run_command(command, arguments)
    };
    let said = without(&["run", "--pull=never", &path]);
    assert_eq!(said.code, 125, "{}", said.err);
    let finding = said.err.lines().find(|line| line.contains("the doctor finds: namespaces"));
    assert!(finding.is_some_and(|line| line.contains("; mend: ")), "{}", said.err);
    // What has another cause is not blamed on the host.
    let said = podshim.podshim(&["run", "--pull=never", "/no/such.yaml"]);
    assert_eq!(said.code, 125);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

#[test]
fn doctor_finds_what_is_in_the_way_of_pods_and_changes_nothing() {
    let podshim = Instance::new();
    let findings = || -> Vec<Value> {
        let said = podshim.podshim(&["doctor", "-o", "json"]);
        assert_eq!(said.code, 0, "where the tests run, pods can: {}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap()
    };
    let of = |all: &[Value], subject: &str| -> Vec<Value> {
        all.iter().filter(|f| f["subject"] == subject).cloned().collect()
    };
    let before = run("ip -o link; nft list ruleset; cat /proc/self/mountinfo");
    let found = findings();
    for subject in ["user", "kernel", "cgroups", "namespaces", "overlayfs", "seccomp", "nft"] {
        assert_eq!(of(&found, subject)[0]["verdict"], "good", "{found:#?}");
    }
    assert!(of(&found, "firewall").is_empty(), "{found:#?}");
    assert_eq!(run("ip -o link; nft list ruleset; cat /proc/self/mountinfo"), before);

    run(
        "nft 'add table inet mine; add chain inet mine fw { type filter hook forward priority 0; policy drop; }'",
    );
    let found = findings();
    let firewall = of(&found, "firewall");
    let text = firewall[0]["found"].as_str().unwrap();
    assert!(text.contains("chain fw") && text.contains("drops what is forwarded"), "{text}");

    let plain = podshim.podshim(&["doctor"]).out;
    assert!(plain.lines().any(|l| l.starts_with("warning  firewall")), "{plain}");
}
