//! Bundles and requests as an attacker would have them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fieldlock_pki::bundle::{self, Bundle, BundleError, Part};
use fieldlock_pki::csr::{self, PublicKey, RequestError};
use fieldlock_pki::issue::{Authority, Reason, Revocation, RevocationList, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::store::{self, Request};
use fieldlock_pki::{Crl, Identity, Installed, Role, Serial, Site, StoreError, Summary, TrustList};
use rcgen::KeyPair;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

#[test]
fn bundle_goes_both_ways_and_proves_its_identity() {
    let site = Fixture::new();
    let (_, bundle) = site.edge();
    let parsed = Bundle::parse(&bundle.to_pem()).unwrap();
    assert_eq!(parsed, bundle);
    let proof = parsed.check(NOW).unwrap();
    assert_eq!(
        proof.identity.uri(),
        "spiffe://plant1.example/edge/press-07"
    );
    assert_eq!(proof.issuing_crl.number, 1);
    assert_eq!(
        Identity::from_certificate(&bundle.leaf).unwrap(),
        proof.identity
    );
    assert!(Identity::from_certificate(&bundle.trust.issuing[0]).is_err());
    let summary = Summary::of(&proof.issuing).unwrap();
    assert!(summary.is_ca && summary.identity.is_none());
}

#[test]
fn leaf_comes_first_and_nothing_is_missing() {
    let (_, bundle) = Fixture::new().edge();
    let blocks = pem::parse_many(bundle.to_pem()).unwrap();
    assert_eq!(blocks.len(), 5);
    let outcome =
        |blocks: &[pem::Pem]| Bundle::parse(&pem::encode_many(blocks)).and_then(|b| b.check(NOW));
    for missing in 0..5 {
        let mut fewer = blocks.clone();
        fewer.remove(missing);
        assert!(outcome(&fewer).is_err(), "{missing}");
    }
    for other in 1..5 {
        let mut swapped = blocks.clone();
        swapped.swap(0, other);
        assert!(outcome(&swapped).is_err(), "{other} first");
    }
    let mut reversed = blocks.clone();
    reversed[1..].reverse();
    outcome(&reversed).unwrap();
    let twice = [blocks.clone(), blocks].concat();
    assert!(outcome(&twice).is_err());
}

#[test]
fn no_changed_octet_goes_unnoticed() {
    let (_, bundle) = Fixture::new().edge();
    let parts: [fn(&mut Bundle) -> &mut Vec<u8>; 5] = [
        |bundle| &mut bundle.leaf,
        |bundle| &mut bundle.trust.issuing[0],
        |bundle| &mut bundle.trust.roots[0],
        |bundle| &mut bundle.trust.crls[0],
        |bundle| &mut bundle.trust.crls[1],
    ];
    for (index, part) in parts.into_iter().enumerate() {
        let length = part(&mut bundle.clone()).len();
        for position in 0..length {
            let mut changed = bundle.clone();
            if let Some(octet) = part(&mut changed).get_mut(position) {
                *octet ^= 1 << (position % 8);
            }
            assert!(changed.verify().is_err(), "part {index}, octet {position}");
        }
        let mut longer = bundle.clone();
        part(&mut longer).push(0);
        assert!(longer.verify().is_err(), "part {index} with an octet more");
        let mut shorter = bundle.clone();
        part(&mut shorter).pop();
        assert!(shorter.verify().is_err(), "part {index} with an octet less");
    }
}

#[test]
fn dates_are_checked_at_both_ends() {
    let (_, bundle) = Fixture::new().edge();
    assert!(
        bundle.check(NOW + 90 * DAY - 1).is_err(),
        "the CRL is stale before that"
    );
    assert!(bundle.check(NOW).is_ok());
    assert!(matches!(
        bundle.check(NOW - DAY),
        Err(BundleError::NotYetValid {
            part: Part::Leaf,
            ..
        })
    ));
    assert!(matches!(
        bundle.check(NOW + 31 * DAY),
        Err(BundleError::CrlStale {
            part: Part::Issuing,
            ..
        })
    ));
    assert!(matches!(
        bundle.check(NOW + 91 * DAY),
        Err(BundleError::Expired {
            part: Part::Leaf,
            ..
        })
    ));
}

#[test]
fn revoked_leaf_and_revoked_issuing_ca_prove_nothing() {
    let site = Fixture::new();
    let (_, bundle) = site.edge();
    for (part, der, signer) in [
        (Part::Leaf, &bundle.leaf, &site.issuing),
        (Part::Issuing, &bundle.trust.issuing[0], &site.root),
    ] {
        let serial = Summary::of(der).unwrap().serial;
        let mut revoked = bundle.clone();
        replace_crl(&mut revoked, signer, crl(signer, 2, &[serial]));
        assert!(revoked.trust.revokes(&revoked.leaf));
        assert!(matches!(
            revoked.verify(),
            Err(BundleError::Revoked { part: found, .. }) if found == part
        ));
    }
    assert!(!bundle.trust.revokes(&bundle.leaf));
}

#[test]
fn crl_of_another_ca_does_not_count() {
    let site = Fixture::new();
    let (_, bundle) = site.edge();
    let other = Fixture::new();
    for (of, signer) in [
        (&site.issuing, &other.issuing),
        (&site.issuing, &site.root),
        (&site.root, &other.root),
    ] {
        let mut mixed = bundle.clone();
        replace_crl(&mut mixed, of, crl(signer, 2, &[]));
        assert!(matches!(mixed.verify(), Err(BundleError::Trust(_))));
    }
}

#[test]
fn a_leaf_signs_nothing() {
    let site = Fixture::new();
    let (key, bundle) = site.edge();
    let leaf = Authority::new(bundle.leaf.clone(), Box::new(key)).unwrap();
    let (_, forged) = leaf_of(&leaf, "spiffe://plant1.example/headend/hd-1");
    let chain = Bundle {
        leaf: forged,
        ..bundle.clone()
    };
    assert!(matches!(chain.verify(), Err(BundleError::Signature { .. })));
    let pem = [&chain.leaf, &bundle.leaf].map(|der| bundle::certificate_pem(der));
    assert!(Bundle::parse(&(pem.concat() + &bundle.trust.to_pem())).is_err());
    let mut list = bundle.trust.clone();
    list.issuing.push(bundle.leaf);
    let chain = Bundle {
        trust: list,
        ..chain
    };
    assert!(chain.verify().is_err());
}

#[test]
fn root_signs_no_leaf_in_place_of_the_issuing_ca() {
    let site = Fixture::new();
    let (_, bundle) = site.edge();
    let (_, leaf) = leaf_of(&site.root, "spiffe://plant1.example/edge/press-07");
    let chain = Bundle { leaf, ..bundle };
    assert!(chain.verify().is_err());
}

#[test]
fn summaries_and_parsers_survive_any_octets() {
    let site = Fixture::new();
    let (key, bundle) = site.edge();
    let name = "press-07".parse().unwrap();
    let pem = csr::request(&key, Role::Edge, &name).unwrap();
    let request = pem::parse(&pem).unwrap().into_contents();
    for der in [&bundle.leaf, &bundle.trust.crls[0], &request] {
        for position in 0..der.len() {
            for value in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = der.clone();
                changed[position] = value;
                let cut = &changed[..position];
                for octets in [changed.as_slice(), cut] {
                    let _ = Summary::of(octets);
                    let _ = Identity::from_certificate(octets);
                    let _ = Crl::parse(octets);
                    let block = pem::Pem::new("CERTIFICATE REQUEST", octets);
                    let _ = PublicKey::from_request(&pem::encode(&block));
                }
            }
        }
    }
}

