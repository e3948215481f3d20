//! `grpc`: servers of the health protocol, servers of something else, and servers that break.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use h2::Reason;
use runtime::probe::{Check, Outcome, attempt};

use crate::servers::{Then, serve, then};
use crate::{CLOSED, LONG, SHORT, failure, side_by_side, success};

/// What a server says to a call.
#[derive(Clone, Debug, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    data: Option<Vec<u8>>,
    trailers: Option<Vec<(&'static str, &'static str)>>,
    /// Instead of the end of the stream.
    reset: Option<Reason>,
    /// Instead of all of it: nothing, for ever; the end of the connection.
    silent: bool,
    leave: bool,
}

/// A server of HTTP/2. It remembers the calls.
fn serve_h2(reply: Reply) -> (u16, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, calls) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut held = Vec::new();
            while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                if reply.leave {
                    return;
                }
                let (seen, reply) = (seen.clone(), reply.clone());
                held.push(tokio::spawn(async move {
                    let mut body = Vec::new();
                    while let Some(Ok(data)) = request.body_mut().data().await {
                        body.extend_from_slice(&data);
                    }
                    let parts =
                        format!("{} {:?} {:?}", request.method(), request.uri(), request.headers());
                    let _ = seen.send((parts, body));
                    if reply.silent {
                        std::future::pending::<()>().await;
                    }
                    if let (Some(reason), None) = (reply.reset, &reply.data) {
                        respond.send_reset(reason);
                        return;
                    }
                    let mut response = http::Response::builder().status(reply.status);
                    for (name, value) in &reply.headers {
                        response = response.header(*name, *value);
                    }
                    let is_all = reply.data.is_none() && reply.trailers.is_none();
                    let response = response.body(()).unwrap();
                    let mut stream = respond.send_response(response, is_all).unwrap();
                    if let Some(data) = reply.data {
                        stream.send_data(data.into(), reply.trailers.is_none()).unwrap();
                    }
                    if let Some(trailers) = reply.trailers {
                        let mut map = http::HeaderMap::new();
                        for (name, value) in trailers {
                            map.append(name, value.parse().unwrap());
                        }
                        stream.send_trailers(map).unwrap();
                    }
                }));
            }
        });
    });
    (port, calls)
}

fn check(port: u16, service: &str, timeout: Option<Duration>) -> Outcome {
    let check = Check::Grpc { host: "127.0.0.1".into(), port, service: service.into() };
    attempt(&check, timeout)
}

