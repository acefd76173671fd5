//! What `fieldlock status` says of PROFINET, for people.

use std::fmt::{Result, Write as _};

use serde_json::Value;

use super::{duration, list, text};

/// ARs that ended, at most: the last ones, of those that the agent remembers.
const ENDED: usize = 5;

pub(super) fn render(out: &mut String, profinet: &Value) -> Result {
    if profinet.is_null() {
        return Ok(());
    }
    let frames = &profinet["frames"];
    write!(
        out,
        "PROFINET on {}: {} frames received, {} sent",
        text(&profinet["interface"]),
        frames["received"],
        frames["sent"],
    )?;
    for (name, words) in [
        ("dropped_by_kernel", "MISSED"),
        ("too_long", "too long"),
        ("send_errors", "send errors"),
        ("not_sent", "not sent"),
    ] {
        counted(out, &frames[name], words)?;
    }
    writeln!(out)?;
    for station in list(&profinet["stations"]) {
        party(out, "station", station)?;
    }
    for controller in list(&profinet["controllers"]) {
        party(out, "controller", controller)?;
    }
    for ar in list(&profinet["ars"]) {
        relation(out, ar)?;
    }
    for ended in list(&profinet["ended"]).iter().take(ENDED) {
        writeln!(
            out,
            "  ended AR {}, {} after {}: {}",
            pair(ended),
            text(&ended["time"]),
            millis(&ended["lasted_ms"]),
            text(&ended["why"]),
        )?;
    }
    dropped(out, &profinet["dropped"])
}

/// A station or a controller: who and where it is, as far as that is known.
fn party(out: &mut String, what: &str, party: &Value) -> Result {
    // At the edge controllers have no configured name, only that of their Connect.
    let names = [&party["name"], &party["station"]];
    let name = names.into_iter().find_map(Value::as_str).unwrap_or("-");
    write!(out, "  {what} {name}: ")?;
    match party["mac"].as_str() {
        Some(mac) => write!(out, "{mac}")?,
        None => write!(out, "NOT FOUND")?,
    }
    if let Some(ip) = party["ip"].as_str() {
        write!(out, " {ip}")?;
    }
    if !party["seen_seconds"].is_null() {
        write!(out, ", heard {} ago", duration(&party["seen_seconds"]))?;
    } else if party["mac"].is_string() {
        write!(out, ", not heard yet")?;
    }
    match party["calls_itself"].as_str() {
        None => {}
        Some("") => write!(out, ", HAS NO NAME")?,
        Some(other) => write!(out, ", CALLS ITSELF {other}")?,
    }
    if let (Some(vendor), Some(device)) = (party["vendor_id"].as_u64(), party["device_id"].as_u64())
    {
        write!(out, ", vendor {vendor:#06x} device {device:#06x}")?;
    }
    for (name, words) in [
        ("order_number", "order"),
        ("serial", "serial"),
        ("software", "software"),
    ] {
        if let Some(fact) = party[name].as_str() {
            write!(out, ", {words} {}", fact.trim_end())?;
        }
    }
    writeln!(out)
}

fn relation(out: &mut String, ar: &Value) -> Result {
    write!(
        out,
        "  AR {}: {}, {}",
        pair(ar),
        text(&ar["phase"]),
        duration(&ar["seconds"]),
    )?;
    if !ar["fail_safe_ms"].is_null() {
        write!(
            out,
            ", HOLD: fails safe within {}",
            millis(&ar["fail_safe_ms"])
        )?;
    }
    writeln!(out)?;
    if let Some(short) = ar["shortfall"].as_str() {
        writeln!(out, "    WATCHDOG TOO SHORT: {short}")?;
    }
    for direction in list(&ar["directions"]) {
        write!(
            out,
            "    from the {}: cycle {}, watchdog {}, {} octets",
            text(&direction["from"]),
            millis(&direction["cycle_ms"]),
            millis(&direction["watchdog_ms"]),
            direction["octets"],
        )?;
        match direction["emitted"].is_null() {
            true => sent(out, direction)?,
            false => given_out(out, direction)?,
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A direction whose provider is on this wire.
fn sent(out: &mut String, direction: &Value) -> Result {
    write!(
        out,
        ", into the tunnel {}, each with {} earlier",
        direction["datagrams"], direction["redundancy"],
    )?;
    counted(out, &direction["missed_cycles"], "cycles missed")
}

/// A direction whose consumer is on this wire.
fn given_out(out: &mut String, direction: &Value) -> Result {
    write!(
        out,
        ", to the {} {}, age p50 {} p99 {} max {}",
        match direction["from"] == "device" {
            true => "controller",
            false => "device",
        },
        direction["emitted"],
        millis(&direction["age_p50_ms"]),
        millis(&direction["age_p99_ms"]),
        millis(&direction["age_max_ms"]),
    )?;
    for (name, words) in [
        ("gaps", "gaps"),
        ("repaired", "repaired"),
        ("late", "late"),
        ("passed_over", "passed over"),
        ("old", "old"),
        ("stale", "too old to hold"),
        ("restarts", "restarts"),
    ] {
        counted(out, &direction[name], words)?;
    }
    counted(out, &direction["held"], "HELD")?;
    if direction["held"].as_u64() > Some(0) {
        write!(out, " (longest {})", millis(&direction["longest_hold_ms"]))?;
    }
    Ok(())
}

fn dropped(out: &mut String, reasons: &Value) -> Result {
    let reasons: Vec<String> = reasons
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    match reasons.is_empty() {
        true => Ok(()),
        false => writeln!(out, "  dropped: {}", reasons.join(", ")),
    }
}

/// Who controls whom.
fn pair(ar: &Value) -> String {
    let names = ["controller", "controller_station", "controller_mac"];
    let controller = names.iter().find_map(|name| ar[*name].as_str());
    format!("{} to {}", controller.unwrap_or("-"), text(&ar["station"]))
}

/// Nothing for a count of 0.
fn counted(out: &mut String, count: &Value, words: &str) -> Result {
    match count.as_u64() {
        None | Some(0) => Ok(()),
        Some(count) => write!(out, ", {words} {count}"),
    }
}

/// Milliseconds in the unit that reads best.
fn millis(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(ms) if ms >= 5_000.0 => duration(&Value::from((ms / 1e3) as u64)),
        Some(ms) => format!("{} ms", (ms * 10.0).round() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(profinet: &Value) -> String {
        let mut out = String::new();
        render(&mut out, profinet).unwrap();
        out
    }

    #[test]
    fn an_agent_without_stations_says_nothing() {
        assert_eq!(rendered(&Value::Null), "");
    }

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
        assert_eq!(rendered(&status), expected);
    }
}