#[test]
fn request_must_be_whole_and_signed_by_its_key() {
    let key = KeyPair::generate().unwrap();
    let good = csr::request(&key, Role::Edge, &"press-07".parse().unwrap()).unwrap();
    let taken = PublicKey::from_request(&good).unwrap();
    assert_eq!(taken.hash(), PublicKey::of(&key).unwrap().hash());

    let der = pem::parse(&good).unwrap().into_contents();
    let encode = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    let mut forged = der.clone();
    let position = forged
        .windows(8)
        .position(|part| part == b"press-07")
        .unwrap();
    forged[position] = b'P';
    assert_eq!(
        PublicKey::from_request(&encode(&forged)).unwrap_err(),
        RequestError::Signature
    );
    let mut longer = der.clone();
    longer.extend([0, 0]);
    assert_eq!(
        PublicKey::from_request(&encode(&longer)).unwrap_err(),
        RequestError::Trailing { octets: 2 }
    );
    let mislabelled = pem::encode(&pem::Pem::new("CERTIFICATE", der));
    for bad in [
        "",
        "press-07",
        mislabelled.as_str(),
        &(good.clone() + &good),
    ] {
        assert_eq!(
            PublicKey::from_request(bad).unwrap_err(),
            RequestError::NotPem
        );
    }
    let huge = "x".repeat(PublicKey::MAX_REQUEST + 1);
    assert_eq!(
        PublicKey::from_request(&huge).unwrap_err(),
        RequestError::TooLong
    );
}

