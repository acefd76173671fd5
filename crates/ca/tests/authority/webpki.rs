//! The verifiers that tunnels use accept our chains with both CRLs, and nothing less.

use std::sync::Arc;
use std::time::Duration;

use crate::site::Site;
use fieldlock_ca::Time;
use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::issue::{Reason, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::{Identity, Role};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};

#[test]
fn edge_is_accepted_as_client_with_both_crls() {
    let issued = Site::new().issue(Role::Edge, "press-07");
    verify_client(&issued.bundle, 2).unwrap();
    let error = verify_client(&issued.bundle, 1).unwrap_err();
    assert_eq!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)
    );
}

#[test]
fn headend_is_accepted_as_server_under_its_name_only() {
    let issued = Site::new().issue(Role::Headend, "hd-1");
    verify_server(&issued.bundle, "hd-1.headend.plant1.example").unwrap();
    for name in [
        "hd-2.headend.plant1.example",
        "hd-1.edge.plant1.example",
        "localhost",
    ] {
        assert!(verify_server(&issued.bundle, name).is_err(), "{name}");
    }
}

#[test]
fn roles_do_not_stand_in_for_each_other() {
    let mut site = Site::new();
    let edge = site.issue(Role::Edge, "press-07");
    assert!(verify_server(&edge.bundle, "press-07.edge.plant1.example").is_err());
    let headend = site.issue(Role::Headend, "hd-1");
    assert!(verify_client(&headend.bundle, 2).is_err());
}

#[test]
fn revoked_leaf_is_refused() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let serials = [issued.summary.serial.clone()];
    site.ca
        .revoke(&site.authority, &serials, Reason::Superseded, Time::now())
        .unwrap();
    let bundle = Bundle {
        trust: site.ca.trust().unwrap(),
        ..issued.bundle
    };
    let error = verify_client(&bundle, 2).unwrap_err();
    assert_eq!(error, Error::InvalidCertificate(CertificateError::Revoked));
}

#[test]
fn leaf_outside_the_site_is_refused() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let now = Time::now();
    let leaf = site
        .authority
        .first()
        .unwrap()
        .leaf(
            &Identity::from_uri("spiffe://plant2.example/edge/press-07").unwrap(),
            None,
            &Profile::of(Role::Edge).unwrap(),
            &fieldlock_ca::make::Key::generate()
                .unwrap()
                .public()
                .unwrap(),
            &"77".parse().unwrap(),
            Validity {
                not_before: now.0 - 60,
                not_after: now.0 + 600,
            },
        )
        .unwrap();
    let bundle = Bundle {
        leaf,
        ..issued.bundle
    };
    assert!(verify_client(&bundle, 2).is_err());
    assert!(bundle.verify().is_err());
}

#[test]
fn another_ca_of_the_same_site_is_not_trusted() {
    let ours = Site::new().issue(Role::Edge, "press-07");
    let theirs = Site::new().issue(Role::Edge, "press-07");
    let mut mixed = theirs.bundle;
    mixed.trust.roots = ours.bundle.trust.roots;
    assert!(verify_client(&mixed, 2).is_err());
    assert!(mixed.verify().is_err());
}

fn verify_client(bundle: &Bundle, crls: usize) -> Result<(), Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(bundle), Arc::new(default_provider()))
            .with_crls(revocations(bundle, crls))
            .build()
            .unwrap();
    let [leaf, issuing] = chain(bundle);
    verifier
        .verify_client_cert(&leaf, &[issuing], now())
        .map(|_| ())
}

fn verify_server(bundle: &Bundle, name: &str) -> Result<(), Error> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(bundle), Arc::new(default_provider()))
            .with_crls(revocations(bundle, 2))
            .build()
            .unwrap();
    let [leaf, issuing] = chain(bundle);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(&leaf, &[issuing], &name, &[], now())
        .map(|_| ())
}

fn roots(bundle: &Bundle) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(bundle.trust.roots[0].clone()))
        .unwrap();
    Arc::new(roots)
}

fn chain(bundle: &Bundle) -> [CertificateDer<'static>; 2] {
    [&bundle.leaf, &bundle.trust.issuing[0]].map(|der| CertificateDer::from(der.clone()))
}

/// The CRL of the issuing CA first.
fn revocations(bundle: &Bundle, count: usize) -> Vec<CertificateRevocationListDer<'static>> {
    let issuing = &bundle.trust.issuing[0];
    let mut crls = bundle.trust.crls.clone();
    crls.sort_by_key(|der| fieldlock_pki::Crl::signed_by(der, issuing).is_err());
    crls.into_iter()
        .take(count)
        .map(CertificateRevocationListDer::from)
        .collect()
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(Time::now().0.unsigned_abs()))
}
