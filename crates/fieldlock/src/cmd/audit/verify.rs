//! `fieldlock audit verify`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fieldlock_evidence::verify::{Verified, VerifyError, verify};
use fieldlock_pki::trust::TrustListError;
use fieldlock_pki::{TrustList, store};

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
        Err(VerifyError::Trust(why)) => {
            eprintln!("error: the trust list can't judge this log: {why}");
            ExitCode::from(2)
        }
        Err(fault) => {
            let fault = fault.to_string();
            if options.json {
                println!(
                    "{}",
                    serde_json::json!({ "in_order": false, "fault": fault })
                );
            }
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn trust(state: Option<PathBuf>, file: Option<&Path>) -> Result<Option<TrustList>, TrustFileError> {
    let path = match (file, state) {
        (Some(file), _) => file.to_owned(),
        (None, Some(state)) => state.join(store::TRUST),
        (None, None) => return Ok(None),
    };
    let pem = match fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(TrustFileError::Read { path, source }),
    };
    TrustList::parse(&pem)
        .map(Some)
        .map_err(|error| TrustFileError::List { path, error })
}

/// Why there is no trust list to judge by.
#[derive(Debug, thiserror::Error)]
enum TrustFileError {
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {error}", path = .path.display())]
    List {
        path: PathBuf,
        error: TrustListError,
    },
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
