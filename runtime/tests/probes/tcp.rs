//! `tcpSocket`.

use std::net::TcpListener;

use runtime::probe::{Check, Outcome, attempt};

use crate::{CLOSED, LONG, failure, success};

fn dial(host: &str, port: u16) -> Outcome {
    attempt(&Check::Tcp { host: host.into(), port }, LONG)
}

#[test]
fn a_connection_that_opens_is_a_success() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(dial("127.0.0.1", port), success(""));
    assert_eq!(dial("::ffff:127.0.0.1", port), success(""));
    assert_eq!(dial("localhost", port), success(""));
    let six = TcpListener::bind("[::1]:0").unwrap();
    assert_eq!(dial("::1", six.local_addr().unwrap().port()), success(""));
}

#[test]
fn why_it_does_not_open_is_said_as_a_kubelet_says_it() {
    for (host, text) in [
        ("127.0.0.1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("::1", "dial tcp [::1]:1: connect: connection refused"),
        ("::ffff:127.0.0.1", "dial tcp 127.0.0.1:1: connect: connection refused"),
    ] {
        assert_eq!(dial(host, CLOSED), failure(text));
    }
    // Not known here, or nobody can be asked: what it says depends on the machine.
    let Outcome::Failure { output } = dial("nosuch.invalid", CLOSED) else { panic!("it exists") };
    assert!(output.starts_with("dial tcp: lookup nosuch.invalid: "), "{output}");
}

#[test]
fn what_does_not_answer_is_a_timeout() {
    // A queue of connections that nobody takes: the kernel drops what comes when it is full.
    let (listener, mut waiting) = (full_listener(), Vec::new());
    let address = listener.local_addr().unwrap();
    let soon = std::time::Duration::from_millis(100);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, soon) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue does not fill");
    }
    let check = Check::Tcp { host: "127.0.0.1".into(), port: address.port() };
    let text = format!("dial tcp {address}: i/o timeout");
    assert_eq!(attempt(&check, crate::SHORT), failure(&text));
    let output = format!(
        "Get \"http://{address}/\": context deadline exceeded \
         (Client.Timeout exceeded while awaiting headers)"
    );
    assert_eq!(crate::run(crate::get(address.port(), "/"), crate::SHORT), failure(&output));
}

fn full_listener() -> TcpListener {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()).unwrap();
    listen(&socket, 0).unwrap();
    socket.into()
}
