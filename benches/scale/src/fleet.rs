//! Many edges on threads of their own, each dialling as an agent does.

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

use crate::edge;
use crate::site::Ca;
use crate::{Failure, PATIENCE};

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
    /// Threads that the edges share.
    pub(crate) threads: u32,
    /// Addresses that edges dial from, of 127.0.0.0/8, a UDP socket each, in each thread.
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
    turns: Arc<Semaphore>,
    drop_all: watch::Sender<u64>,
    threads: Vec<Thread>,
}

struct Thread {
    add: mpsc::UnboundedSender<(u32, Arc<ClientConfig>)>,
    handle: JoinHandle<io::Result<()>>,
}

struct Shared {
    tally: Arc<Tally>,
    dialling: Dialling,
    endpoints: Vec<(Ipv4Addr, Endpoint)>,
    transport: Arc<TransportConfig>,
    dropped: watch::Receiver<u64>,
    /// Who dials holds one.
    turns: Arc<Semaphore>,
}

impl Fleet {
    /// `dials`: edges that dial at once. `nice`: how far its threads step back behind others.
    pub(crate) fn start(dialling: &Dialling, dials: usize, nice: i32) -> Self {
        let tally = Arc::<Tally>::default();
        let turns = Arc::new(Semaphore::new(dials));
        let (drop_all, dropped) = watch::channel(0);
        let threads = (0..dialling.threads).map(|number| {
            let (add, added) = mpsc::unbounded_channel();
            let (tally, dialling, dropped) = (tally.clone(), dialling.clone(), dropped.clone());
            let turns = turns.clone();
            let handle = std::thread::spawn(move || {
                let _ = rustix::process::nice(nice);
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let shared = || Shared::new(tally, dialling, number, dropped, turns);
                runtime.block_on(async { run(Arc::new(shared()?), added).await })
            });
            Thread { add, handle }
        });
        Self {
            threads: threads.collect(),
            tally,
            turns,
            drop_all,
        }
    }

    /// More edges, which begin to dial when all have their certificates; how long those took.
    pub(crate) fn grow(&self, ca: &Ca, edges: Range<u32>) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let configs = edges.map(|number| Ok((number, ca.edge(number)?)));
        let configs: Vec<_> = configs.collect::<Result<_, Failure>>()?;
        let took = begun.elapsed();
        for (edge, thread) in configs.into_iter().zip(self.threads.iter().cycle()) {
            thread.add.send(edge).map_err(|_| Failure::FleetEnded)?;
        }
        Ok(took)
    }

    /// All tunnels end at once, and their edges come back.
    pub(crate) fn drop_all(&self) {
        self.drop_all.send_modify(|generation| *generation += 1);
    }

    /// So many more edges may dial at once.
    pub(crate) fn let_dial(&self, more: usize) {
        self.turns.add_permits(more);
    }

    /// Waits until `what`, of the tally, is so many; how long that took.
    pub(crate) fn wait(&self, count: usize, what: &AtomicUsize) -> Result<Duration, Failure> {
        let begun = Instant::now();
        while what.load(Relaxed) < count {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::NotUp {
                    count,
                    up: self.tally.up.load(Relaxed),
                    failures: self.tally.take_failures(),
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
        self.drop_all();
        for Thread { add, handle } in self.threads.drain(..) {
            drop(add);
            let _ = handle.join();
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
        thread: u32,
        dropped: watch::Receiver<u64>,
        turns: Arc<Semaphore>,
    ) -> io::Result<Self> {
        let first = thread * dialling.sources;
        let endpoints = (first..first + dialling.sources).map(|source| {
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
            turns,
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
    while !tally.stop.load(Relaxed) {
        let connected = dial(&shared, number, &config, &mut race).await;
        race.connected();
        let transport = connected.transport();
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
}

async fn dial(
    shared: &Arc<Shared>,
    number: u32,
    config: &Arc<ClientConfig>,
    race: &mut Race,
) -> Connected {
    let mut attempts = JoinSet::new();
    let mut turn = None;
    loop {
        if race.round_due(Instant::now()) {
            if turn.is_none() {
                turn = shared.turns.acquire().await.ok();
            }
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
                    if attempts.is_empty() {
                        turn = None;
                    }
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
