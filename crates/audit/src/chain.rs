//! The chain: each line of the log ends in a hash over itself and the line before it.
//!
//! The hash is SHA-256 over the 64 hex digits of the line before (64 zeros before the first
//! record of all) and then the line as it stands, up to and without `,"hash":`. It is the last
//! field: `...,"hash":"<64 hex digits>"}`. So a line can be checked with `sha256sum`, and no
//! line can be changed, dropped, added or moved without all that follow being made anew.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const OPENING: &[u8] = b",\"hash\":\"";
const CLOSING: &[u8] = b"\"}";
const DIGITS: usize = 64;

/// A SHA-256 hash, as its 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; DIGITS]);

impl Hash {
    /// Stands for the line before the first.
    pub const NONE: Self = Self([b'0'; DIGITS]);

    fn of(before: &Self, line: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&before.0);
        context.update(line);
        let mut octets = [0; DIGITS / 2];
        octets.copy_from_slice(context.finish().as_ref());
        Self::from_octets(&octets)
    }

    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; DIGITS] = text.try_into().ok()?;
        let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(is_hex).then_some(Self(digits))
    }

    /// As 32 octets, for the wire.
    pub fn octets(&self) -> [u8; DIGITS / 2] {
        let value = |digit: u8| match digit {
            b'a'..=b'f' => digit - b'a' + 10,
            _ => digit & 0xf,
        };
        let mut octets = [0; DIGITS / 2];
        for (octet, pair) in octets.iter_mut().zip(self.0.chunks_exact(2)) {
            *octet = value(pair[0]) << 4 | value(pair[1]);
        }
        octets
    }

    pub fn from_octets(octets: &[u8; DIGITS / 2]) -> Self {
        let mut digits = [b'0'; DIGITS];
        for (pair, octet) in digits.chunks_exact_mut(2).zip(octets) {
            pair[0] = hex_digit(octet >> 4);
            pair[1] = hex_digit(octet & 0xf);
        }
        Self(digits)
    }
}

fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("a hash is 64 lower-case hex digits"))
    }
}

/// Completes the JSON object `out[start..]`, which comes after a line with the hash `before`:
/// adds its hash as the last field and a newline. Returns that hash.
pub(crate) fn seal(out: &mut Vec<u8>, start: usize, before: &Hash) -> Hash {
    // The object's closing brace.
    out.pop();
    let hash = Hash::of(before, out.get(start..).unwrap_or_default());
    out.extend_from_slice(OPENING);
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(CLOSING);
    out.push(b'\n');
    hash
}

/// What a line says of itself, without its newline.
pub(crate) enum Link {
    /// It has no hash at its end.
    Absent,
    /// The hash at its end, and whether it is right after the line with the hash given.
    Stated { hash: Hash, fits: bool },
}

impl Link {
    pub(crate) fn of(line: &[u8], before: &Hash) -> Self {
        let split = line
            .len()
            .checked_sub(OPENING.len() + DIGITS + CLOSING.len());
        let Some((content, end)) = split.and_then(|at| line.split_at_checked(at)) else {
            return Self::Absent;
        };
        let digits = end
            .strip_prefix(OPENING)
            .and_then(|end| end.strip_suffix(CLOSING));
        match digits.and_then(Hash::parse) {
            Some(hash) => Self::Stated {
                hash,
                fits: Hash::of(before, content) == hash,
            },
            None => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf '%064d{"seq":1' 0 | sha256sum`.
    const FIRST: &str = "edd7bbf300ddb9d140940b17b11365df850931012f4a356f7a5c3015e0f0d0f2";

    #[test]
    fn a_sealed_line_can_be_checked_with_other_tools() {
        let mut line = br#"{"seq":1}"#.to_vec();
        let hash = seal(&mut line, 0, &Hash::NONE);
        assert_eq!(hash.to_string(), FIRST);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text, format!("{{\"seq\":1,\"hash\":\"{FIRST}\"}}\n"));
    }

    #[test]
    fn any_change_of_a_line_or_of_its_predecessor_shows() {
        let mut line = br#"{"seq":1,"kind":"start"}"#.to_vec();
        let hash = seal(&mut line, 0, &Hash::NONE);
        line.pop();
        let fits = |line: &[u8], before| match Link::of(line, before) {
            Link::Stated { fits, .. } => fits,
            Link::Absent => false,
        };
        assert!(fits(&line, &Hash::NONE));
        assert!(!fits(&line, &hash));
        for at in 0..line.len() {
            let mut changed = line.clone();
            changed[at] ^= 1;
            assert!(!fits(&changed, &Hash::NONE), "octet {at}");
            assert!(!fits(&line[..at], &Hash::NONE), "cut at {at}");
        }
    }

    #[test]
    fn a_hash_survives_the_wire() {
        let hash = Hash::of(&Hash::NONE, b"anything");
        assert_eq!(Hash::from_octets(&hash.octets()), hash);
        assert_eq!(Hash::parse(hash.to_string().as_bytes()), Some(hash));
        assert_eq!(Hash::parse(b"00"), None);
        assert_eq!(Hash::parse(&[b'G'; 64]), None);
    }
}
