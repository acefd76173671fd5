use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::frame_id::FrameId;
use crate::service::ArType;
use crate::testing::{AR_UUID, CONTROLLER, Connect, DEVICE, Pdu, block, control, ndr, record};

const ORDERS: [Order; 2] = [Order::Big, Order::Little];

fn request(order: Order, opnum: u16, blocks: &[u8]) -> Result<Message<'static>, CmError> {
    let body = ndr(order, 4096, blocks);
    let pdu = Pdu {
        order,
        ..Pdu::request(opnum, &body)
    };
    let rpc = pdu.rpc();
    Message::parse(&rpc, rpc.body)
}

fn response(
    order: Order,
    opnum: u16,
    status: u32,
    blocks: &[u8],
) -> Result<Message<'static>, CmError> {
    let body = ndr(order, status, blocks);
    let pdu = Pdu {
        order,
        ..Pdu::response(opnum, &body)
    };
    let rpc = pdu.rpc();
    Message::parse(&rpc, rpc.body)
}

fn connect(blocks: &[u8]) -> Result<ConnectRequest<'static>, CmError> {
    request(Order::Big, opnum::CONNECT, blocks).map(|message| match message {
        Message::ConnectRequest(connect) => connect,
        other => panic!("{other:?}"),
    })
}

/// Everything that can be asked of a message, so that a fault shows.
fn walk(message: &Message<'_>) {
    match message {
        Message::ConnectRequest(connect) => {
            let _ = connect.ar().name();
            for iocr in connect.iocrs() {
                let length = iocr.data_length;
                for api in iocr.apis() {
                    assert!(api.data.chain(api.status).all(|at| at.offset < length));
                }
                let _ = (iocr.cycle(), iocr.watchdog(), iocr.data_hold());
            }
            let _ = (connect.expected().count(), connect.others().count());
        }
        Message::ConnectResponse(answer) => {
            let _ = (answer.iocrs().count(), answer.modules_differ());
        }
        Message::WriteRequest(write) => {
            assert!(write.items().next().is_some());
        }
        Message::WriteResponse(written) => {
            let _ = written.items().count();
        }
        _ => {}
    }
}

#[test]
fn a_connect_says_what_it_asks_for_in_both_byte_orders() {
    for order in ORDERS {
        let message = request(order, opnum::CONNECT, &Connect::default().blocks());
        let Ok(Message::ConnectRequest(connect)) = message else {
            panic!("{message:?}")
        };
        let ar = connect.ar();
        assert_eq!(
            (ar.ar_type, ar.ar_uuid),
            (ArType::IoController, Uuid(AR_UUID))
        );
        assert_eq!((ar.session_key, ar.mac), (1, CONTROLLER));
        assert_eq!(
            (ar.properties.state(), ar.properties.device_access()),
            (1, false)
        );
        assert!(ar.properties.initiator_sets_parameters());
        assert_eq!((ar.activity_timeout_100ms, ar.udp_rt_port), (600, 0x8892));
        assert_eq!(ar.name(), Some("plc-1".parse().unwrap()));
        let iocrs: Vec<_> = connect.iocrs().collect();
        let [input, output] = iocrs[..] else {
            panic!("{iocrs:?}")
        };
        assert_eq!(
            (input.kind, output.kind),
            (IocrKind::Input, IocrKind::Output)
        );
        assert_eq!((input.reference, output.reference), (1, 2));
        assert_eq!(
            (input.frame_id, output.frame_id),
            (FrameId(0xc001), FrameId(0xffff))
        );
        assert_eq!(
            (input.data_length, input.rt_class(), input.lt),
            (40, 1, 0x8892)
        );
        assert_eq!(input.cycle(), Duration::from_millis(8));
        assert_eq!(input.watchdog(), Duration::from_millis(24));
        assert_eq!(input.frame_send_offset, u32::MAX);
        let apis: Vec<_> = input.apis().collect();
        let [api] = apis[..] else { panic!("{apis:?}") };
        let place = |slot, subslot, offset| IoPlace {
            slot,
            subslot,
            offset,
        };
        assert_eq!(
            api.data.collect::<Vec<_>>(),
            [place(0, 1, 0), place(1, 1, 2)]
        );
        assert_eq!(api.status.collect::<Vec<_>>(), [place(2, 1, 39)]);
        let alarm = connect.alarm_cr().unwrap();
        assert_eq!(
            (alarm.timeout_factor, alarm.retries, alarm.local_reference),
            (1, 3, 3)
        );
        assert_eq!(
            (alarm.max_data, alarm.tag_high, alarm.tag_low),
            (200, 0xc000, 0xa000)
        );
        let expected: Vec<_> = connect.expected().collect();
        let [both, neither] = expected[..] else {
            panic!("{expected:?}")
        };
        assert_eq!((both.api, both.slot, both.module), (0, 1, 0x20));
        assert_eq!(
            (both.subslot, both.submodule, both.properties),
            (1, 0x21, 3)
        );
        assert_eq!(both.input.map(|input| input.length), Some(4));
        assert_eq!(both.output.map(|output| output.length), Some(8));
        assert_eq!(
            (neither.subslot, neither.submodule, neither.output),
            (2, 0x22, None)
        );
        assert_eq!(connect.others().count(), 0);
    }
}

