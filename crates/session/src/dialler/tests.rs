use super::*;

const SECOND: Duration = Duration::from_secs(1);
const UP: Ended = Ended {
    was_up: true,
    why: Ending::Lost,
    round_trip: None,
};
const NEVER_UP: Ended = Ended {
    was_up: false,
    ..UP
};
const STOPPED: Ended = Ended {
    why: Ending::Stopped,
    round_trip: Some(Duration::from_millis(20)),
    ..UP
};

/// A dialler, and a shell that does as it says at once.
struct Rig {
    dialler: Dialler,
    now: Instant,
    addresses: Vec<SocketAddr>,
    number: Number,
}

/// What it said but [`Output::Resolve`], in short.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Try(Transport, u16),
    GiveUp,
}
use Said::{GiveUp, Try};
use Transport::{Quic, Tls};

impl Rig {
    fn new(only: Option<Transport>) -> Self {
        let now = Instant::now();
        Self {
            dialler: Dialler::new(only, now, 7),
            now,
            addresses: addresses(1),
            number: 0,
        }
    }

    fn outputs(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(output) = self.dialler.poll_output() {
            match output {
                Output::Resolve => {
                    let addresses = self.addresses.clone();
                    self.dialler.handle_addresses(self.now, addresses);
                }
                Output::Attempt {
                    transport, address, ..
                } => said.push(Try(transport, address.port())),
                Output::GiveUp => said.push(GiveUp),
            }
        }
        said
    }

    /// Until the next thing is due, and what that is.
    fn wait(&mut self) -> (Duration, Vec<Said>) {
        let at = self.dialler.poll_timeout().expect("something is due");
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.dialler.handle_timeout(self.now);
        (waited, self.outputs())
    }

    fn connect(&mut self, transport: Transport) -> Number {
        self.number += 1;
        let wanted = self
            .dialler
            .handle_connected(self.now, self.number, transport);
        assert!(wanted);
        assert_eq!(self.outputs(), [GiveUp]);
        self.number
    }

    fn end(&mut self, number: Number, ended: Ended) -> Vec<Said> {
        self.dialler.handle_ended(self.now, number, ended);
        self.outputs()
    }
}

fn addresses(amount: u16) -> Vec<SocketAddr> {
    let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
    (0..amount).map(address).collect()
}

#[test]
fn a_connection_ends_the_race() {
    let mut rig = Rig::new(None);
    assert_eq!(rig.outputs(), [Try(Quic, 0)]);
    assert_eq!(rig.wait().1, [Try(Tls, 0)]);
    rig.connect(Quic);
    assert_eq!(rig.dialler.poll_timeout(), None, "nothing is to be tried");
}

#[test]
fn each_round_asks_for_the_addresses() {
    let mut rig = Rig::new(Some(Quic));
    rig.addresses.clear();
    assert_eq!(rig.outputs(), []);
    let (waited, said) = rig.wait();
    assert!(waited < SECOND && said.is_empty(), "{waited:?} {said:?}");
    rig.addresses = addresses(1);
    assert_eq!(rig.wait().1, [Try(Quic, 0)]);
}

#[test]
fn a_round_waits_for_its_addresses_and_asks_once() {
    let now = Instant::now();
    let mut dialler = Dialler::new(None, now, 7);
    assert_eq!(dialler.poll_output(), Some(Output::Resolve));
    for _ in 0..3 {
        assert_eq!(dialler.poll_output(), None);
        assert_eq!(dialler.poll_timeout(), None);
        dialler.handle_timeout(now + SECOND);
    }
    dialler.handle_addresses(now + SECOND, addresses(1));
    assert!(matches!(
        dialler.poll_output(),
        Some(Output::Attempt { .. })
    ));
}

#[test]
fn a_headend_that_said_no_meanwhile_is_not_asked_by_the_round_that_was_prepared() {
    let mut rig = Rig::new(Some(Quic));
    assert_eq!(rig.outputs(), [Try(Quic, 0)]);
    // The next round overtakes a slow attempt, and the name server takes its time.
    rig.now += SECOND;
    rig.dialler.handle_timeout(rig.now);
    assert_eq!(rig.dialler.poll_output(), Some(Output::Resolve));
    rig.dialler.handle_failed(rig.now, Failure::Refused);
    rig.dialler.handle_addresses(rig.now, addresses(1));
    assert_eq!(rig.outputs(), []);
    let (waited, said) = rig.wait();
    assert!(waited >= SECOND / 2, "{waited:?}");
    assert_eq!(said, [Try(Quic, 0)]);
}

