//! Configuration files: read, overridden from the environment, checked as a whole.
//!
//! A file is parsed twice: by `toml` alone first, whose errors know line and column, then
//! through `config`, which merges `FIELDLOCK__SECTION__KEY` over it.

pub mod audit;
pub mod edge;
pub mod headend;
pub mod monitor;
pub mod profinet;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, fs};

use config::{Config, Environment, File, FileFormat};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Why a configuration can't be used. Each text says what to do.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("{file}: {source}\nhint: `--config FILE` names another one; examples/ has commented samples", file = file.display())]
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{file}:{line}:{column}: {message}", file = file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        column: usize,
        message: String,
    },
    #[error("environment FIELDLOCK__*: {message}")]
    Environment { message: String },
    #[error("{file}: {message}", file = file.display())]
    Meaning { file: PathBuf, message: String },
}

/// Prefix of the environment variables that override a file.
const PREFIX: &str = "FIELDLOCK";

fn load<T: DeserializeOwned>(file: &Path, lists: &[&str]) -> Result<T, SettingsError> {
    let text = fs::read_to_string(file).map_err(|source| SettingsError::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    let variables = env::vars()
        .filter(|(key, _)| key.starts_with(concat!("FIELDLOCK", "__")))
        .collect();
    parse(&text, file, lists, variables)
}

fn parse<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    lists: &[&str],
    variables: HashMap<String, String>,
) -> Result<T, SettingsError> {
    let parsed = toml::from_str(text).map_err(|error| syntax(text, file, &error))?;
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
            message: with_nearest(&error.to_string()),
        })
}

fn syntax(text: &str, file: &Path, error: &toml::de::Error) -> SettingsError {
    let start = error.span().map_or(0, |span| span.start);
    let before = &text[..start.min(text.len())];
    SettingsError::Syntax {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1,
        message: with_hint(error.message()),
    }
}

/// Adds what the parser's own text leaves open.
fn with_hint(message: &str) -> String {
    match message {
        "invalid socket address syntax" => format!(
            "{message}\nhint: write an IP address and a port, such as \"10.1.0.7:502\" or \"[::]:502\""
        ),
        _ => with_nearest(message),
    }
}

/// Adds the nearest key to serde's "unknown field `x`, expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.contains("unknown field") || message.contains("unknown variant");
    if let (true, Some(wrong)) = (unknown, quoted.next()) {
        let nearest = quoted
            .map(|key| (strsim::jaro_winkler(wrong, key), key))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, key)) = nearest.filter(|(likeness, _)| *likeness > 0.7) {
            return format!("{message}\nhint: did you mean `{key}`?");
        }
    }
    message.to_owned()
}

/// A length of time as people write it: `"250ms"`, `"1s"`, `"5m"`, `"30d"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        text.parse::<jiff::Span>()
            .and_then(|span| span.to_duration(days))
            .ok()
            .and_then(|span| Duration::try_from(span).ok())
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "`{text}` is not a length of time; write it like \"250ms\", \"1s\" or \"5m\""
                ))
            })
    }
}

/// What an agent does when no fresh revocation list can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// How long after its date a list is still good for new tunnels.
    pub crl_grace: Span,
    pub after_grace: AfterGrace,
    /// What a tunnel's keys come from.
    pub key_exchange: KeyExchange,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            crl_grace: Span(Duration::from_secs(30 * 86_400)),
            after_grace: AfterGrace::Keep,
            key_exchange: KeyExchange::Any,
        }
    }
}

/// What happens to live tunnels then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterGrace {
    Keep,
    Cut,
}

/// Which key exchanges a tunnel may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyExchange {
    /// Post-quantum where both ends have it, and else the best that both have.
    #[default]
    Any,
    PostQuantum,
}

/// The least version of TLS on connections that are not tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MinimumTls {
    #[default]
    Tls13,
    Tls12,
}

impl TryFrom<String> for MinimumTls {
    type Error = String;

    /// From a text also where the environment made a number of it.
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "1.3" => Ok(Self::Tls13),
            "1.2" => Ok(Self::Tls12),
            _ => Err(format!(
                "`{text}` is not a least version of TLS: use \"1.3\" or \"1.2\""
            )),
        }
    }
}

fn on() -> bool {
    true
}

