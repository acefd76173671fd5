//! Tokens and renewals, with the time as an argument.

use std::sync::Arc;
use std::thread;

use fieldlock_ca::authority::Life;
use fieldlock_ca::{Access, Ca, CaError, Credentials, Time, TokenOrder, make};
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Role, Secret};

use crate::site::Site;

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

#[test]
fn a_token_is_good_once_and_for_one_name() {
    let mut site = Site::new();
    let now = Time::now();
    let token = token(&mut site.ca, "press-07", now);
    let other_name = credentials("press-08", &token);
    let guessed = credentials("press-07", &Secret::new([7; 16]));
    for wrong in [&other_name, &guessed] {
        let refused = site.ca.enroll(&site.authority, wrong, key(), now);
        assert!(matches!(refused, Err(CaError::TokenUnknown)));
    }
    let right = credentials("press-07", &token);
    let issued = site.ca.enroll(&site.authority, &right, key(), now).unwrap();
    assert_eq!(
        issued.summary.identity.unwrap().uri(),
        "spiffe://plant1.example/edge/press-07"
    );
    let again = site.ca.enroll(&site.authority, &right, key(), now);
    assert!(matches!(again, Err(CaError::TokenUsed)));
    assert_eq!(site.ca.records().certificates().unwrap().len(), 1);
    assert!(site.ca.open_tokens(now).unwrap().is_empty());
}

#[test]
fn after_a_lost_answer_the_same_key_gets_the_same_certificate() {
    let mut site = Site::new();
    let now = Time::now();
    let right = credentials("press-07", &token(&mut site.ca, "press-07", now));
    let kept = make::Key::generate().unwrap();
    let ask = |site: &mut Site, at| {
        let key = kept.public().unwrap();
        site.ca.enroll(&site.authority, &right, key, at)
    };
    let first = ask(&mut site, now).unwrap();
    // The token has ended meanwhile: it was used in time.
    let second = ask(&mut site, Time(now.0 + 3 * HOUR)).unwrap();
    assert_eq!(first.bundle.leaf, second.bundle.leaf);
    assert_eq!(site.ca.records().certificates().unwrap().len(), 1);

    let serials = [first.summary.serial];
    site.ca
        .revoke(&site.authority, &serials, Reason::KeyCompromise, now)
        .unwrap();
    assert!(matches!(
        ask(&mut site, now),
        Err(CaError::RevokedCertificate { .. })
    ));
}

#[test]
fn a_used_token_is_worth_nothing_with_another_key() {
    let mut site = Site::new();
    let now = Time::now();
    let right = credentials("press-07", &token(&mut site.ca, "press-07", now));
    let kept = make::Key::generate().unwrap();
    let has = |site: &Site, key| site.ca.has_token(&right, Some(&key), now).unwrap();
    assert!(has(&site, kept.public().unwrap()) && has(&site, key()));
    let own = kept.public().unwrap();
    site.ca.enroll(&site.authority, &right, own, now).unwrap();
    assert!(has(&site, kept.public().unwrap()));
    assert!(!has(&site, key()));
}

#[test]
fn a_token_ends() {
    let mut site = Site::new();
    let now = Time::now();
    let right = credentials("press-07", &token(&mut site.ca, "press-07", now));
    let other = credentials("press-08", &token(&mut site.ca, "press-08", now));
    let just = Time(now.0 + HOUR);
    site.ca
        .enroll(&site.authority, &right, key(), just)
        .unwrap();
    let mut refused = |now| {
        let refused = site.ca.enroll(&site.authority, &other, key(), now);
        assert!(matches!(refused, Err(CaError::TokenExpired { .. })));
    };
    refused(Time(just.0 + 1));
    // The CA's clock is set back, by a little or far.
    refused(Time(just.0 - 60));
    let refused = site.ca.enroll(&site.authority, &other, key(), now);
    assert!(matches!(refused, Err(CaError::ClockBehind { .. })));
}

