//! Whether a log is in order, and whose signatures its checkpoints bear.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fieldlock_audit::{
    Fault, Head, Kind, Lines, Place, Record, Snapshot, Summary, Verifier, signed_text,
};
use fieldlock_pki::certificate::CertificateError;
use fieldlock_pki::identity::IdentityError;
use fieldlock_pki::{BundleError, Identity, Summary as Certificate, TrustList, signing};
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

/// Reads the log at `log`, a file of it or its directory, to its end.
///
/// With `trust` the certificates that signed have to come from its CAs; each of `others`, logs of the
/// other end, has to have checkpoints of this one on record that fit.
///
/// # Errors
/// The log can't be read, or the first thing that is wrong with it; or `trust` can't judge it.
pub fn verify(
    log: &Path,
    trust: Option<TrustList>,
    others: &[PathBuf],
) -> Result<Verified, VerifyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| VerifyError::Read { path, source }
    };
    let files = Snapshot::of(log).map_err(unreadable(log))?;
    let agent = first_agent(&files).ok_or_else(|| VerifyError::Empty {
        path: log.to_owned(),
    })?;
    let mut verifier = Verifier::new();
    for other in others {
        let told = told(other, &agent).map_err(unreadable(other))?;
        if told.is_empty() {
            let path = other.clone();
            return Err(VerifyError::Untold { path, agent });
        }
        for head in &told {
            verifier.told(head, &other.display().to_string());
        }
    }
    let mut signatures = Signatures {
        agent: &agent,
        trust,
        leaf: None,
        signer: None,
        count: 0,
        to: 0,
        revoked: false,
        misdated: 0,
        fault: None,
    };
    let count = files.closed.len() + 1;
    for (index, (path, file)) in files.into_files().enumerate() {
        let name = path.display().to_string();
        let file = file.map_err(unreadable(&path))?;
        let is_current = index + 1 == count;
        let log = BufReader::with_capacity(1 << 16, file);
        verifier.file(&name, log, is_current, |place, record| {
            signatures.check(place, record);
        })?;
        if let Some(fault) = signatures.fault.take() {
            return Err(fault);
        }
    }
    let summary = verifier.finish()?;
    Ok(signatures.into_result(&agent, count, &summary))
}

/// A log that is in order.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// True: a log that is not has an error in place of this.
    pub in_order: bool,
    pub agent: String,
    /// `seq` of the first and last record.
    pub first: u64,
    pub last: u64,
    pub files: usize,
    /// Checkpoints with a signature that fits, and the last record that they cover.
    pub signed: u64,
    pub signed_to: u64,
    /// The identity that signed last, as its certificate says.
    pub signer: Option<String>,
    /// Whether that certificate was judged by a trust list.
    pub judged: bool,
    /// Whether a certificate that signed is revoked by now.
    pub revoked: bool,
    /// Certificates shown at a time when they were not valid: the agent's clock was wrong then.
    pub misdated: u64,
    /// Checkpoints that other logs have of this one, and the last record that they cover.
    pub confirmed: u64,
    pub confirmed_to: u64,
    /// Bytes of an unfinished record at the end.
    pub unfinished: u64,
}

impl Verified {
    /// The verdict in one line, for people.
    pub fn in_one_line(&self) -> String {
        format!(
            "{} records in order, {} checkpoints signed, the other end agrees up to record {}",
            self.last, self.signed, self.confirmed_to
        )
    }
}

