//! Four network namespaces, what lies between them, and the processes that live in them.
//!
//! ```text
//!  controller          west                    east          device
//!  eth0 ------- pn-ctl | wan ==== wire ==== wan | pn-dev ------ eth0     a tunnel
//!  eth0 ======================== wire ========================= eth0     bare
//! ```
//!
//! The impairment is on a wire of layer 2, so that whatever crosses suffers alike: PROFINET itself,
//! QUIC, TLS, OpenVPN over UDP or TCP. Without impairment the wire is a veth pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fieldlock_rawsock::Namespace;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_testkit::wait::wait_until;

/// For anything that should happen soon.
const SOON: Duration = Duration::from_secs(30);

/// Addresses of the tunnel's two ends.
pub(super) const WEST: &str = "10.77.0.1";
const EAST: &str = "10.77.0.2";

/// What impairs the wire, as `fieldlock-wire tap` reads it; `None`: a cable.
pub(super) type Wire = Option<Vec<String>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Controller,
    West,
    East,
    Device,
}

/// See the module. All of it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Plant {
    processes: Vec<Process>,
    namespaces: [Namespace; 4],
    /// Last, so that the processes are gone before their files.
    directory: Directory,
    /// Real-time priority of what is started, 0 for none.
    priority: u8,
}

impl Plant {
    pub(super) fn new(priority: u8) -> Result<Self, String> {
        let namespace = || {
            Namespace::create()
                .map_err(|error| format!("a network namespace, which needs root: {error}"))
        };
        let plant = Self {
            processes: Vec::new(),
            namespaces: [namespace()?, namespace()?, namespace()?, namespace()?],
            directory: Directory::new().map_err(|error| error.to_string())?,
            priority,
        };
        for place in [Place::Controller, Place::West, Place::East, Place::Device] {
            // No frames that nobody asked for, such as those that look for IPv6 routers.
            let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
            plant
                .within(place, || fs::write(setting, "1"))?
                .map_err(|error| format!("{setting}: {error}"))?;
            plant.ip(place, "link set lo up")?;
        }
        Ok(plant)
    }

    /// The stations' wires end at one another.
    pub(super) fn join_directly(&mut self, wire: &Wire) -> Result<(), String> {
        self.join(
            (Place::Controller, "eth0"),
            (Place::Device, "eth0"),
            wire.as_deref(),
        )
    }

    /// The stations' wires end where a tunnel begins.
    pub(super) fn join_by_tunnel(&mut self, wire: &Wire) -> Result<(), String> {
        self.join((Place::Controller, "eth0"), (Place::West, "pn-ctl"), None)?;
        self.join((Place::Device, "eth0"), (Place::East, "pn-dev"), None)?;
        let wire = wire.as_deref();
        self.join((Place::West, "wan"), (Place::East, "wan"), wire)?;
        self.ip(Place::West, &format!("addr add {WEST}/24 dev wan"))?;
        self.ip(Place::East, &format!("addr add {EAST}/24 dev wan"))
    }

    fn join(
        &mut self,
        a: (Place, &str),
        b: (Place, &str),
        wire: Option<&[String]>,
    ) -> Result<(), String> {
        let paths = [self.path(a.0), self.path(b.0)];
        match wire {
            None => {
                let link = "link add";
                let far = paths[1].display();
                let (near, peer) = (a.1, b.1);
                self.ip(
                    a.0,
                    &format!("{link} {near} type veth peer name {peer} netns {far}"),
                )?;
            }
            Some(impairment) => {
                let mut command = self.command(&sibling("fieldlock-wire")?);
                command.args(["tap", a.1, b.1]);
                // Paths of this process' own open files: these namespaces have no name.
                command.arg("--netns-a").arg(&paths[0]);
                command.arg("--netns-b").arg(&paths[1]);
                command.args(impairment);
                let wire = self.start(Place::West, "wire", &mut command)?;
                self.wait_log(wire, "carrying between")?;
            }
        }
        for (place, interface) in [a, b] {
            self.ip(place, &format!("link set {interface} up"))?;
        }
        for (place, interface) in [a, b] {
            self.wait_plugged(place, interface)?;
        }
        Ok(())
    }

