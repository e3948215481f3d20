//! Directories that a layer has no entry for, and what else an image does not bring along.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use bundles::image::{Image, Progress, Reference, Store, archive, remove};
use serde_json::json;
use tar::EntryType;

use crate::make::{Tar, TestImage};

fn archive_of(layers: Vec<Tar>, name: &str) -> Vec<u8> {
    let image = TestImage::new(layers.into_iter().map(Tar::end).collect());
    let names: Vec<String> = (0..image.layers.len()).map(|i| format!("{i}.tar")).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": [name], "Layers": names}]).to_string();
    let tar = Tar::new().bytes("c.json", &image.config).bytes("manifest.json", manifest.as_bytes());
    names.iter().zip(&image.layers).fold(tar, |tar, (name, layer)| tar.bytes(name, layer)).end()
}

fn load(store: &Store, layers: Vec<Tar>, name: &str) -> Image {
    archive::load(store, &archive_of(layers, name)[..], &mut |_| {}).unwrap();
    store.resolve(&Reference::parse(name).unwrap()).unwrap().unwrap()
}

/// Mode and owner of paths in an image, as a container sees them: through a real overlay.
fn seen(image: &Image, paths: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let lower: Vec<&str> = image.layers.iter().rev().map(|l| l.to_str().unwrap()).collect();
    let at = dir.path().display();
    let mut script =
        format!("mount -t overlay o -o ro,lowerdir={} {at}\ncd {at}\n", lower.join(":"));
    for path in paths {
        script += &format!("stat -c '%a %u:%g' ./{path}\n");
    }
    // A mount namespace of its own: the mount goes with the shell.
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-ec", &script]);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn base() -> Tar {
    Tar::new()
        .directory("./", 0o775)
        .directory("tmp/", 0o1777)
        .directory("a/", 0o700)
        .entry(EntryType::Directory, "a/b/", b"", |h| {
            h.set_mode(0o2770);
            h.set_uid(12);
            h.set_gid(34);
        })
        .file("a/b/old", "x")
}

#[test]
fn a_directory_without_an_entry_keeps_what_a_lower_layer_gave_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let upper = Tar::new().file("tmp/x", "1").file("a/b/new", "2").file("fresh/y", "3");
    let image = load(&store, vec![base(), upper], "app:v1");
    assert_eq!(image.layers.len(), 3);
    let paths = ["", "tmp", "a", "a/b", "fresh"];
    assert_eq!(seen(&image, &paths), ["775 0:0", "1777 0:0", "700 0:0", "2770 12:34", "755 0:0"]);
    assert_eq!(seen(&image, &["a/b/old", "a/b/new", "tmp/x"]).len(), 3);

    // It goes with the image, and not before.
    assert_eq!(remove::sweep(&store).unwrap(), 0);
    assert_eq!(remove::remove(&store, "app:v1", false).unwrap().layers, 3);
    for part in ["layers", "implied", "tmp"] {
        assert_eq!(fs::read_dir(dir.path().join(part)).unwrap().count(), 0, "{part}");
    }
}

#[test]
fn an_image_whose_directories_are_as_they_should_be_gets_no_more_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let plain = Tar::new().directory("usr/", 0o755).directory("usr/bin/", 0o755);
    let implied = Tar::new().file("usr/bin/x", "1");
    assert_eq!(load(&store, vec![plain, implied], "a:v1").layers.len(), 2);
    let late = Tar::new().file("tmp/x", "1").directory("tmp/", 0o700).directory("./", 0o755);
    let image = load(&store, vec![base(), late], "b:v1");
    assert_eq!(image.layers.len(), 2);
    assert_eq!(seen(&image, &["", "tmp"]), ["755 0:0", "700 0:0"]);
}

#[test]
fn a_directory_that_was_removed_in_between_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let root = || Tar::new().directory("./", 0o755);
    let gone = root().file(".wh.tmp", "");
    let image = load(&store, vec![base(), gone, root().file("tmp/x", "1")], "a:v1");
    assert_eq!(seen(&image, &["tmp"]), ["755 0:0"]);
    let opaque = root().directory("a/", 0o711).file("a/.wh..wh..opq", "");
    let image = load(&store, vec![base(), opaque, root().file("a/b/x", "1")], "b:v1");
    assert_eq!(seen(&image, &["a", "a/b"]), ["711 0:0", "755 0:0"]);
}

#[test]
fn device_nodes_that_are_left_out_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let device = |tar: Tar, name: &str| {
        tar.entry(EntryType::Block, name, b"", |h| h.set_device_major(254).unwrap())
    };
    let layer = device(device(Tar::new().file("x", ""), "sda"), "sdb");
    let mut devices = Vec::new();
    archive::load(&store, &archive_of(vec![layer], "a:v1")[..], &mut |step| {
        if let Progress::LeftOut { devices: count, .. } = step {
            devices.push(count);
        }
    })
    .unwrap();
    assert_eq!(devices, [2]);
    let image = store.resolve(&Reference::parse("a:v1").unwrap()).unwrap().unwrap();
    let layer: &Path = &image.layers[0];
    assert_eq!(fs::metadata(layer.join("x")).unwrap().nlink(), 1);
    assert!(!layer.join("sda").exists());
}