#[test]
fn a_connect_is_answered_with_what_the_device_assigns() {
    for order in ORDERS {
        let blocks = Connect::default().answer(&[0xc001, 0x8002], 9);
        let message = response(order, opnum::CONNECT, 0, &blocks);
        let Ok(Message::ConnectResponse(answer)) = message else {
            panic!("{message:?}")
        };
        assert!(answer.status.is_ok());
        let ar = answer.ar().unwrap();
        assert_eq!(
            (ar.ar_uuid, ar.session_key, ar.mac),
            (Uuid(AR_UUID), 1, DEVICE)
        );
        let ids: Vec<_> = answer.iocrs().map(|iocr| iocr.frame_id).collect();
        assert_eq!(ids, [FrameId(0xc001), FrameId(0x8002)]);
        assert_eq!(answer.alarm_reference(), Some(9));
        assert!(!answer.modules_differ());
        // Out of AR resources, as real devices say it: without any block.
        let message = response(order, opnum::CONNECT, 0xdb81_4004, &[]);
        let Ok(Message::ConnectResponse(answer)) = message else {
            panic!("{message:?}")
        };
        assert_eq!(answer.status.octets(), [0xdb, 0x81, 0x40, 4]);
        assert_eq!(answer.ar(), None);
    }
}

#[test]
fn lengths_in_front_of_the_blocks_must_be_those_of_what_follows() {
    let blocks = Connect::default().blocks();
    let length = blocks.len() as u32;
    for order in ORDERS {
        for (args, max, offset, actual) in [
            (length + 1, 4096, 0, length),
            (length, length - 1, 0, length),
            (length, 4096, 1, length),
            (length + 1, 4096, 0, length + 1),
            (u32::MAX, u32::MAX, 0, u32::MAX),
            (length - 8, 4096, 0, length - 8),
            (0, 0, 0, 0),
        ] {
            let mut body = Vec::new();
            for number in [4096, args, max, offset, actual] {
                order.put_u32(&mut body, number);
            }
            body.extend(&blocks);
            let pdu = Pdu {
                order,
                ..Pdu::request(opnum::CONNECT, &body)
            };
            let rpc = pdu.rpc();
            let lie = CmError::Ndr {
                args,
                max,
                offset,
                actual,
                has: blocks.len(),
            };
            assert_eq!(Message::parse(&rpc, rpc.body), Err(lie));
        }
        let mut other = Pdu::request(opnum::CONNECT, &ndr(order, 4096, &blocks));
        other.order = match order {
            Order::Big => Order::Little,
            Order::Little => Order::Big,
        };
        let rpc = other.rpc();
        let parsed = Message::parse(&rpc, rpc.body);
        assert!(matches!(parsed, Err(CmError::Ndr { .. })), "{parsed:?}");
    }
}

