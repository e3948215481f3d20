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
