//! What `fieldlock status` shows of PROFINET.

use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::{Bridge, Flow, Half, Station};
use fieldlock_profinet::Mac;
use fieldlock_profinet::ar::{Ar, Cr, End};
use fieldlock_rawsock::Counters;
use serde_json::{Value, json};

use super::Fieldbus;

impl Fieldbus {
    pub fn status(&self) -> Value {
        let bridge = self.bridge.borrow();
        let now = Instant::now();
        let Counters {
            received,
            dropped_by_kernel,
            too_long,
            sent,
            send_errors,
            ..
        } = *self.counters.borrow();
        let drops = bridge.drops().iter();
        // Cyclic data of its ARs is the last word of a station, where there is any.
        let heard = |end: End, mac: Option<Mac>, spoke: Option<Instant>| {
            let flows = bridge.table().iter().flat_map(|ar| bridge.flows(ar.id));
            let own =
                flows.filter(|(_, flow)| flow.provider == end && Some(flow.pair.mac(end)) == mac);
            let last = own.filter_map(|(_, flow)| flow.heard).max().max(spoke);
            last.map(|last| since(now, last))
        };
        let stations = bridge
            .parties()
            .stations
            .iter()
            .map(|known| station(known, heard(End::Device, known.mac, known.seen)));
        let controllers = bridge.parties().controllers.iter().map(|controller| {
            json!({
                "name": controller.name,
                "mac": controller.mac.to_string(),
                "station": controller.station.as_ref().map(ToString::to_string),
                "ip": controller.ip,
                "seen_seconds": heard(End::Controller, Some(controller.mac), controller.seen),
            })
        });
        let ars = bridge.table().iter().map(|ar| self.ar(&bridge, ar, now));
        json!({
            "interface": self.interface,
            "frames": {
                "received": received,
                "sent": sent,
                "dropped_by_kernel": dropped_by_kernel,
                "too_long": too_long,
                "send_errors": send_errors,
                "not_sent": self.pending.borrow().overflow,
            },
            "stations": stations.collect::<Vec<_>>(),
            "controllers": controllers.collect::<Vec<_>>(),
            "ars": ars.collect::<Vec<_>>(),
            "ended": self.ended.borrow().iter().rev().collect::<Vec<_>>(),
            "dropped": drops.map(|(drop, count)| (drop.name().into(), count.into())).collect::<serde_json::Map<_, _>>(),
        })
    }

    fn ar(&self, bridge: &Bridge, ar: &Ar, now: Instant) -> Value {
        let parties = bridge.parties();
        let station = parties.station_of(ar.pair.device);
        let station = station.map(|index| parties.stations[index].name().to_string());
        let controller = parties.controller_of(ar.pair.controller);
        let controller = controller.and_then(|index| parties.controllers[index].name.clone());
        let flows = bridge.flows(ar.id);
        let flows = flows.filter_map(|(place, flow)| Some(direction(ar.crs.get(place)?, flow)));
        json!({
            "station": station,
            "controller": controller,
            "controller_mac": ar.pair.controller.to_string(),
            "controller_station": ar.controller_name.as_ref().map(ToString::to_string),
            "uuid": ar.uuid.to_string(),
            "type": ar.kind.name(),
            "phase": ar.phase.name(),
            "seconds": since(now, ar.since),
            "fail_safe_ms": bridge.fail_safe(ar).map(millis),
            "shortfall": bridge.shortfall(ar).map(|short| short.to_string()),
            "directions": flows.collect::<Vec<_>>(),
        })
    }
}

fn station(station: &Station, seen_seconds: Option<u64>) -> Value {
    let facts = &station.facts;
    json!({
        "name": station.name().as_str(),
        "mac": station.mac.map(|mac| mac.to_string()),
        "ip": station.ip,
        "seen_seconds": seen_seconds,
        "calls_itself": station.nameless,
        "vendor_id": facts.vendor_id,
        "device_id": facts.device_id,
        "order_number": facts.order_number,
        "serial": facts.serial,
        "software": facts.software,
    })
}

/// One direction of an AR's data, as this agent has it.
fn direction(cr: &Cr, flow: &Flow) -> Value {
    let mut value = json!({
        "from": flow.provider.name(),
        "frame_id": flow.frame_id.to_string(),
        "octets": cr.data_length,
        "cycle_ms": millis(cr.cycle),
        "watchdog_ms": millis(cr.watchdog),
    });
    let detail = match &flow.half {
        Half::Send(sender) => {
            let stats = sender.stats();
            json!({
                "datagrams": stats.datagrams,
                "datagram_octets": stats.octets,
                "redundancy": stats.redundancy,
                "missed_cycles": stats.missed_cycles,
            })
        }
        Half::Receive(receiver) => {
            let stats = receiver.stats();
            let ages = receiver.ages();
            json!({
                "emitted": stats.emitted,
                "gaps": stats.gaps,
                "repaired": stats.repaired,
                "late": stats.late,
                "passed_over": stats.passed_over,
                "old": stats.old,
                "stale": stats.stale,
                "duplicates": stats.duplicates,
                "restarts": stats.restarts,
                "held": stats.held,
                "longest_hold_ms": millis(stats.longest_hold),
                "age_p50_ms": millis(ages.percentile(0.5)),
                "age_p99_ms": millis(ages.percentile(0.99)),
                "age_max_ms": millis(ages.max()),
            })
        }
    };
    if let (Value::Object(value), Value::Object(detail)) = (&mut value, detail) {
        value.extend(detail);
    }
    value
}

fn since(now: Instant, then: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
