//! The records under edits from outside.

use fieldlock_ca::authority::State;
use fieldlock_ca::records::RecordsError;
use fieldlock_ca::{Access, Ca, Time};
use fieldlock_pki::Role;
use fieldlock_pki::issue::Reason;
use rusqlite::Connection;

use crate::site::Site;

#[test]
fn records_survive_a_reopening() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let serials = [issued.summary.serial.clone()];
    site.ca
        .revoke(&site.authority, &serials, Reason::Superseded, Time::now())
        .unwrap();
    let Site { directory, ca, .. } = site;
    drop(ca);

    let ca = Ca::open(&directory.path().join("ca"), Access::Read).unwrap();
    let entry = ca.find("edge/press-07").unwrap()[0].clone();
    assert_eq!(entry.serial, issued.summary.serial);
    assert!(matches!(
        ca.state(&entry, Time::now()).unwrap(),
        State::Revoked {
            reason: Reason::Superseded,
            ..
        }
    ));
    ca.records().verify(|_| ()).unwrap();
}

#[test]
fn what_is_changed_taken_out_or_put_in_shows() {
    let edits = [
        ("UPDATE event SET time = time + 1 WHERE seq = 3", 3),
        (
            "UPDATE event SET body = replace(body, 'crl', 'crL') WHERE seq = 2",
            2,
        ),
        ("DELETE FROM event WHERE seq = 3", 3),
        ("DELETE FROM event WHERE seq = 1", 1),
        (
            "INSERT INTO event SELECT seq + 100, time, body, hash FROM event WHERE seq = 1",
            6,
        ),
    ];
    for (edit, at) in edits {
        let mut site = Site::new();
        site.issue(Role::Edge, "press-07");
        let db = Connection::open(site.path("ca/records.db")).unwrap();
        let refused = db.execute_batch(edit);
        assert_eq!(refused.is_err(), !edit.starts_with("INSERT"), "{edit}");
        db.execute_batch("DROP TRIGGER event_update; DROP TRIGGER event_delete")
            .unwrap();
        db.execute_batch(edit).ok();
        let found = site.ca.records().verify(|_| ()).unwrap_err();
        assert!(
            matches!(found, RecordsError::Damaged { seq, .. } if seq == at),
            "{edit}: {found}"
        );
    }
}

#[test]
fn crl_numbers_rise_even_when_the_clock_falls_back() {
    let mut site = Site::new();
    let now = Time::now();
    let first = site.ca.renew_crl(&site.authority, now).unwrap();
    let second = site
        .ca
        .renew_crl(&site.authority, Time(now.0 - 1_000_000))
        .unwrap();
    assert_eq!(second.number, first.number + 1);
}
