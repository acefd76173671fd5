//! Attack 5: what is sent before a handshake, and could be sent once more by somebody else.

use fieldlock_audit::Kind;
use fieldlock_session::frame::CONTROL;
use fieldlock_session::{ALPN, CYCLIC_ALPN, Frame};
use fieldlock_tests::rogue::{Credentials, Early, Face, Returning, RogueHeadend, hello};
use fieldlock_tests::trial::both;
use fieldlock_tests::{DEVICE, EDGE, HEADEND, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("attacks::a05_headend_takes_no_early_data", to_a_headend),
        both("attacks::a05_edge_sends_no_early_data", of_an_edge),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The hello of an edge with a good certificate, before the handshake, in a session that another
/// server gave: there it is taken, so the attempt is a real one.
fn to_a_headend(transport: Transport) {
    let face = || {
        Face::of(Credentials::installed(
            &Site::shared().identity(Role::Edge, EDGE),
        ))
    };
    let mut pair = Setup::new(transport).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    let mut early = Vec::new();
    Frame::Hello(&hello(&[DEVICE]).encode()).encode(CONTROL, &mut early);
    Frame::Ready.encode(CONTROL, &mut early);

    let returning = Returning::new(face());
    let (other, sessions) = RogueHeadend::inviting(transport, face());
    drop(returning.visit(transport, &other));
    let taken = std::thread::scope(|scope| {
        let accepted = scope.spawn(|| other.accept());
        let taken = returning.early(transport, other.address, &early);
        let _ = accepted.join().unwrap();
        taken
    });
    assert_eq!(taken, Ok(Early::Accepted));
    assert_eq!(sessions.shown(), 1);

    // A second session is left to come to the headend with. It may also end the connection.
    let taken = returning.early(transport, pair.tunnel, &early);
    assert!(
        !matches!(taken, Ok(Early::Accepted | Early::NoSession)),
        "{taken:?}"
    );
    let refused = |status: &serde_json::Value| status["counters"]["handshakes_refused"].as_u64();
    eventually("the end of what came of it", || {
        let tunnels = pair.headend.status()["tunnels"].as_array().unwrap().len();
        tunnels == 0 && pair.headend.audit_kind(Kind::TunnelRefused).len() == 1
            || refused(&pair.headend.status()) == Some(1)
    });
    assert!(pair.headend.audit_kind(Kind::TunnelUp).is_empty());
    pair.edge.start();
    pair.wait_up();
}

/// A headend that invites the edge to come back with a session, and with early data.
fn of_an_edge(transport: Transport) {
    let identity = Site::shared().identity(Role::Headend, HEADEND);
    let face = Face {
        alpn: vec![ALPN.to_vec(), CYCLIC_ALPN.to_vec()],
        ..Face::of(Credentials::installed(&identity))
    };
    let (headend, sessions) = RogueHeadend::inviting(transport, face);
    let mut pair = Setup::new(transport).prepare();
    let config = pair
        .edge_config
        .replace(&pair.tunnel.to_string(), &headend.address.to_string());
    pair.edge.write_config(&config);
    pair.edge.start();
    pair.edge.wait_ready();
    for round in 1..=3 {
        let tunnel = headend.tunnel().unwrap();
        assert!(sessions.given() >= round, "{sessions:?}");
        drop(tunnel);
    }
    assert_eq!(sessions.shown(), 0, "{sessions:?}");
}
