//! Connections to the CA, carried as octets: TLS ends there, so that this headend sees neither
//! token nor pin, and a cell needs one outbound address.
//!
//! They come to the port of the tunnels, and are known by their ALPN, or to a [`Door`].

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Party, Record};
use fieldlock_transport::socket;
use socket2::Type;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::Headend;
use super::gate::Limits;
use crate::settings::Authority;
use fieldlock_agent::ledger::denial;

const ACCEPT_REST: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(5);
/// Longer than a long poll of the trust list (50 s).
const IDLE: Duration = Duration::from_secs(90);
const LIFE: Duration = Duration::from_secs(3600);
/// Both ways together. The longest trust list has 16 MiB.
const MAX_OCTETS: u64 = 64 << 20;
const BUFFER: usize = 8 * 1024;
/// For the ClientHello of who is turned away, and then his end.
const REST: Duration = Duration::from_millis(200);

/// An address where every connection is for the CA.
pub(super) struct Door {
    address: SocketAddr,
    listener: TcpListener,
}

impl Door {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = socket::bind(address, Type::STREAM)?;
        tcp.listen(128)?;
        Ok(Self {
            address: tcp.local_addr()?.as_socket().unwrap_or(address),
            listener: TcpListener::from_std(tcp.into())?,
        })
    }

    /// Serves until the task is aborted.
    pub(super) async fn serve(self: Rc<Self>, headend: Rc<Headend>) {
        info!(address = %self.address, "connections to the CA: listening");
        let mut failing = false;
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    failing = false;
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    if socket::prepare_client(&stream).is_ok() {
                        let carried = carry(headend.clone(), stream, Vec::new(), address);
                        tokio::task::spawn_local(carried);
                    }
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "accepting a connection to the CA failed; retrying");
                    }
                    failing = true;
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

/// Carries one connection until it ends; `read` is what was read from it already.
pub(super) async fn carry(
    headend: Rc<Headend>,
    mut stream: TcpStream,
    read: Vec<u8>,
    from: SocketAddr,
) {
    let peer = Arc::new(Party {
        address: Some(from.ip()),
        port: Some(from.port()),
        ..Party::default()
    });
    let settings = headend.runtime.settings();
    let Some(authority) = &settings.ca else {
        headend.refuse_splice(
            &peer,
            "the CA (EST, ALPN `http/1.1`) was asked for, and no `[ca]` is configured",
        );
        tell(&mut stream, NO_APPLICATION_PROTOCOL).await;
        return;
    };
    let limits = limits(authority);
    let entered = headend
        .splices
        .borrow_mut()
        .enter(from.ip(), &limits, Instant::now());
    if let Err(full) = entered {
        headend.refuse_splice(&peer, &full.to_string());
        tell(&mut stream, ACCESS_DENIED).await;
        return;
    }
    let started = Instant::now();
    let carried = Carried::new();
    let end = match connect(&authority.address).await {
        Ok(upstream) => {
            let note = Record {
                client: Some(peer.clone()),
                ..Record::new(Kind::EnrollOpen)
            };
            headend.runtime.ledger.note(note);
            both_ways(stream, upstream, &read, &carried).await
        }
        Err(error) => {
            let reason = format!("the CA at {} can't be reached: {error}", authority.address);
            headend.refuse_splice(&peer, &reason);
            headend.splices.borrow_mut().leave(from.ip());
            tell(&mut stream, INTERNAL_ERROR).await;
            return;
        }
    };
    headend.splices.borrow_mut().leave(from.ip());
    let reason = format!(
        "{end}; {} octets to the CA, {} from it, {:.1} s",
        carried.up.get(),
        carried.down.get(),
        started.elapsed().as_secs_f64()
    );
    info!(address = %from, "connection to the CA ended: {reason}");
    headend.runtime.ledger.note(Record {
        client: Some(peer),
        reason: Some(reason.into()),
        ..Record::new(Kind::EnrollClose)
    });
}

/// Alerts (RFC 8446, section 6) by which who asks for EST tells apart why he got none. `fieldlock enroll`
/// says it in words.
const NO_APPLICATION_PROTOCOL: u8 = 120;
const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;

/// Ends a connection on which nothing but a ClientHello was read. Before a handshake alerts are in the clear.
async fn tell(stream: &mut TcpStream, alert: u8) {
    const FATAL: u8 = 2;
    let record = [0x15, 3, 3, 0, 2, FATAL, alert];
    // Seven octets fit into a socket that nothing was written to.
    let _ = stream.write_all(&record).await;
    let _ = stream.shutdown().await;
    // A connection that is closed with something unread is reset, and the alert may be lost with it.
    let _ = timeout(REST, stream.read(&mut [0; BUFFER])).await;
}

impl Headend {
    fn refuse_splice(&self, peer: &Arc<Party>, reason: &str) {
        self.counters.splices_refused.add();
        let record = denial(Kind::ClientRefused, peer, reason);
        if self.runtime.ledger.repeated(record) {
            info!(address = ?peer.address, "connection to the CA refused: {reason}");
        }
    }
}

fn limits(authority: &Authority) -> Limits {
    Limits {
        open: authority.max_connections,
        open_per_address: authority.max_connections_per_address,
        per_minute: authority.new_per_minute,
    }
}

pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    socket::prepare_client(&stream)?;
    Ok(stream)
}

/// What went through so far, and when last.
struct Carried {
    up: Cell<u64>,
    down: Cell<u64>,
    last: Cell<Instant>,
}

impl Carried {
    fn new() -> Self {
        Self {
            up: Cell::new(0),
            down: Cell::new(0),
            last: Cell::new(Instant::now()),
        }
    }

    fn add(&self, way: &Cell<u64>, octets: usize) -> io::Result<()> {
        way.set(way.get() + octets as u64);
        self.last.set(Instant::now());
        if self.up.get() + self.down.get() > MAX_OCTETS {
            return Err(io::Error::other(
                "more octets than one connection may carry",
            ));
        }
        Ok(())
    }
}

async fn both_ways(
    mut client: TcpStream,
    mut authority: TcpStream,
    read: &[u8],
    carried: &Carried,
) -> String {
    let (from_client, to_client) = client.split();
    let (from_authority, mut to_authority) = authority.split();
    let up = async {
        to_authority.write_all(read).await?;
        carried.add(&carried.up, read.len())?;
        pump(from_client, to_authority, |n| carried.add(&carried.up, n)).await
    };
    let down = pump(from_authority, to_client, |n| carried.add(&carried.down, n));
    let ended = async {
        match tokio::try_join!(up, down) {
            Ok(_) => "closed".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    tokio::select! {
        end = timeout(LIFE, ended) => end.unwrap_or_else(|_| "open for too long".into()),
        () = idle(carried) => "idle for too long".into(),
    }
}

async fn idle(carried: &Carried) {
    loop {
        let deadline = carried.last.get() + IDLE;
        if Instant::now() >= deadline {
            return;
        }
        sleep_until(deadline.into()).await;
    }
}

/// One way, until its end, which is passed on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: impl Fn(usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        count(read)?;
    }
}
