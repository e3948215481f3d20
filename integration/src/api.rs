//! A daemon of the test's own, and requests to it as they come over the wire.

use std::io::{BufRead, BufReader, Read, Take, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Instance, PATIENCE, Running, until};

/// `podshim daemon` in the background.
pub struct Daemon<'a> {
    running: Running<'a>,
    socket: PathBuf,
}

impl Instance {
    /// Where this instance's daemon listens.
    pub fn daemon_socket(&self) -> PathBuf {
        PathBuf::from(format!("{}.sock", self.state().display()))
    }

    /// Starts a daemon and waits until it serves.
    pub fn daemon(&self) -> Daemon<'_> {
        let running = self.start_daemon(&self.root());
        let daemon = Daemon { running, socket: self.daemon_socket() };
        daemon.until_serving();
        daemon
    }

    /// Applies a manifest, and gives back what was said of it.
    pub fn apply(&self, manifest: &str) -> String {
        let said = self.podshim(&["apply", "-f", &self.manifest(manifest)]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    }

    /// Starts a daemon with another `--root`.
    pub fn start_daemon(&self, root: &Path) -> Running<'_> {
        let mut command = self.command(&["daemon"]);
        command.env("PODSHIM_ROOT", root);
        self.start_command(command)
    }

    /// Ends the daemon and removes all that it kept.
    pub fn end_daemon(&self, daemon: Daemon<'_>) {
        let (code, text) = daemon.end();
        assert_eq!(code, 0, "{text}");
        let said = self.podshim(&["prune", "--all"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(!self.daemon_socket().exists());
        self.nothing_is_left();
    }
}

impl Daemon<'_> {
    fn until_serving(&self) {
        until("the daemon serves", || match try_request(&self.socket, "GET", "/readyz", "") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}: {}", self.running.text())),
        });
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// All that it has said so far.
    pub fn text(&self) -> String {
        self.running.text()
    }

    /// TERM, and what it exits with and has said.
    pub fn end(self) -> (i32, String) {
        self.running.signal(Signal::SIGTERM);
        self.running.wait()
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.running.signal(Signal::SIGKILL);
        self.running.wait();
    }

    /// Waits until it has died by itself.
    pub fn wait(self) -> (i32, String) {
        self.running.wait()
    }

    /// One request: the code and the body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (code, text) = try_request(&self.socket, method, path, body).unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (code, value)
    }

    /// The lines of a watch, until it ends by its timeoutSeconds.
    pub fn watch(&self, path: &str) -> Vec<Value> {
        let (code, text) = try_request(&self.socket, "GET", path, "").unwrap();
        assert_eq!(code, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The lines of a watch, up to one that is waited for.
    pub fn watch_until(&self, path: &str, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (code, body) = try_begin(&self.socket, "GET", path, "").unwrap();
        assert_eq!(code, 200);
        let mut seen = Vec::new();
        for line in body.lines() {
            seen.push(serde_json::from_str(&line.unwrap()).unwrap());
            if seen.last().is_some_and(&is_last) {
                return seen;
            }
        }
        panic!("the watch ended: {seen:#?}");
    }
}

/// One request: the code and the body.
pub fn try_request(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let (code, mut answer) = try_begin(socket, method, path, body)?;
    let mut text = String::new();
    answer.read_to_string(&mut text)?;
    Ok((code, text))
}

/// The code and the body, as it comes. HTTP/1.0, so that the end of the answer is the end of the connection.
fn try_begin(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, Take<BufReader<UnixStream>>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n")?;
    // What is too long is not read to its end.
    let _ = stream.write_all(body.as_bytes());
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| std::io::Error::other(format!("no answer: {line:?}")))?;
    let mut length = None;
    while line != "\r\n" {
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok();
        }
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("half an answer"));
        }
    }
    // Behind its end may come that what we sent was not read to its end.
    Ok((code, reader.take(length.unwrap_or(u64::MAX))))
}
