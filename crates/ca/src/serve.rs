//! `ca serve`: enrolment over the network (EST, RFC 7030), and the trust list for who waits for
//! it to change.
//!
//! Only the issuing CA's key is here. Every operation opens the CA's directory anew, so that
//! commands in another terminal go on working, and what they change is seen within [`LOOK`].

mod http;
mod limit;
mod spelling;
mod tls;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::{Role, Summary, TrustList, est};
use fieldlock_sandbox::{Needs, Sandbox, confines_files};
use hyper::http::Extensions;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::KeyPair;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use crate::authority::{Access, Ca, Life, Order};
use crate::clock::Time;
use crate::error::CaError;
use crate::event::{Refusal, Source};
use crate::generation as issuing;
use crate::passphrase::Passphrase;
use crate::settings::Serve;
pub use http::Peer;
use limit::{Asker, Limits};
use tls::Keys;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(100);
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADER: Duration = Duration::from_secs(10);
/// Of a whole connection, which carries one request: a long poll takes up to 60 s of it.
const CONNECTION: Duration = Duration::from_secs(90);
/// How long what a refused asker still sends is read, so that its own answer reaches it.
const LINGER: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(5);
/// Life of the server's own certificate, in days; it is renewed in time.
const OWN_DAYS: u16 = 7;
const OWN_DUE: Duration = Duration::from_secs(4 * 86_400);
const HOURLY: Duration = Duration::from_secs(3600);

/// The trust list as it is handed out.
#[derive(Debug)]
pub(crate) struct Published {
    list: Arc<TrustList>,
    /// With its quotes (RFC 9110, section 8.8.3).
    etag: String,
}

impl Published {
    fn new(list: TrustList) -> Self {
        let mut etag = String::from("\"");
        for octet in list.hash() {
            // Writing to a String can't fail.
            let _ = write!(etag, "{octet:02x}");
        }
        etag.push('"');
        Self {
            list: Arc::new(list),
            etag,
        }
    }
}

/// What the tasks of the server share.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    passphrase: Passphrase,
    /// Opened again when a CA was added that they lack.
    opened: Mutex<Arc<issuing::Keys>>,
    settings: Serve,
    keys: Arc<Keys>,
    published: watch::Sender<Arc<Published>>,
    limits: Mutex<Limits>,
    spelling: OnceCell<Extensions>,
    /// When the server's own certificate begins, in seconds since 1970.
    own_begins: AtomicI64,
    /// The issuing CA (DER) that signed the server's own certificate.
    own_issuer: Mutex<Vec<u8>>,
}

/// Confines this process, which is to serve at `address` and has no other thread yet, to the CA in
/// `directory`. Tokens come with other people's software, whose needs nobody knows: where there is
/// one, or a PIN for it, and where the settings say so, nothing is confined.
pub fn confine(
    directory: &Path,
    ca: &Ca,
    passphrase: &Passphrase,
    address: SocketAddr,
) -> Result<(), CaError> {
    if !ca.settings().serve.sandbox {
        return Ok(());
    }
    if passphrase.has_pin() || ca.has_key_on_token()? {
        info!("no sandbox: keys are, or may come to be, on a token");
        return Ok(());
    }
    Sandbox::enter(&Needs {
        change: vec![directory.to_owned()],
        ports: (address.port() != 0).then(|| vec![address.port()]),
        ..Needs::default()
    });
    Ok(())
}

/// A server that listens, and is not serving yet.
#[derive(Debug)]
pub struct Bound {
    server: Arc<Server>,
    listener: TcpListener,
}

impl Bound {
    /// Opens the port, and gets the server a certificate of its own CA.
    pub async fn open(
        directory: &Path,
        passphrase: Passphrase,
        address: SocketAddr,
    ) -> Result<Self, CaError> {
        let server = Server::new(directory, passphrase)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| CaError::Listen { address, error })?;
        server.maintain().await?;
        Ok(Self { server, listener })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until SIGTERM or SIGINT; answers under way may finish.
    pub async fn run(self) -> Result<(), CaError> {
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop_signal());
        let mut watching = std::pin::pin!(watch_directory(&self.server));
        let end = loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = connections.join_next(), if !connections.is_empty() => continue,
                () = &mut stop => break Ok(()),
                error = &mut watching => break Err(error),
            };
            match accepted {
                Ok((stream, address)) => {
                    let asker = Asker::from(address.ip());
                    if self.server.limits().open(asker.clone(), Instant::now()) {
                        let server = self.server.clone();
                        connections.spawn(async move {
                            connection(server.clone(), stream, address.ip()).await;
                            server.limits().close(&asker);
                        });
                    } else {
                        debug!(%address, "too many connections");
                    }
                }
                Err(error) => {
                    warn!(%error, "accepting a connection failed");
                    sleep(LOOK).await;
                }
            }
        };
        drop(self.listener);
        info!("stopping");
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(DRAIN, all).await;
        end
    }
}

