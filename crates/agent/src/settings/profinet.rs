//! `[profinet]` and `[[station]]`, in both files; `[[controller]]` in the headend's.

use std::collections::HashSet;
use std::time::Duration;

use fieldlock_conduit::profinet::MAX_PLAY_OUT;
use fieldlock_pki::Name;
use fieldlock_profinet::{Mac, StationName};
use fieldlock_session::hello::{MAX_STATION_NAMES, MAX_STATIONS};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Span;
use super::checks::Checks;

/// ARs that one agent keeps, at most: each costs a few KiB.
const MAX_ARS: usize = 1024;
/// Earlier frames in a datagram, at most.
const MAX_REDUNDANCY: u8 = 7;
const MAX_SPREAD: u8 = 8;
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
    pub edge: Option<String>,
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

    fn check(&self, file: &Checks<'_>) {
        let name = &self.name;
        file.ensure(self.redundancy <= MAX_REDUNDANCY, || {
            format!("station `{name}`: `redundancy` is 0 to {MAX_REDUNDANCY} earlier frames")
        });
        file.ensure((1..=MAX_SPREAD).contains(&self.spread), || {
            format!("station `{name}`: `spread` is 1 to {MAX_SPREAD} cycles")
        });
        file.ensure(self.play_out <= MAX_PLAY_OUT, || {
            format!("station `{name}`: `play_out` is 0 to {MAX_PLAY_OUT} cycles")
        });
        if let Some(mac) = self.mac {
            check_mac(file, &format!("station `{name}`"), mac);
        }
        let limit = self.fail_safe_limit.map(|limit| limit.0);
        file.ensure(limit != Some(Duration::ZERO), || {
            format!(
                "station `{name}`: a `fail_safe_limit` of 0 refuses every AR; leave it out for no limit"
            )
        });
        let Some(hold) = self.hold else {
            return;
        };
        let age = hold.max_age.0;
        let right = !age.is_zero() && age <= MAX_HOLD;
        file.ensure(right, || {
            format!(
                "station `{name}`: `hold.max_age` is above 0 and at most {MAX_HOLD:?}; without `hold` nothing is held"
            )
        });
        let bounded = limit.is_some_and(|limit| limit > age);
        file.ensure(bounded, || {
            format!(
                "station `{name}`: `hold` makes a provider that has gone look alive for {age:?} more; \
                 say in `fail_safe_limit` within which time, with the watchdog's, outputs must be safe"
            )
        })
    }
}

/// What belongs together in both files; `edge` only where the file is a headend's.
pub fn check(file: &Checks<'_>, profinet: Option<&Profinet>, stations: &[Station]) {
    file.at("", 0);
    match profinet {
        None => file.ensure(stations.is_empty(), || {
            "[[station]] without [profinet]: name the `interface` of the PROFINET wire there".into()
        }),
        Some(profinet) => {
            file.ensure(!stations.is_empty(), || {
                "[profinet] without [[station]]: nothing would cross; name the stations that may be reached".into()
            });
            file.at_table("profinet");
            profinet.check(file);
        }
    }
    let mut names = HashSet::new();
    let mut pins = HashSet::new();
    for (index, station) in stations.iter().enumerate() {
        file.at("station", index);
        let name = &station.name;
        file.ensure(names.insert(name), || format!("duplicate station `{name}`"));
        station.check(file);
        if let Some(mac) = station.mac {
            file.ensure(pins.insert(mac), || {
                format!("station `{name}`: another station has its `mac` {mac}")
            });
        }
    }
}

/// What stands in `edge.toml` only by mistake, and what fits one hello.
pub fn check_edge(file: &Checks<'_>, stations: &[Station]) {
    for (index, station) in stations.iter().enumerate() {
        file.at("station", index);
        file.ensure(station.edge.is_none(), || {
            format!(
                "station `{}`: `edge` belongs in headend.toml; here every station is this edge's own",
                station.name
            )
        });
    }
    file.at("", 0);
    file.ensure(stations.len() <= MAX_STATIONS, || {
        format!(
            "{} stations, allowed {MAX_STATIONS}: run a second edge with an identity of its own",
            stations.len()
        )
    });
    let octets: usize = stations.iter().map(|s| s.name.as_str().len()).sum();
    file.ensure(octets <= MAX_STATION_NAMES, || {
        format!(
            "the names of all stations have {octets} octets, allowed {MAX_STATION_NAMES}: \
             run a second edge with an identity of its own"
        )
    })
}

/// Who is bound to which edge, and who may be heard on the wire.
pub fn check_headend(file: &Checks<'_>, stations: &[Station], controllers: &[Controller]) {
    for (index, station) in stations.iter().enumerate() {
        file.at("station", index);
        let (name, edge) = (&station.name, station.edge());
        file.ensure(edge.parse::<Name>().is_ok(), || {
            let given = match station.edge {
                Some(_) => "",
                None => "; name the edge that offers it in `edge`",
            };
            format!(
                "station `{name}`: `{edge}` is no name of an edge (a-z, 0-9, inner hyphens){given}"
            )
        });
    }
    file.at("", 0);
    file.ensure(stations.is_empty() || !controllers.is_empty(), || {
        "[[station]] without [[controller]]: nobody may be heard; give `name` and `mac` of the IO-controller".into()
    });
    file.ensure(controllers.is_empty() || !stations.is_empty(), || {
        "[[controller]] without [[station]]: there is nothing that it could reach".into()
    });
    let mut names = HashSet::new();
    let mut macs: HashSet<Mac> = stations.iter().filter_map(|s| s.mac).collect();
    for (index, controller) in controllers.iter().enumerate() {
        file.at("controller", index);
        let Controller { name, mac } = controller;
        file.ensure(names.insert(name), || {
            format!("duplicate controller `{name}`")
        });
        check_mac(file, &format!("controller `{name}`"), *mac);
        file.ensure(macs.insert(*mac), || {
            format!("controller `{name}`: another controller or station has its `mac` {mac}")
        });
    }
}

impl Profinet {
    fn check(&self, file: &Checks<'_>) {
        let interface = &self.interface;
        let printable = interface.chars().all(|c| c.is_ascii_graphic() && c != '/');
        let right = printable && (1..=MAX_INTERFACE).contains(&interface.len());
        file.ensure(right, || {
            format!(
                "profinet: `interface` \"{interface}\" is no name of an interface; `ip link` lists them"
            )
        });
        file.ensure((1..=MAX_ARS).contains(&self.max_ars), || {
            format!("profinet: `max_ars` is 1 to {MAX_ARS}")
        })
    }

    /// What `--check` says of it.
    pub fn summary(&self, stations: usize) -> String {
        format!(
            ", PROFINET on `{}` with {stations} stations",
            self.interface
        )
    }
}

fn check_mac(file: &Checks<'_>, whose: &str, mac: Mac) {
    file.ensure(mac.is_station(), || {
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
