//! What goes with a name, and what stays because somebody needs it.

use super::super::ImageConfig;
use super::super::hold::Held;
use super::*;

struct Place {
    _dir: tempfile::TempDir,
    store: Store,
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Place { store, _dir: dir }
    }

    /// Puts the image `id`, made of `layers`, there as `names`.
    fn put(&self, id: &str, layers: &[&str], names: &[&str]) {
        let record = Record {
            reference: String::new(),
            manifest_digest: digest(&format!("manifest of {id}")),
            id: digest(id),
            layers: layers.iter().map(|l| digest(l)).collect(),
            config: ImageConfig::default(),
            size_bytes: 1,
            patch: None,
        };
        for layer in &record.layers {
            fs::create_dir_all(self.store.layer_path(layer)).unwrap();
        }
        for name in names {
            let name = Reference::parse(name).unwrap();
            self.store.put(&name, &record).unwrap();
            self.store.put(&name.with_digest(&record.manifest_digest), &record).unwrap();
        }
    }

    fn has(&self, layer: &str) -> bool {
        self.store.has_layer(&digest(layer))
    }

    fn names(&self) -> Vec<String> {
        let all = self.store.list().unwrap().into_iter().map(|i| i.reference);
        all.filter(|name| !name.contains('@')).collect()
    }
}

#[test]
fn the_last_name_takes_the_image_and_the_layers_that_no_other_has() {
    let place = Place::new();
    place.put("one", &["base", "top"], &["app:v1", "app:v2"]);
    place.put("two", &["base", "other"], &["two:v1"]);
    let first = remove(&place.store, "app:v1", false).unwrap();
    assert_eq!(first.names, ["docker.io/library/app:v1"]);
    assert_eq!((first.images.len(), first.layers), (0, 0));
    let second = remove(&place.store, "docker.io/library/app:v2", false).unwrap();
    assert_eq!(second.names.len(), 2, "{second:?}");
    assert_eq!((&second.images[..], second.layers), (&[digest("one").to_string()][..], 1));
    assert!(place.has("base") && place.has("other") && !place.has("top"));
    assert_eq!(place.names(), ["docker.io/library/two:v1"]);
    assert!(matches!(remove(&place.store, "app:v2", false), Err(RemoveError::NotFound { .. })));
}

#[test]
fn an_id_takes_all_names_and_must_be_of_one_image() {
    let place = Place::new();
    place.put("one", &["a"], &["app:v1", "quay.io/x/app:v2"]);
    place.put("two", &["b"], &["two:v1"]);
    let id = digest("one").hex().to_owned();
    let removed = remove(&place.store, &id[..12], false).unwrap();
    assert_eq!((removed.names.len(), removed.layers), (4, 1));
    assert_eq!(place.names(), ["docker.io/library/two:v1"]);
    let error = remove(&place.store, &id, false).unwrap_err();
    assert!(matches!(error, RemoveError::NotFound { .. }), "{error}");
}

#[test]
fn what_a_living_pod_runs_stays_and_who_it_is_is_said() {
    let place = Place::new();
    place.put("one", &["a"], &["app:v1"]);
    let name = Reference::parse("app:v1").unwrap();
    let (_, hold) = place.store.resolve_held(&name, "pod default/app").unwrap().unwrap();
    let error = remove(&place.store, "app:v1", false).unwrap_err().to_string();
    assert!(error.contains("used by pod default/app"), "{error}");
    assert_eq!(place.names().len(), 1);

    remove(&place.store, "app:v1", true).unwrap();
    assert_eq!(place.store.resolve(&name).unwrap(), None);
    assert!(place.has("a"));
    assert_eq!(sweep(&place.store).unwrap(), 0);
    drop(hold);
    assert_eq!(sweep(&place.store).unwrap(), 1);
    assert!(!place.has("a"));
}

#[test]
fn layers_of_a_pull_under_way_stay_and_those_of_a_dead_one_go() {
    let place = Place::new();
    fs::create_dir(place.store.layer_path(&digest("coming"))).unwrap();
    let held = Held { by: "a pull".into(), id: None, layers: vec![digest("coming")] };
    let hold = place.store.hold(&held).unwrap();
    assert_eq!(sweep(&place.store).unwrap(), 0);
    // As a process that dies leaves it: the file without its lock.
    let path = place.store.holds().join("0");
    fs::write(&path, serde_json::to_vec(&held).unwrap()).unwrap();
    drop(hold);
    assert_eq!(sweep(&place.store).unwrap(), 1);
    assert!(!path.exists());
}

#[test]
fn nothing_is_removed_while_a_name_cannot_be_read() {
    let place = Place::new();
    place.put("one", &["a"], &["app:v1"]);
    place.put("two", &["b"], &["two:v1"]);
    let damaged = place.store.records().unwrap().remove(0).0;
    fs::write(&damaged, "{").unwrap();
    let error = sweep(&place.store).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(place.has("a") && place.has("b"));
}

#[test]
fn holds_and_removals_at_the_same_time_never_give_an_image_without_its_layers() {
    let place = Place::new();
    let name = Reference::parse("app:v1").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                let held = Held { by: "a pull".into(), id: None, layers: vec![digest("a")] };
                let _hold = place.store.hold(&held).unwrap();
                place.put("one", &["a"], &["app:v1"]);
            }
        });
        for _ in 0..50 {
            let _ = remove(&place.store, "app:v1", false);
            if let Some((image, _hold)) = place.store.resolve_held(&name, "me").unwrap() {
                assert!(image.layers.iter().all(|layer| layer.is_dir()));
            }
        }
    });
}
