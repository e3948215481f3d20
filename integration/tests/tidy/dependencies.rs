//! What we depend on, and who may depend on whom.
//!
//! Reads the locked dependency graph for Linux from `cargo metadata`. Known vulnerabilities are not
//! looked up here: that needs a database from the network (`deny.toml` is for `cargo deny check`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::licence;
use crate::tree::{assert_none, root};

/// Crates that must not come in, and why.
const BANNED: [(&str, &str); 7] = [
    ("aws-lc-sys", "a large C build that wants cmake; rustls runs on ring here"),
    ("native-tls", "brings OpenSSL; rustls is used"),
    ("openssl-sys", "a second TLS, and a C library on the build machine"),
    ("libseccomp", "filters are compiled here; no C library is needed on the build machine"),
    ("serde_yaml", "unmaintained; accepts duplicate keys in maps"),
    ("serde_yml", "unsound and unmaintained (RUSTSEC-2025-0068)"),
    ("tokio-native-tls", "brings OpenSSL; rustls is used"),
];

/// Licences beyond the general list, each for one crate.
const EXCEPTIONS: [(&str, &str); 1] = [
    // Weak copyleft that binds changes to its own files; comes with libcontainer.
    ("pathrs", "MPL-2.0"),
];

/// Crates that state a file instead of a licence, with a sentence that only the expected one has.
const LICENCE_FILES: [(&str, &str); 1] =
    [("rust-criu", "Permission is hereby granted, free of charge, to any person")];

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--format-version=1",
            "--filter-platform",
            &platform,
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let graph: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata speaks JSON");
    let packages = graph["packages"].as_array().expect("a list of packages").clone();
    assert!(packages.len() > 100, "only {} packages: the graph was not read", packages.len());
    packages
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

fn named<'a>(packages: &'a [Value], name: &str) -> &'a Value {
    packages
        .iter()
        .find(|package| text(package, "name") == name)
        .unwrap_or_else(|| panic!("no package {name}"))
}

fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}

/// What a package of ours depends on when it is shipped: neither tests nor build scripts.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let all = package["dependencies"].as_array().expect("a list of dependencies");
    all.iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| text(dependency, "name"))
        .collect()
}

#[test]
fn every_crate_comes_from_the_default_registry() {
    let packages = packages();
    let default = text(named(&packages, "serde"), "source");
    assert!(default.starts_with("registry+"), "serde comes from {default}");
    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| !is_ours(package) && text(package, "source") != default)
        .map(|package| format!("{} from {}", text(package, "name"), text(package, "source")))
        .collect();
    assert_none("crates from elsewhere (git, another registry)", &wrong);
}

#[test]
fn every_package_without_a_source_lies_in_the_checkout() {
    let root = root();
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| {
            is_ours(package) && !Path::new(text(package, "manifest_path")).starts_with(&root)
        })
        .map(|package| text(package, "manifest_path").to_owned())
        .collect();
    assert_none("crates by a path out of the checkout", &wrong);
}

#[test]
fn every_licence_is_permissive_or_a_named_exception() {
    let mut wrong = Vec::new();
    for package in packages() {
        let name = text(&package, "name");
        let also: Vec<&str> =
            EXCEPTIONS.iter().filter(|(of, _)| *of == name).map(|(_, licence)| *licence).collect();
        match package["license"].as_str() {
            Some(licence) if licence::acceptable(licence, &also) => {}
            Some(licence) => wrong.push(format!("{name}: {licence}")),
            None if has_the_expected_file(&package) => {}
            None => wrong.push(format!("{name}: states no licence that we know")),
        }
    }
    assert_none("licences that nobody has accepted", &wrong);
}

fn has_the_expected_file(package: &Value) -> bool {
    let Some((_, sentence)) = LICENCE_FILES.iter().find(|(name, _)| *name == text(package, "name"))
    else {
        return false;
    };
    let file =
        Path::new(text(package, "manifest_path")).with_file_name(text(package, "license_file"));
    fs::read_to_string(file).is_ok_and(|text| text.contains(sentence))
}

#[test]
fn no_exception_outlives_its_crate() {
    let packages = packages();
    for (name, _) in EXCEPTIONS.iter().chain(&LICENCE_FILES) {
        named(&packages, name);
    }
}

#[test]
fn no_banned_crate_has_come_in() {
    let packages = packages();
    let wrong: Vec<String> = BANNED
        .iter()
        .filter(|(name, _)| packages.iter().any(|package| text(package, "name") == *name))
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    assert_none("banned crates", &wrong);
}

/// The advisory database knows none of youki's advisories, so this is ours to hold: CVE-2025-62161 and
/// CVE-2025-62596 (mount and procfs races, fixed in 0.5.7), the /dev/console mount (0.6.0), a bounding
/// set that was left full and sysctls of the host (0.7.0).
#[test]
fn libcontainer_has_the_fixes_for_known_escapes() {
    let packages = packages();
    let version = text(named(&packages, "libcontainer"), "version");
    let numbers: Vec<u64> =
        version.split(['.', '-']).take(3).map(|part| part.parse().expect("a number")).collect();
    assert!(numbers >= vec![0, 7, 0], "libcontainer {version}");
}

#[test]
fn the_heart_depends_on_serde_only() {
    let packages = packages();
    assert_eq!(dependencies(named(&packages, "plan")), BTreeSet::from(["serde"]));
}

#[test]
fn the_simulator_depends_on_the_heart_and_serde_only() {
    let packages = packages();
    let allowed = BTreeSet::from(["plan", "serde", "serde_json"]);
    assert_eq!(dependencies(named(&packages, "sim")), allowed);
    for other in ["plan", "bundles", "runtime"] {
        assert!(!dependencies(named(&packages, other)).contains("sim"), "{other} depends on sim");
    }
}

#[test]
fn bundles_knows_neither_the_heart_nor_the_mechanism() {
    let packages = packages();
    let bundles = dependencies(named(&packages, "bundles"));
    for other in ["plan", "runtime", "shim", "nix", "libcontainer", "libcgroups", "caps"] {
        assert!(!bundles.contains(other), "bundles depends on {other}");
    }
}

#[test]
fn the_mechanism_does_not_know_the_binary() {
    let packages = packages();
    assert!(!dependencies(named(&packages, "runtime")).contains("shim"));
}

#[test]
fn only_the_mechanism_knows_libcontainer() {
    let packages = packages();
    for package in
        packages.iter().filter(|package| is_ours(package) && text(package, "name") != "runtime")
    {
        for other in ["libcontainer", "libcgroups", "caps"] {
            assert!(
                !dependencies(package).contains(other),
                "{} depends on {other}",
                text(package, "name")
            );
        }
    }
}

#[test]
fn black_box_tests_know_none_of_our_crates() {
    let packages = packages();
    let tests = named(&packages, "integration");
    for other in packages.iter().filter(|package| is_ours(package)) {
        let name = text(other, "name");
        assert!(!dependencies(tests).contains(name), "integration depends on {name}");
    }
}
