//! What a CA hands over for one leaf: one PEM file with everything an agent needs.

use pem::{EncodeConfig, LineEnding, Pem};
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::certificate::{self, CertificateError};
use crate::crl::{Crl, CrlError};
use crate::identity::{Identity, IdentityError};
use crate::serial::Serial;

/// Leaf, issuing CA, root, and the CRLs of both CAs, all DER, in the order of the PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub leaf: Vec<u8>,
    pub issuing: Vec<u8>,
    pub root: Vec<u8>,
    /// Of the issuing CA (which lists leaves), then of the root (which lists issuing CAs).
    pub crls: [Vec<u8>; 2],
}

/// What a checked bundle proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub identity: Identity,
    pub issuing_crl: Crl,
    pub root_crl: Crl,
}

impl Bundle {
    /// Longest PEM text taken, in octets: enough for a CRL of some 200,000 entries.
    pub const MAX_PEM: usize = 16 << 20;

    /// Reads the PEM file: exactly five blocks in the order of the fields. Text between the
    /// blocks is ignored. Signatures are not looked at: that is [`Bundle::check`].
    pub fn parse(pem: &str) -> Result<Self, BundleError> {
        let blocks = blocks(pem)?;
        let tags: Vec<&str> = blocks.iter().map(Pem::tag).collect();
        if tags != [CERTIFICATE, CERTIFICATE, CERTIFICATE, X509_CRL, X509_CRL] {
            return Err(BundleError::Shape {
                found: tags.join(", "),
            });
        }
        let mut ders = blocks.into_iter().map(Pem::into_contents);
        let mut next = || ders.next().unwrap_or_default();
        Ok(Self {
            leaf: next(),
            issuing: next(),
            root: next(),
            crls: [next(), next()],
        })
    }

    pub fn to_pem(&self) -> String {
        let mut text = String::new();
        for der in [&self.leaf, &self.issuing, &self.root] {
            text.push_str(&certificate_pem(der));
        }
        for der in &self.crls {
            text.push_str(&crl_pem(der));
        }
        text
    }

    /// Proves everything that does not depend on the time: each signature, each CA's right to
    /// sign, the site's name constraint, both CRLs, and that neither leaf nor issuing CA is
    /// revoked.
    pub fn verify(&self) -> Result<Proof, BundleError> {
        let leaf = parse(&self.leaf, Part::Leaf)?;
        let issuing = parse(&self.issuing, Part::Issuing)?;
        let root = parse(&self.root, Part::Root)?;
        signed(&root, Part::Root, &root, None)?;
        signed(&issuing, Part::Issuing, &root, None)?;
        signed(&leaf, Part::Leaf, &issuing, Some(0))?;

        let identity = Identity::from_parsed(&leaf)?;
        check_constraint(&issuing, &identity)?;

        let [issuing_crl, root_crl] = &self.crls;
        let issuing_crl = crl(issuing_crl, &issuing, Part::Issuing)?;
        let root_crl = crl(root_crl, &root, Part::Root)?;
        not_revoked(&leaf, Part::Leaf, &issuing_crl)?;
        not_revoked(&issuing, Part::Issuing, &root_crl)?;
        Ok(Proof {
            identity,
            issuing_crl,
            root_crl,
        })
    }

    /// [`Bundle::verify`], and every certificate and CRL is current at `now` (seconds since
    /// 1970-01-01 UTC).
    pub fn check(&self, now: i64) -> Result<Proof, BundleError> {
        let proof = self.verify()?;
        for (der, part) in [
            (&self.leaf, Part::Leaf),
            (&self.issuing, Part::Issuing),
            (&self.root, Part::Root),
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

/// `below` is how many CAs stand between the signer and the leaf of the chain.
fn signed(
    certificate: &X509Certificate<'_>,
    part: Part,
    signer: &X509Certificate<'_>,
    below: Option<u32>,
) -> Result<(), BundleError> {
    let untrusted = || BundleError::Signature { part };
    if certificate.issuer().as_raw() != signer.subject().as_raw() {
        return Err(untrusted());
    }
    let constraints = signer
        .basic_constraints()
        .ok()
        .flatten()
        .ok_or_else(untrusted)?
        .value;
    let may_sign = signer
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.value.key_cert_sign());
    let deep_enough = match (constraints.path_len_constraint, below) {
        (Some(length), Some(below)) => length >= below,
        (Some(length), None) => length >= 1,
        (None, _) => true,
    };
    if !constraints.ca || !may_sign || !deep_enough {
        return Err(untrusted());
    }
    certificate
        .verify_signature(Some(signer.public_key()))
        .map_err(|_| untrusted())
}

/// The issuing CA may name its own site and nothing else.
fn check_constraint(issuing: &X509Certificate<'_>, identity: &Identity) -> Result<(), BundleError> {
    let site = identity.site.as_str();
    let constraints = issuing.name_constraints().ok().flatten();
    let permitted = constraints.and_then(|extension| extension.value.permitted_subtrees.as_ref());
    let only_site = permitted.is_some_and(|subtrees| {
        !subtrees.is_empty()
            && subtrees
                .iter()
                .all(|subtree| matches!(&subtree.base, GeneralName::DNSName(name) if *name == site))
    });
    if only_site {
        Ok(())
    } else {
        Err(BundleError::Constraint {
            site: site.to_owned(),
        })
    }
}

fn crl(der: &[u8], authority: &X509Certificate<'_>, part: Part) -> Result<Crl, BundleError> {
    Crl::signed_by_parsed(der, authority).map_err(|error| BundleError::Crl { part, error })
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

fn check_dates(certificate: &X509Certificate<'_>, part: Part, now: i64) -> Result<(), BundleError> {
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
        "a bundle is the certificates of agent, issuing CA and root, then the CRLs of issuing CA and root; found: {found}"
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
    #[error("the issuing CA is not constrained to the site {site}")]
    Constraint { site: String },
    #[error("the CRL of the {part}: {error}")]
    Crl { part: Part, error: CrlError },
    #[error("the {part} with serial {serial} is revoked")]
    Revoked { part: Part, serial: Serial },
    #[error(
        "the {part} is not valid yet (clock: {now}, valid from {not_before}): is this machine's clock right?"
    )]
    NotYetValid {
        part: Part,
        not_before: i64,
        now: i64,
    },
    #[error("the {part} has expired (clock: {now}, valid until {not_after})")]
    Expired {
        part: Part,
        not_after: i64,
        now: i64,
    },
    #[error(
        "the CRL of the {part} is out of date (clock: {now}, next one due {next_update}): get a fresh one from the CA with `fieldlock ca crl`"
    )]
    CrlStale {
        part: Part,
        next_update: i64,
        now: i64,
    },
}

pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const X509_CRL: &str = "X509 CRL";
