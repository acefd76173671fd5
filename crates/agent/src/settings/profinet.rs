//! `[profinet]` and `[[station]]`, in both files; `[[controller]]` in the headend's.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use fieldlock_pki::Name;
use fieldlock_profinet::{Mac, StationName};
use fieldlock_session::hello::{MAX_STATION_NAMES, MAX_STATIONS};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{SettingsError, Span, ensure};

/// ARs that one agent keeps, at most: each costs a few KiB.
const MAX_ARS: usize = 1024;
/// Earlier frames in a datagram, at most.
const MAX_REDUNDANCY: u8 = 7;
const MAX_SPREAD: u8 = 8;
const MAX_PLAY_OUT: u8 = 64;
/// Longest watchdog time of a consumer: 61,440 ticks of 31.25 us (IEC 61158-6-10). A longer hold
/// has nothing to hold up.
const MAX_HOLD: Duration = Duration::from_millis(1920);
/// Linux: IFNAMSIZ without the end.
const MAX_INTERFACE: usize = 15;

/// The wire of the controllers (headend) or of the devices (edge).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profinet {
    /// Name of the network interface.
    pub interface: String,
    /// What becomes of frames that come without an 802.1Q tag.
    #[serde(default)]
    pub tag: TagRule,
    /// ARs at once, of all stations.
    #[serde(default = "default_max_ars")]
    pub max_ars: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagRule {
    /// They leave at the other end without one, too.
    #[default]
    Keep,
    /// They get a priority tag: VLAN 0, and the priority of their class.
    Priority,
}

/// An IO-device behind an edge, and how its cyclic data cross the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    #[serde(deserialize_with = "station_name")]
    pub name: StationName,
    /// At the headend: name of the edge that may offer it; the station's own by default.
    edge: Option<String>,
    /// Earlier frames in each datagram, 0 to 7: they fill in for lost ones.
    #[serde(default = "default_redundancy")]
    pub redundancy: u8,
    /// Distance between these, in cycles, 1 to 8: more than 1 outlives bursts of losses.
    #[serde(default = "default_spread")]
    pub spread: u8,
    /// Cycles by which frames wait to leave in an even rhythm, 0 to 64; 0: they leave at once.
    #[serde(default)]
    pub play_out: u8,
    /// What is repeated while nothing arrives; nothing by default.
    pub hold: Option<Hold>,
    /// An AR whose outputs could stay as they are for longer than this, after its provider has
    /// gone, is refused: age of what is held and watchdog time together.
    pub fail_safe_limit: Option<Span>,
    /// The only address that the station may have.
    #[serde(default, deserialize_with = "optional_mac")]
    pub mac: Option<Mac>,
}

/// Frames are repeated while nothing newer arrives. Not a safety function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Oldest that data may be when they are repeated, the way through the tunnel included.
    pub max_age: Span,
}

/// An IO-controller that may be heard on the headend's wire. What it may do is the policy's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    #[serde(deserialize_with = "station_name")]
    pub name: StationName,
    #[serde(deserialize_with = "mac")]
    pub mac: Mac,
}

impl Station {
    /// Name of the edge that may offer it.
    pub fn edge(&self) -> &str {
        self.edge.as_deref().unwrap_or(self.name.as_str())
    }

    fn check(&self, file: &Path) -> Result<(), SettingsError> {
        let name = &self.name;
        ensure(file, self.redundancy <= MAX_REDUNDANCY, || {
            format!("station `{name}`: `redundancy` is 0 to {MAX_REDUNDANCY} earlier frames")
        })?;
        ensure(file, (1..=MAX_SPREAD).contains(&self.spread), || {
            format!("station `{name}`: `spread` is 1 to {MAX_SPREAD} cycles")
        })?;
        ensure(file, self.play_out <= MAX_PLAY_OUT, || {
            format!("station `{name}`: `play_out` is 0 to {MAX_PLAY_OUT} cycles")
        })?;
        if let Some(mac) = self.mac {
            check_mac(file, &format!("station `{name}`"), mac)?;
        }
        let limit = self.fail_safe_limit.map(|limit| limit.0);
        ensure(file, limit != Some(Duration::ZERO), || {
            format!(
                "station `{name}`: a `fail_safe_limit` of 0 refuses every AR; leave it out for no limit"
            )
        })?;
        let Some(hold) = self.hold else {
            return Ok(());
        };
        let age = hold.max_age.0;
        let right = !age.is_zero() && age <= MAX_HOLD;
        ensure(file, right, || {
            format!(
                "station `{name}`: `hold.max_age` is above 0 and at most {MAX_HOLD:?}; without `hold` nothing is held"
            )
        })?;
        let bounded = limit.is_some_and(|limit| limit > age);
        ensure(file, bounded, || {
            format!(
                "station `{name}`: `hold` makes a provider that has gone look alive for {age:?} more; \
                 say in `fail_safe_limit` within which time, with the watchdog's, outputs must be safe"
            )
        })
    }
}

