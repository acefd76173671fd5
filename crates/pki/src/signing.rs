//! Signatures of agents over something that is not a certificate.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use crate::certificate;

/// True if `signature` over `text` is by the key of the certificate `leaf` (DER): ECDSA with P-256 and
/// SHA-256, ASN.1.
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
    use rcgen::{CertificateParams, KeyPair, SigningKey as _};

    use super::*;

    #[test]
    fn only_the_key_of_the_certificate_signs_for_it() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["press-07".to_owned()]).unwrap();
        let leaf = params.self_signed(&key).unwrap();
        let signature = key.sign(b"text").unwrap();
        assert!(is_signed_by(leaf.der(), b"text", &signature));
        assert!(!is_signed_by(leaf.der(), b"Text", &signature));
        assert!(!is_signed_by(leaf.der(), b"text", &signature[1..]));
        assert!(!is_signed_by(b"no certificate", b"text", &signature));

        let other = KeyPair::generate().unwrap();
        let signature = other.sign(b"text").unwrap();
        assert!(!is_signed_by(leaf.der(), b"text", &signature));
    }
}
