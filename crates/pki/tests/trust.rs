//! Trust lists: how they grow, and what a hostile carrier can't do to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::{Authority, RevocationList, Validity};
use fieldlock_pki::trust::{News, TrustList, TrustListError};
use fieldlock_pki::{Serial, Site};
use rcgen::KeyPair;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

#[test]
fn a_list_goes_both_ways_and_its_order_does_not_matter() {
    let list = Ca::new("1").list(1);
    list.verify(&site()).unwrap();
    let pem = list.to_pem();
    assert_eq!(TrustList::parse(&pem).unwrap(), list);
    let mut blocks = pem::parse_many(&pem).unwrap();
    blocks.reverse();
    let reversed = TrustList::parse(&pem::encode_many(&blocks)).unwrap();
    assert_eq!(reversed.hash(), list.hash());
    assert_ne!(Ca::new("1").list(1).hash(), list.hash());
}

#[test]
fn what_lacks_something_or_has_too_much_proves_nothing() {
    let ca = Ca::new("1");
    let whole = ca.list(1);
    let broken: [fn(&mut TrustList); 5] = [
        |list| list.roots.clear(),
        |list| list.crls.truncate(1),
        |list| list.crls.clear(),
        |list| list.issuing = Ca::new("2").list(1).issuing,
        |list| list.crls.extend(Ca::new("2").list(1).crls),
    ];
    for (index, spoil) in broken.into_iter().enumerate() {
        let mut list = whole.clone();
        spoil(&mut list);
        assert!(list.verify(&site()).is_err(), "{index}");
    }
    let elsewhere: Site = "plant2.example".parse().unwrap();
    assert!(matches!(
        whole.verify(&elsewhere),
        Err(TrustListError::Constraint { .. })
    ));
}

#[test]
fn newer_crls_are_taken_and_older_ones_never() {
    let ca = Ca::new("1");
    let mut list = ca.list(5);
    let news = list.merge(&ca.crls_only(6), &site()).unwrap();
    assert_eq!(news.news.len(), 2);
    assert!(matches!(news.news[0], News::Crl { number: 6, .. }));
    let after = list.hash();
    let old = list.merge(&ca.list(5), &site()).unwrap();
    assert!(old.news.is_empty());
    assert_eq!(old.older.len(), 2);
    assert_eq!((old.older[0].number, old.older[0].installed), (5, 6));
    assert_eq!(list.hash(), after);
    // A replacement does not bring them back either.
    list.replace(&ca.list(5), &site()).unwrap();
    assert_eq!(list.hash(), after);
    let again = list.merge(&ca.list(6), &site()).unwrap();
    assert!(again.news.is_empty() && again.older.len() <= 2);
}

#[test]
fn a_carrier_brings_in_nothing_that_is_not_vouched_for() {
    let ca = Ca::new("1");
    let list = ca.list(1);
    let foreign = Ca::new("2");
    let mut own_issuing = TrustList {
        issuing: foreign.list(1).issuing,
        ..TrustList::default()
    };
    own_issuing.crls = foreign.list(1).crls;
    for offered in [foreign.list(1), own_issuing, foreign.crls_only(9)] {
        let mut merged = list.clone();
        let outcome = merged.merge(&offered, &site()).unwrap();
        assert!(outcome.news.is_empty() && !outcome.foreign.is_empty());
        assert_eq!(merged, list);
        assert!(merged.replace(&offered, &site()).is_err());
        assert_eq!(merged, list, "an error changes nothing");
    }
    // A link made by the foreign root itself vouches for nothing here.
    let mut linked = foreign.list(1);
    linked.links = vec![foreign.link(&foreign)];
    let mut merged = list.clone();
    assert!(merged.merge(&linked, &site()).unwrap().news.is_empty());
    assert_eq!(merged, list);
}

#[test]
fn an_issuing_ca_of_another_site_is_refused_even_below_our_root() {
    let ca = Ca::new("1");
    let other: Site = "plant2.example".parse().unwrap();
    let stray = ca
        .root
        .issuing(
            &other,
            "9",
            Box::new(KeyPair::generate().unwrap()),
            &serial(),
            validity(),
        )
        .unwrap();
    let offered = TrustList {
        issuing: vec![stray.certificate().to_vec()],
        crls: vec![crl(&stray, 1)],
        ..TrustList::default()
    };
    assert!(matches!(
        ca.list(1).merge(&offered, &site()),
        Err(TrustListError::Constraint { .. })
    ));
}

