//! What a request addressed and wrote, as the log shows it.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The four Modbus tables, named as in a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Input => "input",
            Table::Holding => "holding",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Table::Coil, Table::Discrete, Table::Input, Table::Holding]
            .into_iter()
            .find(|table| table.name() == name)
    }
}

/// Elements of one table, 0-based, both ends included; in JSON `"holding 40-41"` or, for a
/// single element, `"holding 40"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    pub table: Table,
    pub first: u16,
    pub last: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, first, last } = self;
        if first == last {
            write!(f, "{} {first}", table.name())
        } else {
            write!(f, "{} {first}-{last}", table.name())
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::from_text(&text)
            .ok_or_else(|| D::Error::custom(format_args!("not an address: {text:?}")))
    }
}

impl Address {
    fn from_text(text: &str) -> Option<Self> {
        let (table, span) = text.split_once(' ')?;
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        Some(Self {
            table: Table::from_name(table)?,
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        })
    }
}

/// What a write carries. Bytes are as on the wire and formatted by the journal's thread.
///
/// In JSON: numbers for registers, 0 and 1 for coils, `{"and":..,"or":..}` for a mask write,
/// and `"hex:.."` for a function whose body is opaque. At most 246 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// One register (FC 6).
    Register(u16),
    /// One coil (FC 5).
    Coil(bool),
    /// Big-endian registers (FC 16, 23).
    Registers(Box<[u8]>),
    /// Packed coils, lowest bit first (FC 15).
    Coils { bits: Box<[u8]>, count: u16 },
    /// FC 22.
    Mask { and: u16, or: u16 },
    /// The PDU after its function code, where its meaning is not known.
    Opaque(Box<[u8]>),
}

#[derive(Serialize, Deserialize)]
struct MaskFields {
    and: u16,
    or: u16,
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Values::Register(value) => [value].serialize(serializer),
            Values::Coil(value) => [u8::from(*value)].serialize(serializer),
            Values::Registers(bytes) => {
                let mut list = serializer.serialize_seq(Some(bytes.len() / 2))?;
                for pair in bytes.chunks_exact(2) {
                    list.serialize_element(&u16::from_be_bytes([pair[0], pair[1]]))?;
                }
                list.end()
            }
            Values::Coils { bits, count } => {
                let mut list = serializer.serialize_seq(Some(usize::from(*count)))?;
                for index in 0..usize::from(*count) {
                    let byte = bits.get(index / 8).copied().unwrap_or(0);
                    list.serialize_element(&(byte >> (index % 8) & 1))?;
                }
                list.end()
            }
            Values::Mask { and, or } => MaskFields { and: *and, or: *or }.serialize(serializer),
            Values::Opaque(bytes) => serializer.collect_str(&Hex(bytes)),
        }
    }
}

/// Reading is for display: lists come back as registers whatever the table was.
impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            List(Vec<u16>),
            Mask(MaskFields),
            Hex(String),
        }
        match Form::deserialize(deserializer)? {
            Form::List(list) => Ok(Values::Registers(
                list.into_iter().flat_map(u16::to_be_bytes).collect(),
            )),
            Form::Mask(MaskFields { and, or }) => Ok(Values::Mask { and, or }),
            Form::Hex(text) => unhex(&text)
                .map(Values::Opaque)
                .ok_or_else(|| D::Error::custom("values are neither numbers, a mask nor hex")),
        }
    }
}

/// What a write carries, in the eyes of a rule that sees registers as numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decoded {
    /// As policies name it: `float32`.
    #[serde(rename = "type")]
    pub number: Cow<'static, str>,
    /// Of values of several registers: `big` or `little`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub word_order: Option<Cow<'static, str>>,
    /// In the order of their addresses.
    pub values: Box<[DecodedValue]>,
}

/// In JSON a number; `"nan"`, `"inf"`, `"-inf"` and `"part"` where it is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DecodedValue {
    Whole(i64),
    Float32(f32),
    Float64(f64),
    /// Not all of its registers are written, or one is masked.
    Part,
}

impl Serialize for DecodedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |float: f64| match float {
            _ if float.is_nan() => "nan",
            _ if float > 0.0 => "inf",
            _ => "-inf",
        };
        match *self {
            Self::Whole(whole) => serializer.serialize_i64(whole),
            Self::Float32(float) if float.is_finite() => serializer.serialize_f32(float),
            Self::Float64(float) if float.is_finite() => serializer.serialize_f64(float),
            Self::Float32(float) => serializer.serialize_str(text(float.into())),
            Self::Float64(float) => serializer.serialize_str(text(float)),
            Self::Part => serializer.serialize_str("part"),
        }
    }
}

/// Reading is for display: a number with a point comes back as the longer float.
impl<'de> Deserialize<'de> for DecodedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Whole(i64),
            Float(f64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Whole(whole) => Ok(Self::Whole(whole)),
            Form::Float(float) => Ok(Self::Float64(float)),
            Form::Text(text) => match text.as_str() {
                "nan" => Ok(Self::Float64(f64::NAN)),
                "inf" => Ok(Self::Float64(f64::INFINITY)),
                "-inf" => Ok(Self::Float64(f64::NEG_INFINITY)),
                "part" => Ok(Self::Part),
                _ => Err(D::Error::custom(
                    "a value is neither a number nor a word for none",
                )),
            },
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hex:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    let digits = text.strip_prefix("hex:")?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_an_operator_expects() {
        let cases: [(Values, &str); 6] = [
            (Values::Register(1300), "[1300]"),
            (Values::Coil(true), "[1]"),
            (Values::Registers([0x01, 0x02, 0, 7].into()), "[258,7]"),
            (
                Values::Coils {
                    bits: [0b101, 1].into(),
                    count: 9,
                },
                "[1,0,1,0,0,0,0,0,1]",
            ),
            (Values::Mask { and: 5, or: 9 }, r#"{"and":5,"or":9}"#),
            (Values::Opaque([0x5a, 0x01].into()), r#""hex:5a01""#),
        ];
        for (values, json) in cases {
            assert_eq!(serde_json::to_string(&values).unwrap(), json);
            let again: Values = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&again).unwrap(), json);
        }
    }

    #[test]
    fn decoded_values_are_numbers_where_they_are_any() {
        let decoded = Decoded {
            number: "float32".into(),
            word_order: Some("little".into()),
            values: [
                DecodedValue::Float32(20.1),
                DecodedValue::Float32(f32::NAN),
                DecodedValue::Float64(f64::NEG_INFINITY),
                DecodedValue::Whole(-5),
                DecodedValue::Part,
            ]
            .into(),
        };
        let json = serde_json::to_string(&decoded).unwrap();
        assert_eq!(
            json,
            r#"{"type":"float32","word_order":"little","values":[20.1,"nan","-inf",-5,"part"]}"#
        );
        let again: Decoded = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
    }

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["holding 40-41", "coil 0", "discrete 65535", "input 7-9"] {
            let json = format!("{text:?}");
            let address: Address = serde_json::from_str(&json).unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in ["holding", "holding 1-", "holding 65536", "file 3", ""] {
            assert!(serde_json::from_str::<Address>(&format!("{text:?}")).is_err());
        }
    }
}
