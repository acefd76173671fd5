//! What a gateway that refuses a request says to the one who asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use fieldlock_profinet::cm::{opnum, refuse};
use fieldlock_profinet::rpc::Rpc;
use fieldlock_profinet::status::PnioStatus;
use fieldlock_profinet::{Frame, Mac, eth};

/// Operation, the block that asks for it, the status, and tshark's words for that and the block that
/// comes back.
type Case = (u16, u16, [u8; 4], &'static [&'static str]);

const CASES: [Case; 9] = [
    (
        opnum::CONNECT,
        0x0101,
        [0xdb, 0x81, 0x40, 4],
        &["\"IODConnectRes\", \"PNIO\", \"CMRPC\", \"Out of AR Resources\""],
    ),
    (
        opnum::CONNECT,
        0x0101,
        [0xdb, 0x81, 2, 7],
        &["\"IODConnectRes\", \"PNIO\", \"Connect: Faulty IOCRBlockReq\""],
    ),
    (
        opnum::CONNECT,
        0x0101,
        [0xdb, 0x81, 1, 7],
        &["\"IODConnectRes\", \"PNIO\", \"Connect: Faulty ARBlockReq\""],
    ),
    (
        opnum::RELEASE,
        0x0114,
        [0xdc, 0x81, 0x40, 5],
        &["\"IODReleaseRes\", \"PNIO\", \"CMRPC\", \"AR UUID unknown\""],
    ),
    (
        opnum::CONTROL,
        0x0110,
        [0xdd, 0x81, 0x40, 5],
        &["\"IODControlRes\", \"PNIO\", \"CMRPC\", \"AR UUID unknown\""],
    ),
    (
        opnum::READ,
        0x0009,
        [0xde, 0x80, 0xb6, 0],
        &[
            "\"IODReadRes\", \"PNIORW\", \"access: access denied\"",
            "IODReadResHeader",
        ],
    ),
    (
        opnum::READ,
        0x0009,
        [0xde, 0x81, 0x40, 5],
        &[
            "\"IODReadRes\", \"PNIO\", \"CMRPC\", \"AR UUID unknown\"",
            "IODReadResHeader",
        ],
    ),
    (
        opnum::READ_IMPLICIT,
        0x0009,
        [0xde, 0x80, 0xb6, 0],
        &["access: access denied", "IODReadResHeader"],
    ),
    (
        opnum::WRITE,
        0x0008,
        [0xdf, 0x80, 0xb6, 0],
        &["access: access denied", "IODWriteResHeader"],
    ),
];

#[test]
fn every_refusal_is_read_by_tshark_as_the_status_that_it_carries() {
    let Some(tshark) = crate::tshark() else {
        return;
    };
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for little in [false, true] {
        for (operation, kind, status, words) in CASES {
            let sequence = expected.len() as u32;
            let request = request(little, sequence, operation, kind);
            let status = PnioStatus::from_octets(status);
            let refusal = refuse::response(&Rpc::parse(&request).unwrap(), status).unwrap();
            frames.push(frame(&refusal));
            expected.push((little, operation, words));
        }
    }
    let file = tempfile::Builder::new().suffix(".pcap").tempfile().unwrap();
    fs::write(file.path(), crate::pcap(&frames)).unwrap();
    let texts = texts(&tshark, file.path());
    assert_eq!(texts.len(), frames.len());
    for (text, (little, operation, words)) in texts.iter().zip(expected) {
        let place = format!("operation {operation}, little-endian: {little}\n{text}");
        // That it has seen no request is a note.
        for complaint in ["malformed", "severity level: error", "severity level: warn"] {
            assert!(!text.to_lowercase().contains(complaint), "{place}");
        }
        let order = if little { "Little" } else { "Big" };
        assert!(text.contains(&format!("{order}-endian")), "{place}");
        assert!(text.contains("Packet type: Response"), "{place}");
        for word in words {
            assert!(text.contains(word), "{word:?} is missing, {place}");
        }
    }
}

/// A request of 8 octets of data at most, about slot 1, subslot 2, record 7.
fn request(little: bool, sequence: u32, operation: u16, kind: u16) -> Vec<u8> {
    let mut blocks = kind.to_be_bytes().to_vec();
    blocks.extend([0, 60, 1, 0, 0, 9]);
    blocks.extend([0xab; 16]);
    blocks.extend([0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 7, 0, 0, 0, 8]);
    blocks.resize(64, 0);
    if kind == 0x0008 {
        blocks.extend([0x55; 8]);
    }
    let u16 = |number: u16| match little {
        true => number.to_le_bytes(),
        false => number.to_be_bytes(),
    };
    let u32 = |number: u32| match little {
        true => number.to_le_bytes(),
        false => number.to_be_bytes(),
    };
    let length = blocks.len() as u32;
    let mut out = vec![4, 0, 0x20, 0, if little { 0x10 } else { 0 }, 0, 0, 0];
    // Object, interface of devices, activity.
    for (start, end) in [(0xdea0_0000, 1), (0xdea0_0001, 0xdf7d), (0xa0a1_a2a3, 2)] {
        out.extend(u32(start));
        out.extend(u16(0x6c97));
        out.extend(u16(0x11d1));
        out.extend([0x82, 0x71, 0x00, 0xa0, 0x24, 0x42]);
        out.extend(u16::to_be_bytes(end));
    }
    for number in [7, 1, sequence].map(u32) {
        out.extend(number);
    }
    for number in [operation, 0xffff, 0xffff, 20 + length as u16, 0] {
        out.extend(u16(number));
    }
    out.extend([0, 0]);
    for number in [4096, length, 4096, 0, length].map(u32) {
        out.extend(number);
    }
    out.extend(blocks);
    out
}

/// An answer on its way from the port of connection management.
fn frame(payload: &[u8]) -> Vec<u8> {
    let udp = 8 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    let sum: u32 = ip
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    for number in [34964, 49_155, udp, 0] {
        ip.extend(u16::to_be_bytes(number));
    }
    ip.extend(payload);
    let frame = Frame {
        dst: Mac([2, 0, 0, 0, 0, 1]),
        src: Mac([2, 0, 0, 0, 0, 2]),
        tag: None,
        ethertype: eth::IPV4,
        payload: &ip,
    };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// All that tshark says, frame by frame.
fn texts(tshark: &Path, file: &Path) -> Vec<String> {
    let output = Command::new(tshark)
        .args(["-n", "-V", "-o", "ip.check_checksum:TRUE", "-r"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split("\nFrame ").map(str::to_owned).collect()
}
