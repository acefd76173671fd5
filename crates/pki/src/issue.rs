//! Signing: certificates of CAs and leaves, and CRLs. Serials and times come from the caller.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, RevocationReason, RevokedCertParams,
    SanType, SerialNumber, SigningKey,
};
use time::OffsetDateTime;

use crate::certificate::{self, Summary};
use crate::csr::PublicKey;
use crate::identity::{Identity, Site};
use crate::modbus_role::{self, ModbusRole};
use crate::profile::{Profile, Usage};
use crate::serial::Serial;

/// From and until when, both inclusive, in seconds since 1970-01-01 UTC, not before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// The private key of a CA: in memory, or where it can be used and not be read.
pub trait CaKey: SigningKey + Send + Sync {
    /// Why the last signature failed with [`rcgen::Error::RemoteKeyError`], which can't say it.
    fn failure(&self) -> Option<KeyFailure> {
        None
    }
}

impl CaKey for KeyPair {}

/// See [`CaKey::failure`].
pub type KeyFailure = Box<dyn std::error::Error + Send + Sync>;

/// A certificate authority that can sign: its certificate and its private key.
pub struct Authority {
    certificate: Vec<u8>,
    key: Box<dyn CaKey>,
}

impl Authority {
    /// `certificate` is DER and must be for `key`.
    pub fn new(certificate: Vec<u8>, key: Box<dyn CaKey>) -> Result<Self, IssueError> {
        let hash = certificate::key_hash(&key.subject_public_key_info());
        match Summary::of(&certificate) {
            Ok(summary) if summary.key_hash == hash => Ok(Self { certificate, key }),
            _ => Err(IssueError::OtherKey),
        }
    }

    /// A new root. `mark` tells this generation of CAs from others of the site: a CA is looked up
    /// by its subject, so no two may share one.
    pub fn root(
        site: &Site,
        mark: &str,
        key: Box<dyn CaKey>,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        let mut parameters = authority_parameters(site, "root", mark, serial, validity)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let certificate = parameters.self_signed(&&*key);
        let certificate = certificate.map_err(|error| IssueError::of(&*key, error))?;
        Ok(Self {
            certificate: certificate.der().to_vec(),
            key,
        })
    }

    /// Signs the certificate of an issuing CA, which may name `site` and sign leaves only.
    pub fn issuing(
        &self,
        site: &Site,
        mark: &str,
        key: Box<dyn CaKey>,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        let parameters = issuing_parameters(site, mark, serial, validity)?;
        let certificate = self.sign(&parameters, &&*key)?;
        Ok(Self { certificate, key })
    }

    /// The same for a key that is elsewhere; DER.
    pub fn issuing_for(
        &self,
        site: &Site,
        mark: &str,
        key: &PublicKey,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        let parameters = issuing_parameters(site, mark, serial, validity)?;
        self.sign(&parameters, &key.info)
    }

    /// Certifies the key of a newer root, so that who trusts this root can follow to that one
    /// ("NewWithOld" of RFC 4210, section 4.4). `site` and `mark` are those of `newer`.
    pub fn link(
        &self,
        newer: &Authority,
        site: &Site,
        mark: &str,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        let mut parameters = authority_parameters(site, "root", mark, serial, validity)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        self.sign(&parameters, &&*newer.key)
    }

