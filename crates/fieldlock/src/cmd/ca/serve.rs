//! `fieldlock ca serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use fieldlock_ca::serve::{Bound, confine};
use fieldlock_ca::{Access, Ca, CaError, Passphrase};
use fieldlock_pki::Summary;

use super::Unlock;
use crate::cmd::log::Log;

/// Serve enrolment and renewal over the network (EST, RFC 7030), and publish CRLs
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca serve --dir ca --passphrase-file /run/credentials/ca-passphrase
  fieldlock ca serve --dir ca --listen 127.0.0.1:4434
Settings are in the section [serve] of CA/ca.toml. SIGTERM ends it.")]
pub(super) struct Serve {
    #[command(flatten)]
    unlock: Unlock,
    /// Where to listen [default: `listen` in ca.toml, [::]:4434]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Open the CA and its key, and nothing else
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    log: Log,
}

pub(super) fn run(args: &Serve) -> Result<ExitCode, CaError> {
    let directory = &args.unlock.at.dir;
    let passphrase = args.unlock.passphrase("the CA")?;
    let ca = Ca::open(directory, Access::Write)?;
    ca.unlock(&passphrase)?;
    tell(&ca, directory)?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(code) = args.log.start() {
        return Ok(code);
    }
    let listen = args.listen.unwrap_or(ca.settings().serve.listen);
    confine(directory, &ca, &passphrase, listen)?;
    // The server opens the directory for each operation, and would wait for this one.
    drop(ca);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CaError::io(Path::new("the runtime"), error))?;
    runtime.block_on(serve(directory, passphrase, listen))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    directory: &Path,
    passphrase: Passphrase,
    listen: SocketAddr,
) -> Result<(), CaError> {
    let bound = Bound::open(directory, passphrase, listen).await?;
    if let Ok(address) = bound.address() {
        tracing::info!(%address, "EST and CRLs: listening");
    }
    bound.run().await
}

fn tell(ca: &Ca, directory: &Path) -> Result<(), CaError> {
    let root = Summary::of(&ca.root_certificate()?).map_err(|_| CaError::Unreadable)?;
    let settings = &ca.settings().serve;
    eprintln!("CA of {} in {}", ca.settings().site, directory.display());
    eprintln!("root         {}", root.fingerprint);
    match &settings.address {
        Some(address) => eprintln!("tokens say   {address}"),
        None => eprintln!(
            "note: `address` under [serve] in ca.toml is not set: `ca token` needs `--address`"
        ),
    }
    Ok(())
}
