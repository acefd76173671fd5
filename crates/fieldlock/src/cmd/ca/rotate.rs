//! `fieldlock ca issuing` and `fieldlock ca root`: turning CAs over.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use fieldlock_ca::{Access, Ca, CaError, Passphrase, Time, ceremony};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Site, Summary};

use super::report::{output, print, tell_crl};
use super::{At, Unlock, days, new_secret, read_request, reason, token};

/// Turn the issuing CA over: new, add, use, drop
#[derive(Debug, Parser)]
#[command(
    after_help = "In this order, with time in between for agents to follow:
  fieldlock ca issuing new --dir ca --out next.csr
  fieldlock ca root sign next.csr --site plant1.example --root /media/usb/root --out next.pem  # offline
  fieldlock ca issuing add next.pem --dir ca         # agents learn of it; `fieldlock status`: same trust
  fieldlock ca issuing use MARK --dir ca             # renewals move everyone to it
  fieldlock ca issuing drop OLDMARK --dir ca         # refused while valid certificates remain"
)]
pub(super) struct Issuing {
    #[command(subcommand)]
    command: IssuingCommand,
}

#[derive(Debug, Subcommand)]
enum IssuingCommand {
    /// Make the next issuing CA's key, and a request for the root to sign
    New(New),
    /// Take the certificate that the root has signed: agents hear of it
    Add(Add),
    /// Issue under this CA from now on
    Use(Marked),
    /// Trust this CA no more
    Drop(Marked),
    /// The issuing CAs that agents trust
    List(At),
}

#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca issuing new --dir ca --out next.csr
  fieldlock ca issuing new --dir ca --out next.csr --passphrase-file passphrase --pin-file pin \\
      --key 'pkcs11:token=plant1?module-path=/usr/lib/softhsm/libsofthsm2.so'")]
