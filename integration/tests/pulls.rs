//! Pulls that are killed: the image is here whole or not at all, and nothing of the attempt stays.
//!
//! The registry is Debian's `docker-registry` on loopback. Between it and podshim stands a proxy that
//! stops handing on at a byte, so that a kill hits the moment that it is meant for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration::{Instance, PATIENCE, image};
use serde_json::{Value, json};

const PROGRAM: &str = "/usr/bin/docker-registry";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The size of the large file.
const BIG: usize = 8 << 20;
const TICK: Duration = Duration::from_millis(5);

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
        let data = dir.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: 127.0.0.1:{port}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n",
            data.display()
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
        until("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }

    /// Status and `Location` of the answer.
    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        (status, location.unwrap_or_default().trim().to_owned())
    }

    /// Pushes a file and gives its descriptor.
    fn push_blob(&self, kind: &str, file: &Path) -> Value {
        let blob = fs::read(file).unwrap();
        let digest = format!("sha256:{}", sha256(file));
        let (status, location) = self.request("POST", "/v2/big/blobs/uploads/", "", b"");
        assert_eq!(status, 202);
        let path = format!("/v2/{}&digest={digest}", location.split_once("/v2/").unwrap().1);
        assert_eq!(self.request("PUT", &path, "application/octet-stream", &blob).0, 201);
        json!({"mediaType": kind, "digest": digest, "size": blob.len()})
    }

    /// Pushes `big:1`: the test image, and on it a layer with `/big`, whose checksum this is.
    fn push_big(&self) -> String {
        let work = self.dir.path().join("work");
        let big = work.join("layer/big");
        fs::create_dir_all(big.parent().unwrap()).unwrap();
        // It cannot be compressed.
        let mut noise = vec![0; BIG];
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
        fs::write(&big, noise).unwrap();
        tar(&["-xf".as_ref(), image().as_ref(), "-C".as_ref(), work.as_ref()]);
        let layer = work.join("big.tar");
        let folder = big.parent().unwrap();
        tar(&["-cf".as_ref(), layer.as_ref(), "-C".as_ref(), folder.as_ref(), "big".as_ref()]);

        let archive: Value = read_json(&work.join("manifest.json"));
        let of_archive = |name: &Value| work.join(name.as_str().unwrap());
        let bases = archive[0]["Layers"].as_array().unwrap().iter().map(of_archive);
        let layers: Vec<Value> = bases
            .chain([layer])
            .map(|file| self.push_blob("application/vnd.oci.image.layer.v1.tar", &file))
            .collect();
        let mut config = read_json(&of_archive(&archive[0]["Config"]));
        config["rootfs"]["diff_ids"] = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let file = work.join("config");
        fs::write(&file, config.to_string()).unwrap();
        let config = self.push_blob("application/vnd.oci.image.config.v1+json", &file);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": layers});
        let body = manifest.to_string();
        let (status, _) = self.request("PUT", "/v2/big/manifests/1", MANIFEST, body.as_bytes());
        assert_eq!(status, 201);
        sha256(&big)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn tar(args: &[&std::ffi::OsStr]) {
    assert!(Command::new("tar").args(args).status().unwrap().success());
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(TICK);
    }
}

/// Hands on to the registry, but of each connection's answers only so many bytes.
#[derive(Clone)]
struct Proxy {
    port: u16,
    allowed: Arc<AtomicU64>,
    /// Connections that wait for more to be allowed.
    waiting: Arc<AtomicU64>,
}