/// Why there is no verdict that a log is in order.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A log, this one or another, is not there to be read.
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: no audit records", path = .path.display())]
    Empty { path: PathBuf },
    /// The other log is not the one of this agent's other end.
    #[error("{path}: has no checkpoint of {agent} on record", path = .path.display())]
    Untold { path: PathBuf, agent: String },
    /// The chain is broken.
    #[error(transparent)]
    Chain(#[from] Fault),
    #[error("{place}: checkpoint {seq}: {fault}")]
    Checkpoint {
        place: Place,
        seq: u64,
        fault: CheckpointFault,
    },
    /// The log may be in order.
    #[error(transparent)]
    Trust(#[from] TrustFault),
}

/// What is wrong with a checkpoint.
#[derive(Debug, Error)]
pub enum CheckpointFault {
    #[error("no certificate before it in this log")]
    NoCertificate,
    #[error("its signature is not base64")]
    SignatureForm,
    #[error("its signature is not by the agent's key")]
    Signature,
    #[error("its certificate is not base64")]
    CertificateForm,
    #[error("its certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("its certificate: {0}")]
    Identity(#[from] IdentityError),
    /// The trust list does not vouch for it.
    #[error("its certificate: {0}")]
    Distrusted(#[from] BundleError),
    #[error("its certificate is {0}'s")]
    Other(Identity),
}

/// The trust list is not the one of this plant, or not all of it.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TrustFault {
    #[error(
        "it has no issuing CA, and the certificate that signed comes from {issuer:?}: give a copy of \
         STATE/trust/list.pem, which has root and issuing CA"
    )]
    NoIssuing { issuer: String },
    #[error(
        "the certificate that signed comes from {issuer:?}, and the list has only {}: is it of this \
         plant, and new enough?",
        .known.join(", ")
    )]
    OtherIssuing { issuer: String, known: Vec<String> },
    #[error("it has no root: {issuer:?} alone vouches for nothing")]
    NoRoot { issuer: String },
    #[error(
        "{issuer:?} is signed by none of its roots ({}): they are of another plant, or of another \
         time",
        .roots.join(", ")
    )]
    OtherRoot { issuer: String, roots: Vec<String> },
}

/// Why a checkpoint does not count: by its own fault, or by the trust list's.
enum Distrust {
    Checkpoint(CheckpointFault),
    Trust(TrustFault),
}

impl<T: Into<CheckpointFault>> From<T> for Distrust {
    fn from(fault: T) -> Self {
        Self::Checkpoint(fault.into())
    }
}

/// Whose log it is, by its first record.
fn first_agent(files: &Snapshot) -> Option<String> {
    let first = files.closed.first().unwrap_or(&files.last.0);
    let line = Lines::open(first).ok()?.next().ok()??;
    let record: Record = serde_json::from_str(&line).ok()?;
    record.agent.map(|agent| agent.to_string())
}

/// What the log `other` knows of the log of `agent`.
fn told(other: &Path, agent: &str) -> io::Result<Vec<Head>> {
    let mut told = Vec::new();
    for (_, file) in Snapshot::of(other)?.into_files() {
        let mut lines = Lines::of(file?);
        while let Some(line) = lines.next()? {
            // Whether that log is in order is a question of its own.
            let Ok(record) = serde_json::from_str::<Record>(&line) else {
                continue;
            };
            let about = record
                .head
                .filter(|head| head.agent.as_deref() == Some(agent));
            told.extend(
                about
                    .filter(|_| record.kind == Kind::PeerCheckpoint)
                    .map(|head| *head),
            );
        }
    }
    Ok(told)
}

/// Checks the signatures of checkpoints, by the certificates that the log itself shows.
struct Signatures<'a> {
    agent: &'a str,
    trust: Option<TrustList>,
    leaf: Option<Vec<u8>>,
    signer: Option<Identity>,
    count: u64,
    to: u64,
    revoked: bool,
    misdated: u64,
    fault: Option<VerifyError>,
}

