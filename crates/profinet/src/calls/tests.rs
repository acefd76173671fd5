use proptest::prelude::*;

use super::*;
use crate::mac::Mac;
use crate::testing::{CONTROLLER, DEVICE, FRAGMENT, LAST, Pdu};

const PAIR: Pair = Pair {
    controller: CONTROLLER,
    device: DEVICE,
};
const OTHER: Pair = Pair {
    controller: Mac([2, 0, 0, 0, 0, 3]),
    device: DEVICE,
};
/// The ports of the controller as a client, and of the device as it answers.
const CLIENT: u16 = 49_155;
const SERVER: u16 = 49_152;

fn request(activity: u8) -> Pdu {
    Pdu {
        activity,
        ..Pdu::request(3, b"asked")
    }
}

fn response(activity: u8) -> Pdu {
    Pdu {
        activity,
        ..Pdu::response(3, b"answered")
    }
}

fn of_type(ptype: u8, activity: u8) -> Pdu {
    Pdu {
        ptype,
        ..request(activity)
    }
}

struct Wire {
    calls: Calls,
    now: Instant,
}

impl Wire {
    fn new() -> Self {
        Self {
            calls: Calls::default(),
            now: Instant::now(),
        }
    }

    fn from(&mut self, end: End, ports: (u16, u16), pdu: &Pdu) -> Result<Part<'_>, CallError> {
        self.calls.handle(self.now, PAIR, end, ports, &pdu.rpc())
    }

    fn ask(&mut self, pdu: &Pdu) -> Result<Part<'_>, CallError> {
        self.from(End::Controller, (CLIENT, PNIO_CM_PORT), pdu)
    }

    fn answer(&mut self, pdu: &Pdu) -> Result<Part<'_>, CallError> {
        self.from(End::Device, (SERVER, CLIENT), pdu)
    }
}

#[test]
fn an_answer_may_come_from_a_port_that_nobody_knew_and_the_next_call_may_go_there() {
    let mut wire = Wire::new();
    let to_server = (CLIENT, SERVER);
    let early = wire.from(End::Controller, to_server, &request(1));
    assert_eq!(early, Err(CallError::Port(SERVER)));
    assert_eq!(wire.ask(&request(1)), Ok(Part::Request(b"asked")));
    assert_eq!(wire.answer(&response(1)), Ok(Part::Response(b"answered")));
    let later = wire.from(End::Controller, to_server, &request(2));
    assert_eq!(later, Ok(Part::Request(b"asked")));
    // Not the other way round, and not for others.
    let back = wire.from(End::Device, (CLIENT, SERVER), &request(3));
    assert_eq!(back, Err(CallError::Port(SERVER)));
    let foreign = request(4).rpc();
    let foreign = wire
        .calls
        .handle(wire.now, OTHER, End::Controller, to_server, &foreign);
    assert_eq!(foreign, Err(CallError::Port(SERVER)));
}

#[test]
fn a_device_asks_the_controller_as_well() {
    let mut wire = Wire::new();
    let asked = wire.from(End::Device, (1025, PNIO_CM_PORT), &request(1));
    assert_eq!(asked, Ok(Part::Request(b"asked")));
    let answered = wire.from(End::Controller, (CLIENT, 1025), &response(1));
    assert_eq!(answered, Ok(Part::Response(b"answered")));
}

#[test]
fn answers_to_what_was_not_asked_are_refused() {
    let mut wire = Wire::new();
    assert_eq!(wire.answer(&response(1)), Err(CallError::NoCall));
    wire.ask(&request(1)).unwrap();
    assert_eq!(wire.answer(&response(2)), Err(CallError::NoCall));
    let late = Pdu {
        sequence: 1,
        ..response(1)
    };
    assert_eq!(wire.answer(&late), Err(CallError::NoCall));
    let elsewhere = wire.from(End::Device, (SERVER, 161), &response(1));
    assert_eq!(elsewhere, Err(CallError::Port(161)));
    let own = wire.from(End::Controller, (SERVER, CLIENT), &response(1));
    assert_eq!(own, Err(CallError::NoCall));
    let rpc = response(1).rpc();
    let foreign = wire
        .calls
        .handle(wire.now, OTHER, End::Device, (SERVER, CLIENT), &rpc);
    assert_eq!(foreign, Err(CallError::NoCall));
    // None of them taught a port.
    let port = wire.from(End::Controller, (CLIENT, SERVER), &request(3));
    assert_eq!(port, Err(CallError::Port(SERVER)));
}

