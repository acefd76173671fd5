//! Frames of the tunnel, and the hello in the first.

use std::collections::HashSet;

use fieldlock_session::frame::{
    CONTROL, HEADER_LEN, MAX_CONTROL, MAX_DEVICE, MAX_ETHERNET, MAX_PDU, MIN_ETHERNET,
};
use fieldlock_session::hello::{MAX_DEVICES, MAX_STATION_NAME, MAX_STATIONS};
use fieldlock_session::{Decoder, Frame, FrameError, Hello, VERSION};

use crate::input::pieces;

/// Octets of a text for people (why a tunnel ends, why a bundle is not in force) that are sent;
/// more are received.
const MAX_TEXT: usize = 512;

/// The byte stream of a tunnel in pieces: the frames are the same for any pieces, within
/// their limits, and encode to the bytes they came in.
pub fn tunnel_frame(data: &[u8]) {
    let (stream, pieces) = pieces(data);
    let whole = decode_all(stream);
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let mut ended = Ok(());
    for piece in pieces {
        ended = decoder.feed::<FrameError>(piece, |channel, frame| {
            seen.push(encoded(channel, &frame));
            Ok(())
        });
        if ended.is_err() {
            break;
        }
    }
    assert_eq!((seen, ended), whole);
}

fn decode_all(stream: &[u8]) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut seen = Vec::new();
    let mut rest = stream;
    loop {
        match Frame::decode(rest) {
            Ok(Some((channel, frame, size))) => {
                check_frame(channel, &frame, &rest[..size]);
                seen.push(encoded(channel, &frame));
                rest = &rest[size..];
            }
            Ok(None) => {
                assert!(rest.len() < HEADER_LEN + MAX_CONTROL);
                return (seen, Ok(()));
            }
            Err(error) => return (seen, Err(error)),
        }
    }
}

fn encoded(channel: u16, frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(channel, &mut out);
    out
}

fn check_frame(channel: u16, frame: &Frame<'_>, bytes: &[u8]) {
    let of_control = match frame {
        Frame::Hello(_)
        | Frame::Ready
        | Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Goodbye { .. }
        | Frame::Policy(_)
        | Frame::Trust { .. }
        | Frame::TrustHave(_)
        | Frame::Bundle { .. }
        | Frame::BundleHave { .. }
        | Frame::Checkpoint(_)
        | Frame::Drain => true,
        Frame::ClientOpen(_)
        | Frame::ClientClose { .. }
        | Frame::Request { .. }
        | Frame::Answer { .. }
        | Frame::Station(_) => false,
    };
    assert_eq!(of_control, channel == CONTROL);
    let limit = match frame {
        Frame::Station(_) => 1 + MAX_ETHERNET,
        _ if of_control => MAX_CONTROL,
        _ => MAX_DEVICE,
    };
    assert!(bytes.len() < HEADER_LEN + limit);
    match frame {
        Frame::Goodbye { text, .. } | Frame::BundleHave { text, .. } if text.len() > MAX_TEXT => {
            return;
        }
        Frame::Request { pdu, .. } => assert!((1..=MAX_PDU).contains(&pdu.len())),
        Frame::Answer { pdu, .. } => assert!(pdu.len() <= MAX_PDU),
        Frame::Station(frame) => assert!(frame.is_empty() || frame.len() >= MIN_ETHERNET),
        _ => {}
    }
    assert_eq!(encoded(channel, frame), bytes);
}

/// A hello, as it is and behind the version of this build: what is accepted is bounded,
/// printable, and survives being sent on, in no more octets than it came in.
pub fn hello(data: &[u8]) {
    check_hello(data);
    check_hello(&[&VERSION.to_be_bytes(), data].concat());
}

fn check_hello(bytes: &[u8]) {
    let hello = match Hello::decode(bytes) {
        Ok(hello) => hello,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(hello.devices.len() <= MAX_DEVICES);
    assert!(is_printable(&hello.agent_version));
    for device in &hello.devices {
        assert!(!device.name.is_empty() && is_printable(&device.name));
        assert!(device.credit > 0 && device.answer_within > 0);
    }
    let names: HashSet<&str> = hello.devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names.len(), hello.devices.len());
    assert!(hello.stations.len() <= MAX_STATIONS);
    for station in &hello.stations {
        assert!((1..=MAX_STATION_NAME).contains(&station.len()) && is_printable(station));
    }
    let names: HashSet<&str> = hello.stations.iter().map(String::as_str).collect();
    assert_eq!(names.len(), hello.stations.len());
    let again = hello.encode();
    assert!(again.len() <= bytes.len());
    assert_eq!(Hello::decode(&again), Ok(hello));
}

fn is_printable(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