#[test]
fn padding_between_blocks_and_at_their_ends_means_nothing() {
    let plain = Connect::default();
    let mut padded = plain.ar();
    padded.extend([0, 0, 0]);
    for iocr in &plain.iocrs {
        padded.extend(Connect::iocr(*iocr));
        padded.push(0);
    }
    padded.extend(Connect::expected());
    padded.extend(Connect::alarm(3));
    padded.extend([0; 5]);
    let padded = connect(&padded).unwrap();
    let plain = connect(&plain.blocks()).unwrap();
    assert_eq!(padded.ar(), plain.ar());
    assert_eq!(padded.iocrs().count(), 2);
    assert_eq!(padded.expected().count(), 2);
    assert_eq!(padded.alarm_cr(), plain.alarm_cr());
    // Within a block, behind its fields.
    let mut ar = Connect::default().ar();
    ar[3] += 2;
    ar.extend([0, 0]);
    assert_eq!(connect(&ar).unwrap().ar(), plain.ar());
    *ar.last_mut().unwrap() = 1;
    assert_eq!(connect(&ar), Err(CmError::Trailing(0x0101)));
}

#[test]
fn a_connect_that_lies_about_its_blocks_is_refused() {
    let good = Connect::default();
    let iocr = Connect::iocr((1, 1, 0xc001));
    let altered = |at: usize, octet: u8| {
        let mut blocks = iocr.clone();
        blocks[at] = octet;
        [good.ar(), blocks].concat()
    };
    let cases = [
        (iocr.clone(), CmError::Missing(0x0101)),
        ([good.ar(), good.ar()].concat(), CmError::Twice(0x0101)),
        (
            [good.ar(), Connect::alarm(1), Connect::alarm(2)].concat(),
            CmError::Twice(0x0103),
        ),
        // Version, length, number of APIs, of objects, an offset behind the data.
        (altered(4, 2), CmError::Version(0x0200)),
        (
            altered(3, 1),
            CmError::Length {
                kind: 0x0102,
                length: 1,
            },
        ),
        (altered(3, 255), CmError::Short),
        (altered(45, 2), CmError::Short),
        (altered(51, 200), CmError::Short),
        (
            altered(57, 40),
            CmError::Offset {
                offset: 40,
                data_length: 40,
            },
        ),
        (
            altered(71, 40),
            CmError::Offset {
                offset: 40,
                data_length: 40,
            },
        ),
        (altered(45, 0), CmError::Trailing(0x0102)),
        ([good.ar(), vec![1]].concat(), CmError::Short),
    ];
    for (number, (blocks, error)) in cases.into_iter().enumerate() {
        assert_eq!(connect(&blocks), Err(error), "case {number}");
    }
    let mut expected = Connect::expected();
    // Three submodules where two are.
    expected[21] = 3;
    let blocks = [good.ar(), expected].concat();
    assert_eq!(connect(&blocks), Err(CmError::Short));
}

#[test]
fn other_blocks_of_a_connect_are_counted() {
    let blocks = [
        Connect::default().ar(),
        block(0x0105, b"abcd"),
        block(0x0108, b""),
    ]
    .concat();
    let connect = connect(&blocks).unwrap();
    assert_eq!(
        connect.others().collect::<Vec<_>>(),
        [(0x0105, 4), (0x0108, 0)]
    );
    assert_eq!(connect.alarm_cr(), None);
}

#[test]
fn control_blocks_go_with_their_operation() {
    for order in ORDERS {
        for kind in [0x0110, 0x0111, 0x0112, 0x0113, 0x0116, 0x0117, 0x0118] {
            let message = request(order, opnum::CONTROL, &control(kind, AR_UUID, 1));
            let Ok(Message::ControlRequest(control)) = message else {
                panic!("{message:?}")
            };
            assert_eq!((control.block, control.ar_uuid), (kind, Uuid(AR_UUID)));
            assert_eq!((control.session_key, control.command), (1, 1));
        }
        let release = control(0x0114, AR_UUID, 4);
        let message = request(order, opnum::RELEASE, &release);
        assert!(matches!(message, Ok(Message::ReleaseRequest(_))));
        // A release under the name of a control would end an AR that is taken for running.
        let wrong = CmError::Block {
            got: 0x0114,
            wanted: 0x0110,
        };
        assert_eq!(request(order, opnum::CONTROL, &release), Err(wrong));
        let wrong = CmError::Block {
            got: 0x0110,
            wanted: 0x0114,
        };
        let end = control(0x0110, AR_UUID, 1);
        assert_eq!(request(order, opnum::RELEASE, &end), Err(wrong));
        for (operation, block) in [(opnum::CONTROL, 0x8112), (opnum::RELEASE, 0x8114)] {
            let message = response(order, operation, 0, &control(block, AR_UUID, 8));
            let (Ok(Message::ControlResponse(answer)) | Ok(Message::ReleaseResponse(answer))) =
                message
            else {
                panic!("{message:?}")
            };
            assert_eq!(
                answer.control.map(|done| (done.block, done.command)),
                Some((block, 8))
            );
            assert!(response(order, operation, 0xdd81_4005, &[]).is_ok());
        }
    }
}

