//! What a layer can make us use: a process of its own loads each, and says how much memory it took.

use std::fs;
use std::process::Command;

use bundles::image::{Store, archive};
use serde_json::json;
use tar::EntryType;

use crate::hostile::words;
use crate::make::{Tar, TestImage, gzip, noise};

/// The most that a load may take, in KiB.
const MAX_KIB: u64 = 64 << 10;

const ARCHIVE: &str = "PODSHIM_TEST_ARCHIVE";

/// The child: loads what its environment names, and says how it went.
#[test]
fn in_a_child() {
    let Ok(path) = std::env::var(ARCHIVE) else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let result = archive::load(&store, fs::File::open(path).unwrap(), &mut |_| {});
    let said = result.map_or_else(|error| words(&error), |names| format!("loaded {}", names.len()));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    println!("\nSAID {said}\nPEAK {peak}");
}

/// Loads `archive` in a child; what it said, and its peak in KiB.
fn load(archive: &[u8]) -> (String, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive");
    fs::write(&path, archive).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["memory::in_a_child", "--exact", "--nocapture"]).env(ARCHIVE, path);
    let output = String::from_utf8_lossy(&child.output().unwrap().stdout).into_owned();
    let line = |start: &str| {
        let found = output.lines().find_map(|l| l.strip_prefix(start));
        found.unwrap_or_else(|| panic!("no {start} in {output}")).to_owned()
    };
    (line("SAID "), line("PEAK ").trim_end_matches(" kB").parse().unwrap())
}

/// An archive as docker saves it, of these blobs as layers.
fn archive_of(config: &[u8], blobs: &[Vec<u8>]) -> Vec<u8> {
    let names: Vec<String> = (0..blobs.len()).map(|i| format!("{i}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": names}]);
    let mut tar = Tar::new().bytes("config.json", config);
    tar = tar.bytes("manifest.json", manifest.to_string().as_bytes());
    for (name, blob) in names.iter().zip(blobs) {
        tar = tar.bytes(name, blob);
    }
    tar.end()
}

/// An archive of one image whose layers are compressed by `compress`.
fn image(layers: Vec<Vec<u8>>, compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let image = TestImage::new(layers);
    let blobs: Vec<Vec<u8>> = image.layers.iter().map(|layer| compress(layer)).collect();
    archive_of(&image.config, &blobs)
}

fn assert_bounded(what: &str, archive: &[u8], expected: &str) {
    let (said, peak) = load(archive);
    assert!(said.contains(expected), "{what}: {said}");
    assert!(peak <= MAX_KIB, "{what}: {peak} KiB");
    eprintln!("{what}: {peak} KiB, {said}");
}

fn zeros(count: usize) -> Vec<u8> {
    let mut layer = Tar::new().file("x", "y").end();
    layer.resize(layer.len() + count, 0);
    layer
}

#[test]
fn a_bomb_of_zeros_takes_no_memory_whoever_compressed_it() {
    let layer = zeros(48 << 20);
    assert_bounded("gzip 1:1000", &image(vec![layer.clone()], gzip), "loaded 1");
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
    assert_bounded("zstd 1:10000", &image(vec![layer], zstd), "loaded 1");
}

#[test]
fn a_zstd_stream_with_the_largest_window_is_refused_and_one_of_builders_is_not() {
    let with_window = |log: u32| {
        move |bytes: &[u8]| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
    };
    let layer = Tar::new().bytes("x", &noise(40 << 20)).end();
    assert_bounded("zstd, 32 MiB", &image(vec![layer.clone()], with_window(25)), "loaded 1");
    // The frame's header says 2 GiB: its descriptor has the exponent 21 above 2^10.
    let mut blob = with_window(25)(&layer);
    assert_eq!(blob[5] >> 3, 15);
    blob[5] = 21 << 3;
    let config = TestImage::new(vec![layer]).config;
    assert_bounded("zstd, 2 GiB", &archive_of(&config, &[blob]), "too much memory");
}

#[test]
fn many_entries_headers_attributes_members_and_layers_take_no_memory() {
    let t = Tar::new;
    let links = (0..60_000).fold(t(), |t, i| t.symlink(&format!("{i}"), "x"));
    assert_bounded("60,000 entries", &image(vec![links.end()], gzip), "loaded 1");
    let deep = t().file(&("d/".repeat(2000) + "x"), "y");
    assert_bounded("2,000 directories deep", &image(vec![deep.end()], gzip), "loaded 1");
    let comment = vec![b'c'; 1 << 19];
    let headers =
        (0..100).fold(t(), |t, i| t.pax(&[("comment", &comment)]).file(&format!("{i}"), ""));
    assert_bounded("headers of 512 KiB", &image(vec![headers.end()], gzip), "loaded 1");
    let value = vec![b'v'; 60 << 10];
    let named: Vec<String> = (0..16).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let records: Vec<(&str, &[u8])> = named.iter().map(|n| (n.as_str(), &value[..])).collect();
    let attributes = t().pax(&records).file("x", "");
    // ext4 has no room for them, other file systems do.
    assert_bounded("attributes of 960 KiB", &image(vec![attributes.end()], gzip), "");
    let members = |bytes: &[u8]| bytes.chunks(700).flat_map(gzip).collect();
    assert_bounded("20,000 gzip members", &image(vec![zeros(14 << 20)], members), "loaded 1");
    let layers = (0..127).map(|i| t().file(&format!("{i}"), "").end()).collect();
    assert_bounded("127 layers", &image(layers, gzip), "loaded 1");
}

#[test]
fn documents_and_maps_of_any_size_take_no_memory() {
    let nested = Tar::new().bytes("manifest.json", "[".repeat(4 << 20).as_bytes()).end();
    assert_bounded("a manifest nested 4 million deep", &nested, "manifest.json");
    let long = Tar::new().bytes("manifest.json", &vec![b' '; 5 << 20]).end();
    assert_bounded("a manifest of 5 MiB", &long, "more than 4194304 bytes");
    let parts: Vec<String> = (0..40_000).map(|i| format!("{},1", i * 4096)).collect();
    let (map, content) = (parts.join(","), vec![b'x'; 40_000]);
    let records: [(&str, &[u8]); 2] =
        [("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"200000000")];
    let sparse = Tar::new().pax(&records).entry(EntryType::Regular, "x", &content, |_| {});
    assert_bounded("40,000 parts", &image(vec![sparse.end()], gzip), "loaded 1");
}

#[test]
fn what_stands_behind_the_end_of_a_layer_counts_for_its_digest() {
    let mut layer = Tar::new().file("x", "y").end();
    let short = TestImage::new(vec![layer.clone()]).config;
    layer.extend(Tar::new().file("smuggled", "z").end());
    let (said, _) = load(&archive_of(&short, &[gzip(&layer)]));
    assert!(said.contains("but the image's config says"), "{said}");
    let whole = TestImage::new(vec![layer.clone()]).config;
    let (said, _) = load(&archive_of(&whole, &[gzip(&layer)]));
    assert_eq!(said, "loaded 1");
}
