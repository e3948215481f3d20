//! A real registry: Debian's `docker-registry`, started on a free port of loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bundles::image::Reference;
use bundles::image::digest::Digest;

use crate::make::{MANIFEST, TestImage};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// A registry of its own process, which ends with the value.
pub struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    pub port: u16,
    /// The value of the Authorization header that it wants.
    login: String,
    /// Where its passwords are.
    _passwords: Option<tempfile::TempDir>,
}

impl Registry {
    /// One that everybody may use.
    pub fn start() -> Registry {
        Registry::start_with("", "")
    }

    /// One that wants user `u` with the password `p:w`.
    pub fn with_password() -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("htpasswd");
        let made = Command::new("htpasswd").args(["-Bbn", "u", "p:w"]).output();
        fs::write(&file, made.expect("install the Debian package apache2-utils").stdout).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", file.display());
        let mut registry = Registry::start_with(&auth, "");
        registry._passwords = Some(dir);
        registry.login = "Authorization: Basic dTpwOnc=\r\n".into();
        registry
    }

    /// One that speaks TLS with the given certificate and key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Registry {
        let tls =
            format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
        Registry::start_with("", &tls)
    }

    fn start_with(auth: &str, tls: &str) -> Registry {
        assert!(Path::new(PROGRAM).exists(), "install the Debian package docker-registry");
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}{tls}}}\n{auth}",
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
        let registry = Registry { child, dir, port, login: String::new(), _passwords: None };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.login,
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

    pub fn push_blob(&self, name: &str, blob: &[u8]) {
        let (status, location) =
            self.request("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202);
        let path = location.split_once("/v2/").unwrap().1;
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{path}{mark}digest={}", Digest::of(blob));
        assert_eq!(self.request("PUT", &path, "application/octet-stream", blob).0, 201);
    }

    pub fn push_manifest(&self, name: &str, tag: &str, kind: &str, manifest: &[u8]) {
        let path = format!("/v2/{name}/manifests/{tag}");
        assert_eq!(self.request("PUT", &path, kind, manifest).0, 201);
    }

    pub fn push(&self, name: &str, tag: &str, image: &TestImage) -> Vec<u8> {
        let (manifest, blobs) = image.oci(true);
        blobs.values().for_each(|blob| self.push_blob(name, blob));
        self.push_manifest(name, tag, MANIFEST, &manifest);
        manifest
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }

    /// The file in which the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
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
