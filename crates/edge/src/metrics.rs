//! The metrics that only an edge has. An edge has at most 256 devices, and as many stations.

use fieldlock_session::Transport;
use fieldlock_status::edge;

use super::Edge;
use super::device::Device;
use fieldlock_agent::monitor::{Kind, Monitored, Page};

type Pick = fn(&edge::Counters) -> u64;

/// What becomes of a request.
const OUTCOMES: [(&str, Pick); 6] = [
    ("answered", |counters| counters.answered),
    ("refused", |counters| counters.refused),
    ("repeats_refused", |counters| counters.repeats_refused),
    ("busy", |counters| counters.busy),
    ("not_sent", |counters| counters.not_sent),
    ("unknown", |counters| counters.unknown),
];

type Read = fn(&Device) -> u64;

/// Counters and gauges with a sample for each device.
const OF_DEVICES: [(Kind, &str, &str, Read); 12] = [
    (
        Kind::Counter,
        "fieldlock_requests_received_total",
        "Permitted requests that headends sent for the device.",
        |device| device.counters.requests.get(),
    ),
    (
        Kind::Gauge,
        "fieldlock_device_reachable",
        "0: the last attempt to connect failed.",
        |device| u64::from(device.failure().is_none()),
    ),
    (
        Kind::Gauge,
        "fieldlock_device_connections",
        "Open connections to the device.",
        |device| device.stats().connections as u64,
    ),
    (
        Kind::Gauge,
        "fieldlock_device_queued_requests",
        "Requests that wait for their turn, or for their record.",
        |device| device.stats().queued as u64,
    ),
    (
        Kind::Gauge,
        "fieldlock_device_in_flight_requests",
        "Requests that the device has, without an answer yet.",
        |device| device.stats().in_flight as u64,
    ),
    (
        Kind::Counter,
        "fieldlock_device_shared_answers_total",
        "Reads that were answered by the answer to another client's.",
        |device| device.counters.shared.get(),
    ),
    (
        Kind::Counter,
        "fieldlock_device_timeouts_total",
        "Requests that the device did not answer in time.",
        |device| device.stats().timeouts,
    ),
    (
        Kind::Counter,
        "fieldlock_device_late_total",
        "Answers that came after their request was given up, and bytes on a serial line when none were due.",
        |device| device.stats().late,
    ),
    (
        Kind::Counter,
        "fieldlock_device_asked_again_total",
        "Reads that were sent once more after their connection was lost.",
        |device| device.stats().asked_again,
    ),
    (
        Kind::Gauge,
        "fieldlock_device_units_held_off",
        "Units that are not asked at present, since they stay silent while others answer.",
        |device| device.units_held_off().len() as u64,
    ),
    (
        Kind::Counter,
        "fieldlock_device_mismatched_answers_total",
        "Answers that do not fit their request.",
        |device| device.stats().mismatched,
    ),
    (
        Kind::Counter,
        "fieldlock_device_connect_failures_total",
        "Attempts to connect to the device that failed.",
        |device| device.stats().connect_failures,
    ),
];

impl Monitored for Edge {
    fn unready(&self) -> Option<String> {
        let tunnels = self.tunnels.borrow();
        let up = tunnels.values().any(|(link, _)| link.is_up());
        (!up).then(|| "no tunnel is up".into())
    }

    fn summary(&self) -> String {
        let tunnels = self.tunnels.borrow();
        let up = tunnels.values().filter(|(link, _)| link.is_up()).count();
        let devices = self.devices.borrow();
        let lost = devices.iter().filter(|d| d.failure().is_some()).count();
        format!(
            "tunnels {up}, headends {}, devices {}, unreachable {lost}",
            self.dialled.borrow().len(),
            devices.len(),
        )
    }

    async fn write_metrics(&self, page: &mut Page) {
        self.measure_tunnels(page);
        let devices = self.devices();
        let name = "fieldlock_requests_total";
        let help = "Requests of headends by what became of them.";
        let mut family = page.family(Kind::Counter, name, help);
        for device in &devices {
            for (outcome, pick) in OUTCOMES {
                let labels = [("device", &*device.name), ("outcome", outcome)];
                family.add(&labels, pick(&device.counters.snapshot()));
            }
            family.breathe().await;
        }
        for (kind, name, help, read) in OF_DEVICES {
            let mut family = page.family(kind, name, help);
            for device in &devices {
                family.add(&[("device", &*device.name)], read(device));
            }
            family.breathe().await;
        }
        let name = "fieldlock_request_duration_seconds";
        let help = "From the arrival of a request to the device's answer.";
        let mut family = page.family(Kind::Histogram, name, help);
        for device in &devices {
            let latency = &device.counters.latency;
            family.histogram(&[("device", &*device.name)], latency);
            family.breathe().await;
        }
        if let Some(fieldbus) = self.runtime.fieldbus.as_ref() {
            fieldbus.write_metrics(page);
        }
    }
}

impl Edge {
    fn measure_tunnels(&self, page: &mut Page) {
        let tunnels = self.tunnels.borrow();
        let up = || {
            let live = tunnels.values().map(|(link, _)| link);
            live.filter(|link| link.is_up())
        };
        let name = "fieldlock_tunnels";
        let mut family = page.family(Kind::Gauge, name, "Tunnels that are up.");
        for transport in [Transport::Quic, Transport::Tls] {
            let count = up().filter(|link| link.peer.transport == transport);
            family.add(&[("transport", transport.name())], count.count());
        }
        let mut names: Vec<_> = self.dialled.borrow().keys().cloned().collect();
        names.sort();
        let name = "fieldlock_headend_up";
        let mut family = page.family(Kind::Gauge, name, "1: a tunnel to the headend is up.");
        for headend in &names {
            let is_up = up().any(|link| link.peer.identity.name.as_str() == headend);
            family.add(&[("headend", headend)], u8::from(is_up));
        }
        let name = "fieldlock_tunnel_round_trip_seconds";
        let help = "Round trip of the tunnel to the headend.";
        let mut family = page.family(Kind::Gauge, name, help);
        for headend in &names {
            let to = up().filter(|link| link.peer.identity.name.as_str() == headend);
            if let Some(time) = to.filter_map(|link| link.round_trip()).min() {
                family.add(&[("headend", headend)], time.as_secs_f64());
            }
        }
    }
}
