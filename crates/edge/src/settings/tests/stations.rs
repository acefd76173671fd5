//! What an edge is told of PROFINET.

use fieldlock_agent::settings::profinet::{Hold, TagRule};
use fieldlock_profinet::Mac;
use fieldlock_session::hello::MAX_STATIONS;

use super::*;

const EDGE: &str = r#"
state = "s"
policy = "p"
[[headend]]
name = "hd-1"
address = ["192.0.2.1:4433"]
"#;
const WIRE: &str = "[profinet]\ninterface = \"enp3s0\"\n";
const STATION: &str = "[[station]]\nname = \"drive-1\"\n";

fn edge(text: &str) -> Result<File, SettingsError> {
    let (text, file) = (format!("{EDGE}{text}"), Path::new("edge.toml"));
    let parsed: File = parse(&text, file, File::LISTS, HashMap::new())?;
    checked(&parsed, file, Checks::new(&text))?;
    Ok(parsed)
}

fn station(keys: &str) -> Result<Station, SettingsError> {
    let mut file = edge(&format!("{WIRE}{STATION}{keys}"))?;
    Ok(file.station.remove(0))
}

#[test]
fn what_is_not_said_is_the_default() {
    let file = edge(&format!("{WIRE}{STATION}")).unwrap();
    let wire = Profinet {
        interface: "enp3s0".into(),
        tag: TagRule::Keep,
        max_ars: 64,
    };
    assert_eq!(file.profinet, Some(wire));
    let expected = Station {
        name: "drive-1".parse().unwrap(),
        edge: None,
        redundancy: 2,
        spread: 1,
        play_out: 0,
        hold: None,
        fail_safe_limit: None,
        mac: None,
    };
    assert_eq!(file.station, [expected]);
}

#[test]
fn what_is_said_counts() {
    let keys = r#"
redundancy = 7
spread = 8
play_out = 2
hold = { max_age = "200ms" }
fail_safe_limit = "1s"
mac = "00-0A-0B-0C-0D-0E"
"#;
    let expected = Station {
        name: "drive-1".parse().unwrap(),
        edge: None,
        redundancy: 7,
        spread: 8,
        play_out: 2,
        hold: Some(Hold {
            max_age: Span::from_millis(200),
        }),
        fail_safe_limit: Some(Span::from_millis(1000)),
        mac: Some(Mac([0, 10, 11, 12, 13, 14])),
    };
    assert_eq!(station(keys).unwrap(), expected);
    let wire = "[profinet]\ninterface = \"tap0\"\ntag = \"priority\"\nmax_ars = 1024\n";
    let file = edge(&format!("{wire}{STATION}")).unwrap();
    assert_eq!(file.profinet.unwrap().tag, TagRule::Priority);
}

/// Each with the part of the text that says what is wrong.
#[test]
fn what_can_not_be_meant_is_refused() {
    for (keys, part) in [
        ("redundancy = 8", "0 to 7 earlier frames"),
        ("spread = 0", "1 to 8 cycles"),
        ("spread = 9", "1 to 8 cycles"),
        ("play_out = 65", "0 to 64 cycles"),
        ("fail_safe_limit = \"0s\"", "leave it out"),
        ("hold = { max_age = \"200ms\" }", "fail_safe_limit"),
        (
            "hold = { max_age = \"200ms\" }\nfail_safe_limit = \"200ms\"",
            "fail_safe_limit",
        ),
        (
            "hold = { max_age = \"0s\" }\nfail_safe_limit = \"1s\"",
            "hold.max_age",
        ),
        (
            "hold = { max_age = \"2s\" }\nfail_safe_limit = \"9s\"",
            "hold.max_age",
        ),
        ("mac = \"01:0e:cf:00:00:00\"", "no station's own address"),
        ("mac = \"00:00\"", "six octets"),
        ("play_ot = 2", "did you mean `play_out`?"),
    ] {
        let text = station(keys).unwrap_err().to_string();
        assert!(text.contains(part), "{keys}: {text}");
    }
    let two = STATION.replace("drive-1", "drive-2");
    let pin = "mac = \"00:0a:0b:0c:0d:0e\"\n";
    for (text, part) in [
        (STATION.to_owned(), "[[station]] without [profinet]"),
        (
            format!("{WIRE}[[device]]\nname = \"d\"\nmodbus_tcp = {{ address = \"h:502\" }}"),
            "[profinet] without [[station]]",
        ),
        (
            format!("{WIRE}{STATION}{STATION}"),
            "duplicate station `drive-1`",
        ),
        (
            format!("{WIRE}{STATION}{pin}{two}{pin}"),
            "another station has its `mac`",
        ),
        (
            format!("{WIRE}max_ars = 0\n{STATION}"),
            "`max_ars` is 1 to 1024",
        ),
        (
            format!("{}{STATION}", WIRE.replace("enp3s0", "a/b")),
            "no name of an interface",
        ),
        (
            format!("{WIRE}{}", STATION.replace("drive-1", "Drive 1")),
            "`Drive 1` is no name-of-station",
        ),
        (String::new(), "nothing to offer"),
    ] {
        let refused = edge(&text).unwrap_err().to_string();
        assert!(refused.contains(part), "{text}: {refused}");
    }
}

#[test]
fn stations_of_an_edge_fit_one_hello() {
    let many = |count: usize, length: usize| -> String {
        let name = |n: usize| format!("[[station]]\nname = \"s{n:0>0$}\"\n", length - 1);
        (0..count).map(name).collect()
    };
    let file = |count, length| edge(&format!("{WIRE}{}", many(count, length)));
    assert_eq!(file(MAX_STATIONS, 32).unwrap().station.len(), MAX_STATIONS);
    let refused = |count, length| file(count, length).unwrap_err().to_string();
    assert!(refused(MAX_STATIONS + 1, 8).contains("257 stations, allowed 256"));
    assert!(refused(MAX_STATIONS, 33).contains("8448 octets, allowed 8192"));
}

#[test]
fn a_station_is_of_no_other_edge() {
    assert!(station("edge = \"cell-4\"\n").is_err());
}