/// What belongs together in both files; `edge` only where the file is a headend's.
pub(super) fn check(
    file: &Path,
    profinet: Option<&Profinet>,
    stations: &[Station],
) -> Result<(), SettingsError> {
    match profinet {
        None => ensure(file, stations.is_empty(), || {
            "[[station]] without [profinet]: name the `interface` of the PROFINET wire there".into()
        })?,
        Some(profinet) => {
            ensure(file, !stations.is_empty(), || {
                "[profinet] without [[station]]: nothing would cross; name the stations that may be reached".into()
            })?;
            profinet.check(file)?;
        }
    }
    let mut names = HashSet::new();
    let mut pins = HashSet::new();
    for station in stations {
        let name = &station.name;
        ensure(file, names.insert(name), || {
            format!("station `{name}` stands twice")
        })?;
        station.check(file)?;
        if let Some(mac) = station.mac {
            ensure(file, pins.insert(mac), || {
                format!("station `{name}`: another station has its `mac` {mac}")
            })?;
        }
    }
    Ok(())
}

/// What stands in `edge.toml` only by mistake, and what fits one hello.
pub(super) fn check_edge(file: &Path, stations: &[Station]) -> Result<(), SettingsError> {
    if let Some(station) = stations.iter().find(|station| station.edge.is_some()) {
        let text = format!(
            "station `{}`: `edge` belongs in headend.toml; here every station is this edge's own",
            station.name
        );
        ensure(file, false, || text)?;
    }
    ensure(file, stations.len() <= MAX_STATIONS, || {
        format!(
            "{} stations, allowed {MAX_STATIONS}: run a second edge with an identity of its own",
            stations.len()
        )
    })?;
    let octets: usize = stations.iter().map(|s| s.name.as_str().len()).sum();
    ensure(file, octets <= MAX_STATION_NAMES, || {
        format!(
            "the names of all stations have {octets} octets, allowed {MAX_STATION_NAMES}: \
             run a second edge with an identity of its own"
        )
    })
}

/// Who is bound to which edge, and who may be heard on the wire.
pub(super) fn check_headend(
    file: &Path,
    stations: &[Station],
    controllers: &[Controller],
) -> Result<(), SettingsError> {
    for station in stations {
        let (name, edge) = (&station.name, station.edge());
        ensure(file, edge.parse::<Name>().is_ok(), || {
            let given = match station.edge {
                Some(_) => "",
                None => "; name the edge that offers it in `edge`",
            };
            format!(
                "station `{name}`: `{edge}` is no name of an edge (a-z, 0-9, inner hyphens){given}"
            )
        })?;
    }
    ensure(file, stations.is_empty() || !controllers.is_empty(), || {
        "[[station]] without [[controller]]: nobody may be heard; give `name` and `mac` of the IO-controller".into()
    })?;
    ensure(file, controllers.is_empty() || !stations.is_empty(), || {
        "[[controller]] without [[station]]: there is nothing that it could reach".into()
    })?;
    let mut names = HashSet::new();
    let mut macs: HashSet<Mac> = stations.iter().filter_map(|s| s.mac).collect();
    for controller in controllers {
        let Controller { name, mac } = controller;
        ensure(file, names.insert(name), || {
            format!("controller `{name}` stands twice")
        })?;
        check_mac(file, &format!("controller `{name}`"), *mac)?;
        ensure(file, macs.insert(*mac), || {
            format!("controller `{name}`: another controller or station has its `mac` {mac}")
        })?;
    }
    Ok(())
}

impl Profinet {
    fn check(&self, file: &Path) -> Result<(), SettingsError> {
        let interface = &self.interface;
        let printable = interface.chars().all(|c| c.is_ascii_graphic() && c != '/');
        let right = printable && (1..=MAX_INTERFACE).contains(&interface.len());
        ensure(file, right, || {
            format!(
                "profinet.interface `{interface}` is no name of an interface; `ip link` lists them"
            )
        })?;
        ensure(file, (1..=MAX_ARS).contains(&self.max_ars), || {
            format!("profinet.max_ars is 1 to {MAX_ARS}")
        })
    }

