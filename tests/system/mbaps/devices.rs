//! Devices behind the edge that speak MBAPS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use fieldlock_audit::{Kind, Outcome};
use fieldlock_sim::Fault;
use fieldlock_testkit::modbus;
use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{NO_ANSWER, expect_exception, read_one, write_one};
use fieldlock_tests::{Agent, Hosted, Pair, SOON, Setup, Site, trial, within};
use libtest_mimic::Trial;

use super::{client, setup};
use crate::interop::{PymodbusServer, run_client, run_tls_client};

pub(super) fn trials() -> Vec<Trial> {
    let pymodbus = |name: &str, run: fn()| {
        let name = format!("mbaps::{name}");
        trial::with_peers(&name, &["pymodbus"], run)
    };
    vec![
        pymodbus("pymodbus_device", pymodbus_device),
        pymodbus("a_device_with_tls_1_2_only_where_it_is_allowed", tls_1_2),
        pymodbus("a_device_that_is_another_is_not_asked", other_devices),
        pymodbus("a_revoked_device_is_cut", revoked),
        pymodbus("a_device_that_refuses_the_edge", refuses_the_edge),
        trial::with_peers(
            "mbaps::a_write_to_a_device_is_sent_once",
            &["socat"],
            at_most_once,
        ),
        trial::test("mbaps::a_device_without_tls_is_not_asked", plain_device),
    ]
}

fn device(name: &str) -> PathBuf {
    Site::shared().issued("device", name, &[])
}

/// The device behind the edge is at `address`, and speaks MBAPS.
fn behind(address: SocketAddr, mbaps: &str) -> Setup {
    let keys = format!("connect_timeout = \"2s\", mbaps = {{ {mbaps} }}");
    setup().plc(address).modbus_tcp(&keys)
}

/// The name of its certificate is by default that of the device.
fn pymodbus_device() {
    let scada = client("scada", "Operator");
    for (name, mbaps) in [("press-07", ""), ("plc-1", "name = \"plc-1\"")] {
        let server = PymodbusServer::tls(&device(name), ["1.3", "1.3"]);
        let pair = behind(server.address, mbaps).up();
        for unit in [1, 2] {
            let dns = format!("{name}.device.plant1.example");
            let direct = run_tls_client(server.address, unit, &scada, &dns);
            assert_eq!(run_client(pair.clients, unit), direct, "unit {unit}");
        }
    }
}

fn tls_1_2() {
    let server = PymodbusServer::tls(&device("press-07"), ["1.2", "1.2"]);
    let pair = behind(server.address, "").up();
    expect_exception(&mut pair.client(), &read_one(41), NO_ANSWER);
    wait_failure(&pair.edge, "handshake");
    let pair = behind(server.address, "tls = \"1.2\"").up();
    write_one(&mut pair.client(), 41, 12);
}

fn other_devices() {
    let site = Site::shared();
    let revoked = device("plc-revoked");
    let crl = site.revoke("device", "plc-revoked");
    let expired = site.issued_between("device", "press-07", -60, -10);
    let other_site = Site::new();
    let cases: [(&Path, &str); 6] = [
        (&device("plc-2"), "for another name"),
        (&site.issued("headend", "press-07", &[]), "for another name"),
        (&client("press-07", "Operator"), "certificate"),
        (&revoked, "revoked"),
        (&expired, "expired"),
        (
            &other_site.issued("device", "press-07", &[]),
            "not trusted here",
        ),
    ];
    for (folder, reason) in cases {
        let name = match folder == revoked {
            true => "name = \"plc-revoked\"",
            false => "",
        };
        let server = PymodbusServer::tls(folder, ["1.2", "1.3"]);
        let mut pair = behind(server.address, name).prepare();
        pair.edge.install_crl(&crl);
        pair.headend.start();
        pair.edge.start();
        pair.wait_up();
        let mut client = pair.client();
        expect_exception(&mut client, &read_one(41), NO_ANSWER);
        expect_exception(&mut client, &modbus::write_register(41, 1), NO_ANSWER);
        let failure = wait_failure(&pair.edge, "");
        assert!(failure.contains(reason), "{failure}, not {reason}");
        // Certainly not sent, and said once.
        let outcome = pair.edge.wait_record("the write's outcome", |record| {
            record.kind == Kind::WriteOutcome
        });
        assert_eq!(outcome.outcome, Some(Outcome::NotSent));
        let said = pair.edge.log().matches("can't be reached").count();
        assert_eq!(said, 1, "{}", pair.edge.log());
    }
}

/// Why the edge has no connection to its device.
#[track_caller]
fn wait_failure(edge: &Agent, wanted: &str) -> String {
    let mut error = String::new();
    within(SOON, "the failure in `status`", || {
        let device = edge.status()["devices"][0].clone();
        error = device["last_error"].as_str().unwrap_or_default().to_owned();
        device["connect_failures"].as_u64() > Some(0) && !error.is_empty()
    });
    assert!(error.contains(wanted), "{error}, not {wanted}");
    error
}

