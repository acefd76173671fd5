//! The shell around a simulated station: one packet socket, one timer, one status line a second.

use std::error::Error;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_rawsock::{Filter, LinkError, PacketSocket, Timer};
use fieldlock_sim::profinet::{Clock, Controller, Device, Durations, Event, Stats};
use serde_json::{Value, json};

/// What the driver needs of a simulator.
pub(crate) trait Station {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit(&mut self) -> Option<&[u8]>;
    fn poll_event(&mut self) -> Option<Event>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn stats(&self) -> &Stats;
    /// What it is doing, for the status line.
    fn state(&self) -> String;
    /// Begins to end; true when nothing is left to do.
    fn stop(&mut self, now: Instant) -> bool;
}

impl Station for Device {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        self.handle_frame(now, frame);
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.poll_transmit()
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn stats(&self) -> &Stats {
        self.stats()
    }
    fn state(&self) -> String {
        format!("{} controllers", self.established())
    }
    fn stop(&mut self, _now: Instant) -> bool {
        true
    }
}

impl Station for Controller {
    fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        self.handle_frame(now, frame);
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.poll_transmit()
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn stats(&self) -> &Stats {
        self.stats()
    }
    fn state(&self) -> String {
        self.state().to_owned()
    }
    fn stop(&mut self, now: Instant) -> bool {
        if self.is_stopped() {
            return true;
        }
        self.stop(now);
        false
    }
}

/// The socket of an interface, and the station's address on it: `mac`, or the interface's own.
pub(crate) fn open(
    interface: &str,
    mac: Option<Mac>,
) -> Result<(PacketSocket, Mac), Box<dyn Error>> {
    let mut socket = PacketSocket::open(interface, Filter::default())?;
    let mac = mac.unwrap_or(socket.mac());
    if mac != socket.mac() {
        socket.join(mac)?;
    }
    socket.join(Mac::DCP_IDENTIFY)?;
    Ok((socket, mac))
}

/// The clock of stamps: this machine's monotonic one, so that processes share it.
pub(crate) fn clock() -> Clock {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since_boot = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let here = Instant::now();
    Clock {
        epoch: here.checked_sub(since_boot).unwrap_or(here),
    }
}

/// Identifiers that no earlier run has used.
pub(crate) fn seed(clock: Clock) -> u64 {
    clock.epoch.elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}

/// How long an end may take: a Release and its answer.
const GOODBYE: Duration = Duration::from_secs(10);

/// Runs the station until `duration` is over or Ctrl-C, and prints what it measured.
pub(crate) fn run(
    mut station: impl Station,
    mut socket: PacketSocket,
    duration: Option<Duration>,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let mut timer = Timer::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut end = duration.map(|duration| started + duration);
        let mut stopping = None;
        let mut second = started;
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            let now = Instant::now();
            station.handle_timeout(now);
            flush(&mut station, &mut socket)?;
            while let Some(event) = station.poll_event() {
                eprintln!("{:8.3} {event}", (now - started).as_secs_f64());
            }
            if now >= second {
                second += Duration::from_secs(1);
                if !json {
                    println!("{}", line(&station, now - started, now));
                }
            }
            if end.is_some_and(|end| now >= end) {
                let since = *stopping.get_or_insert(now);
                if station.stop(now) || now >= since + GOODBYE {
                    break;
                }
                // The station has something to say; it is asked again soon.
                end = Some(now + Duration::from_millis(20));
                flush(&mut station, &mut socket)?;
            }
            let due = station
                .poll_timeout()
                .into_iter()
                .chain(end)
                .fold(second, Instant::min);
            timer.set(Some(due))?;
            tokio::select! {
                expired = timer.expired() => expired?,
                received = socket.recv(|frame| station.handle_frame(Instant::now(), frame)) => {
                    heard(received)?;
                }
                _ = interrupt.recv() => end = Some(now),
                _ = terminate.recv() => end = Some(now),
            }
        }
        let now = Instant::now();
        if json {
            println!("{:#}", summary(station.stats(), now - started, now));
        } else {
            println!("{}", line(&station, now - started, now));
        }
        Ok(())
    })
}

/// A link that is down is waited for; an interface that is gone is the end.
fn heard(received: Result<usize, LinkError>) -> Result<(), LinkError> {
    match received {
        Ok(_) | Err(LinkError::Down) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What finds no room in the interface's queue is lost, as on a wire.
fn flush(station: &mut impl Station, socket: &mut PacketSocket) -> Result<(), LinkError> {
    while let Some(frame) = station.poll_transmit() {
        heard(socket.try_send(&[frame]))?;
    }
    Ok(())
}

fn line(station: &impl Station, since: Duration, now: Instant) -> String {
    let stats = station.stats();
    let consumed = &stats.consumed;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    format!(
        "{:6.0} s  {:26}  up {:5.1} %  aborts {}  sent {}  accepted {}  age p50 {:.2} p99 {:.2} max {:.2} ms",
        since.as_secs_f64(),
        station.state(),
        share(stats.up(now), since),
        stats.aborts,
        stats.sent,
        consumed.accepted,
        milliseconds(consumed.age.quantile(0.5)),
        milliseconds(consumed.age.quantile(0.99)),
        milliseconds(consumed.age.max()),
    )
}

fn share(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64().max(f64::EPSILON)
}

/// Everything in [`Stats`]; durations in microseconds.
fn summary(stats: &Stats, since: Duration, now: Instant) -> Value {
    let consumed = &stats.consumed;
    let aborts: Vec<Value> = stats
        .abort_log
        .iter()
        .map(|abort| {
            json!({
                "side": format!("{:?}", abort.side).to_lowercase(),
                "status": format!("{:#010x}", abort.status),
            })
        })
        .collect();
    json!({
        "duration_us": since.as_micros() as u64,
        "up_us": stats.up(now).as_micros() as u64,
        "up_percent": share(stats.up(now), since),
        "established": stats.established,
        "reconnects": stats.reconnects,
        "released": stats.released,
        "aborts": stats.aborts,
        "abort_log": aborts,
        "reconnect": durations(&stats.reconnect),
        "sent": stats.sent,
        "skipped": stats.skipped,
        "consumed": {
            "accepted": consumed.accepted,
            "repeated": consumed.repeated,
            "old": consumed.old,
            "duplicate": consumed.duplicate,
            "short": consumed.short,
            "transfer": consumed.transfer,
            "invalid": consumed.invalid,
            "bad": consumed.bad,
            "altered": consumed.altered,
            "age": durations(&consumed.age),
            "gap": durations(&consumed.gap),
        },
        "fail_safe": durations(&stats.fail_safe),
        "fail_safe_age": durations(&stats.fail_safe_age),
        "alarms_acknowledged": stats.alarms_acknowledged,
        "alarms_received": stats.alarms_received,
        "retransmits": stats.retransmits,
        "dropped": stats.dropped,
    })
}

fn durations(durations: &Durations) -> Value {
    let micros = |duration: Duration| duration.as_micros() as u64;
    json!({
        "count": durations.count(),
        "min": micros(durations.min()),
        "p50": micros(durations.quantile(0.5)),
        "p99": micros(durations.quantile(0.99)),
        "p999": micros(durations.quantile(0.999)),
        "max": micros(durations.max()),
    })
}

/// `250ms`, `3s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: a number with ms, s, m or h, as in 32ms");
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}
