//! What a receiver is told, and what it refuses to be told.

use std::time::Duration;

use thiserror::Error;

use crate::profinet::cadence::datagram::Stream;

/// Longer cycles are no cyclic data of class 1 (512 ms is the longest there).
const LONGEST_CYCLE: Duration = Duration::from_secs(1);
/// 61,440 ticks of 31.25 us: a frame that follows a longer silence may count as old.
const WINDOW: Duration = Duration::from_millis(1_920);
/// Frames that wait: a bound for memory, at most 360 KiB with the longest data.
const MOST_CYCLES: u32 = 256;

/// How the frames of one provider are given to its consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub stream: Stream,
    /// The IOCR's DataLength.
    pub data_length: u16,
    /// SendClockFactor x ReductionRatio x 31.25 us, above zero and at most 1 s.
    pub cycle: Duration,
    /// W, the consumer's watchdog: cycle x WatchdogFactor, at most 1.92 s.
    pub watchdog: Duration,
    /// D, by how much frames are delayed; at most 256 cycles. `None`: given out as they arrive.
    pub play_out: Option<Duration>,
    pub hold: Option<Hold>,
}

/// Repeats the last frame where none came, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// A: data that is older is not given out, repeated or not. Above the play-out delay and a
    /// cycle, and at most 1.92 s.
    pub age_limit: Duration,
    /// The operator's limit for A + W.
    pub fail_safe_limit: Duration,
}

/// Why a receiver can't be as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("a cycle of {0:?}; above zero and at most 1 s is possible")]
    Cycle(Duration),
    #[error("a watchdog of {0:?}; a cycle at least and 1.92 s at most is possible")]
    Watchdog(Duration),
    #[error("play-out of {play_out:?} is more than {most:?} (256 cycles)")]
    PlayOut { play_out: Duration, most: Duration },
    #[error(
        "hold up to an age of {age_limit:?} can't act: the play-out delay and a cycle are \
         {needed:?} already"
    )]
    HoldTooShort {
        age_limit: Duration,
        needed: Duration,
    },
    #[error("hold up to an age of {0:?}: after 1.92 s a new frame may count as old")]
    HoldTooLong(Duration),
    #[error(
        "with hold the consumer fails safe within {bound:?} (age limit and watchdog), the limit \
         is {limit:?}"
    )]
    FailSafe { bound: Duration, limit: Duration },
}

impl Config {
    /// The longest time from when the provider sent its last frame to when the consumer's
    /// watchdog expires. With hold: A + W. Without: the play-out delay + W, to which the one-way
    /// delay of the tunnel has to be added, since nothing bounds that.
    pub fn fail_safe_bound(&self) -> Duration {
        let fed = match self.hold {
            Some(hold) => hold.age_limit,
            None => self.play_out.unwrap_or_default(),
        };
        fed.saturating_add(self.watchdog)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.cycle.is_zero() || self.cycle > LONGEST_CYCLE {
            return Err(ConfigError::Cycle(self.cycle));
        }
        if self.watchdog < self.cycle || self.watchdog > WINDOW {
            return Err(ConfigError::Watchdog(self.watchdog));
        }
        let play_out = self.play_out.unwrap_or_default();
        let most = self.cycle * MOST_CYCLES;
        if play_out > most {
            return Err(ConfigError::PlayOut { play_out, most });
        }
        let Some(hold) = self.hold else {
            return Ok(());
        };
        let needed = play_out + self.cycle;
        if hold.age_limit <= needed {
            return Err(ConfigError::HoldTooShort {
                age_limit: hold.age_limit,
                needed,
            });
        }
        if hold.age_limit > WINDOW {
            return Err(ConfigError::HoldTooLong(hold.age_limit));
        }
        let (bound, limit) = (self.fail_safe_bound(), hold.fail_safe_limit);
        if bound > limit {
            return Err(ConfigError::FailSafe { bound, limit });
        }
        Ok(())
    }

    /// How many frames wait at most: those of the play-out delay, and of one datagram.
    pub(super) fn room(&self) -> usize {
        let cycles = self.play_out.unwrap_or_default().as_nanos() / self.cycle.as_nanos().max(1);
        cycles.min(u128::from(MOST_CYCLES)) as usize + 10
    }
}