fn asked(reply: Reply) -> Outcome {
    let (port, _calls) = serve_h2(reply);
    check(port, "", LONG)
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A message, with a status of 0 after it.
fn message(bytes: &[u8]) -> Reply {
    Reply {
        status: 200,
        headers: vec![GRPC],
        data: Some(bytes.to_vec()),
        trailers: Some(vec![("grpc-status", "0")]),
        ..Reply::default()
    }
}

/// Nothing but a header.
fn header(status: u16, headers: &[(&'static str, &'static str)]) -> Reply {
    Reply { status, headers: headers.to_vec(), ..Reply::default() }
}

fn rpc(code: &str, message: &str) -> Outcome {
    let text = format!("rpc error: code = {code} desc = {message}");
    failure(&format!("error: health rpc probe failed: {text}"))
}

#[test]
fn the_service_is_asked_for_its_health() {
    let (port, calls) = serve_h2(message(&[0, 0, 0, 0, 2, 8, 1]));
    assert_eq!(check(port, "my.Service", LONG), success("service healthy"));
    let (parts, body) = calls.recv().unwrap();
    assert_eq!(body, [&[0, 0, 0, 0, 12, 10, 10][..], b"my.Service"].concat());
    let begin = format!("POST http://127.0.0.1:{port}/grpc.health.v1.Health/Check ");
    assert!(parts.starts_with(&begin), "{parts}");
    for field in [
        "\"content-type\": \"application/grpc\"",
        "\"user-agent\": \"kube-probe/1.37\"",
        "\"te\": \"trailers\"",
        "\"grpc-timeout\": \"29",
    ] {
        assert!(parts.contains(field), "{parts}");
    }
    let (port, calls) = serve_h2(message(&[0, 0, 0, 0, 2, 8, 1]));
    let long = "x".repeat(300);
    assert_eq!(check(port, &long, LONG), success("service healthy"));
    let body = calls.recv().unwrap().1;
    assert_eq!(body, [&[0, 0, 0, 1, 47, 10, 0xac, 2][..], long.as_bytes()].concat());
    let (port, calls) = serve_h2(message(&[0, 0, 0, 0, 2, 8, 1]));
    assert_eq!(check(port, "", LONG), success("service healthy"));
    assert_eq!(calls.recv().unwrap().1, [0, 0, 0, 0, 0]);
}

#[test]
fn only_serving_is_healthy() {
    let unhealthy =
        |status: &str| failure(&format!("service unhealthy (responded with \"{status}\")"));
    let invalid = "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data";
    for (message, outcome) in [
        (&[8, 1][..], success("service healthy")),
        (&[8, 2], unhealthy("NOT_SERVING")),
        (&[8, 0], unhealthy("UNKNOWN")),
        (&[], unhealthy("UNKNOWN")),
        (&[8, 3], unhealthy("SERVICE_UNKNOWN")),
        (&[8, 7], unhealthy("7")),
        (&[8, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], unhealthy("-7")),
        // Fields of another kind and a repeated one.
        (
            &[0x12, 1, b'x', 8, 2, 0x1d, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1],
            success("service healthy"),
        ),
        (&[0x0a, 1, b'x'], unhealthy("UNKNOWN")),
        (&[0xff, 0xff], rpc("Internal", invalid)),
        (&[0x12, 9, b'x'], rpc("Internal", invalid)),
        (
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            rpc("Internal", invalid),
        ),
    ] {
        let mut bytes = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        bytes.extend_from_slice(message);
        assert_eq!(asked(self::message(&bytes)), outcome, "{message:?}");
    }
}

#[test]
fn a_call_that_fails_is_described_as_by_grpc() {
    let status = |code: &'static str, message: &'static str| {
        header(200, &[GRPC, ("grpc-status", code), ("grpc-message", message)])
    };
    let unimplemented =
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)";
    let got = "unexpected HTTP status code received from server";
    let missing = "malformed header: missing HTTP content-type";
    let none = "cardinality violation: received no response message from non-server-streaming RPC";
    let text = ("content-type", "text/plain; charset=utf-8");
    let html = Reply { data: Some(b"nope\n".to_vec()), ..header(404, &[text]) };
    for (reply, outcome) in [
        (status("5", "unknown service"), rpc("NotFound", "unknown service")),
        (status("5", "a%20b%zz%C3%BC"), rpc("NotFound", "a b%zz\u{fc}")),
        (status("17", "odd"), rpc("Code(17)", "odd")),
        (
            status("x", ""),
            rpc(
                "Unknown",
                "transport: malformed grpc-status: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
        ),
        (status("0", ""), rpc("Internal", none)),
        (header(200, &[GRPC]), rpc("Unknown", "")),
        (status("4", "mine"), failure("timeout: health rpc did not complete within 30s")),
        (
            status("12", "unknown service grpc.health.v1.Health"),
            failure(&format!("{unimplemented}: unknown service grpc.health.v1.Health")),
        ),
        (
            header(200, &[("content-type", "application/grpc+proto"), ("grpc-status", "12")]),
            failure(&format!("{unimplemented}: ")),
        ),
        (
            html,
            failure(&format!(
                "{unimplemented}: {got}: 404 (Not Found); transport: received unexpected content-type \
             \"text/plain; charset=utf-8\"\ndata: \"nope\\n\""
            )),
        ),
        (
            header(200, &[("content-type", "application/grpcx")]),
            rpc(
                "Unknown",
                &format!(
                    "{got}: 200 (OK); transport: received unexpected content-type \"application/grpcx\""
                ),
            ),
        ),
        (header(400, &[]), rpc("Internal", &format!("{got}: 400 (Bad Request); {missing}"))),
        (
            header(401, &[]),
            rpc("Unauthenticated", &format!("{got}: 401 (Unauthorized); {missing}")),
        ),
        (header(403, &[]), rpc("PermissionDenied", &format!("{got}: 403 (Forbidden); {missing}"))),
        (
            header(503, &[]),
            rpc("Unavailable", &format!("{got}: 503 (Service Unavailable); {missing}")),
        ),
        (
            header(500, &[]),
            rpc("Unknown", &format!("{got}: 500 (Internal Server Error); {missing}")),
        ),
        (header(999, &[]), rpc("Unknown", &format!("{got}: 999 (); {missing}"))),
    ] {
        assert_eq!(asked(reply.clone()), outcome, "{reply:?}");
    }
    let with = |trailers: Option<&[(&'static str, &'static str)]>| Reply {
        trailers: trailers.map(<[_]>::to_vec),
        ..message(&[0, 0, 0, 0, 2, 8, 1])
    };
    for (trailers, outcome) in [
        (None, rpc("Internal", "server closed the stream without sending trailers")),
        (Some(&[("x", "0")][..]), rpc("Unknown", "")),
        (Some(&[("grpc-status", "5")]), rpc("NotFound", "")),
    ] {
        assert_eq!(asked(with(trailers)), outcome, "{trailers:?}");
    }
    let more = "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message";
    for (bytes, why) in [
        (&[0, 0, 0, 0][..], "unexpected EOF"),
        (&[0, 0, 0, 0, 2, 8], "unexpected EOF"),
        (&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1], more),
        (&[1, 0, 0, 0, 2, 8, 1], "grpc: compressed flag set with identity or empty encoding"),
        (&[2, 0, 0, 0, 2, 8, 1], "grpc: received unexpected payload format 2"),
        (&[], none),
    ] {
        assert_eq!(asked(message(bytes)), rpc("Internal", why), "{bytes:?}");
    }
    let huge = message(&[0, 0xff, 0xff, 0xff, 0xff, 8, 1]);
    let why = "grpc: received message larger than max (4294967295 vs. 65536)";
    assert_eq!(asked(huge), rpc("ResourceExhausted", why));
}

