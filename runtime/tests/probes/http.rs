//! `httpGet` without TLS: what is sent, what counts, and what is said of servers that break.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use runtime::probe::{Check, Outcome, Purpose, attempt};

use crate::servers::{Answer, Then, serve, serve_on, then};
use crate::{CLOSED, LONG, SHORT, failure, get, run, side_by_side, success, without_port};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The outcome of a probe of a server with these answers.
fn probed(answers: Vec<Answer>, timeout: Option<Duration>) -> Outcome {
    let (port, _requests) = serve(answers);
    without_port(run(get(port, "/"), timeout), port)
}

fn warning(output: &str) -> Outcome {
    Outcome::Warning { output: output.into() }
}

fn error(message: &str) -> Outcome {
    Outcome::Error { message: message.into() }
}

/// A failure to get `http://127.0.0.1:PORT/`.
fn not_got(why: &str) -> Outcome {
    failure(&format!("Get \"http://127.0.0.1:PORT/\": {why}"))
}

fn broken(why: &str) -> Outcome {
    not_got(&format!("net/http: HTTP/1.x transport connection broken: {why}"))
}

fn late() -> Outcome {
    not_got("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
}

#[test]
fn the_status_decides() {
    let terminated =
        |body: &str| warning(&format!("Probe terminated redirects, Response body: {body}"));
    let status = |code: u16| failure(&format!("HTTP probe failed with statuscode: {code}"));
    for (answer, outcome) in [
        (OK, success("ok")),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", success("")),
        ("HTTP/1.1 299\r\n\r\nabc", success("abc")),
        ("HTTP/1.1 300 x\r\nLocation: /x\r\nContent-Length: 1\r\n\r\nx", terminated("x")),
        ("HTTP/1.1 302 x\r\nContent-Length: 1\r\n\r\nx", terminated("x")),
        (
            "HTTP/1.1 302 x\r\nLocation: http://example.com/\r\nContent-Length: 1\r\n\r\nx",
            terminated("x"),
        ),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", terminated("")),
        ("HTTP/1.1 399 x\r\n\r\n", terminated("")),
        ("HTTP/1.1 400 x\r\n\r\n", status(400)),
        ("HTTP/1.1 500 x\r\n\r\nsecret", status(500)),
        ("HTTP/1.1 999 x\r\n\r\n", status(999)),
        ("HTTP/1.1 099 x\r\n\r\n", status(99)),
        ("HTTP/1.1 101 Switch\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", status(101)),
    ] {
        assert_eq!(probed(vec![answer.into()], LONG), outcome, "{answer:?}");
    }
}

#[test]
fn a_body_ends_where_the_header_says() {
    let head = "HTTP/1.1 200 OK\r\n";
    for (rest, outcome) in [
        ("\r\nabc", success("abc")),
        ("Content-Length: 2\r\n\r\nabc", success("ab")),
        ("Content-Length: 2\r\nContent-Length: 2\r\n\r\nabc", success("ab")),
        ("Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n0\r\nT: 1\r\n\r\n", success("abcde")),
        (
            "Transfer-Encoding: CHUNKED\r\nContent-Length: 9\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            success("ab"),
        ),
        ("Content-Length: 10\r\n\r\nab", error("unexpected EOF")),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nab", error("unexpected EOF")),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", error("unexpected EOF")),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", error("invalid byte in chunk length")),
        (
            "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            error("invalid byte in chunk length"),
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nabcde\r\n0\r\n\r\n",
            error("malformed chunked encoding"),
        ),
        ("Transfer-Encoding: gzip\r\n\r\nab", broken("unsupported transfer encoding: \"gzip\"")),
        ("Content-Length: x\r\n\r\nab", broken("bad Content-Length \"x\"")),
        ("Content-Length: -1\r\n\r\nab", broken("bad Content-Length \"-1\"")),
        ("Content-Length: +2\r\n\r\nab", broken("bad Content-Length \"+2\"")),
        (
            "Content-Length: 99999999999999999999\r\n\r\nab",
            broken("bad Content-Length \"99999999999999999999\""),
        ),
        ("Content-Length: \r\n\r\nab", broken("invalid empty Content-Length \"\"")),
        (
            "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            broken(
                "http: message cannot contain multiple Content-Length headers; got [\"2\" \"3\"]",
            ),
        ),
    ] {
        let answer = format!("{head}{rest}");
        assert_eq!(probed(vec![answer.as_str().into()], LONG), outcome, "{rest:?}");
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    assert_eq!(probed(vec![old.into()], LONG), success("2\r\nab\r\n"));
}