impl Proxy {
    fn start(registry: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy { port, allowed: Arc::default(), waiting: Arc::default() };
        let ours = proxy.clone();
        // It ends with the test's process, as the connections' threads do.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", registry)).unwrap();
                let (questions, answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || hand_on(questions, server, |_| {}));
                let proxy = ours.clone();
                std::thread::spawn(move || hand_on(answers, client, |total| proxy.admit(total)));
            }
        });
        proxy
    }

    /// Waits until so many bytes of a connection are allowed.
    fn admit(&self, total: u64) {
        if total <= self.allowed.load(Ordering::SeqCst) {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while total > self.allowed.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets everything through, and waits until those of killed clients are gone.
    fn open(&self) {
        self.allowed.store(u64::MAX, Ordering::SeqCst);
        until("nobody waits", || self.waiting.load(Ordering::SeqCst) == 0);
    }
}

/// Copies until one side has gone; `admit` may hold it up.
fn hand_on(mut from: TcpStream, mut to: TcpStream, admit: impl Fn(u64)) {
    let mut buffer = [0; 4096];
    let mut total = 0;
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        total += n as u64;
        admit(total);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

struct Pulls {
    podshim: Instance,
    proxy: Proxy,
    sum: String,
    _registry: Registry,
}

impl Pulls {
    fn new() -> Pulls {
        let podshim = Instance::new();
        let registry = Registry::start();
        let sum = registry.push_big();
        let proxy = Proxy::start(registry.port);
        // Only the image that is pulled is looked at.
        fs::remove_dir_all(podshim.root().join("images")).unwrap();
        Pulls { podshim, proxy, sum, _registry: registry }
    }

    fn name(&self) -> String {
        format!("localhost:{}/big:1", self.proxy.port)
    }

    fn begin(&self) -> Child {
        let mut command = self.podshim.command(&["pull", "--quiet", &self.name()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a pod of the image, which is not pulled, and gives what it said.
    fn run(&self) -> (i32, String) {
        let said = self.podshim.run(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: Never\n  \
             activeDeadlineSeconds: {}\n  containers:\n  - name: main\n    image: {}\n    \
             command: [sha256sum, /big]\n",
            if self.is_here() { 60 } else { 1 },
            self.name()
        ));
        (said.code, said.out + &said.err)
    }

    fn store(&self, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.podshim.root().join("images").join(part));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// Whether the store has this name for it; it comes last, after the name with the digest.
    fn is_here(&self) -> bool {
        let said = self.podshim.podshim(&["images", "-o", "json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let images: Value = serde_json::from_str(&said.out).unwrap();
        images.as_array().unwrap().iter().any(|image| image["name"] == self.name())
    }

    fn is_not_here(&self, when: &str) {
        let (code, text) = self.run();
        assert_ne!(code, 0, "{when}: {text}");
        assert!(text.contains("is not present with pull policy of Never"), "{when}: {text}");
        assert!(!text.contains(&self.sum), "{when}: {text}");
    }

    fn is_whole(&self, when: &str) {
        let (code, text) = self.run();
        assert_eq!(code, 0, "{when}: {text}");
        assert!(text.contains(&self.sum), "{when}: {text}");
    }

    /// The next pull succeeds, with nothing left of those before it.
    fn is_pulled_after_all(&self, when: &str) {
        self.proxy.open();
        let said = self.podshim.podshim(&["pull", &self.name()]);
        assert_eq!(said.code, 0, "{when}: {}", said.err);
        assert_eq!(self.store("tmp"), [] as [PathBuf; 0], "{when}");
    }

    /// As if there had been none.
    fn forget(&self) {
        fs::remove_dir_all(self.podshim.root().join("images")).unwrap();
    }
}

#[test]
fn a_pull_that_is_killed_in_mid_layer_leaves_no_half_image() {
    let pulls = Pulls::new();
    // The layers follow the documents, and the large one is more than all before it.
    let big = BIG as u64;
    for (when, allowed) in [
        ("before the manifest", 0),
        ("in the documents", 1_000),
        ("in the first layer", big / 16),
        ("in the large layer", big / 2 + big / 8),
        ("near the end of the large layer", big - big / 16),
    ] {
        pulls.proxy.allowed.store(allowed, Ordering::SeqCst);
        let mut pull = pulls.begin();
        until(when, || pulls.proxy.waiting.load(Ordering::SeqCst) > 0);
        // A layer that is whole is in its place already.
        let of = |part| pulls.store(part).iter().map(|path| size(path)).sum::<u64>();
        let unpacked = || of("tmp") + of("layers");
        if allowed > big / 4 {
            // What was let through arrives on the disk.
            until(when, || unpacked() > allowed / 4);
        }
        pull.kill().unwrap();
        pull.wait().unwrap();
        pulls.is_not_here(when);
        pulls.is_pulled_after_all(when);
        pulls.is_whole(when);
        pulls.forget();
    }
}

/// The bytes of all files in a tree.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::symlink_metadata(path).map_or(0, |file| file.len());
    };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}

#[test]
fn at_whatever_moment_a_pull_is_killed_the_image_is_here_whole_or_not_at_all() {
    let pulls = Pulls::new();
    pulls.proxy.open();
    let begun = Instant::now();
    assert!(pulls.begin().wait().unwrap().success());
    let whole = begun.elapsed();
    for step in 1..=6 {
        pulls.forget();
        let mut pull = pulls.begin();
        std::thread::sleep(whole * step / 6);
        pull.kill().unwrap();
        pull.wait().unwrap();
        let when = format!("after {step} sixths of {whole:?}");
        if pulls.is_here() {
            pulls.is_whole(&when)
        } else {
            pulls.is_not_here(&when)
        }
        pulls.is_pulled_after_all(&when);
    }
    pulls.is_whole("in the end");
}