    /// Signs a leaf made of `identity`, `modbus_role` and `profile` alone, for `key`.
    pub fn leaf(
        &self,
        identity: &Identity,
        modbus_role: Option<&ModbusRole>,
        profile: &Profile,
        key: &PublicKey,
        serial: &Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        let mut parameters = parameters(serial, validity)?;
        parameters.distinguished_name = distinguished_name(&identity.site, identity.name.as_str());
        // "Explicit" also writes the subject key identifier.
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match profile.usage {
            Usage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.subject_alt_names = vec![
            SanType::URI(identity.uri().try_into()?),
            SanType::DnsName(identity.dns().try_into()?),
        ];
        let role_extension =
            |role: &ModbusRole| CustomExtension::from_oid_content(modbus_role::OID, role.to_der());
        parameters.custom_extensions = modbus_role.map(role_extension).into_iter().collect();
        self.sign(&parameters, &key.info)
    }

    /// Signs a complete CRL (DER).
    pub fn crl(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        let revoked = |entry: &Revocation| {
            Ok(RevokedCertParams {
                serial_number: serial_number(&entry.serial),
                revocation_time: date(entry.time)?,
                reason_code: entry.reason.code(),
                invalidity_date: None,
            })
        };
        let parameters = CertificateRevocationListParams {
            this_update: date(list.this_update)?,
            next_update: date(list.next_update)?,
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: list
                .revoked
                .iter()
                .map(revoked)
                .collect::<Result<_, IssueError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = parameters.signed_by(&self.issuer()?);
        let crl = crl.map_err(|error| IssueError::of(&*self.key, error))?;
        Ok(crl.der().to_vec())
    }

    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    fn sign(
        &self,
        parameters: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Vec<u8>, IssueError> {
        let certificate = parameters.signed_by(key, &self.issuer()?);
        let certificate = certificate.map_err(|error| IssueError::of(&*self.key, error))?;
        Ok(certificate.der().to_vec())
    }

    fn issuer(&self) -> Result<Issuer<'_, &dyn CaKey>, IssueError> {
        Ok(Issuer::from_ca_cert_der(
            &self.certificate.as_slice().into(),
            &*self.key,
        )?)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = certificate::parse(&self.certificate)
            .map(|certificate| certificate.subject().to_string())
            .unwrap_or_default();
        f.debug_struct("Authority")
            .field("subject", &subject)
            .finish_non_exhaustive()
    }
}

/// What a CRL will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    pub number: u64,
    /// Seconds since 1970-01-01 UTC.
    pub this_update: i64,
    /// Seconds since 1970-01-01 UTC.
    pub next_update: i64,
    pub revoked: Vec<Revocation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub serial: Serial,
    /// Seconds since 1970-01-01 UTC.
    pub time: i64,
    pub reason: Reason,
}

/// Why a certificate is revoked (RFC 5280, 5.3.1; those that make sense for a leaf).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl Reason {
    pub const ALL: [Reason; 6] = [
        Reason::Unspecified,
        Reason::KeyCompromise,
        Reason::AffiliationChanged,
        Reason::Superseded,
        Reason::CessationOfOperation,
        Reason::PrivilegeWithdrawn,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unspecified => "unspecified",
            Reason::KeyCompromise => "key-compromise",
            Reason::AffiliationChanged => "affiliation-changed",
            Reason::Superseded => "superseded",
            Reason::CessationOfOperation => "cessation-of-operation",
            Reason::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    /// "Unspecified" is said by leaving the code out (RFC 5280, 5.3.1).
    fn code(self) -> Option<RevocationReason> {
        match self {
            Reason::Unspecified => None,
            Reason::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Reason::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Reason::Superseded => Some(RevocationReason::Superseded),
            Reason::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
            Reason::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn authority_parameters(
    site: &Site,
    what: &str,
    mark: &str,
    serial: &Serial,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut parameters = parameters(serial, validity)?;
    parameters.distinguished_name = distinguished_name(site, &format!("Fieldlock {what} {mark}"));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn issuing_parameters(
    site: &Site,
    mark: &str,
    serial: &Serial,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut parameters = authority_parameters(site, "issuing CA", mark, serial, validity)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Only DNS: verifiers refuse every URI below a CA with a URI constraint.
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(site.to_string())],
        excluded_subtrees: Vec::new(),
    });
    Ok(parameters)
}

/// Every field that has a default worth avoiding is set here: dates, serial, subject, AKI.
fn parameters(serial: &Serial, validity: Validity) -> Result<CertificateParams, IssueError> {
    if validity.not_before > validity.not_after {
        return Err(IssueError::Backwards);
    }
    let mut parameters = CertificateParams::default();
    parameters.not_before = date(validity.not_before)?;
    parameters.not_after = date(validity.not_after)?;
    parameters.serial_number = Some(serial_number(serial));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn distinguished_name(site: &Site, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // An organization has at most 64 characters (RFC 5280, appendix A); a site may have more.
    if site.as_str().len() <= 64 {
        name.push(DnType::OrganizationName, site.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn serial_number(serial: &Serial) -> SerialNumber {
    SerialNumber::from_slice(serial.as_octets())
}

fn date(seconds: i64) -> Result<OffsetDateTime, IssueError> {
    // Before 1970 is a clock that was never set.
    if seconds < 0 {
        return Err(IssueError::Date(seconds));
    }
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Date(seconds))
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the certificate of the CA is not for this key")]
    OtherKey,
    #[error("the certificate would end before it begins")]
    Backwards,
    #[error("{0} seconds since 1970 is no date that a certificate can carry")]
    Date(i64),
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("signing failed: {0}")]
    Key(KeyFailure),
}

impl IssueError {
    /// Why `key` did not sign.
    pub fn of(key: &dyn CaKey, error: rcgen::Error) -> Self {
        let failure = match error {
            rcgen::Error::RemoteKeyError => key.failure(),
            _ => None,
        };
        failure.map_or(IssueError::Sign(error), IssueError::Key)
    }
}