#[test]
fn a_stream_or_connection_that_breaks_is_described() {
    for (reason, code) in [
        (Reason::PROTOCOL_ERROR, "Internal"),
        (Reason::REFUSED_STREAM, "Unavailable"),
        (Reason::CANCEL, "Canceled"),
        (Reason::ENHANCE_YOUR_CALM, "ResourceExhausted"),
    ] {
        let reply = Reply { reset: Some(reason), ..Reply::default() };
        let why = format!("stream terminated by RST_STREAM with error code: {reason:?}");
        assert_eq!(asked(reply), rpc(code, &why));
    }
    let Outcome::Failure { output } = asked(Reply { leave: true, ..Reply::default() }) else {
        panic!("no failure");
    };
    let begin = "error: health rpc probe failed: rpc error: code = Unavailable desc = error reading from server: ";
    assert!(output.starts_with(begin), "{output}");
}

#[test]
fn what_cannot_be_reached_or_is_no_grpc_is_tried_until_the_timeout() {
    let text = |address: &str| {
        let what = format!("timeout: failed to connect service \"{address}\" within 1s");
        failure(&format!("{what}: context deadline exceeded"))
    };
    assert_eq!(check(CLOSED, "", SHORT), text("127.0.0.1:1"));
    let six = Check::Grpc { host: "::1".into(), port: CLOSED, service: String::new() };
    assert_eq!(attempt(&six, SHORT), text("[::1]:1"));
    // A frame of all the bytes that a frame's length can have.
    let huge = [0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0];
    let answers = [
        then("", Then::Hold),
        then("", Then::Close),
        then("HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close),
        then(b"garbage", Then::Repeat),
        then([0], Then::Dribble),
        then(huge, Then::Repeat),
    ];
    side_by_side(&answers, |answer| {
        let (port, _requests) = serve(vec![answer.clone()]);
        let begun = Instant::now();
        assert_eq!(check(port, "", SHORT), text(&format!("127.0.0.1:{port}")), "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{answer:?}");
    });
}

#[test]
fn a_server_that_comes_up_in_time_is_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The first connection is turned away, the second is not.
    let (real, _calls) = serve_h2(message(&[0, 0, 0, 0, 2, 8, 1]));
    thread::spawn(move || {
        drop(listener.accept().unwrap());
        let (mut from, _) = listener.accept().unwrap();
        let mut to = std::net::TcpStream::connect(("127.0.0.1", real)).unwrap();
        let (mut from2, mut to2) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from2, &mut to2));
        let _ = std::io::copy(&mut to, &mut from);
    });
    assert_eq!(check(port, "", LONG), success("service healthy"));
}

#[test]
fn a_server_of_http2_does_not_take_longer_than_the_timeout() {
    let late = failure("timeout: health rpc did not complete within 1s");
    let (port, _calls) = serve_h2(Reply { silent: true, ..Reply::default() });
    assert_eq!(check(port, "", SHORT), late);
    // SETTINGS, and then again and again: SETTINGS; PING; a frame of a kind that nobody knows.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let unknown = [0, 0, 1, 99, 0, 0, 0, 0, 0, 0];
    side_by_side(&[&settings[..], &ping, &unknown], |frame| {
        let bytes = [&settings[..], frame].concat();
        let (port, _requests) = serve(vec![then(bytes, Then::Repeat)]);
        let begun = Instant::now();
        let outcome = check(port, "", SHORT);
        assert!(matches!(outcome, Outcome::Failure { .. }), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{frame:?}");
    });
}
