//! What a TLS client wants, read from its ClientHello before anything is answered.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fieldlock_session::{ALPN, CYCLIC_ALPN};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// A ClientHello with a hybrid key share has about 1.8 KiB.
const MAX_HELLO: usize = 16 * 1024;
/// ALPN of HTTP/1.1, which EST is spoken over (RFC 7301, section 6).
const HTTP: &[u8] = b"http/1.1";

/// Where a connection on the tunnel port is to go.
pub enum Wanted<S> {
    /// To this headend, or nowhere: its TLS says so.
    Tunnel(Box<StartHandshake<S>>),
    /// Beside a tunnel, for cyclic data.
    Cyclic(Box<StartHandshake<S>>),
    /// To the CA: the stream, and all that was read from it, at most 16 KiB.
    Authority(S, Vec<u8>),
}

impl<S> fmt::Debug for Wanted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel(_) => "Tunnel(..)",
            Self::Cyclic(_) => "Cyclic(..)",
            Self::Authority(..) => "Authority(..)",
        })
    }
}

/// Reads one ClientHello. The caller bounds the time. An error is one of the stream, or says why what
/// came is not the beginning of TLS; who sent it has been told by an alert.
pub async fn read<S>(stream: S) -> io::Result<Wanted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let recording = Recording {
        stream,
        octets: Vec::new(),
    };
    let start = LazyConfigAcceptor::new(Acceptor::default(), recording).await?;
    let offers = |wanted: &[u8]| {
        let hello = start.client_hello();
        hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|name| name == wanted))
    };
    if offers(HTTP) && !offers(ALPN) {
        return Ok(Wanted::Authority(start.io.stream, start.io.octets));
    }
    let cyclic = offers(CYCLIC_ALPN) && !offers(ALPN);
    let start = StartHandshake::from_parts(start.accepted, start.io.stream);
    Ok(match cyclic {
        true => Wanted::Cyclic(Box::new(start)),
        false => Wanted::Tunnel(Box::new(start)),
    })
}

/// A stream that keeps what was read from it.
struct Recording<S> {
    stream: S,
    octets: Vec<u8>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recording<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if self.octets.len() + read.len() > MAX_HELLO {
            return Poll::Ready(Err(io::Error::other("ClientHello too long")));
        }
        self.octets.extend_from_slice(read);
        Poll::Ready(Ok(()))
    }
}

/// The acceptor writes alerts.
impl<S: AsyncWrite + Unpin> AsyncWrite for Recording<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
