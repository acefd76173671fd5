//! What `fieldlock status` shows of PROFINET.

use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::cadence::{Receiver, Sender};
use fieldlock_conduit::profinet::{Bridge, Flow, Half, Station};
use fieldlock_profinet::Mac;
use fieldlock_profinet::ar::{Ar, Cr, End};
use fieldlock_status::profinet::{
    self as status, Controller, Direction, Frames, GivenOut, Pair, Profinet, Sent,
};

use super::Fieldbus;

impl Fieldbus {
    pub fn status(&self) -> Profinet {
        let bridge = self.bridge.borrow();
        let now = Instant::now();
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
        let controllers = bridge
            .parties()
            .controllers
            .iter()
            .map(|controller| Controller {
                name: controller.name.as_deref().map(str::to_owned),
                mac: controller.mac.to_string(),
                station: controller.station.as_ref().map(ToString::to_string),
                ip: controller.ip.map(|ip| ip.to_string()),
                seen_seconds: heard(End::Controller, Some(controller.mac), controller.seen),
            });
        let drops = bridge.drops().iter();
        Profinet {
            interface: self.interface.clone(),
            frames: self.frames(),
            stations: stations.collect(),
            controllers: controllers.collect(),
            ars: bridge
                .table()
                .iter()
                .map(|ar| relation(&bridge, ar, now))
                .collect(),
            ended: self.ended.borrow().iter().rev().cloned().collect(),
            dropped: drops
                .map(|(drop, count)| (drop.name().to_owned(), count))
                .collect(),
        }
    }

    fn frames(&self) -> Frames {
        let counters = *self.counters.borrow();
        Frames {
            received: counters.received,
            sent: counters.sent,
            dropped_by_kernel: counters.dropped_by_kernel,
            too_long: counters.too_long,
            send_errors: counters.send_errors,
            not_sent: self.pending.borrow().overflow,
        }
    }
}

fn relation(bridge: &Bridge, ar: &Ar, now: Instant) -> status::Ar {
    let parties = bridge.parties();
    let station = parties.station_of(ar.pair.device);
    let controller = parties.controller_of(ar.pair.controller);
    let controller = controller.and_then(|index| parties.controllers[index].name.as_deref());
    let flows = bridge.flows(ar.id);
    let flows = flows.filter_map(|(place, flow)| Some(direction(ar.crs.get(place)?, flow)));
    status::Ar {
        pair: Pair {
            station: station.map(|index| parties.stations[index].name().to_string()),
            controller: controller.map(str::to_owned),
            controller_mac: ar.pair.controller.to_string(),
        },
        controller_station: ar.controller_name.as_ref().map(ToString::to_string),
        uuid: ar.uuid.to_string(),
        kind: ar.kind.name().into(),
        phase: ar.phase.name().into(),
        seconds: since(now, ar.since),
        fail_safe_ms: bridge.fail_safe(ar).map(millis),
        shortfall: bridge.shortfall(ar).map(|short| short.to_string()),
        directions: flows.collect(),
    }
}

fn station(station: &Station, seen_seconds: Option<u64>) -> status::Station {
    let facts = &station.facts;
    status::Station {
        name: station.name().as_str().to_owned(),
        mac: station.mac.map(|mac| mac.to_string()),
        ip: station.ip.map(|ip| ip.to_string()),
        seen_seconds,
        calls_itself: station.nameless.as_deref().map(str::to_owned),
        vendor_id: facts.vendor_id,
        device_id: facts.device_id,
        order_number: facts.order_number.clone(),
        serial: facts.serial.clone(),
        software: facts.software.clone(),
    }
}

/// One direction of an AR's data, as this agent has it.
fn direction(cr: &Cr, flow: &Flow) -> Direction {
    let (sent, given_out) = match &flow.half {
        Half::Send(sender) => (Some(sent(sender)), None),
        Half::Receive(receiver) => (None, Some(given_out(receiver))),
    };
    Direction {
        from: flow.provider.name().into(),
        frame_id: flow.frame_id.to_string(),
        octets: cr.data_length,
        cycle_ms: millis(cr.cycle),
        watchdog_ms: millis(cr.watchdog),
        sent,
        given_out,
    }
}

fn sent(sender: &Sender) -> Sent {
    let stats = sender.stats();
    Sent {
        datagrams: stats.datagrams,
        datagram_octets: stats.octets,
        redundancy: stats.redundancy,
        missed_cycles: stats.missed_cycles,
    }
}

fn given_out(receiver: &Receiver) -> GivenOut {
    let stats = receiver.stats();
    let ages = receiver.ages();
    GivenOut {
        emitted: stats.emitted,
        gaps: stats.gaps,
        repaired: stats.repaired,
        late: stats.late,
        passed_over: stats.passed_over,
        old: stats.old,
        stale: stats.stale,
        duplicates: stats.duplicates,
        restarts: stats.restarts,
        held: stats.held,
        longest_hold_ms: millis(stats.longest_hold),
        age_p50_ms: millis(ages.percentile(0.5)),
        age_p99_ms: millis(ages.percentile(0.99)),
        age_max_ms: millis(ages.max()),
    }
}

fn since(now: Instant, then: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
