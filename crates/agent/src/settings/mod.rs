//! Configuration files: read, overridden from the environment, checked as a whole.
//!
//! A file is read as it is first, and all that is wrong with it told with its place ([`document`],
//! [`checks`]; [`words`] has what is said), then through `config`, which merges
//! `FIELDLOCK__SECTION__KEY` over it. Paths in it count from its own directory.

pub mod audit;
mod checks;
mod document;
pub mod edge;
pub mod headend;
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

fn default_refuse_repeats_for() -> Span {
    Span::from_millis(10_000)
}

fn check_refuse_repeats_for(file: &Checks<'_>, what: &str, given: Span) {
    file.ensure(REFUSE_REPEATS_FOR.contains(&given.0), || {
        format!("{what}: `refuse_repeats_for` is 1s to 10m, and not {given:?}")
    });
}

/// Prefix of the environment variables that override a file.
const PREFIX: &str = "FIELDLOCK";

/// A configuration file of one kind.
trait Configuration: DeserializeOwned {
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
fn load<T: Configuration>(file: &Path) -> Result<T, SettingsError> {
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

fn checked<T: Configuration>(
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

fn parse<T: DeserializeOwned>(
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

fn on() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(text: &str) -> Result<edge::File, SettingsError> {
        parse(
            text,
            Path::new("edge.toml"),
            edge::File::LISTS,
            HashMap::new(),
        )
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
        let error = edge("state = \"s\"\npolcy = \"p\"\n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("edge.toml:2:1: "), "{text}");
        assert!(text.contains("`polcy`"), "{text}");
        assert!(text.contains("did you mean `policy`?"), "{text}");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place() {
        let text = "\
policy = 7
polcy = \"p\"
drain = \"soon\"
[headend]
name = \"hd-1\"
[[device]]
answer_within = 5
modbus_tcp = \"192.0.2.10\"
[[device]]
name = \"press-08\"
queue = 70000
modbus_rtu = { path = \"/dev/ttyS0\", parity = \"evn\" }
";
        let SettingsError::Wrong { findings, .. } = edge(text).unwrap_err() else {
            panic!();
        };
        let lines: Vec<_> = findings
            .iter()
            .map(|finding| (finding.place.map(|place| place.0), finding.message.as_str()))
            .collect();
        let starts = [
            (None, "`state` is missing\nhint: write state = \""),
            (Some(1), "`policy` is the number 7, and has to be a text"),
            (Some(2), "`polcy` is no key here; the keys are `state`, "),
            (Some(3), "`drain`: `soon` is not a length of time"),
            (
                Some(4),
                "`headend` is a table, and has to be a list, in [ ]\nhint: write [[headend]]",
            ),
            (
                Some(6),
                "`name` is missing\nhint: write name = \"press-07\"",
            ),
            (
                Some(7),
                "`answer_within` is the number 5, and has to be a text, in quotes\nhint: write answer_within = \"1s\"",
            ),
            (
                Some(8),
                "`modbus_tcp` is the text \"192.0.2.10\", and has to be a table",
            ),
            (
                Some(11),
                "`queue` is the number 70000, and has to be a whole number from 0 to 65535",
            ),
            (
                Some(12),
                "`parity`: `evn` is no choice; choose from `even`, `odd`, `none`\nhint: did you mean `even`?",
            ),
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for ((line, message), (wanted, start)) in lines.iter().zip(starts) {
            assert_eq!(*line, wanted, "{message}");
            assert!(message.starts_with(start), "{message}\n{start}");
            for foreign in [
                "invalid type",
                "expected",
                "map,",
                "sequence",
                "struct ",
                "field `",
            ] {
                assert!(!message.contains(foreign), "{message}");
            }
        }
    }

    #[test]
    fn what_does_not_belong_together_is_told_at_once_with_its_place() {
        let text = "\
state = \"s\"
policy = \"p\"
[[headend]]
name = \"HD_1\"
address = [\"hd-1\"]
[[device]]
name = \"press-07\"
queue = 0
[[device]]
name = \"press-07\"
modbus_tcp = { address = \"192.0.2.10\", in_flight = 0 }
";
        let file = Path::new("edge.toml");
        let parsed = edge(text).unwrap();
        let error = checked(&parsed, file, Checks::new(text)).unwrap_err();
        let text = error.to_string();
        for line in [
            "edge.toml:3:1: headend `HD_1`: ",
            "edge.toml:5:1: headend `HD_1`: `address` hd-1 is not host:port",
            "edge.toml:6:1: device `press-07`: give exactly one of ",
            "edge.toml:8:1: device `press-07`: `queue` and `queue_per_client` must be at least 1",
            "edge.toml:9:1: duplicate device `press-07`",
            "edge.toml:11:16: device `press-07`: `address` 192.0.2.10 is not host:port",
            "edge.toml:11:40: device `press-07`: `max_connections` and `in_flight` must be",
        ] {
            assert!(
                text.lines().any(|found| found.starts_with(line)),
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn paths_count_from_the_directory_of_the_file_and_a_missing_file_has_its_key_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        let text = "state = \"state\"\npolicy = \"plicy.toml\"\n[[headend]]\nname = \"hd-1\"\n\
                    address = [\"h:1\"]\n[[device]]\nname = \"d\"\nmodbus_tcp = { address = \"h:1\" }\n";
        std::fs::write(&file, text).unwrap();
        let error = edge::File::load(&file).unwrap_err().to_string();
        let start = format!("{}:2:1: `policy`: ", file.display());
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains("plicy.toml: No such file"), "{error}");
        assert!(
            error.contains("the directory of the configuration file"),
            "{error}"
        );
        std::fs::write(folder.path().join("plicy.toml"), "").unwrap();
        let settings = edge::File::load(&file).unwrap();
        assert_eq!(settings.state, folder.path().join("state"));
        assert_eq!(settings.policy, Some(folder.path().join("plicy.toml")));
        assert_eq!(state_in(&file).unwrap(), folder.path().join("state"));
    }

    #[test]
    fn an_address_without_a_port_gets_a_hint() {
        let text = "state = \"s\"\npolicy = \"p\"\n[tunnel]\nlisten = [\"127.0.0.1\"]\n";
        let file = Path::new("headend.toml");
        let parsed: Result<headend::File, _> =
            parse(text, file, headend::File::LISTS, HashMap::new());
        let text = parsed.unwrap_err().to_string();
        assert!(
            text.contains("hint: write an IP address and a port"),
            "{text}"
        );
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
        let file: headend::File = parse(
            text,
            Path::new("headend.toml"),
            headend::File::LISTS,
            variables,
        )
        .unwrap();
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
        let file: edge::File =
            parse(text, Path::new("edge.toml"), edge::File::LISTS, variables).unwrap();
        assert_eq!(file.state, Path::new("b,c"));
        assert_eq!(file.drain, Span::from_millis(2_000));
    }

    #[test]
    fn the_least_version_of_tls_is_a_text_in_the_file_and_the_environment() {
        let load = |text: &str, variables| -> Result<headend::File, _> {
            parse(
                text,
                Path::new("headend.toml"),
                headend::File::LISTS,
                variables,
            )
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
            edge::File::LISTS,
            variables,
        );
        let text = parsed.unwrap_err().to_string();
        assert!(text.contains("did you mean `state`?"), "{text}");
    }
}
