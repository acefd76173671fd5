//! What `openssl` makes of our keys, certificates and CRLs, and we of its requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod site;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use fieldlock_ca::authority::Life;
use fieldlock_ca::{CaError, Time};
use fieldlock_pki::bundle::{Bundle, certificate_pem, crl_pem};
use fieldlock_pki::csr::{PublicKey, RequestError};
use fieldlock_pki::issue::{Reason, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::{Identity, Role, Serial};
use libtest_mimic::{Arguments, Trial};
use site::Site;

const TESTS: [(&str, fn()); 10] = [
    (
        "keys_open_with_the_passphrase",
        keys_open_with_the_passphrase,
    ),
    ("leaf_of_each_role_verifies", leaf_of_each_role_verifies),
    ("names_and_usages_are_shown", names_and_usages_are_shown),
    ("authorities_are_constrained", authorities_are_constrained),
    (
        "one_crl_of_the_two_is_not_enough",
        one_crl_of_the_two_is_not_enough,
    ),
    ("revoked_leaf_fails", revoked_leaf_fails),
    ("expired_leaf_fails", expired_leaf_fails),
    ("leaf_of_another_site_fails", leaf_of_another_site_fails),
    (
        "request_gets_nothing_but_its_key_signed",
        request_gets_nothing_but_its_key_signed,
    ),
    ("requests_with_other_keys", requests_with_other_keys),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = Command::new("openssl").arg("version").output().is_err();
    let required = std::env::var("FIELDLOCK_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    if missing && !required {
        eprintln!(
            "openssl is not installed: its tests are skipped (FIELDLOCK_REQUIRE_PEERS=1 fails them)"
        );
    }
    let trials = TESTS
        .into_iter()
        .map(|(name, test)| {
            let body = move || {
                test();
                Ok(())
            };
            Trial::test(name, body).with_ignored_flag(missing && !required)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn keys_open_with_the_passphrase() {
    let site = Site::new();
    let pass = format!("pass:{}", site::PASSPHRASE);
    for key in ["ca/issuing.key.pem", "usb/root.key.pem"] {
        let path = site.path(key);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let path = path.to_str().unwrap();
        let shown = stdout(&["pkey", "-in", path, "-passin", &pass, "-noout", "-text"]);
        assert!(shown.contains("NIST CURVE: P-256"), "{shown}");
        let plain = stdout(&["pkcs8", "-in", path, "-passin", &pass]);
        assert!(plain.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(
            !run(&["pkey", "-in", path, "-passin", "pass:wrong", "-noout"])
                .status
                .success()
        );
        let parameters = stdout(&["asn1parse", "-in", path]);
        assert!(parameters.contains("scrypt") || parameters.contains("1.3.6.1.4.1.11591.4.11"));
        assert!(parameters.contains("aes-256-cbc"), "{parameters}");
    }
}

fn leaf_of_each_role_verifies() {
    let mut site = Site::new();
    for role in Role::ALL {
        let issued = site.issue(role, "press-07");
        let output = verify(site.directory.path(), &issued.bundle, 2);
        assert!(output.status.success(), "{role}: {output:?}");
        let purpose = if role.serves() {
            "sslserver"
        } else {
            "sslclient"
        };
        let other = if role.serves() {
            "sslclient"
        } else {
            "sslserver"
        };
        assert!(verify_for(site.directory.path(), purpose).status.success());
        assert!(!verify_for(site.directory.path(), other).status.success());
    }
}

fn names_and_usages_are_shown() {
    let mut site = Site::new();
    let edge = site_leaf(&mut site, Role::Edge);
    let edge = text(&site, &edge);
    let headend = site_leaf(&mut site, Role::Headend);
    let headend = text(&site, &headend);
    for (shown, role) in [(&edge, "edge"), (&headend, "headend")] {
        let names = format!(
            "URI:spiffe://plant1.example/{role}/press-07, DNS:press-07.{role}.plant1.example"
        );
        assert!(shown.contains(&names), "{shown}");
        assert!(shown.contains("CA:FALSE"), "{shown}");
        assert!(shown.contains("X509v3 Key Usage: critical\n                Digital Signature\n"));
        assert!(shown.contains("X509v3 Subject Key Identifier"));
        assert!(shown.contains("X509v3 Authority Key Identifier"));
    }
    assert!(edge.contains("TLS Web Client Authentication\n"), "{edge}");
    assert!(!edge.contains("TLS Web Server Authentication"), "{edge}");
    assert!(
        headend.contains("TLS Web Server Authentication\n"),
        "{headend}"
    );
    assert!(
        !headend.contains("TLS Web Client Authentication"),
        "{headend}"
    );
}

fn authorities_are_constrained() {
    let site = Site::new();
    let root = shown(&site.path("ca/root.pem"));
    assert!(root.contains("CA:TRUE, pathlen:1"), "{root}");
    let issuing = shown(&site.path("ca/issuing.pem"));
    assert!(issuing.contains("CA:TRUE, pathlen:0"), "{issuing}");
    assert!(
        issuing.contains("Permitted:\n                  DNS:plant1.example"),
        "{issuing}"
    );
    for text in [&root, &issuing] {
        assert!(
            text.contains("X509v3 Basic Constraints: critical"),
            "{text}"
        );
        assert!(
            text.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign"),
            "{text}"
        );
    }
}

fn one_crl_of_the_two_is_not_enough() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    assert!(
        verify(site.directory.path(), &issued.bundle, 2)
            .status
            .success()
    );
    let output = verify(site.directory.path(), &issued.bundle, 1);
    assert!(!output.status.success());
    assert!(
        all(&output).contains("unable to get certificate CRL"),
        "{output:?}"
    );
}

fn revoked_leaf_fails() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let other = site.issue(Role::Edge, "press-08");
    let before = crl_number(&site);
    let serial = issued.summary.serial.clone();
    let authority = &site.authority;
    site.ca
        .revoke(
            authority,
            std::slice::from_ref(&serial),
            Reason::KeyCompromise,
            Time::now(),
        )
        .unwrap();

    assert!(crl_number(&site) > before);
    let path = site.path("ca/issuing.crl.pem");
    let crl = stdout(&["crl", "-in", path.to_str().unwrap(), "-noout", "-text"]);
    assert!(crl.to_lowercase().contains(&serial.to_string()), "{crl}");
    assert!(crl.contains("Key Compromise"), "{crl}");

    let trust = site.ca.trust().unwrap();
    let revoked = Bundle {
        trust: trust.clone(),
        ..issued.bundle
    };
    let output = verify(site.directory.path(), &revoked, 2);
    assert!(!output.status.success());
    assert!(all(&output).contains("certificate revoked"), "{output:?}");
    let unharmed = Bundle {
        trust,
        ..other.bundle
    };
    assert!(verify(site.directory.path(), &unharmed, 2).status.success());
}

fn expired_leaf_fails() {
    let mut site = Site::new();
    let now = Time::now();
    for (from, to, message) in [
        (now.0 - 9000, now.0 - 600, "certificate has expired"),
        (now.0 + 600, now.0 + 9000, "certificate is not yet valid"),
    ] {
        let life = Life::Between(Time(from), Time(to));
        let (_, issued) = site.issue_for(Role::Edge, "press-07", life).unwrap();
        let output = verify(site.directory.path(), &issued.bundle, 2);
        assert!(!output.status.success());
        assert!(all(&output).contains(message), "{output:?}");
    }
}

fn leaf_of_another_site_fails() {
    let mut site = Site::new();
    let issued = site.issue(Role::Edge, "press-07");
    let identity = Identity::from_uri("spiffe://plant2.example/edge/press-07").unwrap();
    let now = Time::now();
    let key = fieldlock_ca::make::Key::generate()
        .unwrap()
        .public()
        .unwrap();
    let leaf = site
        .authority
        .first()
        .unwrap()
        .leaf(
            &identity,
            None,
            &Profile::of(Role::Edge).unwrap(),
            &key,
            &"77".parse::<Serial>().unwrap(),
            Validity {
                not_before: now.0 - 60,
                not_after: now.0 + 600,
            },
        )
        .unwrap();
    let foreign = Bundle {
        leaf,
        ..issued.bundle
    };
    let output = verify(site.directory.path(), &foreign, 2);
    assert!(!output.status.success());
    assert!(
        all(&output).contains("permitted subtree violation"),
        "{output:?}"
    );
    assert!(foreign.verify().is_err());
}

fn request_gets_nothing_but_its_key_signed() {
    let mut site = Site::new();
    let greedy = request(
        site.directory.path(),
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &[
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign",
            "extendedKeyUsage=serverAuth,anyExtendedKeyUsage,1.2.3.4",
            "subjectAltName=DNS:hd-1.headend.plant1.example,DNS:*.example,URI:spiffe://plant1.example/headend/hd-1,IP:192.0.2.1,email:root@plant1.example",
            "nameConstraints=permitted;DNS:example",
            "1.2.3.4.5=ASN1:UTF8String:surprise",
        ],
    );
    let issued = site.sign(&greedy, Role::Edge, "press-07").unwrap();
    assert_eq!(
        issued.summary.identity.unwrap().uri(),
        "spiffe://plant1.example/edge/press-07"
    );
    let shown = text(&site, &issued.bundle.leaf);
    assert!(shown.contains("CA:FALSE"));
    for asked in [
        "CA:TRUE",
        "Certificate Sign",
        "CRL Sign",
        "Server Auth",
        "Any Extended",
        "1.2.3.4",
        "hd-1",
        "*.example",
        "192.0.2.1",
        "root@",
        "Name Constraints",
        "surprise",
        "evil",
    ] {
        assert!(!shown.contains(asked), "{asked} in {shown}");
    }
    assert!(
        verify(site.directory.path(), &issued.bundle, 2)
            .status
            .success()
    );
}

fn requests_with_other_keys() {
    let mut site = Site::new();
    let directory = site.directory.path().to_owned();
    let p384 = request(
        &directory,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &[],
    );
    let ed25519 = request(&directory, &["-newkey", "ed25519"], &[]);
    for (name, pem) in [("p384", &p384), ("ed25519", &ed25519)] {
        let issued = site.sign(pem, Role::Edge, name).unwrap();
        assert!(
            verify(&directory, &issued.bundle, 2).status.success(),
            "{name}"
        );
    }
    let rsa = request(&directory, &["-newkey", "rsa:2048"], &[]);
    let p521 = request(
        &directory,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &[],
    );
    let refused = site.sign(&rsa, Role::Edge, "rsa").unwrap_err();
    assert!(matches!(refused, CaError::KeyKind { .. }), "{refused}");
    assert_eq!(
        PublicKey::from_request(&p521).unwrap_err(),
        RequestError::Key
    );
    // Not every program that such a client or device talks to can do Ed25519.
    let other = request(&directory, &["-newkey", "ed25519"], &[]);
    let refused = site.sign(&other, Role::Client, "scada").unwrap_err();
    assert!(matches!(refused, CaError::KeyKind { .. }), "{refused}");
    let again = site.sign(&p384, Role::Edge, "other").unwrap_err();
    assert!(matches!(again, CaError::UsedKey { .. }), "{again}");
}

fn site_leaf(site: &mut Site, role: Role) -> Vec<u8> {
    site.issue(role, "press-07").bundle.leaf
}

/// A request made by `openssl req` with a new key.
fn request(directory: &Path, key: &[&str], extensions: &[&str]) -> String {
    let key_path = directory.join("asker.key");
    let mut arguments = vec!["req", "-new", "-nodes", "-subj", "/CN=evil/O=other"];
    arguments.extend(["-keyout", key_path.to_str().unwrap()]);
    arguments.extend(key);
    for extension in extensions {
        arguments.extend(["-addext", extension]);
    }
    stdout(&arguments)
}

/// Leaves the files for [`verify_for`].
fn verify(directory: &Path, bundle: &Bundle, crls: usize) -> Output {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).unwrap();
    write("leaf.pem", certificate_pem(&bundle.leaf));
    let issuing = &bundle.trust.issuing[0];
    write("issuing.pem", certificate_pem(issuing));
    write("root.pem", certificate_pem(&bundle.trust.roots[0]));
    // The CRL of the issuing CA first.
    let mut lists = bundle.trust.crls.clone();
    lists.sort_by_key(|der| fieldlock_pki::Crl::signed_by(der, issuing).is_err());
    let crls: String = lists.iter().take(crls).map(|der| crl_pem(der)).collect();
    write("crls.pem", crls);
    verify_for(directory, "any")
}

fn verify_for(directory: &Path, purpose: &str) -> Output {
    Command::new("openssl")
        .current_dir(directory)
        .args([
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-purpose",
            purpose,
        ])
        .args([
            "-CAfile",
            "root.pem",
            "-untrusted",
            "issuing.pem",
            "-CRLfile",
            "crls.pem",
        ])
        .arg("leaf.pem")
        .output()
        .unwrap()
}

fn crl_number(site: &Site) -> u64 {
    let path = site.path("ca/issuing.crl.pem");
    let shown = stdout(&["crl", "-in", path.to_str().unwrap(), "-noout", "-crlnumber"]);
    let digits = shown.trim().trim_start_matches("crlNumber=0x");
    u64::from_str_radix(digits, 16).unwrap()
}

fn text(site: &Site, der: &[u8]) -> String {
    let path = site.path("shown.pem");
    fs::write(&path, certificate_pem(der)).unwrap();
    shown(&path)
}

fn shown(path: &Path) -> String {
    stdout(&["x509", "-in", path.to_str().unwrap(), "-noout", "-text"])
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().unwrap()
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
