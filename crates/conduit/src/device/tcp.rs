//! Frames out of the pieces in which TCP delivers them.

use fieldlock_modbus::mbap::{self, Adu, FramingError, MAX_ADU};

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
    ) -> Result<(usize, Option<Adu<'a>>), FramingError> {
        if self.taken {
            self.clear();
        }
        if self.partial.is_empty() {
            let Some((adu, used)) = mbap::decode(input)? else {
                self.partial.extend_from_slice(input);
                return Ok((input.len(), None));
            };
            return Ok((used, Some(adu)));
        }
        let before = self.partial.len();
        let added = input.len().min(MAX_ADU - before);
        self.partial.extend_from_slice(&input[..added]);
        let Some((adu, used)) = mbap::decode(&self.partial)? else {
            return Ok((added, None));
        };
        self.taken = true;
        Ok((used - before, Some(adu)))
    }
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
                    let (used, adu) = reassembly.next(piece).unwrap();
                    seen.extend(adu.map(|adu| (adu.transaction, adu.pdu.len())));
                    piece = &piece[used..];
                }
            }
            assert_eq!(seen, [(0, 1), (1, 61), (2, 121), (3, 181), (4, 241)]);
        }
    }

    #[test]
    fn what_is_not_modbus_is_an_error_also_when_split() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.next(b"HT").unwrap(), (2, None));
        assert!(reassembly.next(b"TP/1.1 400").is_err());
    }
}