#[test]
fn an_answer_is_to_the_operation_that_was_asked_for() {
    let mut wire = Wire::new();
    wire.ask(&request(1)).unwrap();
    let other = Pdu {
        opnum: 0,
        ..response(1)
    };
    assert_eq!(wire.answer(&other), Err(CallError::NoCall));
    assert_eq!(wire.answer(&response(1)), Ok(Part::Response(b"answered")));
}

#[test]
fn signals_go_with_a_call() {
    let mut wire = Wire::new();
    for ptype in [4, 5, 7, 9] {
        assert!(wire.ask(&of_type(ptype, 1)).is_err(), "type {ptype}");
    }
    wire.ask(&request(1)).unwrap();
    for ptype in [1, 7, 9] {
        assert_eq!(wire.ask(&of_type(ptype, 1)), Ok(Part::Signal));
        let elsewhere = wire.from(End::Controller, (CLIENT, 161), &of_type(ptype, 1));
        assert_eq!(elsewhere, Err(CallError::Port(161)));
    }
    for ptype in [4, 5, 7, 9] {
        assert_eq!(wire.answer(&of_type(ptype, 1)), Ok(Part::Signal));
    }
    for ptype in [3, 6] {
        assert_eq!(wire.answer(&of_type(ptype, 1)), Ok(Part::Failure));
    }
}

#[test]
fn a_call_is_cancelled_by_who_made_it_and_the_other_end_says_so() {
    let cancel = |activity, body: &[u8]| Pdu {
        body: body.to_vec(),
        ..of_type(8, activity)
    };
    let mut wire = Wire::new();
    assert_eq!(wire.ask(&cancel(1, &[0; 8])), Err(CallError::NoCall));
    wire.ask(&request(1)).unwrap();
    assert_eq!(wire.ask(&cancel(1, &[0; 8])), Ok(Part::Signal));
    assert_eq!(wire.ask(&cancel(1, &[])), Ok(Part::Signal));
    assert_eq!(wire.ask(&cancel(1, &[0; 9])), Err(CallError::Cancel(9)));
    assert_eq!(
        wire.answer(&cancel(1, &[0; 8])),
        Err(CallError::Port(CLIENT))
    );
    let taken = |activity, length| Pdu {
        body: vec![0; length],
        ..of_type(10, activity)
    };
    for length in [0, 8, 9, 12] {
        assert_eq!(wire.answer(&taken(1, length)), Ok(Part::Signal));
    }
    assert_eq!(wire.answer(&taken(1, 13)), Err(CallError::Cancel(13)));
    assert_eq!(wire.answer(&taken(2, 12)), Err(CallError::NoCall));
    // The answer may have been under way.
    assert_eq!(wire.answer(&response(1)), Ok(Part::Response(b"answered")));
}

#[test]
fn a_ping_before_any_request_passes_and_so_does_no_call_that_answers_it() {
    let mut wire = Wire::new();
    assert_eq!(wire.answer(&of_type(5, 1)), Err(CallError::NoCall));
    let elsewhere = wire.from(End::Controller, (CLIENT, 161), &of_type(1, 1));
    assert_eq!(elsewhere, Err(CallError::Port(161)));
    assert_eq!(wire.ask(&of_type(1, 1)), Ok(Part::Signal));
    // Nobody here has judged the request: what it may have done stays where it is.
    assert_eq!(wire.answer(&response(1)), Err(CallError::NoCall));
    assert_eq!(wire.answer(&of_type(5, 1)), Ok(Part::Signal));
    assert_eq!(wire.ask(&request(1)), Ok(Part::Request(b"asked")));
    assert_eq!(wire.answer(&response(1)), Ok(Part::Response(b"answered")));
    // A late ping of a call that is over does not displace the one under way, a newer one does.
    let ping = |sequence| Pdu {
        sequence,
        ..of_type(1, 1)
    };
    let second = Pdu {
        sequence: 1,
        ..request(1)
    };
    wire.ask(&second).unwrap();
    assert_eq!(wire.ask(&ping(0)), Err(CallError::NoCall));
    assert_eq!(wire.ask(&ping(2)), Ok(Part::Signal));
    let no_call = Pdu {
        sequence: 2,
        ..of_type(5, 1)
    };
    assert_eq!(wire.answer(&no_call), Ok(Part::Signal));
}

