//! A CA lost and restored.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fieldlock_ca::{Access, Ca, CaError, Time, backup};
use fieldlock_pki::Role;
use fieldlock_pki::issue::Reason;

use crate::site::{Site, passphrase};

#[test]
fn what_was_revoked_after_the_backup_stays_revoked_and_numbers_go_on() {
    let mut site = Site::new();
    let now = Time::now();
    let known = site.issue(Role::Edge, "press-07");
    let file = site.path("backup.json");
    drop_lock(&mut site);
    backup::make(&site.path("ca"), &file, now).unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        backup::make(&site.path("ca"), &file, now).is_err(),
        "nothing is overwritten"
    );

    // Life goes on after it.
    site.ca = Ca::open(&site.path("ca"), Access::Write).unwrap();
    let unknown = site.issue(Role::Edge, "press-08");
    let serials = [known.summary.serial.clone(), unknown.summary.serial.clone()];
    let later = Time(now.0 + 1000);
    let crl = site
        .ca
        .revoke(&site.authority, &serials, Reason::KeyCompromise, later)
        .unwrap();
    let field = site.ca.trust().unwrap().to_pem();

    let directory = site.path("restored");
    let restored = backup::restore(&file, &directory, &field, now).unwrap();
    assert_eq!(restored.revoked.len(), 2);
    let mut ca = Ca::open(&directory, Access::Write).unwrap();
    let keys = ca.unlock(&passphrase()).unwrap();
    let next = ca.renew_crl(&keys, now).unwrap();
    assert!(
        next.number > crl.number,
        "the clock is behind the lost CA's"
    );
    for issued in [&known, &unknown] {
        assert!(next.is_revoked(&issued.summary.serial));
    }
    assert!(backup::restore(&file, &directory, &field, now).is_err());
}

#[test]
fn a_backup_that_was_touched_or_names_other_places_is_refused() {
    let mut site = Site::new();
    let now = Time::now();
    let file = site.path("backup.json");
    drop_lock(&mut site);
    backup::make(&site.path("ca"), &file, now).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let directory = site.path("restored");
    for (from, to) in [
        ("\"ca.toml\"", "\"../ca.toml\""),
        ("\"ca.toml\"", "\"/tmp/ca.toml\""),
        ("\"ca.toml\"", "\"lock\""),
        ("\"ca.toml\"", "\"records.db-journal\""),
        ("\"kind\":\"crl\"", "\"kind\":\"crL\""),
        ("plant1.example", "plant2.example"),
        ("\"v\":1", "\"v\":2"),
        ("\"v\"", "\"w\""),
    ] {
        let changed = site.path("changed.json");
        fs::write(&changed, text.replacen(from, to, 1)).unwrap();
        let refused = backup::restore(&changed, &directory, "", now);
        assert!(matches!(refused, Err(CaError::Backup { .. })), "{to}");
        assert!(!directory.exists());
    }
    let foreign = Site::new().ca.trust().unwrap().to_pem();
    let refused = backup::restore(&file, &directory, &foreign, now);
    assert!(matches!(refused, Err(CaError::Foreign { .. })));
    assert!(!directory.exists());
    backup::restore(&file, &directory, "", now).unwrap();
}

/// A backup waits for whoever works on the CA.
fn drop_lock(site: &mut Site) {
    let other = Site::new();
    site.ca = other.ca;
}
