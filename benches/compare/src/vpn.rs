//! VPNs in user space: two network namespaces, a cable between them, and the server in the far one.
//!
//! ```text
//!  near (this process)                far
//!  load -> 10.66.N.1 = tun          tun = 10.66.N.2 -> server
//!            VPN 10.66.0.1 -- veth -- 10.66.0.2 VPN
//! ```
//!
//! They route packets and so spare what a relay does: two TCP connections more, and every look at
//! a request. They need root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fieldlock_rawsock::Namespace;
use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::process::Process;
use fieldlock_testkit::wait::wait_until;

use crate::Failure;
use crate::contender::{Contender, Kind};
use crate::rivals::run;
use crate::server;

const SOON: Duration = Duration::from_secs(10);
const SERVER_PORT: u16 = 1502;
const CABLE: u8 = 0;

/// The machine at the other end of the cable, with a server of its own.
#[derive(Debug)]
pub(crate) struct Far {
    namespace: Namespace,
    _server: Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Near,
    Far,
}

impl End {
    const BOTH: [Self; 2] = [Self::Near, Self::Far];

    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    fn address(self, network: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 66, network, 1 + self as u8)
    }
}

/// The network that a contender's tunnel has to itself.
fn network(kind: Kind) -> u8 {
    1 + u8::from(kind == Kind::Openvpn)
}