#[test]
fn store_says_what_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("edge");
    let error = Installed::load(&state).unwrap_err();
    assert!(matches!(error, StoreError::NotEnrolled { .. }));
    assert!(
        error.to_string().contains("fieldlock enroll request"),
        "{error}"
    );
    let key = KeyPair::generate().unwrap().serialize_pem();
    Request::keep(&state, Role::Edge, &"press-07".parse().unwrap(), &key).unwrap();
    let error = Installed::load(&state).unwrap_err();
    assert!(matches!(error, StoreError::RequestWaiting { .. }));
    assert!(
        error.to_string().contains("fieldlock enroll install"),
        "{error}"
    );
    assert_eq!(
        Request::load(&state).unwrap().unwrap().name.as_str(),
        "press-07"
    );
}

#[test]
fn store_refuses_a_readable_key_and_a_key_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let site = Fixture::new();
    let (key, bundle) = site.edge();
    store::install(state, &key.serialize_pem(), &bundle).unwrap();
    assert_eq!(Installed::load(state).unwrap().bundle(), bundle);

    let path = state.join(store::KEY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Installed::load(state),
        Err(StoreError::Readable(_))
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(
        Installed::load(state),
        Err(StoreError::OtherKey { .. })
    ));
}

#[test]
fn installation_cut_short_is_all_old_or_all_new() {
    let site = Fixture::new();
    let (old_key, old) = site.edge();
    let (new_key, new) = site.edge();
    // How many files had been moved when the power failed; 0 is right after the commit.
    for moved in 0..=3 {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        store::install(state, &old_key.serialize_pem(), &old).unwrap();
        let ready = state.join("install.ready");
        let finished = tempfile::tempdir().unwrap();
        store::install(finished.path(), &new_key.serialize_pem(), &new).unwrap();
        fs::create_dir(&ready).unwrap();
        let files = [store::KEY, store::CHAIN, store::TRUST];
        for (index, file) in files.into_iter().enumerate() {
            let name = file.rsplit('/').next().unwrap();
            let to = if index < moved {
                state.join(file)
            } else {
                ready.join(name)
            };
            fs::copy(finished.path().join(file), to).unwrap();
        }
        let installed = Installed::load(state).unwrap();
        assert_eq!(installed.bundle(), new, "after {moved} files");
        assert!(!ready.exists());
    }
    // Before the commit nothing counts.
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    store::install(state, &old_key.serialize_pem(), &old).unwrap();
    fs::create_dir(state.join("install.new")).unwrap();
    fs::write(state.join("install.new/key.pem"), "half").unwrap();
    assert_eq!(Installed::load(state).unwrap().bundle(), old);
    store::install(state, &new_key.serialize_pem(), &new).unwrap();
    assert_eq!(Installed::load(state).unwrap().bundle(), new);
}

