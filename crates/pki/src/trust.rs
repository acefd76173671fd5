//! Whom an agent trusts: roots, issuing CAs, and a CRL of each.
//!
//! A list grows by [`TrustList::merge`], from whoever carries it: nothing is taken that a root
//! known before has not signed; the rest is left out. A new root comes in through a *link*, its key certified by an
//! older root ("NewWithOld" of RFC 4210, section 4.4). Only [`TrustList::replace`] drops anything;
//! it is for a list that came from the CA itself.

use std::fmt;

use pem::Pem;
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::bundle::{self, BundleError, Part};
use crate::certificate::{self, CertificateError};
use crate::crl::{Crl, CrlError};
use crate::identity::{Identity, Site};
use crate::serial::Serial;

/// DER objects, each kind sorted, so that equal lists are equal octets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustList {
    pub roots: Vec<Vec<u8>>,
    /// Keys of newer roots certified by older ones; the older one may have left the list.
    pub links: Vec<Vec<u8>>,
    pub issuing: Vec<Vec<u8>>,
    /// Exactly one for each root and issuing CA.
    pub crls: Vec<Vec<u8>>,
}

/// What a merge brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Empty: the list is what it was.
    pub news: Vec<News>,
    /// CRLs that were offered and are older than those in force.
    pub older: Vec<OlderCrl>,
    /// Subjects of CAs that no root of this list vouches for, and issuers of their CRLs: left out.
    pub foreign: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Root { fingerprint: String },
    Issuing { subject: String },
    Crl { issuer: String, number: u64 },
    Dropped { subject: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderCrl {
    pub issuer: String,
    pub number: u64,
    pub installed: u64,
}

/// Until when a CA's CRL is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlDates {
    pub authority: String,
    pub is_root: bool,
    pub number: u64,
    /// Seconds since 1970-01-01 UTC.
    pub this_update: i64,
    /// Seconds since 1970-01-01 UTC.
    pub next_update: i64,
}

impl TrustList {
    /// A site turns its CAs over every few years; what has more is not a site.
    pub const MAX_ROOTS: usize = 8;
    pub const MAX_ISSUING: usize = 32;

    /// Sorts PEM blocks into a list. It may be partial; nothing is proven before
    /// [`TrustList::verify`] or [`TrustList::merge`].
    pub fn parse(pem: &str) -> Result<Self, TrustListError> {
        Self::from_blocks(bundle::blocks(pem).map_err(Box::new)?)
    }

    pub(crate) fn from_blocks(blocks: Vec<Pem>) -> Result<Self, TrustListError> {
        let mut list = Self::default();
        for block in blocks {
            let place = match block.tag() {
                bundle::X509_CRL => &mut list.crls,
                bundle::CERTIFICATE => match Kind::of(block.contents())? {
                    Kind::Root => &mut list.roots,
                    Kind::Link => &mut list.links,
                    Kind::Issuing => &mut list.issuing,
                },
                tag => {
                    return Err(TrustListError::Block {
                        tag: tag.to_owned(),
                    });
                }
            };
            place.push(block.into_contents());
        }
        list.sort();
        Ok(list)
    }

    pub fn to_pem(&self) -> String {
        let certificates = [&self.roots, &self.links, &self.issuing];
        let certificates = certificates.into_iter().flatten();
        certificates
            .map(|der| bundle::certificate_pem(der))
            .chain(self.crls.iter().map(|der| bundle::crl_pem(der)))
            .collect()
    }

