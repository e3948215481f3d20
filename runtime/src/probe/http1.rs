//! One response of HTTP/1.1, read from a server that is not trusted: so many bytes of a header and no
//! more, and of the body what is asked for. `httparse` splits the header; the texts are those of
//! Go's client, which tells a malformed response from a connection that broke.

use std::io;

use httparse::{EMPTY_HEADER, ParserConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::words::{io_error, quote};

/// What a response's header may have, `1xx` responses before it included. Go's client stops at 10 MiB.
const HEAD_MAX_BYTES: usize = 256 << 10;
/// The line before a chunk (Go: `maxLineLength`).
const CHUNK_LINE_MAX_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 4 << 10;

/// A connection with what was read of it and not yet used.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    /// Its two ends as Go names them in errors, `from->to`.
    ends: String,
    buffer: Vec<u8>,
}

/// What a response's header tells us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The status.
    pub code: u16,
    /// The header `Location`, if it says anything.
    pub location: Option<String>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

/// A body that is still to be read.
#[derive(Debug)]
pub(super) struct Body<S> {
    connection: Connection<S>,
    framing: Framing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S, ends: String) -> Self {
        Self { stream, ends, buffer: Vec::new() }
    }

    /// Sends a request and reads the header of the response to it.
    ///
    /// # Errors
    /// The text that follows `Get "…": `.
    pub async fn ask(mut self, request: &[u8]) -> Result<(Head, Body<S>), String> {
        let sent = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        let sent: io::Result<()> = sent.await;
        // A server may answer before it has read everything; its answer counts.
        let (head, framing) = match (self.head().await, sent) {
            (Err(_), Err(e)) => return Err(self.failed("write", &e)),
            (read, _) => read?,
        };
        Ok((head, Body { connection: self, framing }))
    }

    /// The text about an error of the connection.
    fn failed(&self, operation: &str, error: &io::Error) -> String {
        if error.raw_os_error().is_none() {
            return super::tls::error(error);
        }
        format!("{operation} tcp {}: {operation}: {}", self.ends, io_error(error))
    }

    /// Reads some more; `false` at the end.
    async fn fill(&mut self) -> Result<bool, String> {
        self.buffer.reserve(READ_BYTES);
        let mut limited = (&mut self.stream).take(READ_BYTES as u64);
        match limited.read_buf(&mut self.buffer).await {
            Ok(n) => Ok(n > 0),
            // Many TLS servers close without a word; Go minds no more.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(self.failed("read", &e)),
        }
    }

    async fn head(&mut self) -> Result<(Head, Framing), String> {
        let mut used = 0;
        loop {
            let head = self.head_bytes(HEAD_MAX_BYTES.saturating_sub(used)).await?;
            used += head.len();
            let (head, framing) = parse(&head).map_err(broken)?;
            // What follows `1xx` is the response, but after a change of the protocol nothing does.
            if !(100..200).contains(&head.code) || head.code == 101 {
                return Ok((head, framing));
            }
        }
    }

    /// The bytes of a header, the empty line included. Looks at each byte once, so that a server that
    /// sends them singly costs no more than another.
    async fn head_bytes(&mut self, max: usize) -> Result<Vec<u8>, String> {
        let (mut looked_at, mut line) = (0, 0);
        loop {
            while let Some(n) = self.buffer[looked_at..].iter().position(|b| *b == b'\n') {
                let end = looked_at + n + 1;
                let text = trim_line(&self.buffer[line..end]);
                if line == 0 {
                    status(text).map_err(broken)?;
                } else if text.is_empty() && end <= max {
                    let rest = self.buffer.split_off(end);
                    return Ok(std::mem::replace(&mut self.buffer, rest));
                }
                (looked_at, line) = (end, end);
            }
            looked_at = self.buffer.len();
            if looked_at > max {
                let what = format!("response headers exceeded {HEAD_MAX_BYTES} bytes; aborted");
                return Err(broken(format!("net/http: server {what}")));
            }
            if !self.fill().await? {
                if self.buffer.is_empty() {
                    return Err("EOF".into());
                }
                if line == 0 {
                    status(&self.buffer).map_err(broken)?;
                }
                return Err(broken("unexpected EOF".into()));
            }
        }
    }

    /// A line without its end; at most [`CHUNK_LINE_MAX_BYTES`].
    async fn line(&mut self) -> Result<Vec<u8>, String> {
        let mut looked_at = 0;
        loop {
            if let Some(n) = self.buffer[looked_at..].iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(looked_at + n + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(trim_line(&line).to_vec());
            }
            looked_at = self.buffer.len();
            if looked_at > CHUNK_LINE_MAX_BYTES {
                return Err("header line too long".into());
            }
            if !self.fill().await? {
                return Err("unexpected EOF".into());
            }
        }
    }

    /// Moves `length` bytes to `into`, fewer if that has `max` before.
    async fn take(&mut self, length: u64, into: &mut Vec<u8>, max: usize) -> Result<(), String> {
        let room = (max - into.len()) as u64;
        // Not larger than a `usize`, which it came from.
        let mut wanted = usize::try_from(length.min(room)).unwrap_or(max);
        loop {
            let n = wanted.min(self.buffer.len());
            into.extend(self.buffer.drain(..n));
            wanted -= n;
            if wanted == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err("unexpected EOF".into());
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Body<S> {
    /// The first `max` bytes, or all if it has fewer.
    ///
    /// # Errors
    /// It ends too early, its chunks are malformed, or the connection broke.
    pub async fn read(mut self, max: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        match self.framing {
            Framing::Length(length) => self.connection.take(length, &mut body, max).await?,
            Framing::Chunked => self.read_chunks(&mut body, max).await?,
            Framing::UntilEnd => {
                let connection = &mut self.connection;
                while connection.buffer.len() < max && connection.fill().await? {}
                connection.buffer.truncate(max);
                body.append(&mut connection.buffer);
            }
        }
        Ok(body)
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>, max: usize) -> Result<(), String> {
        while body.len() < max {
            let mut line = self.connection.line().await?;
            line.extend_from_slice(b"\r\n");
            let size = match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size))) => size,
                _ => return Err("invalid byte in chunk length".into()),
            };
            if size == 0 {
                return Ok(());
            }
            self.connection.take(size, body, max).await?;
            if body.len() < max && !self.connection.line().await?.is_empty() {
                return Err("malformed chunked encoding".into());
            }
        }
        Ok(())
    }
}

