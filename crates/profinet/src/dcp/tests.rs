use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::mac::Mac;
use crate::name::{NameError, StationName};

/// A PDU of service 4 or others, with these blocks.
fn pdu(id: u8, kind: u8, blocks: &[u8]) -> Vec<u8> {
    let mut out = vec![id, kind, 0, 0, 0, 7, 0, 1];
    out.extend((blocks.len() as u16).to_be_bytes());
    out.extend(blocks);
    out
}

fn services(id: u8, kind: u8, blocks: &[u8]) -> Result<Vec<Service>, DcpError> {
    Pdu::parse(&pdu(id, kind, blocks))?
        .services()
        .map(Iterator::collect)
}

const SET_NAME: &[u8] = b"\x02\x02\0\x04\0\x01ab";
const SET_IP: &[u8] = b"\x01\x02\0\x0e\0\x01\x0a\0\0\x01\xff\xff\xff\0\x0a\0\0\xfe";
const STOP: &[u8] = b"\x05\x02\0\x02\0\0";
const BLINK: &[u8] = b"\x05\x03\0\x04\0\0\x01\0";
const RESET: &[u8] = b"\x05\x06\0\x02\0\x04";

#[test]
fn a_station_is_asked_for_by_its_name() {
    for (name, delay_factor, expected) in [("drive-1", 1, 1), ("ab", 0, 1), ("a.b", 9999, 6400)] {
        let request = identify_request(&name.parse().unwrap(), 7, delay_factor);
        assert_eq!(request[..2], FrameId::DCP_IDENTIFY.0.to_be_bytes());
        let pdu = Pdu::parse(&request[2..]).unwrap();
        assert_eq!((pdu.xid, pdu.delay_factor), (7, expected));
        assert_eq!(pdu.frame_id(), FrameId::DCP_IDENTIFY);
        assert_eq!(request.len(), 2 + HEADER + pdu.blocks.len());
        let blocks: Vec<_> = pdu.blocks().collect();
        let [Ok(block)] = blocks[..] else {
            panic!("{blocks:?}")
        };
        assert_eq!(block.value(), Ok(Value::Name(Text(name.as_bytes()))));
    }
}

#[test]
fn services_exist_in_requests_and_responses_of_their_own() {
    for id in 0..=255 {
        for kind in 0..=255 {
            let exists = matches!((id, kind), (3 | 4, 0 | 1 | 5) | (5, 0 | 1) | (6, 0));
            let parsed = Pdu::parse(&pdu(id, kind, &[])).map(drop);
            let expected = match exists {
                true => Ok(()),
                false => Err(DcpError::Service { id, kind }),
            };
            assert_eq!(parsed.is_ok(), exists, "{id} {kind}");
            assert_eq!(parsed, expected);
        }
    }
    let blocks = Err(DcpError::UnsupportedWithBlocks(2));
    assert_eq!(Pdu::parse(&pdu(3, 5, &[1, 2])), blocks);
}

#[test]
fn the_length_of_the_data_is_within_the_frame_and_padding_behind_it() {
    let mut bytes = pdu(3, 0, &[2, 2, 1, 2]);
    let whole = bytes.len();
    for end in 0..whole {
        assert_eq!(Pdu::parse(&bytes[..end]), Err(DcpError::Short));
    }
    bytes.resize(46, 0xee);
    assert_eq!(Pdu::parse(&bytes).unwrap().blocks, [2, 2, 1, 2]);
}

#[test]
fn delay_factors_have_their_range() {
    for (factor, right) in [(0, false), (1, true), (0x1900, true), (0x1901, false)] {
        let mut bytes = pdu(5, 0, &[0xff, 0xff, 0, 0]);
        bytes[6..8].copy_from_slice(&u16::to_be_bytes(factor));
        let expected = match right {
            true => Ok(factor),
            false => Err(DcpError::DelayFactor(factor)),
        };
        assert_eq!(Pdu::parse(&bytes).map(|pdu| pdu.delay_factor), expected);
    }
    assert_eq!(Pdu::parse(&pdu(4, 0, STOP)).unwrap().delay_factor, 0);
}

