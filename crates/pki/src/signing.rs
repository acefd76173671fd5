//! Signatures with an agent's key over something that is not a certificate.
//!
//! ECDSA with P-256 and SHA-256 (FIPS 186-5), ASN.1, as TLS 1.3's `ecdsa_secp256r1_sha256`: the
//! only kind of key that agents have. What is signed begins with a word that no handshake has.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};

use crate::certificate;

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

/// True if `signature` over `text` is by the key of the certificate `leaf` (DER).
pub fn is_signed_by(leaf: &[u8], text: &[u8], signature: &[u8]) -> bool {
    let Ok(leaf) = certificate::parse(leaf) else {
        return false;
    };
    let key = &leaf.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(text, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn only_the_key_of_the_certificate_signs_for_it() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["press-07".to_owned()]).unwrap();
        let leaf = params.self_signed(&key).unwrap();
        let signer = Signer::new(&key.serialize_der()).unwrap();
        let signature = signer.sign(b"text").unwrap();
        assert!(is_signed_by(leaf.der(), b"text", &signature));
        assert!(!is_signed_by(leaf.der(), b"Text", &signature));
        assert!(!is_signed_by(leaf.der(), b"text", &signature[1..]));
        assert!(!is_signed_by(b"no certificate", b"text", &signature));

        let other = Signer::new(&KeyPair::generate().unwrap().serialize_der()).unwrap();
        let signature = other.sign(b"text").unwrap();
        assert!(!is_signed_by(leaf.der(), b"text", &signature));
        assert!(Signer::new(b"no key").is_none());
    }
}
