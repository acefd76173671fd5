//! What `fieldlock status` shows of an edge.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fieldlock_pki::store::POLICY_BUNDLE;
use fieldlock_transport::tunnel::Link;
use serde_json::{Value, json};

use super::Edge;
use super::device::Device;
use super::dial::Dialled;
use super::tunnel::TunnelHandler;
use fieldlock_agent::posture::short_hex;
use fieldlock_agent::source::Bundled;
use fieldlock_agent::status::{common, round_trip, stations, time};

impl Edge {
    pub(super) fn status(&self) -> Value {
        let mut status = common(
            "edge",
            &self.runtime.posture,
            &self.runtime.ledger,
            self.runtime.started,
            &self.runtime.strangers(),
        );
        status["sandbox"] = json!(self.runtime.sandbox);
        status["bundle"] = self.bundle_status();
        let dialled = self.dialled.borrow();
        let mut headends: Vec<_> = dialled.values().map(|known| self.headend(known)).collect();
        headends.sort_by_key(|headend| headend["name"].to_string());
        status["headends"] = headends.into();
        status["devices"] = self.devices.borrow().iter().map(|d| device(d)).collect();
        status["profinet"] = json!(
            self.runtime
                .fieldbus
                .as_ref()
                .map(|fieldbus| fieldbus.status())
        );
        status
    }

    fn bundle_status(&self) -> Value {
        let waiting = self.next_bundle.borrow().as_ref().map(
            |next| json!({ "version": next.bundle.version, "not_before": time(next.not_before) }),
        );
        match self.runtime.posture.bundle() {
            Bundled::Plain => Value::Null,
            Bundled::Missing(reason) => {
                json!({ "version": 0, "missing": reason, "waiting": waiting })
            }
            Bundled::InForce { bundle, signer } => json!({
                "version": bundle.version,
                "signer": signer,
                "since": self.bundle_since().map(time),
                "waiting": waiting,
            }),
        }
    }

    /// When the bundle was put in force, seconds since 1970-01-01 UTC.
    fn bundle_since(&self) -> Option<i64> {
        let file = self.runtime.state.join(POLICY_BUNDLE);
        Some(fs::metadata(file).ok()?.mtime())
    }

    fn headend(&self, dialled: &Dialled) -> Value {
        let name = &dialled.settings().name;
        let tunnels = self.tunnels.borrow();
        let live = tunnels
            .values()
            .filter(|(link, _)| link.is_up() && link.peer.identity.name.as_str() == name)
            .map(|(link, handler)| self.tunnel(link, handler));
        json!({
            "name": name,
            "tunnels": live.collect::<Vec<_>>(),
            "last_error": *dialled.last_error.borrow(),
        })
    }

    fn tunnel(&self, link: &Link, handler: &TunnelHandler) -> Value {
        let hello = handler.hello();
        let policy = hello.as_ref().map(|hello| hello.policy);
        json!({
            "address": link.peer.address.to_string(),
            "transport": link.peer.transport.name(),
            "key_exchange": link.peer.group,
            "up_seconds": link.since.elapsed().as_secs(),
            "round_trip_ms": round_trip(link),
            "version": hello.as_ref().map(|hello| hello.agent_version.clone()),
            "policy": policy.as_ref().map(short_hex),
            "same_policy": policy == Some(self.runtime.posture.hash()),
            "clients": handler.clients(),
            "stations": stations(link),
        })
    }
}

fn device(device: &Device) -> Value {
    let stats = device.stats();
    let config = &device.config;
    let address = match (&config.modbus_tcp, &config.modbus_rtu) {
        (Some(tcp), _) => tcp.address.clone(),
        (_, Some(rtu)) => rtu.path.display().to_string(),
        _ => String::new(),
    };
    let quirks = device.quirks();
    let quirks = quirks.map(|(quirk, borne)| json!({ "name": quirk.name(), "borne": borne }));
    json!({
        "name": &*device.name,
        "address": address,
        "reachable": device.is_reachable(),
        "connections": stats.connections,
        "queued": stats.queued,
        "in_flight": stats.in_flight,
        "sent": stats.sent,
        "timeouts": stats.timeouts,
        "late": stats.late,
        "asked_again": stats.asked_again,
        "units_held_off": device.units_held_off(),
        "mismatched": stats.mismatched,
        "connect_failures": stats.connect_failures,
        "last_error": device.failure(),
        "last_fault": device.last_fault(),
        "quirks": quirks.collect::<Vec<_>>(),
        "counters": device.counters,
    })
}