fn revoked() {
    let server = PymodbusServer::tls(&device("plc-lost"), ["1.2", "1.3"]);
    let pair = behind(server.address, "name = \"plc-lost\"").up();
    let mut client = pair.client();
    write_one(&mut client, 41, 1);
    assert_eq!(pair.edge.status()["devices"][0]["connections"], 1);
    let crl = Site::shared().revoke("device", "plc-lost");
    let started = Instant::now();
    pair.edge.install_crl(&crl);
    within(SOON, "the cut", || {
        pair.edge.status()["devices"][0]["connections"] == 0
    });
    eprintln!("{:?} from `enroll crl` to the cut", started.elapsed());
    let cut = pair
        .edge
        .wait_record("the revocation", |record| record.kind == Kind::Revoked);
    assert_eq!(cut.device.as_deref(), Some("press-07"));
    expect_exception(&mut client, &read_one(41), NO_ANSWER);
    let failure = wait_failure(&pair.edge, "revoked");
    assert!(
        failure.starts_with(&server.address.to_string()),
        "{failure}"
    );
}

/// In TLS 1.3 the edge's handshake is over before the device has judged it: what was sent may have
/// been taken, as far as the edge knows.
fn refuses_the_edge() {
    let own = device("press-07");
    let directory = Directory::new().unwrap();
    for file in ["key.pem", "bundle.pem"] {
        let text = fs::read_to_string(own.join(file)).unwrap();
        // Without the root it trusts nobody.
        let certificates = text.split_inclusive("-----END CERTIFICATE-----\n");
        let text: String = certificates.take(2).collect();
        directory.write(file, &text).unwrap();
    }
    for (versions, tls, expected) in [
        (["1.3", "1.3"], "", Outcome::Unknown),
        (["1.2", "1.2"], "tls = \"1.2\"", Outcome::NotSent),
    ] {
        let server = PymodbusServer::tls(directory.path(), versions);
        let pair = behind(server.address, tls).up();
        let write = modbus::write_register(41, 1);
        expect_exception(&mut pair.client(), &write, NO_ANSWER);
        let outcome = pair.edge.wait_record("the write's outcome", |record| {
            record.kind == Kind::WriteOutcome
        });
        assert_eq!(outcome.outcome, Some(expected));
        match expected {
            Outcome::Unknown => assert!(pair.edge.log().contains("connection lost")),
            _ => drop(wait_failure(&pair.edge, "handshake")),
        }
    }
}

/// The answer to a write is lost inside TLS: it is not sent again, and nobody says it was done.
fn at_most_once() {
    let plc = Hosted::faulty(0, |request| match request {
        0 => Fault::None,
        _ => Fault::Close,
    });
    let shim = TlsShim::start(plc.address());
    let pair: Pair = behind(shim.address, "").up();
    let mut client = pair.client();
    write_one(&mut client, 41, 1);
    expect_exception(&mut client, &modbus::write_register(41, 2), NO_ANSWER);
    let lost = pair.edge.wait_record("the lost write", |record| {
        record.kind == Kind::WriteOutcome && record.outcome == Some(Outcome::Unknown)
    });
    assert_eq!(lost.function, Some(6));
    assert_eq!(plc.received().len(), 2);
}

/// socat: TLS as of the device `press-07` in front of a plain one.
struct TlsShim {
    address: SocketAddr,
    _process: Process,
    _directory: Directory,
}

impl TlsShim {
    fn start(plain: SocketAddr) -> Self {
        let address = free_address().unwrap();
        let folder = device("press-07");
        let folder = folder.display();
        let listen = format!(
            "OPENSSL-LISTEN:{},bind={},reuseaddr,fork,verify=1,cert={folder}/bundle.pem,\
             key={folder}/key.pem,cafile={folder}/bundle.pem",
            address.port(),
            address.ip(),
        );
        let directory = Directory::new().unwrap();
        let mut command = Command::new(Peer::find("socat").unwrap());
        command.args(["-d", "-d", &listen, &format!("TCP:{plain}")]);
        let mut process = Process::start("socat", &mut command, directory.path()).unwrap();
        if let Err(error) = process.wait_log("listening on", SOON) {
            panic!("{error}");
        }
        Self {
            address,
            _process: process,
            _directory: directory,
        }
    }
}

/// A plain device does not answer a handshake.
fn plain_device() {
    let plc = Hosted::plc(0);
    let pair = behind(plc.address(), "").up();
    expect_exception(&mut pair.client(), &read_one(41), NO_ANSWER);
    wait_failure(&pair.edge, "");
    assert_eq!(plc.requests(), 0);
}
