//! The two states of a Gilbert-Elliott channel.

use std::time::Instant;

use super::impairment::Burst;
use crate::random::Random;

/// Which state the channel is in.
#[derive(Debug)]
pub(super) struct Chain {
    bad: bool,
    /// Until where steps of time have been taken.
    stepped: Instant,
}

impl Chain {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            bad: false,
            stepped: start,
        }
    }

    /// Moves the channel on to `now` and says whether this packet is lost.
    pub(super) fn loses(&mut self, burst: &Burst, now: Instant, random: &mut Random) -> bool {
        let (moves, lost) = (random.share(), random.share());
        let steps = self.steps(burst, now);
        let bad_next = probability_bad(burst, self.bad, steps);
        self.bad = moves < bad_next;
        self.bad && lost < burst.loss
    }

    /// One step per packet, or as many as time has gone by for.
    fn steps(&mut self, burst: &Burst, now: Instant) -> u32 {
        let Some(step) = burst.step.filter(|step| !step.is_zero()) else {
            return 1;
        };
        let gone = now.saturating_duration_since(self.stepped);
        let steps = u32::try_from(gone.as_nanos() / step.as_nanos()).unwrap_or(u32::MAX);
        self.stepped += step.saturating_mul(steps);
        steps
    }
}

/// The chance to be in the bad state some steps later: the closed form of a two-state chain.
fn probability_bad(burst: &Burst, bad: bool, steps: u32) -> f64 {
    let both = burst.enter + burst.leave;
    if both <= 0.0 {
        return f64::from(u8::from(bad));
    }
    let in_the_long_run = burst.enter / both;
    let now = f64::from(u8::from(bad));
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    in_the_long_run + (now - in_the_long_run) * (1.0 - both).powi(steps)
}
