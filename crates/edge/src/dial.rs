//! A tunnel to one headend, kept up: race, fallback, reconnect, return to QUIC.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_pki::{Identity, Role};
use fieldlock_session::race::Attempt;
use fieldlock_session::{ALPN, Close, Failure, Race, Transport};
use fieldlock_transport::peer::{Peer, quic_peer, tls_peer};
use fieldlock_transport::socket;
use fieldlock_transport::tls::Trust;
use fieldlock_transport::tunnel::{End, Link, Path, quic, tcp};
use quinn::{Endpoint, TransportConfig};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::{debug, info, warn};

use super::names::Names;
use super::tunnel::TunnelHandler;
use super::{Edge, cyclic};
use crate::settings::{Headend as Settings, Transport as Configured};

/// One attempt, from the first packet to the end of the handshake.
pub(super) const ATTEMPT: Duration = Duration::from_secs(4);
/// While on TLS: when QUIC is tried again, doubling from the first to the last.
const RETURN_FIRST: Duration = Duration::from_secs(5);
const RETURN_LAST: Duration = Duration::from_secs(300);
/// While a headend's certificate is about to expire, and it has not got another.
const RENEW_AGAIN: Duration = Duration::from_secs(600);
/// Different failures that are remembered, so as not to be repeated in the log.
const COMPLAINTS: usize = 16;

/// What this edge has with one headend; `status` shows it.
pub(crate) struct Dialled {
    settings: Settings,
    pub(crate) last_error: RefCell<Option<String>>,
    closing: Cell<bool>,
    renew: Cell<bool>,
    renewed: Cell<Option<Instant>>,
    attention: Notify,
}