#[test]
fn a_cancelled_token_is_none() {
    let mut site = Site::new();
    let now = Time::now();
    let right = credentials("press-07", &token(&mut site.ca, "press-07", now));
    let kept = credentials("press-08", &token(&mut site.ca, "press-08", now));
    let name = "press-07".parse().unwrap();
    assert_eq!(site.ca.cancel_tokens(Role::Headend, &name, now).unwrap(), 0);
    assert_eq!(site.ca.cancel_tokens(Role::Edge, &name, now).unwrap(), 1);
    assert_eq!(site.ca.open_tokens(now).unwrap().len(), 1);
    let refused = site.ca.enroll(&site.authority, &right, key(), now);
    assert!(matches!(refused, Err(CaError::TokenUnknown)));
    site.ca.enroll(&site.authority, &kept, key(), now).unwrap();
}

#[test]
fn of_a_hundred_at_once_one_gets_the_certificate() {
    let mut site = Site::new();
    let now = Time::now();
    let right = Arc::new(credentials(
        "press-07",
        &token(&mut site.ca, "press-07", now),
    ));
    let directory = site.path("ca");
    let Site {
        ca,
        authority,
        directory: _kept,
    } = site;
    drop(ca);
    let authority = Arc::new(authority);
    let asking = (0..100).map(|_| {
        let (directory, right, authority) = (directory.clone(), right.clone(), authority.clone());
        thread::spawn(move || {
            let mut ca = Ca::open(&directory, Access::Write).unwrap();
            ca.enroll(&authority, &right, key(), now).is_ok()
        })
    });
    let asking: Vec<_> = asking.collect();
    let good = asking.into_iter().filter_map(|one| one.join().ok());
    assert_eq!(good.filter(|good| *good).count(), 1);
    let ca = Ca::open(&directory, Access::Read).unwrap();
    assert_eq!(ca.records().certificates().unwrap().len(), 1);
}

#[test]
fn secrets_are_not_kept() {
    let mut site = Site::new();
    let secret = token(&mut site.ca, "press-07", Time::now());
    let records = std::fs::read(site.path("ca/records.db")).unwrap();
    let records = String::from_utf8_lossy(&records);
    assert!(records.contains("\"token\""));
    assert!(!records.contains(secret.to_text().as_str()));
}

#[test]
fn renewal_goes_by_the_present_certificate_until_the_window_closes() {
    let mut site = Site::new();
    let now = Time::now();
    let short = Life::Between(Time(now.0 - 10 * DAY), Time(now.0 - DAY));
    let (_, ended) = site.issue_for(Role::Edge, "press-07", short).unwrap();
    let leaf = ended.bundle.leaf.clone();
    let renewed = site
        .ca
        .reenroll(&site.authority, &leaf, key(), now)
        .unwrap();
    assert_eq!(renewed.summary.identity, ended.summary.identity);
    assert!(renewed.summary.not_after > now.0 + 80 * DAY);

    let serials = [renewed.summary.serial.clone()];
    site.ca
        .revoke(&site.authority, &serials, Reason::KeyCompromise, now)
        .unwrap();
    let refused = site
        .ca
        .reenroll(&site.authority, &renewed.bundle.leaf, key(), now);
    assert!(matches!(refused, Err(CaError::RevokedCertificate { .. })));

    let foreign = Site::new().issue(Role::Edge, "press-07").bundle.leaf;
    let refused = site.ca.reenroll(&site.authority, &foreign, key(), now);
    assert!(matches!(refused, Err(CaError::NotOurs)));

    let late = Time(now.0 + 30 * DAY);
    let refused = site.ca.reenroll(&site.authority, &leaf, key(), late);
    assert!(matches!(refused, Err(CaError::TooLate { .. })));
}

