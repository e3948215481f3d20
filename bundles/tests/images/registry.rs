//! Pulls from a real registry: Debian's `docker-registry`, started on a free port of loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bundles::image::digest::Digest;
use bundles::image::registry::{self, PullError};
use bundles::image::{Progress, Reference, Store};
use serde_json::json;

use crate::make::{INDEX, MANIFEST, Tar, TestImage, architecture, descriptor};

const PROGRAM: &str = "/usr/bin/docker-registry";

struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Registry {
    fn start() -> Registry {
        assert!(Path::new(PROGRAM).exists(), "install the Debian package docker-registry");
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}}}\n",
            dir.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, dir, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let location = answer
            .lines()
            .find_map(|l| l.strip_prefix("Location: "))
            .unwrap_or_default()
            .trim()
            .to_owned();
        (status, location)
    }

    fn push_blob(&self, name: &str, blob: &[u8]) {
        let (status, location) =
            self.request("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202);
        let path = location.split_once("/v2/").unwrap().1;
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{path}{mark}digest={}", Digest::of(blob));
        assert_eq!(self.request("PUT", &path, "application/octet-stream", blob).0, 201);
    }

    fn push_manifest(&self, name: &str, tag: &str, kind: &str, manifest: &[u8]) {
        let path = format!("/v2/{name}/manifests/{tag}");
        assert_eq!(self.request("PUT", &path, kind, manifest).0, 201);
    }

    fn push(&self, name: &str, tag: &str, image: &TestImage) -> Vec<u8> {
        let (manifest, blobs) = image.oci(true);
        blobs.values().for_each(|blob| self.push_blob(name, blob));
        self.push_manifest(name, tag, MANIFEST, &manifest);
        manifest
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }

    /// The file in which the registry keeps a blob.
    fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn pull(store: &Store, reference: &Reference) -> (Result<bundles::image::Image, PullError>, usize) {
    let mut layers = 0;
    let result = registry::pull(store, reference, &mut |step| {
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
