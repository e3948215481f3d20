//! The image store from the command line: what pods run stays, and a directory becomes an image.
//!
//! Run as root. Pulls are tested elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use integration::Instance;

fn manifest(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  \
         - {{name: main, image: {image}, command: [sleep, '1000']}}\n"
    )
}

#[test]
fn an_image_that_a_pod_runs_is_not_removed_until_the_pod_is_gone() {
    let podshim = Instance::new();
    let running = podshim.start(&manifest("alpine:latest"));
    podshim.until("ready", |p| p["status"]["phase"] == "Running");
    let refused = podshim.podshim(&["rmi", "alpine"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("used by pod default/p"), "{}", refused.err);
    let table = podshim.podshim(&["images"]).out;
    assert_eq!(table.lines().next(), Some("REPOSITORY   TAG      IMAGE ID       SIZE"));
    assert!(table.contains("\nalpine       latest   "), "{table}");

    assert_eq!(podshim.podshim(&["delete", "pod", "p", "--grace-period=0"]).code, 0);
    running.wait();
    let removed = podshim.podshim(&["rmi", "alpine"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert_eq!(podshim.podshim(&["images", "-q"]).out, "");
    assert_eq!(fs::read_dir(podshim.root().join("images/layers")).unwrap().count(), 0);
}

#[test]
fn a_root_filesystem_becomes_an_image_that_runs_as_it_says() {
    let podshim = Instance::new();
    // The only root filesystem at hand is that of the test image.
    let layers = podshim.root().join("images/layers");
    let layer = fs::read_dir(layers).unwrap().next().unwrap().unwrap().path();
    let made = podshim.podshim(&[
        "image",
        "build-rootfs",
        layer.to_str().unwrap(),
        "--tag=mine:v1",
        "--entrypoint=[\"/bin/sh\", \"-c\"]",
        "--cmd=[\"echo $GREETING $(pwd) $(id -u)\"]",
        "--env=GREETING=hello",
        "--workdir=/tmp",
        "--user=1000",
    ]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.starts_with("docker.io/library/mine:v1 sha256:"), "{}", made.out);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  restartPolicy: Never\n  \
               containers:\n  - {name: main, image: 'mine:v1'}\n";
    let said = podshim.run(pod);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("hello /tmp 1000"), "{}", said.out);
}