#[test]
fn a_set_needs_the_service_of_each_of_its_blocks() {
    use Service::{Reset, SetIp, SetName, SetOther, Signal};
    let alias: &[u8] = b"\x02\x06\0\x04\0\0ab";
    let factory: &[u8] = b"\x05\x05\0\x02\0\0";
    let dhcp: &[u8] = b"\x03\x3d\0\x04\0\0\0\x01";
    let start: &[u8] = b"\x05\x01\0\x02\0\0";
    for (blocks, expected) in [
        (vec![SET_NAME], vec![SetName]),
        (vec![start, SET_NAME, SET_IP, STOP], vec![SetIp, SetName]),
        (vec![BLINK], vec![Signal]),
        (vec![BLINK, RESET], vec![Signal, Reset]),
        (vec![factory], vec![Reset]),
        (vec![alias], vec![SetOther]),
        (vec![dhcp, BLINK], vec![Signal, SetOther]),
        (vec![start, STOP], vec![SetOther]),
        (vec![], vec![SetOther]),
    ] {
        assert_eq!(services(4, 0, &blocks.concat()), Ok(expected));
    }
    let broken = [BLINK, &SET_NAME[..7]].concat();
    let name = DcpError::BlockLength(BlockId::NAME);
    assert_eq!(services(4, 0, &broken), Err(name));
}

#[test]
fn a_response_to_a_set_needs_what_it_says_was_set() {
    let results = b"\x05\x04\0\x03\x02\x02\0\0\x05\x04\0\x03\x05\x02\0\0";
    assert_eq!(services(4, 1, results), Ok(vec![Service::SetName]));
    assert_eq!(services(4, 1, &results[8..]), Ok(vec![Service::SetOther]));
    assert_eq!(services(4, 5, &[]), Ok(vec![Service::SetOther]));
}

#[test]
fn other_services_are_themselves() {
    assert_eq!(services(3, 0, &[2, 2]), Ok(vec![Service::Get]));
    let all = [0xff, 0xff, 0, 0];
    assert_eq!(services(5, 0, &all), Ok(vec![Service::Identify]));
    assert_eq!(services(6, 0, &[]), Ok(vec![Service::Hello]));
}

#[test]
fn blocks_of_a_wrong_length_are_refused_by_name() {
    for (id, length) in [
        (BlockId::MAC, 6),
        (BlockId::IP, 12),
        (BlockId::FULL_IP, 28),
        (BlockId::DEVICE_ID, 4),
        (BlockId::ROLE, 2),
        (BlockId::INSTANCE, 2),
        (BlockId::OEM_ID, 4),
        (BlockId::GATEWAY, 4),
        (BlockId::START, 0),
        (BlockId::STOP, 0),
        (BlockId::SIGNAL, 2),
        (BlockId::FACTORY_RESET, 0),
        (BlockId::RESET_TO_FACTORY, 0),
        (BlockId::INITIATIVE, 2),
        (BlockId::ALL, 0),
    ] {
        for data in 0..40_u8 {
            let mut block = vec![id.option, id.suboption, 0, data + 2, 0, 0];
            block.resize(6 + usize::from(data), 0);
            let bytes = pdu(4, 0, &block);
            let expected = match data == length {
                true => Ok(()),
                false => Err(DcpError::BlockLength(id)),
            };
            assert_eq!(Pdu::parse(&bytes).unwrap().check(), expected, "{id} {data}");
        }
    }
    for odd in [0_u8, 1, 2, 3] {
        let mut block = vec![2, 5, 0, odd + 2, 0, 0];
        block.resize(6 + usize::from(odd), 2);
        let bytes = pdu(3, 1, &block);
        assert_eq!(Pdu::parse(&bytes).unwrap().check().is_ok(), odd % 2 == 0);
    }
}

#[test]
fn blocks_end_behind_the_first_that_is_broken() {
    for (blocks, error) in [
        (&b"\x02"[..], DcpError::Short),
        (b"\x02\x02\0", DcpError::Short),
        (
            b"\x02\x02\0\x05\0\0ab",
            DcpError::BlockLength(BlockId::NAME),
        ),
        (b"\x02\x02\0\x01\0", DcpError::BlockLength(BlockId::NAME)),
        (b"\x02\x02\0\0", DcpError::BlockLength(BlockId::NAME)),
    ] {
        let blocks = [BLINK, blocks].concat();
        let bytes = pdu(4, 0, &blocks);
        let read: Vec<_> = Pdu::parse(&bytes).unwrap().blocks().collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], Err(error));
    }
}

