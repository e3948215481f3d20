//! The words in which Go's libraries, and so a kubelet, say what went wrong. Manifests, dashboards and
//! runbooks look for them.

use std::io;

use nix::errno::Errno;

/// `host:port`, with brackets around an IPv6 address (Go: `net.JoinHostPort`).
pub(super) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An error of the operating system without its number: `connection refused`.
pub(super) fn io_error(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let text = Errno::from_raw(code).desc();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// A Go string literal (`%q`), so that bytes of a server stay visible and on one line.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_on_one_line_and_hides_no_byte() {
        assert_eq!(quote(b"\x00\x01\xff\xfe"), r#""\x00\x01\xff\xfe""#);
        assert_eq!(
            quote("a\"\\\n\r\t\u{fc}\u{85}".as_bytes()),
            "\"a\\\"\\\\\\n\\r\\t\u{fc}\\u0085\""
        );
    }

    #[test]
    fn errors_of_the_system_have_no_number() {
        let text = |code| io_error(&io::Error::from_raw_os_error(code));
        assert_eq!(text(libc::ECONNREFUSED), "connection refused");
        assert_eq!(text(libc::EHOSTUNREACH), "no route to host");
        assert_eq!(text(libc::ENETUNREACH), "network is unreachable");
        assert_eq!(text(libc::ECONNRESET), "connection reset by peer");
        assert_eq!(text(libc::EPIPE), "broken pipe");
    }
}
