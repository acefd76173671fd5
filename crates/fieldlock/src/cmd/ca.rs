//! `fieldlock ca`: the bundled certificate authority.

mod backup;
mod records;
mod report;
mod rotate;
mod serve;
mod token;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fieldlock_ca::authority::Life;
use fieldlock_ca::event::Level;
use fieldlock_ca::hsm::Uri;
use fieldlock_ca::init::{self, Plan};
use fieldlock_ca::settings::MAX_DAYS;
use fieldlock_ca::{Access, Ca, CaError, Keys, Order, Passphrase, Settings, Source, Time, make};
use fieldlock_pki::bundle;
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Identity, ModbusRole, Name, Role, Site};

use report::{describe, output, print, tell_crl, tell_issued, tell_revoked};

/// Make and run the certificate authority of a site
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca init --site plant1.example --dir ca --root-out /media/usb/root
  fieldlock ca sign press-07.csr --dir ca --role edge --name press-07 --out press-07.pem
  fieldlock ca token --dir ca --role edge --name press-07 --address hd-1.dmz.example:4433
  fieldlock ca serve --dir ca
  fieldlock ca revoke press-07 --dir ca --reason key-compromise
The passphrase comes from `--passphrase-file`, a prompt, or standard input; never from an argument.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Issue(Issue),
    Sign(Sign),
    Token(token::Token),
    Serve(serve::Serve),
    Tokens(token::Tokens),
    List(records::List),
    Expiring(records::Expiring),
    Show(records::Show),
    Log(records::Log),
    Verify(records::Verify),
    Clock(records::Clock),
    Revoke(Revoke),
    Crl(PrintCrl),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Issuing(rotate::Issuing),
    Root(rotate::Root),
}

/// The CA that a command works on.
#[derive(Debug, Parser)]
struct At {
    /// Directory of the CA
    #[arg(long, default_value = "/var/lib/fieldlock/ca", value_name = "CA")]
    dir: PathBuf,
}

#[derive(Debug, Parser)]
struct Unlock {
    #[command(flatten)]
    at: At,
    /// File whose first line is the passphrase of the CA's key, or the PIN of the token where it is
    #[arg(long, env = "FIELDLOCK_CA_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File whose first line is the PIN, if the CA has keys on a token and others in files
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

impl Unlock {
    fn passphrase(&self, what: &str) -> Result<Passphrase, CaError> {
        Ca::check(&self.at.dir)?;
        self.with_pin(Passphrase::obtain(self.passphrase_file.as_deref(), what)?)
    }