impl Dialled {
    pub(crate) fn new(settings: Settings) -> Rc<Self> {
        Rc::new(Self {
            settings,
            last_error: RefCell::default(),
            closing: Cell::new(false),
            renew: Cell::new(false),
            renewed: Cell::new(None),
            attention: Notify::new(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Dials no more; live tunnels are closed by the caller.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.attention.notify_one();
    }

    /// [`Dialled::renew`], at most every ten minutes.
    pub(crate) fn renew_again(&self) {
        let due = |last: Instant| last.elapsed() >= RENEW_AGAIN;
        if self.renewed.get().is_none_or(due) {
            self.renewed.set(Some(Instant::now()));
            self.renew();
        }
    }

    /// Dials anew with what the edge has by now; the headend lets the older tunnel finish.
    pub(crate) fn renew(&self) {
        self.renew.set(true);
        self.attention.notify_one();
    }
}

/// A connection whose handshake is done.
enum Connected {
    Quic(quinn::Connection, Peer),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

#[derive(Debug)]
pub(super) struct Failed {
    pub(super) text: String,
    why: Failure,
}

impl Failed {
    pub(super) fn network(error: impl ToString) -> Self {
        Self {
            text: error.to_string(),
            why: Failure::Network,
        }
    }

    pub(super) fn refused(error: impl ToString) -> Self {
        Self {
            text: error.to_string(),
            why: Failure::Refused,
        }
    }

    fn handshake(end: &End, busy: bool) -> Self {
        let why = match (busy, end.is_refusal()) {
            (true, _) => Failure::Busy,
            (_, true) => Failure::Refused,
            _ => Failure::Network,
        };
        let text = match busy {
            true => "the headend takes no more handshakes now".into(),
            false => end.to_string(),
        };
        Self { text, why }
    }
}

/// How a tunnel ended, for the race.
struct Ended {
    transport: Transport,
    was_up: bool,
    round_trip: Option<Duration>,
    end: End,
}

/// Keeps one tunnel up until [`Dialled::close`], and ends with the last one.
pub(crate) async fn keep(edge: Rc<Edge>, dialled: Rc<Dialled>) {
    let seed = edge.runtime.seed();
    let mut dialler = Dialler {
        race: Race::new(only(dialled.settings.transport), Instant::now(), seed),
        names: Names::new(&dialled.settings.address),
        edge,
        dialled,
        addresses: Vec::new(),
        complaints: VecDeque::new(),
        attempts: JoinSet::new(),
        tunnels: JoinSet::new(),
        transport: None,
        return_at: None,
        return_after: RETURN_FIRST,
        round_trip: None,
    };
    while !dialler.is_done() {
        dialler.step().await;
    }
}

fn only(transport: Configured) -> Option<Transport> {
    match transport {
        Configured::Auto => None,
        Configured::Quic => Some(Transport::Quic),
        Configured::Tls => Some(Transport::Tls),
    }
}

struct Dialler {
    edge: Rc<Edge>,
    dialled: Rc<Dialled>,
    race: Race,
    names: Names,
    addresses: Vec<SocketAddr>,
    /// What was said since the last tunnel, the newest last.
    complaints: VecDeque<String>,
    attempts: JoinSet<(Attempt, Result<Connected, Failed>)>,
    tunnels: JoinSet<Ended>,
    /// Of the newest live tunnel.
    transport: Option<Transport>,
    return_at: Option<Instant>,
    return_after: Duration,
    /// Of the tunnel to a headend that said that it stops: how soon it may answer when it is back.
    round_trip: Option<Duration>,
}

impl Dialler {
    /// Attempts under way are given up with the dialler.
    fn is_done(&self) -> bool {
        self.dialled.closing.get() && self.tunnels.is_empty()
    }

    async fn step(&mut self) {
        let dialling = self.tunnels.is_empty() && !self.dialled.closing.get();
        if dialling {
            self.dial().await;
        }
        let wake = if dialling {
            Some(self.race.poll_timeout())
        } else {
            self.return_at
        };
        let timer = async {
            match wake {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.attempts.join_next() => {
                if let Ok((attempt, outcome)) = done {
                    self.attempted(attempt, outcome);
                }
            }
            Some(ended) = self.tunnels.join_next() => self.ended(ended.ok()),
            () = timer => {
                if !dialling {
                    self.try_quic().await;
                }
            }
            () = self.dialled.attention.notified() => {
                if self.dialled.renew.take() {
                    match self.tunnels.is_empty() {
                        true => self.race.begin_again(Instant::now()),
                        false => self.renew().await,
                    }
                }
            }
        }
    }

    async fn dial(&mut self) {
        let now = Instant::now();
        if self.race.round_due(now) {
            self.resolve().await;
            self.race.start_round(Instant::now(), self.addresses.len());
        }
        while let Some(attempt) = self.race.poll_attempt(Instant::now()) {
            self.attempt(attempt);
        }
    }

    fn attempt(&mut self, attempt: Attempt) {
        let Some(address) = self.addresses.get(attempt.address).copied() else {
            return;
        };
        let edge = self.edge.clone();
        let name = self.dialled.settings.name.clone();
        let round_trip = self.round_trip;
        self.attempts.spawn_local(async move {
            let connecting = connect(&edge, &name, attempt.transport, address, round_trip);
            let outcome = timeout(ATTEMPT, connecting)
                .await
                .unwrap_or_else(|_| Err(Failed::network("no answer in time")));
            (attempt, outcome)
        });
    }

    fn attempted(&mut self, attempt: Attempt, outcome: Result<Connected, Failed>) {
        match outcome {
            // A handshake that nobody wants any more.
            Ok(_) if self.dialled.closing.get() => {}
            Ok(connected) => {
                // Those under way, and those that have come through in the meantime: one
                // tunnel is enough.
                self.attempts = JoinSet::new();
                self.round_trip = None;
                self.race.connected();
                self.start(connected);
            }
            Err(failed) => {
                let address = self.addresses.get(attempt.address);
                let address = address.map_or_else(String::new, ToString::to_string);
                let text = format!("{} {address}: {}", attempt.transport.name(), failed.text);
                self.complain(text);
                self.race.failed(Instant::now(), failed.why);
            }
        }
    }

    /// The first failure of a kind is a warning, its repeats are not: several addresses and
    /// two transports fail in turn.
    fn complain(&mut self, text: String) {
        let headend = &self.dialled.settings.name;
        if self.complaints.contains(&text) {
            debug!(headend, "not connected: {text}");
        } else {
            warn!(headend, "not connected: {text}");
            if self.complaints.len() == COMPLAINTS {
                self.complaints.pop_front();
            }
            self.complaints.push_back(text.clone());
        }
        *self.dialled.last_error.borrow_mut() = Some(text);
    }

    fn start(&mut self, connected: Connected) {
        let edge = &self.edge;
        let devices = edge.devices();
        let hello = edge.hello();
        let number = edge.runtime.next_link();
        let (transport, run): (_, RunTunnel) = match connected {
            Connected::Quic(connection, peer) => {
                let link = Link::edge(peer, Path::Quic(connection), number, &hello);
                let handler = TunnelHandler::new(edge, &link, devices, hello.stations);
                (Transport::Quic, RunTunnel::Quic(link, handler))
            }
            Connected::Tls(stream, peer) => {
                let link = Link::edge(peer, Path::Tls, number, &hello);
                let handler = TunnelHandler::new(edge, &link, devices, hello.stations);
                (Transport::Tls, RunTunnel::Tls(stream, link, handler))
            }
        };
        self.transport = Some(transport);
        if transport == Transport::Tls && self.dialled.settings.transport == Configured::Auto {
            self.return_at = Some(Instant::now() + self.return_after);
        } else {
            self.return_at = None;
            self.return_after = RETURN_FIRST;
        }
        let edge = edge.clone();
        self.tunnels.spawn_local(async move {
            let (link, handler) = run.parts();
            edge.tunnels
                .borrow_mut()
                .insert(number, (link.clone(), handler.clone()));
            let end = run.run(&edge).await;
            edge.tunnels.borrow_mut().remove(&number);
            handler.ended(&link, &end);
            Ended {
                transport,
                was_up: link.was_up(),
                round_trip: link.round_trip(),
                end,
            }
        });
    }

    fn ended(&mut self, ended: Option<Ended>) {
        // A panicked task is a tunnel that was lost.
        let Some(ended) = ended else {
            return;
        };
        let now = Instant::now();
        if ended.was_up {
            *self.dialled.last_error.borrow_mut() = None;
            self.complaints.clear();
            if self.tunnels.is_empty() {
                self.race.won(now, ended.transport);
                if ended.end.is_goodbye(Close::Shutdown) {
                    self.race.expect_back(now);
                    self.round_trip = ended.round_trip;
                }
            }
        } else {
            self.complain(format!("{}: {}", ended.transport.name(), ended.end));
            let why = match ended.end.is_refusal() {
                true => Failure::Refused,
                false => Failure::Network,
            };
            self.race.failed(now, why);
        }
        if self.tunnels.is_empty() {
            self.transport = None;
            self.return_at = None;
        }
    }

    /// On the fallback: is there a way for QUIC again?
    async fn try_quic(&mut self) {
        self.return_after = (self.return_after * 2).min(RETURN_LAST);
        self.return_at = Some(Instant::now() + self.return_after);
        if self.transport == Some(Transport::Tls) {
            debug!(headend = self.dialled.settings.name, "trying QUIC again");
            self.spread(Transport::Quic).await;
        }
    }

    /// A second tunnel beside the live one, which the headend then lets finish.
    async fn renew(&mut self) {
        info!(headend = self.dialled.settings.name, "dialling anew");
        self.spread(self.transport.unwrap_or(Transport::Quic)).await;
    }

    async fn spread(&mut self, transport: Transport) {
        self.resolve().await;
        for address in 0..self.addresses.len() {
            self.attempt(Attempt { transport, address });
        }
    }

    async fn resolve(&mut self) {
        let mut complaints = Vec::new();
        let complain = |text| complaints.push(text);
        self.addresses = self.names.resolve(complain).await;
        complaints.into_iter().for_each(|text| self.complain(text));
    }
}

enum RunTunnel {
    Quic(Rc<Link>, Rc<TunnelHandler>),
    Tls(Box<TlsStream<TcpStream>>, Rc<Link>, Rc<TunnelHandler>),
}

impl RunTunnel {
    fn parts(&self) -> (Rc<Link>, Rc<TunnelHandler>) {
        match self {
            Self::Quic(link, handler) | Self::Tls(_, link, handler) => {
                (link.clone(), handler.clone())
            }
        }
    }

    async fn run(self, edge: &Edge) -> End {
        match self {
            Self::Quic(link, handler) => quic::run(link, handler).await,
            Self::Tls(stream, link, handler) => tokio::select! {
                end = tcp::run((*stream).into(), link.clone(), &*handler) => end,
                never = cyclic::keep(edge, &link) => match never {},
            },
        }
    }
}

async fn connect(
    edge: &Edge,
    headend: &str,
    transport: Transport,
    address: SocketAddr,
    round_trip: Option<Duration>,
) -> Result<Connected, Failed> {
    let stations = edge.stations.borrow().len();
    let channels = edge.devices.borrow().len() + stations;
    let streams = u32::try_from(channels).unwrap_or(u32::MAX);
    let mut settings = quic::transport(streams, stations > 0);
    if let Some(round_trip) = round_trip {
        quic::expect_answer(&mut settings, round_trip);
    }
    let trust = edge.runtime.posture.trust();
    shake_hands(
        &edge.endpoint,
        &trust,
        headend,
        (transport, address),
        settings,
    )
    .await
}

/// Connects to a headend and has it prove that it is `headend`.
async fn shake_hands(
    endpoint: &Endpoint,
    trust: &Trust,
    headend: &str,
    (transport, address): (Transport, SocketAddr),
    settings: TransportConfig,
) -> Result<Connected, Failed> {
    let expected = Identity {
        site: trust.identity.site.clone(),
        role: Role::Headend,
        name: headend.parse().map_err(Failed::refused)?,
    };
    match transport {
        Transport::Quic => {
            let config = trust.quic_client().map_err(Failed::refused)?;
            let mut config = config.ok_or_else(|| Failed::refused("no client configuration"))?;
            config.transport_config(Arc::new(settings));
            let address = reachable(endpoint, address);
            let connecting = endpoint
                .connect_with(config, address, &expected.dns())
                .map_err(Failed::network)?;
            let connection = connecting.await.map_err(|error| {
                let busy = quic::is_busy(&error);
                Failed::handshake(&quic::describe(error), busy)
            })?;
            let peer = quic_peer(&connection).map_err(Failed::refused)?;
            Ok(Connected::Quic(connection, peer))
        }
        Transport::Tls => {
            let stream = connect_tls(trust.tls_client(), &expected, address).await?;
            let peer = tls_peer(stream.get_ref().1, ALPN, address).map_err(Failed::refused)?;
            Ok(Connected::Tls(Box::new(stream), peer))
        }
    }
}

pub(super) async fn connect_tls(
    config: Option<Arc<ClientConfig>>,
    expected: &Identity,
    address: SocketAddr,
) -> Result<TlsStream<TcpStream>, Failed> {
    let config = config.ok_or_else(|| Failed::refused("no client configuration"))?;
    let name = ServerName::try_from(expected.dns()).map_err(Failed::refused)?;
    let stream = socket::dial(address).await.map_err(Failed::network)?;
    socket::prepare_tunnel(&stream).map_err(Failed::network)?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    connecting.await.map_err(|error| {
        // It accepted the connection, and closed it without a word of TLS.
        let gone = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        Failed::handshake(&tcp::describe(&error), gone.contains(&error.kind()))
    })
}

/// Whether a headend answers at an address and is the one that is meant; nothing more is said.
pub(super) async fn try_headend(
    endpoint: &Endpoint,
    trust: &Trust,
    headend: &str,
    to: (Transport, SocketAddr),
) -> Result<(), String> {
    let handshake = shake_hands(endpoint, trust, headend, to, quic::transport(0, false));
    match timeout(ATTEMPT, handshake).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failed)) => Err(failed.text),
        Err(_) => Err("no answer in time".into()),
    }
}

/// The endpoint is a dual-stack socket where the system has IPv6: it wants mapped addresses.
fn reachable(endpoint: &Endpoint, address: SocketAddr) -> SocketAddr {
    let dual = endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
    match address {
        SocketAddr::V4(v4) if dual => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        address => address,
    }
}