    /// Sorted, each object once, and without the older CRLs of a CA and those of no CA in it.
    pub fn tidy(mut self) -> Result<Self, TrustListError> {
        let offered = std::mem::take(&mut self.crls);
        self.sort();
        for der in offered {
            let one = Self {
                crls: vec![der],
                ..Self::default()
            };
            self.take_crls(&one, &mut Merged::default())?;
        }
        self.sort();
        Ok(self)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// SHA-256 over kinds, lengths and octets.
    pub fn hash(&self) -> [u8; 32] {
        let mut octets = Vec::new();
        for kind in [&self.roots, &self.links, &self.issuing, &self.crls] {
            octets.extend((kind.len() as u64).to_be_bytes());
            for der in kind {
                octets.extend((der.len() as u64).to_be_bytes());
                octets.extend(der);
            }
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(certificate::sha256(&octets).as_ref());
        hash
    }

    /// Proves what does not depend on the time: each root signs itself, each issuing CA stands
    /// below one of them and is bound to `site`, each has exactly one CRL and signed it.
    pub fn verify(&self, site: &Site) -> Result<(), TrustListError> {
        self.check_size()?;
        let roots = parse_all(&self.roots)?;
        let issuing = parse_all(&self.issuing)?;
        for root in &roots {
            signed(root, root, Below::Authorities).map_err(|_| TrustListError::foreign(root))?;
        }
        for link in parse_all(&self.links)? {
            if !roots.iter().any(|root| same_authority(&link, root)) {
                return Err(TrustListError::foreign(&link));
            }
        }
        for authority in &issuing {
            if !roots.iter().any(|root| is_below(authority, root)) {
                return Err(TrustListError::foreign(authority));
            }
            check_constraint(authority, site)?;
        }
        let authorities: Vec<_> = roots.iter().chain(&issuing).collect();
        for (index, authority) in authorities.iter().enumerate() {
            let rest = authorities.iter().skip(index + 1);
            let same_name = |other: &&&X509Certificate<'_>| {
                other.subject().as_raw() == authority.subject().as_raw()
            };
            if rest.clone().any(|other| same_name(&other)) {
                return Err(TrustListError::Twice {
                    subject: authority.subject().to_string(),
                });
            }
        }
        self.check_crls(&authorities)
    }

    /// Takes from `offered` what a root of this list vouches for and what is newer, whoever
    /// carried it. On an error nothing is taken.
    pub fn merge(&mut self, offered: &Self, site: &Site) -> Result<Merged, TrustListError> {
        // Each comparison may cost a signature: a carrier must not be able to ask for many.
        offered.check_count()?;
        let mut next = self.clone();
        let mut merged = Merged::default();
        next.take_roots(offered, &mut merged)?;
        next.take_issuing(offered, &mut merged)?;
        next.take_crls(offered, &mut merged)?;
        next.sort();
        next.verify(site)?;
        *self = next;
        Ok(merged)
    }

    /// As [`TrustList::merge`], and drops the CAs that are not offered. `offered` must be a whole
    /// list, from the CA itself over an authenticated way.
    pub fn replace(&mut self, offered: &Self, site: &Site) -> Result<Merged, TrustListError> {
        offered.verify(site)?;
        let mut next = self.clone();
        let mut merged = next.merge(offered, site)?;
        for (own, theirs) in [
            (&mut next.roots, &offered.roots),
            (&mut next.issuing, &offered.issuing),
        ] {
            for der in own.extract_if(.., |der| !theirs.contains(der)) {
                merged.news.push(News::Dropped {
                    subject: parse(&der)?.subject().to_string(),
                });
            }
        }
        next.links.retain(|der| offered.links.contains(der));
        let subjects = next.subjects()?;
        let mut kept = Vec::new();
        for der in next.crls {
            if subjects.contains(&Crl::parse(&der)?.issuer) {
                kept.push(der);
            }
        }
        next.crls = kept;
        next.verify(site)?;
        *self = next;
        Ok(merged)
    }

    /// This list and those CAs of `offered` that it vouches for, as a peer shows them in a handshake.
    /// Their CRLs are not known yet: it serves to ask the CA for the whole list, not to judge others.
    pub fn with_vouched(&self, offered: &Self) -> Result<Self, TrustListError> {
        offered.check_count()?;
        let mut next = self.clone();
        next.take_roots(offered, &mut Merged::default())?;
        next.take_issuing(offered, &mut Merged::default())?;
        Ok(next)
    }

    /// Judges the chain of `leaf` (DER) at `now` (seconds since 1970-01-01 UTC): signatures, site,
    /// dates, and what the CRLs of this list revoke.
    pub fn judge(&self, leaf: &[u8], now: i64) -> Result<Identity, BundleError> {
        let identity = Identity::from_certificate(leaf)?;
        let unsigned = |part| BundleError::Signature { part };
        let issuing = self.issuer_of(leaf).ok_or(unsigned(Part::Leaf))?;
        let root = self.root_of(issuing).ok_or(unsigned(Part::Issuing))?;
        check_constraint(&parse(issuing)?, &identity.site)?;
        for (der, part) in [
            (leaf, Part::Leaf),
            (issuing, Part::Issuing),
            (root, Part::Root),
        ] {
            bundle::check_dates(&parse(der)?, part, now)?;
        }
        match self.revokes(leaf) {
            true => Err(BundleError::Revoked {
                part: Part::Leaf,
                serial: Serial::from_octets(parse(leaf)?.raw_serial()),
            }),
            false => Ok(identity),
        }
    }

    /// The issuing CA of this list that signed `leaf` (DER).
    pub fn issuer_of(&self, leaf: &[u8]) -> Option<&[u8]> {
        let leaf = certificate::parse(leaf).ok()?;
        find_signer(&self.issuing, &leaf, Below::Leaves)
    }

    /// The root of this list that signed `issuing` (DER).
    pub fn root_of(&self, issuing: &[u8]) -> Option<&[u8]> {
        let issuing = certificate::parse(issuing).ok()?;
        find_signer(&self.roots, &issuing, Below::Authorities)
    }

    /// The CRL of a root or issuing CA (DER) of this list.
    pub fn crl_of(&self, authority: &[u8]) -> Option<Crl> {
        self.crls
            .iter()
            .find_map(|der| Crl::signed_by(der, authority).ok())
    }

    /// True if `leaf` (DER) or its issuing CA stands on its CRL.
    pub fn revokes(&self, leaf: &[u8]) -> bool {
        let listed = |der: &[u8], authority: &[u8]| {
            let serial = certificate::parse(der)
                .map(|certificate| Serial::from_octets(certificate.raw_serial()));
            let crl = self.crl_of(authority);
            matches!((serial, crl), (Ok(serial), Some(crl)) if crl.is_revoked(&serial))
        };
        let Some(issuing) = self.issuer_of(leaf) else {
            return false;
        };
        listed(leaf, issuing)
            || self
                .root_of(issuing)
                .is_some_and(|root| listed(issuing, root))
    }

    /// The dates of every CRL, roots first.
    pub fn crl_dates(&self) -> Vec<CrlDates> {
        let roots = self.roots.iter().map(|der| (der, true));
        let issuing = self.issuing.iter().map(|der| (der, false));
        roots
            .chain(issuing)
            .filter_map(|(der, is_root)| {
                let crl = self.crl_of(der)?;
                Some(CrlDates {
                    authority: crl.issuer,
                    is_root,
                    number: crl.number,
                    this_update: crl.this_update,
                    next_update: crl.next_update,
                })
            })
            .collect()
    }

    /// Roots that a link of either list vouches for, one hop after the other.
    fn take_roots(&mut self, offered: &Self, merged: &mut Merged) -> Result<(), TrustListError> {
        let mut waiting: Vec<&Vec<u8>> = offered
            .roots
            .iter()
            .filter(|der| !self.roots.contains(der))
            .collect();
        loop {
            let before = waiting.len();
            let mut rest = Vec::new();
            for der in waiting {
                let Some(link) = self.find_link(offered, der)? else {
                    rest.push(der);
                    continue;
                };
                merged.news.push(News::Root {
                    fingerprint: certificate::fingerprint(der),
                });
                self.roots.push(der.clone());
                if !self.links.contains(&link) {
                    self.links.push(link);
                }
            }
            waiting = rest;
            if waiting.len() == before {
                break;
            }
        }
        for der in waiting {
            merged.foreign.push(parse(der)?.subject().to_string());
        }
        Ok(())
    }

    fn take_issuing(&mut self, offered: &Self, merged: &mut Merged) -> Result<(), TrustListError> {
        for der in &offered.issuing {
            if self.issuing.contains(der) {
                continue;
            }
            let subject = parse(der)?.subject().to_string();
            if self.root_of(der).is_none() {
                merged.foreign.push(subject);
                continue;
            }
            self.issuing.push(der.clone());
            merged.news.push(News::Issuing { subject });
        }
        Ok(())
    }

    fn find_link(&self, offered: &Self, root: &[u8]) -> Result<Option<Vec<u8>>, TrustListError> {
        let root = parse(root)?;
        let known = parse_all(&self.roots)?;
        for der in self.links.iter().chain(&offered.links) {
            let link = parse(der)?;
            if same_authority(&link, &root) && known.iter().any(|old| is_below(&link, old)) {
                return Ok(Some(der.clone()));
            }
        }
        Ok(None)
    }

    fn take_crls(&mut self, offered: &Self, merged: &mut Merged) -> Result<(), TrustListError> {
        let mut current = Vec::new();
        for der in &self.crls {
            current.push((Crl::parse(der)?, der.clone()));
        }
        for der in &offered.crls {
            let Some(crl) = self.signed_crl(der, merged)? else {
                continue;
            };
            let known = current.iter_mut().find(|(old, _)| old.issuer == crl.issuer);
            match known {
                Some((_, old)) if old == der => continue,
                Some((old, _)) if old.number >= crl.number => {
                    merged.older.push(OlderCrl {
                        issuer: crl.issuer,
                        number: crl.number,
                        installed: old.number,
                    });
                    continue;
                }
                _ => merged.news.push(News::Crl {
                    issuer: crl.issuer.clone(),
                    number: crl.number,
                }),
            }
            match known {
                Some(place) => *place = (crl, der.clone()),
                None => current.push((crl, der.clone())),
            }
        }
        self.crls = current.into_iter().map(|(_, der)| der).collect();
        Ok(())
    }

    /// `None`: of a CA that is not in this list.
    fn signed_crl(&self, der: &[u8], merged: &mut Merged) -> Result<Option<Crl>, TrustListError> {
        let issuer = Crl::parse(der)?.issuer;
        for authority in self.roots.iter().chain(&self.issuing) {
            if parse(authority)?.subject().to_string() == issuer {
                return Ok(Some(Crl::signed_by(der, authority)?));
            }
        }
        merged.foreign.push(issuer);
        Ok(None)
    }

    fn check_crls(&self, authorities: &[&X509Certificate<'_>]) -> Result<(), TrustListError> {
        for authority in authorities {
            let of_this = |der: &&Vec<u8>| Crl::signed_by_parsed(der, authority).is_ok();
            if self.crls.iter().filter(of_this).count() != 1 {
                return Err(TrustListError::CrlCount {
                    subject: authority.subject().to_string(),
                });
            }
        }
        match self.crls.len() == authorities.len() {
            true => Ok(()),
            false => Err(TrustListError::CrlLeft),
        }
    }

    fn check_size(&self) -> Result<(), TrustListError> {
        match self.roots.is_empty() {
            true => Err(self.size()),
            false => self.check_count(),
        }
    }

    fn check_count(&self) -> Result<(), TrustListError> {
        let fits = self.roots.len() <= Self::MAX_ROOTS
            && self.links.len() <= Self::MAX_ROOTS
            && self.issuing.len() <= Self::MAX_ISSUING
            && self.crls.len() <= Self::MAX_ROOTS + Self::MAX_ISSUING;
        match fits {
            true => Ok(()),
            false => Err(self.size()),
        }
    }

    fn size(&self) -> TrustListError {
        TrustListError::Size {
            roots: self.roots.len(),
            links: self.links.len(),
            issuing: self.issuing.len(),
        }
    }

    fn subjects(&self) -> Result<Vec<String>, TrustListError> {
        let authorities = self.roots.iter().chain(&self.issuing);
        authorities
            .map(|der| Ok(parse(der)?.subject().to_string()))
            .collect()
    }

    fn sort(&mut self) {
        for kind in [
            &mut self.roots,
            &mut self.links,
            &mut self.issuing,
            &mut self.crls,
        ] {
            kind.sort_unstable();
            kind.dedup();
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Root { fingerprint } => write!(f, "new root {fingerprint}"),
            News::Issuing { subject } => write!(f, "new issuing CA {subject:?}"),
            News::Crl { issuer, number } => write!(f, "CRL {number} of {issuer:?}"),
            News::Dropped { subject } => write!(f, "{subject:?} is dropped"),
        }
    }
}

/// What a CA certificate is in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Link,
    Issuing,
}

impl Kind {
    fn of(der: &[u8]) -> Result<Self, TrustListError> {
        let certificate = parse(der)?;
        let constraints = certificate.basic_constraints().ok().flatten();
        let constraints = constraints
            .filter(|constraints| constraints.value.ca)
            .ok_or_else(|| TrustListError::NotAuthority {
                subject: certificate.subject().to_string(),
            })?;
        if certificate.subject().as_raw() == certificate.issuer().as_raw() {
            return Ok(Kind::Root);
        }
        Ok(match constraints.value.path_len_constraint {
            Some(0) => Kind::Issuing,
            _ => Kind::Link,
        })
    }
}

/// What a CA's signature is to stand under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    Leaves,
    Authorities,
}

