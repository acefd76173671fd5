//! `fieldlock edge` and `fieldlock headend`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use fieldlock_agent::{Agent, StartError};
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldlock edge --config /etc/fieldlock/edge.toml --check\n  \
    fieldlock headend --log-format json\n\n\
    SIGHUP, and any change of the files, reloads configuration, policy, certificate and CRLs.\n\
    SIGTERM lets requests under way finish. `FIELDLOCK__TUNNEL__LISTEN=...` and the like \
    override keys of the configuration.")]
pub(crate) struct Args {
    /// Configuration file; /etc/fieldlock/edge.toml or headend.toml by default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read and try everything, open and dial nothing
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug, trace, or a filter like info,fieldlock_agent=debug
    #[arg(
        long,
        env = "FIELDLOCK_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(agent: Agent, args: &Args) -> ExitCode {
    let default = match agent {
        Agent::Edge => "/etc/fieldlock/edge.toml",
        Agent::Headend => "/etc/fieldlock/headend.toml",
    };
    let file = args.config.clone().unwrap_or_else(|| default.into());
    if args.check {
        return match fieldlock_agent::check(agent, &file) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(error) => report(&error),
        };
    }
    let filter = match EnvFilter::try_new(&args.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("error: --log `{}`: {error}", args.log);
            return ExitCode::from(2);
        }
    };
    start_logging(filter, args.log_format);
    match fieldlock_agent::run(agent, &file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn start_logging(filter: EnvFilter, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(terminal).with_target(false).init();
        }
        LogFormat::Json => builder.json().init(),
    }
}

fn report(error: &StartError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(if error.is_configuration() { 2 } else { 1 })
}
