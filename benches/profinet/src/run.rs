//! An AR with both its directions over one network, for a time; and its end.

use std::time::{Duration, Instant};

use fieldlock_testkit::link::{Link, derive};

use crate::half::{Half, Woken};
use crate::plan::{Contender, Network, Timing};

/// From an abort to the next AR: discovery, connection, parameters.
const RECONNECT: Duration = Duration::from_secs(3);

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) contender: Contender,
    pub(crate) timing: Timing,
    pub(crate) network: Network,
    pub(crate) seed: u64,
}

/// What came of it, both directions together.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) lasted: Duration,
    pub(crate) up: Duration,
    pub(crate) aborts: u64,
    /// p50, p99 and the greatest.
    pub(crate) ages: [Duration; 3],
    /// Share of accepted frames that were repetitions.
    pub(crate) held: f64,
    pub(crate) longest_hold: Duration,
    pub(crate) repaired: u64,
    /// On the network, of one direction.
    pub(crate) octets_per_cycle: f64,
}

impl Case {
    fn halves(&self, start: Instant) -> Result<[Half; 2], String> {
        let impairment = self.network.impairment(self.timing);
        let [there, back] = Link::pair(&impairment, self.seed, start);
        let half = |link| Half::new(self.contender, self.timing, self.network, link, start);
        Ok([half(there)?, half(back)?])
    }

    pub(crate) fn run(&self, lasted: Duration) -> Result<Outcome, String> {
        let start = Instant::now();
        let end = start + lasted;
        let mut halves = self.halves(start)?;
        let (mut up, mut aborts, mut since) = (Duration::ZERO, 0, start);
        loop {
            let now = halves[0].wakes().min(halves[1].wakes());
            if now >= end {
                up += end.saturating_duration_since(since);
                break;
            }
            let mut expired = false;
            for half in &mut halves {
                if half.wakes() <= now {
                    expired |= matches!(half.wake(now), Woken::Expired);
                }
            }
            if !expired {
                continue;
            }
            aborts += 1;
            up += now.duration_since(since);
            since = now + RECONNECT;
            halves.iter_mut().for_each(Half::disconnect);
            if since >= end {
                break;
            }
            for half in &mut halves {
                half.connect(since, aborts as u32)
                    .map_err(|error| error.to_string())?;
            }
        }
        halves.iter_mut().for_each(Half::disconnect);
        Ok(self.sum(halves, lasted, up, aborts))
    }

    fn sum(&self, halves: [Half; 2], lasted: Duration, up: Duration, aborts: u64) -> Outcome {
        let [mut there, back] = halves.map(|half| half.tally);
        // Both histograms are alike, so that they add up.
        let _ = there.ages.add(&back.ages);
        let micros = Duration::from_micros;
        let accepted = (there.accepted + back.accepted).max(1);
        let frames = (there.frames + back.frames).max(1);
        Outcome {
            lasted,
            up,
            aborts,
            ages: [
                micros(there.ages.value_at_quantile(0.5)),
                micros(there.ages.value_at_quantile(0.99)),
                micros(there.ages.max()),
            ],
            held: (there.held + back.held) as f64 / accepted as f64,
            longest_hold: there.longest_hold.max(back.longest_hold),
            repaired: there.repaired + back.repaired,
            octets_per_cycle: (there.octets + back.octets) as f64 / frames as f64,
        }
    }

    /// The provider of one direction dies at a moment of the seed's choice. How long after the
    /// sending of the last data that the consumer accepted its watchdog expires.
    pub(crate) fn time_to_fail_safe(&self) -> Result<Duration, String> {
        let start = Instant::now();
        let [mut half, _] = self.halves(start)?;
        let cycles = 40 + derive(self.seed, 9) % 60;
        let killed = start
            + self.timing.cycle * cycles as u32
            + self
                .timing
                .cycle
                .mul_f64((derive(self.seed, 10) % 1000) as f64 / 1000.0);
        let mut alive = true;
        loop {
            let now = half.wakes();
            if alive && now >= killed {
                half.kill_provider();
                alive = false;
                continue;
            }
            if let Woken::Expired = half.wake(now) {
                let fresh = half.last_fresh();
                return Ok(fresh.map_or(Duration::ZERO, |fresh| now.duration_since(fresh)));
            }
        }
    }

    /// What no trial may exceed. Without hold nothing but the network bounds the one-way delay; a
    /// repaired frame may be a cycle behind its slot.
    pub(crate) fn fail_safe_bound(&self) -> Duration {
        let Self {
            contender,
            timing,
            network,
            ..
        } = self;
        let fed = match contender.age_limit(*timing, network) {
            Some(age_limit) => age_limit,
            None => {
                let play_out = contender.play_out(*timing, network);
                play_out.unwrap_or_default() + network.longest_way() + timing.cycle
            }
        };
        // The watchdog is looked at a nanosecond after its time.
        fed + timing.watchdog() + Duration::from_nanos(1)
    }
}
