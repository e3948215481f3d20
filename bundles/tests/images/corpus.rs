//! A table of layers that want out, or want more than they should get: each is refused with its
//! reason, or does what is safe. Whatever happens, nothing beside the layer's directory changes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::EntryType;

use crate::hostile::Place;
use crate::make::Tar;

/// What a layer must come to.
enum Comes {
    /// It is refused, and the reason has these words.
    Refused(&'static str),
    /// It is unpacked, and this is true of its directory.
    Unpacked(fn(&Path) -> bool),
    /// Either, as long as nothing outside changes.
    Inside,
}
use Comes::{Inside, Refused, Unpacked};

fn is(root: &Path, name: &str, content: &str) -> bool {
    fs::read_to_string(root.join(name)).is_ok_and(|text| text == content)
}

fn mode(root: &Path, name: &str) -> u32 {
    fs::symlink_metadata(root.join(name)).unwrap().mode() & 0o7777
}

fn is_whiteout(root: &Path, name: &str) -> bool {
    let found = fs::symlink_metadata(root.join(name));
    found.is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

/// A header that says `size` bytes, followed by none.
fn sized(size: [u8; 12]) -> Tar {
    Tar::new().entry(EntryType::Regular, "x", b"", move |h| h.as_old_mut().size = size)
}

fn numbered(change: impl FnOnce(&mut tar::Header)) -> Tar {
    Tar::new().entry(EntryType::Regular, "x", b"", change)
}

/// `count` links, each to the next, with a directory at the end.
fn chain(count: usize) -> Tar {
    let last = format!("l{count}");
    let tar = Tar::new().directory(&last, 0o755);
    (0..count).fold(tar, |tar, i| tar.symlink(&format!("l{i}"), &format!("l{}", i + 1)))
}

fn names(out: &str) -> Vec<(&'static str, Tar, Comes)> {
    let t = Tar::new;
    let abs = format!("{out}/evil");
    vec![
        ("climbs out", t().file("../evil", "x"), Refused("`..`")),
        ("climbs out from below", t().file("a/../../evil", "x"), Refused("`..`")),
        ("climbs and comes back", t().file("a/../b", "x"), Refused("`..`")),
        ("is only ..", t().directory("..", 0o777), Refused("`..`")),
        ("climbs with an absolute start", t().file("/../evil", "x"), Refused("`..`")),
        ("is absolute", t().file(&abs, "x"), Inside),
        ("has slashes at its start", t().file("///etc/x", "x"), Unpacked(|r| is(r, "etc/x", "x"))),
        ("has dots and slashes", t().file("./a/.//b", "x"), Unpacked(|r| is(r, "a/b", "x"))),
        ("is empty", t().pax(&[("path", b"")]).file("", "x"), Refused("root of a layer")),
        ("is the root, as a file", t().file("./", "x"), Inside),
        ("is the root, as a link", t().symlink(".", out), Refused("root of a layer")),
        ("is the root, as a hard link", t().hard_link(".", "x"), Refused("root of a layer")),
        ("is the root without rights", t().directory("./", 0), Unpacked(|r| mode(r, "") == 0o555)),
        ("has a NUL", t().pax(&[("path", b"a\0b")]).file("x", ""), Refused("NUL")),
        ("has a long part", t().file(&"n".repeat(256), ""), Refused("255")),
        ("is too long", t().file(&("d/".repeat(2500) + "x"), ""), Refused("4095")),
        (
            "has a line feed and an escape",
            t().file("a\nb\u{1b}[2J", "x"),
            Unpacked(|r| is(r, "a\nb\u{1b}[2J", "x")),
        ),
        (
            "is no UTF-8",
            t().pax(&[("path", b"\xff\xfe")]).file("x", "y"),
            Unpacked(|r| fs::read_dir(r).unwrap().count() == 1),
        ),
        (
            "is climbed out of by PAX",
            t().pax(&[("path", b"../evil")]).file("x", ""),
            Refused("`..`"),
        ),
        (
            "is given twice, by GNU and PAX",
            t().pax(&[("path", b"a")]).file(&"b".repeat(150), ""),
            Refused("both a GNU and a PAX name"),
        ),
        (
            "is given twice by PAX headers",
            t().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", ""),
            Refused("two extended headers"),
        ),
    ]
}

fn links(out: &str) -> Vec<(&'static str, Tar, Comes)> {
    let t = Tar::new;
    let canary = format!("{out}/canary");
    vec![
        ("file through a link to the host", t().symlink("l", out).file("l/evil", "x"), Inside),
        (
            "file through a relative link out",
            t().symlink("l", "../outside").file("l/evil", "x"),
            Inside,
        ),
        ("directory through a link", t().symlink("l", out).directory("l/evil", 0o777), Inside),
        ("link through a link", t().symlink("l", out).symlink("l/evil", "x"), Inside),
        (
            "fifo through a link",
            t().symlink("l", out).entry(EntryType::Fifo, "l/p", b"", |_| {}),
            Inside,
        ),
        (
            "file through a link within",
            t().directory("real", 0o755).symlink("l", "/real").file("l/x", "y"),
            Unpacked(|r| is(r, "real/x", "y")),
        ),
        (
            "file over a link",
            t().symlink("l", &canary).file("l", "mine"),
            Unpacked(|r| fs::symlink_metadata(r.join("l")).unwrap().is_file()),
        ),
        (
            "directory over a link, with a mode",
            t().symlink("l", out).directory("l", 0o777),
            Unpacked(|r| fs::symlink_metadata(r.join("l")).unwrap().is_dir()),
        ),
        (
            "link over a directory, and a file below",
            t().directory("d", 0o755).symlink("d", out).file("d/evil", "x"),
            Inside,
        ),
        (
            "directories that become links one after the other",
            t().directory("a/b", 0o755).symlink("a", "..").file("a/b/evil", "x"),
            Inside,
        ),
        ("links in a circle", t().symlink("a", "b").symlink("b", "a").file("a/x", "y"), Inside),
        ("links to itself", t().symlink("a", "a").file("a/x", "y"), Inside),
        ("a chain of 39 links", chain(39).file("l0/x", "y"), Unpacked(|r| is(r, "l39/x", "y"))),
        ("a chain of 41 links", chain(41).file("l0/x", "y"), Refused("open its directory")),
        ("a link with a NUL", t().pax(&[("linkpath", b"a\0b")]).symlink("l", "x"), Refused("NUL")),
        ("a link through /proc", t().symlink("l", "/proc/self/root").file("l/evil", "x"), Inside),
        ("hard link to the host", t().hard_link("x", &canary), Refused("not a file of this layer")),
        ("hard link that climbs", t().hard_link("x", "../outside/canary"), Refused("`..`")),
        (
            "hard link through a link",
            t().symlink("l", out).hard_link("x", "l/canary"),
            Refused("not a file of this layer"),
        ),
        ("hard link to nothing", t().hard_link("x", "gone"), Refused("gone")),
        (
            "hard link to a directory",
            t().directory("d", 0o755).hard_link("x", "d"),
            Refused("\"d\""),
        ),
        (
            "hard link to itself",
            t().file("x", "y").hard_link("x", "x"),
            Unpacked(|r| is(r, "x", "y")),
        ),
        (
            "hard link to a link, then written over",
            t().symlink("l", &canary).hard_link("x", "l").file("x", "mine"),
            Unpacked(|r| is(r, "x", "mine") && fs::read_link(r.join("l")).is_ok()),
        ),
        (
            "hard link to a whiteout",
            t().file(".wh.w", "").hard_link("x", "w"),
            Refused("not a file of this layer"),
        ),
        (
            "hard link that has content",
            t().file("a", "y").entry(EntryType::Link, "x", b"", |h| {
                h.as_old_mut().linkname[0] = b'a';
                h.set_size(512);
            }),
            Unpacked(|r| is(r, "x", "y")),
        ),
    ]
}

fn whiteouts(out: &str) -> Vec<(&'static str, Tar, Comes)> {
    let t = Tar::new;
    vec![
        ("of nothing", t().file(".wh.", ""), Refused("whiteout of nothing")),
        ("of the directory itself", t().file(".wh..", ""), Refused("whiteout of nothing")),
        ("of the directory above", t().file(".wh...", ""), Refused("whiteout of nothing")),
        ("of the directory above, below", t().file("a/.wh...", ""), Refused("whiteout of nothing")),
        ("within a whiteout", t().file(".wh.a/b", ""), Refused("within a whiteout")),
        ("through a link", t().symlink("l", out).file("l/.wh.canary", ""), Inside),
        ("opaque through a link", t().symlink("l", out).file("l/.wh..wh..opq", ""), Inside),
        (
            "of what the layer has",
            t().file("x", "y").file(".wh.x", ""),
            Unpacked(|r| is(r, "x", "y")),
        ),
        ("of a name", t().file(".wh.x", ""), Unpacked(|r| is_whiteout(r, "x"))),
        ("with content", t().file(".wh.x", "content"), Unpacked(|r| is_whiteout(r, "x"))),
        (
            "as a device of the layer's own",
            t().entry(EntryType::Char, "x", b"", |h| h.set_mode(0o666)),
            Unpacked(|r| !r.join("x").exists() && !is_whiteout(r, "x")),
        ),
        (
            "then a file below it",
            t().file(".wh.d", "").file("d/x", "y"),
            Unpacked(|r| is(r, "d/x", "y")),
        ),
        (
            "of aufs",
            t().file(".wh..wh.plnk", ""),
            Unpacked(|r| fs::read_dir(r).unwrap().count() == 0),
        ),
    ]
}

fn kinds_and_numbers() -> Vec<(&'static str, Tar, Comes)> {
    let t = Tar::new;
    let device = |kind| t().entry(kind, "dev", b"", |h| h.set_device_major(254).unwrap());
    let attribute = |name: &str, bytes: &[u8]| t().pax(&[(name, bytes)]).file("x", "");
    vec![
        (
            "a block device of the host",
            device(EntryType::Block),
            Unpacked(|r| !r.join("dev").exists()),
        ),
        ("a character device", device(EntryType::Char), Unpacked(|r| !r.join("dev").exists())),
        (
            "a fifo",
            t().entry(EntryType::Fifo, "p", b"", |h| h.set_mode(0o640)),
            Unpacked(|r| mode(r, "p") == 0o640),
        ),
        (
            "a kind that nobody knows",
            t().entry(EntryType::new(b'Z'), "x", b"", |_| {}),
            Refused("type"),
        ),
        (
            "a file, a directory, a file",
            t().file("x", "1").directory("x/", 0o755).file("x", "3"),
            Unpacked(|r| is(r, "x", "3")),
        ),
        ("a file below a file", t().file("x", "1").file("x/y", "2"), Refused("open its directory")),
        ("owner 2^32", t().pax(&[("uid", b"4294967296")]).file("x", ""), Refused("owner")),
        ("owner -1", t().pax(&[("uid", b"-1")]).file("x", ""), Refused("number")),
        ("group 2^31", t().pax(&[("gid", b"2147483648")]).file("x", ""), Refused("owner")),
        (
            "owner beyond 64 bits",
            t().pax(&[("uid", b"99999999999999999999")]).file("x", ""),
            Refused("number"),
        ),
        (
            "time beyond every calendar",
            t().pax(&[("mtime", b"4611686018427387904")]).file("x", ""),
            Unpacked(|r| r.join("x").exists()),
        ),
        (
            "time before every calendar",
            t().pax(&[("mtime", b"-99999999999999999999.5")]).file("x", ""),
            Unpacked(|r| r.join("x").exists()),
        ),
        ("time that is none", t().pax(&[("mtime", b"now")]).file("x", ""), Refused("time")),
        ("size with letters", sized(*b"zzzzzzzzzzz\0"), Refused("number")),
        ("negative size, base 256", sized([0xff; 12]), Refused("")),
        (
            "size of 8 EiB",
            sized([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Refused("negative"),
        ),
        ("size beyond the stream", sized(*b"00000007777\0"), Refused("cut off")),
        ("mode with letters", numbered(|h| h.as_old_mut().mode = *b"rwxr-x-\0"), Refused("number")),
        (
            "size of PAX against the header's",
            t().pax(&[("size", b"512")])
                .entry(EntryType::Regular, "x", &[b'y'; 512], |h| h.set_size(0)),
            Unpacked(|r| {
                fs::metadata(r.join("x")).unwrap().len() == 512
                    && fs::read_dir(r).unwrap().count() == 1
            }),
        ),
        (
            "attribute of overlayfs",
            attribute("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            Unpacked(|r| !has(r, "trusted.overlay.opaque")),
        ),
        (
            "attribute of a user's overlay",
            attribute("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            Unpacked(|r| !has(r, "user.overlay.redirect")),
        ),
        (
            "label of a security module",
            attribute("SCHILY.xattr.security.selinux", b"u:r:t"),
            Unpacked(|r| !has(r, "security.selinux")),
        ),
        (
            "capability that is none",
            attribute("SCHILY.xattr.security.capability", b"x"),
            Refused("attribute"),
        ),
        ("PAX record that lies about its length", raw_pax(b"99 path=x\n"), Refused("PAX record")),
        ("PAX record without an end", raw_pax(b"9 path=xy"), Refused("PAX record")),
        ("PAX header of 2 MiB", raw_pax(&[b'x'; 2 << 20]), Refused("too long")),
    ]
}

fn raw_pax(content: &[u8]) -> Tar {
    Tar::new().entry(EntryType::XHeader, "PaxHeaders/x", content, |_| {}).file("x", "")
}

fn has(root: &Path, attribute: &str) -> bool {
    rustix::fs::lgetxattr(root.join("x"), attribute, &mut [0; 64][..]).is_ok()
}

fn sparse() -> Vec<(&'static str, Tar, Comes)> {
    let t = Tar::new;
    let pax = |records: &[(&str, &[u8])], content: &[u8]| {
        t().pax(records).entry(EntryType::Regular, "GNUSparseFile.0/x", content, |_| {})
    };
    let one = |map: &str, size: &str, content: &[u8]| {
        let records: [(&str, &[u8]); 3] = [
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.name", b"x"),
        ];
        pax(&records, content)
    };
    let version1 = |map: &str, size: &str, content: &[u8]| {
        let mut all = map.as_bytes().to_vec();
        all.resize(512, 0);
        all.extend(content);
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"x"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ];
        pax(&records, &all)
    };
    vec![
        (
            "of 1 TiB, with nothing in it",
            one("", "1099511627776", b""),
            Unpacked(|r| holes(r, 1 << 40)),
        ),
        ("of version 0.1", one("0,2,100000,2", "200000", b"abcd"), Unpacked(filled)),
        (
            "of version 0.0",
            pax(
                &[
                    ("GNU.sparse.size", b"200000"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"0"),
                    ("GNU.sparse.numbytes", b"2"),
                    ("GNU.sparse.offset", b"100000"),
                    ("GNU.sparse.numbytes", b"2"),
                    ("path", b"x"),
                ],
                b"abcd",
            ),
            Unpacked(filled),
        ),
        ("of version 1.0", version1("2\n0\n2\n100000\n2\n", "200000", b"abcd"), Unpacked(filled)),
        ("that says more than it has", one("0,4096", "8192", b"abcd"), Refused("sparse")),
        ("that says less than it has", one("0,1", "8192", b"abcd"), Refused("sparse")),
        ("with parts that overlap", one("0,3,2,1", "8192", b"abcd"), Refused("sparse")),
        ("with parts beyond its end", one("0,2,8191,2", "8192", b"abcd"), Refused("sparse")),
        ("beyond 64 bits", one("18446744073709551615,4", "8192", b"abcd"), Refused("sparse")),
        ("with a map that is none", version1("2\n0\nx", "8192", b""), Refused("sparse")),
        ("with a map without end", version1("99999999999\n0\n0\n", "8192", b""), Refused("sparse")),
        ("that climbs out by its name", one_named("../evil"), Refused("`..`")),
    ]
}

fn one_named(name: &str) -> Tar {
    let records: [(&str, &[u8]); 3] = [
        ("GNU.sparse.map", b"0,1"),
        ("GNU.sparse.size", b"1"),
        ("GNU.sparse.name", name.as_bytes()),
    ];
    Tar::new().pax(&records).file("x", "y")
}

fn holes(root: &Path, size: u64) -> bool {
    let made = fs::metadata(root.join("x")).unwrap();
    made.len() == size && made.blocks() < 100
}

fn filled(root: &Path) -> bool {
    let made = fs::read(root.join("x")).unwrap();
    made.len() == 200_000 && &made[..3] == b"ab\0" && &made[100_000..100_003] == b"cd\0"
}

#[test]
fn each_layer_of_the_corpus_is_refused_with_its_reason_or_stays_inside() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for group in [names, links, whiteouts, |_: &str| kinds_and_numbers(), |_: &str| sparse()] {
        let place = Place::new();
        for (index, (what, ..)) in group(&place.outside()).into_iter().enumerate() {
            // Each in a place of its own, whose path is part of some layers.
            let place = Place::new();
            let (_, tar, comes) = group(&place.outside()).swap_remove(index);
            let result = place.unpack(&tar.end()).map_err(|error| crate::hostile::words(&error));
            let is_right = match (&comes, &result) {
                (Inside, _) => true,
                (Refused(part), Err(text)) => text.contains(part),
                (Unpacked(check), Ok(())) => check(&place.root()),
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{what}: {result:?}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("{count} layers");
    assert!(count >= 60, "{count}");
}

#[test]
fn a_sparse_file_as_gnu_tar_writes_it_is_read_in_each_of_its_formats() {
    let source = tempfile::tempdir().unwrap();
    let file = fs::File::create(source.path().join("x")).unwrap();
    // More parts than one header of the old format has room for.
    for part in 0..40_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[part as u8 + 1; 4096], part * (1 << 20))
            .unwrap();
    }
    file.set_len(50 << 20).unwrap();
    let expected = fs::read(source.path().join("x")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let mut made = std::process::Command::new("tar");
        made.args(format).args(["-S", "-cf", "-", "x"]);
        let layer = made.current_dir(source.path()).output().unwrap().stdout;
        assert!(layer.len() < 1 << 20, "{format:?} is not sparse");
        let place = Place::new();
        place
            .unpack(&layer)
            .unwrap_or_else(|e| panic!("{format:?}: {}", crate::hostile::words(&e)));
        assert!(fs::read(place.root().join("x")).unwrap() == expected, "{format:?}");
        assert!(fs::metadata(place.root().join("x")).unwrap().blocks() * 512 < 1 << 20);
    }
}
