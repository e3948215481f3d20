//! Archives as `docker save` and OCI tools write them.

use std::fs;
use std::path::Path;

use bundles::image::archive::{self, LoadError};
use bundles::image::digest::Digest;
use bundles::image::{Image, Progress, Reference, Store};
use serde_json::json;

use crate::make::{MANIFEST, Tar, TestImage, descriptor, gzip};

fn load(store: &Store, archive: &[u8]) -> Result<Vec<String>, LoadError> {
    archive::load(store, archive, &mut |_| {})
}

fn image(store: &Store, name: &str) -> Image {
    store.resolve(&Reference::parse(name).unwrap()).unwrap().unwrap()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn bytes(tar: Tar, path: &str, content: &[u8]) -> Tar {
    tar.entry(tar::EntryType::Regular, path, content, |_| {})
}

/// As docker has written them since version 1.10: the layers before the manifest that names them.
fn docker_archive(image: &TestImage, tags: &[&str]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut layers = Vec::new();
    for (i, layer) in image.layers.iter().enumerate() {
        let name = format!("{i}/layer.tar");
        tar = bytes(tar.directory(&format!("{i}/"), 0o755), &name, layer);
        layers.push(name);
    }
    let config = format!("{}.json", Digest::of(&image.config).hex());
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string();
    bytes(bytes(tar, &config, &image.config), "manifest.json", manifest.as_bytes()).end()
}

fn oci_archive(image: &TestImage, gzipped: bool, name: &str) -> Vec<u8> {
    let (manifest, blobs) = image.oci(gzipped);
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let mut tar = bytes(Tar::new(), "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = bytes(tar, "index.json", index.as_bytes());
    for blob in blobs.values().chain([&manifest]) {
        tar = bytes(tar, &format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.end()
}

#[test]
fn a_docker_archive_becomes_an_image_with_its_layers_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let small = TestImage::small();
    let mut steps = Vec::new();
    let archive = docker_archive(&small, &["app:v1", "quay.io/a/app:v2"]);
    let names = archive::load(&store, &archive[..], &mut |step| steps.push(step)).unwrap();
    assert_eq!(names, ["docker.io/library/app:v1", "quay.io/a/app:v2"]);

    let found = image(&store, "app:v1");
    assert_eq!(found.id, Digest::of(&small.config).to_string());
    assert_eq!(found.config.entrypoint, ["/bin/sh"]);
    assert_eq!(found.config.user, "1000");
    assert_eq!(text(found.layers[0].join("etc/name")), "lower");
    assert_eq!(text(found.layers[1].join("etc/name")), "upper");
    assert!(found.layers.iter().all(|l| l.file_name().unwrap().len() == 26));
    assert_eq!(image(&store, "quay.io/a/app:v2").layers, found.layers);
    assert!(matches!(steps[0], Progress::Resolved { layers: 2, .. }), "{steps:?}");
    assert_eq!(steps.iter().filter(|s| matches!(s, Progress::Unpacked { .. })).count(), 2);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_oci_archive_plain_or_compressed_gives_the_same_image() {
    let small = TestImage::small();
    for (layers_gzipped, archive_gzipped) in [(false, false), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut archive = oci_archive(&small, layers_gzipped, "quay.io/a/app:v1");
        if archive_gzipped {
            archive = gzip(&archive);
        }
        assert_eq!(load(&store, &archive).unwrap(), ["quay.io/a/app:v1"]);
        let found = image(&store, "quay.io/a/app:v1");
        let digest = Digest::of(&small.oci(layers_gzipped).0).to_string();
        assert_eq!(found.manifest_digest, digest);
        assert_eq!(found.id, Digest::of(&small.config).to_string());
        assert_eq!(text(found.layers[1].join("etc/name")), "upper");
        assert_eq!(image(&store, &format!("quay.io/a/app@{digest}")).layers, found.layers);
    }
}
