//! What a certificate says, for people and for lists.

use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::hex;
use crate::identity::Identity;
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
            fingerprint: hex::upper_with_colons(sha256(der).as_ref()),
            key_hash: key_hash(certificate.public_key().raw),
            is_ca: certificate.is_ca(),
        })
    }
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
    Ok(certificate)
}

fn sha256(octets: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, octets)
}

/// Why octets are not a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not a DER X.509 certificate")]
    Malformed,
    #[error("{octets} octets follow the certificate")]
    Trailing { octets: usize },
}