/// Fails with a text about the whole file when `wrong` holds.
fn ensure(file: &Path, right: bool, message: impl FnOnce() -> String) -> Result<(), SettingsError> {
    if right {
        return Ok(());
    }
    Err(SettingsError::Meaning {
        file: file.to_owned(),
        message: message(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(text: &str) -> Result<edge::File, SettingsError> {
        parse(text, Path::new("edge.toml"), edge::LISTS, HashMap::new())
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
        let error = edge("state = \"s\"\npolcy = \"p\"\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("edge.toml:2:1: "), "{text}");
        assert!(text.contains("`polcy`"), "{text}");
        assert!(text.contains("did you mean `policy`?"), "{text}");
    }

    #[test]
    fn an_address_without_a_port_gets_a_hint() {
        let text = "state = \"s\"\npolicy = \"p\"\n[tunnel]\nlisten = [\"127.0.0.1\"]\n";
        let file = Path::new("headend.toml");
        let parsed: Result<headend::File, _> = parse(text, file, headend::LISTS, HashMap::new());
        let text = parsed.unwrap_err().to_string();
        assert!(
            text.contains("hint: write an IP address and a port"),
            "{text}"
        );
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        let span = |text: &str| {
            let json = serde_json::to_string(text).unwrap();
            serde_json::from_str::<Span>(&json).map(|span| span.0)
        };
        assert_eq!(span("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(span("1s").unwrap(), Duration::from_secs(1));
        assert_eq!(span("5m").unwrap(), Duration::from_secs(300));
        assert!(span("soon").unwrap_err().to_string().contains("250ms"));
        assert!(span("-1s").is_err());
    }

    #[test]
    fn the_environment_overrides_scalars_and_lists() {
        let text = "state = \"a\"\npolicy = \"p\"\n[tunnel]\nlisten = [\"[::]:4433\"]\n";
        let variables = HashMap::from([
            ("FIELDLOCK__STATE".into(), "b".into()),
            (
                "FIELDLOCK__TUNNEL__LISTEN".into(),
                "127.0.0.1:1,127.0.0.1:2".into(),
            ),
        ]);
        let file: headend::File =
            parse(text, Path::new("headend.toml"), headend::LISTS, variables).unwrap();
        assert_eq!(file.state, Path::new("b"));
        assert_eq!(file.tunnel.listen.len(), 2);
    }

    #[test]
    fn the_environment_overrides_an_edge_that_has_no_lists() {
        let text = "state = \"a\"\npolicy = \"p\"\ndrain = \"5s\"\n";
        let variables = HashMap::from([
            ("FIELDLOCK__STATE".into(), "b,c".into()),
            ("FIELDLOCK__DRAIN".into(), "2s".into()),
        ]);
        let file: edge::File = parse(text, Path::new("edge.toml"), edge::LISTS, variables).unwrap();
        assert_eq!(file.state, Path::new("b,c"));
        assert_eq!(file.drain, Span::from_millis(2_000));
    }

    #[test]
    fn the_least_version_of_tls_is_a_text_in_the_file_and_the_environment() {
        let load = |text: &str, variables| -> Result<headend::File, _> {
            parse(text, Path::new("headend.toml"), headend::LISTS, variables)
        };
        let text = "state = \"a\"\npolicy = \"p\"\n";
        assert_eq!(
            load(text, HashMap::new()).unwrap().mbaps.tls,
            MinimumTls::Tls13
        );
        let variables = HashMap::from([("FIELDLOCK__MBAPS__TLS".into(), "1.2".into())]);
        assert_eq!(load(text, variables).unwrap().mbaps.tls, MinimumTls::Tls12);
        let error = load(&format!("{text}[mbaps]\ntls = \"1.1\"\n"), HashMap::new());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("headend.toml:4:"), "{error}");
        assert!(error.contains("use \"1.3\" or \"1.2\""), "{error}");
    }

    #[test]
    fn an_unknown_variable_is_an_error() {
        let variables = HashMap::from([("FIELDLOCK__STTE".into(), "b".into())]);
        let parsed: Result<edge::File, _> = parse(
            "state = \"a\"\npolicy = \"p\"\n",
            Path::new("edge.toml"),
            edge::LISTS,
            variables,
        );
        let text = parsed.unwrap_err().to_string();
        assert!(text.contains("did you mean `state`?"), "{text}");
    }
}
