//! Certificate requests: of what an asker sends, only the public key is taken.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key;

use crate::certificate;
use crate::identity::{Name, Role};
use crate::profile::KeyKind;

/// A public key whose owner has shown that he has the private one, or that was made here.
pub struct PublicKey {
    pub(crate) info: SubjectPublicKeyInfo,
    kind: KeyKind,
    /// Of an RSA key.
    bits: Option<u16>,
    hash: String,
}

impl PublicKey {
    /// Octets of PEM that are read: a request with the largest accepted key has under 2 KiB.
    pub const MAX_REQUEST: usize = 64 << 10;

    /// Reads a PEM certificate request (PKCS #10) and verifies its signature. The subject, names,
    /// extensions and attributes that it asks for are ignored.
    pub fn from_request(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > Self::MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        let blocks = pem::parse_many(pem).map_err(|_| RequestError::NotPem)?;
        let [block] = blocks.as_slice() else {
            return Err(RequestError::NotPem);
        };
        if !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&block.tag()) {
            return Err(RequestError::NotPem);
        }
        Self::from_request_der(block.contents())
    }

    /// The same of a DER request.
    pub fn from_request_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > Self::MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Trailing { octets: rest.len() });
        }
        let info = request.certification_request_info.subject_pki.raw;
        let key = Self::from_info(info)?;
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        Ok(key)
    }

    /// The public half of a key that was made here.
    pub fn of(key: &KeyPair) -> Result<Self, RequestError> {
        Self::from_info(&rcgen::PublicKeyData::subject_public_key_info(key))
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Size of an RSA key.
    pub fn rsa_bits(&self) -> Option<u16> {
        self.bits
    }

    /// See [`certificate::key_hash`].
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn from_info(der: &[u8]) -> Result<Self, RequestError> {
        let info = SubjectPublicKeyInfo::from_der(der).map_err(|_| RequestError::Key)?;
        let algorithm = rcgen::PublicKeyData::algorithm(&info);
        let mut bits = None;
        let kind = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            KeyKind::P256
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            KeyKind::P384
        } else if algorithm == &rcgen::PKCS_ED25519 {
            KeyKind::Ed25519
        } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
            bits = Some(rsa_bits(der).ok_or(RequestError::Key)?);
            KeyKind::Rsa
        } else {
            return Err(RequestError::Key);
        };
        // Hashed as it will stand in the certificate, not as the asker spelled it.
        let hash = certificate::key_hash(&rcgen::PublicKeyData::subject_public_key_info(&info));
        Ok(Self {
            info,
            kind,
            bits,
            hash,
        })
    }
}

/// Octets of the modulus without leading zeros, in bits; none for a key that is malformed.
fn rsa_bits(info: &[u8]) -> Option<u16> {
    let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(info).ok()?;
    match info.parsed().ok()? {
        public_key::PublicKey::RSA(key) => u16::try_from(key.key_size()).ok(),
        _ => None,
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("kind", &self.kind)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A PEM request for `key`. The subject tells the person at the CA who asks; it is not relied on.
pub fn request(key: &impl SigningKey, role: Role, name: &Name) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::OrganizationalUnitName, role.as_str());
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    parameters.serialize_request(key)?.pem()
}

/// Why a request gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the request has more than the {max} octets that are read", max = PublicKey::MAX_REQUEST)]
    TooLong,
    #[error("it is not one PEM block `CERTIFICATE REQUEST`")]
    NotPem,
    #[error("it is not a PKCS #10 certificate request")]
    Malformed,
    #[error("{octets} octets follow the request")]
    Trailing { octets: usize },
    #[error("its signature is wrong: it was damaged, or the asker does not have the key")]
    Signature,
    #[error("its key is of a kind that is not known here: use P-256, P-384 or Ed25519")]
    Key,
}
