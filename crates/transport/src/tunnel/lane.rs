//! Datagrams beside a tunnel over TLS: a connection of their own, on which the newest win.
//!
//! The edge dials it once the tunnel is up, by ALPN `fieldlock-cyclic/1`, with the certificates of
//! the tunnel, and shows the token of the headend's hello: 16 octets. The headend answers with an
//! empty datagram. From there on both send datagrams, each behind its length (2 octets).
//!
//! What a slow path does not take stays in [`Newest`], where a newer datagram replaces it: the
//! kernel is told to queue little, and nothing is handed to TLS before that is empty.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use aws_lc_rs::constant_time;
use fieldlock_conduit::profinet::cadence::{Newest, Pushed};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsStream;
use tracing::debug;

use super::{Handler, Link, NotSent};

/// Longest datagram, in octets: any Ethernet frame, with what stands before it.
pub(crate) const MAX_DATAGRAM: usize = 2048;

/// What the dialling side shows first.
pub type Token = [u8; 16];

/// An empty datagram: the headend has taken the connection.
pub const WELCOME: [u8; 2] = [0, 0];

/// The kernel says that it has no room while more than this waits unsent, in octets: a few
/// datagrams.
const UNSENT: u32 = 4096;

/// A connection that delivers nothing for so long is given up and dialled anew: no consumer waits
/// longer (1.92 s, IEC 61158-6-10).
const STILL: Duration = Duration::from_secs(2);

/// Streams of cyclic data that wait at once: both directions of as many ARs as settings allow.
const STREAMS: usize = 2048;

type Stream = TlsStream<TcpStream>;

