//! Pulls over networks that break and from registries that err: what has come is kept, what is
//! wrong is thrown away, and nothing has no end.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bundles::image::digest::Digest;
use bundles::image::registry::{self, Options, PullError};
use bundles::image::{Image, Progress, Reference, Store};
use serde_json::json;

use crate::fake::{Fake, Says};
use crate::make::{MANIFEST, Tar, TestImage, descriptor, noise};

pub fn quick() -> Options {
    Options { first_wait: Duration::from_millis(5), ..Options::default() }
}

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Place { dir, store }
    }

    fn pull(&self, reference: &Reference) -> (Result<Image, PullError>, Vec<Progress>) {
        let mut steps = Vec::new();
        let result = registry::pull(&self.store, reference, &quick(), &mut |s| steps.push(s));
        (result, steps)
    }

    fn partials(&self) -> Vec<std::path::PathBuf> {
        let dir = fs::read_dir(self.dir.path().join("partial")).unwrap();
        dir.map(|entry| entry.unwrap().path()).collect()
    }
}

fn retries(steps: &[Progress]) -> usize {
    steps.iter().filter(|step| matches!(step, Progress::Retry { .. })).count()
}

/// One layer of a megabyte that does not compress.
fn large() -> TestImage {
    TestImage::new(vec![Tar::new().bytes("noise", &noise(1 << 20)).end()])
}

/// The digest in the registry of an image's only layer.
fn layer_digest(image: &TestImage) -> String {
    let config = Digest::of(&image.config).to_string();
    image.oci(true).1.into_keys().find(|digest| *digest != config).unwrap()
}

