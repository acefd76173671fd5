//! Frames of Modbus/TCP and of serial lines.

use fieldlock_modbus::mbap::{self, FramingError};
use fieldlock_modbus::rtu::{self, Progress};

use crate::input::{Input, pieces};

/// A client's or device's byte stream in pieces: the frames are the same for any pieces, an
/// incomplete one is never as long as the longest, and frames are what they were made of.
pub fn mbap_stream(data: &[u8]) {
    let (stream, pieces) = pieces(data);
    let mut whole = Frames::default();
    whole.feed(stream);
    let mut cut = Frames::default();
    pieces.for_each(|piece| cut.feed(piece));
    assert_eq!(cut.seen, whole.seen);
    assert_eq!(cut.lost, whole.lost);
    assert!(stream.starts_with(&whole.again));
}

#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    seen: Vec<(u16, u8, Vec<u8>)>,
    /// What was seen, encoded again.
    again: Vec<u8>,
    lost: Option<FramingError>,
}

impl Frames {
    fn feed(&mut self, piece: &[u8]) {
        if self.lost.is_some() {
            return;
        }
        self.buffer.extend_from_slice(piece);
        let mut used = 0;
        loop {
            match mbap::decode(&self.buffer[used..]) {
                Ok(Some((adu, size))) => {
                    assert!((1..=mbap::MAX_PDU).contains(&adu.pdu.len()));
                    assert_eq!(size, mbap::HEADER_LEN + adu.pdu.len());
                    mbap::encode(&mut self.again, adu.transaction, adu.unit, adu.pdu);
                    self.seen
                        .push((adu.transaction, adu.unit, adu.pdu.to_vec()));
                    used += size;
                }
                Ok(None) => break,
                Err(error) => {
                    self.lost = Some(error);
                    return;
                }
            }
        }
        self.buffer.drain(..used);
        assert!(self.buffer.len() < mbap::MAX_ADU);
    }
}

/// Bytes on a serial line, one after the other, with silence at the end: a frame is what it
/// was made of, is found once its last byte is there and not changed by what follows; and
/// nothing asks for more than the longest frame has.
pub fn rtu_answer(data: &[u8]) {
    let mut input = Input::new(data);
    let framed = input.bool();
    let rest = input.rest();
    let mut line = Vec::new();
    match rest {
        [unit, pdu @ ..] if framed && (1..=mbap::MAX_PDU).contains(&pdu.len()) => {
            rtu::encode(&mut line, *unit, pdu);
        }
        _ => line.extend_from_slice(rest),
    }
    let mut needed = 0;
    let mut found = None;
    for end in 0..=line.len().min(2 * rtu::MAX_ADU) {
        let part = &line[..end];
        check_progress(part, true);
        let Some(progress) = check_progress(part, false) else {
            return;
        };
        match progress {
            Progress::NeedMore { at_least } => needed = end + at_least,
            Progress::UntilSilence => {}
            Progress::Frame { unit, pdu } => {
                assert!(
                    end >= needed,
                    "a frame of {end} bytes, {needed} were needed"
                );
                let frame = (unit, pdu.to_vec());
                assert_eq!(*found.get_or_insert_with(|| frame.clone()), frame);
            }
        }
    }
}

/// `None` after an error.
fn check_progress(line: &[u8], silent: bool) -> Option<Progress<'_>> {
    let progress = rtu::decode_answer(line, silent).ok()?;
    match progress {
        Progress::NeedMore { at_least } => {
            assert!(at_least > 0 && line.len() + at_least <= rtu::MAX_ADU);
        }
        Progress::UntilSilence => assert!(!silent && line.len() <= rtu::MAX_ADU),
        Progress::Frame { unit, pdu } => {
            let mut again = Vec::new();
            rtu::encode(&mut again, unit, pdu);
            assert!(line.starts_with(&again));
        }
    }
    Some(progress)
}
