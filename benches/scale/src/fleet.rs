//! Many edges on a thread of their own, each dialling as an agent does.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fieldlock_session::race::Attempt;
use fieldlock_session::{Failure as Why, Race, Transport};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ConnectionError, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, TransportErrorCode,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;
use crate::edge;
use crate::site::Ca;

/// As the agent has it.
const ATTEMPT: Duration = Duration::from_secs(4);
const UDP_BUFFER: usize = 4 << 20;

/// How edges dial.
#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    /// `None`: both, QUIC first.
    pub(crate) only: Option<Transport>,
    pub(crate) headend: SocketAddr,
    /// In its certificate.
    pub(crate) name: String,
    /// Addresses that edges dial from, of 127.0.0.0/8, a UDP socket each.
    pub(crate) sources: u32,
    /// First octet after 127 of these.
    pub(crate) net: u8,
}

/// What the edges share with who looks at them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) up: AtomicUsize,
    /// Since the last look.
    pub(crate) dialled: AtomicUsize,
    pub(crate) came_up: AtomicUsize,
    pub(crate) ended: AtomicUsize,
    failures: Mutex<BTreeMap<String, usize>>,
    stop: AtomicBool,
}

impl Tally {
    fn failed(&self, text: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 64 || failures.contains_key(text) {
            *failures.entry(text.to_owned()).or_default() += 1;
        }
    }

