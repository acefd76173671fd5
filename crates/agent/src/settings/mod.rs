//! Configuration files: read, overridden from the environment, checked as a whole.
//!
//! A file is read as it is first, and all that is wrong with it told with its place ([`document`],
//! [`checks`]; [`words`] has what is said), then through `config`, which merges
//! `FIELDLOCK__SECTION__KEY` over it. Paths in it count from its own directory.

pub mod audit;
pub mod checks;
pub mod document;
pub mod monitor;
pub mod profinet;
mod words;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use config::{Config, Environment, File, FileFormat};
pub use fieldlock_transport::tls::options::{AfterGrace, MinimumTls, Span, Trust};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use checks::Checks;
pub use document::Finding;
use words::in_words;

/// Why a configuration can't be used. Each text says what to do.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("{file}: {source}\nhint: `--config FILE` names another one; examples/ has commented samples", file = file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{}", listed(file, findings))]
    Wrong {
        file: PathBuf,
        findings: Vec<Finding>,
    },
    #[error("environment FIELDLOCK__*: {message}")]
    Environment { message: String },
}

/// A line for each, as compilers write them.
fn listed(file: &Path, findings: &[Finding]) -> String {
    let line = |Finding { place, message }: &Finding| match place {
        Some((line, column)) => format!("{}:{line}:{column}: {message}", file.display()),
        None => format!("{}: {message}", file.display()),
    };
    let lines: Vec<_> = findings.iter().map(line).collect();
    lines.join("\n")
}

/// For how long a repeated write is recognised.
const REFUSE_REPEATS_FOR: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);

pub fn default_refuse_repeats_for() -> Span {
    Span::from_millis(10_000)
}

pub fn check_refuse_repeats_for(file: &Checks<'_>, what: &str, given: Span) {
    file.ensure(REFUSE_REPEATS_FOR.contains(&given.0), || {
        format!("{what}: `refuse_repeats_for` is 1s to 10m, and not {given:?}")
    });
}

/// Prefix of the environment variables that override a file.
const PREFIX: &str = "FIELDLOCK";

/// A configuration file of one kind.
pub trait Configuration: DeserializeOwned {
    /// Keys that hold lists of scalars, for the environment.
    const LISTS: &'static [&'static str];

    /// Files that have to be there, and the keys that name them.
    fn files(&self) -> Vec<(&'static str, &Path)>;

    /// Paths count from `folder`.
    fn resolve(&mut self, folder: &Path);

    /// What belongs together.
    fn check(&self, file: &Checks<'_>);
}

/// Reads `file`, merges the environment over it and checks what belongs together.
pub fn load<T: Configuration>(file: &Path) -> Result<T, SettingsError> {
    let text = read(file)?;
    let mut settings: T = parse(&text, file, T::LISTS, variables())?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let checks = Checks::new(&text);
    for (key, given) in settings.files() {
        checks.ensure_file(key, folder, given);
    }
    settings.resolve(folder);
    checked(&settings, file, checks)?;
    Ok(settings)
}

pub fn checked<T: Configuration>(
    settings: &T,
    file: &Path,
    checks: Checks<'_>,
) -> Result<(), SettingsError> {
    settings.check(&checks);
    match checks.into_findings() {
        findings if findings.is_empty() => Ok(()),
        findings => Err(SettingsError::Wrong {
            file: file.to_owned(),
            findings,
        }),
    }
}

/// The state directory that `file` names, whatever else may be wrong with it.
pub fn state_in(file: &Path) -> Result<PathBuf, SettingsError> {
    #[derive(Deserialize)]
    struct Stated {
        state: PathBuf,
    }
    let stated: Stated = parse(&read(file)?, file, &[], variables())?;
    let folder = file.parent().unwrap_or(Path::new(""));
    Ok(folder.join(stated.state))
}

fn read(file: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(file).map_err(|source| SettingsError::Unreadable {
        file: file.to_owned(),
        source,
    })
}

fn variables() -> HashMap<String, String> {
    env::vars()
        .filter(|(key, _)| key.starts_with(concat!("FIELDLOCK", "__")))
        .collect()
}

pub fn parse<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    lists: &[&str],
    variables: HashMap<String, String>,
) -> Result<T, SettingsError> {
    let parsed = document::read(text).map_err(|findings| SettingsError::Wrong {
        file: file.to_owned(),
        findings,
    })?;
    if variables.is_empty() {
        return Ok(parsed);
    }
    let mut environment = Environment::with_prefix(PREFIX)
        .separator("__")
        .try_parsing(true)
        .source(Some(variables));
    // With a separator and no keys `config` would split every value.
    if !lists.is_empty() {
        environment = environment.list_separator(",");
    }
    for key in lists {
        environment = environment.with_list_parse_key(key);
    }
    Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(environment)
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| SettingsError::Environment {
            message: in_words(&error.to_string(), ""),
        })
}

pub fn on() -> bool {
    true
}
