//! What the long-running commands log, on standard error.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use fieldlock_agent::library::WARNINGS;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

#[derive(Debug, clap::Args)]
pub(crate) struct Log {
    /// What to log: off, error, warn, info, debug, trace, or levels like info,fieldlock=debug
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
        let filter = filter(&self.log).map_err(|error| {
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

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Levels, and targets with theirs. `tracing` itself takes a word that is no level for a target of which all is
/// wanted, and nothing of all others.
fn filter(text: &str) -> Result<Targets, FilterError> {
    let mut filter = Targets::new();
    for item in text.split(',').map(str::trim) {
        let (target, word) = match item.split_once('=') {
            Some((target, word)) => (Some(target.trim()), word.trim()),
            None => (None, item),
        };
        let known = LEVELS
            .iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name));
        let Some((_, level)) = known else {
            return Err(FilterError::Level {
                word: word.to_owned(),
            });
        };
        filter = match target {
            None => filter.with_default(*level),
            Some("") => {
                return Err(FilterError::NoTarget {
                    item: item.to_owned(),
                });
            }
            Some(target) => filter.with_target(target, *level),
        };
    }
    Ok(filter)
}

/// Why a text does not say what is to be logged.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FilterError {
    #[error(
        "`{word}` is no level; a level is off, error, warn, info, debug or trace, and a part of the program \
         (a target) gets its own as in info,fieldlock=debug"
    )]
    Level { word: String },
    #[error("`{item}` has no target before its `=`")]
    NoTarget { item: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_named() {
        for (text, word) in [
            ("infoo", "`infoo`"),
            ("info,fieldlock_agent", "`fieldlock_agent`"),
            ("fieldlock_agent=debgu", "`debgu`"),
            ("info,", "``"),
        ] {
            let error = filter(text).unwrap_err().to_string();
            assert!(error.starts_with(word), "{error}");
            assert!(error.contains("fieldlock=debug"), "{error}");
        }
        assert!(filter("=debug").is_err());
    }

    #[test]
    fn levels_and_targets_with_theirs_are_taken() {
        use tracing::Level;
        let chosen = filter("WARN, fieldlock_agent=debug,quinn=off").unwrap();
        assert!(chosen.would_enable("other", &Level::WARN));
        assert!(!chosen.would_enable("other", &Level::INFO));
        assert!(chosen.would_enable("fieldlock_agent::posture", &Level::DEBUG));
        assert!(!chosen.would_enable("quinn", &Level::ERROR));
    }
}
