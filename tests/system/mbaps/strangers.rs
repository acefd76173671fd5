//! Who does not become an MBAPS client, and what is said about it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus;
use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::read_one;
use fieldlock_tests::{Agent, SOON, Site, trial, within};
use libtest_mimic::Trial;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};

use super::openssl::Openssl;
use super::{READ, Secured, client, setup};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial::with_peers(
            "mbaps::strangers_are_refused_and_on_record",
            &["openssl"],
            strangers,
        ),
        trial::with_peers(
            "mbaps::a_malformed_role_is_refused",
            &["openssl"],
            malformed_roles,
        ),
        trial::with_peers(
            "mbaps::server_names_that_are_addresses_are_counted",
            &["openssl"],
            addresses_as_names,
        ),
        trial::test("mbaps::plain_modbus_is_refused", plain),
        trial::test("mbaps::slow_handshakes_are_cut", slow),
        trial::test("mbaps::unfinished_handshakes_count_as_clients", seats),
    ]
}

fn strangers() {
    let secured = Secured::open();
    let site = Site::shared();
    let other_site = Site::new();
    let expired = site.issued_between("client", "late", -60, -10);
    let early = site.issued_between("client", "early", 10, 60);
    let cases: [(&Path, &str); 7] = [
        (&site.issued("edge", "cell-9", &[]), "role edge"),
        (&site.issued("headend", "hd-9", &[]), "extended key usage"),
        (&site.issued("device", "plc-9", &[]), "extended key usage"),
        (&expired, "expired"),
        (&early, "not valid yet"),
        (
            &other_site.issued("client", "scada", &[]),
            "not trusted here",
        ),
        (
            &site.issued("edge", "cell-8", &["--modbus-role", "Operator"]),
            "role edge",
        ),
    ];
    // Each from an address of its own: repeats of one address become one record.
    let trusted = site.issued("client", "trusting", &[]);
    for (place, (folder, reason)) in (2..).zip(cases) {
        let local = format!("127.0.0.{place}");
        let from = ["-bind", &format!("{local}:0")];
        let stranger = Openssl::connect_as(secured.address, folder, &trusted, &from);
        refused(&secured.pair.headend, stranger, &local, reason);
    }
    let from = ["-bind", "127.0.0.20:0"];
    let anonymous = Openssl::anonymous(secured.address, &trusted, &from);
    refused(
        &secured.pair.headend,
        anonymous,
        "127.0.0.20",
        "no certificate",
    );
    assert_eq!(secured.pair.plc().requests(), 0);
    // And who is welcome still is.
    let mut scada = Openssl::connect(secured.address, &client("scada", "Operator"), &[]);
    assert_eq!(scada.request(&read_one(41)), READ);
}

#[track_caller]
fn refused(headend: &Agent, mut stranger: Openssl, local: &str, reason: &str) {
    assert_eq!(stranger.ask(&read_one(41)), None);
    let address = Some(local.parse().unwrap());
    let record = headend.wait_record(&format!("of {local}"), |record| {
        let client = record.client.as_ref();
        record.kind == Kind::ClientRefused && client.is_some_and(|c| c.address == address)
    });
    let said = record.reason.as_deref().unwrap_or_default();
    assert!(said.contains(reason), "{said}, not {reason}");
}

/// Each makes the TLS library warn; nobody fills the log with that.
fn addresses_as_names() {
    const TRIES: u64 = 12;
    let secured = Secured::open();
    let trusted = Site::shared().issued("client", "trusting", &[]);
    for _ in 0..TRIES {
        let named = ["-servername", "127.0.0.1"];
        let mut client = Openssl::anonymous(secured.address, &trusted, &named);
        assert_eq!(client.ask(&read_one(41)), None);
    }
    let headend = &secured.pair.headend;
    let counted = || headend.status()["library_warnings"].as_u64();
    within(SOON, "all to be counted", || counted() >= Some(TRIES));
    let log = headend.log();
    let lines = log.lines().filter(|line| line.contains("Illegal SNI"));
    assert!(lines.count() <= 1, "{log}");
}

