//! Deviations from the specification that devices in the field show. None is borne unless the
//! configuration of the device names it.

use std::fmt;

use crate::answer::Expected;
use crate::exception::EXCEPTION_BIT;
use crate::function::FunctionCode;

/// One deviation. Its number is part of the tunnel's protocol. Those without a word of TCP or serial lines can be seen on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Quirk {
    /// TCP: the high octet of an answer's transaction id is 0.
    TransactionIdLowByte,
    /// TCP: an answer's transaction id is 0.
    TransactionIdZero,
    /// Answers carry this unit id, whatever unit was asked.
    AnswersAsUnit0,
    AnswersAsUnit1,
    AnswersAsUnit255,
    /// TCP: the length field of an exception says 4, and three octets follow.
    ExceptionLength4,
    /// An exception is `80 CODE`, whatever the function. Borne from every device.
    ExceptionWithoutFunction,
    /// Functions 3 and 4: an address holds four octets.
    FourByteRegisters,
    /// Functions 5 and 6: the answer gives the value that the device took, not the one it was sent.
    WriteAnswerValue,
    /// Functions 15 and 16: the answer repeats the whole request.
    WriteAnswerRequest,
    /// Serial line: the adapter delivers each request before its answer.
    RtuEcho,
    /// Serial line: an octet 0x00 stands before each answer.
    RtuLeadingZero,
    /// Function 5: values other than 0x0000 and 0xFF00 are passed on.
    CoilAnyValue,
}

/// How a device frames its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Tcp,
    Rtu,
}

impl Quirk {
    pub const ALL: [Self; 13] = [
        Self::TransactionIdLowByte,
        Self::TransactionIdZero,
        Self::AnswersAsUnit0,
        Self::AnswersAsUnit1,
        Self::AnswersAsUnit255,
        Self::ExceptionLength4,
        Self::ExceptionWithoutFunction,
        Self::FourByteRegisters,
        Self::WriteAnswerValue,
        Self::WriteAnswerRequest,
        Self::RtuEcho,
        Self::RtuLeadingZero,
        Self::CoilAnyValue,
    ];

