//! Numbers of 16, 32 and 64 bits, and how they lie in registers.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What a value in one or several registers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NumberType {
    Int16,
    Uint16,
    Int32,
    Uint32,
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary64.
    Float64,
}

impl NumberType {
    pub(crate) const ALL: [Self; 6] = [
        Self::Int16,
        Self::Uint16,
        Self::Int32,
        Self::Uint32,
        Self::Float32,
        Self::Float64,
    ];

    /// As policies and the audit log spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
            Self::Int32 => "int32",
            Self::Uint32 => "uint32",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }

    pub(crate) fn names() -> [&'static str; 6] {
        Self::ALL.map(Self::name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|number| number.name() == name)
    }

    /// How many registers a value takes: 1, 2 or 4.
    pub(crate) fn registers(self) -> u16 {
        match self {
            Self::Int16 | Self::Uint16 => 1,
            Self::Int32 | Self::Uint32 | Self::Float32 => 2,
            Self::Float64 => 4,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }

    /// Every number of the type, without NaN and infinities.
    pub(crate) fn all(self) -> Bounds {
        let (min, max) = match self {
            Self::Int16 => (i16::MIN.into(), i16::MAX.into()),
            Self::Uint16 => (0, u16::MAX.into()),
            Self::Int32 => (i32::MIN.into(), i32::MAX.into()),
            Self::Uint32 => (0, u32::MAX.into()),
            Self::Float32 => (rank_32(f32::MIN), rank_32(f32::MAX)),
            Self::Float64 => (rank_64(f64::MIN), rank_64(f64::MAX)),
        };
        Bounds { min, max }
    }

    /// The type of a distance between two numbers of this one.
    pub(crate) fn of_distance(self) -> Self {
        match self {
            Self::Int16 => Self::Uint16,
            Self::Int32 => Self::Uint32,
            other => other,
        }
    }

    fn of_bits(self, bits: u64) -> Number {
        // The type has as many bits as are looked at.
        let rank = match self {
            Self::Int16 => i64::from(bits as u16 as i16),
            Self::Uint16 => i64::from(bits as u16),
            Self::Int32 => i64::from(bits as u32 as i32),
            Self::Uint32 => i64::from(bits as u32),
            Self::Float32 => rank_32(f32::from_bits(bits as u32)),
            Self::Float64 => rank_64(f64::from_bits(bits)),
        };
        Number { number: self, rank }
    }

    /// A whole number as one of this type; `None` where it has none such. A float takes the nearest.
    pub(crate) fn of_whole(self, whole: i64) -> Option<Number> {
        let rank = match self {
            Self::Float32 => rank_32(whole as f32),
            Self::Float64 => rank_64(whole as f64),
            _ => whole,
        };
        let all = self.all();
        (all.min..=all.max)
            .contains(&rank)
            .then_some(Number { number: self, rank })
    }

    /// The number of a type of floats that is nearest to a decimal text; `None` where that is not
    /// finite, or the type is one of whole numbers.
    pub(crate) fn of_decimal(self, text: &str) -> Option<Number> {
        let rank = match self {
            Self::Float32 => rank_32(text.parse::<f32>().ok()?),
            Self::Float64 => rank_64(text.parse::<f64>().ok()?),
            _ => return None,
        };
        Some(Number { number: self, rank }).filter(|number| number.is_finite())
    }

    /// A number as people write it, whole or with a point.
    pub fn parse(self, text: &str) -> Option<Number> {
        match self.is_float() {
            true => self.of_decimal(text),
            false => self.of_whole(text.parse().ok()?),
        }
    }
}

/// For arguments of commands.
impl FromStr for NumberType {
    type Err = NotANumberType;

    fn from_str(text: &str) -> Result<Self, NotANumberType> {
        Self::from_name(text).ok_or(NotANumberType)
    }
}

/// A text names no [`NumberType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write {}", NumberType::names().join(", "))]
pub struct NotANumberType;

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which register of a value comes first. Within a register the most significant octet is first, as
/// in every PDU of Modbus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum WordOrder {
    /// The most significant: ABCD.
    #[default]
    Big,
    /// The least significant: CDAB.
    Little,
}

impl WordOrder {
    /// As policies and the audit log spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Big => "big",
            Self::Little => "little",
        }
    }
}

/// For arguments of commands.
impl FromStr for WordOrder {
    type Err = NotAWordOrder;

    fn from_str(text: &str) -> Result<Self, NotAWordOrder> {
        match text {
            "big" => Ok(Self::Big),
            "little" => Ok(Self::Little),
            _ => Err(NotAWordOrder),
        }
    }
}

