//! What `fieldlock status` shows of a headend.

use serde_json::{Value, json};

use super::Headend;
use super::tunnel::EdgeTunnel;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::status::{common, round_trip, stations};

impl Headend {
    pub(super) fn status(&self) -> Value {
        let mut status = common(
            "headend",
            &self.runtime.posture,
            &self.runtime.ledger,
            self.runtime.started,
            &self.runtime.strangers(),
        );
        status["sandbox"] = json!(self.runtime.sandbox);
        status["listening"] = self.ports.iter().map(|p| p.address.to_string()).collect();
        let trust = self.runtime.posture.trust().list.hash();
        let tunnels = self.registry.tunnels();
        status["tunnels"] = tunnels.iter().map(|t| self.tunnel(t, &trust)).collect();
        status["refusals"] = self.refusals.borrow().status();
        status["devices"] = self.devices_status();
        status["clients"] = self.clients_status();
        status["listeners"] = self.listeners_status(false);
        status["mbaps_listeners"] = self.listeners_status(true);
        status["ca_connections"] = self.splices.borrow().open().into();
        status["profinet"] = json!(
            self.runtime
                .fieldbus
                .as_ref()
                .map(|fieldbus| fieldbus.status())
        );
        status["counters"] = json!(*self.counters);
        status
    }

    fn tunnel(&self, tunnel: &EdgeTunnel, trust: &[u8; 32]) -> Value {
        let peer = &tunnel.link.peer;
        let policy = *tunnel.policy.borrow();
        json!({
            "edge": peer.identity.name.as_str(),
            "address": peer.address.to_string(),
            "transport": peer.transport.name(),
            "key_exchange": peer.group,
            "up_seconds": tunnel.link.since.elapsed().as_secs(),
            "round_trip_ms": round_trip(&tunnel.link),
            "version": tunnel.hello.agent_version,
            "policy": short_hex(&policy),
            "same_policy": policy == self.runtime.posture.hash(),
            "same_trust": tunnel.trust.get().as_ref() == Some(trust),
            "bundle": tunnel.carried.status(),
            "under_way": tunnel.under_way(),
            "stations": stations(&tunnel.link),
        })
    }

    fn listeners_status(&self, mbaps: bool) -> Value {
        let addresses = self.listeners.addresses(mbaps);
        addresses.iter().map(ToString::to_string).collect()
    }

    fn devices_status(&self) -> Value {
        let settings = self.runtime.settings();
        let devices = self.devices.borrow();
        let configured = settings.device.iter().filter_map(|configured| {
            let device = devices.named(&configured.name)?;
            let live = device.live.borrow();
            Some(json!({
                "name": configured.name,
                "edge": configured.edge(),
                "connected": live.is_some(),
                "answer_within_ms": live.as_ref().map(|c| c.answer_within.as_millis() as u64),
                "counters": device.counters,
            }))
        });
        configured.collect()
    }

    fn clients_status(&self) -> Value {
        let clients = self.clients.all();
        let shown = clients.iter().take(100).map(|client| {
            json!({
                "address": client.address.to_string(),
                "name": client.party.name,
                "identity": client.party.identity,
                "modbus_role": client.party.role,
                "connected_seconds": client.since.elapsed().as_secs(),
                "requests": client.requests.get(),
                "given_up": client.given_up,
                "in_flight": client.in_flight(),
            })
        });
        json!({ "count": clients.len(), "connections": shown.collect::<Vec<_>>() })
    }
}
