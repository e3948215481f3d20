//! Images made from directories: a root filesystem, and an OCI layout.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use bundles::image::rootfs::{BuildError, build};
use bundles::image::{ImageConfig, Reference, Store, archive};
use serde_json::json;

use crate::make::{MANIFEST, TestImage, descriptor};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// Everything about a file that an image keeps.
fn described(path: &Path) -> String {
    let m = fs::symlink_metadata(path).unwrap();
    let mut value = [0; 64];
    let name = "user.mine";
    let attribute = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
    let content = if m.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    let target = fs::read_link(path).unwrap_or_default();
    format!(
        "{:o} {}:{} {}.{} {attribute} {} {target:?}",
        m.mode(),
        m.uid(),
        m.gid(),
        m.mtime(),
        m.mtime_nsec(),
        content.len()
    )
}

fn tree(root: &Path) {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(90));
    for dir in ["bin", "tmp", "empty", &long] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("bin/su"), "x".repeat(1000)).unwrap();
    chown(root.join("bin/su"), Some(12), Some(3_000_000)).unwrap();
    fs::set_permissions(root.join("bin/su"), Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("bin/su"), root.join("bin/also")).unwrap();
    symlink("/bin/su", root.join("bin/link")).unwrap();
    symlink("t".repeat(300), root.join("long-link")).unwrap();
    fs::write(root.join(&long).join("file"), "").unwrap();
    fs::write(root.join("with\nfeed"), "y").unwrap();
    let path = root.join("bin/su");
    let _ = rustix::fs::setxattr(&path, "user.mine", b"kept", rustix::fs::XattrFlags::empty());
}

#[test]
fn a_directory_becomes_an_image_with_all_that_its_files_are() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(source.path());
    let store = Store::open(dir.path()).unwrap();
    let config = ImageConfig {
        entrypoint: vec!["/bin/su".into()],
        env: vec!["A=b".into()],
        user: "12".into(),
        ..ImageConfig::default()
    };
    let (image, left_out) = build(&store, source.path(), &reference("mine:v1"), &config).unwrap();
    assert!(left_out.special.is_empty() && left_out.mounts.is_empty());
    assert_eq!(image.config.entrypoint, ["/bin/su"]);
    assert_eq!(store.resolve(&reference("mine:v1")).unwrap().unwrap(), image);
    let [layer] = &image.layers[..] else { panic!("one layer") };
    let compare = Command::new("diff")
        .arg("-r")
        .arg("--no-dereference")
        .args([source.path(), layer])
        .output()
        .unwrap();
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
    let long = format!("{}/{}/file", "d".repeat(90), "n".repeat(90));
    for name in ["", "bin", "bin/su", "bin/also", "bin/link", "tmp", "long-link", "empty", &long] {
        assert_eq!(described(&layer.join(name)), described(&source.path().join(name)), "{name}");
    }
    let inode = |name: &str| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(inode("bin/su"), inode("bin/also"));

    let again = build(&store, source.path(), &reference("mine:v2"), &config).unwrap().0;
    assert_eq!((again.id, again.layers), (image.id, image.layers));
}

#[test]
fn devices_and_sockets_are_left_out_and_told() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _socket = std::os::unix::net::UnixListener::bind(source.path().join("socket")).unwrap();
    let made = Command::new("mknod").arg(source.path().join("null")).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    let store = Store::open(dir.path()).unwrap();
    let (image, left_out) =
        build(&store, source.path(), &reference("a"), &ImageConfig::default()).unwrap();
    let names: Vec<_> = left_out.special.iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(names, ["null", "socket"]);
    assert_eq!(fs::read_dir(&image.layers[0]).unwrap().count(), 0);
}

#[test]
fn a_name_that_would_remove_files_and_what_is_no_directory_are_refused() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path()).unwrap();
    let file = source.path().join(".wh.x");
    fs::write(&file, "").unwrap();
    let config = ImageConfig::default();
    let error = build(&store, source.path(), &reference("a"), &config).unwrap_err();
    assert!(matches!(error, BuildError::Whiteout { .. }), "{error}");
    let error = build(&store, &file, &reference("a"), &config).unwrap_err();
    assert!(matches!(error, BuildError::NoDirectory { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

/// An OCI layout in `dir`; `zstd` compresses its layers.
fn layout(dir: &Path, image: &TestImage, zstd: bool) {
    let (manifest, blobs) = if zstd { image.zstd() } else { image.oci(true) };
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "quay.io/a/app:v1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("index.json"), index).unwrap();
    for blob in blobs.values().chain([&manifest]) {
        let digest = bundles::image::digest::Digest::of(blob);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), blob).unwrap();
    }
}

#[test]
fn a_layout_in_a_directory_is_loaded_with_gzip_and_zstd_layers() {
    for zstd in [false, true] {
        let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        layout(source.path(), &TestImage::small(), zstd);
        let store = Store::open(dir.path()).unwrap();
        let names = archive::load_directory(&store, source.path(), &mut |_| {}).unwrap();
        assert_eq!(names, ["quay.io/a/app:v1"]);
        let image = store.resolve(&reference("quay.io/a/app:v1")).unwrap().unwrap();
        assert_eq!(fs::read_to_string(image.layers[1].join("etc/name")).unwrap(), "upper");
    }
}

#[test]
fn a_layout_in_a_directory_reads_nothing_outside_of_it() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = source.path().join("layout");
    layout(&at, &TestImage::small(), false);
    fs::rename(at.join("index.json"), source.path().join("index.json")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    for target in ["../index.json", source.path().join("index.json").to_str().unwrap()] {
        let _ = fs::remove_file(at.join("index.json"));
        symlink(target, at.join("index.json")).unwrap();
        let error = archive::load_directory(&store, &at, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("neither"), "{target}: {error}");
    }
    // A FIFO would be waited for.
    fs::remove_file(at.join("index.json")).unwrap();
    assert!(Command::new("mkfifo").arg(at.join("index.json")).status().unwrap().success());
    archive::load_directory(&store, &at, &mut |_| {}).unwrap_err();
}

/// Whoever can write into the tree must not get the host's files into the image.
#[test]
fn what_is_swapped_for_a_link_meanwhile_is_not_followed() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    let (tmp, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path()).unwrap();
    let (tree, outside) = (tmp.path().join("tree"), tmp.path().join("outside"));
    for dir in [&tree.join("a/b"), &outside.join("b")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(tree.join("a/b/file"), "inside").unwrap();
    fs::write(outside.join("b/file"), "of the host").unwrap();
    let link = tmp.path().join("link");
    symlink(&outside, &link).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, tree.join("a"), CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..300 {
            // It may fail, since things vanish.
            let Ok((image, _)) = build(&store, &tree, &reference("a"), &ImageConfig::default())
            else {
                continue;
            };
            let a = image.layers[0].join("a");
            let file = fs::read_to_string(a.join("b/file")).unwrap_or_default();
            if !a.is_symlink() && file == "of the host" {
                done.store(true, Ordering::Relaxed);
                panic!("the host's file is in the image");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