    /// A command that runs at the plant's priority.
    pub(super) fn command(&self, program: &Path) -> Command {
        if self.priority == 0 {
            return Command::new(program);
        }
        let mut command = Command::new("chrt");
        command.args(["--fifo", &self.priority.to_string()]);
        command.arg(program);
        command
    }

    /// Starts a process somewhere; its number among the plant's.
    pub(super) fn start(
        &mut self,
        place: Place,
        name: &str,
        command: &mut Command,
    ) -> Result<usize, String> {
        let directory = self.directory.path();
        let process = self
            .within(place, || Process::start(name, command, directory))?
            .map_err(|error| error.to_string())?;
        self.processes.push(process);
        Ok(self.processes.len() - 1)
    }

    pub(super) fn process(&mut self, number: usize) -> Result<&mut Process, String> {
        let none = || format!("no process {number}");
        self.processes.get_mut(number).ok_or_else(none)
    }

    /// Its number among the processes of the machine: `chrt` gives way to what it starts.
    pub(super) fn id(&self, number: usize) -> Result<u32, String> {
        let process = self.processes.get(number).map(Process::id);
        process.ok_or_else(|| format!("no process {number}"))
    }

    pub(super) fn wait_log(&mut self, process: usize, text: &str) -> Result<(), String> {
        self.process(process)?
            .wait_log(text, SOON)
            .map_err(|error| error.to_string())
    }

    /// A file that the plant's processes read; its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        self.directory
            .write(name, text)
            .map_err(|error| format!("{name}: {error}"))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `ip ARGUMENTS` somewhere.
    pub(super) fn ip(&self, place: Place, arguments: &str) -> Result<(), String> {
        let words = arguments.split(' ');
        self.within(place, || run(Command::new("ip").args(words)))?
            .map(drop)
    }

    /// Octets that an interface has sent and received, headers of Ethernet included.
    pub(super) fn octets(&self, place: Place, interface: &str) -> Result<(u64, u64), String> {
        let read = || fs::read_to_string("/proc/thread-self/net/dev");
        let table = self
            .within(place, read)?
            .map_err(|error| error.to_string())?;
        let start = format!("{interface}:");
        let line = table
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&start))
            .ok_or_else(|| format!("no interface {interface}"))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect();
        // Eight fields of what was received, octets first, then of what was sent.
        match fields[..] {
            [received, _, _, _, _, _, _, _, sent, ..] => Ok((sent, received)),
            _ => Err(format!("/proc/net/dev: {line}")),
        }
    }

    fn wait_plugged(&self, place: Place, interface: &str) -> Result<(), String> {
        // The kernel drops frames until it has taken notice of a carrier.
        let plugged = || {
            let show = || run(Command::new("ip").args(["-o", "link", "show", interface]));
            let shown = self.within(place, show).and_then(|shown| shown);
            shown.is_ok_and(|it| it.contains("state UP") || it.contains("state UNKNOWN"))
        };
        wait_until(&format!("{interface} to be up"), SOON, plugged)
            .map_err(|error| error.to_string())
    }

    fn within<R: Send>(&self, place: Place, part: impl FnOnce() -> R + Send) -> Result<R, String> {
        self.namespaces[place as usize]
            .run(part)
            .map_err(|error| format!("entering a namespace: {error}"))
    }

    fn path(&self, place: Place) -> PathBuf {
        self.namespaces[place as usize].path()
    }
}

/// A program that was built beside this one.
pub(super) fn sibling(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = this.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!(
            "{} is missing: cargo build --release -p fieldlock -p fieldlock-wire",
            path.display()
        )),
    }
}

/// Runs a command to its end; its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Time of all of a process' threads on processors, in user and kernel.
pub(super) fn processor_time(process: u32) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // Fields 14 and 15, counted behind the name, which may hold spaces. A tick is 10 ms.
    let behind = text.rfind(')').map_or("", |end| &text[end + 1..]);
    let ticks = behind.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|it| it.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
}
