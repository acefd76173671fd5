//! Where edges dial in: QUIC and TLS over TCP on the same port.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_session::{ALPN, CYCLIC_ALPN, Transport};
use fieldlock_tls::words;
use fieldlock_transport::client_hello::{self, Wanted};
use fieldlock_transport::peer::{Peer, canonical, quic_peer, tls_peer};
use fieldlock_transport::socket;
use fieldlock_transport::tls::{Refusal, Shown, TrustError, handshake};
use fieldlock_transport::tunnel::lane::{Token, WELCOME};
use fieldlock_transport::tunnel::{End, Link, Path, quic, tcp, udp};
use quinn::{ConnectionError, Endpoint, Incoming};
use socket2::Type;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::StartHandshake;
use tracing::warn;

use super::admission::{Pass, Verdict};
use super::tunnel::TunnelHandler;
use super::{Headend, splice};

/// From the first packet to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
const NOT_IN_TIME: &str = "no complete handshake in time";
const NO_ALPN: &str = "it offered no ALPN: an edge offers `fieldlock/1`, a client of the CA `http/1.1`; one that can't is let in by `listen` under [ca]";
const CHURN: &str = "the edge reconnects too often (limit: one tunnel per second)";
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// What quinn may hold of connections that nobody has accepted yet.
const INCOMING_EACH: u64 = 16 * 1024;
const INCOMING_ALL: u64 = 4 * 1024 * 1024;

/// One address for tunnels.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    listener: RefCell<Option<TcpListener>>,
    closing: Notify,
}

impl Port {
    /// Binds UDP and TCP of `address`; with port 0 both get the same free one. `secret`: of this headend
    /// alone, and the same in all runs.
    pub(crate) fn bind(address: SocketAddr, secret: &[u8]) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            // TCP first: another headend that has the address already keeps all its packets.
            let tcp = socket::bind(address, Type::STREAM)?;
            tcp.listen(1024)?;
            let bound = tcp.local_addr()?.as_socket().unwrap_or(address);
            let [knocks, inside] = match socket::bind_both(bound) {
                Err(_) if address.port() == 0 && tries < 16 => {
                    tries += 1;
                    continue;
                }
                udp => udp?,
            };
            let config = udp::lasting(secret, bound);
            let endpoint = udp::endpoint(inside.into(), Some(knocks.into()), config)?;
            return Ok(Self {
                address: bound,
                endpoint,
                listener: RefCell::new(Some(TcpListener::from_std(tcp.into())?)),
                closing: Notify::new(),
            });
        }
    }

    /// Handshakes from here on use this headend's present certificate and trust.
    pub(crate) fn configure(&self, headend: &Headend) -> Result<(), TrustError> {
        let Some(mut config) = headend.runtime.posture.trust().quic_server()? else {
            return Ok(());
        };
        let stations = !headend.runtime.settings().station.is_empty();
        // The edge opens one stream, control; the others are opened from here.
        config
            .transport_config(Arc::new(quic::transport(1, stations)))
            .max_incoming(headend.runtime.settings().tunnel.max_handshakes)
            .incoming_buffer_size(INCOMING_EACH)
            .incoming_buffer_size_total(INCOMING_ALL);
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// Serves until [`Port::stop_accepting`].
    pub(crate) async fn serve(self: Rc<Self>, headend: Rc<Headend>) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        tokio::select! {
            () = accept_quic(&headend, &self.endpoint) => {}
            () = accept_tls(&headend, &listener) => {}
            () = self.closing.notified() => {}
        }
    }

    /// No tunnel comes in here any more; those that are there go on. Who dials sees what he would see
    /// if nobody were here: no word that would keep him from trying again at once.
    pub(crate) fn stop_accepting(&self) {
        self.endpoint.set_server_config(None);
        self.closing.notify_one();
    }

    /// Waits until the last words of closed connections have left.
    pub(crate) async fn close(&self) {
        udp::close(&self.endpoint).await;
    }
}

async fn accept_quic(headend: &Rc<Headend>, endpoint: &Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address().ip();
        match headend.knock(from, incoming.remote_address_validated()) {
            Verdict::Begin(pass) => {
                tokio::task::spawn_local(quic_tunnel(headend.clone(), incoming, pass));
            }
            // Under load an address must prove itself before it costs a signature.
            Verdict::Prove => {
                let _ = incoming.retry();
            }
            Verdict::Later => incoming.refuse(),
        }
    }
}

async fn quic_tunnel(headend: Rc<Headend>, incoming: Incoming, pass: Pass) {
    let address = canonical(incoming.remote_address());
    let connected = async {
        let failed = |error: ConnectionError| (proves_address(&error), Refusal::of_quic(&error));
        await_turn(&pass).await;
        let connecting = incoming.accept().map_err(failed)?;
        let connection = connecting.await.map_err(failed)?;
        let peer = quic_peer(&connection).map_err(|reason| (true, reason.into()))?;
        Ok((connection, peer))
    };
    let connected = match timeout(HANDSHAKE, connected).await {
        Ok(connected) => connected,
        Err(_) => Err((false, NOT_IN_TIME.into())),
    };
    let proven = pass.is_proven();
    drop(pass);
    match connected {
        Ok((connection, peer)) if !headend.is_welcome(&peer) => {
            connection.close(0u8.into(), CHURN.as_bytes());
            headend.handshake_refused(Some(address), Transport::Quic, churn(&peer));
        }
        Ok((connection, peer)) => {
            let link = Link::headend(peer, Path::Quic(connection), headend.runtime.next_link());
            let handler = TunnelHandler::new(&headend);
            headend.registry.add(&link);
            let end = quic::run(link.clone(), handler.clone()).await;
            finish(&headend, &link, &handler, &end);
        }
        Err((later, refusal)) => {
            let source = (proven || later).then_some(address);
            headend.handshake_refused(source, Transport::Quic, refusal);
        }
    }
}

