//! One request over HTTP/2: what gRPC is made of, and what an HTTPS server may choose to speak.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http1::Head;
use super::words::io_error;

/// What a response's header fields may have together.
const HEADERS_MAX_BYTES: u32 = 64 << 10;
/// The largest frame that is taken, and the bytes that may be under way unread: HTTP/2's own defaults.
const FRAME_MAX_BYTES: u32 = 16 << 10;
const WINDOW_BYTES: u32 = 64 << 10;

/// A connection that is ready for one request. It lives in a task of its own, which ends with the runtime.
#[derive(Debug)]
pub(super) struct Client {
    send: SendRequest<Bytes>,
}

impl Client {
    /// Begins HTTP/2 on an open connection, and waits until the server has begun it too: only then is it
    /// known to be one.
    ///
    /// # Errors
    /// Those of the connection, or what the server says is not HTTP/2.
    pub async fn start<S>(stream: S) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            // None until the server's first frame says how many.
            .initial_max_send_streams(0)
            .max_header_list_size(HEADERS_MAX_BYTES)
            .max_frame_size(FRAME_MAX_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (send, mut connection) = builder.handshake(stream).await?;
        poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            match ended {
                Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Error::from(h2::Reason::NO_ERROR))),
                Poll::Pending if send.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        // How it ends is told to the request under way.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { send })
    }

    /// Sends a request and reads the header of the response to it.
    ///
    /// # Errors
    /// Those of the connection and of the stream.
    pub async fn ask(
        &mut self,
        request: Request<()>,
        body: Option<Bytes>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let (response, mut send) = self.send.send_request(request, body.is_none())?;
        if let Some(body) = body {
            send.send_data(body, true)?;
        }
        response.await
    }
}

/// What a response's header tells us.
pub(super) fn head(response: &Response<RecvStream>) -> Head {
    let location = response.headers().get(http::header::LOCATION);
    let location = location.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    Head { code: response.status().as_u16(), location: location.filter(|l| !l.is_empty()) }
}

/// The first `max` bytes of a body, or all if it has fewer.
///
/// # Errors
/// Those of the connection and of the stream.
pub(super) async fn read(body: &mut RecvStream, max: usize) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while bytes.len() < max {
        let Some(data) = body.data().await else { break };
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data[..data.len().min(max - bytes.len())]);
    }
    Ok(bytes)
}

/// The text about an error, as near to Go's as the library lets us tell.
pub(super) fn error(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(e), _) => connection_error(e),
        (None, Some(reason)) if error.is_reset() => {
            format!("stream error: stream ID 1; {reason:?}; received from peer")
        }
        (None, Some(reason)) if error.is_go_away() && error.is_remote() => {
            format!("http2: server sent GOAWAY and closed the connection; ErrCode={reason:?}")
        }
        _ => format!("http2: {error}"),
    }
}

/// The library says of a connection that ended that a pipe is broken.
pub(super) fn connection_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => "EOF".into(),
        // Of an error that several streams share it keeps the kind.
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        _ => io_error(error),
    }
}
