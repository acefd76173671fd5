//! What carries the frames between the two stations, for real.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use fieldlock_testkit::wait::wait_until;
use serde_json::Value;

use super::plant::{Place, Plant, WEST, Wire, run, sibling};
use super::stations::{Names, names};
use crate::plan::{Network, Timing, WINDOW};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// One cable, or one wire, from station to station.
    Bare,
    /// OpenVPN with TAP interfaces, bridged with the stations' wires.
    OpenVpn {
        tcp: bool,
    },
    Fieldlock(Means),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Means {
    tls: bool,
    redundancy: u8,
    play_out: bool,
    hold: bool,
}

impl FromStr for Carrier {
    type Err = String;

    /// `bare`, `openvpn-udp`, `openvpn-tcp`, `fieldlock` with `+tls`, `+rN`, `+playout`, `+hold`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is none of bare, openvpn-udp, openvpn-tcp, fieldlock[+tls][+rN][+playout][+hold]"
            )
        };
        match text {
            "bare" => return Ok(Self::Bare),
            "openvpn-udp" => return Ok(Self::OpenVpn { tcp: false }),
            "openvpn-tcp" => return Ok(Self::OpenVpn { tcp: true }),
            _ => {}
        }
        let mut words = text.split('+');
        if words.next() != Some("fieldlock") {
            return Err(wrong());
        }
        let mut means = Means::default();
        for word in words {
            match word {
                "tls" => means.tls = true,
                "playout" => means.play_out = true,
                "hold" => means.hold = true,
                _ => {
                    let number = word.strip_prefix('r').and_then(|it| it.parse().ok());
                    means.redundancy = number.filter(|it| *it <= 7).ok_or_else(wrong)?;
                }
            }
        }
        Ok(Self::Fieldlock(means))
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => f.write_str("bare wire"),
            Self::OpenVpn { tcp: false } => f.write_str("OpenVPN TAP, UDP"),
            Self::OpenVpn { tcp: true } => f.write_str("OpenVPN TAP, TCP"),
            Self::Fieldlock(means) => {
                f.write_str(if means.tls {
                    "Fieldlock, TLS"
                } else {
                    "Fieldlock"
                })?;
                if means.redundancy > 0 {
                    write!(f, ", redundancy {}", means.redundancy)?;
                }
                f.write_str(if means.play_out { ", play-out" } else { "" })?;
                f.write_str(if means.hold { ", hold" } else { "" })
            }
        }
    }
}

impl Means {
    /// As many cycles as frames are repeated for, at least two, and the network's jitter.
    fn play_out(self, timing: Timing, network: &Network) -> u32 {
        if !self.play_out {
            return 0;
        }
        let jitter = network
            .jitter
            .as_millis()
            .div_ceil(timing.cycle.as_millis());
        u32::from(self.redundancy.max(2)) + jitter as u32
    }

    /// The play-out delay, a round trip and a watchdog time, at most 1.92 s.
    fn max_age(self, timing: Timing, network: &Network) -> Option<Duration> {
        let play_out = timing.cycle * self.play_out(timing, network);
        let limit = play_out + 2 * network.longest_way() + timing.watchdog();
        self.hold.then(|| limit.min(WINDOW))
    }

    /// Keys of a `[[station]]`.
    fn keys(self, timing: Timing, network: &Network) -> String {
        let mut keys = format!(
            "redundancy = {}\nplay_out = {}\n",
            self.redundancy,
            self.play_out(timing, network)
        );
        if let Some(age) = self.max_age(timing, network) {
            let limit = age + timing.watchdog();
            keys += &format!(
                "hold = {{ max_age = \"{}ms\" }}\nfail_safe_limit = \"{}ms\"\n",
                age.as_millis(),
                limit.as_millis()
            );
        }
        keys
    }
}

impl Carrier {
    /// Lays the wires and starts what carries; the processes whose work that is.
    pub(super) fn up(
        self,
        plant: &mut Plant,
        wire: &Wire,
        timing: Timing,
        network: &Network,
        stations: usize,
    ) -> Result<Vec<usize>, String> {
        match self {
            Self::Bare => plant.join_directly(wire).map(|()| Vec::new()),
            Self::OpenVpn { tcp } => {
                plant.join_by_tunnel(wire)?;
                open_vpn(plant, tcp)
            }
            Self::Fieldlock(means) => {
                plant.join_by_tunnel(wire)?;
                let keys = means.keys(timing, network);
                fieldlock(plant, means.tls, &keys, &names(stations))
            }
        }
    }
}

