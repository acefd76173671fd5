//! What `fieldlock status` shows of a headend.

use fieldlock_status::{Status, headend};

use super::client::ClientConn;
use super::devices::{Device, DeviceCounters};
use super::tunnel::EdgeTunnel;
use super::{Counters, Headend};
use crate::settings::Device as DeviceSettings;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::status::{common, round_trip, stations};

/// Clients that are shown: a person looks, and there may be thousands.
const CLIENTS: usize = 100;

impl Headend {
    pub(super) fn status(&self) -> Status {
        let trust = self.runtime.posture.trust().list.hash();
        let tunnels = self.registry.tunnels();
        Status::Headend(Box::new(headend::Headend {
            common: common(
                &self.runtime.posture,
                &self.runtime.ledger,
                self.runtime.started,
                &self.runtime.strangers(),
                self.runtime.sandbox,
            ),
            listening: self.ports.iter().map(|p| p.address.to_string()).collect(),
            tunnels: tunnels
                .iter()
                .map(|tunnel| self.tunnel_status(tunnel, &trust))
                .collect(),
            refusals: self.refusals.borrow().status(),
            devices: self.devices_status(),
            clients: self.clients_status(),
            listeners: self.listeners_status(false),
            mbaps_listeners: self.listeners_status(true),
            ca_connections: self.splices.borrow().open() as u64,
            profinet: self
                .runtime
                .fieldbus
                .as_ref()
                .map(|fieldbus| fieldbus.status()),
            counters: self.counters.snapshot(),
        }))
    }

    /// `trust`: the hash of the headend's own trust list.
    fn tunnel_status(&self, tunnel: &EdgeTunnel, trust: &[u8; 32]) -> headend::Tunnel {
        let peer = &tunnel.link.peer;
        let policy = *tunnel.policy.borrow();
        headend::Tunnel {
            edge: peer.identity.name.as_str().to_owned(),
            address: peer.address.to_string(),
            transport: peer.transport.name().into(),
            key_exchange: peer.group.clone(),
            up_seconds: tunnel.link.since.elapsed().as_secs(),
            round_trip_ms: round_trip(&tunnel.link),
            version: tunnel.hello.agent_version.clone(),
            policy: short_hex(&policy),
            same_policy: policy == self.runtime.posture.hash(),
            same_trust: tunnel.trust.get().as_ref() == Some(trust),
            bundle: tunnel.carried.status(),
            under_way: tunnel.under_way() as u64,
            stations: stations(&tunnel.link),
        }
    }

    fn listeners_status(&self, mbaps: bool) -> Vec<String> {
        let addresses = self.listeners.addresses(mbaps);
        addresses.iter().map(ToString::to_string).collect()
    }

    fn devices_status(&self) -> Vec<headend::Device> {
        let settings = self.runtime.settings();
        let devices = self.devices.borrow();
        let configured = settings
            .device
            .iter()
            .filter_map(|configured| Some(device(configured, devices.named(&configured.name)?)));
        configured.collect()
    }

    fn clients_status(&self) -> headend::Clients {
        let clients = self.clients.all();
        let shown = clients.iter().take(CLIENTS);
        headend::Clients {
            count: clients.len() as u64,
            connections: shown.map(|shown| client(shown)).collect(),
        }
    }
}

fn device(configured: &DeviceSettings, device: &Device) -> headend::Device {
    let live = device.live.borrow();
    headend::Device {
        name: configured.name.clone(),
        edge: configured.edge().to_owned(),
        connected: live.is_some(),
        answer_within_ms: live.as_ref().map(|c| c.answer_within.as_millis() as u64),
        counters: device.counters.snapshot(),
    }
}

fn client(client: &ClientConn) -> headend::Client {
    let party = &client.party;
    headend::Client {
        address: client.address.to_string(),
        name: party.name.as_deref().map(str::to_owned),
        identity: party.identity.as_deref().map(str::to_owned),
        modbus_role: party.role.as_deref().map(str::to_owned),
        connected_seconds: client.since.elapsed().as_secs(),
        requests: client.requests.get(),
        given_up: client.given_up.get(),
        in_flight: client.in_flight() as u64,
    }
}

impl DeviceCounters {
    pub(super) fn snapshot(&self) -> headend::DeviceCounters {
        headend::DeviceCounters {
            answered: self.answered.get(),
            busy: self.busy.get(),
            forwarded: self.forwarded.get(),
            late: self.late.get(),
            lost: self.lost.get(),
            not_sent: self.not_sent.get(),
            refused: self.refused.get(),
            refused_by_edge: self.refused_by_edge.get(),
            repeats_refused: self.repeats_refused.get(),
        }
    }
}

impl Counters {
    pub(super) fn snapshot(&self) -> headend::Counters {
        headend::Counters {
            clients_refused: self.clients_refused.get(),
            given_up: self.given_up.get(),
            handshakes_put_off: self.handshakes_put_off.get(),
            handshakes_refused: self.handshakes_refused.get(),
            no_route: self.no_route.get(),
            not_modbus: self.not_modbus.get(),
            repeated: self.repeated.get(),
            splices_refused: self.splices_refused.get(),
        }
    }
}
