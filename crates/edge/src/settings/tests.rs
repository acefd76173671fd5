mod stations;

use std::collections::HashMap;

use fieldlock_agent::settings::{checked, parse, state_in};

use super::*;

const BASE: &str = "state = \"s\"\npolicy = \"p\"\n[[headend]]\nname = \"hd-1\"\n\
                    address = [\"192.0.2.1:4433\"]\n[[device]]\nname = \"press-07\"\n";
const TCP: &str = "modbus_tcp = { address = \"192.0.2.10:502\" }\n";
const RTU: &str = "modbus_rtu = { path = \"/dev/ttyS0\" }\n";

fn loaded(way: &str, quirks: &str) -> Result<File, String> {
    let file = Path::new("edge.toml");
    let text = format!("{BASE}{way}quirks = {quirks}\n");
    let variables = HashMap::new();
    let settings: File = parse(&text, file, File::LISTS, variables).map_err(|e| e.to_string())?;
    checked(&settings, file, Checks::new(&text)).map_err(|e| e.to_string())?;
    Ok(settings)
}

#[test]
fn quirks_are_named_one_by_one() {
    let file = loaded(TCP, "[\"answers-as-unit-1\", \"exception-length-4\"]").unwrap();
    let known = [Quirk::AnswersAsUnit1, Quirk::ExceptionLength4];
    assert_eq!(file.device[0].quirks, known.into_iter().collect());
    let error = loaded(TCP, "[\"answer-as-unit-1\"]").unwrap_err();
    assert!(error.starts_with("edge.toml:9:"), "{error}");
    assert!(
        error.contains("did you mean `answers-as-unit-1`?"),
        "{error}"
    );
}

#[test]
fn quirks_that_can_not_be_are_refused() {
    for (way, quirks, told) in [
        (
            RTU,
            "[\"transaction-id-zero\"]",
            "quirk `transaction-id-zero` is one of `modbus_tcp`",
        ),
        (
            TCP,
            "[\"rtu-echo\"]",
            "quirk `rtu-echo` is one of `modbus_rtu`",
        ),
        (
            "modbus_tcp = { address = \"192.0.2.10:502\", in_flight = 2 }\n",
            "[\"transaction-id-zero\"]",
            "at most 1 answers can be told apart, and `in_flight` is 2",
        ),
    ] {
        let error = loaded(way, quirks).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

fn parsed(text: &str) -> Result<File, SettingsError> {
    parse(text, Path::new("edge.toml"), File::LISTS, HashMap::new())
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
    let error = parsed("state = \"s\"\npolcy = \"p\"\n").unwrap_err();
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
    let SettingsError::Wrong { findings, .. } = parsed(text).unwrap_err() else {
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
    let settings = parsed(text).unwrap();
    let error = checked(&settings, file, Checks::new(text)).unwrap_err();
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
    let error = File::load(&file).unwrap_err().to_string();
    let start = format!("{}:2:1: `policy`: ", file.display());
    assert!(error.starts_with(&start), "{error}");
    assert!(error.contains("plicy.toml: No such file"), "{error}");
    assert!(
        error.contains("the directory of the configuration file"),
        "{error}"
    );
    std::fs::write(folder.path().join("plicy.toml"), "").unwrap();
    let settings = File::load(&file).unwrap();
    assert_eq!(settings.state, folder.path().join("state"));
    assert_eq!(settings.policy, Some(folder.path().join("plicy.toml")));
    assert_eq!(state_in(&file).unwrap(), folder.path().join("state"));
}

#[test]
fn the_environment_overrides_an_edge_that_has_no_lists() {
    let text = "state = \"a\"\npolicy = \"p\"\ndrain = \"5s\"\n";
    let variables = HashMap::from([
        ("FIELDLOCK__STATE".into(), "b,c".into()),
        ("FIELDLOCK__DRAIN".into(), "2s".into()),
    ]);
    let file: File = parse(text, Path::new("edge.toml"), File::LISTS, variables).unwrap();
    assert_eq!(file.state, Path::new("b,c"));
    assert_eq!(file.drain, Span::from_millis(2_000));
}

#[test]
fn an_unknown_variable_is_an_error() {
    let variables = HashMap::from([("FIELDLOCK__STTE".into(), "b".into())]);
    let parsed: Result<File, _> = parse(
        "state = \"a\"\npolicy = \"p\"\n",
        Path::new("edge.toml"),
        File::LISTS,
        variables,
    );
    let text = parsed.unwrap_err().to_string();
    assert!(text.contains("did you mean `state`?"), "{text}");
}
