//! Opens connections, and says why not in the words of Go's `net.Dialer`.
//!
//! A kubelet also sets `SO_LINGER` (pkg/probe/dialer_others.go). It is left out: on Linux it makes a
//! close wait, and nothing waits for the closing of a process that ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Limit;
use super::words;

/// What each of several addresses gets at least (Go: `net.partialDeadline`).
const ADDRESS_MIN: Duration = Duration::from_secs(2);

/// Connects to an address, or to the first address of a name that answers.
///
/// # Errors
/// The text from `dial tcp` on. What takes too long is an `i/o timeout`.
pub(super) async fn dial(host: &str, port: u16, limit: Limit) -> Result<TcpStream, String> {
    let addresses = resolve(host, port, limit).await?;
    let mut first_error = None;
    for (at, address) in addresses.iter().enumerate() {
        let share = share(limit, addresses.len() - at);
        let error = match share.within(TcpStream::connect(address)).await {
            Some(Ok(stream)) => {
                // It has small messages to send, each of which is waited for. If not, it is slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Err(e)) => format!("dial tcp {address}: connect: {}", words::io_error(&e)),
            None => format!("dial tcp {address}: i/o timeout"),
        };
        first_error.get_or_insert(error);
        if limit.is_over() {
            break;
        }
    }
    Err(first_error.unwrap_or_else(|| format!("dial tcp: lookup {host}: no such host")))
}

/// The part of the time that the next of several addresses gets, so that one that does not answer leaves
/// some for the others.
fn share(limit: Limit, addresses: usize) -> Limit {
    let share = limit.remaining().map(|remaining| {
        let equal = remaining / u32::try_from(addresses).unwrap_or(u32::MAX);
        equal.max(ADDRESS_MIN).min(remaining)
    });
    Limit::after(share)
}

async fn resolve(host: &str, port: u16, limit: Limit) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address.to_canonical(), port)]);
    }
    match limit.within(tokio::net::lookup_host((host, port))).await {
        Some(Ok(addresses)) => Ok(addresses.collect()),
        Some(Err(e)) => Err(format!("dial tcp: lookup {host}: {}", lookup_error(&e))),
        None => Err(format!("dial tcp: lookup {host}: i/o timeout")),
    }
}

/// getaddrinfo(3) has errors of its own, of which the standard library keeps the text only.
fn lookup_error(error: &io::Error) -> String {
    let text = error.to_string();
    let unknown = ["Name or service not known", "No address associated with hostname"];
    if unknown.iter().any(|end| text.ends_with(end)) { "no such host".into() } else { text }
}
