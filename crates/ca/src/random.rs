//! What is drawn at random: serial numbers, and the marks in the names of CAs.

use fieldlock_pki::Serial;

use crate::error::CaError;

/// 16 random octets, positive and without a leading zero.
pub(crate) fn random_serial() -> Result<Serial, CaError> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| CaError::Random)?;
    let [first, ..] = &mut octets;
    *first = (*first & 0x7f) | 0x40;
    Ok(Serial::from_octets(&octets))
}

/// Eight hexadecimal digits in the names of both CAs. Verifiers find a CA's CRL by its name, so
/// two generations of one site must not share it.
pub(crate) fn new_mark() -> Result<String, CaError> {
    let serial = random_serial()?.to_string();
    Ok(serial.chars().rev().take(8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_of_full_length() {
        for _ in 0..200 {
            let text = random_serial().unwrap().to_string();
            assert_eq!(text.len(), 32, "{text}");
            assert!(
                ('4'..='7').contains(&text.chars().next().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn marks_are_eight_hexadecimal_digits_and_differ() {
        let (one, other) = (new_mark().unwrap(), new_mark().unwrap());
        for mark in [&one, &other] {
            assert_eq!(mark.len(), 8, "{mark}");
            assert!(
                mark.bytes().all(|octet| octet.is_ascii_hexdigit()),
                "{mark}"
            );
        }
        assert_ne!(one, other);
    }
}
