//! MBAPS clients of the headend: who may do what, and for how long.

use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Record};
use fieldlock_testkit::modbus;
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{BUSY, ILLEGAL_FUNCTION, exception, read_one, read_registers};
use fieldlock_tests::{DEVICE, OPEN_POLICY, SOON, Site, binary, resident, trial, within};
use libtest_mimic::Trial;

use super::openssl::Openssl;
use super::{READ, SERVER, Secured, client, client_without_role, setup};
use crate::interop::{run_client, run_tls_client};

pub(super) fn trials() -> Vec<Trial> {
    let openssl = |name: &str, run: fn()| {
        let name = format!("mbaps::{name}");
        trial::with_peers(&name, &["openssl"], run)
    };
    vec![
        trial::with_peers("mbaps::pymodbus_client", &["pymodbus"], pymodbus_client),
        openssl("role_and_identity_decide", role_and_identity),
        openssl("the_edge_narrows_by_role", narrowed_by_the_edge),
        openssl("a_revoked_client_is_cut_and_stays_out", revoked),
        openssl("policy_and_listener_change_under_a_client", changes),
        openssl("more_at_once_than_may_be_in_flight", pipelined),
        openssl("tls_1_2_only_where_it_is_allowed", tls_1_2),
        trial::with_peers(
            "mbaps::a_client_that_does_not_read_is_bounded",
            &["pymodbus"],
            does_not_read,
        ),
    ]
}

/// Of the client's own listener and of a shared one.
fn pymodbus_client() {
    let shared = free_address().unwrap();
    let listener = format!(
        "[[listener]]\naddress = \"{shared}\"\nmbaps = true\n\
         unit = [{{ unit = 1, device = \"{DEVICE}\" }}]\n"
    );
    let secured = Secured::up(setup(), &listener);
    let direct = run_client(secured.pair.plc_address, 1);
    let scada = client("scada", "Operator");
    for address in [secured.address, shared] {
        assert_eq!(run_tls_client(address, 1, &scada, SERVER), direct);
    }
    let status = secured.pair.headend.status();
    let listening = status["mbaps_listeners"].as_array().unwrap();
    assert_eq!(listening.len(), 2, "{status:#}");
}

const BY_ROLE: &str = r#"
syntax = 1
[[client]]
name = "operators"
role = "Operator"
[[client]]
name = "historian"
identity = "spiffe://plant1.example/client/historian"
[[allow]]
name = "operators work"
client = ["operators"]
device = ["any"]
function = ["read", "write"]
address = ["holding 0-99"]
[[allow]]
name = "the historian reads"
client = ["historian"]
device = ["any"]
function = ["read"]
address = ["holding 0-99"]
"#;

fn role_and_identity() {
    let secured = Secured::up(setup().headend_policy(BY_ROLE), "");
    let write = modbus::write_register(40, 7);
    let refused = |function: u8| vec![function | 0x80, ILLEGAL_FUNCTION];
    for (folder, reads, writes) in [
        (client("scada", "Operator"), true, true),
        (client_without_role("historian"), true, false),
        (client("panel", "Viewer"), false, false),
        (client_without_role("nobody"), false, false),
        // Roles are compared octet by octet.
        (client("lower", "operator"), false, false),
        (Site::shared().issued("operator", "anna", &[]), false, false),
    ] {
        let mut client = Openssl::connect(secured.address, &folder, &[]);
        let answer = client.request(&read_one(41));
        let expected = if reads { READ.to_vec() } else { refused(3) };
        assert_eq!(answer, expected, "{}", folder.display());
        let answer = client.request(&write);
        let expected = if writes { write.to_vec() } else { refused(6) };
        assert_eq!(answer, expected, "{}", folder.display());
    }
    assert_eq!(secured.pair.plc().write_count(), 1);

    let pair = &secured.pair;
    let denied = pair.headend.wait_record("the viewer's write", |record| {
        record.kind == Kind::Denied
            && is(record, "client/panel", Some("Viewer"))
            && record.function == Some(6)
    });
    assert_eq!(denied.exception, Some(ILLEGAL_FUNCTION));
    for agent in [&pair.headend, &pair.edge] {
        agent.wait_record("the operator's write", |record| {
            record.kind == Kind::WriteOutcome && is(record, "client/scada", Some("Operator"))
        });
    }
    pair.headend
        .wait_record("the client without a role", |record| {
            record.kind == Kind::ClientOpen && is(record, "client/nobody", None)
        });

    let mut scada = Openssl::connect(secured.address, &client("scada", "Operator"), &[]);
    scada.request(&read_one(41));
    let status = pair.headend.status();
    let shown = &status["clients"]["connections"];
    let shown = shown.as_array().unwrap().iter();
    let scada: Vec<_> = shown
        .filter(|client| client["name"] == "operators")
        .collect();
    assert_eq!(scada.len(), 1, "{status:#}");
    assert_eq!(scada[0]["identity"], "spiffe://plant1.example/client/scada");
    assert_eq!(scada[0]["modbus_role"], "Operator");
    let socket = pair.headend.state().join("control.sock");
    let text = binary::run_ok(&[&"status", &"--socket", &socket]);
    assert!(
        text.contains("spiffe://plant1.example/client/scada, Modbus role Operator"),
        "{text}"
    );
    let who = "spiffe://plant1.example/client/panel role Viewer";
    let text = binary::run_ok(&[&"audit", &"query", &"--state", &pair.headend.state()]);
    assert!(text.contains(who), "{text}");
}