/// Certificates that our CA never makes, under its key.
fn malformed_roles() {
    let site = Site::shared();
    let secured = Secured::open();
    let trusted = site.issued("client", "trusting", &[]);
    let good = forged(&site, &["0c084f70657261746f72"]);
    let mut client = Openssl::connect_as(secured.address, good.path(), &trusted, &[]);
    assert_eq!(client.request(&read_one(41)), READ);
    for (place, roles) in (30..).zip([
        &["0c084f70657261746f72", "0c06566965776572"][..],
        &["0c084f70657261746f72", "0c084f70657261746f72"],
        &["0c084f70657261746f720c0141"],
        &["13084f70657261746f72"],
        &["0c0100"],
        &["0c00"],
        &[""],
        &["0c81084f70657261746f72"],
    ]) {
        let local = format!("127.0.0.{place}");
        let folder = forged(&site, roles);
        let from = ["-bind", &format!("{local}:0")];
        let client = Openssl::connect_as(secured.address, folder.path(), &trusted, &from);
        refused(&secured.pair.headend, client, &local, "Modbus role");
    }
}

/// key.pem and bundle.pem with these values (hexadecimal) of the role extension.
fn forged(site: &Site, roles: &[&str]) -> Directory {
    let pem = Command::new(Peer::find("openssl").unwrap())
        .args(["pkcs8", "-in"])
        .arg(site.ca().join("issuing.key.pem"))
        .args(["-passin", "pass:only for tests"])
        .output()
        .unwrap();
    let authority = KeyPair::from_pem(&String::from_utf8(pem.stdout).unwrap()).unwrap();
    let issuing = std::fs::read_to_string(site.ca().join("issuing.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&issuing, &authority).unwrap();
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![
        SanType::URI("spiffe://plant1.example/client/forged".try_into().unwrap()),
        SanType::DnsName("forged.client.plant1.example".try_into().unwrap()),
    ];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let extension = |hex: &&str| {
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let pairs = hex.as_bytes().chunks(2);
        let value = pairs.map(|pair| octet(pair).unwrap()).collect();
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 50316, 802, 1], value)
    };
    parameters.custom_extensions = roles.iter().map(extension).collect();
    let key = KeyPair::generate().unwrap();
    let leaf = parameters.signed_by(&key, &issuer).unwrap().pem();
    let directory = Directory::new().unwrap();
    directory.write("key.pem", &key.serialize_pem()).unwrap();
    let bundle = leaf + &issuing;
    directory.write("bundle.pem", &bundle).unwrap();
    directory
}

fn plain() {
    let secured = Secured::open();
    let mut client = modbus::Client::connect(secured.address).unwrap();
    assert!(client.request(1, &read_one(41)).is_err());
    secured.pair.headend.wait_record("the refusal", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientRefused && reason.contains("not TLS")
    });
    assert_eq!(secured.pair.plc().requests(), 0);
}

/// Silent from the start, and after the first octets of a record.
fn slow() {
    let secured = Secured::open();
    let started = Instant::now();
    let ended = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        assert!(!matches!(&end, Err(e) if e.kind() == ErrorKind::WouldBlock));
        assert!(started.elapsed() > Duration::from_secs(4));
    };
    let silent = TcpStream::connect(secured.address).unwrap();
    let mut begun = TcpStream::connect(secured.address).unwrap();
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    ended(silent);
    ended(begun);
    secured.pair.headend.wait_record("the refusal", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientRefused && reason.contains("in time")
    });
}

/// A flood of connections without a handshake takes no more places than clients have.
fn seats() {
    let secured = Secured::up(setup(), "[client]\nmax_connections_per_address = 2\n");
    let connect = || TcpStream::connect(secured.address).unwrap();
    let held = [connect(), connect()];
    let mut third = connect();
    third.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    secured.pair.headend.wait_record("the third", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientRefused && reason.contains("max_connections_per_address")
    });
    drop(held);
    // What was held back is free again.
    within(SOON, "a client to be served", || {
        let plain = modbus::Client::connect(secured.pair.clients);
        plain.is_ok_and(|mut plain| plain.request(1, &read_one(41)).is_ok())
    });
}