#[test]
fn an_attempt_on_an_address_that_has_gone_is_a_failed_one() {
    let mut rig = Rig::new(Some(Tls));
    rig.addresses = addresses(2);
    assert_eq!(rig.outputs(), [Try(Tls, 0)]);
    let tunnel = rig.connect(Tls);
    rig.addresses = addresses(1);
    rig.dialler.handle_renew(rig.now);
    assert_eq!(rig.outputs(), [Try(Tls, 0)]);
    // The second address of the round is due, and is not there: nothing is under way, or waited for.
    rig.now += SECOND / 3;
    assert_eq!(rig.end(tunnel, NEVER_UP), []);
    assert_eq!(rig.wait(), (Duration::ZERO, vec![Try(Tls, 0)]));
}

#[test]
fn on_tls_quic_is_tried_again_and_less_often_each_time() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.connect(Tls);
    let mut after = RETURN_FIRST;
    for _ in 0..10 {
        let (waited, said) = rig.wait();
        assert_eq!(waited, after);
        assert_eq!(said, [Try(Quic, 0)]);
        rig.dialler.handle_failed(rig.now, Failure::Network);
        after = (after * 2).min(RETURN_LAST);
    }
    assert_eq!(after, RETURN_LAST);
}

#[test]
fn a_return_tries_each_address() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.connect(Tls);
    rig.addresses = addresses(2);
    assert_eq!(rig.wait().1, [Try(Quic, 0), Try(Quic, 1)]);
}

#[test]
fn once_quic_was_up_a_return_is_soon_again() {
    let mut rig = Rig::new(None);
    rig.outputs();
    let older = rig.connect(Tls);
    rig.wait();
    rig.wait();
    let newer = rig.connect(Quic);
    assert_eq!(rig.end(older, UP), []);
    assert_eq!(rig.dialler.poll_timeout(), None);
    rig.now += 10 * SECOND;
    assert_eq!(rig.end(newer, UP), [Try(Quic, 0)]);
    rig.connect(Tls);
    assert_eq!(rig.wait().0, RETURN_FIRST);
}

#[test]
fn a_tunnel_over_quic_that_never_comes_up_does_not_end_the_returns() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.connect(Tls);
    assert_eq!(rig.wait(), (RETURN_FIRST, vec![Try(Quic, 0)]));
    for n in 1..4 {
        let never_up = rig.connect(Quic);
        assert_eq!(rig.dialler.poll_timeout(), None);
        assert_eq!(rig.end(never_up, NEVER_UP), []);
        assert_eq!(rig.wait(), (RETURN_FIRST * 2u32.pow(n), vec![Try(Quic, 0)]));
    }
}

#[test]
fn where_only_tls_may_be_used_there_is_no_return() {
    let mut rig = Rig::new(Some(Tls));
    assert_eq!(rig.outputs(), [Try(Tls, 0)]);
    rig.connect(Tls);
    assert_eq!(rig.dialler.poll_timeout(), None);
}

#[test]
fn only_a_headend_that_stops_is_expected_back() {
    for (ended, expected) in [(STOPPED, true), (UP, false)] {
        let mut rig = Rig::new(None);
        rig.outputs();
        let tunnel = rig.connect(Quic);
        rig.now += 2 * SECOND;
        rig.dialler.handle_ended(rig.now, tunnel, ended);
        rig.dialler.poll_output();
        rig.dialler.handle_addresses(rig.now, addresses(1));
        let Some(Output::Attempt { round_trip, .. }) = rig.dialler.poll_output() else {
            panic!("it dials");
        };
        assert_eq!(round_trip, ended.round_trip);
        // The other transport has its turn only where the headend may have gone for long.
        rig.dialler.handle_failed(rig.now, Failure::Network);
        let other = rig.outputs();
        assert_eq!(other == [Try(Tls, 0)], !expected, "{other:?}");
    }
}

#[test]
fn a_headend_that_stops_one_tunnel_of_two_or_one_that_never_was_up_is_not_expected_back() {
    let mut rig = Rig::new(None);
    rig.outputs();
    let older = rig.connect(Quic);
    rig.now += 2 * SECOND;
    let newer = rig.connect(Quic);
    assert_eq!(rig.end(older, STOPPED), []);
    let never_up = Ended {
        was_up: false,
        ..STOPPED
    };
    let left_and_next = [Try(Tls, 0), Try(Quic, 0)];
    assert_eq!(rig.end(newer, never_up), left_and_next);
    for _ in left_and_next {
        rig.dialler.handle_failed(rig.now, Failure::Network);
    }
    assert_eq!(rig.outputs(), [Try(Tls, 0)]);
}

