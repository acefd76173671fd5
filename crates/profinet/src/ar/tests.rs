use proptest::prelude::*;

use super::table::AFTER;
use super::*;
use crate::cm::Message;
use crate::rpc::Order;
use crate::testing::{AR_UUID, CONTROLLER, Connect, DEVICE, Pdu, ndr};

const PAIR: Pair = Pair {
    controller: CONTROLLER,
    device: DEVICE,
};
const OTHER: Pair = Pair {
    controller: Mac([2, 0, 0, 0, 0, 3]),
    device: DEVICE,
};
const UUID: Uuid = Uuid(AR_UUID);

/// A UUID with a tag of its own for each `number`.
const fn uuid(number: u8) -> [u8; 16] {
    let mut uuid = AR_UUID;
    uuid[0] = number;
    uuid
}

fn start() -> Instant {
    Instant::now()
}

fn with_request<T>(connect: &Connect, then: impl FnOnce(&crate::cm::ConnectRequest<'_>) -> T) -> T {
    let rpc = Pdu::request(0, &ndr(Order::Big, 4096, &connect.blocks())).rpc();
    match Message::parse(&rpc, rpc.body) {
        Ok(Message::ConnectRequest(request)) => then(&request),
        other => panic!("{other:?}"),
    }
}

/// The calls of one controller have an activity, and objects, of their own.
const OBJECT: Uuid = Uuid([0xde; 16]);

fn call(number: u32) -> CallId {
    CallId {
        activity: Uuid([0xa0; 16]),
        sequence: number,
    }
}

/// A Connect is a call of its own for each session key.
fn ask(table: &mut Table, now: Instant, pair: Pair, connect: &Connect) -> Result<(), Refused> {
    let key = u32::from(connect.session_key);
    ask_as(table, now, pair, (call(key), OBJECT), connect)
}

fn ask_as(
    table: &mut Table,
    now: Instant,
    pair: Pair,
    rpc: (CallId, Uuid),
    connect: &Connect,
) -> Result<(), Refused> {
    with_request(connect, |request| table.connect(now, pair, rpc, request))
}

fn answer_with(
    table: &mut Table,
    now: Instant,
    pair: Pair,
    (key, uuid): (u16, [u8; 16]),
    (status, blocks): (u32, &[u8]),
) -> Vec<Change> {
    let rpc = Pdu::response(0, &ndr(Order::Big, status, blocks)).rpc();
    let of = (call(key.into()), Uuid(uuid));
    match Message::parse(&rpc, rpc.body) {
        Ok(Message::ConnectResponse(response)) => table.connected(now, pair, of, &response),
        other => panic!("{other:?}"),
    }
}

/// The device takes it and calls the output `output`.
fn answer(
    table: &mut Table,
    now: Instant,
    pair: Pair,
    connect: &Connect,
    output: u16,
) -> Vec<Change> {
    let blocks = connect.answer(&[0xc001, output], 9);
    let of = (connect.session_key, connect.uuid);
    answer_with(table, now, pair, of, (0, &blocks))
}

/// A table with one AR that is connected.
fn open(now: Instant) -> (Table, ArId) {
    let mut table = Table::new(4);
    let connect = Connect::default();
    ask(&mut table, now, PAIR, &connect).unwrap();
    let changes = answer(&mut table, now, PAIR, &connect, 0x8002);
    let [Change::Opened(id)] = changes[..] else {
        panic!("{changes:?}")
    };
    (table, id)
}

fn why(changes: &[Change]) -> Vec<Option<Ended>> {
    let ended = |change: &Change| match change {
        Change::Ended(_, why) => Some(*why),
        Change::Opened(_) | Change::Running(_) => None,
    };
    changes.iter().map(ended).collect()
}

fn to_device(table: &mut Table, now: Instant, id: u16) -> Result<usize, Refused> {
    let found = table.cyclic(now, CONTROLLER, DEVICE, FrameId(id));
    found.map(|(_, cr)| cr)
}

fn to_controller(table: &mut Table, now: Instant, id: u16) -> Result<usize, Refused> {
    let found = table.cyclic(now, DEVICE, CONTROLLER, FrameId(id));
    found.map(|(_, cr)| cr)
}

#[test]
fn data_flows_from_the_answer_on_under_the_frame_id_that_the_device_assigned() {
    let now = start();
    let mut table = Table::new(1);
    let connect = Connect::default();
    assert_eq!(ask(&mut table, now, PAIR, &connect), Ok(()));
    let unknown = Err(Refused::UnknownFrameId);
    assert_eq!(to_controller(&mut table, now, 0xc001), Err(Refused::Early));
    assert_eq!(table.find(PAIR, UUID).unwrap().phase, Phase::Connecting);
    let changes = answer(&mut table, now, PAIR, &connect, 0x8002);
    assert!(matches!(changes[..], [Change::Opened(_)]));
    assert_eq!(to_controller(&mut table, now, 0xc001), Ok(0));
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
    // The other way round, or as the request had it.
    assert_eq!(to_device(&mut table, now, 0xc001), unknown);
    assert_eq!(to_controller(&mut table, now, 0x8002), unknown);
    assert_eq!(to_device(&mut table, now, 0xffff), unknown);
    // Its answer again.
    assert!(answer(&mut table, now, PAIR, &connect, 0x8002).is_empty());
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
    assert!(matches!(
        table.ready(now, PAIR, UUID),
        Some(Change::Running(_))
    ));
    assert!(table.ready(now, PAIR, UUID).is_none());
}

#[test]
fn alarms_belong_to_the_ar_whose_two_references_they_name() {
    let now = start();
    let (mut table, id) = open(now);
    let (of_controller, of_device) = (3, 9);
    let mut ask = |from, to, from_ref| table.alarm(now, PAIR, from, to, from_ref);
    assert_eq!(ask(End::Device, of_controller, of_device), Ok(id));
    assert_eq!(ask(End::Controller, of_device, of_controller), Ok(id));
    for (from, to, from_ref) in [
        (End::Controller, of_controller, of_device),
        (End::Device, of_controller, 8),
        (End::Device, 4, of_device),
    ] {
        assert_eq!(ask(from, to, from_ref), Err(Refused::UnknownAlarm));
    }
    let foreign = table.alarm(now, OTHER, End::Device, of_controller, of_device);
    assert_eq!(foreign, Err(Refused::UnknownAlarm));
}

#[test]
fn a_release_stops_the_data_at_once_and_ends_the_ar_with_its_answer() {
    let now = start();
    let (mut table, id) = open(now);
    assert!(table.released(now, PAIR, UUID).is_none());
    assert_eq!(table.releasing(now, OTHER, UUID), None);
    assert_eq!(table.releasing(now, PAIR, UUID), Some(id));
    assert!(to_controller(&mut table, now, 0xc001).is_err());
    let change = table.released(now, PAIR, UUID);
    assert_eq!(why(change.as_slice()), [Some(Ended::Released)]);
    assert!(table.is_empty());
    assert_eq!(table.touch(now, PAIR, UUID), Err(Refused::UnknownAr));
}

#[test]
fn an_abort_ends_an_ar_and_its_data() {
    let now = start();
    let (mut table, id) = open(now);
    let aborted = Ended::Aborted {
        by: End::Device,
        status: PnioStatus::from_octets([0xcf, 0x81, 0xfd, 5]),
    };
    let change = table.end(now, id, aborted);
    assert_eq!(why(change.as_slice()), [Some(aborted)]);
    assert!(table.end(now, id, aborted).is_none());
    assert!(to_device(&mut table, now, 0x8002).is_err());
}

#[test]
fn a_device_that_refuses_or_speaks_of_something_else_opens_nothing() {
    let now = start();
    let connect = Connect::default();
    let good = connect.answer(&[0xc001, 0x8002], 9);
    let other = Connect {
        uuid: uuid(7),
        ..Connect::default()
    };
    let refused = Ended::Refused(PnioStatus::from_octets([0xdb, 0x81, 0x40, 4]));
    let unassigned = Unfit::FrameId {
        reference: 2,
        frame_id: FrameId(0xffff),
    };
    let outside = Unfit::FrameId {
        reference: 2,
        frame_id: FrameId(0xfc01),
    };
    for (status, blocks, ended) in [
        (0xdb81_4004, vec![], refused),
        (0xdb81_4004, good.clone(), refused),
        (0, vec![], Ended::Unfit(Unfit::OtherAr)),
        (
            0,
            other.answer(&[0xc001, 0x8002], 9),
            Ended::Unfit(Unfit::OtherAr),
        ),
        (0, connect.answer(&[0xc001], 9), Ended::Unfit(unassigned)),
        (
            0,
            connect.answer(&[0xc001, 0xfc01], 9),
            Ended::Unfit(outside),
        ),
    ] {
        let mut table = Table::new(1);
        ask(&mut table, now, PAIR, &connect).unwrap();
        assert!(answer_with(&mut table, now, OTHER, (1, AR_UUID), (0, &good)).is_empty());
        let changes = answer_with(&mut table, now, PAIR, (1, AR_UUID), (status, &blocks));
        assert_eq!(why(&changes), [Some(ended)]);
        assert!(table.is_empty());
        assert!(to_controller(&mut table, now, 0xc001).is_err());
    }
}

#[test]
fn another_ar_of_the_same_two_takes_the_place_of_the_first() {
    let now = start();
    let (mut table, first) = open(now);
    let second = Connect {
        uuid: uuid(7),
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &second).unwrap();
    assert_eq!(table.len(), 2);
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
    let changes = answer(&mut table, now, PAIR, &second, 0x8005);
    assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
    assert!(table.get(first).is_none());
    assert!(to_device(&mut table, now, 0x8002).is_err());
    // The same FrameID is the new one's.
    assert_eq!(to_controller(&mut table, now, 0xc001), Ok(0));
    assert_eq!(to_device(&mut table, now, 0x8005), Ok(1));
}

#[test]
fn a_connect_anew_under_the_same_uuid_takes_over_what_the_device_now_assigns() {
    let now = start();
    let (mut table, first) = open(now);
    let anew = Connect {
        session_key: 2,
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &anew).unwrap();
    // Its repetition, and a third session before there was an answer.
    ask(&mut table, now, PAIR, &anew).unwrap();
    assert_eq!(table.len(), 2);
    let third = Connect {
        session_key: 3,
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &third).unwrap();
    assert_eq!(table.len(), 2);
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
    let changes = answer(&mut table, now, PAIR, &third, 0x8006);
    assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
    assert!(table.get(first).is_none());
    assert_eq!(table.len(), 1);
    assert!(to_device(&mut table, now, 0x8002).is_err());
    assert_eq!(to_device(&mut table, now, 0x8006), Ok(1));
}

#[test]
fn the_same_uuid_and_session_key_in_another_call_begin_an_ar_anew() {
    let now = start();
    for same_call in [false, true] {
        let (mut table, first) = open(now);
        let again = Connect::default();
        let number = if same_call { 1 } else { 5 };
        ask_as(&mut table, now, PAIR, (call(number), OBJECT), &again).unwrap();
        // The old one goes on until the device has answered.
        assert_eq!(table.len(), 2 - usize::from(same_call));
        assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
        // A late answer to the first Connect opens nothing.
        let blocks = again.answer(&[0xc001, 0x8002], 9);
        let late = answer_with(&mut table, now, PAIR, (1, AR_UUID), (0, &blocks));
        assert!(late.is_empty());
        // A device that has started anew as well assigns what it likes.
        let blocks = again.answer(&[0xc001, 0x8007], 11);
        let of = (number as u16, AR_UUID);
        let changes = answer_with(&mut table, now, PAIR, of, (0, &blocks));
        assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
        assert!(table.get(first).is_none());
        assert_eq!(to_device(&mut table, now, 0x8007), Ok(1));
        assert_eq!(to_device(&mut table, now, 0x8002), Err(Refused::Over));
        assert_eq!(to_controller(&mut table, now, 0xc001), Ok(0));
        assert!(table.alarm(now, PAIR, End::Device, 3, 11).is_ok());
        assert_eq!(
            table.alarm(now, PAIR, End::Device, 3, 9),
            Err(Refused::Over)
        );
    }
}

#[test]
fn the_same_call_with_another_content_is_no_repetition() {
    let now = start();
    let (mut table, _) = open(now);
    let other = Connect {
        iocrs: vec![(1, 1, 0xc005), (2, 2, 0xffff)],
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &other).unwrap();
    assert_eq!(table.len(), 2);
    let changes = answer(&mut table, now, PAIR, &other, 0x8002);
    assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
    assert_eq!(to_controller(&mut table, now, 0xc005), Ok(0));
}

/// One PLC, one address, a link with slaves behind it.
#[test]
fn a_controller_has_several_ars_with_one_address_each_with_an_object_of_its_own() {
    let now = start();
    let mut table = Table::new(20);
    let connect = |number: u8| Connect {
        uuid: uuid(number),
        iocrs: vec![
            (1, 1, 0xc000 + u16::from(number)),
            (2, 2, 0xc100 + u16::from(number)),
        ],
        alarm: Some(u16::from(number)),
        ..Connect::default()
    };
    let object = |number: u8| Uuid([number; 16]);
    let rpc = |number: u8, again: u32| (call(100 * again + u32::from(number)), object(number));
    // All are asked for before the first is answered.
    for number in 0..20 {
        ask_as(&mut table, now, PAIR, rpc(number, 1), &connect(number)).unwrap();
    }
    for number in 0..20 {
        let connect = connect(number);
        // The device overrides what it was given.
        let blocks = connect.answer(&[0xc000, 0xc000 + u16::from(number)], number.into());
        let of = (100 + u16::from(number), connect.uuid);
        let changes = answer_with(&mut table, now, PAIR, of, (0, &blocks));
        assert!(matches!(changes[..], [Change::Opened(_)]), "{changes:?}");
    }
    assert_eq!(table.len(), 20);
    for number in 0..20 {
        let id = 0xc000 + number;
        assert_eq!(to_controller(&mut table, now, id), Ok(0));
        assert_eq!(to_device(&mut table, now, id), Ok(1));
        assert!(table.alarm(now, PAIR, End::Device, number, number).is_ok());
    }
    let one_more = ask_as(&mut table, now, PAIR, rpc(30, 1), &connect(30));
    assert_eq!(one_more, Err(Refused::TooMany(20)));
    // One of them anew, under another UUID, takes its own place alone.
    let anew = Connect {
        uuid: uuid(40),
        ..connect(7)
    };
    ask_as(&mut table, now, PAIR, rpc(7, 2), &anew).unwrap();
    let blocks = anew.answer(&[0xc000, 0xc007], 7);
    let changes = answer_with(&mut table, now, PAIR, (207, anew.uuid), (0, &blocks));
    assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
    assert_eq!(table.len(), 20);
}

#[test]
fn data_ahead_of_the_answer_and_behind_the_end_is_told_apart_from_that_of_nobody() {
    let now = start();
    let mut table = Table::new(4);
    let connect = Connect::default();
    ask(&mut table, now, PAIR, &connect).unwrap();
    assert_eq!(to_controller(&mut table, now, 0xc001), Err(Refused::Early));
    assert_eq!(
        to_controller(&mut table, now, 0xc002),
        Err(Refused::UnknownFrameId)
    );
    answer(&mut table, now, PAIR, &connect, 0x8002);
    table.releasing(now, PAIR, UUID).unwrap();
    assert_eq!(to_device(&mut table, now, 0x8002), Err(Refused::Over));
    table.released(now, PAIR, UUID).unwrap();
    let later = now + AFTER - Duration::from_millis(1);
    assert_eq!(to_device(&mut table, later, 0x8002), Err(Refused::Over));
    assert_eq!(
        table.alarm(later, PAIR, End::Device, 3, 9),
        Err(Refused::Over)
    );
    let later = now + AFTER;
    assert_eq!(
        to_device(&mut table, later, 0x8002),
        Err(Refused::UnknownFrameId)
    );
    assert_eq!(
        table.alarm(later, PAIR, End::Device, 3, 9),
        Err(Refused::UnknownAlarm)
    );
}

#[test]
fn an_abort_on_the_way_to_the_answer_of_a_release_is_the_release() {
    let now = start();
    let status = PnioStatus::from_octets([0xcf, 0x81, 0xfd, 0x0f]);
    let (mut table, id) = open(now);
    let by = End::Device;
    table.releasing(now, PAIR, UUID).unwrap();
    let change = table.aborted(now, id, by, status);
    assert_eq!(why(change.as_slice()), [Some(Ended::Released)]);
    assert!(table.released(now, PAIR, UUID).is_none());
    let (mut table, id) = open(now);
    let change = table.aborted(now, id, by, status);
    assert_eq!(
        why(change.as_slice()),
        [Some(Ended::Aborted { by, status })]
    );
}

#[test]
fn a_connect_anew_that_the_device_refuses_leaves_the_old_one() {
    let now = start();
    let (mut table, first) = open(now);
    let anew = Connect {
        session_key: 2,
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &anew).unwrap();
    let changes = answer_with(&mut table, now, PAIR, (2, AR_UUID), (0xdb81_4004, &[]));
    assert!(matches!(why(&changes)[..], [Some(Ended::Refused(_))]));
    assert!(table.get(first).is_some());
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
}

#[test]
fn an_ar_whose_release_was_not_answered_can_be_connected_again() {
    let now = start();
    let (mut table, _) = open(now);
    let connect = Connect::default();
    table.releasing(now, PAIR, UUID).unwrap();
    ask(&mut table, now, PAIR, &connect).unwrap();
    let changes = answer(&mut table, now, PAIR, &connect, 0x8002);
    assert_eq!(why(&changes), [Some(Ended::Replaced), None]);
    assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
}

#[test]
fn a_uuid_belongs_to_the_pair_that_has_it_and_so_does_its_tag() {
    let now = start();
    let (mut table, _) = open(now);
    let theirs = Connect {
        mac: OTHER.controller,
        session_key: 2,
        ..Connect::default()
    };
    assert_eq!(ask(&mut table, now, OTHER, &theirs), Err(Refused::SameUuid));
    // Two pairs of octets changed alike: another UUID, the same tag.
    let mut uuid = AR_UUID;
    uuid[0] ^= 0x40;
    uuid[2] ^= 0x40;
    let clash = Connect { uuid, ..theirs };
    assert_eq!(tag_of(&Uuid(uuid)), tag_of(&UUID));
    assert_eq!(ask(&mut table, now, OTHER, &clash), Err(Refused::SameUuid));
    let elsewhere = Pair {
        device: Mac([2, 0, 0, 0, 0, 4]),
        ..PAIR
    };
    assert_eq!(ask(&mut table, now, elsewhere, &clash), Ok(()));
}

#[test]
fn a_supervisor_beside_the_controller_shares_no_frame_id_with_it() {
    let now = start();
    for (ar_type, properties) in [(6, 0x11), (1, 0x111)] {
        let (mut table, first) = open(now);
        let second = Connect {
            ar_type,
            properties,
            uuid: uuid(7),
            ..Connect::default()
        };
        ask(&mut table, now, PAIR, &second).unwrap();
        let changes = answer(&mut table, now, PAIR, &second, 0x8005);
        let taken = Unfit::TakenFrameId {
            reference: 1,
            frame_id: FrameId(0xc001),
        };
        assert_eq!(why(&changes), [Some(Ended::Unfit(taken))]);
        assert!(table.get(first).is_some());
        // Records alone may be read beside it.
        let records = Connect {
            iocrs: vec![],
            alarm: None,
            ..second
        };
        ask(&mut table, now, PAIR, &records).unwrap();
        let changes = answer(&mut table, now, PAIR, &records, 0);
        assert!(matches!(changes[..], [Change::Opened(_)]));
        assert_eq!(to_device(&mut table, now, 0x8002), Ok(1));
    }
}

#[test]
fn the_number_of_ars_is_bounded() {
    let now = start();
    let mut table = Table::new(3);
    for number in 0..10 {
        let connect = Connect {
            uuid: uuid(number),
            ..Connect::default()
        };
        let pair = Pair {
            controller: Mac([2, 0, 0, 0, 1, number]),
            ..PAIR
        };
        let taken = ask(&mut table, now, pair, &connect);
        let expected = if number < 3 {
            Ok(())
        } else {
            Err(Refused::TooMany(3))
        };
        assert_eq!(taken, expected);
    }
}

#[test]
fn a_controller_that_connects_over_and_over_takes_one_place_beside_its_open_ar() {
    let now = start();
    let mut table = Table::new(1);
    let connect = |number| Connect {
        uuid: uuid(number),
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &connect(1)).unwrap();
    answer(&mut table, now, PAIR, &connect(1), 0x8002);
    for number in 2..50 {
        ask(&mut table, now, PAIR, &connect(number)).unwrap();
        assert_eq!(table.len(), 2);
    }
    let changes = answer(&mut table, now, PAIR, &connect(49), 0x8002);
    assert_eq!(why(&changes)[0], Some(Ended::Replaced));
    assert_eq!(table.len(), 1);
}

#[test]
fn who_an_ar_belongs_to_is_known_to_others_only_as_such() {
    let now = start();
    let (table, _) = open(now);
    let uuid = Connect::default().uuid;
    let other = Pair {
        controller: Mac([2, 0, 0, 0, 1, 9]),
        ..PAIR
    };
    assert!(table.is_of_others(other, Uuid(uuid)));
    assert!(!table.is_of_others(PAIR, Uuid(uuid)));
}

#[test]
fn silence_ends_an_ar_when_it_has_lasted() {
    let now = start();
    let second = Duration::from_secs(1);
    let mut table = Table::new(4);
    assert_eq!(table.poll_timeout(), None);
    ask(&mut table, now, PAIR, &Connect::default()).unwrap();
    assert_eq!(table.poll_timeout(), Some(now + 30 * second));
    let changes = table.handle_timeout(now + 30 * second);
    assert!(matches!(why(&changes)[..], [Some(Ended::Silent(_))]));
    let (mut table, _) = open(now);
    assert_eq!(table.poll_timeout(), Some(now + 10 * second));
    to_device(&mut table, now + 9 * second, 0x8002).unwrap();
    assert!(table.handle_timeout(now + 18 * second).is_empty());
    let changes = table.handle_timeout(now + 19 * second);
    assert_eq!(why(&changes), [Some(Ended::Silent(10 * second))]);
    // Of records only: as long as the Connect says, 60 s here, but 120 s at least.
    let records = Connect {
        iocrs: vec![],
        ..Connect::default()
    };
    ask(&mut table, now, PAIR, &records).unwrap();
    answer(&mut table, now, PAIR, &records, 0);
    assert_eq!(table.poll_timeout(), Some(now + 120 * second));
}

#[test]
fn what_a_tunnel_can_not_carry_is_told_by_the_block_at_fault() {
    let good = Connect::default();
    let alter = |iocrs: &[(u16, u16, u16)]| Connect {
        iocrs: iocrs.to_vec(),
        ..good.clone()
    };
    let judge = |connect: &Connect| with_request(connect, |request| check(request, CONTROLLER));
    assert_eq!(judge(&good), Ok(()));
    let multicast = Unfit::Multicast { reference: 1 };
    assert_eq!(judge(&alter(&[(3, 1, 0xbc00)])), Err(multicast));
    assert_eq!(
        judge(&alter(&[(1, 1, 0x0100)])),
        Err(Unfit::Irt { reference: 1 })
    );
    let open = Unfit::FrameId {
        reference: 1,
        frame_id: ASSIGNED_BY_DEVICE,
    };
    assert_eq!(judge(&alter(&[(1, 1, 0xffff)])), Err(open));
    // A FrameID belongs to its consumer.
    for both in [0x8000, 0xc000, 0xc001] {
        assert_eq!(judge(&alter(&[(1, 1, both), (2, 2, both)])), Ok(()));
    }
    for kind in [1, 2] {
        let twice = [(kind, 1, 0xc001), (kind, 2, 0xc001)];
        assert_eq!(judge(&alter(&twice)), Err(Unfit::SameIocr));
    }
    let twice = [(1, 1, 0xc001), (2, 1, 0xffff)];
    assert_eq!(judge(&alter(&twice)), Err(Unfit::SameIocr));
    let many: Vec<_> = (0..9).map(|number| (2, number, 0xffff)).collect();
    assert_eq!(judge(&alter(&many)), Err(Unfit::TooManyIocrs));
    assert_eq!(judge(&alter(&many[1..])), Ok(()));
    let irt = Connect {
        ar_type: 0x10,
        ..good.clone()
    };
    assert_eq!(judge(&irt), Err(Unfit::ArType { code: 0x10 }));
    let named = Mac([2, 0, 0, 0, 0, 9]);
    let foreign = Connect { mac: named, ..good };
    let from = CONTROLLER;
    assert_eq!(judge(&foreign), Err(Unfit::InitiatorMac { named, from }));
}

proptest! {
    /// Whatever comes in whatever order: bounds hold, and every way of a frame leads to an AR.
    #[test]
    fn a_table_holds_together(steps in prop::collection::vec((0u8..9, 0u8..3, 0u16..3, any::<bool>()), 0..60)) {
        let mut now = start();
        let mut table = Table::new(2);
        for (step, number, session_key, other) in steps {
            let pair = if other { OTHER } else { PAIR };
            let connect = Connect { uuid: uuid(number), session_key, ..Connect::default() };
            let uuid = Uuid(connect.uuid);
            match step {
                0 | 1 => drop(ask(&mut table, now, pair, &connect)),
                2 | 3 => drop(answer(&mut table, now, pair, &connect, 0x8002 + session_key)),
                4 => drop(answer_with(&mut table, now, pair, (session_key, connect.uuid), (0xdb81_4004, &[]))),
                5 => drop(table.releasing(now, pair, uuid)),
                6 => drop(table.released(now, pair, uuid)),
                7 => drop(table.ready(now, pair, uuid)),
                _ => {
                    now += Duration::from_secs(u64::from(number) * 7);
                    drop(table.handle_timeout(now));
                }
            }
            prop_assert!(table.len() <= 4);
            for id in [0xc001, 0x8002, 0x8003, 0x8004] {
                for controller in [PAIR.controller, OTHER.controller] {
                    if let Ok((ar, cr)) = table.cyclic(now, controller, DEVICE, FrameId(id)) {
                        prop_assert_eq!(ar.crs[cr].frame_id, Some(FrameId(id)));
                        prop_assert!(ar.phase != Phase::Connecting && ar.phase != Phase::Releasing);
                        prop_assert_eq!(ar.pair.controller, controller);
                    }
                }
            }
        }
    }
}
