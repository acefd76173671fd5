//! Keys that sign, known by themselves: ECDSA with P-256 and SHA-256 (FIPS 186-5), ASN.1, as TLS 1.3's
//! `ecdsa_secp256r1_sha256`. What they sign begins with a word that no handshake has.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, ParsedPublicKey,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// A key that signs.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

impl Signer {
    /// Of a private key (PKCS#8, DER); none where it is not one on P-256.
    pub fn new(key_der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_der)
            .ok()
            .map(Self)
    }

    pub fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        let signature = self.0.sign(&SystemRandom::new(), text).ok()?;
        Some(signature.as_ref().to_vec())
    }
}

/// A public key on P-256, known by itself and by no certificate. Its text is `p256:` and the
/// uncompressed point (SEC 1, 2.3.3) in Base64; there is one text for a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; Self::LEN]);

impl PublicKey {
    const LEN: usize = 65;
    const PREFIX: &str = "p256:";

    /// Of an uncompressed point; none where it is not one on P-256.
    pub fn new(point: &[u8]) -> Option<Self> {
        let octets = point.try_into().ok().map(Self)?;
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        (point.first() == Some(&UNCOMPRESSED) && parsed.is_ok()).then_some(octets)
    }

    /// True if `signature` over `text` is by this key.
    pub fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(text, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let point = text
            .strip_prefix(Self::PREFIX)
            .and_then(|encoded| BASE64.decode(encoded).ok());
        point
            .and_then(|point| Self::new(&point))
            .ok_or_else(|| PublicKeyError(text.chars().take(128).collect()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a public key: `p256:` and 88 characters, as `fieldlock policy key` prints it"
)]
pub struct PublicKeyError(String);

/// First octet of an uncompressed point (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    #[test]
    fn a_public_key_has_one_text() {
        let key = KeyPair::generate().unwrap();
        let public = PublicKey::new(key.der_bytes()).unwrap();
        let text = public.to_string();
        assert!(Signer::new(b"no key").is_none());
        assert_eq!(text.parse(), Ok(public));
        let signature = Signer::new(&key.serialize_der()).unwrap().sign(b"text");
        assert!(public.has_signed(b"text", &signature.clone().unwrap()));
        assert!(!public.has_signed(b"texts", &signature.unwrap()));

        let off_the_curve = {
            let mut point = key.der_bytes().to_vec();
            point[64] ^= 1;
            point
        };
        assert_eq!(PublicKey::new(&off_the_curve), None);
        assert_eq!(PublicKey::new(&key.der_bytes()[1..]), None);
        for wrong in [
            "",
            "p256:",
            &text[5..],
            &text.replace("p256", "P256"),
            &format!(" {text}"),
            &format!("{text}\n"),
            text.trim_end_matches('='),
        ] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong:?}");
        }
    }
}
