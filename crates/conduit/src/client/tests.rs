//! Requests judged, and the order in which answers leave.

use fieldlock_policy::Now;

use super::*;

const POLICY: &str = r#"
    syntax = 1
    [[client]]
    name = "hmi-1"
    address = ["192.0.2.1/32"]
    [[allow]]
    name = "reads"
    client = ["hmi-1"]
    device = ["press-07"]
    function = ["read"]
    address = ["holding 0-9"]
"#;

fn side(routes: Routes) -> ClientSide {
    let origin = Origins {
        address: Some([192, 0, 2, 1].into()),
        ..Origins::default()
    };
    let policy = Policy::parse(POLICY, "policy.toml").unwrap();
    let phase = policy.phase(Now::Unknown);
    ClientSide::new(origin, Arc::new(routes), Arc::new(policy), phase, 2)
}

fn one_device() -> Routes {
    Routes::all_units(0, &["press-07".into()].into())
}

fn read(unit: u8, start: u8, count: u8) -> Vec<u8> {
    vec![0, 9, 0, 0, 0, 6, unit, 3, 0, start, 0, count]
}

fn exception(step: &Step<'_>) -> u8 {
    match &step.verdict {
        Verdict::Refuse { refused, .. } => refused.exception.code(),
        Verdict::Forward { .. } => 0,
        Verdict::Repeated => 0xff,
    }
}

#[test]
fn what_is_allowed_goes_to_its_device() {
    let mut side = side(one_device());
    let input = read(1, 0, 10);
    let (step, consumed) = side
        .next(&input, &mut Meter::default(), Instant::now())
        .unwrap()
        .unwrap();
    assert_eq!((step.transaction, step.unit, consumed), (9, 1, 12));
    let Verdict::Forward {
        device: 0, permit, ..
    } = step.verdict
    else {
        panic!("{step:?}");
    };
    assert_eq!(permit.request().pdu(), &input[7..]);
}

#[test]
fn refusals_carry_their_exception() {
    for (input, expected) in [
        (read(1, 5, 6), 0x02),
        (read(1, 0, 0), 0x03),
        (vec![0, 1, 0, 0, 0, 6, 1, 6, 0, 0, 0, 1], 0x01),
    ] {
        let mut side = side(one_device());
        assert_eq!(
            Asking::new(&mut side).ask(1, &input).1,
            expected,
            "{input:?}"
        );
    }
}

#[test]
fn units_lead_to_devices_and_are_mapped() {
    let devices = ["press-07".into(), "press-08".into()].into();
    let routes = Routes::by_unit([(7, Target { device: 0, unit: 1 })], &devices);
    let mut side = side(routes);
    let input = read(7, 0, 1);
    let (step, _) = side
        .next(&input, &mut Meter::default(), Instant::now())
        .unwrap()
        .unwrap();
    let Verdict::Forward { permit, .. } = step.verdict else {
        panic!("{step:?}");
    };
    assert_eq!((step.unit, permit.unit()), (7, 1));
    assert_eq!(Asking::new(&mut side).ask(2, &read(8, 0, 1)).1, 0x0a);
}

#[test]
fn requests_beyond_the_limit_are_busy() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let first = client.ask(1, &read(1, 0, 1));
    client.ask(2, &read(1, 0, 1));
    let third = client.ask(3, &read(1, 0, 1));
    assert_eq!([first.1, third.1], [0, 0x06]);
    client.answered(first.0, b"\x03\x02\0\0");
    client.answered(third.0, b"\x83\x06");
    // The refusal still waits for the second.
    assert_eq!(client.ask(4, &read(1, 0, 1)).1, 0x06);
}

#[test]
fn a_new_policy_judges_the_next_request() {
    let mut side = side(one_device());
    let input = read(1, 0, 1);
    assert_eq!(Asking::new(&mut side).ask(1, &input).1, 0);
    let policy = Policy::deny_all();
    let phase = policy.phase(Now::Unknown);
    side.set_policy(Arc::new(policy), phase);
    assert_eq!(Asking::new(&mut side).ask(2, &input).1, 0x01);
}

#[test]
fn lost_framing_is_an_error() {
    let mut side = side(one_device());
    assert!(
        side.next(b"GET / HTTP/1.1\r\n", &mut Meter::default(), Instant::now())
            .is_err()
    );
    assert!(matches!(
        side.next(&[0, 1, 0, 0, 0], &mut Meter::default(), Instant::now()),
        Ok(None)
    ));
}

