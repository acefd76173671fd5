//! The demo's site: a private directory with CA, policies, configurations and states.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use super::agent::log_tail;
use super::trouble::Trouble;

pub(super) const SITE: &str = "demo.example";
pub(super) const HEADEND: &str = "hd-1";
pub(super) const DEVICE: &str = "pump-1";

/// What both agents are given. The edge has the last word.
pub(super) const POLICY: &str = r#"# What may pass to the PLC. Everything else is refused.
syntax = 1

[[client]]
name = "hmi-1"
address = ["127.0.0.0/8"]

[[allow]]
name = "hmi reads"
client = ["hmi-1"]
device = ["pump-1"]
unit = [1]
function = ["read"]
address = ["holding 0-99", "input 0-39", "coil 0-15", "discrete 0-15"]

[[allow]]
name = "level setpoint"
client = ["hmi-1"]
device = ["pump-1"]
unit = [1]
function = [6, 16]
address = ["holding 40"]
value = { min = 300, max = 1200 }       # mm
"#;

/// What somebody who took over the headend would put there.
pub(super) const NO_POLICY: &str = r#"syntax = 1
[[allow]]
name = "anything goes"
device = "any"
function = "any"
address = "any"
"#;

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Site {
    directory: TempDir,
    program: PathBuf,
}

/// Where agents and clients meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// UDP and TCP.
    pub(super) tunnel: SocketAddr,
    pub(super) clients: SocketAddr,
}

impl Site {
    pub(super) fn new() -> Result<Self, Trouble> {
        let directory = tempfile::Builder::new()
            .prefix("fieldlock-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(Trouble::io("make a temporary directory"))?;
        let program = std::env::current_exe().map_err(Trouble::io("find this program"))?;
        Ok(Self { directory, program })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn log_tails(&self) -> String {
        ["headend", "edge"]
            .map(|role| log_tail(self.path(), role))
            .concat()
    }

    /// The root's fingerprint.
    pub(super) async fn make_ca(&self) -> Result<String, Trouble> {
        let mut random = [0; 32];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| io::Read::read_exact(&mut file, &mut random))
            .map_err(Trouble::io("get a random passphrase"))?;
        let passphrase: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path().join("passphrase"))
            .and_then(|mut file| file.write_all(passphrase.as_bytes()))
            .map_err(Trouble::io("write the passphrase"))?;
        self.ca(&["init", "--site", SITE, "--root-out", "root"])
            .await
    }

    /// The serial number of a certificate that is installed into the agent's state.
    pub(super) async fn issue(&self, role: &str, name: &str) -> Result<String, Trouble> {
        let arguments = ["issue", "--role", role, "--name", name, "--state", role];
        self.ca(&arguments).await
    }

    async fn ca(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let command = format!("ca {}", arguments.join(" "));
        let run = tokio::process::Command::new(&self.program)
            .arg("ca")
            .args(arguments)
            .args(["--dir", "ca", "--passphrase-file", "passphrase"])
            .current_dir(self.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Trouble::io(format!("run `fieldlock {command}`")))?;
        if !run.status.success() {
            return Err(Trouble::Command {
                command,
                status: run.status,
                output: String::from_utf8_lossy(&run.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
    }

    pub(super) fn write_policy(&self, role: &str, text: &str) -> Result<(), Trouble> {
        self.write(&format!("policy-{role}.toml"), text)
    }

    /// Configurations for ports that were free a moment ago.
    pub(super) fn configure(&self, plc: SocketAddr) -> Result<Addresses, Trouble> {
        let addresses = Addresses {
            tunnel: free_address()?,
            clients: free_address()?,
        };
        let Addresses { tunnel, clients } = addresses;
        let headend = self.common("headend")
            + &format!(
                "\n[tunnel]\nlisten = [\"{tunnel}\"]\n\n\
                 [[device]]\nname = \"{DEVICE}\"\nlisten = \"{clients}\"      # plain Modbus/TCP\n"
            );
        let edge = self.common("edge")
            + &format!(
                "\n[[headend]]\nname = \"{HEADEND}\"\naddress = [\"{tunnel}\"]\n\n\
                 [[device]]\nname = \"{DEVICE}\"\nmodbus_tcp = {{ address = \"{plc}\" }}\n"
            );
        self.write("headend.toml", &headend)?;
        self.write("edge.toml", &edge)?;
        Ok(addresses)
    }

    fn common(&self, role: &str) -> String {
        let directory = self.path().display();
        format!("state = \"{directory}/{role}\"\npolicy = \"{directory}/policy-{role}.toml\"\n")
    }

    /// Into place at once, so that an agent that watches the file never sees half of it.
    fn write(&self, name: &str, text: &str) -> Result<(), Trouble> {
        let (path, new) = (
            self.path().join(name),
            self.path().join(format!("{name}.new")),
        );
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Trouble::io(format!("write {}", path.display())))
    }
}

/// On loopback, with a port that is free for TCP and UDP.
fn free_address() -> Result<SocketAddr, Trouble> {
    const ATTEMPTS: usize = 20;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|tcp| tcp.local_addr());
        match tcp.and_then(|address| UdpSocket::bind(address).map(|_| address)) {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(Trouble::io("find a free port")(last))
}
