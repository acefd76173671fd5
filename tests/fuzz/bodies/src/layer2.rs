//! Ethernet frames from the wire of a station.

use fieldlock_profinet::alarm::{Body, Notice, Rta};
use fieldlock_profinet::cyclic::Cyclic;
use fieldlock_profinet::dcp::{Identity, Pdu};
use fieldlock_profinet::{Class, Frame, classify};

/// A frame is sorted, read and asked for all that it says; what is passed on lies within it, and its
/// header encodes to the octets it came in.
pub fn profinet_l2(data: &[u8]) {
    let frame = match Frame::parse(data) {
        Ok(frame) => frame,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut again = Vec::new();
    frame.put_header(&mut again);
    again.extend_from_slice(frame.payload);
    assert_eq!(again, data);
    match classify(&frame) {
        Ok(Class::Cyclic { id, pdu }) => {
            assert_eq!(frame.payload[..2], id.0.to_be_bytes());
            check_cyclic(pdu);
        }
        Ok(Class::AlarmHigh(rta) | Class::AlarmLow(rta)) => check_alarm(&rta, frame.payload),
        Ok(Class::Dcp(pdu)) => check_dcp(&pdu, frame.payload),
        Ok(Class::Arp(arp)) => {
            let _ = arp.purpose();
        }
        Ok(Class::Udp(datagram)) => {
            let (ip, udp) = (&datagram.ip, &datagram.udp);
            assert_eq!(ip.payload.len(), 8 + udp.payload.len());
            assert!(20 + ip.options().len() + ip.payload.len() <= frame.payload.len());
            let _ = datagram.checksums_hold();
        }
        Ok(Class::Never(never)) => assert!(!never.name().is_empty()),
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
}

fn check_cyclic(pdu: &[u8]) {
    for length in [0, 1, 40, pdu.len(), 1440] {
        // A frame of any length: more than the field holds is as good as the most.
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        let fits = usize::from(length) + 4 <= pdu.len();
        let cyclic = Cyclic::parse(pdu, length);
        assert_eq!(cyclic.is_ok(), fits);
        if let Ok(cyclic) = cyclic {
            assert_eq!(cyclic.data, &pdu[..usize::from(length)]);
        }
    }
}

fn check_alarm(rta: &Rta<'_>, payload: &[u8]) {
    if let Body::Data(data) = rta.body {
        assert!(2 + fieldlock_profinet::alarm::HEADER + data.len() <= payload.len());
        if let Ok(notice) = Notice::parse(data) {
            assert!(notice.about().specifier.sequence() < 2048);
        }
    }
}

fn check_dcp(pdu: &Pdu<'_>, payload: &[u8]) {
    assert_eq!(payload[..2], pdu.frame_id().0.to_be_bytes());
    assert!(2 + fieldlock_profinet::dcp::HEADER + pdu.blocks.len() <= payload.len());
    let sound = pdu.check();
    match pdu.services() {
        Ok(services) => assert!(services.count() > 0),
        Err(error) => assert_eq!(sound, Err(error)),
    }
    if Identity::read(pdu).is_ok() {
        assert_eq!(sound, Ok(()));
    }
    for block in pdu.blocks().flatten() {
        assert!(!block.id.to_string().is_empty());
        if let Ok(value) = block.value() {
            assert!(value.options().count() <= block.data.len() / 2);
            assert!(!format!("{value:?}").is_empty());
        }
    }
}