    fn with_pin(&self, passphrase: Passphrase) -> Result<Passphrase, CaError> {
        Ok(match &self.pin_file {
            Some(file) => passphrase.with_pin_file(file)?,
            None => passphrase,
        })
    }
}

/// Make a root and an issuing CA
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca init --site plant1.example --dir ca --root-out /media/usb/root
  fieldlock ca init --site plant1.example --dir ca --root-out /media/usb/root \\
      --key 'pkcs11:token=plant1?module-path=/usr/lib/softhsm/libsofthsm2.so' \\
      --passphrase-file pin --root-passphrase-file passphrase
A key on a token is made there and can't be taken out. The token must have been initialised, by its
own program; its user PIN is given as a passphrase is.")]
struct Init {
    #[command(flatten)]
    unlock: Unlock,
    /// Site that the CA may name, a lower-case DNS name such as `plant1.example`
    #[arg(long)]
    site: Option<Site>,
    /// Where the root's key goes, best a removable medium [default: CA/root, to be moved away]
    #[arg(long, value_name = "DIR")]
    root_out: Option<PathBuf>,
    /// Passphrase of the root's key (or PIN of its token), if it is to be another one
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// Token on which the issuing CA's key is made: a PKCS#11 URI (RFC 7512) with `module-path`
    #[arg(long, value_name = "URI")]
    key: Option<String>,
    /// The same for the root's key
    #[arg(long, value_name = "URI")]
    root_key: Option<String>,
    /// Lifetimes and site, as in pki/profiles/site.toml
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Life of the root in days
    #[arg(long, value_name = "N", value_parser = days())]
    root_days: Option<u16>,
    /// Life of the issuing CA in days
    #[arg(long, value_name = "N", value_parser = days())]
    issuing_days: Option<u16>,
}

#[derive(Debug, Parser)]
struct Leaf {
    /// edge, headend, operator, client, device or ca
    #[arg(long)]
    role: Role,
    /// Name of the agent: a-z, 0-9 and `-`
    #[arg(long)]
    name: Name,
    /// Role for Modbus/TCP Security, such as `Operator`; for client (or edge) only
    #[arg(long, value_name = "NAME")]
    modbus_role: Option<ModbusRole>,
    /// Life of the certificate in days [default: the role's, 90]
    #[arg(long, value_name = "N", value_parser = days())]
    days: Option<u16>,
}

/// Make a key and a certificate at once: for tests, the demo, and a headend beside the CA
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca issue --dir ca --role headend --name hd-1 --state /var/lib/fieldlock/headend
  fieldlock ca issue --dir ca --role operator --name anna --out anna/
An agent on another machine keeps its key there: `fieldlock enroll request`, `fieldlock ca sign`.")]
struct Issue {
    #[command(flatten)]
    unlock: Unlock,
    #[command(flatten)]
    leaf: Leaf,
    /// Directory for key.pem and bundle.pem
    #[arg(long, value_name = "DIR", required_unless_present = "state")]
    out: Option<PathBuf>,
    /// State directory of an agent on this machine, to install into
    #[arg(long, value_name = "STATE", conflicts_with = "out")]
    state: Option<PathBuf>,
    /// Put it in the place of another identity that is installed there, which is kept
    #[arg(long, requires = "state")]
    replace: bool,
    /// For tests: first second of validity (RFC 3339)
    #[arg(
        long,
        value_name = "TIME",
        requires = "not_after",
        conflicts_with = "days"
    )]
    not_before: Option<Time>,
    /// For tests: last second of validity (RFC 3339)
    #[arg(long, value_name = "TIME", requires = "not_before")]
    not_after: Option<Time>,
}

/// Sign a request; only its public key is taken
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca sign press-07.csr --dir ca --role edge --name press-07 --out press-07.pem
  fieldlock ca sign scada.csr --dir ca --role client --name scada --modbus-role Operator --out scada.pem")]
