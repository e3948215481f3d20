//! What `registries.conf` says, read as its manual page does.

use super::*;

fn places(files: &[(&str, &str)]) -> Result<Places, PlacesError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let dirs = ["system.d", "own.d"].map(|name| dir.path().join(name));
    Places::read(&dir.path().join("registries.conf"), &dirs)
}

fn find(text: &str, name: &str) -> Vec<String> {
    let places = places(&[("registries.conf", text)]).unwrap();
    match places.find(&Reference::parse(name).unwrap()) {
        Where::Blocked(_) => vec!["blocked".to_owned()],
        Where::At(all) => all
            .iter()
            .map(|p| {
                let mark = if p.insecure { " insecure" } else { "" };
                format!("{}/{}{mark}", p.host, p.repository)
            })
            .collect(),
    }
}

#[test]
fn mirrors_come_first_in_order_and_then_the_location() {
    let text = r#"
        unqualified-search-registries = ["quay.io"]
        short-name-mode = "enforcing"
        [[registry]]
        prefix = "docker.io"
        location = "registry-1.docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "second.example"
        [aliases]
        "alpine" = "quay.io/other/alpine"
    "#;
    assert_eq!(
        find(text, "alpine"),
        [
            "mirror.example:5000/hub/library/alpine insecure",
            "second.example/library/alpine",
            "registry-1.docker.io/library/alpine"
        ]
    );
    assert_eq!(find(text, "quay.io/a"), ["quay.io/a"]);
}

#[test]
fn the_longest_prefix_counts_and_only_whole_words_match() {
    let text = r#"
        [[registry]]
        location = "r.example"
        insecure = true
        [[registry]]
        prefix = "r.example/team"
        location = "other.example/moved"
        [[registry]]
        prefix = "r.example/team/secret"
        blocked = true
        [[registry]]
        prefix = "r.example/one:v1"
        location = "one.example/image"
        [[registry]]
        prefix = "Upper.example:443/x"
        blocked = true
    "#;
    for (name, expected) in [
        ("r.example/a", "r.example/a insecure"),
        ("r.example/team/app", "other.example/moved/app"),
        ("r.example/teams/app", "r.example/teams/app insecure"),
        ("r.example/team/secret/app", "blocked"),
        ("R.Example:443/team/secret/app", "blocked"),
        ("r.example:443/a", "r.example/a insecure"),
        ("r.example/one:v1", "one.example/image"),
        ("r.example:443/one:v1", "one.example/image"),
        ("r.example/one:v2", "r.example/one insecure"),
        ("r.example:5000/a", "r.example:5000/a"),
        ("upper.example/x/y", "blocked"),
        ("xr.example/a", "xr.example/a"),
    ] {
        assert_eq!(find(text, name), [expected], "{name}");
    }
}

#[test]
fn a_wildcard_matches_hosts_below_a_domain() {
    let text = r#"
        [[registry]]
        prefix = "*.example.org"
        insecure = true
        [[registry]]
        prefix = "*.moved.org"
        location = "new.net/all"
    "#;
    assert_eq!(find(text, "a.b.example.org/x"), ["a.b.example.org/x insecure"]);
    assert_eq!(find(text, "example.org/x"), ["example.org/x"]);
    assert_eq!(find(text, "badexample.org/x"), ["badexample.org/x"]);
    assert_eq!(find(text, "a.moved.org/x/y"), ["new.net/all/x/y"]);
}

#[test]
fn a_mirror_may_be_for_digests_or_tags_only() {
    let text = r#"
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.example"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "b.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example"
    "#;
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(find(text, "a.example/x"), ["tags.example/x", "a.example/x"]);
    let by_digest = find(text, &format!("a.example/x@{digest}"));
    assert_eq!(by_digest, ["digests.example/x", "a.example/x"]);
    assert_eq!(find(text, "b.example/x"), ["b.example/x"]);
    assert_eq!(find(text, &format!("b.example/x@{digest}")).len(), 2);
}

#[test]
fn what_is_read_later_replaces_and_only_conf_files_are_read() {
    let registry = |to: &str| format!("[[registry]]\nprefix = \"a.example\"\nlocation = \"{to}\"");
    let places = places(&[
        ("registries.conf", &registry("main.example")),
        ("system.d/10.conf", &registry("ten.example")),
        ("system.d/20.conf", &registry("twenty.example")),
        ("own.d/05.conf", &registry("own.example")),
        ("own.d/90.conf.bak", "no toml"),
    ]);
    let Where::At(found) = places.unwrap().find(&Reference::parse("a.example/x").unwrap()) else {
        panic!("not blocked")
    };
    assert_eq!(found[0].host, "own.example");
}

#[test]
fn a_file_that_cannot_be_followed_is_told_with_its_line() {
    let error = |text: &str| places(&[("registries.conf", text)]).unwrap_err().to_string();
    assert!(error("[[registry]]\nlocation = 7").contains("registries.conf, line 2: invalid type"));
    assert!(error("\n\n[[registry").contains("line 3"), "{}", error("\n\n[[registry"));
    assert!(error("[[registry]]\ninsecure = true").contains("neither prefix nor location"));
    assert!(error("[registries.block]\nregistries = ['x']").contains("version 1"));
    assert!(places(&[("registries.conf", "[registries.search]\nregistries = ['x']")]).is_ok());
    assert!(places(&[]).is_ok());
}
