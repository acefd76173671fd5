//! Devices that speak Modbus/TCP Security: the handshake before anything is asked, and their
//! certificates while they are connected.

use std::rc::Rc;

use fieldlock_audit::{Kind, Record};
use fieldlock_pki::Name;
use fieldlock_transport::sealed::Sealed;
use fieldlock_transport::tls::{Proof, handshake};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::Edge;
use super::device::Device;
use crate::settings::Mbaps;
use fieldlock_agent::posture::Posture;

/// Shows the edge's certificate to a device, and judges the device's.
pub(super) async fn shake_hands(
    posture: &Posture,
    device: &str,
    settings: &Mbaps,
    stream: TcpStream,
) -> Result<(TcpStream, Sealed, Proof), String> {
    let name = match &settings.name {
        Some(name) => name.clone(),
        None => device.parse::<Name>().map_err(|error| error.to_string())?,
    };
    let trust = posture.trust();
    let config = trust.mbaps_client(settings.tls);
    let connector = TlsConnector::from(config.ok_or("no client configuration")?);
    let connecting = connector.connect(trust.device_name(&name)?, stream);
    let stream = handshake(connecting).await;
    let (stream, tls) = stream.map_err(|refusal| refusal.to_string())?.into_inner();
    let proof = Proof::of(&tls)?;
    // The lists may have changed during the handshake, after the others were judged again.
    let present = posture.trust();
    if !Rc::ptr_eq(&trust, &present) {
        present.still_trusts_mbaps(&proof)?;
    }
    Ok((stream, Sealed::new(tls.into()), proof))
}

impl Edge {
    /// Cuts every connection to a device whose certificate the trust in force does not accept any
    /// more.
    pub(super) fn sweep_devices(&self) {
        let trust = self.runtime.posture.trust();
        for device in self.devices() {
            device.judge_again(|proof| trust.still_trusts_mbaps(proof));
        }
    }
}

impl Device {
    fn judge_again(self: &Rc<Self>, judge: impl Fn(&Proof) -> Result<(), String>) {
        let mut refused = Vec::new();
        for line in self.lines.borrow().iter().flatten() {
            if let Some(Err(reason)) = line.proof().map(&judge) {
                refused.push((line.conn, reason));
            }
        }
        for (conn, reason) in refused {
            warn!(device = %self.name, "cut off: {reason}");
            self.ledger.note(Record {
                device: Some(self.name.clone()),
                reason: Some(reason.into()),
                ..Record::new(Kind::Revoked)
            });
            self.closed(conn, false);
        }
    }
}