#[test]
fn issuing_cas_and_roots_turn_over() {
    let old = Ca::new("1");
    let new = Ca::new("2");
    let newest = Ca::new("3");
    let mut agent = old.list(1);

    let mut both = old.list(1);
    both.roots.extend(new.list(1).roots);
    both.issuing.extend(new.list(1).issuing);
    both.crls.extend(new.list(1).crls);
    both.links = vec![old.link(&new)];
    let merged = agent.merge(&both, &site()).unwrap();
    assert!(matches!(merged.news[0], News::Root { .. }));
    assert_eq!(agent.roots.len(), 2);

    let mut after = new.list(2);
    after.links = vec![old.link(&new)];
    let dropped = agent.replace(&after, &site()).unwrap();
    let dropped = dropped
        .news
        .iter()
        .filter(|n| matches!(n, News::Dropped { .. }));
    assert_eq!(dropped.count(), 2);
    assert_eq!(agent.roots, new.list(1).roots);

    // A box that slept through both rotations still follows, hop by hop.
    let mut last = newest.list(1);
    last.links = vec![old.link(&new), new.link(&newest)];
    let mut sleeper = old.list(1);
    let middle = TrustList {
        roots: [newest.list(1).roots, new.list(1).roots].concat(),
        crls: [last.crls.clone(), new.list(1).crls].concat(),
        issuing: [last.issuing.clone(), new.list(1).issuing].concat(),
        links: last.links.clone(),
    };
    sleeper.merge(&middle, &site()).unwrap();
    sleeper.replace(&middle, &site()).unwrap();
    assert_eq!(sleeper.roots.len(), 2);
}

#[test]
fn a_changed_octet_never_gets_in() {
    let ca = Ca::new("1");
    let list = ca.list(1);
    let offered = ca.list(2);
    for index in 0..2 {
        let length = offered.crls[index].len();
        for position in 0..length {
            let mut changed = offered.clone();
            changed.crls[index][position] ^= 1 << (position % 8);
            let mut agent = list.clone();
            let outcome = agent.merge(&changed, &site());
            assert!(
                outcome.is_err() || agent.crls.iter().all(|der| *der != changed.crls[index]),
                "{index} {position}"
            );
        }
    }
}

#[test]
fn revocation_is_looked_up_through_the_chain() {
    let ca = Ca::new("1");
    let list = ca.list(1);
    assert_eq!(list.root_of(&list.issuing[0]), Some(&*list.roots[0]));
    assert_eq!(list.crl_dates().len(), 2);
    assert!(list.crl_dates()[0].is_root);
    assert!(!list.revokes(&list.issuing[0]));
}

struct Ca {
    mark: String,
    root: Authority,
    issuing: Authority,
}

impl Ca {
    fn new(mark: &str) -> Self {
        let key = || Box::new(KeyPair::generate().unwrap());
        let root = Authority::root(&site(), mark, key(), &serial(), validity()).unwrap();
        let issuing = root
            .issuing(&site(), mark, key(), &serial(), validity())
            .unwrap();
        let mark = mark.to_owned();
        Self {
            mark,
            root,
            issuing,
        }
    }

    fn list(&self, number: u64) -> TrustList {
        let pem = [&self.root, &self.issuing]
            .map(|authority| {
                fieldlock_pki::bundle::certificate_pem(authority.certificate())
                    + &fieldlock_pki::bundle::crl_pem(&crl(authority, number))
            })
            .concat();
        TrustList::parse(&pem).unwrap()
    }

    fn crls_only(&self, number: u64) -> TrustList {
        TrustList {
            crls: self.list(number).crls,
            ..TrustList::default()
        }
    }

    fn link(&self, newer: &Ca) -> Vec<u8> {
        self.root
            .link(&newer.root, &site(), &newer.mark, &serial(), validity())
            .unwrap()
    }
}

fn site() -> Site {
    "plant1.example".parse().unwrap()
}

fn validity() -> Validity {
    Validity {
        not_before: NOW - 300,
        not_after: NOW + 1000 * DAY,
    }
}

fn crl(authority: &Authority, number: u64) -> Vec<u8> {
    let list = RevocationList {
        number,
        this_update: NOW - 300,
        next_update: NOW + 30 * DAY,
        revoked: Vec::new(),
    };
    authority.crl(&list).unwrap()
}

fn serial() -> Serial {
    let hash = PublicKey::of(&KeyPair::generate().unwrap())
        .unwrap()
        .hash()
        .to_owned();
    format!("4{}", &hash[..31]).parse().unwrap()
}
