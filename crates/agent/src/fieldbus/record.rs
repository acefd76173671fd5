//! What the bridge tells, as audit records and log lines.

use std::sync::Arc;
use std::time::Duration;

use fieldlock_audit::{Ar, Decision, Kind, Outcome, Party, Record, Slot, Ticket, Unavailable};
use fieldlock_conduit::profinet::{ArName, Event, RecordPlace, Requester, Shortfall};
use fieldlock_profinet::ar::Ended;
use fieldlock_profinet::{Mac, StationName};
use tracing::{info, warn};

use crate::ledger::{Alarm, Ledger};

/// Puts an event on record. Of a change of a station: the record that has to be durable before the
/// frame leaves.
pub(super) fn note(ledger: &Ledger, event: Event) -> Option<Result<Ticket, Unavailable>> {
    match event {
        Event::Refused {
            who,
            station,
            service,
            record,
            rule,
            reason,
        } => {
            let record = Record {
                decision: Some(Decision::Deny),
                rule,
                reason: Some(reason.to_string().into()),
                outcome: Some(Outcome::Refused),
                service: Some(service.name().into()),
                ..about(Kind::Denied, &who, &station, record)
            };
            ledger.repeated(record);
        }
        Event::Changes {
            who,
            station,
            service,
            record,
            value,
            rule,
        } => {
            return Some(ledger.intent(Record {
                decision: Some(Decision::Allow),
                rule,
                service: Some(service.name().into()),
                set: value.map(String::into_boxed_str),
                ..about(Kind::StationSet, &who, &station, record)
            }));
        }
        Event::ArUp {
            ar,
            fail_safe,
            shortfall,
        } => ar_up(ledger, &ar, fail_safe, shortfall),
        Event::ArDown { ar, why, lasted } => ar_down(ledger, &ar, why, lasted),
        Event::NotUnderstood {
            who,
            station,
            reason,
        } => not_understood(ledger, who.as_ref(), station.as_ref(), &reason),
        Event::Nameless { station, mac, said } => {
            let calls_itself = match &*said {
                "" => "has no name".into(),
                other => format!("calls itself `{other}`"),
            };
            let text = format!(
                "station `{station}`, known by its address {mac}, {calls_itself}: no controller \
                 finds it until its name is set"
            );
            ledger.raise(Alarm::StationWithoutName, station.as_str(), &text);
        }
        Event::Named { station } => ledger.clear(Alarm::StationWithoutName, station.as_str()),
        Event::Found { station, mac } => {
            info!(%station, %mac, "PROFINET: station found");
        }
        Event::Conflict {
            station,
            mac,
            reason,
        } => conflict(ledger, station, mac, reason),
    }
    None
}

/// A controller that opens and closes ARs without end gets two records of each kind a second for
/// each station, the later one with a count.
fn ar_up(ledger: &Ledger, ar: &ArName, fail_safe: Option<Duration>, shortfall: Option<Shortfall>) {
    let controller = name_of(&ar.controller);
    let station = station_of(ar);
    let (cycle, watchdog) = (ar.cycle, ar.watchdog);
    let first = ledger.repeated(Record {
        ar: Some(described(ar, fail_safe, None)),
        reason: shortfall.map(|short| short.to_string().into()),
        ..of_ar(Kind::ArUp, ar)
    });
    if !first {
        return;
    }
    match fail_safe {
        Some(within) => info!(
            controller,
            station,
            ?cycle,
            ?watchdog,
            "PROFINET: AR up; hold is on: the consumer fails safe within {within:?}"
        ),
        None => info!(controller, station, ?cycle, ?watchdog, "PROFINET: AR up"),
    }
    if let Some(short) = shortfall {
        warn!(controller, station, "PROFINET: {short}");
    }
}

fn ar_down(ledger: &Ledger, ar: &ArName, why: Ended, lasted: Duration) {
    let text = why.to_string();
    let controller = name_of(&ar.controller);
    let station = station_of(ar);
    let first = ledger.repeated(Record {
        ar: Some(described(ar, None, Some(lasted))),
        reason: Some(text.clone().into()),
        ..of_ar(Kind::ArDown, ar)
    });
    if !first {
        return;
    }
    match why {
        Ended::Released => info!(controller, station, ?lasted, "PROFINET: AR {text}"),
        _ => warn!(controller, station, ?lasted, "PROFINET: AR down: {text}"),
    }
}

/// Strangers are not told of, so there are no more kinds of it than pairs that are known.
fn not_understood(
    ledger: &Ledger,
    who: Option<&Requester>,
    station: Option<&StationName>,
    reason: &str,
) {
    let record = Record {
        client: who.map(party),
        station: station.map(StationName::to_arc),
        decision: Some(Decision::Deny),
        outcome: Some(Outcome::Refused),
        reason: Some(format!("not understood: {reason}").into()),
        ..Record::new(Kind::Denied)
    };
    if ledger.repeated(record) {
        let controller = who.map(name_of);
        let station = station.map(StationName::as_str);
        warn!(
            controller,
            station, "PROFINET: frame not understood: {reason}"
        );
    }
}

fn conflict(ledger: &Ledger, station: StationName, mac: Mac, reason: &'static str) {
    let record = Record {
        station: Some(station.to_arc()),
        decision: Some(Decision::Deny),
        outcome: Some(Outcome::Refused),
        // Not as the client: who changes its address all the time is counted as one.
        reason: Some(format!("{reason}: {mac}").into()),
        ..Record::new(Kind::Denied)
    };
    if ledger.repeated(record) {
        warn!(%station, %mac, "PROFINET: frame refused: {reason}");
    }
}

fn of_ar(kind: Kind, ar: &ArName) -> Record {
    Record {
        client: Some(party(&ar.controller)),
        station: ar.station.as_ref().map(StationName::to_arc),
        ..Record::new(kind)
    }
}

fn about(kind: Kind, who: &Requester, station: &StationName, place: Option<RecordPlace>) -> Record {
    Record {
        client: Some(party(who)),
        station: Some(station.to_arc()),
        record: place.map(|place| place.index),
        slot: place.map(|place| Slot {
            slot: place.slot,
            subslot: place.subslot,
        }),
        ..Record::new(kind)
    }
}

fn party(who: &Requester) -> Arc<Party> {
    Arc::new(Party {
        name: who.name.clone(),
        mac: Some(who.mac.to_string().into()),
        ..Party::default()
    })
}

fn described(ar: &ArName, fail_safe: Option<Duration>, lasted: Option<Duration>) -> Arc<Ar> {
    let micros = |time: Duration| u32::try_from(time.as_micros()).ok().filter(|us| *us > 0);
    Arc::new(Ar {
        uuid: ar.uuid.to_string().into_boxed_str(),
        kind: Some(ar.kind.name().into()),
        cycle_us: micros(ar.cycle),
        watchdog_us: micros(ar.watchdog),
        fail_safe_us: fail_safe.and_then(micros),
        lasted_ms: lasted.and_then(|lasted| u64::try_from(lasted.as_millis()).ok()),
    })
}

fn name_of(who: &Requester) -> String {
    who.name
        .as_ref()
        .map_or_else(|| who.mac.to_string(), ToString::to_string)
}

fn station_of(ar: &ArName) -> &str {
    ar.station.as_ref().map_or("", StationName::as_str)
}