fn pieces() -> [Pdu; 2] {
    let piece = |fragment, flags1, body: &[u8]| Pdu {
        fragment,
        flags1,
        ..Pdu::request(3, body)
    };
    [piece(0, FRAGMENT, b"as"), piece(1, FRAGMENT | LAST, b"ked")]
}

#[test]
fn a_call_in_pieces_is_judged_when_it_is_whole() {
    let mut wire = Wire::new();
    let [first, last] = pieces();
    let gap = FragmentError::Gap { got: 1, wanted: 0 };
    assert_eq!(wire.ask(&last), Err(CallError::Fragment(gap)));
    assert_eq!(wire.ask(&first), Ok(Part::Piece));
    assert_eq!(wire.ask(&first), Ok(Part::Piece));
    assert_eq!(wire.ask(&last), Ok(Part::Request(b"asked")));
    assert_eq!(wire.ask(&last), Ok(Part::Request(b"asked")));
    // The next call of the activity begins anew.
    let next = |pdu: Pdu| Pdu { sequence: 1, ..pdu };
    let [first, last] = pieces().map(next);
    assert!(wire.ask(&last).is_err());
    assert_eq!(wire.ask(&first), Ok(Part::Piece));
    assert_eq!(wire.ask(&last), Ok(Part::Request(b"asked")));
}

#[test]
fn of_a_call_that_was_refused_no_piece_and_no_answer_passes_any_more() {
    let mut wire = Wire::new();
    let [first, last] = pieces();
    wire.ask(&first).unwrap();
    wire.ask(&last).unwrap();
    wire.calls.refuse(PAIR, &last.rpc().activity);
    assert_eq!(wire.ask(&first), Err(CallError::NoCall));
    assert_eq!(wire.answer(&response(1)), Err(CallError::NoCall));
    // The last one again, so that it is refused again.
    assert_eq!(wire.ask(&last), Ok(Part::Request(b"asked")));
    let next = Pdu {
        sequence: 1,
        ..request(1)
    };
    assert_eq!(wire.ask(&next), Ok(Part::Request(b"asked")));
}

#[test]
fn a_call_that_is_allowed_after_all_is_answered() {
    let mut wire = Wire::new();
    let [first, last] = pieces();
    let activity = last.rpc().activity;
    let about = Some(Uuid([7; 16]));
    wire.ask(&first).unwrap();
    wire.ask(&last).unwrap();
    wire.calls.refuse(PAIR, &activity);
    assert_eq!(wire.answer(&response(1)), Err(CallError::NoCall));
    assert_eq!(wire.ask(&last), Ok(Part::Request(b"asked")));
    wire.calls.allow(PAIR, &activity, about);
    assert_eq!(wire.calls.about(PAIR, &activity), about);
    assert_eq!(wire.answer(&response(1)), Ok(Part::Response(b"answered")));
    assert_eq!(wire.ask(&first), Ok(Part::Piece));
}

#[test]
fn a_call_remembers_the_ar_that_it_is_about_until_the_next_one() {
    let mut wire = Wire::new();
    wire.ask(&request(1)).unwrap();
    let activity = request(1).rpc().activity;
    let about = Some(Uuid([7; 16]));
    wire.calls.allow(PAIR, &activity, about);
    wire.calls.allow(OTHER, &activity, None);
    wire.ask(&request(1)).unwrap();
    assert_eq!(wire.calls.about(PAIR, &activity), about);
    assert_eq!(wire.calls.about(OTHER, &activity), None);
    let next = Pdu {
        sequence: 1,
        ..request(1)
    };
    wire.ask(&next).unwrap();
    assert_eq!(wire.calls.about(PAIR, &activity), None);
}

