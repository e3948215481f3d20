//! A service manager's side of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where services say how they are.
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl NotifySocket {
    /// One of its own.
    #[expect(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> NotifySocket {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        NotifySocket { socket, path, _dir: dir }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message: its lines, but for times.
    pub fn hear(&self) -> String {
        let mut buffer = [0; 256];
        let n = self.socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with("MONOTONIC_USEC="));
        lines.collect::<Vec<_>>().join(" ")
    }
}
