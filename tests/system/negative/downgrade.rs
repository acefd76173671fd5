//! Attack 6: UDP is blocked, so that the tunnel is TLS over TCP; that is no weaker door.
//!
//! The scanner is `openssl s_client`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fieldlock_audit::Kind;
use fieldlock_testkit::peers::Peer;
use fieldlock_tests::answers::read_registers;
use fieldlock_tests::trial::with_peers;
use fieldlock_tests::{EDGE, Pair, Role, Setup, Site, Transport, binary, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "attacks::a06_fallback_is_no_weaker";
    vec![with_peers(name, &["openssl"], fallback)]
}

const TUNNEL: &[&str] = &["-alpn", "fieldlock/1"];
/// What is older or weaker, with openssl's own guard against it lowered.
const WEAKER: &[&[&str]] = &[
    &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
    &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "ALL:@SECLEVEL=0"],
    &["-tls1_3", "-groups", "ffdhe2048"],
    &["-tls1_3", "-groups", "secp521r1"],
    &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
    &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"],
];

fn fallback() {
    let mut pair = Setup::new(Transport::Auto).wire().prepare();
    pair.wire().block_udp(true);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let status = pair.headend.status();
    let tunnel = &status["tunnels"][0];
    assert_eq!(tunnel["transport"], "tls");
    assert_eq!(tunnel["key_exchange"], "X25519MLKEM768");

    let edge = Site::shared().identity(Role::Edge, EDGE);
    let door = pair.wire().address();
    let mut refused = 0;
    for arguments in WEAKER {
        let said = s_client(door, Some(&edge), &[TUNNEL, arguments].concat());
        // The headend ends it; openssl did ask.
        for expected in ["SSL alert number", "no peer certificate available"] {
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
        refused += 1;
        is_counted(&pair, refused);
    }
    let other = Site::new();
    let stranger = other.identity(Role::Edge, EDGE);
    let good: &[&str] = &["-tls1_3"];
    for (who, arguments) in [
        (None, [TUNNEL, good].concat()),
        (Some(&stranger), [TUNNEL, good].concat()),
        (Some(&edge), good.to_vec()),
        (Some(&edge), [&["-alpn", "h3"], good].concat()),
    ] {
        // A client may hear of its refusal after its own side of the handshake.
        s_client(door, who, &arguments);
        refused += 1;
        is_counted(&pair, refused);
    }
    // The same command as it should be gets through: as a second edge of that name, not before.
    let said = s_client(door, Some(&edge), &[TUNNEL, good].concat());
    for expected in ["TLSv1.3", "Verification: OK", "Server Temp Key: X25519"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("New Session Ticket"), "{said}");
    is_counted(&pair, refused);
    // All the while the tunnel was there.
    read_registers(&mut pair.client(), 0, 1);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
}

#[track_caller]
fn is_counted(pair: &Pair, refused: u64) {
    eventually("the refusal to be counted", || {
        pair.headend.status()["counters"]["handshakes_refused"] == refused
    });
}

fn s_client(address: SocketAddr, identity: Option<&PathBuf>, arguments: &[&str]) -> String {
    let mut command = Command::new(Peer::find("openssl").unwrap());
    command
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null());
    if let Some(identity) = identity {
        let file = |name: &str| Path::new(identity).join(name);
        command
            .arg("-cert")
            .arg(file("identity/chain.pem"))
            .arg("-key")
            .arg(file("identity/key.pem"))
            .arg("-CAfile")
            .arg(file("trust/list.pem"));
    }
    binary::text(&command.output().unwrap())
}