/// A text names no [`WordOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write big (ABCD) or little (CDAB)")]
pub struct NotAWordOrder;

/// How a number lies in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format {
    pub(crate) number: NumberType,
    pub(crate) order: WordOrder,
}

impl Format {
    /// A register of a rule without a type.
    pub(crate) const REGISTER: Self = Self {
        number: NumberType::Uint16,
        order: WordOrder::Big,
    };

    pub fn number(self) -> NumberType {
        self.number
    }

    pub fn order(self) -> WordOrder {
        self.order
    }

    /// How many registers a value takes: 1, 2 or 4.
    pub fn registers(self) -> u16 {
        self.number.registers()
    }

    /// The value whose register at each place, counted from 0 at its lowest address, `register`
    /// knows.
    pub fn read(self, register: impl Fn(u16) -> Option<u16>) -> Option<Number> {
        let count = self.registers();
        let mut bits = 0;
        for place in 0..count {
            let place = match self.order {
                WordOrder::Big => place,
                WordOrder::Little => count - 1 - place,
            };
            bits = bits << 16 | u64::from(register(place)?);
        }
        Some(self.number.of_bits(bits))
    }

    /// The registers of a number of this format's type, the one at the lowest address first.
    pub(crate) fn write(self, number: Number) -> impl Iterator<Item = u16> {
        let (bits, count) = (number.bits(), self.registers());
        (0..count).map(move |place| {
            let shift = match self.order {
                WordOrder::Big => count - 1 - place,
                WordOrder::Little => place,
            };
            (bits >> (16 * shift)) as u16
        })
    }
}

impl fmt::Display for Format {
    /// `float32`, or `float32 with the least significant word first`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)?;
        match self.order {
            WordOrder::Little if self.registers() > 1 => {
                f.write_str(" with the least significant word first")
            }
            WordOrder::Big | WordOrder::Little => Ok(()),
        }
    }
}

/// A value of a type, to the bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    number: NumberType,
    /// Orders the numbers of a type as their values: of whole numbers the value, of floats what
    /// [`rank_64`] says.
    pub(crate) rank: i64,
}

impl Number {
    pub(crate) fn of_rank(number: NumberType, rank: i64) -> Self {
        Self { number, rank }
    }

    pub(crate) fn number(self) -> NumberType {
        self.number
    }

    /// Neither NaN nor an infinity.
    pub fn is_finite(self) -> bool {
        self.number.all().contains(self)
    }

    /// Exact: every number of every type is one of binary64.
    pub fn value(self) -> f64 {
        match self.number {
            NumberType::Float32 => f32::from_bits(self.bits() as u32).into(),
            NumberType::Float64 => f64::from_bits(self.bits()),
            // At most 32 bits.
            _ => self.rank as f64,
        }
    }

    fn bits(self) -> u64 {
        match self.number {
            NumberType::Float32 => {
                let sign_and_size = self.rank as i32;
                let bits = match sign_and_size < 0 {
                    true => !sign_and_size as u32 | 1 << 31,
                    false => sign_and_size as u32,
                };
                bits.into()
            }
            NumberType::Float64 => match self.rank < 0 {
                true => !self.rank as u64 | 1 << 63,
                false => self.rank as u64,
            },
            _ => self.rank as u64,
        }
    }

    /// Whether two values lie at most `most` apart. Of floats the distance may be larger by what
    /// the type can't tell apart: a client that goes from 20.0 to 20.1 writes what is nearest to
    /// either.
    pub(crate) fn is_within(self, other: Self, most: Self) -> bool {
        if !self.number.is_float() {
            return self.rank.abs_diff(other.rank) <= most.rank.unsigned_abs();
        }
        let (one, other) = (self.value(), other.value());
        let larger = one.abs().max(other.abs());
        let blur = match self.number {
            NumberType::Float32 => {
                let larger = larger as f32;
                f64::from(larger.next_up()) - f64::from(larger)
            }
            _ => larger.next_up() - larger,
        };
        // False of NaN, and of infinities.
        (one - other).abs() <= most.value() + blur && larger.is_finite()
    }
}

impl From<u16> for Number {
    /// A register without a type.
    fn from(register: u16) -> Self {
        Self {
            number: NumberType::Uint16,
            rank: register.into(),
        }
    }
}

impl fmt::Display for Number {
    /// The shortest decimal that is this number and no other of its type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            NumberType::Float32 => write!(f, "{:?}", f32::from_bits(self.bits() as u32)),
            NumberType::Float64 => write!(f, "{:?}", f64::from_bits(self.bits())),
            _ => self.rank.fmt(f),
        }
    }
}

