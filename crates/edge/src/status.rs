//! What `fieldlock status` shows of an edge.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fieldlock_pki::store::POLICY_BUNDLE;
use fieldlock_status::{Status, edge};
use fieldlock_transport::tunnel::Link;

use super::Edge;
use super::device::{Counters, Device};
use super::dial::Dialled;
use super::tunnel::TunnelHandler;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::source::Bundled;
use fieldlock_agent::status::{common, round_trip, stations, time};

impl Edge {
    pub(super) fn status(&self) -> Status {
        let dialled = self.dialled.borrow();
        let mut headends: Vec<_> = dialled.values().map(|known| self.headend(known)).collect();
        headends.sort_by(|a, b| a.name.cmp(&b.name));
        Status::Edge(Box::new(edge::Edge {
            common: common(
                &self.runtime.posture,
                &self.runtime.ledger,
                self.runtime.started,
                &self.runtime.strangers(),
                self.runtime.sandbox,
            ),
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
