//! `fieldlock audit verify`.

use std::fmt::Display;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fieldlock_audit::{
    Fault, Head, Kind, Lines, Place, Record, Snapshot, Summary, Verifier, signed_text,
};
use fieldlock_pki::{BundleError, Identity, Summary as Certificate, TrustList, signing, store};
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

pub(super) const EXAMPLES: &str = "\
Examples:
  fieldlock audit verify --state /var/lib/fieldlock/edge
  fieldlock audit verify press-07/ --trust list.pem --against hd-1/

In the second, press-07/ and hd-1/ are copies of STATE/audit of both ends, and list.pem is one of
STATE/trust/list.pem: it has the root and the issuing CA, and a root alone is not enough.

Exit code: 0 in order, 1 not, 2 wrong usage, or a trust list that can't judge this log.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The log of the other end (a file, or the directory with all of them): the checkpoints
    /// that it has on record must fit; may be repeated.
    #[arg(long, value_name = "LOG")]
    against: Vec<PathBuf>,
    /// Roots, issuing CAs and CRLs (PEM) to judge the certificate that signed the checkpoints: a
    /// copy of STATE/trust/list.pem [default: the agent's own, with --state].
    #[arg(long, value_name = "PEM")]
    trust: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(log: &Path, state: Option<PathBuf>, options: &Options) -> ExitCode {
    let trust = match trust(state, options.trust.as_deref()) {
        Ok(trust) => trust,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match verify(log, trust, &options.against) {
        Ok(result) => {
            if options.json {
                // A struct of numbers and texts can't fail to serialize.
                println!("{}", serde_json::to_string(&result).unwrap_or_default());
            } else {
                print(log, &result);
            }
            ExitCode::SUCCESS
        }
        Err(Trouble::Log(fault)) => {
            if options.json {
                println!(
                    "{}",
                    serde_json::json!({ "in_order": false, "fault": fault })
                );
            }
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
        Err(Trouble::Trust(why)) => {
            eprintln!("error: the trust list can't judge this log: {why}");
            ExitCode::from(2)
        }
    }
}

fn trust(state: Option<PathBuf>, file: Option<&Path>) -> Result<Option<TrustList>, String> {
    let path = match (file, state) {
        (Some(file), _) => file.to_owned(),
        (None, Some(state)) => state.join(store::TRUST),
        (None, None) => return Ok(None),
    };
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = fs::read_to_string(&path).map_err(|error| at(&error))?;
    TrustList::parse(&pem).map(Some).map_err(|error| at(&error))
}

/// Why there is no verdict that a log is in order.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// What is wrong with the log.
    #[error("{0}")]
    Log(String),
    /// The trust list is not the one of this plant, or not all of it. The log may be in order.
    #[error("{0}")]
    Trust(String),
}

impl From<String> for Trouble {
    fn from(fault: String) -> Self {
        Self::Log(fault)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    in_order: bool,
    agent: String,
    first: u64,
    last: u64,
    files: usize,
    /// Checkpoints with a signature that fits, and the last record that they cover.
    signed: u64,
    signed_to: u64,
    /// The identity that signed last, as its certificate says.
    signer: Option<String>,
    /// Whether that certificate was judged by a trust list.
    judged: bool,
    /// Whether a certificate that signed is revoked by now.
    revoked: bool,
    /// Certificates shown at a time when they were not valid: the agent's clock was wrong then.
    misdated: u64,
    /// Checkpoints that other logs have of this one, and the last record that they cover.
    confirmed: u64,
    confirmed_to: u64,
    /// Bytes of an unfinished record at the end.
    unfinished: u64,
}

pub(crate) fn verify(
    log: &Path,
    trust: Option<TrustList>,
    others: &[PathBuf],
) -> Result<Verified, Trouble> {
    let files = Snapshot::of(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let agent =
        first_agent(&files).ok_or_else(|| format!("{}: no audit records", log.display()))?;
    let mut verifier = Verifier::new();
    for other in others {
        let told = told(other, &agent).map_err(|error| format!("{}: {error}", other.display()))?;
        if told.is_empty() {
            let other = other.display();
            return Err(format!("{other}: has no checkpoint of {agent} on record").into());
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
        let file = file.map_err(|error| format!("{name}: {error}"))?;
        let is_current = index + 1 == count;
        let log = BufReader::with_capacity(1 << 16, file);
        let read = verifier.file(&name, log, is_current, |place, record| {
            signatures.check(place, record);
        });
        read.map_err(text)?;
        if let Some(fault) = signatures.fault.take() {
            return Err(fault);
        }
    }
    let summary = verifier.finish().map_err(text)?;
    Ok(signatures.into_result(&agent, count, &summary))
}

fn text(fault: Fault) -> String {
    fault.to_string()
}

/// Whose log it is, by its first record.
fn first_agent(files: &Snapshot) -> Option<String> {
    let first = files.closed.first().unwrap_or(&files.last.0);
    let line = Lines::open(first).ok()?.next().ok()??;
    let record: Record = serde_json::from_str(&line).ok()?;
    record.agent.map(|agent| agent.to_string())
}

/// What the log `other` knows of the log of `agent`.
fn told(other: &Path, agent: &str) -> std::io::Result<Vec<Head>> {
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

impl Verified {
    #[cfg(feature = "demo")]
    pub(crate) fn in_one_line(&self) -> String {
        format!(
            "{} records in order, {} checkpoints signed, the other end agrees up to record {}",
            self.last, self.signed, self.confirmed_to
        )
    }
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
    fault: Option<Trouble>,
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
            Err(Trouble::Log(why)) => {
                Some(format!("{place}: checkpoint {}: {why}", record.seq).into())
            }
            Err(trouble) => Some(trouble),
        };
    }

    fn check_head(&mut self, record: &Record, head: &Head) -> Result<(), Trouble> {
        if let Some(certificate) = &head.certificate {
            self.take_certificate(record, certificate)?;
        }
        let Some(signature) = &head.signature else {
            return Ok(());
        };
        let leaf = self
            .leaf
            .as_deref()
            .ok_or_else(|| "no certificate before it in this log".to_owned())?;
        let signature = BASE64_STANDARD
            .decode(signature.as_bytes())
            .map_err(|_| "its signature is not base64".to_owned())?;
        let signed = signed_text(self.agent, head.seq, &head.hash);
        if !signing::is_signed_by(leaf, signed.as_bytes(), &signature) {
            return Err("its signature is not by the agent's key".to_owned().into());
        }
        self.count += 1;
        self.to = head.seq;
        Ok(())
    }

    fn take_certificate(&mut self, record: &Record, base64: &str) -> Result<(), Trouble> {
        let leaf = BASE64_STANDARD
            .decode(base64)
            .map_err(|_| "its certificate is not base64".to_owned())?;
        let of_certificate = |error: &dyn Display| format!("its certificate: {error}");
        let summary = Certificate::of(&leaf).map_err(|error| of_certificate(&error))?;
        let identity = match &self.trust {
            Some(trust) => {
                can_judge(trust, &leaf, &summary)?;
                let at = record.time.and_then(|time| Timestamp::try_from(time).ok());
                let at = at.unwrap_or_default().as_second();
                // A clock that was wrong makes no log wrong.
                let valid = at.clamp(summary.not_before, summary.not_after);
                self.misdated += u64::from(valid != at);
                match trust.judge(&leaf, valid) {
                    // It may have been revoked long after; whoever reads the log decides.
                    Err(BundleError::Revoked { .. }) => {
                        self.revoked = true;
                        Identity::from_certificate(&leaf).map_err(|error| of_certificate(&error))?
                    }
                    judged => judged.map_err(|error| of_certificate(&error))?,
                }
            }
            None => Identity::from_certificate(&leaf).map_err(|error| of_certificate(&error))?,
        };
        if identity.name.as_str() != self.agent {
            return Err(format!("its certificate is {identity}'s").into());
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
fn can_judge(trust: &TrustList, leaf: &[u8], summary: &Certificate) -> Result<(), Trouble> {
    let issuer = &summary.issuer;
    let named = |authorities: &[Vec<u8>]| -> Vec<String> {
        let summaries = authorities
            .iter()
            .filter_map(|der| Certificate::of(der).ok());
        summaries.map(|authority| authority.subject).collect()
    };
    let Some(issuing) = trust.issuer_of(leaf) else {
        let known = named(&trust.issuing);
        return match known.contains(issuer) {
            true => Ok(()),
            false if known.is_empty() => Err(Trouble::Trust(format!(
                "it has no issuing CA, and the certificate that signed comes from {issuer:?}: give \
                 a copy of STATE/trust/list.pem, which has root and issuing CA"
            ))),
            false => Err(Trouble::Trust(format!(
                "the certificate that signed comes from {issuer:?}, and the list has only {}: is \
                 it of this plant, and new enough?",
                known.join(", ")
            ))),
        };
    };
    if trust.root_of(issuing).is_some() {
        return Ok(());
    }
    let roots = named(&trust.roots);
    Err(Trouble::Trust(match roots.is_empty() {
        true => format!("it has no root: {issuer:?} alone vouches for nothing"),
        false => format!(
            "{issuer:?} is signed by none of its roots ({}): they are of another plant, or of \
             another time",
            roots.join(", ")
        ),
    }))
}

fn print(log: &Path, result: &Verified) {
    println!("audit log {}: in order", log.display());
    println!("  agent        {}", result.agent);
    let files = match result.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    println!(
        "  records      {} to {} in {files}",
        result.first, result.last
    );
    match &result.signer {
        Some(signer) => {
            let judged = match (result.judged, result.revoked) {
                (true, false) => "",
                (true, true) => " (a certificate that is revoked by now)",
                (false, _) => ", whose certificate was not judged (--trust)",
            };
            println!(
                "  checkpoints  {} by {signer}{judged}, up to record {}",
                result.signed, result.signed_to
            );
        }
        None => println!("  checkpoints  none signed"),
    }
    if result.misdated > 0 {
        println!(
            "  dates        {} times the certificate was not valid by the time on record: the \
             agent's clock was wrong then",
            result.misdated
        );
    }
    if result.confirmed > 0 {
        println!(
            "  other end    agrees in {} checkpoints, up to record {}",
            result.confirmed, result.confirmed_to
        );
    } else {
        println!("  other end    not asked (--against): a cut end would not show");
    }
    if result.unfinished > 0 {
        println!(
            "  unfinished   {} bytes of a record at the end: the agent is writing, or was killed",
            result.unfinished
        );
    }
}
