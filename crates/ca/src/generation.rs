//! The issuing CAs of a site, one in use, the others before or after their time, and how one
//! follows the other.
//!
//! ```text
//! added ── agents learn of it, and have its CRL ── in use ── another in use ── dropped
//! ```
//! A CA that is not in use any more signs CRLs for as long as its leaves live.

use std::path::{Path, PathBuf};

use fieldlock_pki::bundle;
use fieldlock_pki::csr;
use fieldlock_pki::issue::{Authority, IssueError};
use fieldlock_pki::{Summary, TrustList, certificate};

use crate::authority::{Ca, State};
use crate::clock::Time;
use crate::error::CaError;
use crate::event::{Change, Event};
use crate::file;
use crate::hsm::Uri;
use crate::keyfile;
use crate::layout::MORE;
use crate::passphrase::Passphrase;
use crate::random::new_mark;

/// An issuing CA that agents trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The last word of its common name; empty for the one that the CA was made with.
    pub(crate) mark: String,
    /// DER.
    pub certificate: Vec<u8>,
}

impl Generation {
    pub(crate) fn file(mark: &str, kind: &str) -> String {
        match mark {
            "" => format!("issuing.{kind}"),
            mark => format!("issuing-{mark}.{kind}"),
        }
    }
}

/// The opened keys of issuing CAs.
#[derive(Debug)]
pub struct Keys(Vec<Authority>);

impl Keys {
    pub(crate) fn new(authorities: Vec<Authority>) -> Self {
        Self(authorities)
    }

    /// The key for a certificate (DER).
    pub(crate) fn of(&self, certificate: &[u8]) -> Result<&Authority, CaError> {
        let found = self.0.iter().find(|key| key.certificate() == certificate);
        found.ok_or(CaError::NotUnlocked)
    }

    /// The key of the first CA, for tests that sign what the CA would not.
    pub fn first(&self) -> Option<&Authority> {
        self.0.first()
    }
}

impl Ca {
    /// Makes the key of the next issuing CA, on `token` if there is one, and a request for the
    /// root to sign.
    pub fn new_issuing(
        &self,
        token: Option<&Uri>,
        passphrase: &Passphrase,
    ) -> Result<String, CaError> {
        // One passphrase opens all keys: it must be the one that opens the present.
        self.unlock(passphrase)?;
        let path = self.path(NEXT_KEY);
        let key = match path.exists() {
            true if token.is_some() => return Err(CaError::NextKey { path }),
            true => keyfile::load(&path, passphrase)?,
            false => {
                let label = format!("fieldlock-issuing-{}", new_mark()?);
                let (key, text) = keyfile::generate(token, &label, passphrase)?;
                file::create(&path, text.as_bytes())?;
                key
            }
        };
        csr::request(&&*key, fieldlock_pki::Role::Ca, &fieldlock_pki::Name::ca())
            .map_err(|error| IssueError::of(&*key, error).into())
    }

    /// Takes the certificate that the root signed for it. Agents hear of it from now on; leaves
    /// still come from the CA in use.
    pub fn add_issuing(
        &mut self,
        pem: &str,
        passphrase: &Passphrase,
        now: Time,
    ) -> Result<String, CaError> {
        let certificate = bundle::certificates_from_pem(pem)?.concat();
        let key = keyfile::load(&self.path(NEXT_KEY), passphrase)?;
        let authority = Authority::new(certificate.clone(), key)?;
        let mark = mark_of(&certificate)?;
        let trust = self.trust()?;
        if trust.root_of(&certificate).is_none() {
            return Err(CaError::NoRoot);
        }
        self.publish_issuing(&authority, &mark, now)?;
        let text = bundle::certificate_pem(&certificate);
        file::replace(&self.path(&Generation::file(&mark, "pem")), text.as_bytes())?;
        let kept = self.path(&Generation::file(&mark, "key.pem"));
        file::at(&kept, || std::fs::rename(self.path(NEXT_KEY), &kept))?;
        self.change(&mark, Change::Added, now)?;
        self.trust()?.verify(&self.settings().site)?;
        Ok(mark)
    }

    /// Leaves come from this CA from now on.
    pub fn use_issuing(&mut self, mark: &str, now: Time) -> Result<(), CaError> {
        self.generation(mark)?;
        self.change(mark, Change::Used, now)
    }