#[test]
fn a_station_says_who_it_is() {
    let ip = &b"\x01\x02\0\x0e\0\x01\xc0\xa8\x01\x02\xff\xff\xff\0\xc0\xa8\x01\x01"[..];
    let name = &b"\x02\x02\0\x05\0\0abc\0"[..];
    let blocks = [
        name,
        b"\x02\x01\0\x06\0\0ET\x01\xff",
        b"\x02\x03\0\x06\0\0\0\x2a\x03\x13",
        b"\x02\x04\0\x04\0\0\x01\0",
        b"\x02\x06\0\x04\0\0p1\x02\x06\0\x04\0\0p2",
        b"\x01\x01\0\x08\0\0\x02\0\0\0\0\x05",
        b"\x02\x05\0\x04\0\0\x02\x01",
        b"\x80\x01\0\x03\0\0\x09\0",
        ip,
    ]
    .concat();
    let bytes = pdu(5, 1, &blocks);
    let identity = Identity::read(&Pdu::parse(&bytes).unwrap()).unwrap();
    let expected = Identity {
        name: Some(Text(b"abc")),
        mac: Some(Mac([2, 0, 0, 0, 0, 5])),
        ip: Some(IpSuite {
            address: Ipv4Addr::new(192, 168, 1, 2),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: Ipv4Addr::new(192, 168, 1, 1),
        }),
        vendor_id: Some(0x2a),
        device_id: Some(0x313),
        role: Some(1),
        alias: Some(Text(b"p1")),
        vendor: Some(Text(b"ET\x01\xff")),
    };
    assert_eq!(identity, expected);
    assert_eq!(identity.vendor.unwrap().to_string(), r"ET\x01\xff");
    let station = "abc".parse().unwrap();
    assert!(expected.name.unwrap().is(&station));
    assert_eq!(expected.name.unwrap().station_name(), Ok(station));

    for (twice, id) in [(name, BlockId::NAME), (ip, BlockId::IP)] {
        let bytes = pdu(5, 1, &[&blocks[..], twice].concat());
        let pdu = Pdu::parse(&bytes).unwrap();
        assert_eq!(Identity::read(&pdu), Err(DcpError::Repeated(id)));
    }
}

#[test]
fn names_that_are_none_stay_text() {
    for (octets, error) in [
        (&b""[..], NameError::Length(0)),
        (b"Drive", NameError::Character('D')),
        (b"a\0", NameError::Character('\0')),
        (b"a\xff", NameError::Character('\u{fffd}')),
    ] {
        assert_eq!(Text(octets).station_name(), Err(error));
    }
}

#[test]
fn errors_of_blocks_keep_their_codes() {
    for code in 0..=255 {
        assert_eq!(BlockError::from_code(code).code(), code);
    }
}

proptest! {
    /// Whatever the bytes: blocks lie within the PDU, one behind the other.
    #[test]
    fn no_bytes_panic(
        head in prop::sample::select(vec![(3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1), (6, 0)]),
        blocks in prop::collection::vec(
            prop_oneof![0u8..9, Just(0xff), any::<u8>()], 0..80),
    ) {
        let bytes = pdu(head.0, head.1, &blocks);
        let pdu = Pdu::parse(&bytes).unwrap();
        prop_assert_eq!(pdu.blocks, &blocks[..]);
        let read: Vec<_> = pdu.blocks().collect();
        let size: usize = read.iter().flatten().map(|block| 2 + block.data.len()).sum();
        prop_assert!(size <= blocks.len());
        prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        let sound = pdu.check();
        if sound.is_ok() {
            prop_assert!(pdu.services().unwrap().count() > 0);
        }
        if Identity::read(&pdu).is_ok() {
            prop_assert_eq!(sound, Ok(()));
        }
    }

    #[test]
    fn any_name_can_be_asked_for(name in "[a-z0-9]{1,30}(\\.[a-z0-9]{1,30}){0,6}", xid: u32) {
        let name: StationName = name.parse().unwrap();
        let request = identify_request(&name, xid, 1);
        let pdu = Pdu::parse(&request[2..]).unwrap();
        let identity = Identity::read(&pdu).unwrap();
        prop_assert_eq!(pdu.xid, xid);
        prop_assert!(identity.name.unwrap().is(&name));
    }
}

#[test]
fn a_set_without_a_value_is_not_sound_and_says_what_it_tried() {
    let bytes = pdu(4, 0, &[5, 3, 0, 2, 0, 0]);
    let pdu = Pdu::parse(&bytes).unwrap();
    assert_eq!(pdu.check(), Err(DcpError::BlockLength(BlockId::SIGNAL)));
    assert_eq!(pdu.attempts().collect::<Vec<_>>(), [Service::Signal]);
}