impl Server {
    /// Reads the CA and unlocks its key; opens no port.
    pub fn new(directory: &Path, passphrase: Passphrase) -> Result<Arc<Self>, CaError> {
        let ca = Ca::open(directory, Access::Read)?;
        ca.records().verify(|_| ())?;
        let settings = ca.settings().serve.clone();
        let list = Published::new(ca.trust()?);
        let opened = ca.unlock(&passphrase)?;
        let limits = Limits::new(
            settings.requests_per_minute,
            settings.max_connections,
            settings.max_connections_per_address,
            Instant::now(),
        );
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            passphrase,
            opened: Mutex::new(Arc::new(opened)),
            keys: Keys::new(list.list.clone(), settings.tls12),
            settings,
            published: watch::Sender::new(Arc::new(list)),
            limits: Mutex::new(limits),
            spelling: OnceCell::new(),
            own_begins: AtomicI64::new(0),
            own_issuer: Mutex::default(),
        }))
    }

    /// The tag of the trust list that is handed out (RFC 9110, section 8.8.3), with its quotes.
    pub fn etag(&self) -> String {
        self.published().etag.clone()
    }

    /// Answers one request of `peer` on a connection whose handshake is done. It ends after at most
    /// 90 s, with an answer or, where nothing could be made of what came, without.
    pub async fn converse<S>(self: Arc<Self>, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let address = peer.address;
        // What is read after a refusal is thrown away.
        let refused = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request| {
            let (server, peer, refused) = (self.clone(), peer.clone(), refused.clone());
            async move {
                let mut response = http::answer(server.clone(), peer, request).await;
                refused.store(!response.status().is_success(), Ordering::Relaxed);
                let spelling = server.spelling.get_or_try_init(spelling::of_rfcs).await;
                *response.extensions_mut() = spelling.cloned().unwrap_or_default();
                Ok::<_, Infallible>(response)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER)
            .keep_alive(false)
            .title_case_headers(true)
            .max_buf_size(MAX_HEADER)
            .serve_connection(TokioIo::new(stream), service)
            .without_shutdown();
        match timeout(CONNECTION, serving).await {
            Ok(Ok(parts)) => {
                let refused = refused.load(Ordering::Relaxed);
                close(parts.io.into_inner(), refused).await;
            }
            Ok(Err(error)) if error.is_parse() => {
                let reason = format!("what it sent is not HTTP/1.1: {error}");
                self.refuse_stranger(address, Refusal::of(reason)).await;
            }
            Ok(Err(error)) => debug!(%address, "connection: {error}"),
            Err(_) => {}
        }
    }

    /// A line and a record of who was turned away without having proven an identity. Of more than
    /// [`Limits`] puts on record there is a count alone.
    async fn refuse_stranger(self: &Arc<Self>, address: IpAddr, refusal: Refusal) {
        let recorded = self
            .limits()
            .record_stranger(address.into(), Instant::now());
        let Some(unrecorded) = recorded else {
            debug!(%address, "refused: {}", refusal.reason);
            return;
        };
        warn!(%address, "refused: {}", refusal.reason);
        self.put_on_record(Refusal {
            address: Some(address),
            unrecorded,
            ..refusal
        })
        .await;
    }

    async fn put_on_record(self: &Arc<Self>, refusal: Refusal) {
        let recorded = self.with_ca(move |ca, _, now| ca.refuse(refusal, now));
        if let Err(error) = recorded.await {
            error!("a refusal is not on record: {error}");
        }
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_ask(&self, address: IpAddr) -> bool {
        self.limits().request(address.into(), Instant::now())
    }

    fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Opens the CA, alone, and does something with it on a thread that may wait for the disk.
    async fn with_ca<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Ca, &issuing::Keys, Time) -> Result<T, CaError> + Send + 'static,
    ) -> Result<T, CaError> {
        let server = self.clone();
        let done = spawn_blocking(move || {
            let mut ca = Ca::open(&server.directory, Access::Write)?;
            let opened = server.opened(&ca)?;
            work(&mut ca, &opened, Time::now())
        });
        done.await.map_err(|_| CaError::Interrupted)?
    }

    fn opened(&self, ca: &Ca) -> Result<Arc<issuing::Keys>, CaError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut generations = ca.all_generations().iter();
        if generations.any(|known| opened.of(&known.certificate).is_err()) {
            if confines_files() && ca.has_key_on_token()? {
                return Err(CaError::Confined);
            }
            *opened = Arc::new(ca.unlock(&self.passphrase)?);
        }
        Ok(opened.clone())
    }

    /// Issues the CRL that is due, and publishes what has changed.
    async fn maintain(self: &Arc<Self>) -> Result<(), CaError> {
        let (list, renewed, in_use) = self
            .with_ca(|ca, keys, now| {
                let due = ca.crl_due(now)?;
                if due {
                    ca.renew_crl(keys, now)?;
                }
                Ok((ca.trust()?, due, ca.active().certificate.clone()))
            })
            .await?;
        if renewed {
            info!("the CRL of the issuing CA was due: issued anew");
        }
        let published = Published::new(list);
        if published.etag != self.published().etag {
            info!(
                trust_list = published.etag,
                "another trust list is published"
            );
            self.keys.set_trust(published.list.clone());
            self.published.send_replace(Arc::new(published));
        }
        // Tokens name the root of the CA in use: the server has to show it.
        if in_use != *self.own_issuer() {
            self.renew_own().await?;
        }
        Ok(())
    }

    fn own_issuer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.own_issuer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets the server a new key and certificate.
    async fn renew_own(self: &Arc<Self>) -> Result<(), CaError> {
        let key = KeyPair::generate().map_err(|error| CaError::Issue(error.into()))?;
        let pkcs8 = Zeroizing::new(key.serialize_der());
        let order = Order {
            role: Role::Ca,
            name: self.settings.name.clone(),
            modbus_role: None,
            key: PublicKey::of(&key)?,
            source: Source::Made,
            life: Life::Days(OWN_DAYS),
        };
        let issued = self
            .with_ca(move |ca, keys, now| ca.issue(keys, order, now))
            .await?;
        self.keys.set_own(&issued.bundle, &pkcs8)?;
        self.own_begins
            .store(issued.summary.not_before, Ordering::Relaxed);
        let issuer = issued.bundle.trust.issuer_of(&issued.bundle.leaf);
        *self.own_issuer() = issuer.unwrap_or_default().to_vec();
        Ok(())
    }

    fn warn_of_dates(&self) {
        let list = &self.published().list;
        for crl in list.crl_dates() {
            let what = match crl.is_root {
                true => "issue it with `fieldlock ca root crl`",
                false => "see the errors above",
            };
            let name = format!("CRL of {:?}", crl.authority);
            warn_of_date(&name, crl.this_update, crl.next_update, what);
        }
        for (ders, kind, what) in [
            (&list.issuing, "issuing CA", "`fieldlock ca issuing new`"),
            (&list.roots, "root", "`fieldlock ca root new`"),
        ] {
            for ca in ders.iter().filter_map(|der| Summary::of(der).ok()) {
                let name = format!("{kind} {:?}", ca.subject);
                let what = format!("turn it over, beginning with {what}");
                warn_of_date(&name, ca.not_before, ca.not_after, &what);
            }
        }
    }
}

