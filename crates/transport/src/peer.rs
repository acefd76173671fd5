//! Who is at the other end of a tunnel, as its handshake proved it.

use std::net::SocketAddr;

use fieldlock_pki::{Identity, Summary};
use fieldlock_session::{ALPN, Transport};
use rustls::pki_types::CertificateDer;

use crate::tls::{Negotiated, group_name};

/// Whom the certificate of the other side proves, and how it is connected.
#[derive(Debug, Clone)]
pub struct Peer {
    pub identity: Identity,
    pub chain: Vec<CertificateDer<'static>>,
    /// First and last second of its certificate, since 1970.
    pub valid: (i64, i64),
    pub address: SocketAddr,
    pub transport: Transport,
    /// Key exchange group that was negotiated.
    pub group: String,
}

/// What the handshake proved about the other side of a QUIC connection.
pub fn quic_peer(connection: &quinn::Connection) -> Result<Peer, String> {
    let negotiated = connection
        .handshake_data()
        .and_then(|data| data.downcast::<Negotiated>().ok())
        .ok_or("the handshake has no data")?;
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let group = negotiated.group.map_or("unknown".into(), group_name);
    peer(
        *chain,
        (negotiated.alpn.as_deref(), ALPN),
        connection.remote_address(),
        Transport::Quic,
        group,
    )
}

/// The same of a TLS connection, which has to be for `alpn`.
pub fn tls_peer(
    state: &rustls::CommonState,
    alpn: &[u8],
    address: SocketAddr,
) -> Result<Peer, String> {
    let chain = state
        .peer_certificates()
        .ok_or("the peer showed no certificate")?
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let group = state.negotiated_key_exchange_group();
    let group = group.map_or("unknown".into(), |group| group_name(group.name()));
    let alpn = (state.alpn_protocol(), alpn);
    peer(chain, alpn, address, Transport::Tls, group)
}

fn peer(
    chain: Vec<CertificateDer<'static>>,
    (alpn, wanted): (Option<&[u8]>, &[u8]),
    address: SocketAddr,
    transport: Transport,
    group: String,
) -> Result<Peer, String> {
    if alpn != Some(wanted) {
        return Err(format!("no ALPN `{}`", wanted.escape_ascii()));
    }
    let leaf = chain.first().ok_or("the peer showed no certificate")?;
    let identity = Identity::from_certificate(leaf).map_err(|error| error.to_string())?;
    let summary = Summary::of(leaf).map_err(|error| error.to_string())?;
    Ok(Peer {
        identity,
        valid: (summary.not_before, summary.not_after),
        chain,
        address: canonical(address),
        transport,
        group,
    })
}

/// An IPv4 address that came in through an IPv6 socket, as itself.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