#[test]
fn what_is_not_http_is_told_from_what_broke() {
    let unexpected = broken("unexpected EOF");
    for (answer, outcome) in [
        ("", not_got("EOF")),
        ("garbage\r\nmore\r\n\r\n", broken("malformed HTTP response \"garbage\"")),
        ("garbage", broken("malformed HTTP response \"garbage\"")),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", broken("malformed HTTP response \"\"")),
        ("ICY 200 OK\r\n\r\n", broken("malformed HTTP version \"ICY\"")),
        ("HTTP/3 200 OK\r\n\r\n", broken("malformed HTTP version \"HTTP/3\"")),
        ("HTTP/1.1 20 OK\r\n\r\n", broken("malformed HTTP status code \"20\"")),
        ("HTTP/1.1 2000 OK\r\n\r\n", broken("malformed HTTP status code \"2000\"")),
        ("HTTP/1.1 -99 OK\r\n\r\n", broken("malformed HTTP status code \"-99\"")),
        ("HTTP/1.1 200 OK\r\nX: y\r\n", unexpected.clone()),
        ("HTTP/1.1 200 OK\r\nX: y", unexpected.clone()),
        ("HTTP/1.1 200 OK", unexpected),
        (
            "HTTP/1.1 200 OK\r\nfoo\r\n\r\nabc",
            broken("malformed MIME header: missing colon: \"foo\""),
        ),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\nabc", broken("malformed MIME header")),
        // What Go is lenient about.
        ("HTTP/1.1 200\r\n\r\nabc", success("abc")),
        ("HTTP/1.1 200 OK\nX: y\n\nabc", success("abc")),
        ("HTTP/1.1 200 OK\r\nfoo : bar\r\n\r\nabc", success("abc")),
        ("HTTP/1.1 200 OK\r\nfoo: bar\r\n baz\r\n\r\nabc", success("abc")),
        ("HTTP/1.1 200 OK\r\nfoo: \u{fc}\r\n\r\nabc", success("abc")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok",
            success("ok"),
        ),
    ] {
        assert_eq!(probed(vec![answer.into()], LONG), outcome, "{answer:?}");
    }
    let binary = then(b"\x00\x01\xff\xfe\r\n\r\n", Then::Close);
    assert_eq!(
        probed(vec![binary], LONG),
        broken("malformed HTTP response \"\\x00\\x01\\xff\\xfe\"")
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\nabc", "a: b\r\n".repeat(5000));
    assert_eq!(probed(vec![many.as_str().into()], LONG), success("abc"));
}

#[test]
fn a_first_line_that_is_not_http_is_not_waited_behind() {
    let answer = then("garbage\r\n", Then::Hold);
    assert_eq!(probed(vec![answer], LONG), broken("malformed HTTP response \"garbage\""));
}

#[test]
fn a_connection_that_fails_is_described_as_by_go() {
    let refused = "dial tcp 127.0.0.1:1: connect: connection refused";
    let text = format!("Get \"http://127.0.0.1:1/\": {refused}");
    assert_eq!(run(get(CLOSED, "/"), LONG), failure(&text));
    let mut check = get(CLOSED, "/x?y z");
    check.host = "::1".into();
    check.https = true;
    let refused = "dial tcp [::1]:1: connect: connection refused";
    let text = format!("Get \"https://[::1]:1/x?y z\": {refused}");
    assert_eq!(run(check, LONG), failure(&text));
    let Outcome::Failure { output } = probed(vec![then("", Then::Reset)], LONG) else {
        panic!("no failure");
    };
    let (begin, end) = (
        "Get \"http://127.0.0.1:PORT/\": read tcp 127.0.0.1:",
        "->127.0.0.1:PORT: read: connection reset by peer",
    );
    assert!(output.starts_with(begin) && output.ends_with(end), "{output}");
    let mut check = get(80, "/");
    check.host = "a b".into();
    let text = "parse \"http://a b:80/\": invalid character \" \" in host name";
    assert_eq!(run(check, LONG), error(text));
}

#[test]
fn redirects_are_followed_on_the_same_host() {
    let (other, others) = serve(vec![OK.into()]);
    let to = |location: &str| {
        Answer::from(format!("HTTP/1.1 302 x\r\nLocation: {location}\r\n\r\n").as_str())
    };
    let (port, requests) =
        serve(vec![to("c/d?y"), to(&format!("http://127.0.0.1:{other}/e?u=http://x"))]);
    let mut check = get(port, "/a/b?x");
    check.headers = vec![("Host".into(), "my.example".into()), ("x-a".into(), "1".into())];
    assert_eq!(run(check, LONG), success("ok"));
    let rest = "User-Agent: kube-probe/1.37\r\nAccept: */*\r\n";
    let end = "X-A: 1\r\nConnection: close\r\n\r\n";
    let seen: Vec<String> = requests.try_iter().collect();
    assert_eq!(
        seen,
        [
            format!("GET /a/b?x HTTP/1.1\r\nHost: my.example\r\n{rest}{end}"),
            format!(
                "GET /a/c/d?y HTTP/1.1\r\nHost: my.example\r\n{rest}\
                 Referer: http://127.0.0.1:{port}/a/b?x\r\n{end}"
            ),
        ]
    );
    let referer = format!("Referer: http://127.0.0.1:{port}/a/c/d?y\r\n");
    assert_eq!(
        others.try_iter().collect::<Vec<_>>(),
        [format!("GET /e?u=http://x HTTP/1.1\r\nHost: 127.0.0.1:{other}\r\n{rest}{referer}{end}")]
    );
}