/// In the last third of a life (seconds since 1970).
fn warn_of_date(name: &str, begin: i64, end: i64, what: &str) {
    let left = end - Time::now().0;
    let days = left.div_euclid(86_400);
    if left < 0 {
        error!("the {name} is past its date: {what}");
    } else if left * 3 < end - begin {
        warn!("the {name} is good for {days} days more: {what}");
    }
}

/// One connection: its handshake, then one request.
async fn connection(server: Arc<Server>, stream: TcpStream, address: IpAddr) {
    let (config, judge) = match server.keys.config() {
        Ok(config) => config,
        Err(error) => return error!("TLS: {error}"),
    };
    let acceptor = TlsAcceptor::from(config);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
            match tls {
                Some(tls) => {
                    let refusal = Refusal::of(judge.reason(tls));
                    server.refuse_stranger(address, refusal).await;
                }
                // Who closes without a word has asked for nothing.
                None => debug!(%address, "handshake: {error}"),
            }
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first());
    let peer = Peer {
        address,
        certificate: certificate.map(|leaf| Arc::from(leaf.as_ref())),
    };
    server.converse(stream, peer).await;
}

const MAX_HEADER: usize = 16 * 1024;

/// Ends a connection. What is not read when a socket closes turns into a reset, which may overtake the
/// answer: a refused asker, who may be sending a body yet, is heard out for a moment.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin, refused: bool) {
    let ending = async {
        if stream.shutdown().await.is_ok() && refused {
            let mut rest = stream.take(est::MAX_BODY as u64);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    let _ = timeout(LINGER, ending).await;
}

/// Sees what other commands change, and what time brings; returns when the server can't go on.
async fn watch_directory(server: &Arc<Server>) -> CaError {
    let mut tick = interval(LOOK);
    let mut seen = stamps(&server.directory);
    let mut hour = Instant::now();
    let mut own_due = Instant::now() + OWN_DUE;
    server.warn_of_dates();
    loop {
        tick.tick().await;
        let now = stamps(&server.directory);
        let hourly = hour.elapsed() >= HOURLY;
        if now != seen || hourly {
            match server.maintain().await {
                Err(error @ CaError::Confined) => return error,
                Err(error) => error!("the CA's directory: {error}"),
                Ok(()) => {}
            }
            seen = stamps(&server.directory);
        }
        if hourly {
            hour = Instant::now();
            server.warn_of_dates();
            // Made by a clock that was ahead: nobody takes it yet.
            if server.own_begins.load(Ordering::Relaxed) > Time::now().0 {
                own_due = hour;
            }
        }
        if Instant::now() >= own_due {
            let next = match server.renew_own().await {
                Ok(()) => OWN_DUE,
                Err(error) => {
                    error!("the server's own certificate: {error}");
                    HOURLY
                }
            };
            own_due = Instant::now() + next;
        }
    }
}

type Stamp = Option<(u64, u64, i64, i64)>;

fn stamps(directory: &Path) -> Vec<Stamp> {
    let stamp = |name: &&str| {
        let data = fs::metadata(directory.join(name)).ok()?;
        Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    };
    crate::layout::PUBLISHED.iter().map(stamp).collect()
}

async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