#[test]
fn revoking_an_identity_takes_every_certificate_that_could_be_renewed() {
    let mut site = Site::new();
    let now = Time::now();
    let mut between = |from: i64, to: i64| {
        let life = Life::Between(Time(now.0 + from * DAY), Time(now.0 + to * DAY));
        site.issue_for(Role::Edge, "press-07", life).unwrap().1
    };
    let long_ago = between(-200, -40);
    let ended = between(-90, -5);
    let valid = between(-30, 60);
    site.issue(Role::Edge, "press-08");
    let (revoked, crl) = site
        .ca
        .revoke_all(&site.authority, "press-07", Reason::KeyCompromise, now)
        .unwrap();
    let hit = [&ended.summary.serial, &valid.summary.serial];
    assert!(revoked.serials().eq(hit), "{revoked:?}");
    assert!(hit.iter().all(|serial| crl.is_revoked(serial)));
    for leaf in [&ended.bundle.leaf, &valid.bundle.leaf] {
        let refused = site.ca.reenroll(&site.authority, leaf, key(), now);
        assert!(matches!(refused, Err(CaError::RevokedCertificate { .. })));
    }
    // Nor when somebody makes the window longer afterwards.
    let settings = std::fs::read_to_string(site.path("ca/ca.toml")).unwrap();
    let longer = settings.replace("renew_expired_days = 30", "renew_expired_days = 90");
    assert_ne!(longer, settings);
    std::fs::write(site.path("ca/ca.toml"), longer).unwrap();
    let directory = site.path("ca");
    drop(site.ca);
    let mut ca = Ca::open(&directory, Access::Write).unwrap();
    let refused = ca.reenroll(&site.authority, &long_ago.bundle.leaf, key(), now);
    assert!(matches!(refused, Err(CaError::RevokedIdentity { .. })));
    // Nothing of press-08 was touched.
    assert!(ca.find_revocable("press-08", now).is_ok());
}

#[test]
fn an_expired_certificate_is_worth_nothing_once_a_later_one_was_revoked() {
    let mut site = Site::new();
    let now = Time::now();
    let short = Life::Between(Time(now.0 - 10 * DAY), Time(now.0 - DAY));
    let (_, ended) = site.issue_for(Role::Edge, "press-07", short).unwrap();
    let lost = site.issue(Role::Edge, "press-07");
    // The answer with the second one may have been lost: the first still does.
    let leaf = &ended.bundle.leaf;
    assert!(site.ca.reenroll(&site.authority, leaf, key(), now).is_ok());
    let serial = lost.summary.serial.to_string();
    site.ca
        .revoke_all(&site.authority, &serial, Reason::KeyCompromise, now)
        .unwrap();
    let refused = site.ca.reenroll(&site.authority, leaf, key(), now);
    assert!(matches!(refused, Err(CaError::RevokedIdentity { .. })));
}

#[test]
fn a_certificate_that_expired_within_the_window_is_revoked() {
    let mut site = Site::new();
    let now = Time::now();
    let short = Life::Between(Time(now.0 - 10 * DAY), Time(now.0 - DAY));
    let (_, ended) = site.issue_for(Role::Edge, "press-07", short).unwrap();
    let serial = ended.summary.serial.to_string();
    for what in ["press-07", "edge/press-07", &serial] {
        let found = site.ca.find_revocable(what, now).unwrap();
        assert!(found.serials().eq([&ended.summary.serial]), "{what}");
    }
    let (_, crl) = site
        .ca
        .revoke_all(&site.authority, "press-07", Reason::KeyCompromise, now)
        .unwrap();
    assert!(crl.is_revoked(&ended.summary.serial));
    let leaf = &ended.bundle.leaf;
    let refused = site.ca.reenroll(&site.authority, leaf, key(), now);
    assert!(matches!(refused, Err(CaError::RevokedCertificate { .. })));
    for what in ["press-07", &serial] {
        let nothing = site.ca.find_revocable(what, now);
        assert!(matches!(nothing, Err(CaError::NothingToRevoke(_))));
    }
}