#[test]
fn a_renewed_pair_can_be_taken_back_until_it_has_worked() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let site = Fixture::new();
    let (key, bundle) = site.edge();
    store::install(state, &key.serialize_pem(), &bundle).unwrap();
    assert!(matches!(
        store::revert(state),
        Err(StoreError::NoPrevious { .. })
    ));
    let renew = || {
        let (key, renewed) = site.edge();
        let issuing = &renewed.trust.issuing[0];
        store::renew(state, &key.serialize_pem(), &renewed.leaf, issuing).unwrap();
        let installed = Installed::load(state).unwrap();
        assert_eq!(installed.leaf(), renewed.leaf);
        assert_eq!(installed.trust, bundle.trust);
    };
    // The second renewal must not push out the pair that is known to work.
    renew();
    renew();
    let mode = |file: &str| fs::metadata(state.join(file)).unwrap().permissions().mode();
    assert_eq!(mode("identity/previous") & 0o777, 0o700);
    assert_eq!(mode("identity/previous/key.pem") & 0o777, 0o600);
    store::revert(state).unwrap();
    assert_eq!(Installed::load(state).unwrap().bundle(), bundle);
    renew();
    store::confirm(state).unwrap();
    assert!(store::revert(state).is_err());
    assert!(!state.join(store::PREVIOUS).exists());
}

struct Fixture {
    root: Authority,
    issuing: Authority,
}

impl Fixture {
    fn new() -> Self {
        let site: Site = "plant1.example".parse().unwrap();
        let key = || Box::new(KeyPair::generate().unwrap());
        let validity = Validity {
            not_before: NOW - 300,
            not_after: NOW + 1000 * DAY,
        };
        let root = Authority::root(&site, "1", key(), &serial(), validity).unwrap();
        let issuing = root
            .issuing(&site, "1", key(), &serial(), validity)
            .unwrap();
        Self { root, issuing }
    }

    fn edge(&self) -> (KeyPair, Bundle) {
        let (key, leaf) = leaf_of(&self.issuing, "spiffe://plant1.example/edge/press-07");
        let authorities = [&self.issuing, &self.root];
        let mut crls = authorities.map(|authority| crl(authority, 1, &[])).to_vec();
        crls.sort_unstable();
        let trust = TrustList {
            roots: vec![self.root.certificate().to_vec()],
            issuing: vec![self.issuing.certificate().to_vec()],
            crls,
            ..TrustList::default()
        };
        (key, Bundle { leaf, trust })
    }
}

fn replace_crl(bundle: &mut Bundle, of: &Authority, new: Vec<u8>) {
    let crls = &mut bundle.trust.crls;
    crls.retain(|der| Crl::signed_by(der, of.certificate()).is_err());
    crls.push(new);
}

fn leaf_of(authority: &Authority, uri: &str) -> (KeyPair, Vec<u8>) {
    let identity = Identity::from_uri(uri).unwrap();
    let key = KeyPair::generate().unwrap();
    let public = PublicKey::of(&key).unwrap();
    let profile = Profile::of(identity.role).unwrap();
    let validity = Validity {
        not_before: NOW - 300,
        not_after: NOW + 90 * DAY,
    };
    let leaf = authority
        .leaf(&identity, None, &profile, &public, &serial(), validity)
        .unwrap();
    (key, leaf)
}

fn crl(authority: &Authority, number: u64, revoked: &[Serial]) -> Vec<u8> {
    let list = RevocationList {
        number,
        this_update: NOW - 300,
        next_update: NOW + 30 * DAY,
        revoked: revoked
            .iter()
            .map(|serial| Revocation {
                serial: serial.clone(),
                time: NOW,
                reason: Reason::KeyCompromise,
            })
            .collect(),
    };
    let der = authority.crl(&list).unwrap();
    let pem = bundle::crl_pem(&der);
    assert_eq!(bundle::crls_from_pem(&pem).unwrap().concat(), der);
    der
}

/// Serials need only differ here.
fn serial() -> Serial {
    let hash = PublicKey::of(&KeyPair::generate().unwrap())
        .unwrap()
        .hash()
        .to_owned();
    format!("4{}", &hash[..31]).parse().unwrap()
}
