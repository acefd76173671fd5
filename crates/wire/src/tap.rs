//! The wire between two Ethernet interfaces.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Parser};
use fieldlock_rawsock::{Namespace, Tap, Timer};
use fieldlock_testkit::link::Link;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::carrier::Carrier;
use crate::log::{Log, Stream};
use crate::middlebox::Middlebox;
use crate::options::Options;
use crate::shell;

/// An interface may have a large MTU; no frame of PROFINET is longer than 1,518 octets.
const LONGEST: usize = 9_216;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  Two interfaces, joined by a wire that loses 5 % and jitters by up to 10 ms:
    fieldlock-wire tap left right --loss 5% --jitter 10ms --seed 7
  Between the namespaces that `fieldlock-wire rig up` makes, with a log:
    fieldlock-wire tap wire wire --netns-a controller --netns-b device \\
        --burst 1%,20%,100%,10ms --log run.csv --duration 10m
  A cellular network with a heavy tail, cut for two seconds each minute:
    fieldlock-wire tap left right --delay 40ms --jitter pareto:5ms,1.8,400ms --cut-every 60s,2s
  One that changes while it carries: UDP is blocked, later nothing is:
    echo --block udp > now; fieldlock-wire tap left right --follow now &
    echo > now; kill -HUP $!")]
pub(crate) struct TapCommand {
    /// Name of the one interface, which is made and goes away with the wire.
    a: String,
    /// Name of the other interface.
    b: String,
    /// Network namespace of the one, by its name in `ip netns`.
    #[arg(long, value_name = "NAME")]
    netns_a: Option<String>,
    /// Network namespace of the other.
    #[arg(long, value_name = "NAME")]
    netns_b: Option<String>,
    /// Options in a file, read now and at each SIGHUP, in place of those of the command line; all
    /// but --seed, --log and --duration. Words are parted by blanks.
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    follow: Option<PathBuf>,
    #[command(flatten)]
    middlebox: Middlebox,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What a followed file says.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Followed {
    #[command(flatten)]
    middlebox: Middlebox,
    #[command(flatten)]
    options: Options,
}

impl TapCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let a = make(&self.a, self.netns_a.as_deref())?;
        let b = make(&self.b, self.netns_b.as_deref())?;
        // The kernel queues received frames by processor: moving on would let them overtake.
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here)
            .map_err(|error| format!("staying on a processor: {error}"))?;
        shell::block_on(carry(a, b, self))
    }
}

fn make(name: &str, namespace: Option<&str>) -> Result<Tap, Failure> {
    let at = |error: std::io::Error| {
        let place = namespace
            .map(|it| format!(" in namespace {it}"))
            .unwrap_or_default();
        format!("making interface {name}{place}: {error}")
    };
    let made = match namespace {
        Some(namespace) => {
            let namespace = Namespace::named(namespace).map_err(at)?;
            namespace.run(|| Tap::create(Some(name))).map_err(at)?
        }
        None => Tap::create(Some(name)),
    };
    Ok(made.map_err(at)?)
}

/// Does from here on what the file says; when it can't be used all stays as it is.
fn follow(file: &Path, links: &mut [Link], middlebox: &mut Middlebox) -> Result<(), Failure> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| at(&error))?;
    let now = Followed::try_parse_from(text.split_whitespace()).map_err(|error| at(&error))?;
    for link in links {
        link.change(now.options.impairment());
    }
    *middlebox = now.middlebox;
    Ok(())
}

async fn carry(a: Tap, b: Tap, command: TapCommand) -> Result<(), Failure> {
    let TapCommand {
        options,
        mut middlebox,
        follow: followed,
        ..
    } = command;
    let start = Instant::now();
    let streams = [0, 1].map(|direction| Stream {
        client: 0,
        direction,
    });
    let mut links = streams.map(|stream| stream.link(&options, start));
    let mut log = Log::create(options.log.as_deref(), start)?;
    let mut carrier = Carrier::new();
    let mut timer = Timer::new()?;
    let mut end = std::pin::pin!(shell::end(start, options.duration));
    let mut change = signal(SignalKind::hangup())?;
    if let Some(file) = &followed {
        follow(file, &mut links, &mut middlebox)?;
    }
    let (mut from_a, mut from_b) = ([0; LONGEST], [0; LONGEST]);
    println!("carrying between {} and {}", a.name(), b.name());
    loop {
        timer.set(carrier.poll_timeout())?;
        let (direction, frame) = tokio::select! {
            length = a.recv(&mut from_a) => (0, &mut from_a[..length?]),
            length = b.recv(&mut from_b) => (1, &mut from_b[..length?]),
            _ = change.recv(), if followed.is_some() => {
                if let Some(file) = &followed {
                    match follow(file, &mut links, &mut middlebox) {
                        Ok(()) => println!("carrying otherwise"),
                        Err(error) => eprintln!("error: {error}"),
                    }
                }
                continue;
            }
            expired = timer.expired() => {
                expired?;
                while let Some((direction, frame)) = carrier.poll(Instant::now()) {
                    // Refused while the interface is down, as by a cable without a plug.
                    let _ = if direction == 0 { b.send(&frame) } else { a.send(&frame) };
                }
                continue;
            }
            ended = &mut end => {
                ended?;
                break;
            }
        };
        let now = Instant::now();
        if !middlebox.pass(direction, frame) {
            continue;
        }
        let damage = |frame: &mut [u8], at| middlebox.damage(frame, at);
        let link = &mut links[direction];
        let fate = carrier.handle(now, link, direction, frame.to_vec(), damage);
        log.write(now, streams[direction], frame.len(), fate)?;
    }
    log.flush()?;
    shell::report(carrier.totals());
    Ok(())
}
