//! The network between the agents: cut, blocked, reset.

use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, registers};
use fieldlock_tests::answers::{read_one, read_registers};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{Pair, SOON, Setup, Transport, eventually, within};
use libtest_mimic::Trial;

use super::{begin_write, carried_out, no_answer_in_time, wrote};

/// Promised are 3 s.
const DEAD_AT_MOST: Duration = Duration::from_millis(4500);
/// Promised is about a second, and one round of dialling.
const BACK_AT_MOST: Duration = Duration::from_secs(4);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = both("attacks::a05_link_cut_in_a_write", cut_in_a_write).into();
    let name = "faults::udp_blocked_then_free";
    trials.push(test(name, udp_blocked_then_free));
    trials.push(test("faults::udp_dies_under_a_tunnel", udp_dies));
    trials.push(test("faults::tcp_reset", tcp_reset));
    trials
}

/// Attack 5: a write that was carried out and whose answer is lost is not done again.
fn cut_in_a_write(transport: Transport) {
    let pair = Setup::new(transport).wire().up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    pair.plc().set_answer_delay(Duration::from_millis(400));
    let asked = Instant::now();
    begin_write(&mut client, 7);
    eventually("the write to arrive", || carried_out(&pair) == 1);
    pair.wire().cut();
    no_answer_in_time(&mut client, asked);
    wrote(&pair.headend, Outcome::Unknown);
    within(DEAD_AT_MOST, "the headend to notice", || {
        !pair.is_connected()
    });
    within(DEAD_AT_MOST, "the edge to notice", || {
        pair.transport().is_none()
    });
    // The edge had its answer, and nobody to tell.
    wrote(&pair.edge, Outcome::Answered);

    pair.plc().set_answer_delay(Duration::ZERO);
    pair.wire().restore();
    let restored = Instant::now();
    let answered = || is_served(&mut client);
    within(BACK_AT_MOST + SOON, "the first answer", answered);
    let after = restored.elapsed();
    assert!(after < BACK_AT_MOST, "first answer after {after:?}");
    // Whatever was still on its way when the link came back: no write twice.
    assert_eq!(carried_out(&pair), 1);
    wrote(&pair.headend, Outcome::Unknown);
}

fn is_served(client: &mut Client) -> bool {
    let answer = client.request(1, &read_one(0)).unwrap();
    registers(&answer).is_some()
}

/// TLS over TCP where UDP does not get through, and QUIC again without a failed request.
fn udp_blocked_then_free() {
    let mut pair = Setup::new(Transport::Auto).wire().prepare();
    pair.wire().block_udp(true);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    assert_eq!(pair.transport().as_deref(), Some("tls"));
    let mut client = pair.client();
    pair.wire().block_udp(false);
    // The first try comes after about 5 s, the next after 10 more.
    within(Duration::from_secs(25), "QUIC", || {
        assert!(is_served(&mut client), "a request failed");
        pair.transport().as_deref() == Some("quic")
    });
    for _ in 0..100 {
        assert!(is_served(&mut client), "a request failed");
    }
    let down = pair
        .headend
        .wait_record("the older tunnel's end", |r| r.kind == Kind::TunnelDown);
    assert_eq!(down.transport.as_deref(), Some("tls"));
    assert!(down.reason.unwrap_or_default().contains("replaced"));
    assert!(pair.headend.audit_kind(Kind::Lost).is_empty());
    assert!(pair.is_connected());
}

/// A firewall that begins to drop UDP: the tunnel comes back on TCP.
fn udp_dies() {
    let pair = Setup::new(Transport::Auto).wire().up();
    assert_eq!(pair.transport().as_deref(), Some("quic"));
    let mut client = pair.client();
    pair.wire().block_udp(true);
    eventually("TLS", || pair.transport().as_deref() == Some("tls"));
    eventually("service", || is_served(&mut client));
}

fn tcp_reset() {
    let pair: Pair = Setup::new(Transport::Tls).wire().up();
    let mut client = pair.client();
    for round in 1..=3 {
        read_registers(&mut client, 0, 1);
        pair.wire().reset_tcp();
        eventually("the new tunnel", || {
            pair.headend.audit_kind(Kind::TunnelUp).len() > round
        });
        eventually("service", || is_served(&mut client));
    }
}