#[test]
fn a_rate_outlives_the_connection_and_is_not_used_by_what_is_refused() {
    let text = format!("{POLICY}rate = {{ count = 2, per = \"1h\" }}\n");
    let policy = Arc::new(Policy::parse(&text, "policy.toml").unwrap());
    let connect = |last: u8| {
        let origin = Origins {
            address: Some([192, 0, 2, last].into()),
            ..Origins::default()
        };
        let phase = policy.phase(Now::Unknown);
        ClientSide::new(
            origin,
            Arc::new(one_device()),
            Arc::clone(&policy),
            phase,
            1,
        )
    };
    let (mut meter, now) = (Meter::default(), Instant::now());
    let (fits, beyond) = (read(1, 0, 1), read(1, 0, 11));
    let mut asks = |side: &mut ClientSide, input: &[u8]| {
        let (step, _) = side.next(input, &mut meter, now).unwrap().unwrap();
        exception(&step)
    };
    let mut side = connect(1);
    assert_eq!(asks(&mut side, &beyond), 0x02);
    // One is in flight already.
    assert_eq!(asks(&mut side, &fits), 0x06);
    let mut side = connect(1);
    assert_eq!(asks(&mut side, &fits), 0);
    let mut side = connect(1);
    assert_eq!(asks(&mut side, &fits), 0);
    let mut side = connect(1);
    assert_eq!(asks(&mut side, &fits), 0x06);
}

/// A client connection whose answers are read as they leave.
struct Asking<'a> {
    side: &'a mut ClientSide,
    meter: Meter,
    now: Instant,
    out: Vec<u8>,
    kept: usize,
}

impl<'a> Asking<'a> {
    fn new(side: &'a mut ClientSide) -> Self {
        Self {
            side,
            meter: Meter::default(),
            now: Instant::now(),
            out: Vec::new(),
            kept: 0,
        }
    }

    fn later(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Its place, if it has got one, and the exception that refuses it.
    fn ask(&mut self, transaction: u16, adu: &[u8]) -> (Option<Place>, u8) {
        let mut adu = adu.to_vec();
        adu[..2].copy_from_slice(&transaction.to_be_bytes());
        let step = self.side.next(&adu, &mut self.meter, self.now).unwrap();
        let (step, _) = step.expect("room");
        let place = match step.verdict {
            Verdict::Forward { place, .. } | Verdict::Refuse { place, .. } => Some(place),
            Verdict::Repeated => None,
        };
        (place, exception(&step))
    }

    fn answered(&mut self, place: Option<Place>, pdu: &[u8]) {
        self.answer(place, pdu, By::Device);
    }

    fn answer(&mut self, place: Option<Place>, pdu: &[u8], by: By) {
        self.kept += self.side.answer(place.unwrap(), pdu, by, &mut self.out);
    }

    /// What has left since: transaction ids and PDUs.
    fn left(&mut self) -> Vec<(u16, Vec<u8>)> {
        let out = std::mem::take(&mut self.out);
        let mut rest = &out[..];
        let mut left = Vec::new();
        while let Some((adu, used)) = mbap::decode(rest).unwrap() {
            left.push((adu.transaction, adu.pdu.to_vec()));
            rest = &rest[used..];
        }
        left
    }
}

const NO_ANSWER: &[u8] = &[0x83, 0x0b];

fn ids(left: Vec<(u16, Vec<u8>)>) -> Vec<u16> {
    left.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_refusal_does_not_overtake_the_answers_before_it() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let first = client.ask(1, &read(1, 0, 1)).0;
    let (refused, code) = client.ask(2, &read(1, 0, 0));
    assert_eq!(code, 0x03);
    client.answer(refused, &[0x83, 0x03], By::Agent);
    let third = client.ask(3, &read(1, 0, 1)).0;
    client.answered(third, &[3, 2, 0, 3]);
    assert!(client.left().is_empty());
    client.answered(first, &[3, 2, 0, 1]);
    let left = client.left();
    assert_eq!(left[1], (2, vec![0x83, 0x03]));
    assert_eq!(ids(left), [1, 2, 3]);
    assert_eq!(client.side.in_flight(), 0);
}

#[test]
fn a_unit_does_not_wait_for_another_and_one_that_leads_nowhere_has_its_own_order() {
    let devices = ["press-07".into(), "press-08".into()].into();
    let to = |device, unit| Target { device, unit };
    let routes = Routes::by_unit([(1, to(0, 1)), (2, to(0, 2)), (3, to(0, 1))], &devices);
    let mut side = side(routes);
    side.limit = 8;
    let mut client = Asking::new(&mut side);
    let dead = client.ask(1, &read(1, 0, 1)).0;
    let other = client.ask(2, &read(2, 0, 1)).0;
    let same = client.ask(3, &read(3, 0, 1)).0;
    let nowhere = client.ask(4, &read(9, 0, 1)).0;
    client.answered(same, &[3, 2, 0, 3]);
    client.answer(nowhere, &[0x83, 0x0a], By::Agent);
    client.answered(other, &[3, 2, 0, 2]);
    assert_eq!(ids(client.left()), [4, 2]);
    client.answer(dead, NO_ANSWER, By::Agent);
    assert_eq!(ids(client.left()), [1, 3]);
}

#[test]
fn an_id_under_way_is_no_new_request() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let first = client.ask(7, &read(1, 0, 1)).0;
    client.later(3000);
    assert_eq!(client.ask(7, &read(1, 0, 1)), (None, 0xff));
    // The first one's answer is the answer, whoever has given it.
    client.answer(first, NO_ANSWER, By::Agent);
    assert_eq!(client.left(), [(7, NO_ANSWER.to_vec())]);
    // It is over: the same id is a new request, as of a client that has only one.
    assert_eq!(client.ask(7, &read(1, 0, 1)).1, 0);
}

