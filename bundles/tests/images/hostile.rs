//! Layers that want out: nothing outside the layer's directory is ever touched, and what is refused
//! is refused with a reason.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bundles::image::unpack::{UnpackError, unpack};
use tar::EntryType;

use crate::make::Tar;

/// A layer's directory, and beside it one that no layer may touch.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "scratch", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        Place { dir }
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub fn outside(&self) -> String {
        self.dir.path().join("outside").to_str().unwrap().to_owned()
    }

    pub fn unpack(&self, layer: &[u8]) -> Result<(), UnpackError> {
        let open = |name: &str| File::open(self.dir.path().join(name)).unwrap();
        let (root, scratch) = (open("root"), open("scratch"));
        let result = unpack(layer, root.as_fd(), scratch.as_fd()).map(drop);
        let outside = Path::new(&self.outside()).to_path_buf();
        let names: Vec<_> =
            fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"], "something was written outside");
        assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "alive");
        result
    }
}

/// An error and its causes.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn refused(layer: Tar) -> String {
    let error = Place::new().unpack(&layer.end()).expect_err("refused");
    error.to_string()
}

#[test]
fn names_that_climb_out_are_refused() {
    for path in ["../evil", "a/../../evil", "a/.."] {
        let text = refused(Tar::new().file(path, "x"));
        assert!(text.contains("refused"), "{path}: {text}");
    }
}

#[test]
fn an_absolute_name_lands_inside() {
    let place = Place::new();
    place.unpack(&Tar::new().file("/etc/name", "x").end()).unwrap();
    assert_eq!(fs::read_to_string(place.root().join("etc/name")).unwrap(), "x");
}

#[test]
fn a_file_through_a_link_to_the_host_stays_inside_or_is_refused() {
    let place = Place::new();
    let layer = Tar::new().symlink("link", &place.outside()).file("link/evil", "x").end();
    // Either the link was resolved inside the root, or the entry was refused: the canary tells.
    let _ = place.unpack(&layer);
}

#[test]
fn a_file_over_a_link_replaces_the_link_and_never_its_target() {
    let place = Place::new();
    let canary = format!("{}/canary", place.outside());
    let layer = Tar::new().symlink("name", &canary).file("name", "mine").end();
    place.unpack(&layer).unwrap();
    let made = place.root().join("name");
    assert!(fs::symlink_metadata(&made).unwrap().is_file());
    assert_eq!(fs::read_to_string(made).unwrap(), "mine");
}

#[test]
fn a_directory_over_a_link_changes_no_mode_of_its_target() {
    let place = Place::new();
    let before = fs::metadata(place.outside()).unwrap().mode();
    let layer = Tar::new().symlink("dir", &place.outside()).directory("dir/", 0o777).end();
    let _ = place.unpack(&layer);
    assert_eq!(fs::metadata(place.outside()).unwrap().mode(), before);
}

#[test]
fn a_hard_link_to_the_host_is_an_error() {
    let place = Place::new();
    for target in [format!("{}/canary", place.outside()), "../outside/canary".to_owned()] {
        assert!(place.unpack(&Tar::new().hard_link("x", &target).end()).is_err(), "{target}");
    }
}

#[test]
fn a_hard_link_to_nothing_says_so() {
    let text = refused(Tar::new().hard_link("x", "missing"));
    assert!(text.contains("missing"), "{text}");
}

#[test]
fn a_hard_link_shares_its_file() {
    let place = Place::new();
    place.unpack(&Tar::new().file("a", "x").hard_link("b", "a").end()).unwrap();
    let inode = |name: &str| fs::metadata(place.root().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
}

#[test]
fn whiteouts_of_odd_names_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        let text = refused(Tar::new().file(name, ""));
        assert!(text.contains("refused"), "{name}: {text}");
    }
}

