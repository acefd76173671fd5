use super::*;
use crate::{DeviceOffer, VERSION};

fn hello() -> Hello {
    Hello {
        version: VERSION,
        agent_version: "0.1.0".into(),
        instance: [1; 16],
        policy: [2; 32],
        trust: Some([4; 32]),
        bundle: None,
        tunnel: 0,
        devices: vec![DeviceOffer {
            name: "press-07".into(),
            credit: 1,
            answer_within: 1,
            quirks: 0,
        }],
        stations: Vec::new(),
        cyclic: None,
    }
}

#[test]
fn a_headend_carries_all_stations_of_an_edge_or_none() {
    let with = |stations: &[&str]| Hello {
        stations: stations.iter().map(ToString::to_string).collect(),
        ..hello()
    };
    let now = Instant::now();
    let edge = || Session::edge(&with(&["a", "b"]), Liveness::default(), true, now);
    let answer = |stations: &[&str]| {
        let encoded = with(stations).encode();
        edge().handle(now, Frame::Hello(&encoded))
    };
    for stations in [&["a", "b"][..], &[]] {
        assert_eq!(answer(stations), Ok(Some(Event::Up(Some(with(stations))))));
    }
    for stations in [&["a"][..], &["b", "a"], &["a", "b", "c"]] {
        assert_eq!(answer(stations), Err(Violation::Stations));
    }
}

#[test]
fn a_trust_list_comes_before_the_hello_and_any_time_later() {
    let mut pair = Pair::new();
    pair.exchange();
    let list = vec![7; 3 * MAX_PIECE / 2];
    pair.headend.offer_trust(&list);
    pair.headend.accept(pair.now, &hello());
    pair.exchange();
    let place = |wanted: fn(&Event) -> bool| {
        let events = pair.events.iter();
        events
            .enumerate()
            .find(|(_, (_, e))| wanted(e))
            .map(|(n, _)| n)
    };
    let trust = place(|event| matches!(event, Event::Trust(_))).unwrap();
    let up = place(|event| matches!(event, Event::Up(Some(_)))).unwrap();
    assert!(trust < up);
    assert!(matches!(&pair.events[trust].1, Event::Trust(got) if *got == list));
    pair.edge.have_trust([9; 32]);
    pair.exchange();
    assert!(
        pair.events
            .contains(&(Side::Headend, Event::TrustHave([9; 32])))
    );
    pair.events.clear();
    pair.headend.offer_trust(&[1]);
    pair.exchange();
    assert_eq!(pair.events, [(Side::Edge, Event::Trust(vec![1]))]);
}

#[test]
fn a_trust_list_is_bounded_and_flows_one_way() {
    let mut pair = Pair::up();
    let piece = vec![0; MAX_PIECE];
    let frame = || Frame::Trust {
        last: false,
        piece: &piece,
    };
    let pieces = MAX_TRUST / MAX_PIECE;
    for _ in 0..pieces {
        pair.edge.handle(pair.now, frame()).unwrap();
    }
    let more = pair.edge.handle(pair.now, frame());
    assert_eq!(more, Err(Violation::TrustLength));
    assert!(pair.headend.handle(pair.now, frame()).is_err());
    let have = Frame::TrustHave([0; 32]);
    assert!(Pair::up().edge.handle(pair.now, have).is_err());
    pair.headend.offer_trust(&vec![0; MAX_TRUST + 1]);
    assert!(!pair.headend.poll_transmit(&mut Vec::new()));
}

#[test]
fn a_bundle_goes_to_the_edge_in_pieces_and_its_fate_comes_back() {
    let mut pair = Pair::up();
    let text = vec![7; 3 * MAX_PIECE / 2];
    let (first, second) = text.split_at(MAX_PIECE);
    pair.headend.offer_bundle(false, first);
    pair.headend.offer_bundle(true, second);
    pair.exchange();
    pair.edge.have_bundle(6, Fate::Refused, "why\u{1b}[2J");
    pair.exchange();
    let have = Event::BundleHave {
        version: 6,
        fate: Fate::Refused,
        text: "why[2J".into(),
    };
    assert_eq!(
        pair.events,
        [(Side::Edge, Event::Bundle(text)), (Side::Headend, have)]
    );
}

#[test]
fn a_bundle_is_bounded_flows_one_way_and_never_before_the_tunnel_is_up() {
    let piece = vec![0; MAX_PIECE];
    let frame = || Frame::Bundle {
        last: false,
        piece: &piece,
    };
    let mut pair = Pair::up();
    for _ in 0..MAX_BUNDLE / MAX_PIECE {
        pair.edge.handle(pair.now, frame()).unwrap();
    }
    let more = pair.edge.handle(pair.now, frame());
    assert_eq!(more, Err(Violation::BundleLength));
    assert!(pair.headend.handle(pair.now, frame()).is_err());
    let have = Frame::BundleHave {
        version: 1,
        fate: Fate::InForce,
        text: b"",
    };
    assert!(Pair::up().edge.handle(pair.now, have).is_err());
    assert!(Pair::new().edge.handle(pair.now, frame()).is_err());
}

