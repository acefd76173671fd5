//! Watchdogs that are shorter than what a way can be relied on to keep.
//!
//! A consumer outlives a gap of its watchdog W, and of what is kept back for it: with play-out D, with
//! hold its age limit A. A way has to be allowed one frame that is lost, a gap of two cycles 2 T; one
//! round trip R, by which queues and repairs on the way may delay a frame; and [`MACHINES`]. So W is
//! short where W + max(D, A) < 2 T + R + MACHINES. Below that an AR may stay up on a quiet link, but
//! nobody should plan on it.

use std::fmt;
use std::time::Duration;

use fieldlock_profinet::ar::Cr;

use super::parties::{MAX_PLAY_OUT, StationSettings};

/// What two machines that are not real-time ones may delay a frame when they are busy.
const MACHINES: Duration = Duration::from_millis(4);

/// A watchdog that is too short for its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    pub watchdog: Duration,
    /// The least that it has to be, with play-out and hold as they are.
    pub needed: Duration,
    /// The least play-out, in cycles, with which it would do as it is; `None` where none does.
    pub play_out: Option<u8>,
}

impl Shortfall {
    pub(super) fn of(cr: &Cr, settings: &StationSettings, round_trip: Duration) -> Option<Self> {
        let gap = 2 * cr.cycle + round_trip + MACHINES;
        let play_out = cr.cycle * u32::from(settings.play_out);
        let kept = play_out.max(settings.hold.unwrap_or_default());
        let needed = gap.saturating_sub(kept);
        let missing = gap.saturating_sub(cr.watchdog).as_nanos();
        let cycles = missing.div_ceil(cr.cycle.as_nanos().max(1));
        (cr.watchdog < needed).then_some(Self {
            watchdog: cr.watchdog,
            needed,
            play_out: u8::try_from(cycles)
                .ok()
                .filter(|cycles| *cycles <= MAX_PLAY_OUT),
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "the watchdog of {:.1} ms is shorter than the {:.1} ms that this way needs: plan a greater \
             watchdog factor or cycle",
            millis(self.watchdog),
            millis(self.needed)
        )?;
        match self.play_out {
            Some(cycles) => write!(
                f,
                ", or set `play_out = {cycles}` for the station at this end"
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldlock_profinet::ar::End;
    use fieldlock_profinet::{FrameId, Tag};

    use super::*;

    fn cr(cycle: u64, factor: u64) -> Cr {
        Cr {
            provider: End::Device,
            reference: 1,
            frame_id: Some(FrameId(0x8000)),
            data_length: 40,
            cycle: Duration::from_millis(cycle),
            counter_step: 32 * cycle as u16,
            watchdog: Duration::from_millis(cycle * factor),
            tag: Tag(0xc000),
        }
    }

    fn settings(play_out: u8, hold: Option<u64>) -> StationSettings {
        StationSettings {
            name: "drive-1".parse().unwrap(),
            mac: None,
            redundancy: 2,
            spread: 1,
            play_out,
            hold: hold.map(Duration::from_millis),
            fail_safe_limit: None,
        }
    }

    #[test]
    fn a_watchdog_is_short_where_one_loss_and_a_round_trip_exceed_it() {
        let of = |cycle, factor, play_out, hold, round_trip| {
            let round_trip = Duration::from_millis(round_trip);
            Shortfall::of(&cr(cycle, factor), &settings(play_out, hold), round_trip)
                .map(|short| (short.needed.as_millis(), short.play_out))
        };
        // 3 x 2 ms, which most controllers choose.
        assert_eq!(of(2, 3, 0, None, 0), Some((8, Some(1))));
        assert_eq!(of(2, 3, 0, None, 20), Some((28, Some(11))));
        assert_eq!(of(2, 3, 10, None, 20), Some((8, Some(11))));
        assert_eq!(of(2, 3, 11, None, 20), None);
        assert_eq!(of(2, 14, 0, None, 20), None);
        assert_eq!(of(2, 3, 0, None, 2_000), Some((2_008, None)));
        // 3 x 32 ms.
        assert_eq!(of(32, 3, 0, None, 28), None);
        assert_eq!(of(32, 3, 0, None, 29), Some((97, Some(1))));
        assert_eq!(of(32, 3, 0, Some(400), 300), None);
    }

    #[test]
    fn what_to_set_is_said() {
        let round_trip = Duration::from_millis(20);
        let text = Shortfall::of(&cr(2, 3), &settings(0, None), round_trip)
            .unwrap()
            .to_string();
        assert_eq!(
            text,
            "the watchdog of 6.0 ms is shorter than the 28.0 ms that this way needs: plan a greater \
             watchdog factor or cycle, or set `play_out = 11` for the station at this end"
        );
    }
}
