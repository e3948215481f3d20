//! Makes layers, images and archives: exactly the bytes that a test wants, honest or not.

use std::collections::BTreeMap;
use std::io::Write as _;

use bundles::image::digest::Digest;
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// A tar stream in the making.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// An entry whose header `change` may spoil before its checksum is made.
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Tar {
        if path.len() > 100 {
            let long = EntryType::GNULongName;
            self = self.entry_with(long, "././@LongLink", path.as_bytes(), &mut |_| {});
        }
        let mut change = Some(change);
        self.entry_with(kind, path, content, &mut |header| {
            if let Some(change) = change.take() {
                change(header);
            }
        })
    }

    fn entry_with(
        mut self,
        kind: EntryType,
        path: &str,
        content: &[u8],
        change: &mut dyn FnMut(&mut Header),
    ) -> Tar {
        let mut header = Header::new_gnu();
        let name = &path.as_bytes()[..path.len().min(100)];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &str) -> Tar {
        self.entry(EntryType::Regular, path, content.as_bytes(), |_| {})
    }

    pub fn bytes(self, path: &str, content: &[u8]) -> Tar {
        self.entry(EntryType::Regular, path, content, |_| {})
    }

    pub fn directory(self, path: &str, mode: u32) -> Tar {
        self.entry(EntryType::Directory, path, b"", |h| h.set_mode(mode))
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, path, target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Link, path, target)
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Tar {
        self.entry(kind, path, b"", |h| {
            h.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut content = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let digits = |n: usize| n.to_string().len();
            let mut length = body + digits(body);
            length = body + digits(length);
            content.extend(format!("{length} {key}=").bytes());
            content.extend(*value);
            content.push(b'\n');
        }
        self.entry(EntryType::XHeader, "PaxHeaders/x", &content, |_| {})
    }

    /// The stream with its end marker.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Bytes that no compression makes fewer, the same each time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(count);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: layers as plain tar streams, lowest first, and a config that names them.
pub struct TestImage {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
}

impl TestImage {
    pub fn new(layers: Vec<Vec<u8>>) -> TestImage {
        let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "Env": ["A=b"], "User": "1000"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        TestImage { layers, config: config.to_string().into_bytes() }
    }

    /// A small one with two layers, the second of which changes something of the first.
    pub fn small() -> TestImage {
        let lower = Tar::new().directory("etc/", 0o755).file("etc/name", "lower").end();
        let upper = Tar::new().file("etc/name", "upper").file("etc/.wh.gone", "").end();
        TestImage::new(vec![lower, upper])
    }

    /// Manifest and blobs by digest, layers compressed with gzip if `gzipped`.
    pub fn oci(&self, gzipped: bool) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
        match gzipped {
            true => self.with("application/vnd.oci.image.layer.v1.tar+gzip", gzip),
            false => self.with("application/vnd.oci.image.layer.v1.tar", <[u8]>::to_vec),
        }
    }

    /// The same with layers compressed with zstd.
    pub fn zstd(&self) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
        let compress = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        self.with("application/vnd.oci.image.layer.v1.tar+zstd", compress)
    }

    fn with(
        &self,
        layer_type: &str,
        compress: impl Fn(&[u8]) -> Vec<u8>,
    ) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
        let mut blobs = BTreeMap::new();
        let mut add = |media_type: &str, bytes: Vec<u8>| {
            let descriptor = descriptor(media_type, &bytes);
            blobs.insert(Digest::of(&bytes).to_string(), bytes);
            descriptor
        };
        let config = add("application/vnd.oci.image.config.v1+json", self.config.clone());
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| add(layer_type, compress(layer))).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        (manifest.to_string().into_bytes(), blobs)
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// Go's name of this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
