//! `fieldlock enroll`: an agent's key, request and certificate.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use fieldlock_ca::Time;
use fieldlock_enroll::AgentClock;
use fieldlock_enroll::files::{self as enroll, EnrollError, Expect, InstalledNow};
use fieldlock_enroll::join::Joined;
use fieldlock_pki::clock::Skew;
use fieldlock_pki::{Bundle, Installed, Name, Role, Token, store};
use zeroize::Zeroizing;

/// Give an agent its identity: request, have it signed at the CA, install
#[derive(Debug, Parser)]
#[command(after_help = "Examples, with files carried between agent and CA:
  fieldlock enroll request --role edge --name press-07 --state /var/lib/fieldlock/edge --out press-07.csr
  fieldlock ca sign press-07.csr --role edge --name press-07 --out press-07.pem  # at the CA
  fieldlock enroll install press-07.pem --state /var/lib/fieldlock/edge --root FINGERPRINT
The private key never leaves the agent, and nothing in the files is secret.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Request(Request),
    Install(Install),
    Join(Join),
    Undo(Undo),
    Crl(Crl),
}

/// Make a key, and a request for its certificate
#[derive(Debug, Parser)]
struct Request {
    /// edge, headend, operator, client, device or ca [default: as installed]
    #[arg(long)]
    role: Option<Role>,
    /// Name of the agent: a-z, 0-9 and `-` [default: as installed]
    #[arg(long)]
    name: Option<Name>,
    /// State directory of the agent
    #[arg(long)]
    state: PathBuf,
    /// File for the request [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Throw away the key of a request that is waiting
    #[arg(long)]
    replace: bool,
}

/// Check a bundle from the CA and install it
#[derive(Debug, Parser)]
struct Install {
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// State directory of the agent
    #[arg(long)]
    state: PathBuf,
    /// SHA-256 fingerprint that the root must have, as `fieldlock ca init` printed it
    #[arg(long, value_name = "FINGERPRINT")]
    root: Option<String>,
    /// Accept another root than the installed one: the site has a new CA
    #[arg(long)]
    replace_root: bool,
}

/// Get a certificate by a one-time token of `fieldlock ca token`
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock enroll join
  fieldlock enroll join --state /var/lib/fieldlock/edge --token-file token
  fieldlock enroll join --state /var/lib/fieldlock/edge < /media/usb/token
The token comes from a file that others can't read, a prompt, or standard input; never from an
argument, which every process on the machine can read. The private key is made here and stays here.")]
struct Join {
    /// State directory of the agent [default: /var/lib/fieldlock/ROLE, by the token's role]
    #[arg(long)]
    state: Option<PathBuf>,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Throw away the key of a request that is waiting, of another name
    #[arg(long)]
    replace: bool,
    /// Refused: a token does not belong on a command line
    #[arg(value_name = "TOKEN", hide = true)]
    token: Option<String>,
}

/// Put the identity back that `fieldlock ca issue --replace` has replaced
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock enroll undo --state /var/lib/fieldlock/edge
What is installed now is kept in its place: a second time brings it back.")]
struct Undo {
    /// State directory of the agent
    #[arg(long)]
    state: PathBuf,
}