fn is(record: &Record, identity: &str, role: Option<&str>) -> bool {
    let uri = format!("spiffe://plant1.example/{identity}");
    let client = record.client.as_ref();
    client.is_some_and(|client| {
        client.identity.as_deref() == Some(&uri) && client.role.as_deref() == role
    })
}

/// The headend lets everybody do everything; the edge goes by what it states.
fn narrowed_by_the_edge() {
    let secured = Secured::up(setup().edge_policy(BY_ROLE), "");
    let write = modbus::write_register(40, 7);
    let mut panel = Openssl::connect(secured.address, &client("panel", "Viewer"), &[]);
    assert_eq!(panel.request(&write), [0x86, ILLEGAL_FUNCTION]);
    let mut scada = Openssl::connect(secured.address, &client("scada", "Operator"), &[]);
    assert_eq!(scada.request(&write), write);
    // A plain client has neither identity nor role.
    let mut plain = secured.pair.client();
    assert_eq!(plain.request(1, &write).unwrap(), [0x86, ILLEGAL_FUNCTION]);
    assert_eq!(secured.pair.plc().write_count(), 1);
    secured.pair.edge.wait_record("the denial", |record| {
        record.kind == Kind::Denied && is(record, "client/panel", Some("Viewer"))
    });
}

/// From the new list to the cut.
const CUT: Duration = Duration::from_secs(2);

fn revoked() {
    let secured = Secured::open();
    let (lost, kept) = (client("lost", "Operator"), client("kept", "Operator"));
    let mut lost_client = Openssl::connect(secured.address, &lost, &[]);
    let mut kept_client = Openssl::connect(secured.address, &kept, &[]);
    lost_client.request(&read_one(41));
    kept_client.request(&read_one(41));
    let crl = Site::shared().revoke("client", "lost");
    let started = Instant::now();
    secured.pair.headend.install_crl(&crl);
    lost_client.wait_end(SOON);
    let cut = started.elapsed();
    eprintln!("{cut:?} from `enroll crl` to the cut");
    assert!(cut < CUT, "{cut:?}");
    assert_eq!(kept_client.request(&read_one(41)), READ);
    let headend = &secured.pair.headend;
    headend.wait_record("the revocation", |record| {
        record.kind == Kind::Revoked && is(record, "client/lost", Some("Operator"))
    });

    let mut again = Openssl::connect(secured.address, &lost, &[]);
    assert_eq!(again.ask(&read_one(41)), None);
    headend.wait_record("the refusal", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientRefused && reason.contains("revoked")
    });
}

