//! Clients that speak Modbus/TCP Security: the handshake before they are clients like others, and
//! their certificates while they are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_audit::{Kind, Party, Record};
use fieldlock_conduit::client::Routes;
use fieldlock_tls::words;
use fieldlock_transport::sealed::Sealed;
use fieldlock_transport::socket;
use fieldlock_transport::tls::{Proof, Refusal, handshake};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Headend;
use super::client::{self, Arrival};
use super::seats::Seat;
use fieldlock_agent::ledger::denial;

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest identity that the frame which tells an edge of a client has room for.
const MAX_IDENTITY: usize = 255;

/// Makes the handshake and serves the client.
pub(super) async fn accept(
    headend: Rc<Headend>,
    stream: TcpStream,
    address: SocketAddr,
    routes: Arc<Routes>,
    seat: Seat,
) {
    let shaken = match timeout(HANDSHAKE, shake_hands(&headend, stream)).await {
        Ok(shaken) => shaken,
        Err(_) => Err("no complete handshake in time".into()),
    };
    match shaken {
        Ok((stream, sealed, proof)) => {
            let (reader, writer) = socket::split(stream, Some(sealed));
            let arrival = Arrival {
                address,
                routes,
                writer,
                proof: Some(proof),
                seat,
            };
            client::serve(headend, arrival, reader).await;
        }
        Err(refusal) => headend.mbaps_refused(address, &refusal),
    }
}

async fn shake_hands(
    headend: &Headend,
    stream: TcpStream,
) -> Result<(TcpStream, Sealed, Proof), Refusal> {
    let trust = headend.runtime.posture.trust();
    let config = trust.mbaps_server(headend.runtime.settings().mbaps.tls);
    let acceptor = TlsAcceptor::from(config.ok_or("no server configuration")?);
    let stream = handshake(acceptor.accept(stream)).await.map_err(hinted)?;
    let (stream, tls) = stream.into_inner();
    let proof = Proof::of(&tls)?;
    if proof.identity.uri().len() > MAX_IDENTITY {
        return Err(format!(
            "its identity has more than {MAX_IDENTITY} octets: issue one with a shorter name"
        )
        .into());
    }
    // The lists may have changed during the handshake, after the others were judged again.
    let present = headend.runtime.posture.trust();
    if !Rc::ptr_eq(&trust, &present) {
        present.still_trusts_mbaps(&proof)?;
    }
    Ok((stream, Sealed::new(tls.into()), proof))
}

/// Says what to do, where a common mistake shows.
fn hinted(refusal: Refusal) -> Refusal {
    let hint = match &*refusal.why {
        words::NOT_TLS => "plain Modbus/TCP belongs on another port",
        words::NO_TLS13 => "`tls = \"1.2\"` under [mbaps] would let it in",
        _ => return refusal,
    };
    format!("{}: {hint}", refusal.why).into()
}

impl Headend {
    fn mbaps_refused(&self, address: SocketAddr, refusal: &Refusal) {
        self.counters.clients_refused.add();
        let party = refusal.party(Party {
            address: Some(address.ip()),
            ..Party::default()
        });
        let record = denial(Kind::ClientRefused, &party, &refusal.why);
        if self.runtime.ledger.repeated(record) {
            warn!(%address, "MBAPS client refused: {refusal}");
        } else {
            debug!(%address, "MBAPS client refused: {refusal}");
        }
    }

    /// Cuts every client whose certificate the trust in force does not accept any more.
    pub(super) fn sweep_clients(&self) {
        let trust = self.runtime.posture.trust();
        for client in self.clients.all() {
            let Some(proof) = &client.proof else { continue };
            if let Err(reason) = trust.still_trusts_mbaps(proof) {
                warn!(identity = %proof.identity, "client cut off: {reason}");
                self.runtime.ledger.note(Record {
                    client: Some(client.party.clone()),
                    reason: Some(reason.into()),
                    ..Record::new(Kind::Revoked)
                });
                client.close("its certificate is not accepted any more");
            }
        }
    }

    /// Cuts every client whose certificate has ended at `now`.
    pub(super) fn cut_expired_clients(&self, now: i64) {
        for client in self.clients.all() {
            let ended = |proof: &Proof| proof.not_after < now;
            if client.proof.as_ref().is_some_and(ended) {
                client.close("its certificate has expired");
            }
        }
    }
}
