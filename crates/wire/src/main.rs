//! The virtual wire: what a bad network does to frames or datagrams, in user space, the same
//! way each time. docs/virtual-wire.md shows it at work.
//!
//! - [`options`]: impairments as they are written on the command line.
//! - [`carrier`]: packets on their way, without a socket or a clock.
//! - [`middlebox`]: firewalls, black holes, NATs between two interfaces.
//! - [`log`]: a line per packet, and `replay`, which checks one.
//! - [`tap`], [`udp`]: what carries real frames and datagrams.
//! - [`rig`]: the network namespaces of controller, agents and device.

mod carrier;
mod log;
mod middlebox;
mod options;
mod rig;
mod shell;
mod tap;
mod udp;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "fieldlock-wire", version)]
/// A network that is slow, lossy or cut, the same way each time.
///
/// Each packet's fate follows from the seed, so that two things that are compared suffer alike,
/// and a run can be repeated. Packets keep their order unless --reorder is given.
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A wire between two Ethernet interfaces that it makes itself (root).
    Tap(tap::TapCommand),
    /// A wire in front of a UDP port, for any number of clients.
    Udp(udp::UdpCommand),
    /// Decides anew about the packets of a log; fails when a decision differs.
    Replay(log::ReplayCommand),
    /// The network namespaces of a controller, the agents and a device (root).
    Rig(rig::RigCommand),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tap(command) => command.run(),
        Command::Udp(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Rig(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// What ends the program.
type Failure = Box<dyn Error>;

impl Arguments {
    /// The impairment and the seed of a command line of `tap` or `udp`.
    fn options(self) -> Option<options::Options> {
        match self.command {
            Command::Tap(command) => Some(command.options),
            Command::Udp(command) => Some(command.options),
            Command::Replay(_) | Command::Rig(_) => None,
        }
    }
}