impl Far {
    /// Lays the cable from this process' namespace, which has to be one of its own.
    pub(crate) fn new(directory: &Path) -> Result<Self, Failure> {
        let namespace = Namespace::create()?;
        let path = namespace.path();
        let link = "link add cable type veth peer name cable netns";
        run(ip(link).arg(path))?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT));
        let server = namespace.run(|| server::start(address, directory))??;
        let far = Self {
            namespace,
            _server: server,
        };
        for end in End::BOTH {
            far.ip(end, "link set lo up")?;
            let address = end.address(CABLE);
            far.ip(end, &format!("address add {address}/24 dev cable"))?;
            far.ip(end, "link set cable up")?;
        }
        Ok(far)
    }

    pub(crate) fn start(&self, kind: Kind, directory: &Path) -> Result<Contender, Failure> {
        let processes = match kind {
            Kind::Openvpn => self.openvpn(directory)?,
            _ => self.boringtun(directory)?,
        };
        Contender {
            kind,
            address: (End::Far.address(network(kind)), SERVER_PORT).into(),
            processes,
        }
        .wait_ready()
    }

    fn at<R: Send>(&self, end: End, call: impl FnOnce() -> R + Send) -> Result<R, Failure> {
        match end {
            End::Near => Ok(call()),
            End::Far => Ok(self.namespace.run(call)?),
        }
    }

    fn ip(&self, end: End, arguments: &str) -> Result<(), Failure> {
        self.at(end, || run(&mut ip(arguments)))?.map(drop)
    }

    /// WireGuard with the defaults of `boringtun-cli`.
    fn boringtun(&self, directory: &Path) -> Result<Vec<Process>, Failure> {
        let program = &Peer::find_all(&["boringtun-cli"])?[0];
        let keys = [Keys::make(directory)?, Keys::make(directory)?];
        let port = 51_820;
        let mut processes = Vec::new();
        for end in End::BOTH {
            // Its control socket has a place of its own for all namespaces.
            let device = format!("wg{}{}", std::process::id(), end.name());
            let mut command = Command::new(program);
            command.args(["--foreground", "--disable-drop-privileges", &device]);
            let start = || {
                Process::start(
                    &format!("boringtun-{}", end.name()),
                    &mut command,
                    directory,
                )
            };
            processes.push(self.at(end, start)??);
            let socket = Path::new("/var/run/wireguard").join(format!("{device}.sock"));
            wait_until("boringtun's control socket", SOON, || socket.exists())
                .map_err(|error| Failure::NotReady(error.to_string()))?;
            let other = end.other();
            let settings = format!(
                "set=1\nprivate_key={}\nlisten_port={port}\npublic_key={}\n\
                 endpoint={}:{port}\nallowed_ip={}/32\n\n",
                keys[end as usize].private,
                keys[other as usize].public,
                other.address(CABLE),
                other.address(network(Kind::Boringtun)),
            );
            let mut control = UnixStream::connect(&socket)?;
            control.write_all(settings.as_bytes())?;
            let mut answer = [0; 64];
            let count = control.read(&mut answer)?;
            if !answer[..count].starts_with(b"errno=0") {
                let said = String::from_utf8_lossy(&answer[..count]).into_owned();
                return Err(Failure::NotReady(format!("boringtun: {said}")));
            }
            let address = end.address(network(Kind::Boringtun));
            self.ip(end, &format!("address add {address}/24 dev {device}"))?;
            self.ip(end, &format!("link set {device} mtu 1420 up"))?;
        }
        Ok(processes)
    }

    /// TLS between certificates that know each other's fingerprint, AES-256-GCM, over UDP.
    fn openvpn(&self, directory: &Path) -> Result<Vec<Process>, Failure> {
        let program = &Peer::find_all(&["openvpn"])?[0];
        let openssl = &Peer::find_all(&["openssl"])?[0];
        let mut prints = Vec::new();
        for end in End::BOTH {
            let name = end.name();
            let openssl = |arguments: &str| {
                let mut command = Command::new(openssl);
                run(command.current_dir(directory).args(arguments.split(' ')))
            };
            openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                 -subj /CN={name} -out vpn-{name}.crt -keyout vpn-{name}.key"
            ))?;
            let shown = openssl(&format!(
                "x509 -noout -fingerprint -sha256 -in vpn-{name}.crt"
            ))?;
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let print = shown.trim().rsplit('=').next().unwrap_or_default();
            prints.push(print.to_owned());
        }
        let mut processes = Vec::new();
        // The one that listens is started first.
        for end in [End::Far, End::Near] {
            let (name, other) = (end.name(), end.other());
            let network = network(Kind::Openvpn);
            let role = match end {
                End::Far => format!("--tls-server --dh none --local {}", end.address(CABLE)),
                End::Near => format!("--tls-client --nobind --remote {}", other.address(CABLE)),
            };
            let line = format!(
                "--dev tun0 --dev-type tun --topology p2p --ifconfig {} {} --proto udp4 {role} \
                 --cert vpn-{name}.crt --key vpn-{name}.key --peer-fingerprint {} \
                 --data-ciphers AES-256-GCM --ping 1 --verb 3",
                end.address(network),
                other.address(network),
                prints[other as usize],
            );
            let mut command = Command::new(program);
            command.current_dir(directory).args(line.split(' '));
            let start = || Process::start(&format!("openvpn-{name}"), &mut command, directory);
            processes.push(self.at(end, start)??);
        }
        for process in &mut processes {
            process
                .wait_log("Initialization Sequence Completed", SOON)
                .map_err(|error| Failure::NotReady(error.to_string()))?;
        }
        Ok(processes)
    }
}

fn ip(arguments: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    command
}

/// A pair of X25519 keys in hexadecimal, as WireGuard's control protocol takes them.
struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn make(directory: &Path) -> Result<Self, Failure> {
        let openssl = &Peer::find_all(&["openssl"])?[0];
        let mut command = Command::new(openssl);
        command.current_dir(directory);
        let shown = run(command.args("genpkey -algorithm X25519 -text".split(' ')))?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        // Each key follows its title, in pairs of digits with colons between.
        let key = |title: &str| {
            let after = shown.split(title).nth(1).unwrap_or_default();
            let digits = |c: &char| c.is_ascii_hexdigit();
            after.chars().filter(digits).take(64).collect()
        };
        Ok(Self {
            private: key("priv:"),
            public: key("pub:"),
        })
    }
}
