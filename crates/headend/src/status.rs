//! What `fieldlock status` shows of a headend.

use std::collections::HashMap;

use fieldlock_status::{
    Alarm, DeviceRow, Devices, Listing, OneDevice, Page, PeerRow, State, Status, choose, headend,
};

use super::client::ClientConn;
use super::devices::{Device, DeviceCounters};
use super::tunnel::EdgeTunnel;
use super::{Counters, Headend};
use crate::settings::{Device as DeviceSettings, File};
use fieldlock_agent::control::Reports;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::recent::Recent;
use fieldlock_agent::status::{alarms, common, round_trip, state, stations};

/// Clients that are shown: a person looks, and there may be thousands.
const CLIENTS: usize = 100;

impl Reports for Headend {
    fn status(&self) -> Status {
        let trust = self.runtime.posture.trust().list.hash();
        let tunnels = self.registry.tunnels();
        Status::Headend(Box::new(headend::Headend {
            common: common(&self.runtime),
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

    fn state(&self) -> State {
        let settings = self.runtime.settings();
        let edges = edges_of(&settings);
        State {
            peers: edges.keys().map(|edge| self.peer_row(edge)).collect(),
            devices: self.device_rows(&settings),
            ..state("headend", &self.runtime.posture, &self.runtime.ledger)
        }
    }

    fn edges(&self, page: &Page) -> Option<Listing<headend::EdgeEntry>> {
        let settings = self.runtime.settings();
        let edges = edges_of(&settings);
        let tunnel = |name: &str| self.registry.tunnel(name);
        let filter = &page.filter;
        let keep = |name: &str| {
            let connected = filter
                .connected
                .is_none_or(|is| is == tunnel(name).is_some());
            connected && filter.edge.as_deref().is_none_or(|edge| edge == name)
        };
        let chosen = choose(edges.keys().copied(), page, keep);
        let trust = self.runtime.posture.trust().list.hash();
        Some(Listing::of(&chosen, |name| {
            let tunnel = tunnel(name);
            Some(headend::EdgeEntry {
                name: name.to_owned(),
                connected: tunnel.is_some(),
                devices: *edges.get(name)?,
                tunnel: tunnel.map(|tunnel| self.tunnel_status(&tunnel, &trust)),
            })
        }))
    }

    fn devices(&self, page: &Page) -> Option<Devices> {
        let settings = self.runtime.settings();
        let configured: HashMap<&str, &DeviceSettings> = settings
            .device
            .iter()
            .map(|device| (device.name.as_str(), device))
            .collect();
        let devices = self.devices.borrow();
        let find = |name: &str| Some((*configured.get(name)?, devices.named(name)?));
        let filter = &page.filter;
        let keep = |name: &str| {
            find(name).is_some_and(|(configured, device)| {
                let is_connected = device.live.borrow().is_some();
                filter.connected.is_none_or(|is| is == is_connected)
                    && filter
                        .edge
                        .as_deref()
                        .is_none_or(|edge| edge == configured.edge())
            })
        };
        let chosen = choose(configured.keys().copied(), page, keep);
        Some(Devices::Headend(Listing::of(&chosen, |name| {
            find(name).map(|(configured, known)| device(configured, known))
        })))
    }

    fn device(&self, name: &str) -> Option<OneDevice> {
        let settings = self.runtime.settings();
        let configured = settings.device.iter().find(|device| device.name == name)?;
        let devices = self.devices.borrow();
        Some(OneDevice::Headend {
            device: device(configured, devices.named(name)?),
        })
    }

    fn alarms(&self) -> Vec<Alarm> {
        alarms(&self.runtime.ledger)
    }

    fn recent(&self) -> &Recent {
        self.runtime.ledger.recent()
    }
}

/// The edges that a configuration names, each with how many devices it may offer.
fn edges_of(settings: &File) -> HashMap<&str, u64> {
    let mut edges = HashMap::new();
    for device in &settings.device {
        *edges.entry(device.edge()).or_default() += 1;
    }
    for station in &settings.station {
        edges.entry(station.edge()).or_default();
    }
    edges
}

impl Headend {
    fn peer_row(&self, edge: &str) -> PeerRow {
        let name = edge.to_owned();
        let Some(tunnel) = self.registry.tunnel(edge) else {
            return PeerRow {
                name,
                ..PeerRow::default()
            };
        };
        let peer = &tunnel.link.peer;
        PeerRow {
            name,
            connected: true,
            transport: Some(peer.transport.name().into()),
            address: Some(peer.address.to_string()),
            same_policy: Some(*tunnel.policy.borrow() == self.runtime.posture.hash()),
        }
    }

    fn device_rows(&self, settings: &File) -> Vec<DeviceRow> {
        let devices = self.devices.borrow();
        let rows = settings.device.iter().filter_map(|configured| {
            let device = devices.named(&configured.name)?;
            let counters = device.counters.snapshot();
            Some(DeviceRow {
                name: configured.name.clone(),
                edge: Some(configured.edge().to_owned()),
                connected: Some(device.live.borrow().is_some()),
                answered: counters.answered,
                refused: counters.refused + counters.refused_by_edge,
                lost: counters.lost,
            })
        });
        rows.collect()
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
