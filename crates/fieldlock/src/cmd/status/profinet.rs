//! What `fieldlock status` says of PROFINET, for people.

use std::fmt::{Result, Write as _};

use fieldlock_status::profinet::{
    Ar, Controller, Direction, EndedAr, GivenOut, Pair, Profinet, Sent, Station,
};

use super::{duration, or_dash};

/// ARs that ended, at most: the last ones, of those that the agent remembers.
const ENDED: usize = 5;

pub(super) fn render(out: &mut String, profinet: &Profinet) -> Result {
    let frames = &profinet.frames;
    write!(
        out,
        "PROFINET on {}: {} frames received, {} sent",
        profinet.interface, frames.received, frames.sent,
    )?;
    counted(out, frames.dropped_by_kernel, "MISSED")?;
    counted(out, frames.too_long, "too long")?;
    counted(out, frames.send_errors, "send errors")?;
    counted(out, frames.not_sent, "not sent")?;
    writeln!(out)?;
    for known in &profinet.stations {
        station(out, known)?;
    }
    for known in &profinet.controllers {
        controller(out, known)?;
    }
    for ar in &profinet.ars {
        relation(out, ar)?;
    }
    for ar in profinet.ended.iter().take(ENDED) {
        ended(out, ar)?;
    }
    dropped(out, profinet)
}

/// Who and where it is, as far as that is known.
fn station(out: &mut String, station: &Station) -> Result {
    write!(out, "  station {}: ", station.name)?;
    place(
        out,
        station.mac.as_deref(),
        station.ip.as_deref(),
        station.seen_seconds,
    )?;
    match station.calls_itself.as_deref() {
        None => {}
        Some("") => write!(out, ", HAS NO NAME")?,
        Some(other) => write!(out, ", CALLS ITSELF {other}")?,
    }
    if let (Some(vendor), Some(device)) = (station.vendor_id, station.device_id) {
        write!(out, ", vendor {vendor:#06x} device {device:#06x}")?;
    }
    for (fact, words) in [
        (&station.order_number, "order"),
        (&station.serial, "serial"),
        (&station.software, "software"),
    ] {
        if let Some(fact) = fact {
            write!(out, ", {words} {}", fact.trim_end())?;
        }
    }
    writeln!(out)
}

fn controller(out: &mut String, controller: &Controller) -> Result {
    // At the edge controllers have no configured name, only that of their Connect.
    let name = controller.name.as_ref().or(controller.station.as_ref());
    write!(out, "  controller {}: ", or_dash(name))?;
    let (mac, ip) = (&*controller.mac, controller.ip.as_deref());
    place(out, Some(mac), ip, controller.seen_seconds)?;
    writeln!(out)
}

fn place(out: &mut String, mac: Option<&str>, ip: Option<&str>, seen: Option<u64>) -> Result {
    write!(out, "{}", mac.unwrap_or("NOT FOUND"))?;
    if let Some(ip) = ip {
        write!(out, " {ip}")?;
    }
    match (seen, mac) {
        (Some(seen), _) => write!(out, ", heard {} ago", duration(seen)),
        (None, Some(_)) => write!(out, ", not heard yet"),
        (None, None) => Ok(()),
    }
}

fn relation(out: &mut String, ar: &Ar) -> Result {
    write!(
        out,
        "  AR {}: {}, {}",
        pair(&ar.pair, ar.controller_station.as_ref()),
        ar.phase,
        duration(ar.seconds),
    )?;
    if let Some(within) = ar.fail_safe_ms {
        write!(out, ", HOLD: fails safe within {}", millis(within))?;
    }
    writeln!(out)?;
    if let Some(short) = &ar.shortfall {
        writeln!(out, "    WATCHDOG TOO SHORT: {short}")?;
    }
    for one in &ar.directions {
        direction(out, one)?;
    }
    Ok(())
}

fn direction(out: &mut String, direction: &Direction) -> Result {
    write!(
        out,
        "    from the {}: cycle {}, watchdog {}, {} octets",
        direction.from,
        millis(direction.cycle_ms),
        millis(direction.watchdog_ms),
        direction.octets,
    )?;
    if let Some(half) = &direction.sent {
        sent(out, half)?;
    }
    if let Some(half) = &direction.given_out {
        let to = match direction.from == "device" {
            true => "controller",
            false => "device",
        };
        given_out(out, to, half)?;
    }
    writeln!(out)
}

/// A direction whose provider is on this wire.
fn sent(out: &mut String, sent: &Sent) -> Result {
    write!(
        out,
        ", into the tunnel {}, each with {} earlier",
        sent.datagrams, sent.redundancy,
    )?;
    counted(out, sent.missed_cycles, "cycles missed")
}

/// A direction whose consumer is on this wire.
fn given_out(out: &mut String, to: &str, given: &GivenOut) -> Result {
    write!(
        out,
        ", to the {to} {}, age p50 {} p99 {} max {}",
        given.emitted,
        millis(given.age_p50_ms),
        millis(given.age_p99_ms),
        millis(given.age_max_ms),
    )?;
    for (count, words) in [
        (given.gaps, "gaps"),
        (given.repaired, "repaired"),
        (given.late, "late"),
        (given.passed_over, "passed over"),
        (given.old, "old"),
        (given.stale, "too old to hold"),
        (given.restarts, "restarts"),
        (given.held, "HELD"),
    ] {
        counted(out, count, words)?;
    }
    if given.held > 0 {
        write!(out, " (longest {})", millis(given.longest_hold_ms))?;
    }
    Ok(())
}

