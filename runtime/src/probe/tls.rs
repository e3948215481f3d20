//! TLS of a client that believes any certificate, as a kubelet's probes do (`InsecureSkipVerify`): a
//! probe asks whether the server works, not who it is.
//!
//! The server's name is sent if the URL's host is one. A header `Host` does not change it: Go's client
//! does not look there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Limit;
use super::words::io_error;

/// Go: `http.Transport.TLSHandshakeTimeout`.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The length of a TLS record's header.
const RECORD_HEADER_BYTES: usize = 5;

/// Why TLS did not come about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The server speaks HTTP without TLS.
    PlainHttp,
    /// The text that follows `Get "…": `.
    Other(String),
}

/// Speaks TLS on an open connection. `true` if HTTP/2 was chosen.
pub(super) async fn connect<S>(
    host: &str,
    stream: S,
) -> Result<(TlsStream<Overheard<S>>, bool), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = config().map_err(|e| Refused::Other(e.to_string()))?;
    // For an address, or what is no name, nothing is sent.
    let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
        .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
    let stream = Overheard { inner: stream, first: Vec::with_capacity(RECORD_HEADER_BYTES) };
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream).into_fallible();
    let shaking_hands = async {
        match connecting.await {
            Ok(stream) => Ok(stream),
            Err((e, mut stream)) => {
                // A library that sees at the first byte that this is no TLS reads no further.
                while stream.first.len() < RECORD_HEADER_BYTES
                    && stream.read(&mut [0]).await.is_ok_and(|n| n > 0)
                {}
                Err(refused(&e, &stream.first))
            }
        }
    };
    let Some(shaken) = Limit::after(Some(HANDSHAKE_MAX)).within(shaking_hands).await else {
        return Err(Refused::Other("net/http: TLS handshake timeout".into()));
    };
    let stream = shaken?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((stream, is_http2))
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelieveAnything))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn refused(e: &io::Error, first: &[u8]) -> Refused {
    if first == b"HTTP/" {
        return Refused::PlainHttp;
    }
    // A handshake or an alert, and version 3 of something.
    let is_tls = matches!(first, [21 | 22, major, ..] if *major < 0x10);
    Refused::Other(match e.raw_os_error() {
        None if first.is_empty() => "EOF".into(),
        None if first.len() < RECORD_HEADER_BYTES => "unexpected EOF".into(),
        None if !is_tls => "tls: first record does not look like a TLS handshake".into(),
        None if e.kind() == io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
        _ => error(e),
    })
}

/// The text about an error of a TLS connection.
pub(super) fn error(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => {
            // `HandshakeFailure`
            let mut words = String::new();
            for c in format!("{alert:?}").chars() {
                if c.is_ascii_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.push(c.to_ascii_lowercase());
            }
            format!("remote error: tls: {words}")
        }
        Some(other) => format!("tls: {other}"),
        None => io_error(error),
    }
}

/// Accepts every certificate, and every signature made with it, which would prove nothing.
#[derive(Debug)]
struct BelieveAnything;

impl ServerCertVerifier for BelieveAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All that Go offers, whether or not our library could check them.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]
    }
}

/// A connection that remembers the first bytes which came: by them an HTTP server is known.
#[derive(Debug)]
pub(super) struct Overheard<S> {
    inner: S,
    first: Vec<u8>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let came = &buffer.filled()[before..];
        let missing = RECORD_HEADER_BYTES - this.first.len();
        this.first.extend_from_slice(&came[..came.len().min(missing)]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