#[test]
fn calls_are_bounded_and_forgotten() {
    let mut wire = Wire::new();
    for activity in 0..MAX_OF_PAIR as u8 {
        wire.ask(&request(activity)).unwrap();
    }
    assert_eq!(wire.ask(&request(200)), Err(CallError::TooMany));
    wire.now += Duration::from_millis(1);
    wire.ask(&request(0)).unwrap();
    wire.ask(&request(200)).unwrap();
    assert_eq!(wire.calls.calls.len(), MAX_OF_PAIR);
    // The one that spoke last was kept.
    wire.answer(&response(0)).unwrap();
    assert_eq!(
        wire.calls.poll_timeout(),
        Some(wire.now - Duration::from_millis(1) + PATIENCE)
    );
    wire.calls.handle_timeout(wire.now + PATIENCE);
    assert_eq!(wire.calls.poll_timeout(), None);
    assert!(wire.answer(&response(0)).is_err());
    wire.calls.forget(|pair| pair == PAIR);
    assert!(wire.calls.ports.is_empty());
}

#[test]
fn pieces_that_have_passed_can_t_be_completed_by_others() {
    let piece = |activity, sequence, opnum, fragment, last: bool| Pdu {
        activity,
        sequence,
        opnum,
        fragment,
        flags1: if last { FRAGMENT | LAST } else { FRAGMENT },
        ..Pdu::request(3, b"half")
    };
    // Another call of the activity, and then the same one from its start.
    let between = [
        Pdu {
            sequence: 2,
            ..request(1)
        },
        Pdu {
            sequence: 1,
            opnum: 2,
            ..request(1)
        },
        piece(1, 2, 3, 0, true),
    ];
    for between in between {
        let mut wire = Wire::new();
        assert_eq!(wire.ask(&piece(1, 1, 3, 0, false)), Ok(Part::Piece));
        wire.ask(&between).unwrap();
        let again = wire.ask(&piece(1, 1, 3, 0, false));
        assert_eq!(again, Err(CallError::Torn));
        // What is newer is another request.
        assert_eq!(wire.ask(&piece(1, 3, 3, 0, false)), Ok(Part::Piece));
    }
    // So many others in pieces, or at all, that it would be forgotten.
    let mut wire = Wire::new();
    wire.ask(&piece(1, 1, 3, 0, false)).unwrap();
    for activity in 2..40 {
        wire.now += Duration::from_millis(1);
        let _ = wire.ask(&piece(activity, 1, 3, 0, false));
        let _ = wire.ask(&request(activity + 100));
    }
    let again = wire.ask(&piece(1, 1, 3, 0, false));
    assert_eq!(again, Err(CallError::Torn));
}

#[test]
fn ports_that_are_learned_are_bounded() {
    let mut wire = Wire::new();
    wire.ask(&request(1)).unwrap();
    for port in 0..50 {
        wire.from(End::Device, (50_000 + port, CLIENT), &response(1))
            .unwrap();
    }
    assert_eq!(wire.calls.ports[0].known.len(), MAX_PORTS);
    let newest = wire.from(End::Controller, (CLIENT, 50_049), &request(2));
    assert!(newest.is_ok());
}

proptest! {
    #[test]
    fn hostile_datagrams_stay_within_the_bounds(datagrams in prop::collection::vec(
        (0u8..11, any::<u8>(), 0u8..8, 0u16..4, any::<bool>(), any::<bool>(), 0u64..2000), 0..120,
    )) {
        let mut wire = Wire::new();
        for (ptype, activity, flags1, fragment, device, other, pause) in datagrams {
            wire.now += Duration::from_millis(pause);
            let pdu = Pdu { ptype, activity, flags1, fragment, ..request(0) };
            let end = if device { End::Device } else { End::Controller };
            let pair = if other { OTHER } else { PAIR };
            let ports = (u16::from(activity), if fragment == 3 { 0 } else { PNIO_CM_PORT });
            let _ = wire.calls.handle(wire.now, pair, end, ports, &pdu.rpc());
            prop_assert!(wire.calls.calls.len() <= 2 * MAX_OF_PAIR);
            let in_pieces = wire.calls.calls.iter().filter(|call| call.request.is_some() || call.response.is_some());
            prop_assert!(in_pieces.count() <= 2 * (MAX_IN_PIECES + 1));
            prop_assert!(wire.calls.ports.len() <= 4);
        }
    }
}
