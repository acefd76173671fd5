//! The UDP socket under QUIC, with as few wake-ups and system calls as it takes.
//!
//! quinn's own socket for tokio is registered for writability too, so every freed send
//! buffer wakes the process, and after each batch it asks once more in vain. Here writability
//! is watched only after a send found no room, and a batch that is not full was the last.
//! That saves 2 of 9 system calls per request and agent with a single client.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime, UdpPoller};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// A QUIC endpoint on `socket`, which does not block; it refuses connections until it gets a server
/// configuration. Who accepts some has `knocks` too: a socket of the same address, on which
/// connections begin.
pub fn endpoint(
    socket: UdpSocket,
    knocks: Option<UdpSocket>,
    config: EndpointConfig,
) -> io::Result<Endpoint> {
    let socket = LeanSocket {
        inside: Queue::new(socket)?,
        knocks: knocks.map(Queue::new).transpose()?,
        crowded: AtomicBool::new(false),
        rested: AtomicBool::new(false),
        full: AtomicBool::new(false),
    };
    Endpoint::new_with_abstract_socket(config, None, Arc::new(socket), Arc::new(TokioRuntime))
}

/// Datagrams that are taken from those who knock before those inside are looked after again. Each
/// may be the beginning of a handshake, or the work of turning one away.
const KNOCKS: usize = 4;

/// Of one who is found at the same address after a restart, and then can end what his peers still
/// believe in (stateless reset, RFC 9000, section 10.3): an edge dials anew at once, and does not wait
/// until it takes the headend for dead. `secret` is the same in all runs, and nobody else's. Each
/// `address` has keys of its own: asked about a connection of another, it must not tell its token
/// (section 21.11).
pub fn lasting(secret: &[u8], address: SocketAddr) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let secret = hmac::sign(&secret, address.to_string().as_bytes());
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
    let derive = |purpose: &[u8]| hmac::sign(&secret, purpose);
    let reset = derive(b"fieldlock stateless reset");
    let mut ids = [0; 8];
    ids.copy_from_slice(&derive(b"fieldlock connection ids").as_ref()[..8]);
    let ids = u64::from_be_bytes(ids);
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .min_reset_interval(RESETS);
    config
}

/// The port of `ports` that belongs to a `secret`, which is the same in all runs: whoever has another most
/// likely gets another.
pub fn lasting_port(secret: &[u8], ports: RangeInclusive<u16>) -> u16 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, b"fieldlock udp port");
    let number = u16::from_be_bytes([tag.as_ref()[0], tag.as_ref()[1]]);
    ports.start() + number % (ports.end() - ports.start() + 1)
}

/// Ends what is still open, once every tunnel had its own end. quinn would wait for as long as late packets
/// of closed connections may come, which is of use to nobody when the process ends: only what has
/// to leave now is waited for.
pub async fn close(endpoint: &Endpoint) {
    endpoint.close(1u8.into(), b"shutdown");
    let _ = timeout(LAST_WORDS, endpoint.wait_idle()).await;
}

/// For the tasks of connections to send their last packet.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Between two resets: all edges of a large site within seconds, and no flood of them.
const RESETS: Duration = Duration::from_millis(1);

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may lie about their descriptor; a UdpSocket owns it"
)]
fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

#[derive(Debug)]
struct Queue {
    state: UdpSocketState,
    fd: AsyncFd<UdpSocket>,
}

impl Queue {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            fd: register(socket, Interest::READABLE)?,
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            let received = ready.try_io(|fd| self.state.recv(fd.get_ref().into(), bufs, meta));
            let Ok(received) = received else { continue };
            if received.as_ref().is_ok_and(|count| *count < bufs.len()) {
                // What comes after this call raises the event anew: it is edge-triggered.
                ready.clear_ready();
            }
            return Poll::Ready(received);
        }
    }
}

#[derive(Debug)]
struct LeanSocket {
    /// Of connections that are there; all are sent from here.
    inside: Queue,
    knocks: Option<Queue>,
    /// There may be more of those inside than the last batch took. Anybody can send what looks like it
    /// is theirs: a flood of that must not keep out who knocks.
    crowded: AtomicBool,
    /// Nothing had come when it was last looked. What comes then is taken from those who knock first: a
    /// handshake ends there, and what follows it inside is lost on who has not seen its end.
    rested: AtomicBool,
    /// The last send found no room.
    full: AtomicBool,
}

impl AsyncUdpSocket for LeanSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            writable: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = self.inside.fd.get_ref();
        let sent = self.inside.state.send(socket.into(), transmit);
        let full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.full.store(full, Ordering::Relaxed);
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some(knocks) = &self.knocks else {
            return self.inside.poll_recv(cx, bufs, meta);
        };
        let most = KNOCKS.min(bufs.len());
        let crowded = self.crowded.swap(false, Ordering::Relaxed);
        let rested = self.rested.swap(false, Ordering::Relaxed);
        if (crowded || rested)
            && let Poll::Ready(received) = knocks.poll_recv(cx, &mut bufs[..most], meta)
        {
            return Poll::Ready(received);
        }
        let mut received = self.inside.poll_recv(cx, bufs, meta);
        if received.is_pending() {
            if knocks.fd.poll_read_ready(cx)?.is_pending() {
                self.rested.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            // The event of those inside is seen when this thread has nothing else to do. In a crowd
            // that may be long.
            let socket = self.inside.fd.get_ref();
            received = match self.inside.state.recv(socket.into(), bufs, meta) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let received = knocks.poll_recv(cx, &mut bufs[..most], meta);
                    let rests = received.is_pending();
                    self.rested.store(rests, Ordering::Relaxed);
                    return received;
                }
                received => Poll::Ready(received),
            };
        }
        let crowded = matches!(&received, Poll::Ready(Ok(count)) if *count == bufs.len());
        self.crowded.store(crowded, Ordering::Relaxed);
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inside.fd.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inside.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inside.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inside.state.gro_segments()
    }
}