impl Serialize for Number {
    /// A number; of floats as it is printed.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number {
            NumberType::Float32 => serializer.serialize_f32(f32::from_bits(self.bits() as u32)),
            NumberType::Float64 => serializer.serialize_f64(f64::from_bits(self.bits())),
            _ => serializer.serialize_i64(self.rank),
        }
    }
}

/// Least and greatest number of one type, by their ranks, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bounds {
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Bounds {
    /// From a least to a greatest number; a zero stands for both zeros of a float.
    pub(crate) fn of(min: Number, max: Number) -> Self {
        Self {
            min: match min.number.is_float() && min.rank == 0 {
                true => -1,
                false => min.rank,
            },
            max: match max.number.is_float() && max.rank == -1 {
                true => 0,
                false => max.rank,
            },
        }
    }

    pub(crate) fn contains(self, number: Number) -> bool {
        (self.min..=self.max).contains(&number.rank)
    }
}

/// Floats in the order of their values: the bits, of negative ones turned round below zero. -0.0 is
/// -1, 0.0 is 0; beyond the infinities lie the NaNs.
fn rank_64(float: f64) -> i64 {
    let bits = float.to_bits() as i64;
    match bits < 0 {
        true => !(bits & i64::MAX),
        false => bits,
    }
}

/// As [`rank_64`].
fn rank_32(float: f32) -> i64 {
    let bits = float.to_bits() as i32;
    i64::from(match bits < 0 {
        true => !(bits & i32::MAX),
        false => bits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same from the octets as they stand in the PDU, by the standard library.
    fn model(format: Format, words: [u16; 4]) -> f64 {
        let count = usize::from(format.registers());
        let mut words = words[..count].to_vec();
        if format.order == WordOrder::Little {
            words.reverse();
        }
        let octets: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        match format.number {
            NumberType::Int16 => i16::from_be_bytes(octets.try_into().unwrap()).into(),
            NumberType::Uint16 => u16::from_be_bytes(octets.try_into().unwrap()).into(),
            NumberType::Int32 => i32::from_be_bytes(octets.try_into().unwrap()).into(),
            NumberType::Uint32 => u32::from_be_bytes(octets.try_into().unwrap()).into(),
            NumberType::Float32 => f32::from_be_bytes(octets.try_into().unwrap()).into(),
            NumberType::Float64 => f64::from_be_bytes(octets.try_into().unwrap()),
        }
    }

    proptest! {
        #[test]
        fn a_number_is_what_its_octets_say(
            words in any::<[u16; 4]>(),
            more in any::<[u16; 4]>(),
            kind in 0usize..6,
            little in any::<bool>(),
        ) {
            let order = if little { WordOrder::Little } else { WordOrder::Big };
            let format = Format { number: NumberType::ALL[kind], order };
            let read = |words: [u16; 4]| format.read(|place| Some(words[usize::from(place)])).unwrap();
            let (one, other) = (read(words), read(more));
            let (first, second) = (model(format, words), model(format, more));
            prop_assert!(one.value() == first || first.is_nan() && one.value().is_nan());
            prop_assert_eq!(one.is_finite(), first.is_finite());
            if first.is_finite() && second.is_finite() && first != second {
                prop_assert_eq!(one.cmp(&other), first.total_cmp(&second));
            }
            let back: Vec<u16> = format.write(one).collect();
            prop_assert_eq!(&back[..], &words[..back.len()]);
        }
    }

    #[test]
    fn zero_bounds_both_zeros() {
        for number in [NumberType::Float32, NumberType::Float64] {
            let [zero, negative] = ["0.0", "-0.0"].map(|text| number.of_decimal(text).unwrap());
            for (min, max) in [(zero, zero), (negative, negative), (zero, negative)] {
                let bounds = Bounds::of(min, max);
                assert!(bounds.contains(zero) && bounds.contains(negative));
            }
        }
    }

    #[test]
    fn a_step_of_a_float_is_as_wide_as_it_is_written() {
        for number in [NumberType::Float32, NumberType::Float64] {
            let of = |text: &str| number.of_decimal(text).unwrap();
            for tenth in 0..1_000 {
                let text = |tenth: u32| format!("{}.{}", tenth / 10, tenth % 10);
                let (from, to) = (of(&text(tenth)), of(&text(tenth + 1)));
                assert!(from.is_within(to, of("0.1")), "{from} {to}");
                assert!(!from.is_within(to, of("0.0999")), "{from} {to}");
            }
            let infinite = Number::of_rank(number, number.all().max + 1);
            assert!(!infinite.is_within(infinite, of("1.0")));
            assert!(!of("1.0").is_within(infinite, of("1.0")));
        }
    }
}
