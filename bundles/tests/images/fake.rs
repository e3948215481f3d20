//! A server that says what a test wants, on loopback, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bundles::image::Reference;
use bundles::image::digest::Digest;

use crate::make::TestImage;

/// What it is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// From which byte on it wants something.
    pub fn from(&self) -> usize {
        let range = self.header("range").strip_prefix("bytes=").unwrap_or("0-");
        range.trim_end_matches('-').parse().unwrap()
    }
}

/// What it says.
#[derive(Clone, Debug, Default)]
pub struct Says {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// After how many bytes of the body the connection breaks.
    pub breaks_after: Option<usize>,
    /// The body has no length before it.
    pub unsized_body: bool,
}

impl Says {
    pub fn ok(body: impl Into<Vec<u8>>) -> Says {
        Says { status: 200, body: body.into(), ..Says::default() }
    }

    pub fn status(status: u16) -> Says {
        Says { status, ..Says::default() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Says {
        self.headers.push((name, value.into()));
        self
    }

    pub fn breaks_after(mut self, bytes: usize) -> Says {
        self.breaks_after = Some(bytes);
        self
    }
}

type Handler = Box<dyn Fn(&Asked) -> Says + Send + Sync>;

/// The server. Its thread ends with the process.
pub struct Fake {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    most_at_once: Arc<AtomicUsize>,
}

impl Fake {
    pub fn start(handler: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let most_at_once = Arc::new(AtomicUsize::new(0));
        let (log, most) = (Arc::clone(&asked), Arc::clone(&most_at_once));
        let handler: Arc<Handler> = Arc::new(Box::new(handler));
        std::thread::spawn(move || {
            let now = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let (log, most, now) = (Arc::clone(&log), Arc::clone(&most), Arc::clone(&now));
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Clients hang up when they like.
                    let _ = serve(stream.unwrap(), &log, &**handler);
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Fake { port, asked, most_at_once }
    }

    /// A registry without login that has `image` as any tag of any repository; `change` may say
    /// something else about a path.
    pub fn registry(
        image: &TestImage,
        change: impl Fn(&Asked, Says) -> Says + Send + Sync + 'static,
    ) -> Fake {
        let (manifest, blobs) = image.oci(true);
        Fake::start(move |asked| change(asked, serve_image(asked, &manifest, &blobs)))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many connections there were at most at the same time.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.name())).unwrap()
    }
}

fn serve_image(asked: &Asked, manifest: &[u8], blobs: &BTreeMap<String, Vec<u8>>) -> Says {
    let last = asked.path.rsplit('/').next().unwrap();
    if asked.path.contains("/manifests/") {
        let is_ours = !last.contains(':') || last == Digest::of(manifest).as_str();
        return if is_ours { Says::ok(manifest) } else { Says::status(404) };
    }
    let Some(blob) = blobs.get(last) else { return Says::status(404) };
    let from = asked.from();
    if from == 0 {
        return Says::ok(blob.clone());
    }
    let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
    Says { status: 206, ..Says::ok(&blob[from..]) }.header("Content-Range", range)
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    handler: &(dyn Fn(&Asked) -> Says + Send + Sync),
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().into(),
        path: words.next().unwrap_or_default().into(),
        ..Asked::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        asked.headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = asked.header("content-length").parse().unwrap_or(0);
    reader.by_ref().take(length).read_to_string(&mut asked.body)?;
    log.lock().unwrap().push(asked.clone());
    let says = handler(&asked);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", says.status);
    if !says.unsized_body {
        head += &format!("Content-Length: {}\r\n", says.body.len());
    }
    for (name, value) in &says.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut out = &stream;
    out.write_all(format!("{head}\r\n").as_bytes())?;
    out.write_all(&says.body[..says.breaks_after.unwrap_or(says.body.len())])
}