/// The signature is wrong, or the signer had no right to it.
#[derive(Debug)]
pub(crate) struct NotSigned;

/// Proves that `signer` signed `certificate` and was allowed to.
pub(crate) fn signed(
    certificate: &X509Certificate<'_>,
    signer: &X509Certificate<'_>,
    below: Below,
) -> Result<(), NotSigned> {
    if certificate.issuer().as_raw() != signer.subject().as_raw() {
        return Err(NotSigned);
    }
    let constraints = signer.basic_constraints().ok().flatten().ok_or(NotSigned)?;
    let may_sign = signer
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.value.key_cert_sign());
    let deep_enough = match (constraints.value.path_len_constraint, below) {
        (Some(length), Below::Authorities) => length >= 1,
        _ => true,
    };
    if !constraints.value.ca || !may_sign || !deep_enough {
        return Err(NotSigned);
    }
    certificate
        .verify_signature(Some(signer.public_key()))
        .map_err(|_| NotSigned)
}

/// An issuing CA may name its own site and nothing else.
pub(crate) fn check_constraint(
    issuing: &X509Certificate<'_>,
    site: &Site,
) -> Result<(), TrustListError> {
    let constraints = issuing.name_constraints().ok().flatten();
    let permitted = constraints.and_then(|extension| extension.value.permitted_subtrees.as_ref());
    let is_site = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(name) if *name == site.as_str());
    let only_site = permitted.is_some_and(|subtrees| {
        !subtrees.is_empty() && subtrees.iter().all(|subtree| is_site(&subtree.base))
    });
    match only_site {
        true => Ok(()),
        false => Err(TrustListError::Constraint {
            subject: issuing.subject().to_string(),
            site: site.to_string(),
        }),
    }
}

