//! Sockets of Modbus clients and devices: their options, and writing from outside the task that
//! reads. With TLS on them ([`Sealed`]) or not, they look the same from outside.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fieldlock_rawsock::{separate_knocks, unacknowledged};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tracing::debug;

use crate::sealed::{self, Sealed};

/// A half-open peer is noticed after about this long, whether or not data waits for it.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// Octets of a segment of a tunnel over TCP, in both directions: an IPv4 packet of at most 1,200. On a
/// path that swallows larger ones without a word (a tunnel, a firewall that drops ICMP) the
/// post-quantum hello, the one large thing that TLS says, would never arrive.
const SEGMENT: u32 = 1_160;

const UDP_BUFFER: usize = 2 * 1024 * 1024;

/// A bound socket for tunnels; an IPv6 one takes IPv4 as well.
pub fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    bind_with(address, kind, |_| Ok(()))
}

/// Two UDP sockets of one address for who accepts tunnels: the first hears those who knock, the
/// second who is inside.
pub fn bind_both(address: SocketAddr) -> io::Result<[Socket; 2]> {
    let share = |socket: &Socket| socket.set_reuse_port(true);
    let knocks = bind_with(address, Type::DGRAM, share)?;
    let bound = knocks.local_addr()?.as_socket().unwrap_or(address);
    let inside = bind_with(bound, Type::DGRAM, share)?;
    if let Err(error) = separate_knocks(&knocks) {
        debug!(%error, "the kernel does not keep handshakes and tunnels apart");
    }
    Ok([knocks, inside])
}

fn bind_with(
    address: SocketAddr,
    kind: Type,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        // As much as the system allows; a burst of packets should not overflow it.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    }
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A Modbus client or device: answers leave at once, a vanished peer is noticed.
pub fn prepare_client(stream: &TcpStream) -> io::Result<()> {
    prepare(stream, HALF_OPEN)
}

/// A tunnel: it has its own heartbeat; data that nobody acknowledges ends it.
pub fn prepare_tunnel(stream: &TcpStream) -> io::Result<()> {
    prepare(stream, Duration::from_secs(5))
}

/// Dials for a tunnel, which is then still to be [prepared](prepare_tunnel).
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(address).await
}

fn prepare(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// The sending half of a connection. Whoever has bytes writes them at once; what the socket
/// does not take waits here for the connection's own task.
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    backlog: RefCell<Vec<u8>>,
    attention: Notify,
    sealed: Option<Rc<Sealed>>,
    /// Nobody takes anything any more.
    discards: Cell<bool>,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    /// With sealed octets that were read.
    sealed: Option<(Rc<Sealed>, Vec<u8>)>,
}

/// Both halves of a connection; `sealed` when a handshake was made on it.
pub fn split(stream: TcpStream, sealed: Option<Sealed>) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let sealed = sealed.map(Rc::new);
    let reader = Reader {
        half: read,
        sealed: sealed.clone().map(|sealed| (sealed, Vec::new())),
    };
    (reader, Writer::new(write, sealed))
}

impl Reader {
    /// Reads behind `input`; 0 at the end. Nothing is lost when it is dropped while it waits.
    pub async fn read(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        match &mut self.sealed {
            None => self.half.read_buf(input).await,
            Some((sealed, raw)) => sealed::read(sealed, &mut self.half, raw, input).await,
        }
    }
}

impl Writer {
    fn new(half: OwnedWriteHalf, sealed: Option<Rc<Sealed>>) -> Self {
        Self {
            half,
            backlog: RefCell::default(),
            attention: Notify::new(),
            sealed,
            discards: Cell::new(false),
        }
    }

    /// Lets `append` add bytes; [`Writer::flush`] writes them.
    pub fn push<T>(&self, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        append(&mut self.backlog.borrow_mut())
    }

    /// Nobody takes what waits, nor what comes.
    pub fn discard(&self) {
        self.discards.set(true);
        self.backlog.borrow_mut().clear();
    }

    /// See [`Writer::discard`].
    pub fn discards(&self) -> bool {
        self.discards.get()
    }

    pub fn has_backlog(&self) -> bool {
        if self.discards.get() {
            return false;
        }
        let sealed = self.sealed.as_ref();
        !self.backlog.borrow().is_empty() || sealed.is_some_and(|sealed| sealed.has_backlog())
    }

    /// The peer's system has all that was ever to be sent.
    pub fn is_acknowledged(&self) -> bool {
        !self.discards.get()
            && !self.has_backlog()
            && unacknowledged(self.half.as_ref()).is_ok_and(|octets| octets == 0)
    }

    /// Writes what waits as far as the socket takes it; [`Writer::drain`] does the rest.
    pub fn flush(&self) -> io::Result<()> {
        if self.discards.get() {
            self.backlog.borrow_mut().clear();
            return Ok(());
        }
        let mut backlog = self.backlog.borrow_mut();
        if let Some(sealed) = &self.sealed {
            sealed.write(&mut backlog, &self.half)?;
            drop(backlog);
            if self.has_backlog() {
                self.attention.notify_one();
            }
            return Ok(());
        }
        if backlog.is_empty() {
            return Ok(());
        }
        match self.half.try_write(&backlog) {
            Ok(count) => drop(backlog.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if !backlog.is_empty() {
            self.attention.notify_one();
        }
        Ok(())
    }

    /// Ends TLS in its own way, if there is any.
    pub fn farewell(&self) {
        if let Some(sealed) = &self.sealed {
            sealed.farewell(&self.half);
        }
    }

    /// Sends nothing more, not even what waits, and says so to the peer (FIN).
    pub fn end(&self) {
        self.backlog.borrow_mut().clear();
        self.farewell();
        let _ = SockRef::from(self.half.as_ref()).shutdown(Shutdown::Write);
    }

    /// When the connection is dropped, the peer gets a reset, and the system forgets what it has not sent.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(self.half.as_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Ends the connection at once in both directions, whoever else still holds it.
    pub fn cut(&self) {
        self.farewell();
        let _ = SockRef::from(self.half.as_ref()).shutdown(Shutdown::Both);
    }

    /// Waits for bytes that the socket did not take, and writes them all.
    pub async fn drain(&self) -> io::Result<()> {
        while !self.has_backlog() {
            self.attention.notified().await;
        }
        while self.has_backlog() {
            self.half.writable().await?;
            self.flush()?;
        }
        Ok(())
    }
}
