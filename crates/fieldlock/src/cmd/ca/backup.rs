//! `fieldlock ca backup` and `fieldlock ca restore`.

use std::path::PathBuf;

use clap::Parser;
use fieldlock_ca::{CaError, Time, backup};

use super::At;

/// Write the whole CA to one file
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock ca backup /media/usb/ca-2026-11-24.json --dir ca
The private key in it is encrypted by the CA's passphrase: keep the two apart.
A key on a PKCS#11 token is not in it: back that up by the token's means.")]
pub(super) struct Backup {
    /// The file to be made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    at: At,
}

/// Make the CA anew from a backup
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca restore ca-2026-11-24.json --dir ca --crl /var/lib/fieldlock/headend/trust/list.pem
What was issued after the backup is unknown to the restored CA; what was revoked is taken from the
newest list that can be found in the field, so that it stays revoked.")]
pub(super) struct Restore {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the CA is to be; must not exist
    #[arg(long, value_name = "CA")]
    dir: PathBuf,
    /// The newest CRLs to be had: trust/list.pem of an agent, or the lost CA's own files
    #[arg(long, value_name = "FILE", required_unless_present = "no_crl")]
    crl: Option<PathBuf>,
    /// There is none: what was revoked since the backup is valid again
    #[arg(long, conflicts_with = "crl")]
    no_crl: bool,
}

pub(super) fn make(args: &Backup) -> Result<(), CaError> {
    let copied = backup::make(&args.at.dir, &args.file, Time::now())?;
    eprintln!(
        "{} files of {} are in {}",
        copied.files,
        args.at.dir.display(),
        args.file.display()
    );
    for (name, uri) in copied.on_tokens {
        eprintln!("note: {name} says where the key is, {uri}");
        eprintln!("      The key itself stays on the token: back that up by the token's means.");
    }
    Ok(())
}

pub(super) fn restore(args: &Restore) -> Result<(), CaError> {
    let field = args.crl.as_deref().map(read_list).transpose()?;
    let field = field.unwrap_or_default();
    let restored = backup::restore(&args.file, &args.dir, &field, Time::now())?;
    eprintln!(
        "{} files of {} are in {}",
        restored.files,
        restored.made,
        args.dir.display()
    );
    for serial in restored.revoked {
        eprintln!("revoked since then: {serial}");
    }
    eprintln!(
        "Issue the next list: fieldlock ca crl --renew --dir {}",
        args.dir.display()
    );
    Ok(())
}

fn read_list(path: &std::path::Path) -> Result<String, CaError> {
    std::fs::read_to_string(path).map_err(|error| CaError::io(path, error))
}
