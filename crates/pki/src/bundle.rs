//! What a CA hands over for one leaf: one PEM file with everything an agent needs.

use pem::{EncodeConfig, LineEnding, Pem};
use x509_parser::prelude::X509Certificate;

use crate::certificate::{self, CertificateError};
use crate::clock::date;
use crate::crl::Crl;
use crate::identity::{Identity, IdentityError};
use crate::serial::Serial;
use crate::trust::{TrustList, TrustListError};

/// A leaf and the trust list of its site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// DER.
    pub leaf: Vec<u8>,
    pub trust: TrustList,
}

/// What a checked bundle proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub identity: Identity,
    /// The CA that signed the leaf, DER, and the root above it.
    pub issuing: Vec<u8>,
    pub root: Vec<u8>,
    pub issuing_crl: Crl,
    pub root_crl: Crl,
}

impl Bundle {
    /// Longest PEM text taken, in octets: enough for a CRL of some 200,000 entries.
    pub const MAX_PEM: usize = 16 << 20;

    /// Reads the PEM file: the leaf, then CAs and CRLs in any order. Text between the blocks is
    /// ignored. Signatures are not looked at: that is [`Bundle::check`].
    pub fn parse(pem: &str) -> Result<Self, BundleError> {
        let mut blocks = blocks(pem)?;
        if blocks.len() < 5 || blocks.first().is_none_or(|leaf| leaf.tag() != CERTIFICATE) {
            let tags: Vec<&str> = blocks.iter().map(Pem::tag).collect();
            return Err(BundleError::Shape {
                found: tags.join(", "),
            });
        }
        let leaf = blocks.remove(0).into_contents();
        let trust = TrustList::from_blocks(blocks)?;
        Ok(Self { leaf, trust })
    }

    /// The leaf, the CA that signed it, then the rest of the trust list.
    pub fn to_pem(&self) -> String {
        let signer = self.trust.issuer_of(&self.leaf);
        let mut rest = self.trust.clone();
        rest.issuing.retain(|der| Some(der.as_slice()) != signer);
        let signer = signer.map(certificate_pem).unwrap_or_default();
        certificate_pem(&self.leaf) + &signer + &rest.to_pem()
    }

    /// Proves everything that does not depend on the time: the trust list, the leaf's signature
    /// and names, and that neither leaf nor issuing CA is revoked.
    pub fn verify(&self) -> Result<Proof, BundleError> {
        let leaf = parse(&self.leaf, Part::Leaf)?;
        let identity = Identity::from_parsed(&leaf)?;
        self.trust.verify(&identity.site)?;
        let signed_by = |part| BundleError::Signature { part };
        let issuing = self
            .trust
            .issuer_of(&self.leaf)
            .ok_or(signed_by(Part::Leaf))?;
        let root = self
            .trust
            .root_of(issuing)
            .ok_or(signed_by(Part::Issuing))?;
        // Each CA of a verified list has its CRL.
        let crl = |authority, part| self.trust.crl_of(authority).ok_or(signed_by(part));
        let issuing_crl = crl(issuing, Part::Issuing)?;
        let root_crl = crl(root, Part::Root)?;
        not_revoked(&leaf, Part::Leaf, &issuing_crl)?;
        not_revoked(&parse(issuing, Part::Issuing)?, Part::Issuing, &root_crl)?;
        Ok(Proof {
            identity,
            issuing: issuing.to_vec(),
            root: root.to_vec(),
            issuing_crl,
            root_crl,
        })
    }

    /// [`Bundle::verify`], and the certificates and CRLs of the leaf's chain are current at `now`
    /// (seconds since 1970-01-01 UTC).
    pub fn check(&self, now: i64) -> Result<Proof, BundleError> {
        let proof = self.verify()?;
        for (der, part) in [
            (&self.leaf, Part::Leaf),
            (&proof.issuing, Part::Issuing),
            (&proof.root, Part::Root),
        ] {
            check_dates(&parse(der, part)?, part, now)?;
        }
        for (crl, part) in [
            (&proof.issuing_crl, Part::Issuing),
            (&proof.root_crl, Part::Root),
        ] {
            if now > crl.next_update {
                return Err(BundleError::CrlStale {
                    part,
                    next_update: crl.next_update,
                    now,
                });
            }
        }
        Ok(proof)
    }
}

