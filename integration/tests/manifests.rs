//! Manifests that cannot be run, as the command line says it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use integration::{Instance, sources};

#[test]
fn the_seed_manifests_have_a_comma_too_much_and_that_is_said_where_it_is() {
    let podshim = Instance::new();
    for name in ["seed-job.yaml", "seed-deployment.yaml"] {
        let path = sources().join("bundles/testdata").join(name);
        let line = 1 + std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .position(|l| l.trim() == "- '-c',")
            .unwrap();
        let said = podshim.podshim(&["run", path.to_str().unwrap()]);
        assert_eq!(said.code, 125);
        assert!(said.err.contains(&format!("{name}:{line}:")), "{}", said.err);
        assert!(said.err.contains("comma"), "{}", said.err);
    }
}

#[test]
fn three_mistakes_are_three_errors_at_once() {
    let podshim = Instance::new();
    let path = podshim.manifest(
        "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: main
    image: alpine
    comand: ['true']
    tty: 'yes'
    volumeMounts: [{name: nowhere, mountPath: /x}]
",
    );
    let said = podshim.podshim(&["check", &path]);
    assert_eq!(said.code, 125);
    assert_eq!(said.err.matches("error").count(), 3, "{}", said.err);
    for text in ["comand", "command", "tty", "nowhere"] {
        assert!(said.err.contains(text), "{text} in {}", said.err);
    }
}

#[test]
fn check_needs_no_root() {
    use std::os::unix::process::CommandExt;
    let podshim = Instance::new();
    let example = std::fs::read_to_string(sources().join("examples/job.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (binary, manifest) = (dir.path().join("podshim"), dir.path().join("job.yaml"));
    std::fs::copy(integration::binary(), &binary).unwrap();
    std::fs::write(&manifest, example).unwrap();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    for path in [dir.path(), binary.as_path(), manifest.as_path()] {
        std::fs::set_permissions(path, open.clone()).unwrap();
    }
    let status = std::process::Command::new(&binary)
        .args(["check", manifest.to_str().unwrap()])
        .uid(65534)
        .gid(65534)
        .status()
        .unwrap();
    assert!(status.success());
    drop(podshim);
}

/// Within limits that a reader of manifests has no need to come near.
fn check_within_limits(path: &std::path::Path) -> (Option<i32>, String) {
    let limits = "ulimit -v 786432 && ulimit -t 30 && exec \"$0\" check \"$1\"";
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", limits])
        .args([integration::binary().as_path(), path])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_hostile_manifest_is_an_error_and_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    let block: String = (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let bomb: String =
        (1..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
    let long = "x".repeat(8_000);
    let aliases = format!("---\nx: [&a {long},{}]\n", " *a,".repeat(900)).repeat(250);
    let anchors: String = (0..60).map(|n| format!("&a{n} [")).collect();
    let anchors = format!("x: {anchors}{}{}", "x".repeat(4 << 20), "]".repeat(60));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n";
    let unknown: String = (0..20_000).map(|n| format!("  a{n}: 1\n")).collect();
    let standby = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, annotations: {{podshim.dev/standby: '{}'}}}}\n",
        "a,".repeat(2 << 20)
    );
    for (text, said) in [
        ("[".repeat(1 << 20), "within each other"),
        ("{a: ".repeat(1 << 20), "within each other"),
        ("{\"a\":".repeat(1 << 20), "within each other"),
        ("- ".repeat(1 << 20), "within each other"),
        (block, "within each other"),
        (format!("a0: &a0 [x]\n{bomb}"), "values in one file"),
        (aliases, "MiB of text in one file"),
        (anchors, "MiB of text in one file"),
        ("---\na: b\n".repeat(100_000), "documents in one file"),
        (format!("{pod}{unknown}"), "at least"),
        (standby, "Not found"),
        (format!("{pod}  restartPolicy: {}\n", "x".repeat(7 << 20)), "Unsupported value"),
        ("x".repeat(64 << 20), "larger than 8 MiB"),
        ("kind: Pod\n\0".into(), "no.yaml:"),
        ("kind: \u{1b}]0;gotcha\u{7}\n".into(), "invalid YAML"),
        ("kind: \"\\e]0;gotcha\\a\\x9b2J\"\n".into(), "does not run a"),
    ] {
        let path = dir.path().join("no.yaml");
        std::fs::write(&path, &text).unwrap();
        let (code, err) = check_within_limits(&path);
        let head: String = err.chars().take(400).collect();
        assert_eq!(code, Some(125), "{said}: {head}");
        assert!(err.contains(said), "{said} in {head}");
        assert!(!err.contains(|c: char| c.is_control() && c != '\n'), "{head:?}");
    }
    // Names of files come with a directory, and their bytes are anybody's too.
    for (name, bytes) in
        [("\u{1b}[2J.yaml", &b"kind: \xff"[..]), ("\u{1b}[2J.yaml", b"kind: Pod\n")]
    {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let (code, err) = check_within_limits(folder.path());
        assert_eq!(code, Some(125), "{err}");
        assert!(!err.contains('\u{1b}') && err.contains("\\u{1b}[2J.yaml"), "{err:?}");
    }
}