/// Both ends on one virtual clock; the link can be cut.
struct Pair {
    now: Instant,
    edge: Session,
    headend: Session,
    cut: bool,
    events: Vec<(Side, Event)>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            edge: Session::edge(&hello(), Liveness::default(), true, now),
            headend: Session::headend(Liveness::default(), true, now),
            cut: false,
            events: Vec::new(),
        }
    }

    fn up() -> Self {
        let mut pair = Self::new();
        pair.exchange();
        pair.headend.accept(pair.now, &hello());
        pair.exchange();
        assert!(pair.edge.is_up() && pair.headend.is_up());
        pair.events.clear();
        pair
    }

    fn exchange(&mut self) {
        loop {
            let (mut to_headend, mut to_edge) = (Vec::new(), Vec::new());
            let any =
                self.edge.poll_transmit(&mut to_headend) | self.headend.poll_transmit(&mut to_edge);
            if !any {
                break;
            }
            if self.cut {
                continue;
            }
            for (side, bytes) in [(Side::Headend, to_headend), (Side::Edge, to_edge)] {
                let session = match side {
                    Side::Edge => &mut self.edge,
                    Side::Headend => &mut self.headend,
                };
                let mut rest = bytes.as_slice();
                while let Some((_, frame, size)) = Frame::decode(rest).unwrap() {
                    session.received(self.now);
                    let event = session.handle(self.now, frame).unwrap();
                    self.events.extend(event.map(|event| (side, event)));
                    rest = &rest[size..];
                }
            }
        }
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            self.exchange();
            let next = [self.edge.poll_timeout(), self.headend.poll_timeout()];
            let Some(next) = next.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next;
            for (side, session) in [
                (Side::Edge, &mut self.edge),
                (Side::Headend, &mut self.headend),
            ] {
                let event = session.handle_timeout(self.now);
                self.events.extend(event.map(|event| (side, event)));
            }
        }
        self.now = end;
    }
}

#[test]
fn nothing_is_up_before_both_hellos_are_acknowledged() {
    let mut pair = Pair::new();
    pair.exchange();
    assert_eq!(pair.events, [(Side::Headend, Event::Hello(hello()))]);
    assert!(!pair.edge.is_up() && !pair.headend.is_up());
    pair.headend.accept(pair.now, &hello());
    assert!(!pair.headend.is_up());
    pair.exchange();
    assert!(pair.edge.is_up() && pair.headend.is_up());
}

#[test]
fn an_idle_tunnel_stays_up_by_its_heartbeat() {
    let mut pair = Pair::up();
    pair.run_until(pair.now + Duration::from_secs(60));
    assert!(pair.edge.is_up() && pair.headend.is_up());
    assert_eq!(pair.events, []);
}

#[test]
fn a_cut_link_is_dead_within_three_seconds_at_both_ends() {
    let mut pair = Pair::up();
    pair.run_until(pair.now + Duration::from_millis(10_100));
    pair.cut = true;
    pair.run_until(pair.now + Duration::from_secs(3));
    assert!(pair.events.contains(&(Side::Edge, Event::Dead)));
    assert!(pair.events.contains(&(Side::Headend, Event::Dead)));
}

#[test]
fn a_peer_that_says_nothing_times_out() {
    let mut pair = Pair::new();
    pair.cut = true;
    pair.run_until(pair.now + Duration::from_secs(5));
    assert!(pair.events.contains(&(Side::Headend, Event::HelloTimeout)));
    assert!(pair.events.contains(&(Side::Edge, Event::HelloTimeout)));
}

#[test]
fn a_probe_tells_the_living_from_the_dead() {
    let mut pair = Pair::up();
    pair.headend.probe(pair.now);
    pair.exchange();
    assert_eq!(
        pair.events,
        [(Side::Headend, Event::Probed { alive: true })]
    );
    pair.events.clear();
    pair.cut = true;
    pair.headend.probe(pair.now);
    pair.run_until(pair.now + Duration::from_secs(1));
    assert_eq!(
        pair.events,
        [(Side::Headend, Event::Probed { alive: false })]
    );
}

#[test]
fn a_busy_tunnel_measures_its_round_trip_when_asked() {
    let mut pair = Pair::up();
    pair.headend.measure(pair.now);
    // A second ping would make the answer to the first one nobody's.
    pair.headend.measure(pair.now);
    pair.now += Duration::from_millis(40);
    pair.exchange();
    let measured = pair.headend.round_trip();
    assert_eq!(measured, Some(Duration::from_millis(40)));
    assert_eq!(pair.events, []);
}

#[test]
fn frames_out_of_turn_are_violations() {
    let now = Instant::now();
    let mut headend = Session::headend(Liveness::default(), true, now);
    assert!(matches!(
        headend.handle(now, Frame::Ready),
        Err(Violation::Unexpected { frame: "ready", .. })
    ));
    let mut pair = Pair::up();
    let encoded = hello().encode();
    assert!(pair.edge.handle(pair.now, Frame::Hello(&encoded)).is_err());
}

#[test]
fn a_flood_of_pings_is_not_stored() {
    let mut pair = Pair::up();
    let flood = (0..100_000).map(|n| pair.edge.handle(pair.now, Frame::Ping(n)));
    assert!(
        flood
            .into_iter()
            .any(|answer| answer == Err(Violation::Flood))
    );
}

#[test]
fn a_goodbye_is_printable() {
    let mut pair = Pair::up();
    pair.headend
        .close(Close::DeviceNotBound, "device \u{1b}[31mx");
    pair.exchange();
    assert_eq!(
        pair.events,
        [(
            Side::Edge,
            Event::Goodbye {
                code: 3,
                text: "device [31mx".into()
            }
        )]
    );
}