#[test]
fn other_octets_under_an_id_under_way_are_refused_behind_its_answer() {
    let devices = ["press-07".into()].into();
    let to = |unit| Target { device: 0, unit };
    let mut side = side(Routes::by_unit([(1, to(1)), (2, to(2))], &devices));
    let mut client = Asking::new(&mut side);
    let first = client.ask(7, &read(1, 0, 1)).0;
    let (other, code) = client.ask(7, &read(2, 0, 1));
    assert_eq!(code, 0x06);
    client.answer(other, &[0x83, 0x06], By::Agent);
    assert!(client.left().is_empty());
    client.answered(first, &[3, 2, 0, 1]);
    let left = client.left();
    assert_eq!(left[1], (7, vec![0x83, 0x06]));
    assert_eq!(left[0], (7, vec![3, 2, 0, 1]));
}

#[test]
fn who_asks_the_next_gets_no_late_word_that_there_is_no_answer() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let silent = client.ask(1, &read(1, 0, 1)).0;
    client.later(500);
    let next = client.ask(2, &read(1, 1, 1)).0;
    client.answer(silent, NO_ANSWER, By::Agent);
    client.answered(next, &[3, 2, 0, 2]);
    assert_eq!(ids(client.left()), [2]);
    assert_eq!(client.kept, 1);
    // What the device says is told, and so is that the last request has no answer.
    let silent = client.ask(3, &read(1, 0, 1)).0;
    client.later(500);
    let last = client.ask(4, &read(1, 1, 1)).0;
    client.answered(silent, NO_ANSWER);
    client.answer(last, NO_ANSWER, By::Agent);
    assert_eq!(ids(client.left()), [3, 4]);
}

#[test]
fn who_has_asked_without_waiting_gets_every_answer() {
    let mut side = side(one_device());
    side.limit = 8;
    let mut client = Asking::new(&mut side);
    let first = client.ask(1, &read(1, 0, 1)).0;
    client.later(500);
    let second = client.ask(2, &read(1, 1, 1)).0;
    client.later(1);
    // By this it shows that it had not given up the first.
    let third = client.ask(3, &read(1, 2, 1)).0;
    for place in [first, second, third] {
        client.answer(place, NO_ANSWER, By::Agent);
    }
    assert_eq!(ids(client.left()), [1, 2, 3]);
    let silent = client.ask(4, &read(1, 0, 1)).0;
    client.later(500);
    client.ask(5, &read(1, 1, 1));
    client.answer(silent, NO_ANSWER, By::Agent);
    assert_eq!(ids(client.left()), [4]);
}

#[test]
fn whatever_waits_is_answered_before_a_connection_is_closed() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let first = client.ask(1, &read(1, 0, 1)).0;
    let refused = client.ask(2, &read(1, 0, 0)).0;
    client.answer(refused, &[0x83, 0x03], By::Agent);
    client.side.give_up(&mut client.out);
    let expected = [(1, NO_ANSWER.to_vec()), (2, vec![0x83, 0x03])];
    assert_eq!(client.left(), expected);
    // Its answer comes too late.
    client.answered(first, &[3, 2, 0, 1]);
    assert!(client.left().is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut side = side(one_device());
    let mut client = Asking::new(&mut side);
    let places: Vec<_> = (0..4).map(|id| client.ask(id, &read(1, 0, 1)).0).collect();
    for &refused in &places[2..] {
        client.answer(refused, &[0x83, 0x06], By::Agent);
    }
    assert!(client.side.is_full());
    let one_more = read(1, 0, 1);
    let more = client.side.next(&one_more, &mut client.meter, client.now);
    assert!(more.unwrap().is_none());
    client.answered(places[0], &[3, 2, 0, 1]);
    assert!(!client.side.is_full());
}
