//! `fieldlock status`: asks a running agent over its local socket.

mod ask;
mod events;
mod profinet;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fieldlock_agent::settings::{SettingsError, state_in};
use fieldlock_status::{Answer, DEFAULT_LIMIT, Request, SCHEMA, Status};
use serde::Deserialize as _;

#[cfg(feature = "demo")]
pub(crate) use ask::ask;
use ask::{AskError, ask_for, document};
pub(crate) use text::{duration, or_dash};

/// Where agents keep their state when nobody says otherwise.
const STATES: [&str; 2] = ["/var/lib/fieldlock/headend", "/var/lib/fieldlock/edge"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldlock status\n  \
    fieldlock status --state /var/lib/fieldlock/edge\n  \
    fieldlock status --config /etc/fieldlock/headend.toml --json\n  \
    fieldlock status --recent denied\n  \
    fieldlock status --schema > status.schema.json")]
pub(crate) struct Args {
    /// The agent's state directory; by default that of the agent on this machine
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The agent's configuration file, which names its state directory
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// The agent's control socket itself
    #[arg(long, value_name = "PATH", conflicts_with_all = ["state", "config"])]
    socket: Option<PathBuf>,
    /// The last events on record instead, the latest first; of one kind of the audit log alone
    #[arg(long, value_name = "KIND")]
    #[expect(
        clippy::option_option,
        reason = "how clap says that the value may be left out"
    )]
    recent: Option<Option<String>>,
    /// Everything, as one JSON document
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of what `--json` prints, and ask nobody
    #[arg(long, conflicts_with_all = ["state", "config", "socket", "recent", "json"])]
    schema: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if args.schema {
        return print(SCHEMA);
    }
    let socket = match args.socket() {
        Ok(Some(socket)) => socket,
        Ok(None) => {
            eprintln!(
                "error: no agent's socket under {}\nhint: is the agent running? `--state DIR` or \
                 `--config FILE` says where it keeps its state",
                STATES.join(" or ")
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match shown(args, &socket) {
        Ok(text) => print(&text),
        Err(error) => {
            let hint = error.hint();
            eprintln!("error: {}: {error}\nhint: {hint}", socket.display());
            ExitCode::FAILURE
        }
    }
}

/// A reader that closes the pipe early, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn shown(args: &Args, socket: &Path) -> Result<String, AskError> {
    // JSON is printed as it came, with what this version does not know.
    let value = match &args.recent {
        None => document(socket)?,
        Some(kind) => {
            let (kind, limit) = (kind.clone(), DEFAULT_LIMIT);
            ask_for(socket, &Request::Recent { kind, limit })?
        }
    };
    if args.json {
        return Ok(format!("{value:#}\n"));
    }
    if args.recent.is_none() {
        return Ok(text::render(&Status::deserialize(value)?));
    }
    match Answer::deserialize(value)? {
        Answer::Recent { events } => Ok(events::render(&events)),
        _ => Err(AskError::OtherAnswer),
    }
}

impl Args {
    /// `None`: nobody said which, and there is none where agents keep their state.
    fn socket(&self) -> Result<Option<PathBuf>, SettingsError> {
        let state = match &self.config {
            Some(file) => Some(state_in(file)?),
            None => self.state.clone(),
        };
        let socket = state.map(|state| state.join(fieldlock_agent::SOCKET));
        Ok(self.socket.clone().or(socket).or_else(default_socket))
    }
}

fn default_socket() -> Option<PathBuf> {
    STATES
        .iter()
        .map(|state| Path::new(state).join(fieldlock_agent::SOCKET))
        // One that can't be looked at is there for all that is known, and asking it says why.
        .find(|path| path.try_exists().unwrap_or(true))
}
