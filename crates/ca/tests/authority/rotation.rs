//! One issuing CA, one root after the other.

use fieldlock_ca::authority::Life;
use fieldlock_ca::{Access, Ca, CaError, Time, ceremony, generation};
use fieldlock_pki::Role;
use fieldlock_pki::issue::Reason;

use crate::site::{Site, passphrase};

const DAY: i64 = 86_400;

#[test]
fn issuing_cas_turn_over_and_the_old_one_goes_when_its_leaves_have() {
    let mut site = Site::new();
    let now = Time::now();
    let short = Life::Between(Time(now.0 - DAY), Time(now.0 + DAY));
    let (_, before) = site.issue_for(Role::Edge, "press-07", short).unwrap();
    let old = mark_in_use(&site.ca);

    let next = add(&mut site, now);
    // Trusted, and not in use yet.
    assert_eq!(mark_in_use(&site.ca), old);
    assert_eq!(site.ca.trust().unwrap().issuing.len(), 2);
    site.ca.use_issuing(&next, now).unwrap();
    let after = site.issue(Role::Edge, "press-08");
    assert!(after.summary.issuer.ends_with(&next));
    after.bundle.check(now.0).unwrap();

    // A revocation stands on the list of the CA that signed the certificate, and on no other.
    let serials = [before.summary.serial.clone()];
    site.ca
        .revoke(&site.authority, &serials, Reason::Superseded, now)
        .unwrap();
    let trust = site.ca.trust().unwrap();
    assert!(trust.revokes(&before.bundle.leaf));
    let lists = trust.issuing.iter().filter_map(|ca| trust.crl_of(ca));
    let revoked: Vec<usize> = lists.map(|crl| crl.revoked().len()).collect();
    assert_eq!(revoked.iter().sum::<usize>(), 1);

    let refused = site.ca.drop_issuing(&next, now);
    assert!(matches!(refused, Err(CaError::InUse { .. })));
    site.ca.drop_issuing(&old, now).unwrap();
    let reopened = reopen(&mut site);
    assert_eq!(reopened.trust().unwrap().issuing.len(), 1);
    assert_eq!(mark_in_use(&reopened), next);
}

#[test]
fn a_ca_with_valid_leaves_is_not_dropped() {
    let mut site = Site::new();
    let now = Time::now();
    site.issue(Role::Edge, "press-07");
    let old = mark_in_use(&site.ca);
    let next = add(&mut site, now);
    site.ca.use_issuing(&next, now).unwrap();
    let refused = site.ca.drop_issuing(&old, now).unwrap_err();
    assert!(refused.to_string().contains("edge/press-07"), "{refused}");
    let late = Time(now.0 + 100 * DAY);
    site.ca.drop_issuing(&old, late).unwrap();
}

#[test]
fn a_new_root_is_followed_and_the_old_one_goes() {
    let mut site = Site::new();
    let now = Time::now();
    let old_issuing = mark_in_use(&site.ca);
    let old_root = site.ca.root_certificate().unwrap();
    let edge = site.issue(Role::Edge, "press-07").bundle.trust;

    let old = ceremony::open(&site.path("usb"), &passphrase()).unwrap();
    let directory = site.path("usb2");
    let name = crate::site::SITE.parse().unwrap();
    let pem =
        ceremony::new_root(&old, &name, &directory, None, &passphrase(), (100, 10), now).unwrap();
    site.ca.add_root(&pem).unwrap();
    let next = add_from(&mut site, "usb2", now);
    let second = site.ca.unlock_root(&directory, &passphrase()).unwrap();
    let crl = site.ca.renew_root_crl(&second, Time(now.0 + DAY)).unwrap();
    let list = site.ca.trust().unwrap();
    assert_eq!(list.crl_of(second.certificate()).unwrap(), crl);
    site.ca.use_issuing(&next, now).unwrap();
    assert_ne!(site.ca.root_certificate().unwrap(), old_root);

    let refused = site
        .ca
        .drop_root(&generation::mark_of(&old_root).unwrap(), now);
    assert!(matches!(refused, Err(CaError::InUse { .. })));
    site.ca
        .drop_issuing(&old_issuing, Time(now.0 + 95 * DAY))
        .unwrap();
    site.ca
        .drop_root(&generation::mark_of(&old_root).unwrap(), now)
        .unwrap();
    let reopened = reopen(&mut site);
    let list = reopened.trust().unwrap();
    list.verify(&name).unwrap();
    assert_eq!((list.roots.len(), list.issuing.len()), (1, 1));

    // An agent that knew only the old root follows, by the link.
    let mut agent = edge;
    agent.replace(&list, &name).unwrap();
    assert_eq!(agent.roots, list.roots);
}

#[test]
fn what_the_root_has_not_signed_is_not_added() {
    let mut site = Site::new();
    let foreign = Site::new();
    let now = Time::now();
    let request = site.ca.new_issuing(None, &passphrase()).unwrap();
    let root = ceremony::open(&foreign.path("usb"), &passphrase()).unwrap();
    let name = crate::site::SITE.parse().unwrap();
    let signed = ceremony::sign_issuing(&root, &name, &request, 30, now).unwrap();
    let refused = site.ca.add_issuing(&signed, &passphrase(), now);
    assert!(matches!(refused, Err(CaError::NoRoot)));
    assert_eq!(site.ca.trust().unwrap().issuing.len(), 1);
}

fn add(site: &mut Site, now: Time) -> String {
    add_from(site, "usb", now)
}

/// Has the root in `folder` sign a new issuing CA, and opens its key.
fn add_from(site: &mut Site, folder: &str, now: Time) -> String {
    let request = site.ca.new_issuing(None, &passphrase()).unwrap();
    let root = ceremony::open(&site.path(folder), &passphrase()).unwrap();
    let name = crate::site::SITE.parse().unwrap();
    let signed = ceremony::sign_issuing(&root, &name, &request, 30, now).unwrap();
    let mark = site.ca.add_issuing(&signed, &passphrase(), now).unwrap();
    site.authority = site.ca.unlock(&passphrase()).unwrap();
    mark
}

fn mark_in_use(ca: &Ca) -> String {
    let all = ca.generations();
    all.into_iter().find(|(_, used, _)| *used).unwrap().0
}

/// What is there after a restart; the lock of the first is given up.
fn reopen(site: &mut Site) -> Ca {
    let path = site.path("ca");
    let other = Site::new();
    site.ca = other.ca;
    Ca::open(&path, Access::Read).unwrap()
}