/// One certificate as a PEM block.
pub fn certificate_pem(der: &[u8]) -> String {
    encode(CERTIFICATE, der)
}

/// One CRL as a PEM block.
pub fn crl_pem(der: &[u8]) -> String {
    encode(X509_CRL, der)
}

/// The DER of every certificate in a PEM file that holds nothing else.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<Vec<u8>>, BundleError> {
    all_of(pem, CERTIFICATE)
}

/// The DER of every CRL in a PEM file that holds nothing else.
pub fn crls_from_pem(pem: &str) -> Result<Vec<Vec<u8>>, BundleError> {
    all_of(pem, X509_CRL)
}

fn all_of(pem: &str, tag: &str) -> Result<Vec<Vec<u8>>, BundleError> {
    let blocks = blocks(pem)?;
    if blocks.is_empty() || blocks.iter().any(|block| block.tag() != tag) {
        return Err(BundleError::NotAll {
            wanted: tag.to_owned(),
        });
    }
    Ok(blocks.into_iter().map(Pem::into_contents).collect())
}

pub(crate) fn blocks(text: &str) -> Result<Vec<Pem>, BundleError> {
    if text.len() > Bundle::MAX_PEM {
        return Err(BundleError::TooLong { octets: text.len() });
    }
    pem::parse_many(text).map_err(|_| BundleError::NotPem)
}

fn encode(tag: &str, der: &[u8]) -> String {
    let unix = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(tag, der), unix)
}

fn parse(der: &[u8], part: Part) -> Result<X509Certificate<'_>, BundleError> {
    certificate::parse(der).map_err(|error| BundleError::Certificate { part, error })
}

fn not_revoked(
    certificate: &X509Certificate<'_>,
    part: Part,
    crl: &Crl,
) -> Result<(), BundleError> {
    let serial = Serial::from_octets(certificate.raw_serial());
    if crl.is_revoked(&serial) {
        return Err(BundleError::Revoked { part, serial });
    }
    Ok(())
}

pub(crate) fn check_dates(
    certificate: &X509Certificate<'_>,
    part: Part,
    now: i64,
) -> Result<(), BundleError> {
    let not_before = certificate.validity().not_before.timestamp();
    let not_after = certificate.validity().not_after.timestamp();
    if now < not_before {
        return Err(BundleError::NotYetValid {
            part,
            not_before,
            now,
        });
    }
    if now > not_after {
        return Err(BundleError::Expired {
            part,
            not_after,
            now,
        });
    }
    Ok(())
}

/// A certificate of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Leaf,
    Issuing,
    Root,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Leaf => "agent's certificate",
            Part::Issuing => "issuing CA",
            Part::Root => "root",
        })
    }
}

/// Why a bundle proves nothing. Times are seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("{octets} octets of PEM are more than the {max} allowed", max = Bundle::MAX_PEM)]
    TooLong { octets: usize },
    #[error("it is not PEM")]
    NotPem,
    #[error(
        "a bundle is the agent's certificate, then those of its CAs, then their CRLs; found: {found}"
    )]
    Shape { found: String },
    #[error("expected PEM blocks `{wanted}` and no others")]
    NotAll { wanted: String },
    #[error("the {part}: {error}")]
    Certificate { part: Part, error: CertificateError },
    #[error("the {part} is not signed by its CA, or that CA had no right to sign it")]
    Signature { part: Part },
    #[error("the agent's certificate: {0}")]
    Identity(#[from] IdentityError),
    #[error("the trust list: {0}")]
    Trust(#[from] TrustListError),
    #[error("the {part} with serial {serial} is revoked")]
    Revoked { part: Part, serial: Serial },
    #[error(
        "the {part} is not valid before {}, and it is {}: is this machine's clock right?",
        date(*not_before),
        date(*now)
    )]
    NotYetValid {
        part: Part,
        not_before: i64,
        now: i64,
    },
    #[error("the {part} expired on {}, and it is {}", date(*not_after), date(*now))]
    Expired {
        part: Part,
        not_after: i64,
        now: i64,
    },
    #[error(
        "the CRL of the {part} is out of date (the next one was due on {}, and it is {}): get a fresh one from the CA with `fieldlock ca crl`",
        date(*next_update),
        date(*now)
    )]
    CrlStale {
        part: Part,
        next_update: i64,
        now: i64,
    },
}

pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const X509_CRL: &str = "X509 CRL";
