//! A tunnel to one headend, kept up: race, fallback, reconnect, return to QUIC.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_pki::{Identity, Role};
use fieldlock_session::dialler::{ATTEMPT, Ended, Ending, Output};
use fieldlock_session::{ALPN, Close, Dialler, Failure, Transport};
use fieldlock_transport::peer::{Peer, quic_peer, tls_peer};
use fieldlock_transport::socket;
use fieldlock_transport::tls::Trust;
use fieldlock_transport::tunnel::{End, Link, Path, quic, tcp};
use quinn::{Endpoint, TransportConfig};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::{debug, info, warn};

use super::names::Names;
use super::tunnel::TunnelHandler;
use super::{Edge, cyclic};
use crate::settings::{Headend as Settings, Transport as Configured};

/// Different failures that are remembered, so as not to be repeated in the log.
const COMPLAINTS: usize = 16;
const PANICKED: Ended = Ended {
    was_up: false,
    why: Ending::Lost,
    round_trip: None,
};

/// What this edge has with one headend; `status` shows it.
pub(crate) struct Dialled {
    settings: Settings,
    pub(crate) last_error: RefCell<Option<String>>,
    /// Never borrowed across an `await`.
    core: RefCell<Dialler>,
    attention: Notify,
}

impl Dialled {
    pub(crate) fn new(settings: Settings, seed: u64) -> Rc<Self> {
        let core = Dialler::new(only(settings.transport), Instant::now(), seed);
        Rc::new(Self {
            settings,
            last_error: RefCell::default(),
            core: RefCell::new(core),
            attention: Notify::new(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Dials no more; live tunnels are closed by the caller.
    pub(crate) fn close(&self) {
        self.core.borrow_mut().handle_close(Instant::now());
        self.attention.notify_one();
    }

    /// [`Dialled::renew`], at most every ten minutes.
    pub(crate) fn renew_again(&self) {
        if self.core.borrow_mut().handle_expiring(Instant::now()) {
            self.dials_anew();
        }
    }

    /// Dials anew with what the edge has by now; the headend lets the older tunnel finish.
    pub(crate) fn renew(&self) {
        self.core.borrow_mut().handle_renew(Instant::now());
        self.dials_anew();
    }

    fn dials_anew(&self) {
        info!(headend = self.settings.name, "dialling anew");
        self.attention.notify_one();
    }
}

/// A connection whose handshake is done.
enum Connected {
    Quic(quinn::Connection, Peer),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

impl Connected {
    fn transport(&self) -> Transport {
        match self {
            Self::Quic(..) => Transport::Quic,
            Self::Tls(..) => Transport::Tls,
        }
    }
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

/// Keeps one tunnel up until [`Dialled::close`], and ends with the last one.
pub(crate) async fn keep(edge: Rc<Edge>, dialled: Rc<Dialled>) {
    let mut driver = Driver {
        names: Names::new(&dialled.settings.address),
        edge,
        dialled,
        complaints: VecDeque::new(),
        attempts: JoinSet::new(),
        tunnels: JoinSet::new(),
        numbers: HashMap::new(),
    };
    while !driver.dialled.core.borrow().is_done() {
        driver.carry_out().await;
        driver.wait().await;
    }
}

fn only(transport: Configured) -> Option<Transport> {
    match transport {
        Configured::Auto => None,
        Configured::Quic => Some(Transport::Quic),
        Configured::Tls => Some(Transport::Tls),
    }
}

/// The number of the tunnel that it may become, where to, by what, and what came of it.
type Attempted = (u32, SocketAddr, Transport, Result<Connected, Failed>);

/// Runs the [`Dialler`] of one headend. What it began, attempts and tunnels, ends with it.
struct Driver {
    edge: Rc<Edge>,
    dialled: Rc<Dialled>,
    names: Names,
    /// What was said since the last tunnel, the newest last.
    complaints: VecDeque<String>,
    attempts: JoinSet<Attempted>,
    tunnels: JoinSet<(Transport, Ended, End)>,
    /// Which tunnel a task runs: one that panics can't say it.
    numbers: HashMap<task::Id, u32>,
}

impl Driver {
    fn core(&self) -> RefMut<'_, Dialler> {
        self.dialled.core.borrow_mut()
    }

    async fn carry_out(&mut self) {
        loop {
            let output = self.core().poll_output();
            match output {
                Some(Output::Resolve) => self.resolve().await,
                Some(Output::Attempt {
                    transport,
                    address,
                    round_trip,
                }) => self.attempt(transport, address, round_trip),
                Some(Output::GiveUp) => self.attempts = JoinSet::new(),
                None => break,
            }
        }
    }

    async fn wait(&mut self) {
        let wake = self.core().poll_timeout();
        let timer = async {
            match wake {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.attempts.join_next() => self.attempted(done.ok()),
            Some(ended) = self.tunnels.join_next_with_id() => self.ended(ended),
            () = timer => self.core().handle_timeout(Instant::now()),
            () = self.dialled.attention.notified() => {}
        }
    }

    async fn resolve(&mut self) {
        let mut complaints = Vec::new();
        let complain = |text| complaints.push(text);
        let addresses = self.names.resolve(complain).await;
        complaints.into_iter().for_each(|text| self.complain(text));
        self.core().handle_addresses(Instant::now(), addresses);
    }

    fn attempt(&mut self, by: Transport, to: SocketAddr, round_trip: Option<Duration>) {
        if !self.tunnels.is_empty() {
            let (headend, by) = (&self.dialled.settings.name, by.name());
            debug!(headend, by, "dialling beside the live tunnel");
        }
        let edge = self.edge.clone();
        let name = self.dialled.settings.name.clone();
        // From here on it goes by the certificate of now, which a higher number than that of the last
        // renewal tells.
        let number = edge.runtime.next_link();
        self.attempts.spawn_local(async move {
            let connecting = connect(&edge, &name, by, to, round_trip);
            let outcome = timeout(ATTEMPT, connecting)
                .await
                .unwrap_or_else(|_| Err(Failed::network("no answer in time")));
            (number, to, by, outcome)
        });
    }

    fn attempted(&mut self, done: Option<Attempted>) {
        match done {
            Some((number, _, _, Ok(connected))) => self.connected(number, connected),
            Some((_, address, transport, Err(failed))) => {
                let text = format!("{} {address}: {}", transport.name(), failed.text);
                self.complain(text);
                self.core().handle_failed(Instant::now(), failed.why);
            }
            // Its task panicked.
            None => self.core().handle_failed(Instant::now(), Failure::Network),
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

    fn connected(&mut self, number: u32, connected: Connected) {
        let transport = connected.transport();
        let wanted = self
            .core()
            .handle_connected(Instant::now(), number, transport);
        if wanted {
            self.start(number, transport, connected);
        }
    }

    fn start(&mut self, number: u32, transport: Transport, connected: Connected) {
        let edge = &self.edge;
        let devices = edge.devices();
        let hello = edge.hello();
        let run = match connected {
            Connected::Quic(connection, peer) => {
                let link = Link::edge(peer, Path::Quic(connection), number, &hello);
                let handler = TunnelHandler::new(edge, &link, devices, hello.stations);
                RunTunnel::Quic(link, handler)
            }
            Connected::Tls(stream, peer) => {
                let link = Link::edge(peer, Path::Tls, number, &hello);
                let handler = TunnelHandler::new(edge, &link, devices, hello.stations);
                RunTunnel::Tls(stream, link, handler)
            }
        };
        let edge = edge.clone();
        let task = self.tunnels.spawn_local(async move {
            let (link, handler) = run.parts();
            edge.tunnels
                .borrow_mut()
                .insert(number, (link.clone(), handler.clone()));
            let end = run.run(&edge).await;
            edge.tunnels.borrow_mut().remove(&number);
            handler.ended(&link, &end);
            let ended = Ended {
                was_up: link.was_up(),
                why: ending(&end),
                round_trip: link.round_trip(),
            };
            (transport, ended, end)
        });
        self.numbers.insert(task.id(), number);
    }

    fn ended(&mut self, done: Result<(task::Id, (Transport, Ended, End)), JoinError>) {
        // A panicked task is a tunnel that was lost.
        let (id, ended) = match done {
            Ok((id, (transport, ended, end))) => {
                self.note_end(transport, ended, &end);
                (id, ended)
            }
            Err(error) => (error.id(), PANICKED),
        };
        if let Some(number) = self.numbers.remove(&id) {
            self.core().handle_ended(Instant::now(), number, ended);
        }
    }

    fn note_end(&mut self, transport: Transport, ended: Ended, end: &End) {
        if ended.was_up {
            *self.dialled.last_error.borrow_mut() = None;
            self.complaints.clear();
        } else {
            self.complain(format!("{}: {end}", transport.name()));
        }
    }
}

fn ending(end: &End) -> Ending {
    if end.is_goodbye(Close::Shutdown) {
        Ending::Stopped
    } else if end.is_refusal() {
        Ending::Refused
    } else {
        Ending::Lost
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
