//! Pulls from a real registry.

use std::fs;

use bundles::image::digest::Digest;
use bundles::image::registry::{self, Options, PullError};
use bundles::image::{Progress, Reference, Store};
use serde_json::json;

use crate::make::{INDEX, MANIFEST, Tar, TestImage, architecture, descriptor};
use crate::server::Registry;

fn pull(store: &Store, reference: &Reference) -> (Result<bundles::image::Image, PullError>, usize) {
    let mut layers = 0;
    let result = registry::pull(store, reference, &Options::default(), &mut |step| {
        layers += usize::from(matches!(step, Progress::Unpacked { .. }));
    });
    (result, layers)
}

#[test]
fn an_image_is_pulled_once_and_its_layers_are_not_fetched_again() {
    let registry = Registry::start();
    registry.push("team/app", "v1", &TestImage::small());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let reference = registry.reference("team/app:v1");
    let (image, fetched) = pull(&store, &reference);
    let image = image.unwrap();
    assert_eq!(fetched, 2);
    assert_eq!(fs::read_to_string(image.layers[1].join("etc/name")).unwrap(), "upper");
    assert_eq!(store.resolve(&reference).unwrap().unwrap(), image);
    let (again, fetched) = pull(&store, &reference);
    assert_eq!((again.unwrap(), fetched), (image, 0));
}

#[test]
fn of_an_index_the_image_for_this_machine_is_taken() {
    let registry = Registry::start();
    let ours = registry.push("app", "ours", &TestImage::small());
    let other = TestImage::new(vec![Tar::new().file("other", "").end()]);
    let theirs = registry.push("app", "theirs", &other);
    let entry = |manifest: &[u8], arch: &str| {
        let mut entry = descriptor(MANIFEST, manifest);
        entry["platform"] = json!({"os": "linux", "architecture": arch});
        entry
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&theirs, "s390x"), entry(&ours, architecture())]});
    registry.push_manifest("app", "all", INDEX, index.to_string().as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let (image, _) = pull(&Store::open(dir.path()).unwrap(), &registry.reference("app:all"));
    assert_eq!(image.unwrap().manifest_digest, Digest::of(&ours).to_string());
}

#[test]
fn a_layer_that_was_changed_in_the_registry_is_refused_and_leaves_no_name() {
    let registry = Registry::start();
    let image = TestImage::small();
    registry.push("app", "v1", &image);
    let (_, blobs) = image.oci(true);
    let config = Digest::of(&image.config).to_string();
    for digest in blobs.keys().filter(|digest| **digest != config) {
        let file = registry.blob_file(digest);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&file, bytes).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let reference = registry.reference("app:v1");
    let (result, _) = pull(&store, &reference);
    assert!(!result.unwrap_err().is_unreachable());
    assert_eq!(store.resolve(&reference).unwrap(), None);
}

#[test]
fn an_image_that_is_not_there_is_no_unreachable_registry() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (result, _) = pull(&store, &registry.reference("no/such:1"));
    let error = result.unwrap_err();
    assert!(matches!(error, PullError::Refused { .. }), "{error:?}");
}
