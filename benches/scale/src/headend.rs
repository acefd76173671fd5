//! The headend under load: its configuration, its process, what it uses.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_testkit::ports::{free_address, free_port};
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_testkit::usage::Snapshot;

use crate::Failure;
use crate::site::{Ca, edge_name};

/// Unit ids that one listener leads on.
pub(crate) const UNITS: u32 = 247;
const START: Duration = Duration::from_secs(60);

const POLICY: &str = r#"syntax = 1
[[client]]
name = "load"
address = ["127.0.0.0/8"]
[[allow]]
name = "load reads"
client = ["load"]
device = ["any"]
function = [3]
address = ["holding 0-999"]
"#;

pub(crate) struct Headend {
    program: PathBuf,
    directory: Directory,
    file: PathBuf,
    process: Option<Process>,
    pub(crate) tunnel: SocketAddr,
    /// Where clients find the device of each edge: address and unit.
    pub(crate) devices: Vec<(SocketAddr, u8)>,
}

impl Headend {
    /// Configured for `edges`, each with one device; with a listener for each device, or one for
    /// every 247.
    pub(crate) fn prepare(
        program: &Path,
        ca: &Ca,
        edges: u32,
        own_listeners: bool,
        more: &str,
    ) -> Result<Self, Failure> {
        if !program.is_file() {
            return Err(Failure::NoFieldlock(program.to_owned()));
        }
        let directory = Directory::new()?;
        let state = directory.join("state");
        ca.install_headend(&state)?;
        let policy = directory.write("policy.toml", POLICY)?;
        let tunnel = free_address()?;
        // Free on the addresses of a run that goes on beside this one.
        let port = free_port()?;
        let mut text = format!(
            "state = {state:?}\npolicy = {policy:?}\n\
             [tunnel]\nlisten = [\"{tunnel}\"]\n{more}\n\
             [client]\nmax_connections = 20000\nmax_connections_per_address = 20000\nin_flight = 1024\n"
        );
        let mut devices = Vec::new();
        let mut listeners = String::new();
        for number in 0..edges {
            let name = edge_name(number);
            let (address, unit) = place(number, own_listeners, port);
            let _ = write!(text, "[[device]]\nname = \"{name}\"\n");
            if own_listeners {
                let _ = writeln!(text, "listen = \"{address}\"");
            } else {
                if unit == 1 {
                    let end = if listeners.is_empty() { "" } else { "]\n" };
                    let _ = write!(
                        listeners,
                        "{end}[[listener]]\naddress = \"{address}\"\nunit = [\n"
                    );
                }
                let _ = writeln!(
                    listeners,
                    "{{ unit = {unit}, device = \"{name}\", device_unit = 1 }},"
                );
            }
            devices.push((address, unit));
        }
        if !listeners.is_empty() {
            listeners.push_str("]\n");
        }
        let file = directory.write("headend.toml", &(text + &listeners))?;
        Ok(Self {
            program: program.to_owned(),
            directory,
            file,
            process: None,
            tunnel,
            devices,
        })
    }

    /// Starts it and waits until it serves; how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command.arg("headend").arg("--config").arg(&self.file);
        let log = self.directory.join("headend.log");
        // Of an earlier start.
        let _ = fs::remove_file(log);
        let process = Process::start("headend", &mut command, self.directory.path())?;
        let process = self.process.insert(process);
        process.wait_log("headend runs", START)?;
        Ok(begun.elapsed())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn usage(&self) -> Snapshot {
        let process = self.process.as_ref().map(Process::id);
        Snapshot::take(process.as_slice())
    }

    pub(crate) fn descriptors(&self) -> usize {
        let process = self.process.as_ref().map_or(0, Process::id);
        fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
    }

    /// Octets of its audit log.
    pub(crate) fn audit(&self) -> u64 {
        let files = fs::read_dir(self.directory.join("state/audit"));
        let files = files.into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum()
    }
}

/// Addresses of 127.0.0.0/8 above those that programs choose by themselves.
fn place(number: u32, own: bool, port: u16) -> (SocketAddr, u8) {
    let (host, unit) = match own {
        true => (number, 1),
        false => (number / UNITS, (number % UNITS) as u8 + 1),
    };
    let [_, high, middle, low] = (host + 1).to_be_bytes();
    (
        SocketAddr::from(([127, 16 + high, middle, low], port)),
        unit,
    )
}
