//! Frames out of the pieces in which TCP delivers them.

use fieldlock_modbus::exception::EXCEPTION_BIT;
use fieldlock_modbus::mbap::{self, Adu, FramingError, HEADER_LEN, MAX_ADU};

/// One frame of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    pub(super) adu: Adu<'a>,
    /// It is an exception whose length field says 4. None is so long: what follows is the next
    /// frame, and who waits for a fourth octet waits for that.
    pub(super) overstated: bool,
}

/// Holds the beginning of a frame until its rest arrives: less than one ADU.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partial: Vec<u8>,
    /// `partial` was handed out as a whole frame.
    taken: bool,
}

impl Reassembly {
    pub(super) fn clear(&mut self) {
        self.partial.clear();
        self.taken = false;
    }

    /// Takes the next whole frame off the front of `input`, or all of it when it does not
    /// complete a frame; says how many bytes that were. A frame that arrives whole is not
    /// copied.
    pub(super) fn next<'a>(
        &'a mut self,
        input: &'a [u8],
    ) -> Result<(usize, Option<Framed<'a>>), FramingError> {
        if self.taken {
            self.clear();
        }
        if self.partial.is_empty() {
            let Some((framed, used)) = decode(input)? else {
                self.partial.extend_from_slice(input);
                return Ok((input.len(), None));
            };
            return Ok((used, Some(framed)));
        }
        let before = self.partial.len();
        let added = input.len().min(MAX_ADU - before);
        self.partial.extend_from_slice(&input[..added]);
        let Some((framed, used)) = decode(&self.partial)? else {
            return Ok((added, None));
        };
        self.taken = true;
        Ok((used - before, Some(framed)))
    }
}

fn decode(input: &[u8]) -> Result<Option<(Framed<'_>, usize)>, FramingError> {
    if let [high, low, 0, 0, 0, 4, unit, function, _, ..] = *input
        && function & EXCEPTION_BIT != 0
    {
        let end = HEADER_LEN + 2;
        let adu = Adu {
            transaction: u16::from_be_bytes([high, low]),
            unit,
            pdu: &input[HEADER_LEN..end],
        };
        let overstated = true;
        return Ok(Some((Framed { adu, overstated }, end)));
    }
    let framed = |adu| Framed {
        adu,
        overstated: false,
    };
    Ok(mbap::decode(input)?.map(|(adu, used)| (framed(adu), used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for transaction in 0..5_u16 {
            let pdu = vec![3; 1 + 60 * usize::from(transaction)];
            mbap::encode(&mut bytes, transaction, 1, &pdu[..pdu.len().min(253)]);
        }
        for size in 1..=bytes.len() {
            let mut reassembly = Reassembly::default();
            let mut seen = Vec::new();
            for mut piece in bytes.chunks(size) {
                while !piece.is_empty() {
                    let (used, framed) = reassembly.next(piece).unwrap();
                    let adu = framed.map(|framed| framed.adu);
                    seen.extend(adu.map(|adu| (adu.transaction, adu.pdu.len())));
                    piece = &piece[used..];
                }
            }
            assert_eq!(seen, [(0, 1), (1, 61), (2, 121), (3, 181), (4, 241)]);
        }
    }

    #[test]
    fn an_exception_that_states_four_octets_ends_after_three() {
        let mut bytes = vec![1, 7, 0, 0, 0, 4, 1, 0x83, 2];
        mbap::encode(&mut bytes, 0x0108, 1, &[3, 2, 0, 5]);
        for size in 1..=bytes.len() {
            let mut reassembly = Reassembly::default();
            let mut seen = Vec::new();
            for mut piece in bytes.chunks(size) {
                while !piece.is_empty() {
                    let (used, framed) = reassembly.next(piece).unwrap();
                    seen.extend(framed.map(|f| (f.overstated, f.adu.transaction, f.adu.pdu.len())));
                    piece = &piece[used..];
                }
            }
            assert_eq!(seen, [(true, 0x0107, 2), (false, 0x0108, 4)], "{size}");
        }
    }

    #[test]
    fn what_is_not_modbus_is_an_error_also_when_split() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.next(b"HT").unwrap(), (2, None));
        assert!(reassembly.next(b"TP/1.1 400").is_err());
    }
}
