//! `fieldlock policy key` and `fieldlock policy sign`: done offline, by who answers for a fleet's
//! policy.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fieldlock_ca::Passphrase;
use fieldlock_ca::hsm::{Uri, UriError};
use fieldlock_ca::keyfile::{self, KeyFileError};
use fieldlock_ca::passphrase::PassphraseError;
use fieldlock_pki::Name;
use fieldlock_pki::issue::CaKey;
use fieldlock_policy::bundle::{Edges, Header, MAX_BUNDLE, MAX_VERSION, Signature};
use fieldlock_policy::{Bundle, Policy};
use fieldlock_signed::PublicKey;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::file::{FileError, parse, read};
use super::print;

/// Make the key that signs policies, and print its public half for edges to pin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy key /media/usb/policy.key
  fieldlock policy key policy.key --token 'pkcs11:token=policy?module-path=/usr/lib/softhsm/libsofthsm2.so'
  fieldlock policy key policy.key --print

The key is encrypted with a passphrase, or made on a token, which it can't leave; then the file has
the URI by which it is found. The CA has no part in it. Keep a copy: without the key an edge takes a
new policy only after its configuration names another.")]
pub(super) struct Key {
    /// The key's file, which is made.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the public key of a file that is there.
    #[arg(long, conflicts_with = "token")]
    print: bool,
    /// Make the key on this token: a PKCS#11 URI (RFC 7512) with `module-path`.
    #[arg(long, value_name = "URI")]
    token: Option<String>,
    /// File whose first line is the passphrase of the key, or the PIN of its token; else a prompt,
    /// or standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Check a policy, and sign it for edges as a bundle.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy sign policy.toml --key policy.key --version 1 --any-edge -o fleet.bundle
  fieldlock policy sign policy.toml --key policy.key --version 8 --after fleet-7.bundle \\
      --edge press-07 --edge press-08 --not-before 2026-12-01T06:00:00+01:00 -o fleet-8.bundle

Edges take a bundle with a higher version than any before, and no other: to go back to an earlier
policy, sign it again with a higher version.")]
pub(super) struct Sign {
    /// The policy file; its tests have to pass.
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// The key, as `policy key` made it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Version of the bundle.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_VERSION))]
    version: u64,
    /// The bundle before this one: its version has to be lower.
    #[arg(long, value_name = "BUNDLE")]
    after: Option<PathBuf>,
    /// Name of an edge that may take it; may be given several times.
    #[arg(long, value_name = "NAME", required_unless_present = "any_edge")]
    edge: Vec<Name>,
    /// Every edge that pins the key may take it.
    #[arg(long, conflicts_with = "edge")]
    any_edge: bool,
    /// Not in force before this time, such as 2026-12-01T06:00:00+01:00; at once if left out. An
    /// edge whose clock is wrong waits.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Timestamp>,
    /// Where the bundle goes. What is there is replaced if it is a bundle.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// File whose first line is the passphrase of the key, or the PIN of its token; else a prompt,
    /// or standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn key(args: &Key) -> Result<(), SignError> {
    let file = args.passphrase_file.as_deref();
    let what = format!("the key {}", args.file.display());
    let key = if args.print {
        keyfile::load(&args.file, &Passphrase::obtain(file, &what)?)?
    } else {
        let token: Option<Uri> = args.token.as_deref().map(str::parse).transpose()?;
        let passphrase = match token {
            Some(_) => Passphrase::obtain(file, "the token")?,
            None => Passphrase::choose(file, &what)?,
        };
        keyfile::create(&args.file, token.as_ref(), LABEL, &passphrase)?
    };
    print(public(&*key)?);
    if !args.print {
        eprintln!("edges pin it: `signers` in [bundle] of edge.toml");
    }
    Ok(())
}

pub(super) fn sign(args: &Sign) -> Result<(), SignError> {
    let policy = read(&args.policy)?;
    if Bundle::is_meant(&policy) {
        let path = args.policy.clone();
        return Err(SignError::SignedAlready { path });
    }
    Policy::parse(&policy, &args.policy.display().to_string()).map_err(FileError::from)?;
    if let Some(path) = &args.after {
        let before = parse(path, &read(path)?)?.header.version;
        if args.version <= before {
            let (path, version) = (path.clone(), args.version);
            return Err(SignError::Version {
                path,
                version,
                before,
            });
        }
    }
    check_output(&args.output)?;
    let what = format!("the key {}", args.key.display());
    let passphrase = Passphrase::obtain(args.passphrase_file.as_deref(), &what)?;
    let key = keyfile::load(&args.key, &passphrase)?;
    let signer = public(&*key)?;
    let names = args.edge.iter().map(ToString::to_string).collect();
    let header = Header {
        version: args.version,
        not_before: args.not_before.map(Timestamp::as_second),
        edges: match args.any_edge {
            true => Edges::Any,
            false => Edges::only(names),
        },
    };
    let mut bundle = Bundle::new(header, policy);
    let name = signer.to_string();
    let octets = key
        .sign(bundle.signed_text(&name).as_bytes())
        .map_err(|error| SignError::Sign(error.to_string()))?;
    bundle.sign(Signature {
        signer: name,
        octets,
    });
    if bundle.verify_by(&[signer]).is_err() {
        return Err(SignError::Sign("what it signed does not verify".to_owned()));
    }
    let text = bundle.to_string();
    if text.len() > MAX_BUNDLE {
        return Err(SignError::Length { got: text.len() });
    }
    // Whoever reads it must find what was signed.
    parse(&args.output, &text)?;
    write(&args.output, &text).map_err(|source| FileError::Read {
        path: args.output.clone(),
        source,
    })?;
    eprintln!(
        "{}: version {} for {}, signed by {signer}",
        args.output.display(),
        bundle.header.version,
        bundle.header.edges,
    );
    Ok(())
}

fn public(key: &dyn CaKey) -> Result<PublicKey, SignError> {
    PublicKey::new(key.der_bytes()).ok_or(SignError::Kind)
}

/// Nothing but an earlier bundle is overwritten.
fn check_output(path: &Path) -> Result<(), SignError> {
    if !path.exists() || Bundle::is_meant(&read(path)?) {
        return Ok(());
    }
    let path = path.to_owned();
    Err(SignError::Output { path })
}

/// Puts the bundle into place in one step; anybody may read it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    fs::set_permissions(file.path(), Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Why nothing was signed, or no key made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error("--token: {0}")]
    Token(#[from] UriError),
    #[error("{path} is a bundle already: sign the policy file", path = .path.display())]
    SignedAlready { path: PathBuf },
    #[error(
        "version {version} is not above {before}, that of {path}: no edge that has it would take the bundle",
        path = .path.display()
    )]
    Version {
        path: PathBuf,
        version: u64,
        before: u64,
    },
    #[error("{path} is there and is no bundle: it is not overwritten", path = .path.display())]
    Output { path: PathBuf },
    #[error("the bundle has {got} octets, allowed {MAX_BUNDLE}")]
    Length { got: usize },
    #[error("policies are signed with a key on P-256: make one with `fieldlock policy key`")]
    Kind,
    #[error("the key does not sign: {0}")]
    Sign(String),
}

impl SignError {
    /// Whether another argument or policy is needed.
    pub(super) fn is_usage(&self) -> bool {
        !matches!(self, Self::Key(_) | Self::Sign(_))
    }
}

/// Of the key on a token, unless the URI has a name for it.
const LABEL: &str = "fieldlock policy";
