//! What `fieldlock status` shows of an edge.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fieldlock_pki::store::POLICY_BUNDLE;
use fieldlock_status::headend::EdgeEntry;
use fieldlock_status::{
    Alarm, DeviceRow, Devices, Listing, OneDevice, Page, PeerRow, State, Status, choose, edge,
};
use fieldlock_transport::tunnel::Link;

use super::Edge;
use super::device::{Counters, Device};
use super::dial::Dialled;
use super::tunnel::TunnelHandler;
use fieldlock_agent::control::Reports;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::recent::Recent;
use fieldlock_agent::source::Bundled;
use fieldlock_agent::status::{alarms, common, round_trip, state, stations, time};

impl Reports for Edge {
    fn status(&self) -> Status {
        let dialled = self.dialled.borrow();
        let mut headends: Vec<_> = dialled.values().map(|known| self.headend(known)).collect();
        headends.sort_by(|a, b| a.name.cmp(&b.name));
        Status::Edge(Box::new(edge::Edge {
            common: common(&self.runtime),
            bundle: self.bundle_status(),
            headends,
            devices: self.devices.borrow().iter().map(|d| device(d)).collect(),
            profinet: self
                .runtime
                .fieldbus
                .as_ref()
                .map(|fieldbus| fieldbus.status()),
        }))
    }

    fn state(&self) -> State {
        let dialled = self.dialled.borrow();
        let devices = self.devices.borrow();
        State {
            peers: dialled.keys().map(|name| self.peer_row(name)).collect(),
            devices: devices.iter().map(|device| device_row(device)).collect(),
            ..state("edge", &self.runtime.posture, &self.runtime.ledger)
        }
    }

    fn edges(&self, _: &Page) -> Option<Listing<EdgeEntry>> {
        None
    }

    fn devices(&self, page: &Page) -> Option<Devices> {
        let filter = &page.filter;
        if filter.edge.is_some() {
            return None;
        }
        let devices = self.devices.borrow();
        let find = |name: &str| devices.iter().find(|device| &*device.name == name);
        let keep = |name: &str| {
            let reachable = || find(name).and_then(|device| device.is_reachable());
            filter.connected.is_none_or(|is| reachable() == Some(is))
        };
        let names = devices.iter().map(|device| &*device.name);
        let chosen = choose(names, page, keep);
        Some(Devices::Edge(Listing::of(&chosen, |name| {
            find(name).map(|known| device(known))
        })))
    }

    fn device(&self, name: &str) -> Option<OneDevice> {
        let devices = self.devices.borrow();
        let known = devices.iter().find(|device| &*device.name == name)?;
        Some(OneDevice::Edge {
            device: Box::new(device(known)),
        })
    }

    fn alarms(&self) -> Vec<Alarm> {
        alarms(&self.runtime.ledger)
    }

    fn recent(&self) -> &Recent {
        self.runtime.ledger.recent()
    }
}

impl Edge {
    fn peer_row(&self, headend: &str) -> PeerRow {
        let tunnels = self.tunnels.borrow();
        let mut live = tunnels
            .values()
            .filter(|(link, _)| link.is_up() && link.peer.identity.name.as_str() == headend);
        let name = headend.to_owned();
        let Some((link, handler)) = live.next() else {
            return PeerRow {
                name,
                ..PeerRow::default()
            };
        };
        let hello = handler.hello();
        PeerRow {
            name,
            connected: true,
            transport: Some(link.peer.transport.name().into()),
            address: Some(link.peer.address.to_string()),
            same_policy: hello.map(|hello| hello.policy == self.runtime.posture.hash()),
        }
    }

    fn bundle_status(&self) -> Option<edge::Bundle> {
        let next = self.next_bundle.borrow();
        let waiting = next.as_ref().map(|next| edge::NextBundle {
            version: next.bundle.version,
            not_before: time(next.not_before),
        });
        match self.runtime.posture.bundle() {
            Bundled::Plain => None,
            Bundled::Missing(reason) => Some(edge::Bundle {
                missing: Some(reason),
                waiting,
                ..edge::Bundle::default()
            }),
            Bundled::InForce { bundle, signer } => Some(edge::Bundle {
                version: bundle.version,
                missing: None,
                signer: Some(signer),
                since: self.bundle_since().map(time),
                waiting,
            }),
        }
    }

    /// When the bundle was put in force, seconds since 1970-01-01 UTC.
    fn bundle_since(&self) -> Option<i64> {
        let file = self.runtime.state.join(POLICY_BUNDLE);
        Some(fs::metadata(file).ok()?.mtime())
    }

    fn headend(&self, dialled: &Dialled) -> edge::Headend {
        let name = &dialled.settings().name;
        let tunnels = self.tunnels.borrow();
        let live = tunnels
            .values()
            .filter(|(link, _)| link.is_up() && link.peer.identity.name.as_str() == name)
            .map(|(link, handler)| self.tunnel(link, handler));
        edge::Headend {
            name: name.clone(),
            tunnels: live.collect(),
            last_error: dialled.last_error.borrow().clone(),
        }
    }

    fn tunnel(&self, link: &Link, handler: &TunnelHandler) -> edge::Tunnel {
        let hello = handler.hello();
        let policy = hello.as_ref().map(|hello| hello.policy);
        edge::Tunnel {
            address: link.peer.address.to_string(),
            transport: link.peer.transport.name().into(),
            key_exchange: link.peer.group.clone(),
            up_seconds: link.since.elapsed().as_secs(),
            round_trip_ms: round_trip(link),
            version: hello.as_ref().map(|hello| hello.agent_version.clone()),
            policy: policy.as_ref().map(short_hex),
            same_policy: policy == Some(self.runtime.posture.hash()),
            clients: handler.clients() as u64,
            stations: stations(link),
        }
    }
}

fn device_row(device: &Device) -> DeviceRow {
    let counters = device.counters.snapshot();
    DeviceRow {
        name: device.name.to_string(),
        edge: None,
        connected: device.is_reachable(),
        answered: counters.answered,
        refused: counters.refused,
        lost: counters.unknown,
    }
}

fn device(device: &Device) -> edge::Device {
    let stats = device.stats();
    let config = &device.config;
    let address = match (&config.modbus_tcp, &config.modbus_rtu) {
        (Some(tcp), _) => tcp.address.clone(),
        (_, Some(rtu)) => rtu.path.display().to_string(),
        _ => String::new(),
    };
    let quirks = device.quirks().map(|(quirk, borne)| edge::Quirk {
        name: quirk.name().into(),
        borne,
    });
    edge::Device {
        name: device.name.to_string(),
        address,
        reachable: device.is_reachable(),
        connections: stats.connections as u64,
        queued: stats.queued as u64,
        in_flight: stats.in_flight as u64,
        sent: stats.sent,
        timeouts: stats.timeouts,
        late: stats.late,
        asked_again: stats.asked_again,
        units_held_off: device.units_held_off(),
        mismatched: stats.mismatched,
        connect_failures: stats.connect_failures,
        last_error: device.failure(),
        last_fault: device.last_fault(),
        quirks: quirks.collect(),
        counters: device.counters.snapshot(),
    }
}

impl Counters {
    pub(super) fn snapshot(&self) -> edge::Counters {
        edge::Counters {
            answered: self.answered.get(),
            busy: self.busy.get(),
            not_sent: self.not_sent.get(),
            refused: self.refused.get(),
            repeats_refused: self.repeats_refused.get(),
            requests: self.requests.get(),
            shared: self.shared.get(),
            unknown: self.unknown.get(),
        }
    }
}
