//! The metrics that only a headend has.

use std::rc::Rc;

use fieldlock_session::Transport;
use fieldlock_status::headend;
use fieldlock_transport::counter::Histogram;

use super::Headend;
use super::devices::Device;
use super::tunnel::EdgeTunnel;
use fieldlock_agent::monitor::{Kind, Monitored, OWN_SERIES, Page, THE_REST};

type Pick = fn(&headend::DeviceCounters) -> u64;

/// What becomes of a request.
const OUTCOMES: [(&str, Pick); 7] = [
    ("answered", |counters| counters.answered),
    ("refused", |counters| counters.refused),
    ("refused_by_edge", |counters| counters.refused_by_edge),
    ("repeats_refused", |counters| counters.repeats_refused),
    ("busy", |counters| counters.busy),
    ("not_sent", |counters| counters.not_sent),
    ("lost", |counters| counters.lost),
];

type Read = fn(&Device) -> u64;

/// Counters and gauges with a sample for each device.
const OF_DEVICES: [(Kind, &str, &str, Read); 4] = [
    (
        Kind::Gauge,
        "fieldlock_device_up",
        "Whether an edge offers the device now.",
        |device| u64::from(device.live.borrow().is_some()),
    ),
    (
        Kind::Gauge,
        "fieldlock_device_in_flight_requests",
        "Requests that the edge has, without an answer yet.",
        |device| {
            let live = device.live.borrow();
            live.as_ref().map_or(0, |live| live.under_way() as u64)
        },
    ),
    (
        Kind::Counter,
        "fieldlock_requests_forwarded_total",
        "Requests that went to the edge.",
        |device| device.counters.forwarded.get(),
    ),
    (
        Kind::Counter,
        "fieldlock_late_answers_total",
        "Answers that came after the client had its exception; they are dropped.",
        |device| device.counters.late.get(),
    ),
];

type PickAny = fn(&headend::Counters) -> u64;

const OF_ALL: [(&str, &str, PickAny); 8] = [
    (
        "fieldlock_clients_refused_total",
        "Connections of clients that were closed at once: limits, certificates.",
        |counters| counters.clients_refused,
    ),
    (
        "fieldlock_handshakes_refused_total",
        "Handshakes of tunnels that failed, or were refused.",
        |counters| counters.handshakes_refused,
    ),
    (
        "fieldlock_handshakes_put_off_total",
        "Handshakes of tunnels that were told to come back: limits.",
        |counters| counters.handshakes_put_off,
    ),
    (
        "fieldlock_ca_connections_refused_total",
        "Connections that were not passed on to the CA: limits.",
        |counters| counters.splices_refused,
    ),
    (
        "fieldlock_not_modbus_total",
        "Connections that were closed, since what came was no Modbus.",
        |counters| counters.not_modbus,
    ),
    (
        "fieldlock_no_route_total",
        "Requests for a unit that leads to no device.",
        |counters| counters.no_route,
    ),
    (
        "fieldlock_requests_repeated_total",
        "Requests that came again under a transaction id that was under way.",
        |counters| counters.repeated,
    ),
    (
        "fieldlock_answers_given_up_total",
        "Answers 0x0B kept from clients that had asked again: their time-out is below answer_within.",
        |counters| counters.given_up,
    ),
];

impl Monitored for Headend {
    fn unready(&self) -> Option<String> {
        let address = self.listeners.ended()?;
        Some(format!("the listener of clients on {address} has ended"))
    }

    fn summary(&self) -> String {
        let settings = self.runtime.settings();
        let devices = self.devices.borrow();
        let up = devices
            .iter()
            .filter(|device| device.live.borrow().is_some());
        format!(
            "tunnels {}, devices {} of {}, clients {}",
            self.registry.up(),
            up.count(),
            settings.device.len(),
            self.clients.len(),
        )
    }

