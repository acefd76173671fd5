//! What a certificate says, for people and for lists.

use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::hex;
use crate::identity::Identity;
use crate::modbus_role::{ModbusRole, ModbusRoleError};
use crate::serial::Serial;

/// The fields of a certificate that anyone here asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub subject: String,
    pub issuer: String,
    pub serial: Serial,
    /// Seconds since 1970-01-01 UTC.
    pub not_before: i64,
    /// Seconds since 1970-01-01 UTC; the certificate is valid up to and including this second.
    pub not_after: i64,
    /// `None` for a CA, and for a leaf that is not one of ours.
    pub identity: Option<Identity>,
    /// Only one that can be read; a leaf with another has no identity either.
    pub modbus_role: Option<ModbusRole>,
    /// SHA-256 of the certificate as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// SHA-256 of the SubjectPublicKeyInfo in lower-case hexadecimal: the same key has the same
    /// hash in any certificate or request.
    pub key_hash: String,
    pub is_ca: bool,
}

impl Summary {
    pub fn of(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: Serial::from_octets(certificate.raw_serial()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            identity: Identity::from_parsed(&certificate).ok(),
            modbus_role: ModbusRole::from_parsed(&certificate).ok().flatten(),
            fingerprint: fingerprint(der),
            key_hash: key_hash(certificate.public_key().raw),
            is_ca: certificate.is_ca(),
        })
    }
}

/// SHA-256 of a certificate.
pub fn hash(der: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(sha256(der).as_ref());
    hash
}

/// SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(der: &[u8]) -> String {
    hex::upper_with_colons(sha256(der).as_ref())
}

/// The hash by which a public key is recognised: SHA-256 of its DER SubjectPublicKeyInfo.
pub fn key_hash(subject_public_key_info: &[u8]) -> String {
    hex::lower(sha256(subject_public_key_info).as_ref())
}

/// Parses one DER certificate and nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Trailing { octets: rest.len() });
    }
    let tbs = &certificate.tbs_certificate;
    let plain = is_plainly_signed(der, tbs.as_ref())
        && certificate.signature_algorithm == tbs.signature
        && certificate.signature_value.unused_bits == 0;
    if !plain {
        return Err(CertificateError::Algorithm);
    }
    Ok(certificate)
}

/// True if the signed object `der` (a certificate or CRL around `tbs`) names one of our signature
/// algorithms in its one right encoding. The name stands outside what is signed: a parser that
/// takes a second spelling would give one certificate several fingerprints.
pub(crate) fn is_plainly_signed(der: &[u8], tbs: &[u8]) -> bool {
    // The outer SEQUENCE: a tag, a length of one octet or of up to three more.
    let header = match der.get(1) {
        Some(0x00..=0x7f) => 2,
        Some(0x81) => 3,
        Some(0x82) => 4,
        Some(0x83) => 5,
        _ => return false,
    };
    let signature = der
        .get(header..)
        .and_then(|content| content.strip_prefix(tbs));
    signature.is_some_and(|rest| SIGNATURES.iter().any(|name| rest.starts_with(name)))
}

pub(crate) fn sha256(octets: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, octets)
}

/// Why octets are not a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not a DER X.509 certificate")]
    Malformed,
    #[error("{octets} octets follow the certificate")]
    Trailing { octets: usize },
    #[error("it is not signed with ECDSA (SHA-256, SHA-384) or Ed25519")]
    Algorithm,
    #[error(transparent)]
    ModbusRole(#[from] ModbusRoleError),
}

/// AlgorithmIdentifiers in DER, each with the tag of the signature's BIT STRING after it.
const SIGNATURES: [&[u8]; 3] = [
    // ecdsa-with-SHA256, RFC 5758
    &[
        0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x03,
    ],
    // ecdsa-with-SHA384, RFC 5758
    &[
        0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03, 0x03,
    ],
    // id-Ed25519, RFC 8410
    &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03],
];
