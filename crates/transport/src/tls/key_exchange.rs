//! Which key exchange a QUIC connection really used.
//!
//! quinn does not pass on the group that rustls negotiated. So the groups that this
//! program offers note their name when one of them *completes*, and a thin layer around
//! quinn's TLS session collects the note: rustls runs the exchange inside
//! `read_handshake`, on the same stack, so the note can only be that connection's own.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use super::refusal::Refusal;
use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
    Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};

/// What this program offers and accepts, the preferred first: hybrid post-quantum
/// (draft-ietf-tls-ecdhe-mlkem), then X25519 and P-256.
pub(super) static GROUPS: [&dyn SupportedKxGroup; 3] = [
    &Noted(kx_group::X25519MLKEM768),
    &Noted(kx_group::X25519),
    &Noted(kx_group::SECP256R1),
];

/// How many of them, from the first, are hybrid post-quantum.
pub(super) const HYBRID: usize = 1;

thread_local! {
    static COMPLETED: Cell<Option<NamedGroup>> = const { Cell::new(None) };
}

/// What [`quinn::Connection::handshake_data`] holds for our sessions.
#[derive(Debug, Clone)]
pub(crate) struct Negotiated {
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) group: Option<NamedGroup>,
}

#[derive(Debug, Clone, Copy)]
struct Noted(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Noted {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(NotedExchange(self.0.start()?)))
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, rustls::Error> {
        let completed = self.0.start_and_complete(peer)?;
        COMPLETED.set(Some(completed.group));
        Ok(completed)
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }

    fn usable_for_version(&self, version: rustls::ProtocolVersion) -> bool {
        self.0.usable_for_version(version)
    }
}

struct NotedExchange(Box<dyn ActiveKeyExchange>);

impl ActiveKeyExchange for NotedExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let group = self.0.group();
        let secret = self.0.complete(peer)?;
        COMPLETED.set(Some(group));
        Ok(secret)
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        self.0.hybrid_component()
    }

    fn complete_hybrid_component(
        self: Box<Self>,
        peer: &[u8],
    ) -> Result<SharedSecret, rustls::Error> {
        let group = self.0.hybrid_component().map(|(group, _)| group);
        let secret = self.0.complete_hybrid_component(peer)?;
        COMPLETED.set(group);
        Ok(secret)
    }

    fn pub_key(&self) -> &[u8] {
        self.0.pub_key()
    }

    fn group(&self) -> NamedGroup {
        self.0.group()
    }
}

/// quinn's TLS session, with the note of the exchange beside it.
struct NotedSession {
    inner: Box<dyn Session>,
    group: Option<NamedGroup>,
}

impl NotedSession {
    fn boxed(inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(Self { inner, group: None })
    }
}

impl Session for NotedSession {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        COMPLETED.set(None);
        Refusal::noted();
        let outcome = self.inner.read_handshake(buf).map_err(Refusal::put_into);
        if let Some(group) = COMPLETED.take() {
            self.group = Some(group);
        }
        outcome
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = self.inner.handshake_data()?;
        let data = data
            .downcast::<quinn::crypto::rustls::HandshakeData>()
            .ok()?;
        Some(Box::new(Negotiated {
            alpn: data.protocol,
            group: self.group,
        }))
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(id, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// A QUIC configuration whose sessions know their key exchange.
pub(super) struct NotedConfig<C>(pub(super) Arc<C>);

impl<C: ClientConfig + 'static> ClientConfig for NotedConfig<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = self.0.clone().start_session(version, server_name, params)?;
        Ok(NotedSession::boxed(session))
    }
}

impl<C: ServerConfig + 'static> ServerConfig for NotedConfig<C> {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, id, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        NotedSession::boxed(self.0.clone().start_session(version, params))
    }
}
