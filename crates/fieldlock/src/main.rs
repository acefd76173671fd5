//! `fieldlock`: one binary for the edge, the headend, the CA and their operators.

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration.\n";
const START: &str = if cfg!(feature = "demo") {
    "Start with `fieldlock demo`, which needs nothing and no root."
} else {
    "This is a build with fewer commands: `headend`, `ca` and `demo` are in the full one."
};

/// A locked door at both ends of a fieldbus wire.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    long_about = "A locked door at both ends of a fieldbus wire.\n\n\
        Modbus stays plaintext inside the cell and inside the control room, and crosses the \
        network between them only through a mutually authenticated tunnel, under a \
        default-deny policy, with an audit record.",
    after_help = EXIT_CODES.to_owned() + START
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent next to a device: dials its headends, has the last word on every request
    #[command(after_help = cmd::agent::EDGE_EXAMPLES)]
    Edge(cmd::agent::Args),
    #[cfg(feature = "headend")]
    /// Run the agent in the DMZ: faces SCADA and HMIs, serves the tunnels of the edges
    #[command(after_help = cmd::agent::HEADEND_EXAMPLES)]
    Headend(cmd::agent::Args),
    /// Show what a running agent does
    Status(cmd::status::Args),
    #[cfg(feature = "ca")]
    /// Issue, list and revoke certificates
    Ca(cmd::ca::Args),
    /// Get a certificate for an agent: request, install, update the CRL
    Enroll(cmd::enroll::Args),
    /// Check a policy, explain a decision, see what a change does
    Policy(cmd::policy::Args),
    /// Read the audit log
    Audit(cmd::audit::Args),
    #[cfg(feature = "demo")]
    /// See it work: simulated PLC, CA, edge and headend on this machine
    Demo(cmd::demo::Args),
    /// Print a completion script for a shell
    Completions(cmd::completions::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Edge(args) => cmd::agent::run(&fieldlock_edge::AGENT, &args),
        #[cfg(feature = "headend")]
        Command::Headend(args) => cmd::agent::run(&fieldlock_headend::AGENT, &args),
        Command::Status(args) => cmd::status::run(&args),
        #[cfg(feature = "ca")]
        Command::Ca(args) => cmd::ca::run(args),
        Command::Enroll(args) => cmd::enroll::run(args),
        Command::Policy(args) => cmd::policy::run(args),
        Command::Audit(args) => cmd::audit::run(args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => cmd::demo::run(&args),
        Command::Completions(args) => cmd::completions::run::<Cli>(&args),
    }
}

#[cfg(test)]
mod tests;
