//! A simulated IO-controller on a network interface.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::Parser;
use fieldlock_profinet::{Mac, StationName};
use fieldlock_sim::profinet::{Controller, ControllerConfig, IpSuite, Module};

mod driver;

const EXAMPLES: &str = "\
Examples:
  An AR of 32 ms that ends after three cycles without a frame:
    io-controller --interface eth0 --name plc-1 --ip 192.168.0.1 --device drive-1
  As engineered for a slow link, and the device gets its address from here:
    io-controller --interface eth0 --name plc-1 --ip 192.168.0.1 --device drive-1 \\
      --device-ip 192.168.0.20 --cycle 128ms --watchdog 10
  Ten minutes, with what was measured as JSON:
    io-controller --interface eth0 --name plc-1 --ip 192.168.0.1 --device drive-1 \\
      --duration 10m --json

Needs CAP_NET_RAW. Not a product: it stands in for one in tests.";

/// A simulated PROFINET IO-controller with one device (RT_CLASS_1).
#[derive(Debug, Parser)]
#[command(name = "io-controller", after_help = EXAMPLES)]
struct Args {
    /// Network interface.
    #[arg(long)]
    interface: String,
    /// Name-of-station of the controller.
    #[arg(long)]
    name: StationName,
    /// IPv4 address of the controller, in a network of 24 bits.
    #[arg(long)]
    ip: Ipv4Addr,
    /// Address on Ethernet [default: the interface's].
    #[arg(long)]
    mac: Option<Mac>,
    /// Name-of-station of the device.
    #[arg(long)]
    device: StationName,
    /// Sets the device's IPv4 address when it has another one.
    #[arg(long)]
    device_ip: Option<Ipv4Addr>,
    /// Cycle: 1, 2, 4 ... 512 ms.
    #[arg(long, default_value = "32ms", value_parser = driver::duration)]
    cycle: Duration,
    /// Cycles without a frame until the AR is aborted.
    #[arg(long, default_value_t = 3)]
    watchdog: u16,
    /// Octets of the input module in slot 1 of the device.
    #[arg(long, default_value_t = 16)]
    input: u16,
    /// Octets of the output module in slot 2 of the device.
    #[arg(long, default_value_t = 16)]
    output: u16,
    /// Sends cyclic frames without a priority tag.
    #[arg(long)]
    untagged: bool,
    /// How long an answer to DCP Identify may take, for each of three tries.
    #[arg(long, default_value = "2s", value_parser = driver::duration)]
    identify_timeout: Duration,
    /// Ends after this time [default: Ctrl-C]; the AR is released.
    #[arg(long, value_parser = driver::duration)]
    duration: Option<Duration>,
    /// Prints one JSON object at the end in place of a line each second.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (socket, mac) = driver::open(&args.interface, args.mac)?;
    let clock = driver::clock();
    let (name, device) = (args.name.as_str(), args.device.as_str());
    let config = ControllerConfig {
        device_ip: args.device_ip.map(IpSuite::local),
        modules: vec![Module::input(args.input), Module::output(args.output)],
        // A send clock of 1 ms times the reduction ratio.
        send_clock: 32,
        reduction_ratio: u16::try_from(args.cycle.as_millis())?,
        watchdog_factor: args.watchdog,
        tagged: !args.untagged,
        seed: driver::seed(clock),
        identify_timeout: args.identify_timeout,
        ..ControllerConfig::new(mac, name, IpSuite::local(args.ip), device, clock)
    };
    let controller = Controller::new(config, Instant::now())?;
    driver::run(controller, socket, args.duration, args.json)
}