#[test]
fn records_are_read_and_written_where_their_header_says() {
    for order in ORDERS {
        let read = record(9, AR_UUID, 0xaff0, &[]);
        let message = request(order, opnum::READ, &read);
        let Ok(Message::ReadRequest(access)) = message else {
            panic!("{message:?}")
        };
        assert_eq!((access.sequence, access.ar_uuid), (9, Uuid(AR_UUID)));
        assert_eq!((access.api, access.slot, access.subslot), (0, 1, 2));
        assert_eq!((access.index, access.length), (0xaff0, 0));
        let message = request(order, opnum::READ_IMPLICIT, &read);
        assert_eq!(message, Ok(Message::ReadImplicitRequest(access)));
        let answer = record(0x8009, AR_UUID, 0xaff0, b"octets");
        let message = response(order, opnum::READ, 0, &answer);
        let Ok(Message::ReadResponse(answer)) = message else {
            panic!("{message:?}")
        };
        assert_eq!(answer.data, b"octets");
        let write = record(8, AR_UUID, 0x7b, b"octets");
        let message = request(order, opnum::WRITE, &write);
        let Ok(Message::WriteRequest(write)) = message else {
            panic!("{message:?}")
        };
        let items: Vec<_> = write.items().map(Result::unwrap).collect();
        let [item] = items[..] else {
            panic!("{items:?}")
        };
        assert_eq!((item.access.index, item.data), (0x7b, &b"octets"[..]));
        let mut written = record(0x8008, AR_UUID, 0x7b, &[]);
        written[44..48].copy_from_slice(&[0xdf, 0x80, 0xb6, 0]);
        let message = response(order, opnum::WRITE, 0xdf80_b600, &written);
        let Ok(Message::WriteResponse(answer)) = message else {
            panic!("{message:?}")
        };
        let items: Vec<_> = answer.items().map(|item| item.status.octets()).collect();
        assert_eq!(items, [[0xdf, 0x80, 0xb6, 0]]);
    }
}