/// Install the CRLs of a file, as `fieldlock ca crl` prints them
#[derive(Debug, Parser)]
struct Crl {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// State directory of the agent
    #[arg(long)]
    state: PathBuf,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Request(args) => request(args),
        Command::Install(args) => install(args),
        Command::Join(args) => join(&args),
        Command::Undo(args) => undo(&args),
        Command::Crl(args) => crl(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn request(args: Request) -> Result<(), EnrollError> {
    let asked = enroll::request(&args.state, args.role, args.name, args.replace)?;
    if asked.repeated {
        eprintln!("note: this request was waiting already; its key is kept");
    }
    let file = match &args.out {
        Some(path) => {
            std::fs::write(path, &asked.pem).map_err(|error| EnrollError::io(path, error))?;
            eprintln!("request written to {}", path.display());
            path.display().to_string()
        }
        None => {
            print(&asked.pem)?;
            "FILE".to_owned()
        }
    };
    eprintln!("Take it to the CA, and have it signed there:");
    eprintln!(
        "  fieldlock ca sign {file} --role {} --name {} --out {}.pem",
        asked.role, asked.name, asked.name
    );
    eprintln!("then, here:");
    eprintln!(
        "  fieldlock enroll install {}.pem --state {}",
        asked.name,
        args.state.display()
    );
    Ok(())
}

fn install(args: Install) -> Result<(), EnrollError> {
    let text = enroll::read_file(&args.bundle)?;
    let expect = Expect {
        root: args.root,
        replace_root: args.replace_root,
    };
    let expected = expect.root.is_some();
    let bundle = Bundle::parse(&text)?;
    let clock = clock(&args.state);
    let now = clock.now_for(&bundle.leaf, &bundle.trust);
    let installed = enroll::install(&args.state, bundle, &expect, now)?;
    if !installed.root_known && !expected {
        eprintln!(
            "note: this root was not known here before. Compare its fingerprint with the CA's, or repeat with `--root FINGERPRINT`"
        );
    }
    tell(&installed, &args.state)
}

fn join(args: &Join) -> Result<(), EnrollError> {
    if args.token.is_some() {
        return Err(EnrollError::TokenArgument);
    }
    let token = read_token(args.token_file.as_deref())?;
    eprintln!(
        "joining as {}/{} at {}",
        token.role, token.name, token.address
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| EnrollError::io(Path::new("the runtime"), error))?;
    let state = args.state.clone();
    let state = state.unwrap_or_else(|| default_state(token.role));
    let clock = clock(&state);
    let joining = fieldlock_enroll::join::join(&state, &token, args.replace, &clock);
    match runtime.block_on(joining)? {
        Joined::Now(installed) => tell(&installed, &state),
        Joined::Before(identity) => {
            eprintln!("this box has joined with this token before: nothing was changed");
            print(&format!("identity     {identity}\n"))
        }
    }
}

fn undo(args: &Undo) -> Result<(), EnrollError> {
    store::undo(&args.state)?;
    let installed = Installed::load(&args.state)?;
    eprintln!("back in {}", args.state.display());
    print(&format!("identity     {}\n", installed.identity))
}

/// Where an agent of this role has its state unless its configuration says otherwise.
pub(crate) fn default_state(role: Role) -> PathBuf {
    Path::new("/var/lib/fieldlock").join(role.as_str())
}

/// Says what the time is taken from where the system's clock can't be right.
fn clock(state: &Path) -> Arc<AgentClock> {
    let clock = AgentClock::of_state(state);
    if let Skew::Behind(by) = clock.read().skew {
        eprintln!(
            "note: this machine's clock is at least {} days behind: the time is taken from what the CA has signed",
            by / 86_400
        );
    }
    Arc::new(clock)
}

fn read_token(file: Option<&Path>) -> Result<Token, EnrollError> {
    let text = match file {
        Some(path) => enroll::read_secret(path)?,
        None if io::stdin().is_terminal() => {
            let prompted = rpassword::prompt_password("Token: ");
            Zeroizing::new(prompted.map_err(|error| EnrollError::io(Path::new("terminal"), error))?)
        }
        None => {
            let mut line = Zeroizing::new(String::new());
            io::stdin()
                .lock()
                .take(Token::MAX_LEN as u64)
                .read_line(&mut line)
                .map_err(|error| EnrollError::io(Path::new("standard input"), error))?;
            line
        }
    };
    Ok(text.parse()?)
}

fn tell(installed: &InstalledNow, state: &Path) -> Result<(), EnrollError> {
    eprintln!("installed in {}", state.display());
    print(&format!(
        "identity     {}\nissuer       {}\nserial       {}\nvalid        {} to {}\nfingerprint  {}\nroot         {}\n",
        installed.identity,
        installed.leaf.issuer,
        installed.leaf.serial,
        Time(installed.leaf.not_before),
        Time(installed.leaf.not_after),
        installed.leaf.fingerprint,
        installed.root.fingerprint,
    ))
}

fn crl(args: &Crl) -> Result<(), EnrollError> {
    let text = enroll::read_file(&args.file)?;
    let change = enroll::merge_trust(&args.state, &text)?;
    if change.revokes_us {
        eprintln!(
            "warning: this agent's certificate or its CA is revoked: no tunnel will accept it; enrol anew"
        );
    }
    for news in &change.merged.news {
        eprintln!("installed: {news}");
    }
    for crl in &change.crls {
        print(&format!(
            "CRL {} of {}: {} revoked, next one due {}\n",
            crl.number,
            crl.issuer,
            crl.revoked().len(),
            Time(crl.next_update),
        ))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<(), EnrollError> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| EnrollError::io(Path::new("standard output"), error))
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
