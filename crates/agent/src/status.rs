//! What `fieldlock status` shows of any agent.

use fieldlock_pki::clock::Skew;
use fieldlock_status::{
    Alarm, AlarmRow, Audit, Certificate, Clock, Common, State, StationCounters, Stations,
};
use fieldlock_transport::tunnel::{self, Link};
use jiff::Timestamp;

use crate::ledger::Ledger;
use crate::library::WARNINGS;
use crate::posture::{Posture, short_hex};
use crate::runtime::{Runtime, Settings};

pub fn common<S: Settings>(runtime: &Runtime<S>) -> Common {
    let (posture, ledger) = (&runtime.posture, &runtime.ledger);
    let strangers = runtime.strangers();
    let sandbox = &runtime.sandbox;
    let trust = posture.trust();
    Common {
        identity: trust.identity.uri(),
        version: VERSION.into(),
        pid: std::process::id(),
        up_seconds: runtime.started.elapsed().as_secs(),
        policy: short_hex(&posture.hash()),
        policy_warnings: strangers.iter().map(ToString::to_string).collect(),
        certificate: certificate(posture),
        clock: clock(posture),
        library_warnings: WARNINGS.count(),
        audit: Audit {
            writable: ledger.is_writable(),
            durable_seq: ledger.durable(),
            signed_seq: ledger.checkpoint().map(|head| head.seq),
            not_recorded: ledger.not_recorded(),
            left_out: ledger.left_out(),
        },
        alarms: alarms(ledger),
        sandbox: Some(fieldlock_status::Sandbox {
            files: sandbox.files.name().into(),
            calls: sandbox.calls.name().into(),
        }),
        observations: runtime.watcher.status(),
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn certificate(posture: &Posture) -> Certificate {
    let trust = posture.trust();
    let crls = trust.list.crl_dates();
    // The one that runs out first.
    let next_update = |of_root: bool| {
        let dates = crls.iter().filter(|crl| crl.is_root == of_root);
        dates.map(|crl| crl.next_update).min().unwrap_or_default()
    };
    Certificate {
        serial: trust.leaf.serial.to_string(),
        expires: time(trust.leaf.not_after),
        crl_next_update: time(next_update(false)),
        root_crl_next_update: time(next_update(true)),
    }
}

fn clock(posture: &Posture) -> Clock {
    let clock = posture.clock().read();
    Clock {
        time: time(clock.now),
        skew_seconds: match clock.skew {
            Skew::None => 0,
            Skew::Behind(by) => -by,
            Skew::Ahead(by) => by,
        },
    }
}

pub fn alarms(ledger: &Ledger) -> Vec<Alarm> {
    let alarms = ledger.alarms().into_iter().map(|lasting| Alarm {
        name: lasting.to_string(),
        seconds: lasting.since.elapsed().as_secs(),
        text: lasting.text,
    });
    alarms.collect()
}

/// What a subscriber is told of any agent; peers and devices are the end's own.
pub fn state(role: &str, posture: &Posture, ledger: &Ledger) -> State {
    let alarms = ledger.alarms().into_iter().map(|lasting| AlarmRow {
        name: lasting.to_string(),
        text: lasting.text,
    });
    State {
        role: role.into(),
        identity: posture.trust().identity.uri(),
        version: VERSION.into(),
        policy: short_hex(&posture.hash()),
        alarms: alarms.collect(),
        ..State::default()
    }
}

pub fn round_trip(link: &Link) -> Option<f64> {
    link.round_trip()
        .map(|time| (time.as_secs_f64() * 1e6).round() / 1e3)
}

/// What a tunnel carries for stations, where it does.
pub fn stations(link: &Link) -> Option<Stations> {
    let carried = link.stations();
    (carried > 0).then(|| Stations {
        carried,
        max_datagram: link.max_datagram() as u64,
        counters: station_counters(&link.counters),
    })
}

fn station_counters(counters: &tunnel::StationCounters) -> StationCounters {
    StationCounters {
        datagrams_dropped: counters.datagrams_dropped.get(),
        datagrams_received: counters.datagrams_received.get(),
        datagrams_replaced: counters.datagrams_replaced.get(),
        datagrams_sent: counters.datagrams_sent.get(),
        datagrams_unwanted: counters.datagrams_unwanted.get(),
        frames_dropped: counters.frames_dropped.get(),
        frames_received: counters.frames_received.get(),
        frames_sent: counters.frames_sent.get(),
    }
}

pub fn time(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| "never".into(), |time| time.to_string())
}
