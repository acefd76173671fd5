//! What a link does to what it carries.

use std::ops::Range;
use std::time::Duration;

use super::LONGEST;
use crate::random::Random;

/// What happens to packets in one direction. Shares are 0.0 to 1.0. The default is a perfect
/// link. Spans longer than an hour count as an hour.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Impairment {
    /// Share of packets that vanish, each independent of the others.
    pub loss: f64,
    pub burst: Option<Burst>,
    /// Of every packet, before jitter.
    pub delay: Duration,
    pub jitter: Jitter,
    pub reorder: Option<Reorder>,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets in which one octet is changed.
    pub corrupt: f64,
    pub rate: Option<Rate>,
    pub cuts: Cuts,
}

/// Losses in bursts (Gilbert, 1960; Elliott, 1963): a channel that is good or bad.
///
/// With a `loss` of 1.0 and no `step`, bursts are `1 / leave` packets long on average, and
/// `enter / (enter + leave)` of all packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// The chance in each step that a good channel turns bad (the literature's p).
    pub enter: f64,
    /// The chance in each step that a bad channel turns good (r).
    pub leave: f64,
    /// Share of packets that vanish while the channel is bad (1 - h).
    pub loss: f64,
    /// A step is this long. `None`: a step is a packet, as in netem, which makes bursts shorter
    /// in time for whoever sends more packets. To compare senders of different rates, set it.
    pub step: Option<Duration>,
}

/// What is added to the delay, anew for each packet. The order of packets is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Jitter {
    #[default]
    None,
    /// Evenly spread from nothing to this.
    Uniform(Duration),
    /// A heavy tail that begins at nothing (Lomax): exceeds `x` in `(1 + x / scale)^-alpha` of
    /// packets, and is never more than `cap`.
    Pareto {
        scale: Duration,
        /// Above 0. The smaller, the heavier the tail; 1.5 to 3 are usual.
        alpha: f64,
        cap: Duration,
    },
}

/// Packets that others overtake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// Share of packets that are held back.
    pub share: f64,
    /// For how long, beside their delay.
    pub by: Duration,
}

/// A bottleneck with a queue that drops at its tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 0 counts as 1.
    pub bits_per_second: u64,
    /// Octets that may wait, the packet under way included.
    pub queue: usize,
}

/// When the link carries nothing, counted from its start. A packet that enters then is lost;
/// what entered before arrives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cuts {
    #[default]
    Never,
    /// From each start to its end (out).
    At(Vec<Range<Duration>>),
    /// Again and again: from `first`, then each `period`, for `length`.
    Every {
        first: Duration,
        period: Duration,
        length: Duration,
    },
}

impl Cuts {
    pub(super) fn contain(&self, since_start: Duration) -> bool {
        match self {
            Self::Never => false,
            Self::At(cuts) => cuts.iter().any(|cut| cut.contains(&since_start)),
            Self::Every {
                first,
                period,
                length,
            } => match since_start.checked_sub(*first) {
                None => false,
                Some(since_first) => {
                    let into = since_first.as_nanos() % period.as_nanos().max(1);
                    into < length.as_nanos()
                }
            },
        }
    }
}

impl Jitter {
    pub(super) fn sample(&self, random: &mut Random) -> Duration {
        let share = random.share();
        match *self {
            Self::None => Duration::ZERO,
            Self::Uniform(most) => most.min(LONGEST).mul_f64(share),
            Self::Pareto { scale, alpha, cap } => {
                let times = (1.0 - share).powf(-1.0 / alpha) - 1.0;
                let seconds = scale.as_secs_f64() * times;
                // Not a number and infinity fall to the cap.
                Duration::try_from_secs_f64(seconds).map_or(cap, |time| time.min(cap))
            }
        }
        .min(LONGEST)
    }
}

impl Rate {
    /// How long a packet of this length takes.
    pub(super) fn time_of(&self, length: usize) -> Duration {
        let nanos = length as u128 * 8 * 1_000_000_000 / u128::from(self.bits_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST)
    }

    /// How many octets leave in a time, begun ones included.
    pub(super) fn octets_in(&self, time: Duration) -> u64 {
        let bits = (time.as_nanos() * u128::from(self.bits_per_second)).div_ceil(1_000_000_000);
        u64::try_from(bits.div_ceil(8)).unwrap_or(u64::MAX)
    }
}