/// TLS between certificates that know each other's fingerprint, AES-256-GCM, and a bridge at
/// either end.
fn open_vpn(plant: &mut Plant, tcp: bool) -> Result<Vec<usize>, String> {
    let ends = [(Place::West, "pn-ctl"), (Place::East, "pn-dev")];
    let mut fingerprints = Vec::new();
    for name in ["west", "east"] {
        let certificate = plant.file(&format!("{name}.crt"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-subj", &format!("/CN={name}"), "-out"]);
        command.arg(&certificate);
        command
            .arg("-keyout")
            .arg(plant.file(&format!("{name}.key")));
        run(&mut command)?;
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
        let shown = run(command.arg(&certificate))?;
        let (_, fingerprint) = shown.trim().split_once('=').unwrap_or_default();
        fingerprints.push(fingerprint.to_owned());
    }
    let mut started = Vec::new();
    for (index, (place, interface)) in ends.into_iter().enumerate() {
        plant.ip(place, "tuntap add dev tap0 mode tap")?;
        plant.ip(place, "link add br0 type bridge mcast_snooping 0")?;
        for port in [interface, "tap0"] {
            plant.ip(place, &format!("link set {port} master br0"))?;
            plant.ip(place, &format!("link set {port} up"))?;
        }
        plant.ip(place, "link set br0 up")?;
        let name = ["west", "east"][index];
        let mut command = plant.command(Path::new("openvpn"));
        command.args(["--dev", "tap0", "--dev-type", "tap", "--verb", "3"]);
        command.args(["--data-ciphers", "AES-256-GCM", "--ping", "1"]);
        command.args([
            "--ping-restart",
            "10",
            "--persist-tun",
            "--connect-retry",
            "1",
        ]);
        command.args(["--peer-fingerprint", &fingerprints[1 - index], "--cert"]);
        command.arg(plant.file(&format!("{name}.crt")));
        command.arg("--key").arg(plant.file(&format!("{name}.key")));
        command.args(match (tcp, place) {
            (false, _) => ["--proto", "udp4"],
            (true, Place::West) => ["--proto", "tcp4-server"],
            (true, _) => ["--proto", "tcp4-client"],
        });
        if tcp {
            command.args(["--socket-flags", "TCP_NODELAY"]);
        }
        match place {
            Place::West => command.args(["--tls-server", "--dh", "none", "--local", WEST]),
            _ => command.args(["--tls-client", "--nobind", "--remote", WEST]),
        };
        started.push(plant.start(place, &format!("openvpn-{name}"), &mut command)?);
    }
    for process in &started {
        plant.wait_log(*process, "Initialization Sequence Completed")?;
    }
    Ok(started)
}

const SITE: &str = "bench.example";
const PASSPHRASE: &str = "of no worth\n";

/// Policy and audit on, as in a plant: each controller may run its own device and nothing else.
fn fieldlock(
    plant: &mut Plant,
    tls: bool,
    keys: &str,
    names: &[Names],
) -> Result<Vec<usize>, String> {
    let program = sibling("fieldlock")?;
    let passphrase = plant.write("passphrase", PASSPHRASE)?;
    fs::set_permissions(&passphrase, Permissions::from_mode(0o600))
        .map_err(|error| error.to_string())?;
    let (ca, root) = (plant.file("ca"), plant.file("root"));
    let command = |action: &str| {
        let mut command = Command::new(&program);
        command.args(["ca", action, "--dir"]).arg(&ca);
        command.arg("--passphrase-file").arg(&passphrase);
        command
    };
    run(command("init")
        .args(["--site", SITE, "--root-out"])
        .arg(&root))?;
    let policy = plant.write("policy.toml", &policy(names))?;
    let start = |role: &str| -> Result<(String, PathBuf), String> {
        let state = plant.file(role);
        let mut issue = command("issue");
        issue.args(["--role", role, "--name", role, "--state"]);
        run(issue.arg(&state))?;
        let keys = format!("state = {state:?}\npolicy = {policy:?}\n");
        Ok((keys, state))
    };
    let (mut headend, _) = start("headend")?;
    let (mut edge, edge_state) = start("edge")?;
    let transport = if tls { "tls" } else { "quic" };
    headend +=
        &format!("[tunnel]\nlisten = [\"{WEST}:4433\"]\n[profinet]\ninterface = \"pn-ctl\"\n");
    edge += &format!(
        "[[headend]]\nname = \"headend\"\naddress = [\"{WEST}:4433\"]\n\
         transport = \"{transport}\"\n[profinet]\ninterface = \"pn-dev\"\n"
    );
    for Names {
        device,
        controller,
        controller_mac,
        ..
    } in names
    {
        edge += &format!("[[station]]\nname = \"{device}\"\n{keys}");
        headend += &format!("[[station]]\nname = \"{device}\"\nedge = \"edge\"\n{keys}");
        headend +=
            &format!("[[controller]]\nname = \"{controller}\"\nmac = \"{controller_mac}\"\n");
    }
    let mut started = Vec::new();
    for (place, role, text) in [
        (Place::West, "headend", headend),
        (Place::East, "edge", edge),
    ] {
        let file = plant.write(&format!("{role}.toml"), &text)?;
        let mut command = plant.command(&program);
        command.arg(role).arg("--config").arg(file);
        started.push(plant.start(place, &format!("{role}-agent"), &mut command)?);
    }
    let tunnel = || status(&edge_state).is_some_and(|status| has_tunnel(&status));
    let up = wait_until("the tunnel", Duration::from_secs(30), tunnel);
    if let Err(error) = up {
        let mut logs = String::new();
        for process in started {
            logs += &plant.process(process)?.log_tail();
        }
        return Err(format!("{error}\n{logs}"));
    }
    Ok(started)
}

fn policy(names: &[Names]) -> String {
    let mut text = "syntax = 1\n".to_owned();
    for Names {
        device,
        controller,
        controller_mac,
        ..
    } in names
    {
        text += &format!(
            "[[client]]\nname = \"{controller}\"\nmac = [\"{controller_mac}\"]\n\
             [[allow]]\nname = \"{device}\"\nclient = [\"{controller}\"]\n\
             station = [\"{device}\"]\nservice = [\"io\", \"records\"]\nrecord = [\"any\"]\n"
        );
    }
    text
}

/// What `fieldlock status` shows, over the control socket; `None` while there is none.
fn status(state: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(state.join("control.sock")).ok()?;
    // No request comes: it need not wait for one.
    stream.shutdown(Shutdown::Write).ok()?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn has_tunnel(status: &Value) -> bool {
    let headends = status["headends"].as_array();
    let tunnels = headends.into_iter().flatten();
    tunnels
        .filter_map(|headend| headend["tunnels"].as_array())
        .any(|tunnels| !tunnels.is_empty())
}