fn ended(out: &mut String, ended: &EndedAr) -> Result {
    writeln!(
        out,
        "  ended AR {}, {} after {}: {}",
        pair(&ended.pair, None),
        ended.time,
        millis(ended.lasted_ms as f64),
        ended.why,
    )
}

fn dropped(out: &mut String, profinet: &Profinet) -> Result {
    let reasons = profinet.dropped.iter();
    let reasons: Vec<String> = reasons
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    match reasons.is_empty() {
        true => Ok(()),
        false => writeln!(out, "  dropped: {}", reasons.join(", ")),
    }
}

/// Who controls whom. `station`: as the controller's Connect calls it.
fn pair(pair: &Pair, station: Option<&String>) -> String {
    let controller = pair.controller.as_ref().or(station);
    format!(
        "{} to {}",
        controller.unwrap_or(&pair.controller_mac),
        or_dash(pair.station.as_ref())
    )
}

/// Nothing for a count of 0.
fn counted(out: &mut String, count: u64, words: &str) -> Result {
    match count {
        0 => Ok(()),
        count => write!(out, ", {words} {count}"),
    }
}

/// Milliseconds in the unit that reads best.
fn millis(ms: f64) -> String {
    match ms >= 5_000.0 {
        true => duration((ms / 1e3) as u64),
        false => format!("{} ms", (ms * 10.0).round() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ar_is_shown_with_both_directions_and_how_it_may_fail() {
        let status = json!({
            "interface": "eth1",
            "frames": { "received": 200, "sent": 100, "dropped_by_kernel": 3, "not_sent": 0 },
            "stations": [
                {
                    "name": "drive-1", "mac": "02:00:00:00:00:20", "ip": "192.168.0.20",
                    "seen_seconds": 0, "vendor_id": 42, "device_id": 2,
                    "order_number": "6ES7 155-6AU01-0CN0 ", "serial": null, "software": "V4.2.2",
                },
                { "name": "drive-2", "mac": null, "ip": null, "seen_seconds": null },
                { "name": "drive-3", "mac": "02:00:00:00:00:30", "seen_seconds": null },
            ],
            "controllers": [{
                "name": null, "mac": "02:00:00:00:00:01", "station": "plc-1",
                "ip": "192.168.0.1", "seen_seconds": 61,
            }],
            "ars": [{
                "station": "drive-1", "controller": null, "controller_station": "plc-1",
                "controller_mac": "02:00:00:00:00:01", "phase": "running", "seconds": 90,
                "fail_safe_ms": 296.0,
                "directions": [
                    {
                        "from": "device", "cycle_ms": 32.0, "watchdog_ms": 96.0, "octets": 40,
                        "datagrams": 2812, "redundancy": 2, "missed_cycles": 0,
                    },
                    {
                        "from": "controller", "cycle_ms": 32.0, "watchdog_ms": 96.0, "octets": 42,
                        "emitted": 2810, "gaps": 1, "repaired": 14, "late": 0, "held": 2,
                        "longest_hold_ms": 80.04, "age_p50_ms": 33.0, "age_p99_ms": 36.864,
                        "age_max_ms": 81.0,
                    },
                ],
            }],
            "ended": [{
                "station": null, "controller": "plc-1", "controller_mac": "02:00:00:00:00:01",
                "time": "2030-03-04T10:00:00Z", "lasted_ms": 61_000, "why": "released",
            }],
            "dropped": { "denied": 3, "no-ar": 1 },
        });
        let expected = "\
PROFINET on eth1: 200 frames received, 100 sent, MISSED 3
  station drive-1: 02:00:00:00:00:20 192.168.0.20, heard 0 s ago, vendor 0x002a device 0x0002, \
order 6ES7 155-6AU01-0CN0, software V4.2.2
  station drive-2: NOT FOUND
  station drive-3: 02:00:00:00:00:30, not heard yet
  controller plc-1: 02:00:00:00:00:01 192.168.0.1, heard 1 min 1 s ago
  AR plc-1 to drive-1: running, 1 min 30 s, HOLD: fails safe within 296 ms
    from the device: cycle 32 ms, watchdog 96 ms, 40 octets, into the tunnel 2812, each with 2 earlier
    from the controller: cycle 32 ms, watchdog 96 ms, 42 octets, to the device 2810, \
age p50 33 ms p99 36.9 ms max 81 ms, gaps 1, repaired 14, HELD 2 (longest 80 ms)
  ended AR plc-1 to -, 2030-03-04T10:00:00Z after 1 min 1 s: released
  dropped: denied 3, no-ar 1
";
        let mut out = String::new();
        render(&mut out, &serde_json::from_value(status).unwrap()).unwrap();
        assert_eq!(out, expected);
    }
}