fn is_below(certificate: &X509Certificate<'_>, root: &X509Certificate<'_>) -> bool {
    signed(certificate, root, Below::Authorities).is_ok()
}

fn same_authority(one: &X509Certificate<'_>, other: &X509Certificate<'_>) -> bool {
    one.subject().as_raw() == other.subject().as_raw()
        && one.public_key().raw == other.public_key().raw
}

fn find_signer<'a>(
    authorities: &'a [Vec<u8>],
    certificate: &X509Certificate<'_>,
    below: Below,
) -> Option<&'a [u8]> {
    let signs = |der: &&Vec<u8>| {
        certificate::parse(der).is_ok_and(|signer| signed(certificate, &signer, below).is_ok())
    };
    authorities.iter().find(signs).map(Vec::as_slice)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, TrustListError> {
    certificate::parse(der).map_err(TrustListError::Certificate)
}

fn parse_all(ders: &[Vec<u8>]) -> Result<Vec<X509Certificate<'_>>, TrustListError> {
    ders.iter().map(|der| parse(der)).collect()
}

/// Why a trust list proves nothing, or nothing is taken from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustListError {
    #[error(transparent)]
    Pem(#[from] Box<BundleError>),
    #[error("a certificate: {0}")]
    Certificate(CertificateError),
    #[error("a trust list has certificates and CRLs, not `{tag}`")]
    Block { tag: String },
    #[error("{subject:?} is not the certificate of a CA")]
    NotAuthority { subject: String },
    #[error("{subject:?} is not signed by a root of the list, or may not be what it is")]
    Foreign { subject: String },
    #[error("two CAs of the list are both called {subject:?}")]
    Twice { subject: String },
    #[error("the issuing CA {subject:?} is not bound to the site {site}")]
    Constraint { subject: String, site: String },
    #[error("a CRL: {0}")]
    Crl(#[from] CrlError),
    #[error("{subject:?} needs exactly one CRL that it signed")]
    CrlCount { subject: String },
    #[error("a CRL belongs to no CA of the list")]
    CrlLeft,
    #[error(
        "{roots} roots, {links} links and {issuing} issuing CAs: a list has 1 to {max_roots} roots and at most {max_issuing} issuing CAs",
        max_roots = TrustList::MAX_ROOTS, max_issuing = TrustList::MAX_ISSUING
    )]
    Size {
        roots: usize,
        links: usize,
        issuing: usize,
    },
}

impl TrustListError {
    fn foreign(certificate: &X509Certificate<'_>) -> Self {
        Self::Foreign {
            subject: certificate.subject().to_string(),
        }
    }
}
