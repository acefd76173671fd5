//! `fieldlock edge` and `fieldlock headend`.

use std::path::PathBuf;
use std::process::ExitCode;

use fieldlock_agent::{Agent, StartError};

use super::log::Log;

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
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(agent: &Agent, args: &Args) -> ExitCode {
    let file = args.config.clone();
    let file = file.unwrap_or_else(|| agent.configuration.into());
    if args.check {
        return match agent.check(&file) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(error) => report(&error),
        };
    }
    if let Err(code) = args.log.start() {
        return code;
    }
    match agent.run(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &StartError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(if error.is_configuration() { 2 } else { 1 })
}
