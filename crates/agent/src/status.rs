//! What `fieldlock status` shows of any agent.

use std::time::Instant;

use fieldlock_pki::clock::Skew;
use fieldlock_policy::Strangers;
use fieldlock_transport::tunnel::Link;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::library::WARNINGS;
use crate::posture::{Posture, short_hex};

pub fn common(
    role: &str,
    posture: &Posture,
    ledger: &Ledger,
    started: Instant,
    strangers: &[Strangers],
) -> Value {
    let trust = posture.trust();
    let alarms = ledger.alarms().into_iter().map(|lasting| {
        json!({
            "name": lasting.to_string(),
            "text": lasting.text,
            "seconds": lasting.since.elapsed().as_secs(),
        })
    });
    let crls = trust.list.crl_dates();
    let clock = posture.clock().read();
    // The one that runs out first.
    let next_update = |of_root: bool| {
        let dates = crls.iter().filter(|crl| crl.is_root == of_root);
        dates.map(|crl| crl.next_update).min().unwrap_or_default()
    };
    json!({
        "role": role,
        "identity": trust.identity.uri(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "up_seconds": started.elapsed().as_secs(),
        "policy": short_hex(&posture.hash()),
        "policy_warnings": strangers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "certificate": {
            "serial": trust.leaf.serial.to_string(),
            "expires": time(trust.leaf.not_after),
            "crl_next_update": time(next_update(false)),
            "root_crl_next_update": time(next_update(true)),
        },
        "clock": {
            "time": time(clock.now),
            "skew_seconds": match clock.skew {
                Skew::None => 0,
                Skew::Behind(by) => -by,
                Skew::Ahead(by) => by,
            },
        },
        "library_warnings": WARNINGS.count(),
        "audit": {
            "writable": ledger.is_writable(),
            "durable_seq": ledger.durable(),
            "signed_seq": ledger.checkpoint().map(|head| head.seq),
            "not_recorded": ledger.not_recorded(),
            "left_out": ledger.left_out(),
        },
        "alarms": alarms.collect::<Vec<_>>(),
    })
}

pub fn round_trip(link: &Link) -> Option<f64> {
    link.round_trip()
        .map(|time| (time.as_secs_f64() * 1e6).round() / 1e3)
}

/// What a tunnel carries for stations, where it does.
pub fn stations(link: &Link) -> Option<Value> {
    let carried = link.stations();
    (carried > 0).then(|| {
        json!({
            "carried": carried,
            // 0 while there is no way for cyclic data.
            "max_datagram": link.max_datagram(),
            "counters": link.counters,
        })
    })
}

pub fn time(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| "never".into(), |time| time.to_string())
}
