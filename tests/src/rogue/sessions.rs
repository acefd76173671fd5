//! TLS sessions that outlive a connection: who wants to resume one, with early data (0-RTT), and
//! who invites it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fieldlock_session::Frame;
use fieldlock_session::frame::CONTROL;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use tokio::runtime::Runtime;

use super::{Face, Rogue, RogueHeadend, SERVER, STEP, client_config, connecting, limited};
use crate::Transport;

/// Of one peer.
const REMEMBERED: usize = 64;

/// A dialler that keeps the sessions it is given, by whatever server, and shows them to the next:
/// all servers have one name to it.
#[derive(Debug)]
pub struct Returning(ClientConfig);

/// How a server took early data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// There was no session to send it with.
    NoSession,
    Accepted,
    Refused,
}

impl Returning {
    pub fn new(face: Face) -> Self {
        let mut config = client_config(face);
        config.resumption = Resumption::in_memory_sessions(REMEMBERED);
        config.enable_early_data = true;
        Self(config)
    }

    /// As [`Rogue::dial`], resuming a session if there is one.
    pub fn dial(&self, transport: Transport, address: SocketAddr) -> Result<Rogue, String> {
        Rogue::dial_as(transport, address, self.0.clone())
    }

    /// Is let in by `host`, which says something: what it gives of sessions has then arrived.
    pub fn visit(&self, transport: Transport, host: &RogueHeadend) -> (Rogue, Rogue) {
        std::thread::scope(|scope| {
            let accepted = scope.spawn(|| {
                let mut accepted = host.accept()?;
                accepted.send(CONTROL, &Frame::Ready)?;
                Ok::<_, String>(accepted)
            });
            let mut own = self.dial(transport, host.address).unwrap();
            // On QUIC a stream is there once something was said on it.
            own.send(CONTROL, &Frame::Ready).unwrap();
            own.receive(CONTROL).unwrap();
            (own, accepted.join().unwrap().unwrap())
        })
    }

    /// Sends `octets` before the handshake.
    pub fn early(
        &self,
        transport: Transport,
        address: SocketAddr,
        octets: &[u8],
    ) -> Result<Early, String> {
        match transport {
            Transport::Tls => self.early_tls(address, octets),
            _ => {
                let runtime = super::runtime();
                self.early_quic(&runtime, address, octets)
            }
        }
    }

    fn early_tls(&self, address: SocketAddr, octets: &[u8]) -> Result<Early, String> {
        let name = ServerName::try_from(SERVER).unwrap();
        let mut tls = ClientConnection::new(Arc::new(self.0.clone()), name).unwrap();
        let Some(mut early) = tls.early_data() else {
            return Ok(Early::NoSession);
        };
        early.write_all(octets).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(STEP)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)
                .map_err(|error| error.to_string())?;
        }
        if tls.is_early_data_accepted() {
            return Ok(Early::Accepted);
        }
        assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
        Ok(Early::Refused)
    }

    fn early_quic(
        &self,
        runtime: &Runtime,
        address: SocketAddr,
        octets: &[u8],
    ) -> Result<Early, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        runtime.block_on(limited(async {
            let (_endpoint, connecting) = connecting(address, self.0.clone())?;
            let Ok((connection, accepted)) = connecting.into_0rtt() else {
                return Ok(Early::NoSession);
            };
            let (mut send, _recv) = connection.open_bi().await.map_err(|e| text(&e))?;
            send.write_all(octets).await.map_err(|e| text(&e))?;
            Ok(match accepted.await {
                true => Early::Accepted,
                false => Early::Refused,
            })
        }))
    }
}

/// The sessions that a server handed out, and how often somebody came back with one.
#[derive(Debug)]
pub struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    given: AtomicUsize,
    shown: AtomicUsize,
}

impl Sessions {
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    pub fn shown(&self) -> usize {
        self.shown.load(Ordering::Relaxed)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.cache.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shown.fetch_add(1, Ordering::Relaxed);
        self.cache.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shown.fetch_add(1, Ordering::Relaxed);
        self.cache.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl RogueHeadend {
    /// As [`RogueHeadend::listen`], and invites whoever comes to come back with early data.
    pub fn inviting(transport: Transport, face: Face) -> (Self, Arc<Sessions>) {
        let sessions = Arc::new(Sessions {
            cache: ServerSessionMemoryCache::new(REMEMBERED),
            given: AtomicUsize::new(0),
            shown: AtomicUsize::new(0),
        });
        let mut config = super::server_config(face);
        config.session_storage = sessions.clone();
        config.send_tls13_tickets = 2;
        // QUIC allows no other (RFC 9001, section 4.6.1).
        config.max_early_data_size = u32::MAX;
        (Self::listen_as(transport, config), sessions)
    }
}
