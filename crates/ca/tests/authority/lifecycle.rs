//! A CA and its agents from the first key to the last revocation.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::site::{self, Site};
use fieldlock_ca::authority::Life;
use fieldlock_ca::keyfile::KeyFileError;
use fieldlock_ca::{CaError, Order, Passphrase, Source, Time, init, make};
use fieldlock_enroll::files::{self as enroll, EnrollError, Expect};
use fieldlock_pki::bundle::{Bundle, BundleError, crl_pem};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Installed, Role, StoreError};

#[test]
fn init_overwrites_nothing() {
    let site = Site::new();
    let again = init::make(&site::plan(site.directory.path()), Time::now()).unwrap_err();
    assert!(matches!(again, CaError::Exists { .. }), "{again}");
    let mut elsewhere = site::plan(site.directory.path());
    elsewhere.directory = site.path("ca2");
    let root_key = init::make(&elsewhere, Time::now()).unwrap_err();
    assert!(matches!(root_key, CaError::Exists { .. }), "{root_key}");
    assert!(!site.path("ca2").exists());
}

#[test]
fn keys_are_private_and_files_that_are_not_are_refused() {
    let site = Site::new();
    for (path, mode) in [
        ("ca", 0o700),
        ("usb", 0o700),
        ("ca/issuing.key.pem", 0o600),
        ("usb/root.key.pem", 0o600),
        ("ca/records.db", 0o600),
    ] {
        let found = fs::metadata(site.path(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    assert!(!site.path("ca/root").exists() && !site.path("ca/root.key.pem").exists());
    let wrong = Passphrase::new("not it at all".to_owned()).unwrap();
    assert!(matches!(
        site.ca.unlock(&wrong),
        Err(CaError::Key(KeyFileError::Passphrase { .. }))
    ));
    for mode in [0o640, 0o604, 0o660] {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(site.path("ca/issuing.key.pem"), permissions).unwrap();
        assert!(matches!(
            site.ca.unlock(&site::passphrase()),
            Err(CaError::Key(KeyFileError::Readable { .. }))
        ));
    }
}

#[test]
fn request_sign_install() {
    let mut site = Site::new();
    let state = site.path("edge");
    let asked = ask(&state, "press-07");
    let missing = Installed::load(&state).unwrap_err();
    assert!(
        matches!(missing, StoreError::RequestWaiting { .. }),
        "{missing}"
    );

    let issued = site.sign(&asked, Role::Edge, "press-07").unwrap();
    let expect = Expect {
        root: Some(root_fingerprint(&site)),
        replace_root: false,
    };
    let pem = issued.bundle.to_pem();
    let now = enroll::install(&state, bundle(&pem), &expect, Time::now().0).unwrap();
    assert_eq!(now.identity.uri(), "spiffe://plant1.example/edge/press-07");
    assert!(!now.root_known);

    let installed = Installed::load(&state).unwrap();
    assert_eq!(installed.identity, now.identity);
    assert_eq!(installed.bundle(), issued.bundle);
    assert!(!state.join("identity/key.pem.new").exists());
    assert_eq!(format!("{installed:?}").matches("PRIVATE").count(), 0);
    // The same file once more changes nothing.
    assert!(
        enroll::install(&state, bundle(&pem), &expect, Time::now().0)
            .unwrap()
            .root_known
    );
}

#[test]
fn repeated_request_keeps_its_key_and_renewal_makes_a_new_one() {
    let mut site = Site::new();
    let state = site.path("edge");
    ask(&state, "press-07");
    let second = enroll::request(
        &state,
        Some(Role::Edge),
        Some("press-07".parse().unwrap()),
        false,
    )
    .unwrap();
    assert!(second.repeated);
    let other = enroll::request(
        &state,
        Some(Role::Edge),
        Some("press-08".parse().unwrap()),
        false,
    );
    assert!(matches!(other, Err(EnrollError::OtherRequest { .. })));
    install(&mut site, &state, &second.pem, "press-07");

    let before = Installed::load(&state).unwrap();
    let renewal = enroll::request(&state, None, None, false).unwrap();
    assert!(!renewal.repeated);
    assert_eq!(renewal.name.as_str(), "press-07");
    // Until the answer arrives the agent goes on with what it has.
    assert_eq!(Installed::load(&state).unwrap().chain, before.chain);
    let issued = install(&mut site, &state, &renewal.pem, "press-07");
    assert_eq!(issued.still_valid.len(), 1);
    assert_ne!(Installed::load(&state).unwrap().key_der, before.key_der);
}

#[test]
fn what_does_not_belong_is_not_installed() {
    let mut site = Site::new();
    let state = site.path("edge");
    let asked = ask(&state, "press-07");
    let install =
        |pem: &str, expect: &Expect| enroll::install(&state, bundle(pem), expect, Time::now().0);
    let any = Expect::default();

    let other_name = site.sign(&asked, Role::Edge, "press-08").unwrap();
    let error = install(&other_name.bundle.to_pem(), &any).unwrap_err();
    assert!(
        matches!(error, EnrollError::OtherIdentity { .. }),
        "{error}"
    );

    let other_key = site.issue(Role::Edge, "press-07");
    let error = install(&other_key.bundle.to_pem(), &any).unwrap_err();
    assert!(matches!(error, EnrollError::OtherKey { .. }), "{error}");

    let mut foreign = Site::new();
    let issued = foreign.sign(&asked, Role::Edge, "press-07").unwrap();
    let ours = Expect {
        root: Some(root_fingerprint(&site)),
        replace_root: false,
    };
    let error = install(&issued.bundle.to_pem(), &ours).unwrap_err();
    assert!(matches!(error, EnrollError::Fingerprint { .. }), "{error}");
    assert!(matches!(
        Installed::load(&state),
        Err(StoreError::RequestWaiting { .. })
    ));

    let late = Time::now().0 + 400 * 86_400;
    let error = enroll::install(&state, issued.bundle, &any, late).unwrap_err();
    assert!(
        matches!(error, EnrollError::Bundle(BundleError::Expired { .. })),
        "{error}"
    );
}

#[test]
fn another_root_needs_to_be_asked_for() {
    let mut site = Site::new();
    let state = site.path("edge");
    let asked = ask(&state, "press-07");
    install(&mut site, &state, &asked, "press-07");
    let mut successor = Site::new();
    let renewal = enroll::request(&state, None, None, false).unwrap();
    let issued = successor
        .sign(&renewal.pem, Role::Edge, "press-07")
        .unwrap();
    let pem = issued.bundle.to_pem();
    let error =
        enroll::install(&state, bundle(&pem), &Expect::default(), Time::now().0).unwrap_err();
    assert!(matches!(error, EnrollError::OtherRoot { .. }), "{error}");
    let replace = Expect {
        root: None,
        replace_root: true,
    };
    enroll::install(&state, bundle(&pem), &replace, Time::now().0).unwrap();
    assert_eq!(Installed::load(&state).unwrap().trust, issued.bundle.trust);
}

#[test]
fn revocation_reaches_an_agent_by_file_and_never_goes_back() {
    let mut site = Site::new();
    let state = site.path("headend");
    let (key, headend) = site.issue_for(Role::Headend, "hd-1", Life::Usual).unwrap();
    key.install(&state, &headend.bundle).unwrap();
    let edge = site.issue(Role::Edge, "press-07");
    let old = site.ca.crls().unwrap().map(|der| crl_pem(&der)).concat();

    let reason = Reason::KeyCompromise;
    let (revoked, _) = site
        .ca
        .revoke_all(&site.authority, "press-07", reason, Time::now())
        .unwrap();
    assert!(revoked.serials().eq([&edge.summary.serial]));
    let new = site.ca.crls().unwrap().map(|der| crl_pem(&der)).concat();
    let change = enroll::merge_trust(&state, &new).unwrap();
    assert_eq!(change.merged.news.len(), 1);
    assert_eq!(change.crls.len(), 2);
    assert!(!change.revokes_us);
    let list = Installed::load(&state).unwrap().trust;
    assert!(list.revokes(&edge.bundle.leaf));

    let error = enroll::merge_trust(&state, &old).unwrap_err();
    assert!(matches!(error, EnrollError::OlderCrl { .. }), "{error}");
    let foreign = Site::new()
        .ca
        .crls()
        .unwrap()
        .map(|der| crl_pem(&der))
        .concat();
    let error = enroll::merge_trust(&state, &foreign).unwrap_err();
    assert!(matches!(error, EnrollError::Foreign { .. }), "{error}");

    // A bundle from before the revocation does not bring the old list back.
    let pem = headend.bundle.to_pem();
    enroll::install(&state, bundle(&pem), &Expect::default(), Time::now().0).unwrap();
    let list = Installed::load(&state).unwrap().trust;
    assert!(list.revokes(&edge.bundle.leaf));
}

#[test]
fn revoked_and_foreign_keys_get_no_certificate() {
    let mut site = Site::new();
    let asked = ask(&site.path("edge"), "press-07");
    let issued = site.sign(&asked, Role::Edge, "press-07").unwrap();
    for (role, name) in [(Role::Edge, "press-08"), (Role::Operator, "press-07")] {
        let error = site.sign(&asked, role, name).unwrap_err();
        assert!(matches!(error, CaError::UsedKey { .. }), "{error}");
    }
    // The same key for the same identity is a renewal.
    let renewed = site.sign(&asked, Role::Edge, "press-07").unwrap();
    assert_ne!(renewed.summary.serial, issued.summary.serial);
    let serials = [issued.summary.serial];
    site.ca
        .revoke(&site.authority, &serials, Reason::Unspecified, Time::now())
        .unwrap();
    let error = site.sign(&asked, Role::Edge, "press-07").unwrap_err();
    assert!(matches!(error, CaError::RevokedKey { .. }), "{error}");
}

#[test]
fn revocation_whose_crl_was_never_written_is_made_good() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let old = fs::read(site.path("ca/issuing.crl.pem")).unwrap();
    let serials = [issued.summary.serial.clone()];
    site.ca
        .revoke(
            &site.authority,
            &serials,
            Reason::KeyCompromise,
            Time::now(),
        )
        .unwrap();
    assert!(!site.ca.crl_due(Time::now()).unwrap());
    fs::write(site.path("ca/issuing.crl.pem"), old).unwrap();
    assert!(site.ca.crl_due(Time::now()).unwrap());
    let next = site.issue(Role::Edge, "press-08");
    let proof = next.bundle.check(Time::now().0).unwrap();
    assert!(proof.issuing_crl.is_revoked(&issued.summary.serial));
}

#[test]
fn certificates_end_with_the_issuing_ca_at_the_latest() {
    let mut site = Site::new();
    let error = site
        .issue_for(Role::Edge, "press-07", Life::Days(9000))
        .unwrap_err();
    assert!(matches!(error, CaError::BeyondIssuing { .. }), "{error}");
    let now = Time::now();
    let (_, issued) = site
        .issue_for(Role::Edge, "press-07", Life::Days(30))
        .unwrap();
    assert_eq!(Time(issued.summary.not_after).days_from(now), 30);
}

#[test]
fn an_issuing_ca_that_has_ended_issues_nothing_and_still_revokes() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let late = Time::now().plus_days(site.ca.settings().issuing.days + 1);
    let order = Order {
        role: Role::Edge,
        name: "press-08".parse().unwrap(),
        key: make::Key::generate().unwrap().public().unwrap(),
        source: Source::Made,
        life: Life::Usual,
        modbus_role: None,
    };
    let refused = site.ca.issue(&site.authority, order, late);
    let error = refused.unwrap_err();
    assert!(matches!(error, CaError::IssuingEnded { .. }), "{error}");
    let serials = [issued.summary.serial];
    let reason = Reason::KeyCompromise;
    let crl = site.ca.revoke(&site.authority, &serials, reason, late);
    assert!(crl.unwrap().is_revoked(&serials[0]));
    // Nobody takes what it has issued.
    let judged = issued.bundle.trust.judge(&issued.bundle.leaf, late.0);
    assert!(matches!(judged, Err(BundleError::Expired { .. })));
}

#[test]
fn a_name_with_two_roles_is_not_revoked_by_guess() {
    let mut site = Site::new();
    site.issue(Role::Edge, "press-07");
    let device = site.issue(Role::Device, "press-07");
    let now = Time::now();
    let error = site.ca.find_revocable("press-07", now).unwrap_err();
    assert!(matches!(error, CaError::Ambiguous { .. }), "{error}");
    let found = site.ca.find_revocable("device/press-07", now).unwrap();
    assert!(found.serials().eq([&device.summary.serial]));
    assert!(matches!(
        site.ca.find_revocable("press-99", now),
        Err(CaError::Unknown(_))
    ));
}

fn ask(state: &std::path::Path, name: &str) -> String {
    let name = name.parse().unwrap();
    enroll::request(state, Some(Role::Edge), Some(name), false)
        .unwrap()
        .pem
}

fn install(
    site: &mut Site,
    state: &std::path::Path,
    request: &str,
    name: &str,
) -> fieldlock_ca::Issued {
    let issued = site.sign(request, Role::Edge, name).unwrap();
    let pem = issued.bundle.to_pem();
    enroll::install(state, bundle(&pem), &Expect::default(), Time::now().0).unwrap();
    issued
}

fn root_fingerprint(site: &Site) -> String {
    let pem = fs::read_to_string(site.path("ca/root.pem")).unwrap();
    let root = fieldlock_pki::bundle::certificates_from_pem(&pem).unwrap();
    fieldlock_pki::Summary::of(&root[0])
        .unwrap()
        .fingerprint
        .to_lowercase()
        .replace(':', "")
}

fn bundle(pem: &str) -> Bundle {
    Bundle::parse(pem).unwrap()
}