    /// What `--check` says of it.
    pub(crate) fn summary(&self, stations: usize) -> String {
        format!(
            ", PROFINET on `{}` with {stations} stations",
            self.interface
        )
    }
}

fn check_mac(file: &Path, whose: &str, mac: Mac) -> Result<(), SettingsError> {
    ensure(file, mac.is_station(), || {
        format!("{whose}: `mac` {mac} is no station's own address")
    })
}

fn station_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StationName, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| D::Error::custom(format!("`{text}` is no name-of-station: {error}")))
}

fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

fn optional_mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
    mac(deserializer).map(Some)
}

fn default_max_ars() -> usize {
    64
}

fn default_redundancy() -> u8 {
    2
}

fn default_spread() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{edge, headend, parse};
    use super::*;

    const EDGE: &str = r#"
state = "s"
policy = "p"
[[headend]]
name = "hd-1"
address = ["192.0.2.1:4433"]
"#;
    const HEADEND: &str = r#"
state = "s"
policy = "p"
"#;
    const WIRE: &str = "[profinet]\ninterface = \"enp3s0\"\n";
    const STATION: &str = "[[station]]\nname = \"drive-1\"\n";
    const CONTROLLER: &str = "[[controller]]\nname = \"plc-1\"\nmac = \"00:1b:1b:01:02:03\"\n";

    fn edge(text: &str) -> Result<edge::File, SettingsError> {
        let (text, file) = (format!("{EDGE}{text}"), Path::new("edge.toml"));
        let parsed: edge::File = parse(&text, file, edge::LISTS, HashMap::new())?;
        parsed.check(file)?;
        Ok(parsed)
    }

    fn headend(text: &str) -> Result<headend::File, SettingsError> {
        let (text, file) = (format!("{HEADEND}{text}"), Path::new("headend.toml"));
        let parsed: headend::File = parse(&text, file, headend::LISTS, HashMap::new())?;
        parsed.check(file)?;
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

    #[test]
    fn a_station_belongs_to_the_edge_of_its_name_or_another() {
        let bound = |keys: &str| {
            let file = headend(&format!("{WIRE}{STATION}{keys}{CONTROLLER}"))?;
            Ok::<_, SettingsError>(file.station[0].edge().to_owned())
        };
        assert_eq!(bound("").unwrap(), "drive-1");
        assert_eq!(bound("edge = \"cell-4\"\n").unwrap(), "cell-4");
        assert!(bound("edge = \"Cell 4\"\n").is_err());
        assert!(station("edge = \"cell-4\"\n").is_err());
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
                "`drive-1` stands twice",
            ),
            (
                format!("{WIRE}{STATION}{pin}{two}{pin}"),
                "another station has its `mac`",
            ),
            (
                format!("{WIRE}max_ars = 0\n{STATION}"),
                "max_ars is 1 to 1024",
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
    fn who_may_be_heard_is_said_once() {
        let right = format!("{WIRE}{STATION}");
        for (text, part) in [
            (right.clone(), "[[station]] without [[controller]]"),
            (CONTROLLER.to_owned(), "[[controller]] without [[station]]"),
            (
                format!("{right}{CONTROLLER}{CONTROLLER}"),
                "`plc-1` stands twice",
            ),
            (
                format!(
                    "{right}{CONTROLLER}{}",
                    CONTROLLER.replace("plc-1", "plc-2")
                ),
                "another controller or station has its `mac`",
            ),
            (
                format!("{right}{}", CONTROLLER.replace("00:1b", "ff:1b")),
                "no station's own address",
            ),
            (
                format!("{right}mac = \"00:1b:1b:01:02:03\"\n{CONTROLLER}"),
                "another controller or station has its `mac`",
            ),
            (
                format!(
                    "{WIRE}{}{CONTROLLER}",
                    STATION.replace("drive-1", "drive-1.line-4")
                ),
                "name the edge that offers it in `edge`",
            ),
        ] {
            let refused = headend(&text).unwrap_err().to_string();
            assert!(refused.contains(part), "{text}: {refused}");
        }
        let file = headend(&format!("{right}{CONTROLLER}")).unwrap();
        assert_eq!(file.controller[0].mac, Mac([0, 0x1b, 0x1b, 1, 2, 3]));
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
}
