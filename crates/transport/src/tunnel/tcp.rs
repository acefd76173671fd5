//! The tunnel over one TLS 1.3 connection: all channels share it, told apart by their tag.
//!
//! One task owns socket and TLS state; nothing is split, locked or queued twice. It serves the
//! second connection too, for datagrams, which so ends with the tunnel.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use fieldlock_session::Decoder;
use fieldlock_tls::words;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_rustls::TlsStream;

use super::{End, Handler, Link};

const READ: usize = 16 * 1024;
/// How long the last words of a closing tunnel may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs the tunnel until it ends.
pub async fn run(stream: TlsStream<TcpStream>, link: Rc<Link>, handler: &dyn Handler) -> End {
    let mut driver = Driver {
        stream,
        decoder: Decoder::default(),
        input: vec![0; READ].into_boxed_slice(),
        output: Vec::new(),
        written: 0,
        flushed: true,
        timer: Box::pin(sleep_until(far_future())),
    };
    // A peer that never says anything causes no event: its deadline is set before all else.
    driver.arm(&link);
    let mut lane = pin!(link.lane.run(&link, handler));
    let end = loop {
        let attention = link.attention.notified();
        tokio::select! {
            biased;
            end = poll_fn(|cx| driver.poll(cx, &link, handler)) => break end,
            () = attention => {
                if let Some(end) = link.closing() {
                    break end;
                }
                driver.arm(&link);
            }
            never = &mut lane => never,
        }
    };
    // What waits, a goodbye above all, still goes out if the other side reads.
    let _ = timeout(FAREWELL, async {
        let _ = poll_fn(|cx| driver.poll_write(cx, &link)).await;
        let _ = driver.stream.shutdown().await;
    })
    .await;
    end
}

struct Driver {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
    input: Box<[u8]>,
    output: Vec<u8>,
    written: usize,
    flushed: bool,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, link: &Rc<Link>, handler: &dyn Handler) -> Poll<End> {
        loop {
            // Reading first: what it causes then leaves in the same write.
            let read = self.poll_read(cx, link, handler);
            if let Poll::Ready(Err(end)) = read {
                return Poll::Ready(end);
            }
            if let Poll::Ready(Err(error)) = self.poll_write(cx, link) {
                return Poll::Ready(End::Transport(format!("writing failed: {error}")));
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                if let Err(end) = link.handle_timeout(handler, Instant::now()) {
                    return Poll::Ready(end);
                }
                self.arm(link);
                continue;
            }
            if read.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn arm(&mut self, link: &Link) {
        let deadline = link.next_deadline().map_or_else(far_future, Into::into);
        self.timer.as_mut().reset(deadline);
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        link: &Rc<Link>,
        handler: &dyn Handler,
    ) -> Poll<Result<(), End>> {
        let mut buffer = ReadBuf::new(&mut self.input);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))
            .map_err(|error| describe(&error))?;
        let chunk = buffer.filled();
        if chunk.is_empty() {
            let text = "the other side closed the connection".to_owned();
            return Poll::Ready(Err(End::Transport(text)));
        }
        let now = Instant::now();
        link.session.borrow_mut().received(now);
        let fed = self.decoder.feed(chunk, |channel, frame| {
            link.deliver(handler, now, channel, frame)
        });
        handler.flush();
        Poll::Ready(fed)
    }

    /// Writes all that waits; ready when nothing does.
    fn poll_write(&mut self, cx: &mut Context<'_>, link: &Rc<Link>) -> Poll<std::io::Result<()>> {
        loop {
            if self.written == self.output.len() {
                self.written = 0;
                self.output.clear();
                if link.control.poll_take(cx, &mut self.output).is_pending() {
                    if !self.flushed {
                        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                        self.flushed = true;
                    }
                    return Poll::Ready(Ok(()));
                }
                link.session.borrow_mut().sent(Instant::now());
                self.flushed = false;
            }
            let rest = &self.output[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
    }
}

/// A refused certificate reaches the client as an alert on its first read: say so.
pub fn describe(error: &std::io::Error) -> End {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    {
        // On its way: whoever damages a packet should not have the peer taken for one that is refused,
        // which is dialled less often.
        Some(
            rustls::Error::DecryptError
            | rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac),
        ) => End::Transport("a record arrived damaged".into()),
        Some(rustls::Error::AlertReceived(alert)) => {
            End::Rejected(words::alert((*alert).into()).into_owned())
        }
        Some(error) => End::Refused(words::tls_error(error).into_owned()),
        // A process that was killed, or a cut: rustls would add a link to its manual.
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            End::Transport("the connection broke off".into())
        }
        None => End::Transport(error.to_string()),
    }
}

fn far_future() -> tokio::time::Instant {
    // tokio's own bound for a timer that is not to fire.
    tokio::time::Instant::now() + Duration::from_secs(86400 * 365)
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{AlertDescription, Error};

    use super::*;

    #[test]
    fn a_damaged_record_is_no_refusal_and_a_refused_certificate_is_one() {
        let end = |error: Error| describe(&io::Error::new(io::ErrorKind::InvalidData, error));
        for damaged in [
            Error::DecryptError,
            Error::AlertReceived(AlertDescription::BadRecordMac),
        ] {
            assert!(!end(damaged).is_refusal());
        }
        let refused = Error::AlertReceived(AlertDescription::CertificateRevoked);
        assert!(end(refused).is_refusal());
    }
}
