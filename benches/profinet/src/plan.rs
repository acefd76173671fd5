//! What is measured: who carries, over which networks, for which applications.

use std::time::Duration;

use fieldlock_testkit::link::{Burst, Cuts, Impairment, Jitter};

/// One way of every network, before its jitter.
pub(crate) const DELAY: Duration = Duration::from_millis(20);
/// Share of frames that are lost in bursts.
const BURST_LOSS: f64 = 0.02;
/// From one blackout to the next.
const BLACKOUTS: Duration = Duration::from_secs(30);
/// After a longer silence a new frame may count as old: the longest age limit of hold.
pub(crate) const WINDOW: Duration = Duration::from_millis(1_920);

/// Who carries the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Every frame goes over the same network as it is.
    Bare,
    Fieldlock {
        redundancy: u8,
        play_out: bool,
        hold: bool,
    },
}

/// An AR's timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) cycle: Duration,
    pub(crate) factor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    /// Independent losses, as a share.
    Loss(f64),
    /// Bursts of so many cycles on average; 2 % of the time.
    Bursts(u32),
    /// Nothing crosses for so many watchdog times, every 30 s, both ways at once.
    Blackouts(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Network {
    pub(crate) trouble: Trouble,
    /// Evenly spread up to this, beside the delay of 20 ms. Frames do not overtake.
    pub(crate) jitter: Duration,
}

impl Timing {
    pub(crate) fn watchdog(self) -> Duration {
        self.cycle * self.factor
    }

    /// SendClockFactor x ReductionRatio: cycles of whole milliseconds have 32 ticks in each.
    pub(crate) fn counter_step(self) -> u16 {
        (self.cycle.as_millis() * 32) as u16
    }

    pub(crate) fn all() -> Vec<Self> {
        let cycles = [16, 32, 128].map(Duration::from_millis);
        let with = |cycle| [3, 10].map(|factor| Self { cycle, factor });
        cycles.into_iter().flat_map(with).collect()
    }
}

impl Network {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for jitter in [0, 5, 20, 50, 100].map(Duration::from_millis) {
            for loss in [0.0, 0.001, 0.01, 0.05, 0.1] {
                let trouble = Trouble::Loss(loss);
                all.push(Self { trouble, jitter });
            }
        }
        let jitter = Duration::from_millis(5);
        let bursts = [1, 2, 3, 5, 10, 20].map(Trouble::Bursts);
        let blackouts = [0.5, 0.9, 1.1, 2.0].map(Trouble::Blackouts);
        let troubles = bursts.into_iter().chain(blackouts);
        all.extend(troubles.map(|trouble| Self { trouble, jitter }));
        all
    }

    pub(crate) fn impairment(&self, timing: Timing) -> Impairment {
        let mut impairment = Impairment {
            delay: DELAY,
            jitter: Jitter::Uniform(self.jitter),
            ..Impairment::default()
        };
        match self.trouble {
            Trouble::Loss(loss) => impairment.loss = loss,
            Trouble::Bursts(cycles) => {
                let leave = 1.0 / f64::from(cycles);
                impairment.burst = Some(Burst {
                    enter: leave * BURST_LOSS / (1.0 - BURST_LOSS),
                    leave,
                    loss: 1.0,
                    step: Some(timing.cycle),
                });
            }
            Trouble::Blackouts(watchdogs) => {
                impairment.cuts = Cuts::Every {
                    first: BLACKOUTS / 2,
                    period: BLACKOUTS,
                    length: timing.watchdog().mul_f64(watchdogs),
                }
            }
        }
        impairment
    }

    pub(crate) fn longest_way(&self) -> Duration {
        DELAY + self.jitter
    }

    pub(crate) fn name(&self) -> String {
        let jitter = self.jitter.as_millis();
        match self.trouble {
            Trouble::Loss(loss) => format!("loss {} %, jitter {jitter} ms", loss * 100.0),
            Trouble::Bursts(cycles) => format!("bursts of {cycles} cycles, jitter {jitter} ms"),
            Trouble::Blackouts(watchdogs) => {
                format!("blackouts of {watchdogs} W, jitter {jitter} ms")
            }
        }
    }
}

impl Contender {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Bare];
        for hold in [false, true] {
            for play_out in [false, true] {
                for redundancy in [0, 2] {
                    all.push(Self::Fieldlock {
                        redundancy,
                        play_out,
                        hold,
                    });
                }
            }
        }
        all.push(Self::Fieldlock {
            redundancy: 5,
            play_out: true,
            hold: false,
        });
        all
    }

    pub(crate) fn name(self) -> String {
        let Self::Fieldlock {
            redundancy,
            play_out,
            hold,
        } = self
        else {
            return "bare".into();
        };
        let redundancy = (redundancy > 0).then(|| format!("redundancy {redundancy}"));
        let play_out = play_out.then(|| "play-out".to_owned());
        let hold = hold.then(|| "hold".to_owned());
        let means: Vec<_> = [redundancy, play_out, hold].into_iter().flatten().collect();
        match means.is_empty() {
            true => "tunnel alone".into(),
            false => means.join(" + "),
        }
    }

    pub(crate) fn is_redundancy_alone(self) -> bool {
        match self {
            Self::Bare => false,
            Self::Fieldlock {
                redundancy,
                play_out,
                ..
            } => redundancy > 0 && !play_out,
        }
    }

    /// D: two cycles, or as many as frames are repeated for, and the network's jitter.
    pub(crate) fn play_out(self, timing: Timing, network: &Network) -> Option<Duration> {
        match self {
            Self::Fieldlock {
                redundancy,
                play_out: true,
                ..
            } => Some(timing.cycle * u32::from(redundancy.max(2)) + network.jitter),
            Self::Bare | Self::Fieldlock { .. } => None,
        }
    }

    /// A: the play-out delay, a round trip and a watchdog time, at most 1.92 s.
    pub(crate) fn age_limit(self, timing: Timing, network: &Network) -> Option<Duration> {
        let Self::Fieldlock { hold: true, .. } = self else {
            return None;
        };
        let play_out = self.play_out(timing, network).unwrap_or_default();
        let limit = play_out + 2 * network.longest_way() + timing.watchdog();
        Some(limit.min(WINDOW))
    }
}