/// As Go's client says that what it reads is not HTTP.
fn broken(what: String) -> String {
    format!("net/http: HTTP/1.x transport connection broken: {what}")
}

/// A line without its end.
fn trim_line(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The status of a first line (Go: `http.ReadResponse`).
fn status(line: &[u8]) -> Result<u16, String> {
    let line = trim_line(line);
    let Some(space) = line.iter().position(|b| *b == b' ') else {
        return Err(format!("malformed HTTP response {}", quote(line)));
    };
    let (version, rest) = line.split_at(space);
    let rest = rest.trim_ascii_start();
    let code = rest.split(|b| *b == b' ').next().unwrap_or_default();
    let number = std::str::from_utf8(code).ok().filter(|c| c.bytes().all(|b| b.is_ascii_digit()));
    match number.and_then(|number| number.parse().ok()) {
        Some(number) if code.len() == 3 => {
            if matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
                Ok(number)
            } else {
                Err(format!("malformed HTTP version {}", quote(version)))
            }
        }
        _ => Err(format!("malformed HTTP status code {}", quote(code))),
    }
}

fn parse(bytes: &[u8]) -> Result<(Head, Framing), String> {
    let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let code = status(first)?;
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    let mut headers = vec![EMPTY_HEADER; lines];
    let mut response = httparse::Response::new(&mut headers);
    // As lenient as Go.
    let parsed = ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .parse_response(&mut response, bytes);
    if !matches!(parsed, Ok(httparse::Status::Complete(_))) {
        return Err(malformed(bytes));
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let named = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.trim_ascii()).collect()
    };
    let location = values("location").first().map(|v| String::from_utf8_lossy(v).into_owned());
    let is_old = response.version == Some(0);
    let framing = framing(code, is_old, &values("transfer-encoding"), &values("content-length"))?;
    Ok((Head { code, location: location.filter(|l| !l.is_empty()) }, framing))
}

/// What is wrong with a header that does not parse.
fn malformed(bytes: &[u8]) -> String {
    let lines = bytes.split(|b| *b == b'\n').skip(1).map(trim_line).filter(|l| !l.is_empty());
    let without = lines.clone().find(|line| !line.contains(&b':') && !line.starts_with(b" "));
    match without {
        Some(line) => format!("malformed MIME header: missing colon: {}", quote(line)),
        None => "malformed MIME header".into(),
    }
}

/// How long the body is (Go: `readTransfer`).
fn framing(
    code: u16,
    is_old: bool,
    encodings: &[&[u8]],
    lengths: &[&[u8]],
) -> Result<Framing, String> {
    let has_none = matches!(code, 100..200 | 204 | 304);
    if !is_old && !encodings.is_empty() {
        match encodings {
            [one] if one.eq_ignore_ascii_case(b"chunked") => {}
            [one] => return Err(format!("unsupported transfer encoding: {}", quote(one))),
            many => {
                let many: Vec<String> = many.iter().map(|one| quote(one)).collect();
                return Err(format!("too many transfer encodings: [{}]", many.join(" ")));
            }
        }
        return Ok(if has_none { Framing::Length(0) } else { Framing::Chunked });
    }
    let Some((first, others)) = lengths.split_first() else {
        return Ok(if has_none { Framing::Length(0) } else { Framing::UntilEnd });
    };
    if others.iter().any(|other| other != first) {
        let all: Vec<String> = lengths.iter().map(|length| quote(length)).collect();
        let what = format!("multiple Content-Length headers; got [{}]", all.join(" "));
        return Err(format!("http: message cannot contain {what}"));
    }
    let digits = std::str::from_utf8(first).ok().filter(|l| l.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(_) if has_none => Ok(Framing::Length(0)),
        Some(length) => Ok(Framing::Length(length)),
        None if first.is_empty() => Err("invalid empty Content-Length \"\"".into()),
        None => Err(format!("bad Content-Length {}", quote(first))),
    }
}