    /// Nobody trusts this CA any more. Not while it is in use, or a leaf of it is valid.
    pub fn drop_issuing(&mut self, mark: &str, now: Time) -> Result<(), CaError> {
        let generation = self.generation(mark)?.clone();
        if generation == *self.active() {
            return Err(CaError::InUse {
                mark: mark.to_owned(),
            });
        }
        let subject = Summary::of(&generation.certificate).map_err(|_| CaError::Unreadable)?;
        let mut left = Vec::new();
        for entry in self.records().certificates()? {
            let leaf = bundle::certificates_from_pem(&entry.certificate);
            let leaf = leaf.map(|der| Summary::of(&der.concat()));
            let below = matches!(leaf, Ok(Ok(leaf)) if leaf.issuer == subject.subject);
            if below && self.state(&entry, now)? == State::Valid {
                left.push(format!("{}/{}", entry.role, entry.name));
            }
        }
        if !left.is_empty() {
            return Err(CaError::LeavesLeft {
                mark: mark.to_owned(),
                leaves: left.join(", "),
            });
        }
        self.change(mark, Change::Dropped, now)
    }

    /// Takes a new root, its link and its CRL, or a newer CRL of a root.
    pub fn add_root(&mut self, pem: &str) -> Result<fieldlock_pki::trust::Merged, CaError> {
        let offered = TrustList::parse(pem)?;
        let mut list = self.trust()?;
        let merged = list.merge(&offered, &self.settings().site)?;
        if let Some(subject) = merged.foreign.first() {
            return Err(CaError::Foreign {
                subject: subject.clone(),
            });
        }
        let mut more = self.more()?;
        for (own, theirs) in [
            (&mut more.roots, offered.roots),
            (&mut more.links, offered.links),
            (&mut more.crls, offered.crls),
        ] {
            own.extend(theirs);
        }
        // A newer CRL takes the place of an older one.
        more.crls.retain(|der| list.crls.contains(der));
        file::replace(&self.path(MORE), more.to_pem().as_bytes())?;
        Ok(merged)
    }

    /// Nobody trusts this root any more (its mark, the last word of its name). Not while an
    /// issuing CA stands below it.
    pub fn drop_root(&mut self, mark: &str, now: Time) -> Result<(), CaError> {
        let list = self.trust()?;
        let found = list
            .roots
            .iter()
            .find(|der| mark_of(der).is_ok_and(|own| own == mark));
        let root = found.ok_or_else(|| CaError::NoGeneration {
            mark: mark.to_owned(),
        })?;
        let below = |issuing: &&Vec<u8>| list.root_of(issuing) == Some(root.as_slice());
        if list.issuing.iter().any(|issuing| below(&issuing)) {
            return Err(CaError::InUse {
                mark: mark.to_owned(),
            });
        }
        let event = Event::RootDropped {
            fingerprint: certificate::fingerprint(root),
        };
        self.record(now, event)
    }

    /// Marks of the issuing CAs that agents trust, and whether each is in use.
    pub fn generations(&self) -> Vec<(String, bool, &Generation)> {
        let named = |generation: &Generation| mark_of(&generation.certificate).unwrap_or_default();
        self.all_generations()
            .iter()
            .map(|g| (named(g), g == self.active(), g))
            .collect()
    }

    fn generation(&self, mark: &str) -> Result<&Generation, CaError> {
        let is = |generation: &&Generation| {
            mark_of(&generation.certificate).is_ok_and(|own| own == mark)
        };
        let found = self.all_generations().iter().find(is);
        found.ok_or_else(|| CaError::NoGeneration {
            mark: mark.to_owned(),
        })
    }

    /// Records a change; the mark on record is that of the files.
    fn change(&mut self, mark: &str, change: Change, now: Time) -> Result<(), CaError> {
        let known = self.generation(mark).map(|known| known.mark.clone());
        let mark = known.unwrap_or_else(|_| mark.to_owned());
        self.record(now, Event::Issuing { mark, change })?;
        self.reload_generations()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Roots beside the first, links, and CRLs of roots.
    pub(crate) fn more(&self) -> Result<TrustList, CaError> {
        let path = self.path(MORE);
        if !path.exists() {
            return Ok(TrustList::default());
        }
        read_list(&path)
    }
}

fn read_list(path: &Path) -> Result<TrustList, CaError> {
    let text = file::read(path, fieldlock_pki::Bundle::MAX_PEM as u64)?;
    Ok(TrustList::parse(&text)?)
}

/// `0a1b2c3d` of "CN=Fieldlock issuing CA 0a1b2c3d".
pub fn mark_of(certificate: &[u8]) -> Result<String, CaError> {
    let subject = Summary::of(certificate)
        .map_err(|_| CaError::Unreadable)?
        .subject;
    let mark = subject.rsplit(' ').next().unwrap_or_default();
    match mark.len() == 8 && mark.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        true => Ok(mark.to_owned()),
        false => Err(CaError::Unreadable),
    }
}

/// Of the CA whose certificate the root has not signed yet.
const NEXT_KEY: &str = "issuing-next.key.pem";