    /// Why attempts failed and tunnels ended since the last look.
    pub(crate) fn take_failures(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Edges that keep their tunnels up until this is dropped.
pub(crate) struct Fleet {
    pub(crate) tally: Arc<Tally>,
    add: Option<mpsc::UnboundedSender<(u32, Arc<ClientConfig>)>>,
    drop_all: watch::Sender<u64>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

struct Shared {
    tally: Arc<Tally>,
    dialling: Dialling,
    endpoints: Vec<(Ipv4Addr, Endpoint)>,
    transport: Arc<TransportConfig>,
    dropped: watch::Receiver<u64>,
    /// First dials wait here, so that a ramp is no storm.
    pace: Semaphore,
}

impl Fleet {
    /// `pace`: first dials at once. `nice`: how far its thread steps back behind others.
    pub(crate) fn start(dialling: Dialling, pace: usize, nice: i32) -> Self {
        let tally = Arc::<Tally>::default();
        let (add, added) = mpsc::unbounded_channel();
        let (drop_all, dropped) = watch::channel(0);
        let thread = {
            let tally = tally.clone();
            std::thread::spawn(move || {
                let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let shared = || Shared::new(tally, dialling, dropped, pace);
                runtime.block_on(async { run(Arc::new(shared()?), added).await })
            })
        };
        Self {
            tally,
            add: Some(add),
            drop_all,
            thread: Some(thread),
        }
    }

    /// More edges, which begin to dial when all have their certificates; how long those took.
    pub(crate) fn grow(&self, ca: &Ca, edges: Range<u32>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let configs = edges.map(|number| Ok((number, ca.edge(number)?)));
        let configs: Vec<_> = configs.collect::<Result<_, Failure>>()?;
        let took = begun.elapsed();
        for edge in configs {
            if let Some(add) = &self.add {
                add.send(edge).map_err(|_| Failure::FleetEnded)?;
            }
        }
        Ok(took)
    }

    /// All tunnels end at once, and their edges come back.
    pub(crate) fn drop_all(&self) {
        self.drop_all.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn up(&self) -> usize {
        self.tally.up.load(Relaxed)
    }

    /// Waits until so many are up; how long that took.
    pub(crate) fn wait_up(&self, count: usize, within: Duration) -> Result<Duration, Failure> {
        let begun = Instant::now();
        while self.up() < count {
            if begun.elapsed() > within {
                let (up, failures) = (self.up(), self.tally.take_failures());
                return Err(Failure::NotUp {
                    count,
                    up,
                    within,
                    failures,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begun.elapsed())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tally.stop.store(true, Relaxed);
        self.add = None;
        self.drop_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    mut added: mpsc::UnboundedReceiver<(u32, Arc<ClientConfig>)>,
) -> io::Result<()> {
    let mut edges = JoinSet::new();
    while let Some((number, config)) = added.recv().await {
        edges.spawn(keep(shared.clone(), number, config));
    }
    edges.shutdown().await;
    Ok(())
}

impl Shared {
    fn new(
        tally: Arc<Tally>,
        dialling: Dialling,
        dropped: watch::Receiver<u64>,
        pace: usize,
    ) -> io::Result<Self> {
        let endpoints = (0..dialling.sources).map(|source| {
            let [.., high, low] = (source + 1).to_be_bytes();
            let address = Ipv4Addr::new(127, dialling.net, high, low);
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            let _ = socket.set_recv_buffer_size(UDP_BUFFER);
            let _ = socket.set_send_buffer_size(UDP_BUFFER);
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::from((address, 0)).into())?;
            let socket: UdpSocket = socket.into();
            let runtime = Arc::new(TokioRuntime);
            let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime)?;
            Ok((address, endpoint))
        });
        Ok(Self {
            endpoints: endpoints.collect::<io::Result<_>>()?,
            tally,
            dialling,
            transport: edge::transport(),
            dropped,
            pace: Semaphore::new(pace),
        })
    }
}

enum Connected {
    Quic(quinn::Connection),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected {
    fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tls(_) => Transport::Tls,
        }
    }
}

/// Dials, holds, comes back: the agent's race and back-off.
async fn keep(shared: Arc<Shared>, number: u32, config: Arc<ClientConfig>) {
    let tally = shared.tally.clone();
    let mut dropped = shared.dropped.clone();
    let only = shared.dialling.only;
    let mut race = Race::new(
        only,
        Instant::now(),
        u64::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    );
    let mut pace = shared.pace.acquire().await.ok();
    while !tally.stop.load(Relaxed) {
        let connected = dial(&shared, number, &config, &mut race).await;
        race.connected();
        let transport = connected.transport();
        pace = None;
        dropped.mark_unchanged();
        let is_up = AtomicBool::new(false);
        let up = || {
            is_up.store(true, Relaxed);
            tally.up.fetch_add(1, Relaxed);
            tally.came_up.fetch_add(1, Relaxed);
        };
        let held = async {
            match connected {
                Connected::Quic(connection) => edge::quic(number, connection, &up).await,
                Connected::Tls(stream) => edge::tls(number, stream, &up).await,
            }
        };
        let end = tokio::select! {
            end = held => Some(end),
            _ = dropped.changed() => None,
        };
        if is_up.into_inner() {
            tally.up.fetch_sub(1, Relaxed);
            tally.ended.fetch_add(1, Relaxed);
            race.won(Instant::now(), transport);
        } else {
            let refused = end.as_ref().is_some_and(|end| end.refused);
            let why = if refused { Why::Refused } else { Why::Network };
            race.failed(Instant::now(), why);
        }
        if let Some(end) = end {
            tally.failed(&format!("{} tunnel: {}", transport.name(), end.text));
        }
    }
    drop(pace);
}

async fn dial(
    shared: &Arc<Shared>,
    number: u32,
    config: &Arc<ClientConfig>,
    race: &mut Race,
) -> Connected {
    let mut attempts = JoinSet::new();
    loop {
        if race.round_due(Instant::now()) {
            race.start_round(Instant::now(), 1);
        }
        while let Some(Attempt { transport, .. }) = race.poll_attempt(Instant::now()) {
            shared.tally.dialled.fetch_add(1, Relaxed);
            let (shared, config) = (shared.clone(), config.clone());
            attempts.spawn(async move {
                let connecting = connect(&shared, number, config, transport);
                let late = |_| Err(("no answer in time".to_owned(), Why::Network));
                let outcome = timeout(ATTEMPT, connecting).await.unwrap_or_else(late);
                outcome.map_err(|(text, why)| (format!("{} dial: {text}", transport.name()), why))
            });
        }
        tokio::select! {
            Some(Ok(outcome)) = attempts.join_next() => match outcome {
                Ok(connected) => return connected,
                Err((text, why)) => {
                    shared.tally.failed(&text);
                    race.failed(Instant::now(), why);
                }
            },
            () = sleep_until(race.poll_timeout().into()) => {}
        }
    }
}

async fn connect(
    shared: &Shared,
    number: u32,
    config: Arc<ClientConfig>,
    transport: Transport,
) -> Result<Connected, (String, Why)> {
    let text = |error: &dyn std::fmt::Display| (error.to_string(), Why::Network);
    let dialling = &shared.dialling;
    let (address, endpoint) = &shared.endpoints[number as usize % shared.endpoints.len()];
    match transport {
        Transport::Quic => {
            let crypto = QuicClientConfig::try_from(config).map_err(|e| text(&e))?;
            let mut config = quinn::ClientConfig::new(Arc::new(crypto));
            config.transport_config(shared.transport.clone());
            let connecting = endpoint.connect_with(config, dialling.headend, &dialling.name);
            let connection = connecting.map_err(|e| text(&e))?.await;
            let connection = connection.map_err(|error| match &error {
                ConnectionError::ConnectionClosed(close)
                    if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
                {
                    (error.to_string(), Why::Busy)
                }
                error => text(error),
            })?;
            Ok(Connected::Quic(connection))
        }
        Transport::Tls => {
            let socket = TcpSocket::new_v4().map_err(|e| text(&e))?;
            let source = SocketAddr::from((*address, 0));
            socket.bind(source).map_err(|e| text(&e))?;
            let stream = socket
                .connect(dialling.headend)
                .await
                .map_err(|e| text(&e))?;
            stream.set_nodelay(true).map_err(|e| text(&e))?;
            let name = ServerName::try_from(dialling.name.clone()).map_err(|e| text(&e))?;
            let connected = TlsConnector::from(config).connect(name, stream).await;
            let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
            let stream = connected.map_err(|error| match gone.contains(&error.kind()) {
                true => (error.to_string(), Why::Busy),
                false => text(&error),
            })?;
            Ok(Connected::Tls(Box::new(stream)))
        }
    }
}