/// Waits for room to send, on a descriptor of its own that lives only as long as that takes.
#[derive(Debug)]
struct Poller {
    socket: Arc<LeanSocket>,
    writable: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writable.is_none() {
            if !self.socket.full.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let socket = self.socket.inside.fd.get_ref().try_clone()?;
            self.writable = Some(register(socket, Interest::WRITABLE)?);
        }
        if let Some(writable) = &self.writable {
            ready!(writable.poll_write_ready(cx))?.retain_ready();
        }
        self.writable = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Queue::new(socket).unwrap()
    }

    fn socket() -> Arc<LeanSocket> {
        Arc::new(LeanSocket {
            inside: queue(),
            knocks: None,
            crowded: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    async fn receive(socket: &LeanSocket) -> usize {
        let mut buffers = vec![[0; 2048]; 4];
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut meta = [RecvMeta::default(); 4];
        let receive = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut slices, &mut meta));
        let count = tokio::time::timeout(Duration::from_secs(5), receive);
        let count = count.await.unwrap().unwrap();
        // What the kernel joined counts as it was sent.
        meta[..count].iter().map(|m| m.len / m.stride.max(1)).sum()
    }

    #[tokio::test]
    async fn datagrams_after_a_short_batch_are_seen() {
        let socket = socket();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        for _ in 0..100 {
            for _ in 0..6 {
                other.send_to(b"datagram", to).unwrap();
            }
            let mut seen = 0;
            while seen < 6 {
                seen += receive(&socket).await;
            }
            assert_eq!(seen, 6);
        }
    }

    #[tokio::test]
    async fn who_is_inside_never_waits_behind_a_crowd_that_knocks() {
        let socket = LeanSocket {
            inside: queue(),
            knocks: Some(queue()),
            crowded: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            full: AtomicBool::new(false),
        };
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let knocks = socket.knocks.as_ref().unwrap().fd.get_ref();
        let (inside, knocks) = (socket.local_addr().unwrap(), knocks.local_addr().unwrap());
        for _ in 0..40 {
            other.send_to(b"knock", knocks).unwrap();
        }
        let mut knocked = receive(&socket).await;
        for _ in 0..3 {
            other.send_to(b"inside", inside).unwrap();
            assert_eq!(receive(&socket).await, 1);
            knocked += receive(&socket).await;
        }
        assert!(knocked <= 4 * KNOCKS, "{knocked}");
        while knocked < 40 {
            knocked += receive(&socket).await;
        }
        assert_eq!(knocked, 40, "and nobody is lost");
    }

    #[tokio::test]
    async fn the_end_of_a_handshake_is_read_before_what_follows_it() {
        let socket = LeanSocket {
            inside: queue(),
            knocks: Some(queue()),
            crowded: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            full: AtomicBool::new(false),
        };
        let knocks = socket.knocks.as_ref().unwrap().fd.get_ref();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (inside, at) = (socket.local_addr().unwrap(), knocks.local_addr().unwrap());
        for _ in 0..20 {
            let nothing = tokio::time::timeout(Duration::ZERO, receive(&socket)).await;
            assert!(nothing.is_err());
            other.send_to(b"end of a handshake", at).unwrap();
            other.send_to(b"first words", inside).unwrap();
            // Both are there when they are looked for.
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(receive(&socket).await, 1);
            assert!(knocks.peek_from(&mut [0; 8]).is_err());
            assert_eq!(receive(&socket).await, 1);
        }
    }

    #[tokio::test]
    async fn a_crowd_inside_keeps_nobody_out() {
        let socket = LeanSocket {
            inside: queue(),
            knocks: Some(queue()),
            crowded: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            full: AtomicBool::new(false),
        };
        let knocks = socket.knocks.as_ref().unwrap().fd.get_ref();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (inside, at) = (socket.local_addr().unwrap(), knocks.local_addr().unwrap());
        for _ in 0..40 {
            other.send_to(b"inside", inside).unwrap();
        }
        other.send_to(b"knock", at).unwrap();
        let mut seen = 0;
        while knocks.peek_from(&mut [0; 8]).is_ok() {
            seen += receive(&socket).await;
        }
        assert!(seen < 40, "{seen}");
        while seen < 41 {
            seen += receive(&socket).await;
        }
    }

    #[tokio::test]
    async fn room_to_send_is_waited_for_and_found() {
        let socket = socket();
        let mut poller = socket.clone().create_io_poller();
        socket.full.store(true, Ordering::Relaxed);
        let room = std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx));
        let room = tokio::time::timeout(Duration::from_secs(5), room);
        room.await.unwrap().unwrap();
        assert!(!socket.full.load(Ordering::Relaxed));
    }
}