fn changes() {
    let secured = Secured::up(setup().headend_policy(BY_ROLE), "");
    let panel = client("panel", "Viewer");
    let mut live = Openssl::connect(secured.address, &panel, &[]);
    assert_eq!(live.request(&read_one(41)), [0x83, ILLEGAL_FUNCTION]);
    secured.pair.headend.write_policy(OPEN_POLICY);
    within(SOON, "the new policy to hold for the live client", || {
        live.request(&read_one(41)) == READ
    });

    // The same address for plain clients: who is connected stays, who comes is plain.
    let moved = secured
        .pair
        .headend_config
        .replace("listen_mbaps", "#")
        .replace(
            &format!("listen = \"{}\"", secured.pair.clients),
            &format!("listen = \"{}\"", secured.address),
        );
    secured.pair.headend.write_config(&moved);
    within(SOON, "a plain client to be served", || {
        let plain = modbus::Client::connect(secured.address);
        plain.is_ok_and(|mut plain| plain.request(1, &read_one(41)).is_ok())
    });
    assert_eq!(live.request(&read_one(41)), READ);
}

/// Each request is answered once, by the device or as busy.
fn pipelined() {
    const REQUESTS: usize = 200;
    let secured = Secured::open();
    let mut scada = Openssl::connect(secured.address, &client("scada", "Operator"), &[]);
    let answers = scada.pipeline(&[&read_one(41)[..]; REQUESTS]);
    let busy = answers.iter().filter(|pdu| exception(pdu) == Some(BUSY));
    let good = answers.iter().filter(|pdu| **pdu == READ).count();
    assert_eq!(good + busy.count(), REQUESTS, "{answers:02x?}");
    assert!(good >= 16, "{good} answered");
    assert_eq!(secured.pair.plc().requests(), good as u64);
}

/// And never for tunnels and the CA.
fn tls_1_2() {
    let scada = client("scada", "Operator");
    let older = ["-tls1_2"];
    let strict = Secured::open();
    let mut refused = Openssl::connect(strict.address, &scada, &older);
    assert_eq!(refused.ask(&read_one(41)), None);
    strict.pair.headend.wait_record("the refusal", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientRefused && reason.contains("does not offer TLS 1.3")
    });

    let lenient = Secured::up(setup(), "[mbaps]\ntls = \"1.2\"\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let session = lenient.pair.directory.join(version);
        let more = [version, "-sess_out", &session.to_string_lossy()];
        let mut client = Openssl::connect(lenient.address, &scada, &more);
        assert_eq!(client.request(&read_one(41)), READ, "{version}");
        // Nothing that could be resumed: it would outlive a revocation.
        assert!(!session.exists(), "{version}");
    }
    let mut nobody = Openssl::anonymous(lenient.address, &scada, &older);
    assert_eq!(nobody.ask(&read_one(41)), None);

    let tunnel = ["-tls1_2", "-alpn", "fieldlock/1"];
    assert_version_refused(Openssl::connect(lenient.pair.tunnel, &scada, &tunnel));
    let ca = Site::shared().serve();
    let est = ["-tls1_2", "-alpn", "http/1.1"];
    assert_version_refused(Openssl::connect(ca.address, &scada, &est));
}

fn assert_version_refused(mut client: Openssl) {
    client.wait_end(SOON);
    let said = client.said();
    assert!(said.contains("protocol version"), "{said}");
}

/// Its answers wait up to a bound, then its requests do, then it is cut.
fn does_not_read() {
    const MEMORY: u64 = 100 << 20;
    let mut secured = Secured::up(setup(), "[client]\nidle_timeout = \"2s\"\n");
    let address = secured.address;
    let directory = Directory::new().unwrap();
    let mut command = Command::new(Peer::find("pymodbus").unwrap());
    command
        .arg(workspace_root().join("tests/peers/deaf.py"))
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(client("deaf", "Operator"));
    let _deaf = Process::start("deaf", &mut command, directory.path()).unwrap();
    let headend = &mut secured.pair.headend;
    let closed = headend.wait_record("its end", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::ClientClose && reason.contains("does not read")
    });
    assert!(closed.count > Some(0));
    let octets = resident(headend.process().id());
    assert!(octets < MEMORY, "{octets} octets");
    read_registers(&mut secured.pair.client(), 0, 1);
}
