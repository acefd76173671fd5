//! Certificate revocation lists.

use std::collections::BTreeSet;

use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::certificate;
use crate::serial::Serial;

/// A complete CRL of one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    pub issuer: String,
    /// Rises with each CRL of a CA: a lower one is older.
    pub number: u64,
    /// Seconds since 1970-01-01 UTC.
    pub this_update: i64,
    /// Seconds since 1970-01-01 UTC; a newer list is due by then.
    pub next_update: i64,
    revoked: BTreeSet<Serial>,
}

impl Crl {
    pub fn parse(der: &[u8]) -> Result<Self, CrlError> {
        Self::from_parsed(&parse(der)?)
    }

    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains(serial)
    }

    pub fn revoked(&self) -> impl ExactSizeIterator<Item = &Serial> {
        self.revoked.iter()
    }

    /// Parses `der` and proves that `authority` (DER) signed it and was allowed to.
    pub fn signed_by(der: &[u8], authority: &[u8]) -> Result<Self, CrlError> {
        let authority = certificate::parse(authority).map_err(|_| CrlError::AuthorityMalformed)?;
        Self::signed_by_parsed(der, &authority)
    }

    pub(crate) fn signed_by_parsed(
        der: &[u8],
        authority: &X509Certificate<'_>,
    ) -> Result<Self, CrlError> {
        let crl = parse(der)?;
        if crl.issuer().as_raw() != authority.subject().as_raw() {
            return Err(CrlError::OtherIssuer {
                issuer: crl.issuer().to_string(),
                expected: authority.subject().to_string(),
            });
        }
        let may_sign = authority
            .key_usage()
            .ok()
            .flatten()
            .is_some_and(|usage| usage.value.crl_sign());
        if !may_sign || crl.verify_signature(authority.public_key()).is_err() {
            return Err(CrlError::Signature {
                issuer: crl.issuer().to_string(),
            });
        }
        Self::from_parsed(&crl)
    }

    fn from_parsed(crl: &CertificateRevocationList<'_>) -> Result<Self, CrlError> {
        // A critical extension means a delta, a partition or another issuer's entries: none of
        // them may be taken for the whole list.
        if crl.extensions().iter().any(|extension| extension.critical) {
            return Err(CrlError::Partial);
        }
        let number = crl
            .crl_number()
            .and_then(|number| u64::try_from(number as &BigUint).ok())
            .ok_or(CrlError::Number)?;
        let next_update = crl.next_update().ok_or(CrlError::NextUpdate)?;
        Ok(Self {
            issuer: crl.issuer().to_string(),
            number,
            this_update: crl.last_update().timestamp(),
            next_update: next_update.timestamp(),
            revoked: crl
                .iter_revoked_certificates()
                .map(|entry| Serial::from_octets(entry.raw_serial()))
                .collect(),
        })
    }
}

fn parse(der: &[u8]) -> Result<CertificateRevocationList<'_>, CrlError> {
    let Ok(([], crl)) = CertificateRevocationList::from_der(der) else {
        return Err(CrlError::Malformed);
    };
    let tbs = &crl.tbs_cert_list;
    let plain = certificate::is_plainly_signed(der, tbs.as_ref())
        && crl.signature_algorithm == tbs.signature
        && crl.signature_value.unused_bits == 0;
    if !plain {
        return Err(CrlError::Algorithm);
    }
    Ok(crl)
}

/// Why octets are not a CRL that may be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    #[error("it is not a DER certificate revocation list")]
    Malformed,
    #[error("it is not signed with ECDSA (SHA-256, SHA-384) or Ed25519")]
    Algorithm,
    #[error("it has no CRL number, or one above 64 bits")]
    Number,
    #[error("it does not say when the next one is due")]
    NextUpdate,
    #[error("it is a delta or partial list: only complete ones are accepted")]
    Partial,
    #[error("it was issued by {issuer:?}, expected {expected:?}")]
    OtherIssuer { issuer: String, expected: String },
    #[error("it is not signed by {issuer:?}")]
    Signature { issuer: String },
    #[error("the CA certificate to check it with can't be read")]
    AuthorityMalformed,
}
