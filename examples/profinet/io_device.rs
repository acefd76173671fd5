//! A simulated IO-device on a network interface.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::Parser;
use fieldlock_profinet::{Mac, StationName};
use fieldlock_sim::profinet::{Device, DeviceConfig, IpSuite, Module};

mod driver;

const EXAMPLES: &str = "\
Examples:
  A device with 16 octets in and out:
    io-device --interface eth1 --name drive-1 --ip 192.168.0.20
  Fresh from the factory, to be named and addressed by a controller or a tool:
    io-device --interface eth1
  Ten minutes, with what was measured as JSON:
    io-device --interface eth1 --name drive-1 --ip 192.168.0.20 --duration 10m --json

Needs CAP_NET_RAW. Not a product: it stands in for one in tests.";

/// A simulated PROFINET IO-device (RT_CLASS_1).
#[derive(Debug, Parser)]
#[command(name = "io-device", after_help = EXAMPLES)]
struct Args {
    /// Network interface.
    #[arg(long)]
    interface: String,
    /// Name-of-station; without it the device has none.
    #[arg(long)]
    name: Option<StationName>,
    /// IPv4 address in a network of 24 bits; without it the device has none.
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Address on Ethernet [default: the interface's].
    #[arg(long)]
    mac: Option<Mac>,
    /// Octets of the input module in slot 1.
    #[arg(long, default_value_t = 16)]
    input: u16,
    /// Octets of the output module in slot 2.
    #[arg(long, default_value_t = 16)]
    output: u16,
    /// Sends cyclic frames without a priority tag.
    #[arg(long)]
    untagged: bool,
    /// Ends after this time [default: Ctrl-C].
    #[arg(long, value_parser = driver::duration)]
    duration: Option<Duration>,
    /// Prints one JSON object at the end in place of a line each second.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (socket, mac) = driver::open(&args.interface, args.mac)?;
    let name = args.name.as_ref().map_or("", StationName::as_str);
    let ip = args.ip.map_or(IpSuite::NONE, IpSuite::local);
    let clock = driver::clock();
    let config = DeviceConfig {
        modules: vec![Module::input(args.input), Module::output(args.output)],
        tagged: !args.untagged,
        seed: driver::seed(clock),
        ..DeviceConfig::new(mac, name, ip, clock)
    };
    let device = Device::new(config, Instant::now());
    driver::run(device, socket, args.duration, args.json)
}
