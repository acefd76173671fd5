//! What an operator sets for one device, and the delays between connects.

use std::time::{Duration, Instant};

use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Quirk, Quirks};

/// How one device is reached and how much is asked of it at a time.
///
/// Memory of a device at its worst: about 350 bytes for each request that may wait
/// (`queue`) or be in flight (`max_connections` times `in_flight`), and 260 bytes for each
/// connection. It is taken as it is needed, and kept.
#[derive(Debug, Clone)]
pub struct DeviceSettings {
    pub framing: Framing,
    /// 1 to 65535, default 1: many controllers accept between one and eight connections and
    /// close the oldest when full. A serial line always has one.
    pub max_connections: u16,
    /// Requests in flight on one connection, 1 to 65535, default 1. On a serial line always 1.
    pub in_flight: u16,
    /// Whether clients that wait for the same read share one, default yes. See [`Submit::grounds`].
    ///
    /// [`Submit::grounds`]: super::Submit::grounds
    pub shared_reads: bool,
    /// Requests waiting, of all clients, default 64.
    pub queue: usize,
    /// Requests waiting, of one client, default 16.
    pub queue_per_client: usize,
    /// How long a request in flight may keep those of other units from being sent, default 500 ms.
    /// Where nobody else waits, it has until its deadline.
    pub response_timeout: Duration,
    /// For how long at most a unit that stays silent while others answer is not asked at all, default
    /// 16 s; zero: it is always asked.
    pub max_hold_off: Duration,
    /// From the wish to connect to the established connection, default 2 s.
    pub connect_timeout: Duration,
    /// From the established connection to the first request, default 0.
    pub pause_after_connect: Duration,
    /// From a request or answer to the next request on the same connection, default 0.
    pub pause_between_requests: Duration,
    /// A connection without a request for so long is closed; default never.
    pub idle_close: Option<Duration>,
    pub reconnect: Backoff,
    /// In which ways its answers may deviate from the specification, default none.
    pub quirks: Quirks,
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            framing: Framing::Tcp,
            max_connections: 1,
            in_flight: 1,
            shared_reads: true,
            queue: 64,
            queue_per_client: 16,
            response_timeout: Duration::from_millis(500),
            max_hold_off: Duration::from_secs(16),
            connect_timeout: Duration::from_secs(2),
            pause_after_connect: Duration::ZERO,
            pause_between_requests: Duration::ZERO,
            idle_close: None,
            reconnect: Backoff::default(),
            quirks: Quirks::NONE,
        }
    }
}

impl DeviceSettings {
    /// Over a serial line.
    pub fn is_serial(&self) -> bool {
        matches!(self.framing, Framing::Rtu { .. })
    }

    pub(super) fn connection_limit(&self) -> usize {
        match self.framing {
            Framing::Tcp => usize::from(self.max_connections.max(1)),
            Framing::Rtu { .. } => 1,
        }
    }

    /// Per connection.
    pub(super) fn in_flight_limit(&self) -> usize {
        match self.framing {
            // No more than its ids tell apart.
            Framing::Tcp if self.quirks.contains(Quirk::TransactionIdZero) => 1,
            Framing::Tcp if self.quirks.contains(Quirk::TransactionIdLowByte) => {
                usize::from(self.in_flight.clamp(1, 256))
            }
            Framing::Tcp => usize::from(self.in_flight.max(1)),
            Framing::Rtu { .. } => 1,
        }
    }

    /// Whether no device answers what is sent to this unit.
    pub(super) fn is_broadcast(&self, unit: u8) -> bool {
        unit == BROADCAST && self.framing != Framing::Tcp
    }

    /// Requests that are waiting, in flight, or answered and not yet collected.
    pub(super) fn request_limit(&self) -> usize {
        self.queue + self.connection_limit() * self.in_flight_limit()
    }
}

/// How requests are framed for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Tcp,
    Rtu {
        /// Bits per second.
        baud: u32,
        /// Silence that ends an answer whose length its function code does not give. Longer
        /// than the 1 to 16 ms by which USB adapters delay bytes; 20 ms is a good start.
        frame_gap: Duration,
        /// What devices get to digest a broadcast, usually 100 to 200 ms; also how long the
        /// line must have been silent after a time-out.
        turnaround: Duration,
    },
}

/// Delays between attempts to connect: doubled from `first` to `max`, each shortened by up
/// to a half at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(5),
        }
    }
}

/// When the next attempt to connect may be made.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: fieldlock_session::Backoff,
    not_before: Option<Instant>,
}

impl Retry {
    pub(super) fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            backoff: fieldlock_session::Backoff::new(backoff.first, backoff.max, seed),
            not_before: None,
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + self.backoff.delay());
    }

    /// The device talked to us: the next failure is a first one.
    pub(super) fn proved(&mut self) {
        self.backoff.reset();
    }

    pub(super) fn now(&mut self) {
        self.not_before = None;
    }

    /// The time until which no attempt is made.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_limit_with_jitter_and_start_anew_after_success() {
        let now = Instant::now();
        let mut retry = Retry::new(Backoff::default(), 7);
        for base in [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            retry.failed(now);
            let delay = retry.blocked_until(now).unwrap() - now;
            let base = Duration::from_millis(base);
            assert!(delay >= base / 2 && delay <= base, "{delay:?} for {base:?}");
        }
        retry.proved();
        retry.failed(now);
        assert!(retry.blocked_until(now).unwrap() - now <= Duration::from_millis(50));
    }

    #[test]
    fn a_serial_line_has_one_request_at_a_time() {
        let settings = DeviceSettings {
            framing: Framing::Rtu {
                baud: 19200,
                frame_gap: Duration::from_millis(20),
                turnaround: Duration::from_millis(100),
            },
            max_connections: 8,
            in_flight: 16,
            ..DeviceSettings::default()
        };
        assert_eq!(
            (settings.connection_limit(), settings.in_flight_limit()),
            (1, 1)
        );
    }
}