    async fn write_metrics(&self, page: &mut Page) {
        let tunnels = self.registry.tunnels();
        self.measure_limits(&tunnels, page);
        let name = "fieldlock_tunnel_round_trip_seconds";
        let help = "Round trip of the tunnel of the edge.";
        let mut family = page.family(Kind::Gauge, name, help);
        for tunnel in tunnels.iter().take(OWN_SERIES) {
            if let Some(time) = tunnel.link.round_trip() {
                let edge = tunnel.link.peer.identity.name.as_str();
                family.add(&[("edge", edge)], time.as_secs_f64());
            }
            family.breathe().await;
        }
        self.measure_devices(page).await;
        if let Some(fieldbus) = self.runtime.fieldbus.as_ref() {
            fieldbus.write_metrics(page);
        }
    }
}

impl Headend {
    fn measure_limits(&self, tunnels: &[Rc<EdgeTunnel>], page: &mut Page) {
        let name = "fieldlock_tunnels";
        let mut family = page.family(Kind::Gauge, name, "Tunnels that are up.");
        for transport in [Transport::Quic, Transport::Tls] {
            let count = tunnels
                .iter()
                .filter(|t| t.link.peer.transport == transport);
            family.add(&[("transport", transport.name())], count.count());
        }
        let settings = self.runtime.settings();
        let other = tunnels
            .iter()
            .filter(|t| *t.policy.borrow() != self.runtime.posture.hash());
        for (name, help, value) in [
            (
                "fieldlock_tunnels_limit",
                "How many there may be: tunnel.max_tunnels.",
                settings.tunnel.max_tunnels,
            ),
            (
                "fieldlock_tunnels_other_policy",
                "Tunnels of edges whose policy is another than the headend's.",
                other.count(),
            ),
            (
                "fieldlock_handshakes",
                "Handshakes of tunnels under way.",
                self.admission.under_way(),
            ),
            (
                "fieldlock_handshakes_limit",
                "How many there may be: tunnel.max_handshakes.",
                settings.tunnel.max_handshakes,
            ),
            (
                "fieldlock_clients",
                "Clients that are connected.",
                self.clients.len(),
            ),
            (
                "fieldlock_clients_limit",
                "How many there may be: client.max_connections.",
                settings.client.max_connections,
            ),
            (
                "fieldlock_ca_connections",
                "Connections that are passed on to the CA.",
                self.splices.borrow().open(),
            ),
        ] {
            page.single(Kind::Gauge, name, help, value);
        }
        let counters = self.counters.snapshot();
        for (name, help, pick) in OF_ALL {
            page.single(Kind::Counter, name, help, pick(&counters));
        }
    }

    async fn measure_devices(&self, page: &mut Page) {
        let devices: Vec<_> = self.devices.borrow().iter().cloned().collect();
        let (own, rest) = devices.split_at(devices.len().min(OWN_SERIES));
        let name = "fieldlock_requests_total";
        let help = "Requests of clients by what became of them.";
        let mut family = page.family(Kind::Counter, name, help);
        for (outcome, pick) in OUTCOMES {
            for device in own {
                let labels = [("device", &*device.name), ("outcome", outcome)];
                family.add(&labels, pick(&device.counters.snapshot()));
                family.breathe().await;
            }
            if !rest.is_empty() {
                let sum: u64 = rest.iter().map(|d| pick(&d.counters.snapshot())).sum();
                family.add(&[("device", THE_REST), ("outcome", outcome)], sum);
            }
        }
        for (kind, name, help, read) in OF_DEVICES {
            let mut family = page.family(kind, name, help);
            for device in own {
                family.add(&[("device", &*device.name)], read(device));
                family.breathe().await;
            }
            if !rest.is_empty() {
                let sum: u64 = rest.iter().map(|device| read(device)).sum();
                family.add(&[("device", THE_REST)], sum);
            }
        }
        let name = "fieldlock_request_duration_seconds";
        let help = "From a client's request to the device's answer, through the tunnel.";
        let mut family = page.family(Kind::Histogram, name, help);
        for device in own {
            let latency = &device.counters.latency;
            family.histogram(&[("device", &*device.name)], latency);
            family.breathe().await;
        }
        if !rest.is_empty() {
            let sum = Histogram::default();
            rest.iter().for_each(|d| sum.absorb(&d.counters.latency));
            family.histogram(&[("device", THE_REST)], &sum);
        }
    }
}
