//! The Fieldlock pair: CA, configurations, and the two processes, from the real binary.
//!
//! Policy and audit are on as in a plant: the edge and the headend each allow this client
//! to read holding registers and nothing else.

use std::env;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Process;

use crate::Failure;
use crate::contender::{Contender, Kind};
use crate::rivals::run;

const PASSPHRASE: &str = "of no worth";

const POLICY: &str = r#"syntax = 1
[[client]]
name = "load"
address = ["127.0.0.0/8"]
[[allow]]
name = "load reads"
client = ["load"]
device = ["plc"]
unit = [1]
function = [3]
address = ["holding 0-999"]
"#;

/// The binary and the CA that all Fieldlock pairs of a run share.
#[derive(Debug)]
pub(crate) struct Fieldlock {
    program: PathBuf,
    /// Another build.
    before: Option<PathBuf>,
    directory: PathBuf,
}

impl Fieldlock {
    /// With `program`, or the binary beside this one.
    pub(crate) fn prepare(
        program: Option<&Path>,
        before: Option<&Path>,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => env::current_exe()?.with_file_name("fieldlock"),
        };
        if !program.is_file() {
            return Err(Failure::NoFieldlock(program));
        }
        let fieldlock = Self {
            program,
            before: before.map(Path::to_owned),
            directory: directory.to_owned(),
        };
        let passphrase = directory.join("passphrase");
        fs::write(&passphrase, PASSPHRASE)?;
        fs::set_permissions(&passphrase, Permissions::from_mode(0o600))?;
        fs::write(directory.join("policy.toml"), POLICY)?;
        fieldlock.ca(&["init", "--site", "compare.example"])?;
        Ok(fieldlock)
    }

    pub(crate) fn start(&self, kind: Kind, server: SocketAddr) -> Result<Contender, Failure> {
        let pair = self.configure(kind, server)?;
        let program = match &self.before {
            Some(before) if kind.is_before() => before,
            _ => &self.program,
        };
        let start = |role| pair.start_of(program, role);
        let processes = vec![start("headend")?, start("edge")?];
        Contender {
            kind,
            address: pair.address,
            processes,
        }
        .wait_ready()
    }

    /// Certificates and configurations of a pair in a folder of its own.
    pub(crate) fn configure(&self, kind: Kind, server: SocketAddr) -> Result<Pair, Failure> {
        const WIDE: &str = ", max_connections = 8, in_flight = 16";
        let (transport, limits) = match kind {
            Kind::FieldlockQuic | Kind::BeforeQuic => ("quic", WIDE),
            Kind::FieldlockTls | Kind::BeforeTls => ("tls", WIDE),
            Kind::FieldlockQuic1 | Kind::FieldlockShared | Kind::FieldlockUnshared => ("quic", ""),
            _ => ("tls", ""),
        };
        let shared = kind != Kind::FieldlockUnshared;
        let directory = self.directory.join(kind.name());
        fs::create_dir(&directory)?;
        let (address, tunnel) = (free_address()?, free_address()?);
        let policy = self.directory.join("policy.toml");
        let configuration = |state: &Path| {
            let (state, policy) = (state.display(), policy.display());
            format!("state = \"{state}\"\npolicy = \"{policy}\"\n")
        };
        let headend_state = self.issue("headend", kind, &directory)?;
        let headend = configuration(&headend_state)
            + &format!(
                "[tunnel]\nlisten = [\"{tunnel}\"]\n\
                 [[device]]\nname = \"plc\"\nedge = \"{edge}\"\nlisten = \"{address}\"\n",
                edge = agent_name("edge", kind),
            );
        let edge_state = self.issue("edge", kind, &directory)?;
        let edge = configuration(&edge_state)
            + &format!(
                "[[headend]]\nname = \"{headend}\"\naddress = [\"{tunnel}\"]\ntransport = \"{transport}\"\n\
                 [[device]]\nname = \"plc\"\nshared_reads = {shared}\nmodbus_tcp = {{ address = \"{server}\"{limits} }}\n",
                headend = agent_name("headend", kind),
            );
        for (role, text) in [("headend", headend), ("edge", edge)] {
            fs::write(directory.join(format!("{role}.toml")), text)?;
        }
        Ok(Pair {
            kind,
            address,
            program: self.program.clone(),
            directory,
        })
    }

    /// Issues a certificate straight into a state folder, which is made.
    fn issue(&self, role: &str, kind: Kind, directory: &Path) -> Result<PathBuf, Failure> {
        let state = directory.join(role);
        let name = agent_name(role, kind);
        let into = state.to_string_lossy();
        self.ca(&["issue", "--role", role, "--name", &name, "--state", &into])?;
        Ok(state)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    fn ca(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(["ca", arguments[0], "--dir"])
            .arg(self.directory.join("ca"))
            .arg("--passphrase-file")
            .arg(self.directory.join("passphrase"))
            .args(&arguments[1..]);
        run(&mut command).map(|_| ())
    }
}

/// A pair that can be started, each side by itself.
#[derive(Debug)]
pub(crate) struct Pair {
    kind: Kind,
    /// Where the headend listens for clients.
    pub(crate) address: SocketAddr,
    program: PathBuf,
    directory: PathBuf,
}

impl Pair {
    pub(crate) fn start(&self, role: &str) -> Result<Process, Failure> {
        self.start_of(&self.program, role)
    }

    /// The same of another build.
    pub(crate) fn start_of(&self, program: &Path, role: &str) -> Result<Process, Failure> {
        let mut command = Command::new(program);
        command.arg(role).arg("--config");
        command.arg(self.directory.join(format!("{role}.toml")));
        let name = agent_name(role, self.kind);
        Ok(Process::start(&name, &mut command, &self.directory)?)
    }
}

/// `edge-fieldlock-quic`: unique among the pairs of a run.
fn agent_name(role: &str, kind: Kind) -> String {
    format!("{role}-{}", kind.name())
}