struct New {
    #[command(flatten)]
    unlock: Unlock,
    /// Token on which the key is made: a PKCS#11 URI (RFC 7512) with `module-path`
    #[arg(long, value_name = "URI")]
    key: Option<String>,
    /// File for the request [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Parser)]
struct Add {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    unlock: Unlock,
}

#[derive(Debug, Parser)]
struct Marked {
    /// The last word of the CA's name: eight hexadecimal digits
    #[arg(value_name = "MARK")]
    mark: String,
    #[command(flatten)]
    at: At,
}

/// What needs the root's key, and which roots agents trust
#[derive(Debug, Parser)]
pub(super) struct Root {
    #[command(subcommand)]
    command: RootCommand,
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    Crl(RootCrl),
    Sign(Sign),
    New(NewRoot),
    Add(AddRoot),
    /// Trust this root no more; refused while an issuing CA stands below it
    Drop(Marked),
}

/// Issue the root's CRL anew: once a year, or to revoke an issuing CA
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca root crl --dir ca --root /media/usb/root
  fieldlock ca root crl --dir ca --root /media/usb/root --revoke 0a1b2c3d --reason key-compromise")]
struct RootCrl {
    #[command(flatten)]
    unlock: Unlock,
    /// Directory with the root's key
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Mark of an issuing CA: nothing under it is accepted any more
    #[arg(long, value_name = "MARK")]
    revoke: Option<String>,
    #[arg(long, default_value = "unspecified", value_parser = reason(), requires = "revoke")]
    reason: Reason,
}

/// Sign the certificate of an issuing CA; needs nothing but the root's directory
#[derive(Debug, Parser)]
struct Sign {
    /// Request of `ca issuing new`
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    #[command(flatten)]
    offline: Offline,
    /// Life in days
    #[arg(long, value_name = "N", default_value = "1825", value_parser = days())]
    days: u16,
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Make a new root, certified by the old one so that agents follow
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca root new --site plant1.example --root /media/usb/root --root-out /media/usb/root2 --out root2.pem
  fieldlock ca root new --site plant1.example --root /media/usb/root --root-out /media/usb/root2 --out root2.pem \\
      --passphrase-file passphrase --new-passphrase-file pin \\
      --key 'pkcs11:token=root?module-path=/usr/lib/softhsm/libsofthsm2.so'
then, at the CA: fieldlock ca root add root2.pem --dir ca, and an issuing CA below it.")]
struct NewRoot {
    #[command(flatten)]
    offline: Offline,
    /// Directory for the new root's key
    #[arg(long, value_name = "DIR")]
    root_out: PathBuf,
    /// Token on which the key is made: a PKCS#11 URI (RFC 7512) with `module-path`
    #[arg(long, value_name = "URI")]
    key: Option<String>,
    /// Passphrase of the new key (or PIN of its token), if it is to be another one
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Life in days
    #[arg(long, value_name = "N", default_value = "7300", value_parser = days())]
    days: u16,
    /// Days until its next CRL is due
    #[arg(long, value_name = "N", default_value = "365", value_parser = days())]
    crl_days: u16,
    /// File for what the CA needs of it [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Parser)]
struct Offline {
    /// Directory with the root's key
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Site that the CA may name
    #[arg(long)]
    site: Site,
    /// File whose first line is the passphrase of the root's key, or the PIN of its token
    #[arg(long, env = "FIELDLOCK_CA_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Offline {
    fn passphrase(&self) -> Result<Passphrase, CaError> {
        Ok(Passphrase::obtain(
            self.passphrase_file.as_deref(),
            "the root",
        )?)
    }
}

/// Take a new root, or a root's newer CRL, into what agents trust
#[derive(Debug, Parser)]
struct AddRoot {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    at: At,
}

pub(super) fn issuing(args: Issuing) -> Result<(), CaError> {
    let now = Time::now();
    match args.command {
        IssuingCommand::New(args) => {
            let token = token(args.key)?;
            let passphrase = args.unlock.passphrase("the CA")?;
            let ca = Ca::open(&args.unlock.at.dir, Access::Write)?;
            let request = ca.new_issuing(token.as_ref(), &passphrase)?;
            eprintln!("Have it signed by the root: fieldlock ca root sign FILE --root DIR");
            output(args.out.as_deref(), &request)
        }
        IssuingCommand::Add(args) => {
            let pem = read_request(&args.file)?;
            let passphrase = args.unlock.passphrase("the CA")?;
            let mut ca = Ca::open(&args.unlock.at.dir, Access::Write)?;
            let mark = ca.add_issuing(&pem, &passphrase, now)?;
            eprintln!("Agents hear of it now. When all have: fieldlock ca issuing use {mark}");
            print(&format!("{mark}\n"))
        }
        IssuingCommand::Use(args) => {
            Ca::open(&args.at.dir, Access::Write)?.use_issuing(&args.mark, now)?;
            eprintln!("Certificates come from {} from now on", args.mark);
            Ok(())
        }
        IssuingCommand::Drop(args) => {
            Ca::open(&args.at.dir, Access::Write)?.drop_issuing(&args.mark, now)
        }
        IssuingCommand::List(at) => {
            let ca = Ca::open(&at.dir, Access::Read)?;
            let mut text = String::new();
            for (mark, used, generation) in ca.generations() {
                let ca = Summary::of(&generation.certificate).map_err(|_| CaError::Unreadable)?;
                let state = if used { "in use" } else { "trusted" };
                let (from, to) = (Time(ca.not_before), Time(ca.not_after));
                text.push_str(&format!("{mark}  {state:<8} {from} to {to}\n"));
            }
            print(&text)
        }
    }
}

pub(super) fn root(args: Root) -> Result<(), CaError> {
    let now = Time::now();
    match args.command {
        RootCommand::Crl(args) => crl(&args, now),
        RootCommand::Sign(args) => {
            let request = read_request(&args.request)?;
            let passphrase = args.offline.passphrase()?;
            let root = ceremony::open(&args.offline.root, &passphrase)?;
            let site = &args.offline.site;
            let pem = ceremony::sign_issuing(&root, site, &request, args.days, now)?;
            output(args.out.as_deref(), &pem)
        }
        RootCommand::New(args) => {
            let token = token(args.key)?;
            let passphrase = args.offline.passphrase()?;
            let old = ceremony::open(&args.offline.root, &passphrase)?;
            let passphrase = match args.new_passphrase_file.as_deref() {
                Some(file) => new_secret(Some(file), "the new root", token.is_none())?,
                None => passphrase,
            };
            let lives = (args.days, args.crl_days);
            let (site, out) = (&args.offline.site, &args.root_out);
            let token = token.as_ref();
            let pem = ceremony::new_root(&old, site, out, token, &passphrase, lives, now)?;
            eprintln!(
                "Keep {} as the old root's key is kept",
                args.root_out.display()
            );
            output(args.out.as_deref(), &pem)
        }
        RootCommand::Add(args) => {
            let pem = read_request(&args.file)?;
            let merged = Ca::open(&args.at.dir, Access::Write)?.add_root(&pem)?;
            for news in merged.news {
                eprintln!("{news}");
            }
            Ok(())
        }
        RootCommand::Drop(args) => {
            Ca::open(&args.at.dir, Access::Write)?.drop_root(&args.mark, now)
        }
    }
}

fn crl(args: &RootCrl, now: Time) -> Result<(), CaError> {
    let passphrase = args.unlock.passphrase("the root")?;
    let mut ca = Ca::open(&args.unlock.at.dir, Access::Write)?;
    let root = ca.unlock_root(&args.root, &passphrase)?;
    let crl = match &args.revoke {
        Some(mark) => ca.revoke_issuing(&root, mark, args.reason, now)?,
        None => ca.renew_root_crl(&root, now)?,
    };
    tell_crl(&crl);
    let path = ca.root_crl_path(root.certificate())?;
    print(&format!("{}\n", path.display()))
}
