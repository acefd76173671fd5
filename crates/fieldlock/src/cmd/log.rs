//! What the long-running commands log, on standard error.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use fieldlock_agent::library::WARNINGS;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

#[derive(Debug, clap::Args)]
pub(crate) struct Log {
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

impl Log {
    pub(crate) fn start(&self) -> Result<(), ExitCode> {
        let filter: Targets = self.log.parse().map_err(|error| {
            eprintln!("error: --log `{}`: {error}", self.log);
            ExitCode::from(2)
        })?;
        let registry = tracing_subscriber::registry()
            .with(filter)
            .with(FewOfLibraries);
        let lines = fmt::layer().with_writer(io::stderr);
        match self.log_format {
            LogFormat::Text => {
                let terminal = io::stderr().is_terminal();
                let lines = lines.with_ansi(terminal).with_target(false);
                registry.with(lines).init();
            }
            LogFormat::Json => registry.with(lines.json()).init(),
        }
        Ok(())
    }
}

/// Lets through one in a while of the warnings of libraries. Theirs, and no others here, come by way
/// of the crate `log`.
struct FewOfLibraries;

impl<S: Subscriber> Layer<S> for FewOfLibraries {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        let is_warning = about.target() == "log" && *about.level() <= Level::WARN;
        !is_warning || WARNINGS.handle_warning(Instant::now())
    }
}
