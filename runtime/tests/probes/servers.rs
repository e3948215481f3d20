//! Servers that say what they are told to, and remember what they were asked.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// What a server says to one connection, once it has seen an empty line.
#[derive(Clone, Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub then: Then,
}

#[derive(Clone, Copy, Debug)]
pub enum Then {
    Close,
    /// Says nothing more until the client goes.
    Hold,
    /// Ends the connection with RST.
    Reset,
    /// The same again and again, as fast as it goes.
    Repeat,
    /// One of these bytes after the other, slowly, again and again.
    Dribble,
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self { bytes: text.into(), then: Then::Close }
    }
}

pub fn then(bytes: impl AsRef<[u8]>, then: Then) -> Answer {
    Answer { bytes: bytes.as_ref().to_vec(), then }
}

/// A server whose connections get these answers, the last one for ever.
pub fn serve(answers: Vec<Answer>) -> (u16, Receiver<String>) {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), answers)
}

pub fn serve_on(listener: TcpListener, answers: Vec<Answer>) -> (u16, Receiver<String>) {
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = channel();
    thread::spawn(move || {
        for n in 0.. {
            let Ok((stream, _)) = listener.accept() else { return };
            let answer = answers[n.min(answers.len() - 1)].clone();
            let seen = seen.clone();
            thread::spawn(move || converse(stream, &answer, &seen));
        }
    });
    (port, requests)
}

/// A client that goes is no failure of the server.
fn converse(mut stream: TcpStream, answer: &Answer, seen: &Sender<String>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let _ = seen.send(String::from_utf8_lossy(&request).into_owned());
    if let Then::Dribble = answer.then {
        for byte in answer.bytes.iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    while stream.write_all(&answer.bytes).is_ok() && matches!(answer.then, Then::Repeat) {}
    match answer.then {
        Then::Hold => while stream.read(&mut byte).is_ok_and(|n| n == 1) {},
        Then::Reset => {
            let none = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(stream.as_fd(), none).unwrap();
        }
        _ => drain(stream),
    }
}

/// A socket that is closed with bytes unread sends RST. Reads them until the client closes, too.
fn drain(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