/// The way for datagrams of one tunnel.
#[derive(Debug)]
pub struct Lane {
    token: Cell<Option<Token>>,
    newest: RefCell<Newest>,
    /// Of the task that sends, while nothing waits.
    sender: RefCell<Option<Waker>>,
    /// A connection that takes the place of the present one.
    offered: RefCell<Option<Stream>>,
    up: Cell<bool>,
    /// There is a token, or another connection.
    attention: Notify,
    /// The connection has gone.
    lost: Notify,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            token: Cell::default(),
            newest: RefCell::new(newest()),
            sender: RefCell::default(),
            offered: RefCell::default(),
            up: Cell::default(),
            attention: Notify::new(),
            lost: Notify::new(),
        }
    }

    /// What the second connection has to show, by the headend's hello.
    pub(super) fn expect(&self, token: Option<Token>) {
        self.token.set(token);
        self.lost.notify_one();
    }

    /// Whether `token` is the one that this tunnel's hello carried.
    pub fn admits(&self, token: &Token) -> bool {
        let own = self.token.get();
        own.is_some_and(|own| constant_time::verify_slices_are_equal(&own, token).is_ok())
    }

    pub fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(super) fn max_datagram(&self) -> usize {
        if self.is_up() { MAX_DATAGRAM } else { 0 }
    }

    /// Queues a cyclic datagram; whether an older one of its stream made way for it.
    pub(super) fn send(&self, datagram: &[u8]) -> Result<bool, NotSent> {
        if !self.is_up() {
            return Err(NotSent::NotYet);
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(NotSent::TooLarge);
        }
        let replaced = match self.newest.borrow_mut().push(datagram) {
            Ok(Pushed::Queued) => false,
            Ok(Pushed::Replaced) => true,
            Ok(Pushed::Refused) => return Err(NotSent::Full),
            Err(_) => return Err(NotSent::NotYet),
        };
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
        Ok(replaced)
    }

    /// Serves `stream` from here on, in the place of an older one.
    pub fn offer(&self, stream: Stream) -> io::Result<()> {
        let socket = SockRef::from(stream.get_ref().0);
        socket.set_tcp_notsent_lowat(UNSENT)?;
        socket.set_tcp_user_timeout(Some(STILL))?;
        *self.offered.borrow_mut() = Some(stream);
        self.attention.notify_one();
        Ok(())
    }

    /// Waits until there is a token and no connection to show it on.
    pub async fn wanted(&self) -> Token {
        loop {
            if let Some(token) = self.token.get()
                && !self.is_up()
                && self.offered.borrow().is_none()
            {
                return token;
            }
            self.lost.notified().await;
        }
    }

    async fn next(&self) -> Stream {
        loop {
            if let Some(stream) = self.offered.take() {
                return stream;
            }
            self.attention.notified().await;
        }
    }

    /// Serves one connection after the other, for as long as the tunnel's driver lets it.
    pub(super) async fn run(&self, link: &Rc<Link>, handler: &dyn Handler) -> ! {
        let mut next = self.next().await;
        loop {
            let mut connection = Connection::new(next);
            self.up.set(true);
            let another = tokio::select! {
                error = poll_fn(|cx| connection.poll(cx, link, handler)) => {
                    debug!(peer = %link.peer.identity.uri(), "connection for cyclic data lost: {error}");
                    None
                }
                another = self.next() => Some(another),
            };
            drop(connection);
            // What is that old serves nobody.
            *self.newest.borrow_mut() = newest();
            next = match another {
                Some(another) => another,
                None => {
                    self.up.set(false);
                    self.lost.notify_one();
                    self.next().await
                }
            };
        }
    }

    /// The next datagram, behind its length.
    fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<()> {
        if let Some(datagram) = self.newest.borrow_mut().pop() {
            // At most MAX_DATAGRAM.
            let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            into.extend_from_slice(&length.to_be_bytes());
            into.extend_from_slice(datagram);
            return Poll::Ready(());
        }
        *self.sender.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn newest() -> Newest {
    Newest::new(STREAMS, MAX_DATAGRAM)
}

/// One connection: what is read from it and written to it.
struct Connection {
    stream: Stream,
    input: Box<[u8]>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    flushed: bool,
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: vec![0; 2 * (2 + MAX_DATAGRAM)].into_boxed_slice(),
            filled: 0,
            output: Vec::new(),
            written: 0,
            flushed: true,
        }
    }

    /// Ready with the end of the connection.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Rc<Link>,
        handler: &dyn Handler,
    ) -> Poll<io::Error> {
        loop {
            let read = self.poll_read(cx, link, handler);
            if let Poll::Ready(Err(error)) = read {
                return Poll::Ready(error);
            }
            if let Poll::Ready(Err(error)) = self.poll_write(cx, &link.lane) {
                return Poll::Ready(error);
            }
            if read.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        link: &Rc<Link>,
        handler: &dyn Handler,
    ) -> Poll<io::Result<()>> {
        // There is always room: a whole datagram is half of it, and does not stay.
        let mut buffer = ReadBuf::new(&mut self.input[self.filled..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.filled += count;
        let mut rest = &self.input[..self.filled];
        while let Some((datagram, behind)) = split(rest)? {
            if !datagram.is_empty() {
                link.deliver_datagram(handler, datagram);
            }
            rest = behind;
        }
        let used = self.filled - rest.len();
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        handler.flush();
        Poll::Ready(Ok(()))
    }

    /// Ready when it failed. The next datagram is taken only when TLS has nothing left.
    fn poll_write(&mut self, cx: &mut Context<'_>, lane: &Lane) -> Poll<io::Result<()>> {
        loop {
            if let Some(rest) = self.output.get(self.written..).filter(|r| !r.is_empty()) {
                let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += count;
                self.flushed = false;
                continue;
            }
            if !self.flushed {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                self.flushed = true;
            }
            self.output.clear();
            self.written = 0;
            ready!(lane.poll_take(cx, &mut self.output));
        }
    }
}

/// The first datagram of `input` and what stands behind it; `None` while it is incomplete.
fn split(input: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_DATAGRAM {
        let text = format!("a datagram of {length} octets, allowed {MAX_DATAGRAM}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_octets_panic_and_none_are_made_up(input in vec(any::<u8>(), 0..3000)) {
            match split(&input) {
                Ok(Some((datagram, rest))) => {
                    prop_assert!(datagram.len() <= MAX_DATAGRAM);
                    prop_assert_eq!(2 + datagram.len() + rest.len(), input.len());
                }
                Ok(None) => prop_assert!(input.len() < 2 + MAX_DATAGRAM),
                Err(_) => prop_assert!(input[..2] > [8, 0][..]),
            }
        }
    }
}
