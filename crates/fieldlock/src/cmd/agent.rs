//! `fieldlock edge` and `fieldlock headend`.

use std::path::PathBuf;
use std::process::ExitCode;

use fieldlock_agent::{Agent, Dialled, StartError};

use super::log::Log;

pub(crate) const EDGE_EXAMPLES: &str = "\
Examples:
  fieldlock edge --config /etc/fieldlock/edge.toml --check
  fieldlock edge --config /etc/fieldlock/edge.toml --check --dial
  fieldlock edge --log info,fieldlock=debug --log-format json

SIGHUP, and any change of the files, reloads configuration, policy, certificate and CRLs.
SIGTERM lets requests under way finish. Variables such as FIELDLOCK__STATE override keys of the
configuration, which is /etc/fieldlock/edge.toml unless `--config` names another.";

#[cfg(feature = "headend")]
pub(crate) const HEADEND_EXAMPLES: &str = "\
Examples:
  fieldlock headend --config /etc/fieldlock/headend.toml --check
  fieldlock headend --config /etc/fieldlock/headend.toml --check --dial
  fieldlock headend --log info,fieldlock=debug --log-format json

SIGHUP, and any change of the files, reloads configuration, policy, certificate and CRLs.
SIGTERM lets requests under way finish. Variables such as FIELDLOCK__TUNNEL__LISTEN override keys
of the configuration, which is /etc/fieldlock/headend.toml unless `--config` names another.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read and try everything, open and dial nothing
    #[arg(long)]
    check: bool,
    /// With --check: dial devices, headends and CA as well, and say what answers
    #[arg(long, requires = "check")]
    dial: bool,
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(agent: &Agent, args: &Args) -> ExitCode {
    let file = args.config.clone();
    let file = file.unwrap_or_else(|| agent.configuration.into());
    if args.check {
        match agent.check(&file) {
            Ok(summary) => println!("{summary}"),
            Err(error) => return report(&error),
        }
        if !args.dial {
            return ExitCode::SUCCESS;
        }
        return match agent.dial(&file) {
            Ok(dialled) => say_dialled(&dialled),
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

fn say_dialled(dialled: &[Dialled]) -> ExitCode {
    for Dialled { what, outcome } in dialled {
        match outcome {
            Ok(said) => println!("{what}: {said}"),
            Err(why) => eprintln!("error: {what}: {why}"),
        }
    }
    let failed = dialled.iter().any(|dialled| dialled.outcome.is_err());
    ExitCode::from(u8::from(failed))
}

fn report(error: &StartError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(if error.is_configuration() { 2 } else { 1 })
}
