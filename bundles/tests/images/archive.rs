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

/// Loads `archive` and gives the whole chain of what is wrong with it; nothing of it may stay.
fn refused(archive: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = load(&store, archive).expect_err("refused");
    assert_eq!(store.list().unwrap(), []);
    for part in ["layers", "tmp"] {
        assert_eq!(fs::read_dir(dir.path().join(part)).unwrap().count(), 0, "{part}");
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_layer_that_an_image_has_twice_is_mounted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let empty = Tar::new().end();
    let base = Tar::new().file("x", "y").end();
    let image_file = TestImage::new(vec![empty.clone(), base, empty]);
    load(&store, &docker_archive(&image_file, &["app:v1"])).unwrap();
    let layers = image(&store, "app:v1").layers;
    assert_eq!(layers.len(), 2);
    assert_eq!(text(layers[0].join("x")), "y");
}

#[test]
fn a_damaged_archive_is_told_from_a_store_that_cannot_be_written() {
    let mut whole = gzip(&docker_archive(&TestImage::small(), &["app:v1"]));
    let cut = refused(&whole[..whole.len() / 2]);
    let middle = whole.len() / 2;
    whole[middle..middle + 40].fill(0xff);
    for text in [cut, refused(&whole)] {
        assert!(!text.contains("write into"), "{text}");
        assert!(text.contains("tar stream"), "{text}");
    }
}

#[test]
fn what_a_digest_does_not_vouch_for_is_refused() {
    let small = TestImage::small();
    let (manifest, blobs) = small.oci(false);
    for spoilt in blobs.keys() {
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "app:v1"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let mut tar = bytes(Tar::new(), "index.json", index.as_bytes());
        for (digest, blob) in &blobs {
            let mut blob = blob.clone();
            if digest == spoilt {
                *blob.last_mut().unwrap() ^= 1;
            }
            let hex = digest.strip_prefix("sha256:").unwrap();
            tar = bytes(tar, &format!("blobs/sha256/{hex}"), &blob);
        }
        let hex = Digest::of(&manifest).hex().to_owned();
        tar = bytes(tar, &format!("blobs/sha256/{hex}"), &manifest);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = load(&store, &tar.end()).expect_err("refused");
        assert!(matches!(error, LoadError::Mismatch { .. }), "{spoilt}: {error}");
        assert_eq!(store.list().unwrap(), []);
    }
}

#[test]
fn an_archive_of_something_else_says_what_is_missing() {
    let other = refused(&Tar::new().file("hello", "world").end());
    assert!(other.contains("neither manifest.json nor index.json"), "{other}");
    let unnamed = refused(&docker_archive(&TestImage::small(), &[]));
    assert!(unnamed.contains("docker save NAME"), "{unnamed}");
    let manifest = json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["gone.tar"]}]);
    let config = TestImage::small().config;
    let tar = bytes(Tar::new(), "manifest.json", manifest.to_string().as_bytes());
    let missing = refused(&bytes(tar, "c.json", &config).end());
    assert!(missing.contains("gone.tar"), "{missing}");
}

#[test]
fn members_that_link_in_a_circle_or_out_of_the_archive_are_missing() {
    let loops = Tar::new().symlink("manifest.json", "b").symlink("b", "manifest.json");
    assert!(refused(&loops.end()).contains("neither"));
    let out = Tar::new().symlink("manifest.json", "/etc/passwd");
    assert!(refused(&out.end()).contains("neither"));
}