async fn await_turn(pass: &Pass) {
    let turn = Instant::from_std(pass.turn());
    // A timer takes a millisecond even when it is due.
    if turn > Instant::now() {
        sleep_until(turn).await;
    }
}

/// The handshake failed on what only the client's second flight brings: its certificate, which is
/// sealed with what the first answer told it, so that it hears at its address.
fn proves_address(error: &ConnectionError) -> bool {
    const CERTIFICATE_ALERTS: [u64; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
    matches!(error, ConnectionError::TransportError(error)
        if CERTIFICATE_ALERTS.map(|alert| 0x100 + alert).contains(&u64::from(error.code)))
}

async fn accept_tls(headend: &Rc<Headend>, listener: &TcpListener) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                failing = false;
                let address = canonical(address);
                // TCP has proven its address. Who has to come back sees a connection that closes.
                if let Verdict::Begin(pass) = headend.knock(address.ip(), true) {
                    let headend = headend.clone();
                    tokio::task::spawn_local(tls_tunnel(headend, stream, address, pass));
                }
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "accepting a tunnel failed; retrying");
                }
                failing = true;
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn tls_tunnel(headend: Rc<Headend>, stream: TcpStream, address: SocketAddr, pass: Pass) {
    let deadline = Instant::now() + HANDSHAKE;
    let wanted = async {
        socket::prepare_tunnel(&stream)?;
        client_hello::read(stream).await
    };
    let start = match timeout_at(deadline, wanted).await {
        Ok(Ok(Wanted::Tunnel(start))) => start,
        Ok(Ok(Wanted::Cyclic(start))) => {
            let offered = timeout_at(deadline, cyclic(&headend, *start, address)).await;
            if let Err(refusal) = offered.unwrap_or_else(|_| Err(NOT_IN_TIME.into())) {
                headend.handshake_refused(Some(address), Transport::Tls, refusal);
            }
            return;
        }
        Ok(Ok(Wanted::Authority(stream, read))) => {
            drop(pass);
            splice::carry(headend, stream, read, address).await;
            return;
        }
        Ok(Err(error)) => {
            headend.handshake_refused(Some(address), Transport::Tls, words::io_error(&error));
            return;
        }
        Err(_) => {
            headend.handshake_refused(Some(address), Transport::Tls, NOT_IN_TIME);
            return;
        }
    };
    let has_alpn = start.client_hello().alpn().is_some();
    let connected = async {
        let config = headend.runtime.posture.trust().tls_server();
        let config = config.ok_or("no server configuration")?;
        await_turn(&pass).await;
        let stream = handshake(start.into_stream(config)).await?;
        let peer = tls_peer(stream.get_ref().1, ALPN, address)?;
        Ok::<_, Refusal>((stream, peer))
    };
    let connected = match timeout_at(deadline, connected).await {
        Ok(connected) => connected,
        Err(_) => Err(NOT_IN_TIME.into()),
    };
    drop(pass);
    match connected {
        Ok((_, peer)) if !headend.is_welcome(&peer) => {
            headend.handshake_refused(Some(address), Transport::Tls, churn(&peer));
        }
        Ok((stream, peer)) => {
            let link = Link::headend(peer, Path::Tls, headend.runtime.next_link());
            let handler = TunnelHandler::new(&headend);
            headend.registry.add(&link);
            let end = tcp::run(stream.into(), link.clone(), &*handler).await;
            finish(&headend, &link, &handler, &end);
        }
        Err(refusal) if !has_alpn => {
            let refusal = Refusal {
                why: format!("{}; {NO_ALPN}", refusal.why).into(),
                ..refusal
            };
            headend.handshake_refused(Some(address), Transport::Tls, refusal);
        }
        Err(refusal) => headend.handshake_refused(Some(address), Transport::Tls, refusal),
    }
}

/// A connection for the cyclic data of a live tunnel: of the same identity, with its token.
async fn cyclic(
    headend: &Headend,
    start: StartHandshake<TcpStream>,
    address: SocketAddr,
) -> Result<(), Refusal> {
    let words = |error: io::Error| format!("connection for cyclic data: {error}");
    let config = headend.runtime.posture.trust().cyclic_server();
    let config = config.ok_or("no server configuration")?;
    let mut stream = handshake(start.into_stream(config)).await?;
    let peer = tls_peer(stream.get_ref().1, CYCLIC_ALPN, address)?;
    let mut token = Token::default();
    stream.read_exact(&mut token).await.map_err(words)?;
    let tunnel = headend.registry.tunnel(peer.identity.name.as_str());
    let tunnel = tunnel.filter(|tunnel| {
        let link = &tunnel.link;
        link.peer.identity == peer.identity && link.lane.admits(&token)
    });
    let tunnel = tunnel.ok_or_else(|| {
        let edge = peer.identity.name;
        format!("edge `{edge}` showed a token for cyclic data that no tunnel of its gave out")
    })?;
    stream.write_all(&WELCOME).await.map_err(words)?;
    stream.flush().await.map_err(words)?;
    Ok(tunnel.link.lane.offer(stream.into()).map_err(words)?)
}

fn churn(peer: &Peer) -> Refusal {
    Refusal {
        why: CHURN.into(),
        shown: peer.chain.first().and_then(|leaf| Shown::of(leaf)),
    }
}

fn finish(headend: &Headend, link: &Rc<Link>, handler: &TunnelHandler, end: &End) {
    headend.registry.remove(link);
    handler.ended(link, end);
}