#[test]
fn a_layer_whose_connection_breaks_goes_on_where_it_stopped() {
    let image = large();
    let layer = layer_digest(&image);
    let path = layer.clone();
    let times = AtomicUsize::new(0);
    let fake = Fake::registry(&image, move |asked, says| {
        let breaks = asked.path.ends_with(&path) && times.fetch_add(1, Ordering::SeqCst) < 3;
        if breaks { says.breaks_after(300_000) } else { says }
    });
    let place = Place::new();
    let (pulled, steps) = place.pull(&fake.reference("app:v1"));
    let made = fs::read(pulled.unwrap().layers[0].join("noise")).unwrap();
    assert_eq!(made, noise(1 << 20));
    assert_eq!(retries(&steps), 3);
    let asked: Vec<_> = fake.asked().into_iter().filter(|a| a.path.ends_with(&layer)).collect();
    let from: Vec<usize> = asked.iter().map(super::fake::Asked::from).collect();
    assert_eq!(from[0], 0);
    assert!(from.is_sorted() && from[3] >= 800_000, "{from:?}");
    assert_eq!(place.partials(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn what_an_earlier_pull_left_is_not_fetched_again() {
    let image = large();
    let layer = layer_digest(&image);
    let path = layer.clone();
    let fake = Fake::registry(&image, move |asked, says| match asked.path.ends_with(&path) {
        true if asked.from() == 0 => says.breaks_after(500_000),
        true if asked.from() < 700_000 => Says::status(403),
        _ => says,
    });
    let place = Place::new();
    let (first, _) = place.pull(&fake.reference("app:v1"));
    assert!(matches!(first, Err(PullError::Refused { .. })), "{first:?}");
    let [partial] = &place.partials()[..] else { panic!("one partial file") };
    assert_eq!(partial.file_name().unwrap().to_str(), layer.strip_prefix("sha256:"));
    let have = fs::metadata(partial).unwrap().len();
    assert!(have > 400_000, "{have}");

    // As if more had come before the first was killed.
    let blob = image.oci(true).1.remove(&layer).unwrap();
    fs::write(partial, &blob[..800_000]).unwrap();
    let (second, steps) = place.pull(&fake.reference("app:v1"));
    second.unwrap();
    assert_eq!(retries(&steps), 0);
    let last = fake.asked().pop().unwrap();
    assert_eq!((last.from(), last.path.ends_with(&layer)), (800_000, true));
    assert!(place.partials().is_empty());
}

#[test]
fn what_an_earlier_pull_left_wrong_is_thrown_away_and_fetched_once_more() {
    let image = large();
    let layer = layer_digest(&image);
    let fake = Fake::registry(&image, |_, says| says);
    let whole = image.oci(true).1.remove(&layer).unwrap();
    for left in [vec![7; 1000], vec![7; whole.len()], vec![7; whole.len() + 1]] {
        let place = Place::new();
        let partial = place.dir.path().join("partial").join(layer.strip_prefix("sha256:").unwrap());
        fs::write(partial, &left).unwrap();
        let (pulled, _) = place.pull(&fake.reference("app:v1"));
        assert_eq!(fs::read(pulled.unwrap().layers[0].join("noise")).unwrap(), noise(1 << 20));
        assert!(place.partials().is_empty());
    }
}

#[test]
fn a_registry_without_ranges_gives_all_again() {
    let image = large();
    let layer = layer_digest(&image);
    let whole = image.oci(true).1.remove(&layer).unwrap();
    let times = AtomicUsize::new(0);
    let fake = Fake::registry(&image, move |asked, says| {
        if !asked.path.ends_with(&layer) {
            return says;
        }
        let says = Says::ok(whole.clone());
        if times.fetch_add(1, Ordering::SeqCst) == 0 { says.breaks_after(300_000) } else { says }
    });
    let (pulled, steps) = Place::new().pull(&fake.reference("app:v1"));
    pulled.unwrap();
    assert_eq!(retries(&steps), 1);
}

#[test]
fn a_wrong_layer_is_thrown_away_and_named() {
    let image = large();
    let layer = layer_digest(&image);
    let path = layer.clone();
    let fake = Fake::registry(&image, move |asked, mut says| {
        if asked.path.ends_with(&path) {
            says.body[70_000] ^= 1;
        }
        says
    });
    let place = Place::new();
    let (result, _) = place.pull(&fake.reference("app:v1"));
    let Err(PullError::Mismatch { expected, .. }) = result else { panic!("{result:?}") };
    assert_eq!(expected, layer);
    assert!(place.partials().is_empty());
    assert_eq!(place.store.list().unwrap(), []);
}

#[test]
fn a_layer_that_is_longer_or_shorter_than_the_manifest_says_is_an_error() {
    for longer in [true, false] {
        let image = large();
        let layer = layer_digest(&image);
        let fake = Fake::registry(&image, move |asked, mut says| {
            if asked.path.ends_with(&layer) && asked.from() == 0 {
                if longer { says.body.extend([0; 4096]) } else { says.body.truncate(1000) }
            } else if asked.path.ends_with(&layer) {
                return Says::status(416);
            }
            says
        });
        let place = Place::new();
        let (result, _) = place.pull(&fake.reference("app:v1"));
        result.unwrap_err();
        assert_eq!(place.store.list().unwrap(), []);
    }
}

#[test]
fn a_registry_that_only_breaks_is_given_up_and_called_unreachable() {
    let image = large();
    let layer = layer_digest(&image);
    let fake = Fake::registry(&image, move |asked, says| {
        if asked.path.ends_with(&layer) { says.breaks_after(0) } else { says }
    });
    let (result, steps) = Place::new().pull(&fake.reference("app:v1"));
    let error = result.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(retries(&steps), 4);
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let times = AtomicUsize::new(0);
    let fake = Fake::registry(&TestImage::small(), move |_, says| {
        match times.fetch_add(1, Ordering::SeqCst) {
            n if n % 2 == 0 => Says::status(if n % 4 == 0 { 503 } else { 429 }),
            _ => says,
        }
    });
    let (pulled, _) = Place::new().pull(&fake.reference("app:v1"));
    pulled.unwrap();
}

#[test]
fn layers_come_three_at_a_time_and_not_more() {
    let layers = (0..9).map(|i| Tar::new().file(&format!("f{i}"), "x").end()).collect();
    let fake = Fake::registry(&TestImage::new(layers), |_, says| {
        std::thread::sleep(Duration::from_millis(60));
        says
    });
    let (pulled, _) = Place::new().pull(&fake.reference("app:v1"));
    assert_eq!(pulled.unwrap().layers.len(), 9);
    assert_eq!(fake.most_at_once(), 3);
}

#[test]
fn of_an_image_that_is_here_only_the_manifest_is_fetched() {
    let fake = Fake::registry(&TestImage::small(), |_, says| says);
    let place = Place::new();
    place.pull(&fake.reference("app:v1")).0.unwrap();
    let before = fake.asked().len();
    place.pull(&fake.reference("app:v1")).0.unwrap();
    place.pull(&fake.reference("other:v2")).0.unwrap();
    let since = fake.asked().split_off(before);
    assert_eq!(since.len(), 2, "{since:?}");
    assert!(since.iter().all(|asked| asked.path.contains("/manifests/")), "{since:?}");
}

#[test]
fn documents_without_end_are_not_read() {
    for part in ["/manifests/", "/blobs/"] {
        let fake = Fake::registry(&TestImage::small(), move |asked, mut says| {
            if asked.path.contains(part) {
                says.body.resize(64 << 20, b' ');
                says.unsized_body = true;
            }
            says
        });
        let (result, _) = Place::new().pull(&fake.reference("app:v1"));
        let error = result.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("TooLong"), "{part}: {text}");
    }
}

#[test]
fn a_manifest_by_digest_must_have_it() {
    let fake = Fake::registry(&TestImage::small(), |_, says| says);
    let digest = Digest::of(b"other");
    let other = Fake::start(move |asked| {
        assert!(asked.path.contains("/manifests/"));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": descriptor("x", b"y")});
        Says::ok(manifest.to_string())
    });
    let name = format!("app@{digest}");
    let (result, _) = Place::new().pull(&other.reference(&name));
    assert!(matches!(result, Err(PullError::Mismatch { .. })), "{result:?}");
    let (result, _) = Place::new().pull(&fake.reference(&name));
    assert!(matches!(result, Err(PullError::Refused { .. })), "{result:?}");
}

#[test]
fn redirects_end_and_lead_to_no_other_scheme() {
    let storage = Fake::registry(&TestImage::small(), |_, says| says);
    let port = storage.port;
    let fake = Fake::registry(&TestImage::small(), move |asked, says| {
        if asked.path.contains("/blobs/") {
            let to = format!("http://127.0.0.1:{port}{}", asked.path);
            return Says::status(307).header("Location", to);
        }
        says
    });
    Place::new().pull(&fake.reference("app:v1")).0.unwrap();
    for to in ["/v2/a/blobs/x", "file:///etc/passwd", "https://user:secret@h/x"] {
        let fake = Fake::registry(&TestImage::small(), move |asked, says| {
            let is_blob = asked.path.contains("/blobs/");
            if is_blob { Says::status(302).header("Location", to) } else { says }
        });
        let (result, _) = Place::new().pull(&fake.reference("app:v1"));
        let error = result.unwrap_err();
        assert!(format!("{error:?}").contains("Redirect"), "{to}: {error:?}");
    }
}