struct Sign {
    #[command(flatten)]
    unlock: Unlock,
    /// Request made by `fieldlock enroll request` or another program (PEM), `-` for standard input
    #[arg(value_name = "CSR")]
    request: PathBuf,
    #[command(flatten)]
    leaf: Leaf,
    /// File for the bundle [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Revoke the certificates of a name, or one by serial number, and issue the CRL
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock ca revoke edge/press-07 --dir ca --reason key-compromise
By name it takes everything from the identity: certificates that are valid or could still be renewed,
and tokens that could still be used. By serial number it takes that certificate alone.")]
struct Revoke {
    #[command(flatten)]
    unlock: Unlock,
    #[arg(value_name = "NAME|SERIAL")]
    what: String,
    /// Why
    #[arg(long, default_value = "unspecified", value_parser = reason())]
    reason: Reason,
}

/// Print the current CRLs: of the issuing CA, then of the root
#[derive(Debug, Parser)]
struct PrintCrl {
    #[command(flatten)]
    unlock: Unlock,
    /// Issue the issuing CA's CRL anew first (asks for the passphrase)
    #[arg(long)]
    renew: bool,
    /// File for the CRLs [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Init(args) => init(args),
        Command::Issue(args) => issue(args),
        Command::Sign(args) => sign(args),
        Command::Token(args) => token::run(args),
        Command::Serve(args) => match serve::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Tokens(args) => token::list(&args),
        Command::List(args) => records::list(&args),
        Command::Expiring(args) => records::expiring(&args),
        Command::Show(args) => records::show(&args),
        Command::Log(args) => records::log(&args),
        Command::Verify(args) => records::verify(&args),
        Command::Clock(args) => records::clock(&args),
        Command::Revoke(args) => revoke(&args),
        Command::Crl(args) => crl(&args),
        Command::Backup(args) => backup::make(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Issuing(args) => rotate::issuing(args),
        Command::Root(args) => rotate::root(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn init(args: Init) -> Result<(), CaError> {
    let directory = args.unlock.at.dir.clone();
    let root_out = args.root_out.unwrap_or_else(|| directory.join("root"));
    let mut settings = Settings::resolve(args.site, args.profile.as_deref())?;
    settings.root.days = args.root_days.unwrap_or(settings.root.days);
    settings.issuing.days = args.issuing_days.unwrap_or(settings.issuing.days);
    settings.check()?;
    init::check_free(&directory, &root_out)?;

    let site = settings.site.clone();
    let (token, root_token) = (token(args.key)?, token(args.root_key)?);
    let own_root_file = args.root_passphrase_file.as_deref();
    let opens_a_file = token.is_none() || (root_token.is_none() && own_root_file.is_none());
    let file = args.unlock.passphrase_file.as_deref();
    let passphrase = new_secret(file, &format!("the CA of {site}"), opens_a_file)?;
    let passphrase = args.unlock.with_pin(passphrase)?;
    let root_passphrase = match own_root_file {
        Some(path) => new_secret(Some(path), "the root", root_token.is_none())?,
        None => passphrase.clone(),
    };
    let plan = Plan {
        directory,
        root_out,
        settings,
        passphrase,
        root_passphrase,
        token,
        root_token,
    };
    let made = init::make(&plan, Time::now())?;

    eprintln!("CA of {site} in {}", plan.directory.display());
    describe("root", &made.root);
    describe("issuing CA", &made.issuing);
    eprintln!();
    if plan.token.is_some() {
        eprintln!("The issuing CA's key is on its token; issuing.key.pem says where.");
    }
    if plan.root_token.is_some() {
        eprintln!(
            "The root's key is on its token; {} says where. Keep both in a safe:",
            made.root_key.display()
        );
    } else {
        eprintln!(
            "Move the root's key {} to an offline medium and keep a second copy in a safe:",
            made.root_key.display()
        );
    }
    eprintln!(
        "it is needed once a year, for `fieldlock ca root crl`, and must not stay on this machine."
    );
    eprintln!(
        "Note the root's fingerprint: `fieldlock enroll install --root FINGERPRINT` checks it."
    );
    print(&format!("{}\n", made.root.fingerprint))
}

fn issue(args: Issue) -> Result<(), CaError> {
    let life = match (args.not_before, args.not_after) {
        (Some(not_before), Some(not_after)) => Life::Between(not_before, not_after),
        _ => args.leaf.days.map_or(Life::Usual, Life::Days),
    };
    if let Some(directory) = &args.out {
        make::check_free(directory)?;
    }
    let (mut ca, authority) = unlock(&args.unlock)?;
    let mut replaced = None;
    if let Some(state) = &args.state {
        let identity = Identity {
            site: ca.settings().site.clone(),
            role: args.leaf.role,
            name: args.leaf.name.clone(),
        };
        replaced = make::other_identity(state, &identity, &ca.trust()?)?;
    }
    if let (Some(installed), Some(state), false) = (&replaced, &args.state, args.replace) {
        return Err(CaError::OtherInstalled {
            installed: installed.clone(),
            state: state.clone(),
        });
    }
    let key = make::Key::generate()?;
    let order = Order {
        role: args.leaf.role,
        name: args.leaf.name,
        modbus_role: args.leaf.modbus_role,
        key: key.public()?,
        source: Source::Made,
        life,
    };
    let issued = ca.issue(&authority, order, Time::now())?;
    tell_issued(&issued);
    match (args.out, args.state) {
        (_, Some(state)) => {
            key.install(&state, &issued.bundle)?;
            let state = state.display();
            eprintln!("installed in {state}");
            if let Some(replaced) = replaced {
                eprintln!(
                    "{replaced} was there and is kept: `fieldlock enroll undo --state {state}` brings it back"
                );
            }
        }
        (Some(directory), None) => {
            key.write(&directory, &issued.bundle)?;
            eprintln!("key.pem and bundle.pem are in {}", directory.display());
        }
        (None, None) => {}
    }
    print(&format!("{}\n", issued.summary.serial))
}

fn sign(args: Sign) -> Result<(), CaError> {
    Ca::check(&args.unlock.at.dir)?;
    let from_stdin = args.request == Path::new("-");
    if from_stdin && args.unlock.passphrase_file.is_none() {
        return Err(CaError::OneStdin);
    }
    let key = PublicKey::from_request(&read_request(&args.request)?)?;
    let file_name = args.request.file_name().unwrap_or_default();
    let source = Source::Request(file_name.to_string_lossy().into_owned());
    let (mut ca, authority) = unlock(&args.unlock)?;
    let order = Order {
        role: args.leaf.role,
        name: args.leaf.name,
        modbus_role: args.leaf.modbus_role,
        key,
        source,
        life: args.leaf.days.map_or(Life::Usual, Life::Days),
    };
    let issued = ca.issue(&authority, order, Time::now())?;
    tell_issued(&issued);
    output(args.out.as_deref(), &issued.bundle.to_pem())
}

fn revoke(args: &Revoke) -> Result<(), CaError> {
    let now = Time::now();
    // Before anyone is asked for a passphrase; while it is typed an agent may renew.
    Ca::open(&args.unlock.at.dir, Access::Read)?.find_revocable(&args.what, now)?;
    let (mut ca, authority) = unlock(&args.unlock)?;
    let now = Time::now();
    let (revoked, crl) = ca.revoke_all(&authority, &args.what, args.reason, now)?;
    tell_revoked(&ca, &revoked, args.reason, now)?;
    tell_crl(&crl);
    let path = ca.crl_path(Level::Issuing);
    eprintln!("Agents learn of it from this file; on each machine that holds a state directory:");
    eprintln!("  fieldlock enroll crl {} --state STATE", path.display());
    print(&format!("{}\n", path.display()))
}

fn crl(args: &PrintCrl) -> Result<(), CaError> {
    let now = Time::now();
    let ca = if args.renew {
        let (mut ca, authority) = unlock(&args.unlock)?;
        tell_crl(&ca.renew_crl(&authority, now)?);
        ca
    } else {
        let ca = Ca::open(&args.unlock.at.dir, Access::Read)?;
        if ca.crl_due(now)? {
            eprintln!(
                "warning: the issuing CA's CRL is past half its life or lacks a revocation: repeat with `--renew`"
            );
        }
        ca
    };
    let crls = ca.trust()?.crls;
    let text: String = crls.iter().map(|der| bundle::crl_pem(der)).collect();
    output(args.out.as_deref(), &text)
}

/// The passphrase is asked for before the CA is locked: other commands don't wait for typing.
fn unlock(args: &Unlock) -> Result<(Ca, Keys), CaError> {
    let passphrase = args.passphrase("the CA")?;
    let ca = Ca::open(&args.at.dir, Access::Write)?;
    let authority = ca.unlock(&passphrase)?;
    Ok((ca, authority))
}

/// What is to open a new key: a passphrase is chosen now, the PIN of a token was before.
fn new_secret(file: Option<&Path>, what: &str, is_file: bool) -> Result<Passphrase, CaError> {
    Ok(match is_file {
        true => Passphrase::choose(file, what)?,
        false => Passphrase::obtain(file, what)?,
    })
}

/// Read here and not among the other arguments, whose errors repeat what was typed: it could hold
/// a PIN.
fn token(uri: Option<String>) -> Result<Option<Uri>, CaError> {
    Ok(uri.map(|uri| uri.parse()).transpose()?)
}

fn read_request(path: &Path) -> Result<String, CaError> {
    let limit = PublicKey::MAX_REQUEST as u64 + 1;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.map_err(|error| CaError::io(path, error))?;
    Ok(text)
}

fn days() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(MAX_DAYS))
}

fn reason() -> impl clap::builder::TypedValueParser<Value = Reason> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(Reason::ALL.map(Reason::as_str)).try_map(|text| {
        Reason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or("unknown reason")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
