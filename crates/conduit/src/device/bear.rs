//! Which request an answer belongs to, and whether it fits, where the device may deviate from the
//! specification in the ways that its configuration names. Whatever is borne, the client gets an
//! answer as the specification wants it; only registers of four octets stay as the device gave them.

use fieldlock_modbus::{Quirk, Quirks};

use super::fault::{Fault, What};
use super::slab::{Entry, Transaction};

/// How an answer that was taken deviated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Borne {
    pub quirks: Quirks,
    /// What the device says that it took, where that is not what it was sent.
    pub took: Option<u16>,
}

impl Borne {
    /// Whether the client's answer is no word of what each register holds: a write that took another
    /// value, or registers of four octets.
    pub fn is_foreign(&self) -> bool {
        self.took.is_some() || self.quirks.contains(Quirk::FourByteRegisters)
    }
}

/// The place in `flights` of the request that an answer with the id `got` belongs to, and how its
/// id deviates.
pub(super) fn whose(
    flights: impl Iterator<Item = Transaction> + Clone,
    got: Transaction,
    bear: Quirks,
) -> Result<(usize, Option<Quirk>), Fault> {
    if let Some(at) = flights.clone().position(|id| id == got) {
        return Ok((at, None));
    }
    let mut all = flights.clone();
    let lone = all.next().filter(|_| all.next().is_none());
    let what = What::Transaction {
        got,
        expected: lone,
    };
    let mut alike = flights
        .clone()
        .enumerate()
        .filter(|(_, id)| id & 0xFF == got);
    let low = match (alike.next(), alike.next()) {
        (Some((at, _)), None) => Some((at, Quirk::TransactionIdLowByte)),
        _ => None,
    };
    let zero = (got == 0 && lone.is_some()).then_some((0, Quirk::TransactionIdZero));
    let explained = [low, zero].into_iter().flatten();
    match explained.clone().find(|(_, quirk)| bear.bear(*quirk)) {
        Some((at, quirk)) => Ok((at, Some(quirk))),
        None => Err(Fault {
            what,
            quirk: explained.map(|(_, quirk)| quirk).next(),
        }),
    }
}

/// Whether an answer from unit `got` is one of the unit that was asked.
pub(super) fn from_unit(got: u8, asked: u8, bear: Quirks) -> Result<Option<Quirk>, Fault> {
    if got == asked {
        return Ok(None);
    }
    let quirk = Quirk::answers_as(got).filter(|quirk| bear.bear(*quirk));
    quirk.map(Some).ok_or(Fault::unit(got, asked))
}

/// Puts the answer in the place of its request, if it fits: as the client is to get it.
pub(super) fn take(
    entry: &mut Entry,
    answer: &[u8],
    mut quirks: Quirks,
    bear: Quirks,
) -> Result<(), Fault> {
    let mut took = None;
    match entry.expected.check(answer) {
        Ok(_) => entry.pdu.set(answer),
        Err(mismatch) => {
            let quirk = Quirk::of_answer(&entry.expected, &entry.pdu, answer);
            let quirk = match quirk {
                Some(quirk) if bear.bear(quirk) => quirk,
                quirk => {
                    let what = mismatch.into();
                    return Err(Fault { what, quirk });
                }
            };
            quirks.insert(quirk);
            match quirk {
                Quirk::WriteAnswerValue => {
                    took = Some(u16::from_be_bytes([answer[3], answer[4]]));
                }
                Quirk::WriteAnswerRequest => entry.pdu.truncate(5),
                Quirk::ExceptionWithoutFunction => {
                    let function = answer[0] | entry.expected.function();
                    entry.pdu.set(&[function, answer[1]]);
                }
                _ => entry.pdu.set(answer),
            }
        }
    }
    entry.borne = Borne { quirks, took };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose_of(flights: &[u16], got: u16, bear: Quirks) -> Result<(usize, Option<Quirk>), Fault> {
        whose(flights.iter().copied(), got, bear)
    }

    #[test]
    fn ids_are_exact_by_default_and_the_quirk_is_named() {
        let quirk = |flights: &[u16], got| whose_of(flights, got, Quirks::NONE).unwrap_err().quirk;
        assert_eq!(whose_of(&[7, 8], 8, Quirks::NONE), Ok((1, None)));
        assert_eq!(quirk(&[0x0101], 1), Some(Quirk::TransactionIdLowByte));
        assert_eq!(quirk(&[0x0101], 0), Some(Quirk::TransactionIdZero));
        assert_eq!(quirk(&[0x0101, 0x0102], 0), None);
        assert_eq!(quirk(&[0x0101], 0x0201), None);
        assert_eq!(quirk(&[], 0), None);
    }

    #[test]
    fn an_id_is_taken_only_where_it_means_one_request() {
        let low = Quirks::NONE.with(Quirk::TransactionIdLowByte);
        let zero = Quirks::NONE.with(Quirk::TransactionIdZero);
        let ids = [0x0101, 0x0102];
        assert_eq!(
            whose_of(&ids, 2, low),
            Ok((1, Some(Quirk::TransactionIdLowByte)))
        );
        assert!(whose_of(&[0x0101, 0x0201], 1, low).is_err());
        assert!(whose_of(&ids, 0x0302, low).is_err());
        assert_eq!(
            whose_of(&[0x0101], 0, zero),
            Ok((0, Some(Quirk::TransactionIdZero)))
        );
        assert!(whose_of(&ids, 0, zero).is_err());
        assert!(whose_of(&[0x0101], 1, zero).is_err());
        // An id whose low octet is 0 too: whichever is borne.
        for (bear, quirk) in [
            (low, Quirk::TransactionIdLowByte),
            (zero, Quirk::TransactionIdZero),
        ] {
            assert_eq!(whose_of(&[0x0300], 0, bear), Ok((0, Some(quirk))));
        }
    }
}
