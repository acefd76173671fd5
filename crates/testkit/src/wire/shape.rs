//! What a direction does to what it carries.

use std::time::Duration;

use crate::random::Random;

/// The stall that a lost TCP segment causes: Linux's least retransmission time-out.
pub const RETRANSMISSION: Duration = Duration::from_millis(200);

/// How much later than its time a reordered datagram leaves, so that others overtake it.
const HELD_BACK: Duration = Duration::from_millis(4);

/// What happens to a datagram or a piece of a TCP stream in one direction. Shares are 0.0
/// to 1.0. The default is a perfect wire.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Nothing passes.
    pub cut: bool,
    /// Share of datagrams that vanish. On TCP: share of pieces that stall.
    pub loss: f64,
    pub delay: Duration,
    /// Added to the delay, evenly spread from nothing to this; the order is kept.
    pub jitter: Duration,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams that later ones overtake.
    pub reorder: f64,
    /// Share of datagrams in which one byte is changed.
    pub corrupt: f64,
}

/// What was decided for one datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fate {
    pub(super) copies: u8,
    pub(super) delay: Duration,
    pub(super) overtaken: bool,
    /// Change the byte at this place (modulo the length).
    pub(super) corrupt_at: Option<usize>,
}

impl Shape {
    pub(super) fn datagram(&self, random: &mut Random) -> Fate {
        let lost = random.happens(self.loss);
        let copies = 1 + u8::from(random.happens(self.duplicate));
        let overtaken = random.happens(self.reorder);
        let corrupt = random.happens(self.corrupt);
        Fate {
            copies: if lost { 0 } else { copies },
            delay: self.lateness(random) + if overtaken { HELD_BACK } else { Duration::ZERO },
            overtaken,
            corrupt_at: corrupt.then(|| random.next() as usize),
        }
    }

    /// The delay of a piece of a TCP stream.
    pub(super) fn piece(&self, random: &mut Random) -> Duration {
        let stall = if random.happens(self.loss) {
            RETRANSMISSION
        } else {
            Duration::ZERO
        };
        self.lateness(random) + stall
    }

    fn lateness(&self, random: &mut Random) -> Duration {
        self.delay + self.jitter.mul_f64(random.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_wire_does_nothing() {
        let fate = Shape::default().datagram(&mut Random::seeded(1));
        let expected = Fate {
            copies: 1,
            delay: Duration::ZERO,
            overtaken: false,
            corrupt_at: None,
        };
        assert_eq!(fate, expected);
    }

    #[test]
    fn shares_are_kept_and_a_seed_repeats() {
        let shape = Shape {
            loss: 0.2,
            duplicate: 0.1,
            jitter: Duration::from_millis(10),
            ..Shape::default()
        };
        let run = |seed| {
            let mut random = Random::seeded(seed);
            let fates = (0..10_000).map(move |_| shape.datagram(&mut random));
            fates.collect::<Vec<_>>()
        };
        let fates = run(7);
        let lost = fates.iter().filter(|fate| fate.copies == 0).count();
        let twice = fates.iter().filter(|fate| fate.copies == 2).count();
        assert!((1_850..2_150).contains(&lost), "{lost}");
        assert!((650..950).contains(&twice), "{twice}");
        assert!(
            fates
                .iter()
                .all(|fate| fate.delay < Duration::from_millis(10))
        );
        assert_eq!(fates, run(7));
        assert_ne!(fates, run(8));
    }
}
