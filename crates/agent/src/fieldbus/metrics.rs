//! The metrics of PROFINET. Series are of stations, which are configured, never of ARs or
//! controllers, which come and go.

use std::time::Instant;

use fieldlock_conduit::profinet::DropReason;
use fieldlock_profinet::ar::Phase;

use super::Fieldbus;
use crate::monitor::{Kind, Page};

/// A station is silent when nothing of it was heard for this long, in seconds.
const SILENT: u64 = 60;

impl Fieldbus {
    pub fn write_metrics(&self, page: &mut Page) {
        let counters = *self.counters.borrow();
        let name = "fieldlock_profinet_frames_total";
        let help = "Frames at the interface.";
        let mut family = page.family(Kind::Counter, name, help);
        for (direction, count) in [("received", counters.received), ("sent", counters.sent)] {
            family.add(&[("direction", direction)], count);
        }
        let name = "fieldlock_profinet_interface_drops_total";
        let help = "Frames that the interface, or the kernel, lost.";
        let mut family = page.family(Kind::Counter, name, help);
        for (reason, count) in [
            ("kernel", counters.dropped_by_kernel),
            ("too-long", counters.too_long),
            ("send-error", counters.send_errors),
            ("not-sent", self.pending.borrow().overflow),
        ] {
            family.add(&[("reason", reason)], count);
        }
        let bridge = self.bridge.borrow();
        let name = "fieldlock_profinet_dropped_total";
        let help = "Frames that did not cross, by why.";
        let mut family = page.family(Kind::Counter, name, help);
        for drop in DropReason::ALL {
            family.add(&[("reason", drop.name())], bridge.drops().get(drop));
        }
        let name = "fieldlock_profinet_ars";
        let help = "Application relations by their phase.";
        let mut family = page.family(Kind::Gauge, name, help);
        for phase in [
            Phase::Connecting,
            Phase::Connected,
            Phase::Running,
            Phase::Releasing,
        ] {
            let ars = bridge.table().iter().filter(|ar| ar.phase == phase);
            family.add(&[("phase", phase.name())], ars.count());
        }
        let now = Instant::now();
        let name = "fieldlock_profinet_station_found";
        let help = "1: the station was heard on this wire within the last minute, or has an AR.";
        let mut family = page.family(Kind::Gauge, name, help);
        for station in &bridge.parties().stations {
            let heard = station
                .seen
                .is_some_and(|seen| now.saturating_duration_since(seen).as_secs() < SILENT);
            let busy = bridge
                .table()
                .iter()
                .any(|ar| Some(ar.pair.device) == station.mac);
            let name = station.name().as_str();
            family.add(&[("station", name)], u8::from(heard || busy));
        }
    }
}
