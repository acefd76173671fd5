use proptest::prelude::*;

use super::*;
use crate::testing::{FRAGMENT, LAST, Pdu};

#[test]
fn a_header_says_the_same_in_both_byte_orders() {
    for order in [Order::Big, Order::Little] {
        let pdu = Pdu {
            order,
            flags1: 0x20 | FRAGMENT | LAST,
            activity: 0x7e,
            sequence: 0x0102_0304,
            opnum: 0x0506,
            fragment: 0x0708,
            ..Pdu::request(0, b"body")
        };
        let rpc = pdu.rpc();
        assert_eq!((rpc.order, rpc.ptype), (order, PacketType::Request));
        assert_eq!(rpc.interface, Interface::Device);
        assert_eq!(
            rpc.activity.to_string(),
            "a0a1a2a3-6c97-11d1-8271-00a02442007e"
        );
        assert_eq!(
            rpc.object.to_string(),
            "dea00000-6c97-11d1-8271-00a024420001"
        );
        assert_eq!((rpc.server_boot, rpc.sequence), (7, 0x0102_0304));
        assert_eq!((rpc.opnum, rpc.fragment), (0x0506, 0x0708));
        assert_eq!(rpc.serial, 0x1234);
        assert!(rpc.is_fragment() && rpc.is_last());
        assert_eq!(rpc.body, b"body");
    }
}

#[test]
fn interfaces_are_told_by_the_whole_of_their_uuid() {
    let cases = [
        (27, 1, Interface::Device),
        (27, 2, Interface::Controller),
        (27, 3, Interface::Supervisor),
        (27, 4, Interface::ParameterServer),
    ];
    for (at, octet, interface) in cases {
        let mut bytes = Pdu::request(0, &[]).bytes();
        bytes[at] = octet;
        assert_eq!(Rpc::parse(&bytes).unwrap().interface, interface);
    }
    for at in 24..40 {
        let mut bytes = Pdu::request(0, &[]).bytes();
        bytes[at] ^= 0x40;
        let interface = Rpc::parse(&bytes).unwrap().interface;
        assert!(matches!(interface, Interface::Other(_)), "octet {at}");
    }
}

#[test]
fn what_is_no_pdu_of_this_protocol_is_refused() {
    let good = Pdu::request(0, b"body").bytes();
    let cases = [
        (0, 5, RpcError::Version(5)),
        (1, 11, RpcError::Type(11)),
        // Some would look at the low five bits alone.
        (1, 0x20, RpcError::Type(0x20)),
        (4, 0x20, RpcError::Representation(0x20)),
        (4, 0x01, RpcError::Representation(0x01)),
        (75, 3, RpcError::Length { got: 3, has: 4 }),
        (75, 5, RpcError::Length { got: 5, has: 4 }),
        (78, 1, RpcError::Authentication(1)),
    ];
    for (at, octet, error) in cases {
        let mut bytes = good.clone();
        bytes[at] = octet;
        assert_eq!(Rpc::parse(&bytes), Err(error));
    }
    assert_eq!(Rpc::parse(&good[..HEADER - 1]), Err(RpcError::Short));
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_read_is_all_there(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(rpc) = Rpc::parse(&bytes) {
            prop_assert_eq!(rpc.body, &bytes[HEADER..]);
        }
    }

    #[test]
    fn a_pdu_with_one_octet_changed_is_refused_or_read_whole(
        at in 0usize..84,
        octet in any::<u8>(),
        little in any::<bool>(),
    ) {
        let order = if little { Order::Little } else { Order::Big };
        let mut bytes = Pdu { order, ..Pdu::request(0, b"body") }.bytes();
        bytes[at] = octet;
        if let Ok(rpc) = Rpc::parse(&bytes) {
            prop_assert_eq!(rpc.body.len(), 4);
        }
    }

    #[test]
    fn an_answer_belongs_to_its_call(little in any::<bool>(), sequence in any::<u32>(), opnum in 0u16..6, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let order = if little { Order::Little } else { Order::Big };
        let asked = Pdu { order, sequence, flags1: FRAGMENT | LAST, fragment: 3, ..Pdu::request(opnum, &[]) }.rpc();
        let mut out = Vec::new();
        asked.put_answer(&mut out, 2, &body);
        let answer = Rpc::parse(&out).unwrap();
        prop_assert_eq!(answer.ptype, PacketType::Response);
        prop_assert_eq!((answer.order, answer.activity, answer.sequence, answer.opnum), (order, asked.activity, sequence, opnum));
        prop_assert_eq!((answer.object, answer.interface), (asked.object, asked.interface));
        prop_assert!(!answer.is_fragment());
        prop_assert_eq!((answer.fragment, answer.body), (0, &body[..]));
    }
}