fn multiple(items: &[u8]) -> Result<WriteRequest<'static>, CmError> {
    let blocks = record(8, AR_UUID, 0xe040, items);
    request(Order::Big, opnum::WRITE, &blocks).map(|message| match message {
        Message::WriteRequest(write) => write,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_write_of_several_records_is_seen_record_by_record() {
    let mut list = record(8, AR_UUID, 1, b"one");
    list.push(0);
    list.extend(record(8, AR_UUID, 2, b"four"));
    list.extend(record(8, AR_UUID, 3, b"twelve"));
    for padding in 0..4 {
        let mut list = list.clone();
        list.extend(vec![0; padding]);
        let write = multiple(&list).unwrap();
        let items: Vec<_> = write.items().collect();
        let seen: Vec<_> = items
            .iter()
            .flatten()
            .map(|item| (item.access.index, item.data))
            .collect();
        assert_eq!(seen, [(1, &b"one"[..]), (2, b"four"), (3, b"twelve")]);
        assert_eq!(items.len(), if padding == 3 { 4 } else { 3 });
    }
}

#[test]
fn a_write_of_several_records_can_hide_none() {
    let one = record(8, AR_UUID, 1, b"four");
    assert_eq!(multiple(&[]), Err(CmError::Missing(8)));
    let nested = record(8, AR_UUID, 0xe040, &one);
    let last = |list: &[u8]| multiple(list).unwrap().items().last().unwrap();
    assert_eq!(
        last(&[one.clone(), nested].concat()),
        Err(CmError::Twice(8))
    );
    let mut long = one.clone();
    long[39] = 5;
    assert_eq!(last(&long), Err(CmError::Short));
    // A header of another length: the record would begin elsewhere for the device.
    let mut header = record(8, AR_UUID, 1, &[0; 8]);
    header[3] = 64;
    let wrong = CmError::Length {
        kind: 8,
        length: 64,
    };
    assert_eq!(last(&header), Err(wrong));
    let read = record(9, AR_UUID, 1, &[]);
    let wrong = CmError::Block { got: 9, wanted: 8 };
    assert_eq!(last(&[one, read].concat()), Err(wrong));
}

/// Messages of every kind.
fn samples() -> Vec<(bool, u16, Vec<u8>)> {
    let connect = Connect::default();
    let one = record(8, AR_UUID, 1, b"four");
    vec![
        (true, opnum::CONNECT, connect.blocks()),
        (false, opnum::CONNECT, connect.answer(&[0xc001, 0x8002], 9)),
        (true, opnum::RELEASE, control(0x0114, AR_UUID, 4)),
        (true, opnum::CONTROL, control(0x0110, AR_UUID, 1)),
        (false, opnum::CONTROL, control(0x8110, AR_UUID, 8)),
        (true, opnum::READ, record(9, AR_UUID, 0xaff0, &[])),
        (
            false,
            opnum::READ,
            record(0x8009, AR_UUID, 0xaff0, &[7; 20]),
        ),
        (
            true,
            opnum::WRITE,
            record(8, AR_UUID, 0xe040, &[one.clone(), one].concat()),
        ),
        (false, opnum::WRITE, record(0x8008, AR_UUID, 1, &[])),
    ]
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused_or_ends_between_blocks() {
    for (asks, operation, blocks) in samples() {
        for length in 0..blocks.len() {
            let cut = &blocks[..length];
            let message = match asks {
                true => request(Order::Big, operation, cut),
                false => response(Order::Big, operation, 0, cut),
            };
            if let Ok(message) = message {
                walk(&message);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        little in any::<bool>(),
        ptype in 0u8..4,
        operation in 0u16..7,
        body in prop::collection::vec(any::<u8>(), 0..300),
        framed in any::<bool>(),
    ) {
        let order = if little { Order::Little } else { Order::Big };
        let body = if framed { ndr(order, 0, &body) } else { body };
        let rpc = Pdu { order, ptype, ..Pdu::request(operation, &body) }.rpc();
        if let Ok(message) = Message::parse(&rpc, rpc.body) {
            walk(&message);
        }
    }

    #[test]
    fn a_message_with_octets_changed_is_refused_or_read_whole(
        sample in 0usize..9,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (asks, operation, mut blocks) = samples().swap_remove(sample);
        for (at, octet) in changes {
            let at = at.index(blocks.len());
            blocks[at] = octet;
        }
        let message = match asks {
            true => request(Order::Little, operation, &blocks),
            false => response(Order::Little, operation, 0, &blocks),
        };
        if let Ok(message) = message {
            walk(&message);
        }
    }
}

#[test]
fn a_refusal_is_an_answer_with_the_status_in_the_order_of_its_request() {
    let status = PnioStatus::from_octets([0xdf, 0x80, 0xb6, 0]);
    for order in ORDERS {
        for (asks, operation, blocks) in samples() {
            let body = ndr(order, 4096, &blocks);
            let pdu = Pdu {
                order,
                ptype: if asks { 0 } else { 2 },
                ..Pdu::request(operation, &body)
            };
            let refusal = refuse::response(&pdu.rpc(), status);
            let Some(refusal) = refusal else {
                assert!(!asks);
                continue;
            };
            let rpc = Rpc::parse(&refusal).unwrap();
            assert_eq!((rpc.order, rpc.opnum), (order, operation));
            let got = match Message::parse(&rpc, rpc.body).unwrap() {
                Message::ConnectResponse(answer) => answer.status,
                Message::ReleaseResponse(answer) | Message::ControlResponse(answer) => {
                    answer.status
                }
                Message::ReadResponse(answer) => {
                    assert_eq!(answer.access.map(|access| access.index), Some(0xaff0));
                    answer.status
                }
                Message::WriteResponse(answer) => {
                    assert!(answer.items().all(|item| item.status == status));
                    answer.status
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(got, status);
        }
    }
}