#[test]
fn a_redirect_that_leads_nowhere_is_a_failure() {
    for (location, outcome) in [
        (
            "http://127.0.0.1:1/x",
            failure(
                "Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused",
            ),
        ),
        (
            "HTTPS://127.0.0.1:1",
            failure(
                "Get \"https://127.0.0.1:1\": dial tcp 127.0.0.1:1: connect: connection refused",
            ),
        ),
        (
            "ftp://127.0.0.1/x",
            failure("Get \"ftp://127.0.0.1/x\": unsupported protocol scheme \"ftp\""),
        ),
        (
            "http://[::1/",
            not_got(
                "failed to parse Location header \"http://[::1/\": parse \"http://[::1/\": missing ']' in host",
            ),
        ),
    ] {
        let answer =
            format!("HTTP/1.1 307 x\r\nLocation: {location}\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(probed(vec![answer.as_str().into()], LONG), outcome, "{location}");
    }
    let (port, requests) = serve(vec!["HTTP/1.1 301 x\r\nLocation: /x\r\n\r\n".into()]);
    assert_eq!(run(get(port, "/"), LONG), failure("Get \"/x\": stopped after 10 redirects"));
    assert_eq!(requests.try_iter().count(), 10);
    // Followed for the same name only, whatever it resolves to.
    let (port, _requests) =
        serve(vec!["HTTP/1.1 301 x\r\nLocation: http://localhost:1/\r\n\r\n".into()]);
    assert_eq!(run(get(port, "/"), LONG), warning("Probe terminated redirects, Response body: "));
}

#[test]
fn names_and_ipv6_addresses_are_asked_too() {
    let (port, requests) = serve(vec![OK.into()]);
    let mut check = get(port, "/");
    check.host = "localhost".into();
    assert_eq!(run(check, LONG), success("ok"));
    assert!(requests.recv().unwrap().contains(&format!("\r\nHost: localhost:{port}\r\n")));
    let (port, requests) = serve_on(TcpListener::bind("[::1]:0").unwrap(), vec![OK.into()]);
    let mut check = get(port, "/");
    check.host = "::1".into();
    assert_eq!(run(check, LONG), success("ok"));
    assert!(requests.recv().unwrap().contains(&format!("\r\nHost: [::1]:{port}\r\n")));
}

/// Each of them would go on for ever.
#[test]
fn no_server_takes_longer_than_the_timeout() {
    let body_late = || {
        error(
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
        )
    };
    let cases = [
        (then("", Then::Hold), late()),
        (then("HTTP/1.1 200 OK\r\nX: y", Then::Hold), late()),
        (then("HTTP/1.1 100 Continue\r\n\r\n", Then::Dribble), late()),
        (then("H", Then::Dribble), late()),
        (then("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", Then::Hold), body_late()),
        (then("HTTP/1.1 500 OK\r\nContent-Length: 10\r\n\r\nab", Then::Hold), body_late()),
        (then("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", Then::Hold), body_late()),
    ];
    side_by_side(&cases, |(answer, outcome)| {
        let begun = Instant::now();
        assert_eq!(probed(vec![answer.clone()], SHORT), *outcome, "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{answer:?}");
    });
}

#[test]
fn no_server_fills_the_memory() {
    let too_long = || broken("net/http: server response headers exceeded 262144 bytes; aborted");
    let long_line = then(format!("HTTP/1.1 200 {}", "x".repeat(300_000)), Then::Hold);
    assert_eq!(probed(vec![long_line], LONG), too_long());
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(100_000));
    assert_eq!(probed(vec![then(endless, Then::Hold)], LONG), too_long());
    assert_eq!(probed(vec![then("HTTP/1.1 100 Continue\r\n\r\n", Then::Repeat)], LONG), too_long());
    let chunks =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + &"0".repeat(9_000);
    assert_eq!(probed(vec![then(chunks, Then::Hold)], LONG), error("header line too long"));
    for framing in
        ["", "Content-Length: 18446744073709551615\r\n", "Transfer-Encoding: chunked\r\n"]
    {
        let chunk = if framing.starts_with('T') { "7fffffffffffffff\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n{chunk}") + &"x".repeat(20_000);
        let outcome = probed(vec![then(answer, Then::Repeat)], LONG);
        assert_eq!(outcome, success(&"x".repeat(10 << 10)), "{framing}");
    }
}

#[test]
fn any_response_to_a_hook_is_a_success() {
    let hook = |answers: Vec<Answer>| {
        let (port, requests) = serve(answers);
        let mut check = get(port, "/");
        check.purpose = Purpose::Hook;
        let outcome = without_port(attempt(&Check::Http(check), LONG), port);
        (outcome, requests.recv().unwrap())
    };
    for answer in [
        OK,
        "HTTP/1.1 500 x\r\n\r\nfoo",
        "HTTP/1.1 302 x\r\nLocation: http://example.com/\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab",
    ] {
        let (outcome, request) = hook(vec![answer.into()]);
        assert_eq!(outcome, success(""), "{answer:?}");
        assert!(request.contains("\r\nUser-Agent: kube-lifecycle/1.37\r\n"), "{request}");
    }
    assert_eq!(hook(vec!["".into()]).0, not_got("EOF"));
}