#[test]
fn a_whiteout_is_overlayfs_own_and_an_opaque_directory_too() {
    let place = Place::new();
    let layer = Tar::new().directory("d/", 0o755).file("d/.wh..wh..opq", "").file(".wh.gone", "");
    place.unpack(&layer.end()).unwrap();
    let gone = fs::symlink_metadata(place.root().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let name = "trusted.overlay.opaque";
    let n = rustix::fs::getxattr(place.root().join("d"), name, &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"y");
}

#[test]
fn a_whiteout_through_a_link_removes_nothing_outside() {
    let place = Place::new();
    let layer = Tar::new().symlink("out", &place.outside()).file("out/.wh.canary", "").end();
    let _ = place.unpack(&layer);
}

#[test]
fn owners_beyond_what_linux_has_are_refused() {
    for owner in ["4294967296", "4294967295", "2147483648"] {
        let layer = Tar::new().pax(&[("uid", owner.as_bytes())]).file("x", "");
        assert!(refused(layer).contains("owner"), "{owner}");
    }
}

#[test]
fn attributes_that_steer_an_overlay_are_left_out_and_others_kept() {
    let place = Place::new();
    let layer = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.mine", b"kept"),
        ])
        .directory("d/", 0o755);
    place.unpack(&layer.end()).unwrap();
    let mut value = [0; 64];
    let mut get = |name: &str| rustix::fs::getxattr(place.root().join("d"), name, &mut value[..]);
    assert!(get("trusted.overlay.redirect").is_err());
    assert!(get("user.overlay.opaque").is_err());
    assert_eq!(get("user.mine").unwrap(), 4);
}

#[test]
fn modes_owners_and_times_are_kept() {
    let place = Place::new();
    let layer = Tar::new().entry(EntryType::Regular, "su", b"x", |h| {
        h.set_mode(0o4755);
        h.set_uid(12);
        h.set_gid(34);
        h.set_mtime(1_234_567_890);
    });
    place.unpack(&layer.end()).unwrap();
    let made = fs::metadata(place.root().join("su")).unwrap();
    assert_eq!(
        (made.mode() & 0o7777, made.uid(), made.gid(), made.mtime()),
        (0o4755, 12, 34, 1_234_567_890)
    );
}

#[test]
fn a_root_without_permissions_can_still_be_entered() {
    let place = Place::new();
    place.unpack(&Tar::new().directory("./", 0).file("x", "").end()).unwrap();
    let mode = fs::metadata(place.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o555, 0o555);
}

#[test]
fn device_nodes_of_the_host_are_not_made() {
    let place = Place::new();
    let layer = Tar::new().entry(EntryType::Block, "disk", b"", |h| {
        h.set_device_major(254).unwrap();
        h.set_device_minor(0).unwrap();
    });
    place.unpack(&layer.end()).unwrap();
    assert!(!place.root().join("disk").exists());
}

#[test]
fn the_last_of_several_entries_of_a_name_wins() {
    let place = Place::new();
    let layer = Tar::new().file("x", "1").directory("x/", 0o755).file("x", "3").end();
    place.unpack(&layer).unwrap();
    assert_eq!(fs::read_to_string(place.root().join("x")).unwrap(), "3");
}

#[test]
fn long_names_are_refused_early() {
    for path in ["n".repeat(300), "d/".repeat(2600) + "x"] {
        assert!(refused(Tar::new().file(&path, "")).contains("refused"));
    }
}

#[test]
fn a_stream_that_stops_or_is_no_tar_is_an_error() {
    let whole = Tar::new().file("x", &"y".repeat(5000)).end();
    assert!(Place::new().unpack(&whole[..1024]).is_err());
    assert!(Place::new().unpack(&[7; 4096]).is_err());
}

#[test]
fn an_empty_layer_is_a_layer() {
    Place::new().unpack(&Tar::new().end()).unwrap();
}

#[test]
fn a_loop_of_links_ends() {
    let place = Place::new();
    symlink("b", place.root().join("a")).unwrap();
    symlink("a", place.root().join("b")).unwrap();
    let _ = place.unpack(&Tar::new().file("a/x", "").end());
}