    /// As configurations, records and `status` spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TransactionIdLowByte => "transaction-id-low-byte",
            Self::TransactionIdZero => "transaction-id-zero",
            Self::AnswersAsUnit0 => "answers-as-unit-0",
            Self::AnswersAsUnit1 => "answers-as-unit-1",
            Self::AnswersAsUnit255 => "answers-as-unit-255",
            Self::ExceptionLength4 => "exception-length-4",
            Self::ExceptionWithoutFunction => "exception-without-function",
            Self::FourByteRegisters => "four-byte-registers",
            Self::WriteAnswerValue => "write-answer-value",
            Self::WriteAnswerRequest => "write-answer-request",
            Self::RtuEcho => "rtu-echo",
            Self::RtuLeadingZero => "rtu-leading-zero",
            Self::CoilAnyValue => "coil-any-value",
        }
    }

    /// Which devices alone can show it; `None`: any.
    pub fn is_of(self) -> Option<Framing> {
        match self {
            Self::TransactionIdLowByte | Self::TransactionIdZero | Self::ExceptionLength4 => {
                Some(Framing::Tcp)
            }
            Self::RtuEcho | Self::RtuLeadingZero => Some(Framing::Rtu),
            _ => None,
        }
    }

    /// Whether it is borne without being configured: what it gives up tells nobody anything false.
    pub fn is_always_borne(self) -> bool {
        self == Self::ExceptionWithoutFunction
    }

    /// The one that explains an answer from unit `got`, where another was asked.
    pub fn answers_as(got: u8) -> Option<Self> {
        match got {
            0 => Some(Self::AnswersAsUnit0),
            1 => Some(Self::AnswersAsUnit1),
            255 => Some(Self::AnswersAsUnit255),
            _ => None,
        }
    }

    /// The one that explains an answer which [`Expected::check`](crate::Expected::check) refuses.
    /// `expected` is of `request`; `answer` has any content.
    pub fn of_answer(expected: &Expected, request: &[u8], answer: &[u8]) -> Option<Self> {
        let (&function, rest) = answer.split_first()?;
        let of_write = answer.len() == 5 && request.len() >= 5 && answer[..3] == request[..3];
        match (FunctionCode(function), rest) {
            (FunctionCode(EXCEPTION_BIT), &[code]) if code != 0 => {
                Some(Self::ExceptionWithoutFunction)
            }
            _ if request.first() != Some(&function) => None,
            _ if expected.has_four_octets(answer) => Some(Self::FourByteRegisters),
            (FunctionCode::WRITE_SINGLE_COIL | FunctionCode::WRITE_SINGLE_REGISTER, _) => {
                of_write.then_some(Self::WriteAnswerValue)
            }
            (FunctionCode::WRITE_MULTIPLE_COILS | FunctionCode::WRITE_MULTIPLE_REGISTERS, _) => {
                (answer == request).then_some(Self::WriteAnswerRequest)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of deviations.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Quirks(u16);

const _: () = assert!(Quirk::ALL.len() <= u16::BITS as usize);

impl Quirks {
    pub const NONE: Self = Self(0);

    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | 1 << quirk as u8)
    }

    pub fn insert(&mut self, quirk: Quirk) {
        *self = self.with(quirk);
    }

    pub const fn contains(self, quirk: Quirk) -> bool {
        self.0 & 1 << quirk as u8 != 0
    }

    /// Whether an answer that deviates in this way is taken.
    pub fn bear(self, quirk: Quirk) -> bool {
        quirk.is_always_borne() || self.contains(quirk)
    }

    /// Those that the other end of a tunnel has to know: it judges the requests and the answers too.
    pub fn for_headend(self) -> Self {
        let known = Self::NONE
            .with(Quirk::FourByteRegisters)
            .with(Quirk::CoilAnyValue);
        Self(self.0 & known.0)
    }

    /// Bit n is the quirk with the number n.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Bits of later versions are dropped.
    pub fn from_bits(bits: u16) -> Self {
        let all: Self = Quirk::ALL.into_iter().collect();
        Self(bits & all.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL
            .into_iter()
            .filter(move |quirk| self.contains(*quirk))
    }
}

impl FromIterator<Quirk> for Quirks {
    fn from_iter<T: IntoIterator<Item = Quirk>>(quirks: T) -> Self {
        quirks.into_iter().fold(Self::NONE, Self::with)
    }
}

/// `rtu-echo, rtu-leading-zero`
impl fmt::Display for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, quirk) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{quirk}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    /// What explains this answer, which is none by the specification.
    #[track_caller]
    fn of(request: &[u8], answer: &[u8]) -> Option<Quirk> {
        let expected = Expected::of(&Request::parse(request).unwrap());
        assert!(expected.check(answer).is_err(), "{answer:02x?}");
        Quirk::of_answer(&expected, request, answer)
    }

    #[test]
    fn an_exception_without_its_function_is_known() {
        let known = Some(Quirk::ExceptionWithoutFunction);
        assert_eq!(of(&[3, 0, 0, 0, 1], &[0x80, 1]), known);
        assert_eq!(of(&[16, 0, 0, 0, 1, 2, 0, 0], &[0x80, 2]), known);
        for other in [&[0x80][..], &[0x80, 0], &[0x80, 1, 0], &[0x84, 1]] {
            assert_eq!(of(&[3, 0, 0, 0, 1], other), None, "{other:02x?}");
        }
        assert!(Quirks::NONE.bear(Quirk::ExceptionWithoutFunction));
        assert!(!Quirks::NONE.bear(Quirk::RtuEcho));
    }

    #[test]
    fn registers_of_four_octets_are_known_by_their_length() {
        let known = Some(Quirk::FourByteRegisters);
        let read = [3, 0x1B, 0x59, 0, 1];
        assert_eq!(of(&read, &[3, 4, 0x43, 0x3F, 0, 0]), known);
        assert_eq!(of(&[4, 0, 0, 0, 2], &[4, 8, 1, 2, 3, 4, 5, 6, 7, 8]), known);
        for other in [
            &[3, 4, 0x43, 0x3F, 0][..],
            &[3, 4, 0x43, 0x3F, 0, 0, 0],
            &[3, 3, 0x43, 0x3F, 0],
            &[4, 4, 0x43, 0x3F, 0, 0],
            &[3],
        ] {
            assert_eq!(of(&read, other), None, "{other:02x?}");
        }
        // 64 times 4 is 0 in one octet.
        assert_eq!(of(&[3, 0, 0, 0, 64], &[3, 0]), None);
    }

    #[test]
    fn a_write_answered_in_other_words_is_known() {
        let value = Some(Quirk::WriteAnswerValue);
        assert_eq!(of(&[6, 0, 1, 4, 0xB0], &[6, 0, 1, 3, 0xE8]), value);
        assert_eq!(of(&[5, 0, 1, 0xFF, 0], &[5, 0, 1, 0, 1]), value);
        assert_eq!(of(&[6, 0, 1, 4, 0xB0], &[6, 0, 2, 4, 0xB0]), None);
        assert_eq!(of(&[6, 0, 1, 4, 0xB0], &[6, 0, 1, 3]), None);
        let write = [16, 0, 1, 0, 1, 2, 4, 0xB0];
        let whole = Some(Quirk::WriteAnswerRequest);
        assert_eq!(of(&write, &write), whole);
        assert_eq!(of(&[15, 0, 1, 0, 1, 1, 1], &[15, 0, 1, 0, 1, 1, 1]), whole);
        assert_eq!(of(&write, &[16, 0, 1, 0, 1, 2, 3, 0xE8]), None);
        assert_eq!(of(&write, &[16, 0, 1, 0, 2]), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_names_it() {
        let set: Quirks = [Quirk::RtuLeadingZero, Quirk::RtuEcho]
            .into_iter()
            .collect();
        assert_eq!(set.to_string(), "rtu-echo, rtu-leading-zero");
        assert_eq!(set.iter().collect::<Quirks>(), set);
        assert_eq!(Quirks::from_bits(set.bits()), set);
        assert_eq!(Quirks::from_bits(u16::MAX).iter().count(), Quirk::ALL.len());
        assert_eq!(Quirk::FourByteRegisters as u8, 7);
        assert_eq!(Quirk::CoilAnyValue as u8, 12);
        for quirk in Quirk::ALL {
            let alone = Quirks::NONE.with(quirk);
            assert_eq!(alone.iter().collect::<Vec<_>>(), [quirk]);
        }
    }
}