#[test]
fn what_served_last_is_tried_first() {
    let mut rig = Rig::new(None);
    rig.outputs();
    let older = rig.connect(Tls);
    rig.now += 2 * SECOND;
    let newer = rig.connect(Quic);
    rig.end(newer, NEVER_UP);
    assert_eq!(rig.end(older, UP), [Try(Tls, 0)]);
}

#[test]
fn a_refusal_makes_it_wait_longer_than_a_loss() {
    let refused = Ended {
        why: Ending::Refused,
        ..NEVER_UP
    };
    for (ended, least) in [(NEVER_UP, Duration::ZERO), (refused, SECOND / 2)] {
        let mut rig = Rig::new(Some(Tls));
        rig.outputs();
        let tunnel = rig.connect(Tls);
        assert_eq!(rig.end(tunnel, ended), []);
        let (waited, said) = rig.wait();
        assert_eq!(said, [Try(Tls, 0)]);
        assert_eq!(waited >= SECOND / 2, !least.is_zero(), "{waited:?}");
    }
}

#[test]
fn a_renewal_is_an_attempt_beside_the_tunnel_by_its_transport() {
    for transport in [Quic, Tls] {
        let mut rig = Rig::new(None);
        rig.outputs();
        rig.connect(transport);
        rig.dialler.handle_renew(rig.now);
        rig.dialler.handle_renew(rig.now);
        assert_eq!(rig.outputs(), [Try(transport, 0)], "once");
    }
}

#[test]
fn a_renewal_without_a_tunnel_is_a_round_at_once() {
    let mut rig = Rig::new(Some(Tls));
    for _ in 0..6 {
        assert_eq!(rig.outputs(), [Try(Tls, 0)]);
        rig.dialler.handle_failed(rig.now, Failure::Refused);
        assert_eq!(rig.outputs(), []);
        rig.dialler.handle_renew(rig.now);
    }
}

/// Both at the very time when the name server is asked.
#[test]
fn a_return_does_not_displace_a_renewal() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.connect(Tls);
    rig.dialler.handle_renew(rig.now);
    assert_eq!(rig.dialler.poll_output(), Some(Output::Resolve));
    rig.now += RETURN_FIRST;
    rig.dialler.handle_timeout(rig.now);
    rig.dialler.handle_addresses(rig.now, addresses(1));
    assert_eq!(rig.outputs(), [Try(Tls, 0), Try(Quic, 0)]);
}

#[test]
fn a_certificate_that_expires_is_a_renewal_every_ten_minutes() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.connect(Quic);
    let begun = rig.now;
    let mut renewals = Vec::new();
    for minute in 0..30 {
        rig.now = begun + 60 * SECOND * minute;
        let due = rig.dialler.handle_expiring(rig.now);
        assert_eq!(due, rig.outputs() == [Try(Quic, 0)]);
        renewals.extend(due.then_some(minute));
    }
    assert_eq!(renewals, [0, 10, 20]);
}

#[test]
fn once_closed_it_dials_no_more() {
    let mut rig = Rig::new(None);
    rig.outputs();
    let tunnel = rig.connect(Tls);
    rig.dialler.handle_renew(rig.now);
    rig.dialler.handle_close(rig.now);
    assert!(!rig.dialler.is_done(), "a tunnel is left");
    assert_eq!(rig.outputs(), [GiveUp]);
    rig.dialler.handle_renew(rig.now);
    rig.now += RETURN_FIRST;
    rig.dialler.handle_timeout(rig.now);
    assert_eq!(rig.outputs(), []);
    assert_eq!(rig.dialler.poll_timeout(), None);
    assert!(!rig.dialler.handle_connected(rig.now, 9, Quic));
    assert_eq!(rig.end(tunnel, UP), []);
    assert!(rig.dialler.is_done());
}

#[test]
fn closed_while_it_dials_it_is_done_at_once() {
    let mut rig = Rig::new(None);
    rig.outputs();
    rig.dialler.handle_close(rig.now);
    assert_eq!(rig.outputs(), [GiveUp]);
    assert!(rig.dialler.is_done());
    assert!(!rig.dialler.handle_connected(rig.now, 1, Quic));
    assert_eq!(rig.dialler.poll_timeout(), None);
}
