//! Policies as people have them: plain files, and bundles.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fieldlock_policy::bundle::{self, Header, Malformed, time_text};
use fieldlock_policy::{Bundle, Policy, PolicyErrors};
use fieldlock_signed::{Distrust, PublicKey};
use serde_json::{Value, json};

/// A valid policy.
pub(super) struct Loaded {
    pub(super) policy: Policy,
    /// Of a bundle; its signature is good.
    pub(super) bundle: Option<Bundle>,
}

impl Loaded {
    /// Reads a plain policy file or a bundle. With `signers` it has to be a bundle of one of them.
    pub(super) fn read(path: &Path, signers: &[PublicKey]) -> Result<Self, FileError> {
        let text = read(path)?;
        let name = path.display().to_string();
        if Bundle::is_meant(&text) {
            let bundle = parse(path, &text)?;
            let verified = match signers {
                [] => bundle.verify_whole(),
                signers => bundle.verify_by(signers),
            };
            verified.map_err(|problem| FileError::Distrust {
                path: path.to_owned(),
                problem,
            })?;
            return Ok(Self {
                policy: bundle::compile(&bundle, &name)?,
                bundle: Some(bundle),
            });
        }
        if !signers.is_empty() {
            return Err(FileError::Plain {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            policy: Policy::parse(&text, &name)?,
            bundle: None,
        })
    }
}

pub(super) fn read(path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Bundle, FileError> {
    Bundle::parse(text.as_bytes()).map_err(|error| FileError::Bundle {
        path: path.to_owned(),
        error,
    })
}

/// Lines in the form of those of a policy's summary.
pub(super) fn describe(bundle: &Bundle) -> impl Display {
    let Header {
        version,
        not_before,
        edges,
    } = &bundle.header;
    let from = not_before.map_or("at once".to_owned(), time_text);
    let signer = bundle.signers();
    format!(
        "  bundle     version {version}\n  edges      {edges}\n  in force   {from}\n  signer     {signer}"
    )
}

pub(super) fn describe_json(bundle: &Bundle) -> Value {
    let header = &bundle.header;
    json!({
        "version": header.version,
        "edges": header.edges.to_string(),
        "not_before": header.not_before.map(time_text),
        "signer": bundle.signers(),
    })
}

/// Why a file is not a valid policy.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{path}: {source}", path = .path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Policy(#[from] PolicyErrors),
    #[error("{path}: {error}", path = .path.display())]
    Bundle { path: PathBuf, error: Malformed },
    #[error("{path}: {problem}", path = .path.display())]
    Distrust { path: PathBuf, problem: Distrust },
    #[error("{path}: a plain policy file, signed by nobody", path = .path.display())]
    Plain { path: PathBuf },
}

/// A policy has at most 8 MiB; one octet more is enough to be told so.
const MAX_FILE: u64 = (8 << 20) + 1;
