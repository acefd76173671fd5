//! Frames that no capture has.

use fieldlock_profinet::dcp::identify_request;
use fieldlock_profinet::{Frame, Mac, Tag, eth};

/// FrameID and PDU of DCP. Written by hand from the standard's tables.
const DCP: [&[u8]; 14] = [
    // Get of name and IP suite.
    b"\xfe\xfd\x03\x00\0\0\0\x01\0\0\0\x04\x02\x02\x01\x02",
    // Its answer: name, and that there is no such option.
    b"\xfe\xfd\x03\x01\0\0\0\x01\0\0\0\x10\x02\x02\0\x04\0\0ab\x05\x04\0\x03\x01\x02\x02\0",
    // Unsupported.
    b"\xfe\xfd\x03\x05\0\0\0\x01\0\0\0\0",
    // Set of a name of three octets, for good, and the end of a transaction.
    b"\xfe\xfd\x04\x00\0\0\0\x02\0\0\0\x10\x02\x02\0\x05\0\x01abc\0\x05\x02\0\x02\0\0",
    // Its answer: two results.
    b"\xfe\xfd\x04\x01\0\0\0\x02\0\0\0\x10\x05\x04\0\x03\x02\x02\0\0\x05\x04\0\x03\x05\x02\0\0",
    // Set: blink.
    b"\xfe\xfd\x04\x00\0\0\0\x03\0\0\0\x08\x05\x03\0\x04\0\0\x01\0",
    // Set: refused since in operation.
    b"\xfe\xfd\x04\x01\0\0\0\x03\0\0\0\x08\x05\x04\0\x03\x01\x02\x06\0",
    // Set: factory reset.
    b"\xfe\xfd\x04\x00\0\0\0\x04\0\0\0\x06\x05\x05\0\x02\0\0",
    // Set: reset to factory, mode 2.
    b"\xfe\xfd\x04\x00\0\0\0\x05\0\0\0\x06\x05\x06\0\x02\0\x04",
    // Set: start of a transaction.
    b"\xfe\xfd\x04\x00\0\0\0\x06\0\0\0\x06\x05\x01\0\x02\0\0",
    // Identify by alias, then by vendor and device.
    b"\xfe\xfe\x05\x00\0\0\0\x07\x19\0\0\x10\x02\x06\0\x0cport-001.swi",
    b"\xfe\xfe\x05\x00\0\0\0\x08\0\x80\0\x08\x02\x03\0\x04\0\x2a\x01\x0e",
    // Answer: MAC and OEM id.
    b"\xfe\xff\x05\x01\0\0\0\x08\0\0\0\x16\x01\x01\0\x08\0\0\x02\0\0\0\0\x05\x02\x08\0\x06\0\0\0\x2a\0\x01",
    // Hello: name, IP suite set by DHCP with a conflict, device id, initiative.
    b"\xfe\xfc\x06\x00\0\0\0\x09\0\0\0\x2c\x02\x02\0\x04\0\0ab\x01\x02\0\x0e\0\x82\x0a\0\0\x01\xff\xff\0\0\x0a\0\0\xfe\x02\x03\0\x06\0\0\0\x2a\x01\x0e\x06\x01\0\x04\0\0\0\x01",
];

/// FrameID and PDU of alarms.
const ALARMS: [&[u8]; 6] = [
    // Diagnosis of slot 2, subslot 1, high.
    b"\xfc\x01\0\x01\0\x02\x11\x11\xff\xff\xff\xfe\0\x1a\0\x01\0\x16\x01\0\0\x01\0\0\0\0\0\x02\0\x01\0\0\0\x03\0\0\0\x04\xa8\x05",
    // Plug, low.
    b"\xfe\x01\0\x01\0\x02\x11\x01\0\0\xff\xff\0\x1a\0\x02\0\x16\x01\0\0\x04\0\0\0\x01\0\x02\x80\0\0\0\0\x03\0\0\0\x04\x10\x01",
    // Acknowledgement of an alarm, high and low.
    b"\xfc\x01\0\x02\0\x01\x11\x11\xff\xff\xff\xff\0\x16\x80\x01\0\x12\x01\0\0\x01\0\0\0\0\0\x02\0\x01\xa8\x05\0\0\0\0",
    b"\xfe\x01\0\x02\0\x01\x11\x11\xff\xff\0\0\0\x16\x80\x02\0\x12\x01\0\0\x04\0\0\0\x01\0\x02\x80\0\x10\x01\xda\x81\x3c\x01",
    // Of the PDUs themselves.
    b"\xfc\x01\0\x02\0\x01\x13\x01\xff\xfe\xff\xff\0\0",
    b"\xfc\x01\0\x02\0\x01\x12\x01\xff\xfe\xff\xff\0\0",
];

const ARP: [&[u8]; 3] = [
    // Reply; a request of its own address; a reply to itself.
    b"\0\x01\x08\0\x06\x04\0\x02\x02\0\0\0\0\x01\x0a\0\0\x01\x02\0\0\0\0\x02\x0a\0\0\x02",
    b"\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x01\0\0\0\0\0\0\x0a\0\0\x01",
    b"\0\x01\x08\0\x06\x04\0\x02\x02\0\0\0\0\x01\x0a\0\0\x01\xff\xff\xff\xff\xff\xff\x0a\0\0\x01",
];

/// All of them, DCP and alarms with each kind of tag.
pub(super) fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut add = |ethertype, tag, payload: &[u8]| {
        let frame = Frame {
            dst: Mac([2, 0, 0, 0, 0, 1]),
            src: Mac([2, 0, 0, 0, 0, 2]),
            tag,
            ethertype,
            payload,
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        frames.push(bytes);
    };
    for tag in [None, Some(Tag::priority_only(6)), Some(Tag(0x7abc))] {
        for payload in DCP.into_iter().chain(ALARMS) {
            add(eth::PROFINET, tag, payload);
        }
        let request = identify_request(&"drive-1.line".parse().unwrap(), 0x0102_0304, 20);
        add(eth::PROFINET, tag, &request);
    }
    for payload in ARP {
        add(eth::ARP, None, payload);
    }
    for status in 0..=0xff {
        let mut payload = vec![0x80, status];
        payload.extend([0x80; 40]);
        payload.extend([status, 0x34, status, status & 1]);
        add(eth::PROFINET, None, &payload);
    }
    frames
}