#[test]
fn revoking_an_identity_cancels_its_tokens() {
    let mut site = Site::new();
    let now = Time::now();
    site.issue(Role::Edge, "press-07");
    let open = credentials("press-07", &token(&mut site.ca, "press-07", now));
    let other = credentials("press-08", &token(&mut site.ca, "press-08", now));
    let (revoked, _) = site
        .ca
        .revoke_all(&site.authority, "edge/press-07", Reason::KeyCompromise, now)
        .unwrap();
    assert_eq!((revoked.entries.len(), revoked.tokens.len()), (1, 1));
    let refused = site.ca.enroll(&site.authority, &open, key(), now);
    assert!(matches!(refused, Err(CaError::TokenUnknown)));
    // One that was never used is all that this identity has.
    let (revoked, _) = site
        .ca
        .revoke_all(&site.authority, "press-08", Reason::KeyCompromise, now)
        .unwrap();
    assert_eq!((revoked.entries.len(), revoked.tokens.len()), (0, 1));
    let refused = site.ca.enroll(&site.authority, &other, key(), now);
    assert!(matches!(refused, Err(CaError::TokenUnknown)));
}

#[test]
fn a_certificate_of_a_clock_that_was_ahead_holds_nothing_up() {
    let mut site = Site::new();
    let now = Time::now();
    let ahead = now.plus_days(700);
    let early = credentials("press-07", &token(&mut site.ca, "press-07", now));
    token(&mut site.ca, "press-08", ahead);
    let issued = site.ca.enroll(&site.authority, &early, key(), now).unwrap();
    assert!(issued.summary.not_before <= now.0);
    let leaf = &issued.bundle.leaf;
    assert!(site.ca.reenroll(&site.authority, leaf, key(), now).is_ok());
    site.ca.records().verify(|_| ()).unwrap();

    // Where the clock stood there for days, only a person can tell.
    let right = credentials("press-09", &token(&mut site.ca, "press-09", now));
    for day in [0, 2] {
        token(&mut site.ca, "press-08", ahead.plus_days(day));
    }
    let refused = site.ca.enroll(&site.authority, &right, key(), now);
    assert!(matches!(refused, Err(CaError::ClockBehind { .. })));
    assert_eq!(site.ca.confirm_clock(now).unwrap(), ahead.plus_days(2));
    site.ca.enroll(&site.authority, &right, key(), now).unwrap();
    let nothing = site.ca.confirm_clock(now);
    assert!(matches!(nothing, Err(CaError::ClockFine { .. })));
    site.ca.records().verify(|_| ()).unwrap();
}

#[test]
fn the_modbus_role_of_a_token_stays_with_its_certificates() {
    let mut site = Site::new();
    let now = Time::now();
    let order = TokenOrder {
        role: Role::Client,
        modbus_role: Some("Operator".parse().unwrap()),
        ..token_order("scada")
    };
    let secret = site.ca.token(order, now).unwrap().0.secret.clone();
    let shown = Credentials {
        role: Role::Client,
        ..credentials("scada", &secret)
    };
    let first = site.ca.enroll(&site.authority, &shown, key(), now).unwrap();
    let second = site
        .ca
        .reenroll(&site.authority, &first.bundle.leaf, key(), now)
        .unwrap();
    for issued in [&first, &second] {
        let role = issued.summary.modbus_role.as_ref().unwrap();
        assert_eq!(role.as_str(), "Operator");
    }
    let entries = site.ca.records().certificates().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.modbus_role.is_some()));

    let order = TokenOrder {
        role: Role::Headend,
        modbus_role: Some("Operator".parse().unwrap()),
        ..token_order("hd-1")
    };
    let refused = site.ca.token(order, now);
    assert!(matches!(refused, Err(CaError::ModbusRole { .. })));
}

fn token(ca: &mut Ca, name: &str, now: Time) -> Secret {
    ca.token(token_order(name), now).unwrap().0.secret.clone()
}

fn token_order(name: &str) -> TokenOrder {
    TokenOrder {
        role: Role::Edge,
        name: name.parse().unwrap(),
        modbus_role: None,
        address: "127.0.0.1:4434".to_owned(),
        life: HOUR,
    }
}

fn credentials(name: &str, secret: &Secret) -> Credentials {
    Credentials {
        role: Role::Edge,
        name: name.parse().unwrap(),
        secret: secret.clone(),
    }
}

fn key() -> PublicKey {
    make::Key::generate().unwrap().public().unwrap()
}
