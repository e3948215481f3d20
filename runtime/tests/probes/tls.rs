//! `httpGet` over TLS, with certificates that nobody should believe.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use runtime::probe::{Outcome, Purpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::servers::{Answer, Then, then};
use crate::{LONG, SHORT, failure, get, run, success, without_port};

/// A certificate of the oldest version, valid for no time, for another name, signed by itself.
fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    static PEM: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = PEM.get_or_init(|| {
        let temp = tempfile::tempdir().unwrap();
        let script = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x \
                      -keyout key.pem -out request.pem 2>&1 && openssl x509 -req -in request.pem \
                      -signkey key.pem -days 0 -out certificate.pem 2>&1";
        let made = Command::new("sh").args(["-c", script]).current_dir(&temp).output();
        let made = made.expect("a shell");
        let said = String::from_utf8_lossy(&made.stdout);
        assert!(made.status.success(), "install the Debian package openssl: {said}");
        let read = |name: &str| std::fs::read(temp.path().join(name)).unwrap();
        (read("certificate.pem"), read("key.pem"))
    });
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(key).unwrap())
}

fn config(protocols: &[&str]) -> Arc<ServerConfig> {
    let (chain, key) = identity();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // What takes a chain and a key refuses such a certificate.
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(chain, key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// An HTTPS server that answers `ok` and closes without a word of TLS. It remembers the name that it was
/// asked for and the request.
fn secure() -> (u16, Receiver<(Option<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, asked) = channel();
    let config = config(&["http/1.1"]);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let name = stream.conn.server_name().map(str::to_owned);
            let _ = seen.send((name, String::from_utf8_lossy(&request).into_owned()));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok");
            let _ = stream.flush();
        }
    });
    (port, asked)
}

#[test]
fn any_certificate_is_believed_and_the_url_s_name_is_asked_for() {
    let (port, asked) = secure();
    let mut check = get(port, "/");
    check.https = true;
    check.headers = vec![("Host".into(), "my.example".into())];
    assert_eq!(run(check.clone(), LONG), success("ok"));
    let (name, request) = asked.recv().unwrap();
    assert_eq!(name, None);
    assert!(request.starts_with("GET / HTTP/1.1\r\nHost: my.example\r\n"), "{request}");
    // As in Go, and so in a kubelet, the header changes the request only.
    check.host = "localhost".into();
    assert_eq!(run(check.clone(), LONG), success("ok"));
    assert_eq!(asked.recv().unwrap().0.as_deref(), Some("localhost"));
    check.purpose = Purpose::Hook;
    assert_eq!(run(check, LONG), success(""));
}

#[test]
fn a_server_that_chooses_http2_is_asked_in_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, asked) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(config(&["h2"]));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (code, location) = match request.uri().path() {
                        "/from" => (302, Some("/to")),
                        _ => (200, None),
                    };
                    let _ = seen.send(format!("{:?} {:?}", request.uri(), request.headers()));
                    let mut response = http::Response::builder().status(code);
                    if let Some(location) = location {
                        response = response.header("location", location);
                    }
                    let mut body =
                        respond.send_response(response.body(()).unwrap(), false).unwrap();
                    body.send_data("x".repeat(100_000).into(), true).unwrap();
                }
            }
        });
    });
    let mut check = get(port, "/from");
    check.https = true;
    check.headers = vec![("Connection".into(), "close".into()), ("X-A".into(), "1".into())];
    assert_eq!(run(check, LONG), success(&"x".repeat(10 << 10)));
    let fields = "\"user-agent\": \"kube-probe/1.37\", \"accept\": \"*/*\"";
    assert_eq!(
        asked.recv().unwrap(),
        format!("https://127.0.0.1:{port}/from {{{fields}, \"x-a\": \"1\"}}")
    );
    let referer = format!("\"referer\": \"https://127.0.0.1:{port}/from\"");
    assert_eq!(
        asked.recv().unwrap(),
        format!("https://127.0.0.1:{port}/to {{{fields}, {referer}, \"x-a\": \"1\"}}")
    );
}

fn https(answer: Answer, timeout: Option<std::time::Duration>) -> Outcome {
    // The client's first message has no empty line to wait for.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(&answer.bytes);
        if matches!(answer.then, Then::Close) {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let mut check = get(port, "/");
    check.https = true;
    without_port(run(check, timeout), port)
}

#[test]
fn what_is_not_tls_is_described_as_by_go() {
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let plain = "http: server gave HTTP response to HTTPS client";
    let close = |bytes: &[u8]| then(bytes, Then::Close);
    for (answer, timeout, why) in [
        (close(b"HTTP/1.1 400 Bad Request\r\n\r\n"), LONG, plain),
        (close(b"HTTP/"), LONG, plain),
        (then("HTTP/1", Then::Hold), LONG, plain),
        (close(b"HTT"), LONG, "unexpected EOF"),
        (close(b""), LONG, "EOF"),
        (close(b"garbage\r\n"), LONG, "tls: first record does not look like a TLS handshake"),
        (close(b"\x15\x03\x03\x00\x02\x02\x28"), LONG, "remote error: tls: handshake failure"),
        (
            close(b"\x15\x03\x03\x00\x02\x02\x78"),
            LONG,
            "remote error: tls: no application protocol",
        ),
        (then("", Then::Hold), SHORT, late),
        (then(b"\x16\x03\x03\x40\x00", Then::Hold), SHORT, late),
    ] {
        let text = format!("Get \"https://127.0.0.1:PORT/\": {why}");
        assert_eq!(https(answer.clone(), timeout), failure(&text), "{answer:?}");
    }
}

/// A server that answers whatever comes with these bytes and closes. It remembers what came.
fn answering(bytes: &'static [u8]) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap_or_default();
            let _ = seen.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
            let _ = stream.write_all(bytes);
        }
    });
    (port, requests)
}

#[test]
fn a_hook_goes_on_without_tls_where_there_is_none() {
    let (port, requests) = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let mut check = get(port, "/stop");
    check.https = true;
    check.headers = vec![("Authorization".into(), "s".into()), ("X-A".into(), "1".into())];
    let plain = "http: server gave HTTP response to HTTPS client";
    let text = format!("Get \"https://127.0.0.1:{port}/stop\": {plain}");
    assert_eq!(run(check.clone(), LONG), failure(&text));
    assert_eq!(requests.try_iter().count(), 1);
    check.purpose = Purpose::Hook;
    let output = format!(
        "request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
    );
    assert_eq!(run(check, None), Outcome::Warning { output });
    let seen: Vec<String> = requests.try_iter().collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(
        seen[1],
        format!(
            "GET /stop HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: kube-lifecycle/1.37\r\n\
             Accept: */*\r\nX-A: 1\r\nConnection: close\r\n\r\n"
        )
    );
}

#[test]
fn a_hook_is_not_repeated_in_the_open_for_another_reason() {
    for (bytes, why) in [
        (&b"garbage\r\n"[..], "tls: first record does not look like a TLS handshake"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "remote error: tls: handshake failure"),
        (b"", "EOF"),
    ] {
        let (port, requests) = answering(bytes);
        let mut check = get(port, "/");
        (check.https, check.purpose) = (true, Purpose::Hook);
        let text = format!("Get \"https://127.0.0.1:{port}/\": {why}");
        assert_eq!(run(check, LONG), failure(&text));
        assert_eq!(requests.try_iter().count(), 1, "{why}");
    }
}