impl Signatures<'_> {
    fn check(&mut self, place: &Place, record: &Record) {
        let Some(head) = record.head.as_deref() else {
            return;
        };
        if record.kind != Kind::Checkpoint || self.fault.is_some() {
            return;
        }
        self.fault = match self.check_head(record, head) {
            Ok(()) => None,
            Err(Distrust::Checkpoint(fault)) => Some(VerifyError::Checkpoint {
                place: place.clone(),
                seq: record.seq,
                fault,
            }),
            Err(Distrust::Trust(fault)) => Some(fault.into()),
        };
    }

    fn check_head(&mut self, record: &Record, head: &Head) -> Result<(), Distrust> {
        if let Some(certificate) = &head.certificate {
            self.take_certificate(record, certificate)?;
        }
        let Some(signature) = &head.signature else {
            return Ok(());
        };
        let leaf = self.leaf.as_deref().ok_or(CheckpointFault::NoCertificate)?;
        let signature = BASE64_STANDARD
            .decode(signature.as_bytes())
            .map_err(|_| CheckpointFault::SignatureForm)?;
        let signed = signed_text(self.agent, head.seq, &head.hash);
        if !signing::is_signed_by(leaf, signed.as_bytes(), &signature) {
            return Err(CheckpointFault::Signature.into());
        }
        self.count += 1;
        self.to = head.seq;
        Ok(())
    }

    fn take_certificate(&mut self, record: &Record, base64: &str) -> Result<(), Distrust> {
        let leaf = BASE64_STANDARD
            .decode(base64)
            .map_err(|_| CheckpointFault::CertificateForm)?;
        let summary = Certificate::of(&leaf)?;
        let identity = match &self.trust {
            Some(trust) => {
                can_judge(trust, &leaf, &summary).map_err(Distrust::Trust)?;
                let at = record.time.and_then(|time| Timestamp::try_from(time).ok());
                let at = at.unwrap_or_default().as_second();
                // A clock that was wrong makes no log wrong.
                let valid = at.clamp(summary.not_before, summary.not_after);
                self.misdated += u64::from(valid != at);
                match trust.judge(&leaf, valid) {
                    // It may have been revoked long after; whoever reads the log decides.
                    Err(BundleError::Revoked { .. }) => {
                        self.revoked = true;
                        Identity::from_certificate(&leaf)?
                    }
                    judged => judged?,
                }
            }
            None => Identity::from_certificate(&leaf)?,
        };
        if identity.name.as_str() != self.agent {
            return Err(CheckpointFault::Other(identity).into());
        }
        self.leaf = Some(leaf);
        self.signer = Some(identity);
        Ok(())
    }

    fn into_result(self, agent: &str, files: usize, summary: &Summary) -> Verified {
        Verified {
            in_order: true,
            agent: agent.to_owned(),
            first: summary.first,
            last: summary.last,
            files,
            signed: self.count,
            signed_to: self.to,
            signer: self.signer.map(|signer| signer.to_string()),
            judged: self.trust.is_some(),
            revoked: self.revoked,
            misdated: self.misdated,
            confirmed: summary.confirmed,
            confirmed_to: summary.confirmed_to,
            unfinished: summary.torn,
        }
    }
}

/// Whether `trust` has the CAs that `leaf` comes from. One that only bears their name is for
/// [`TrustList::judge`] to turn down.
fn can_judge(trust: &TrustList, leaf: &[u8], summary: &Certificate) -> Result<(), TrustFault> {
    let issuer = summary.issuer.clone();
    let named = |authorities: &[Vec<u8>]| -> Vec<String> {
        let summaries = authorities
            .iter()
            .filter_map(|der| Certificate::of(der).ok());
        summaries.map(|authority| authority.subject).collect()
    };
    let Some(issuing) = trust.issuer_of(leaf) else {
        let known = named(&trust.issuing);
        return match known.contains(&issuer) {
            true => Ok(()),
            false if known.is_empty() => Err(TrustFault::NoIssuing { issuer }),
            false => Err(TrustFault::OtherIssuing { issuer, known }),
        };
    };
    if trust.root_of(issuing).is_some() {
        return Ok(());
    }
    let roots = named(&trust.roots);
    Err(match roots.is_empty() {
        true => TrustFault::NoRoot { issuer },
        false => TrustFault::OtherRoot { issuer, roots },
    })
}

#[cfg(test)]
mod tests;
