//! The end that hears the provider.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldlock_profinet::Tag;
use fieldlock_profinet::cyclic::{DataStatus, is_newer};

use super::datagram::{Frame, Header, MAX_AGE, MAX_EARLIER, Stream, earlier_that_fit};

/// How far apart carried frames may lie, in frames: with this and seven of them the oldest still
/// has an age that fits the datagram, where no frame of the provider is lost.
const MAX_SPREAD: u8 = 16;
/// How long a CycleCounter takes for all its values. After such a silence no earlier frame is of
/// use.
const WRAP: Duration = Duration::from_millis(2_048);

/// How the frames of one provider are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub stream: Stream,
    /// The IOCR's DataLength.
    pub data_length: u16,
    /// By how much the provider's CycleCounter advances per frame: SendClockFactor x
    /// ReductionRatio, in units of 31.25 us. 0 counts as 1.
    pub counter_step: u16,
    /// How many earlier frames a datagram carries, 0 to 7 (more counts as 7), where they fit.
    pub redundancy: u8,
    /// How many frames lie between the carried ones: 1 carries the frames just before, more
    /// helps against losses in bursts. 1 to 16; what is outside counts as the nearest.
    pub spread: u8,
    /// Octets that the tunnel carries in a datagram, at first.
    pub max_datagram: usize,
    /// Chosen at random, so that the far end notices that a sender begins anew.
    pub first_sequence: u32,
}

/// Makes a datagram of each frame of a provider.
#[derive(Debug)]
pub struct Sender {
    config: Config,
    /// The zero of this sender's clock.
    epoch: Instant,
    newest: Option<Sent>,
    /// The frames before the newest, the latest of them first.
    history: VecDeque<(Sent, Vec<u8>)>,
    stats: Stats,
}

/// A frame that was sent, without its data.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    sequence: u32,
    tag: Option<Tag>,
    cycle_counter: u16,
    data_status: DataStatus,
}

/// What a sender has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub datagrams: u64,
    pub octets: u64,
    /// Frames that are not newer than the one before by the consumer's rule; not sent.
    pub not_newer: u64,
    /// Frames whose data is not of DataLength; not sent.
    pub wrong_length: u64,
    /// Frames of which not even one fits a datagram any more; not sent.
    pub too_long: u64,
    /// Cycles of the provider of which no frame was heard.
    pub missed_cycles: u64,
    /// How many earlier frames fit at present, at most what is configured.
    pub redundancy: u8,
}

impl Sender {
    pub fn new(config: Config, now: Instant) -> Self {
        let config = Config {
            counter_step: config.counter_step.max(1),
            redundancy: config.redundancy.min(MAX_EARLIER),
            spread: config.spread.clamp(1, MAX_SPREAD),
            ..config
        };
        let mut sender = Self {
            epoch: now,
            newest: None,
            history: VecDeque::new(),
            stats: Stats::default(),
            config,
        };
        sender.set_max_datagram(sender.config.max_datagram);
        sender
    }

    /// Another limit for datagrams, from the next one on.
    pub fn set_max_datagram(&mut self, max_datagram: usize) {
        self.config.max_datagram = max_datagram;
        self.stats.redundancy = earlier_that_fit(self.config.data_length, max_datagram)
            .map_or(0, |earlier| earlier.min(self.config.redundancy));
    }

    /// A frame of the provider; appends the datagram to send. `false` if the frame is none to be
    /// sent.
    pub fn handle_frame(&mut self, now: Instant, frame: &Frame<'_>, out: &mut Vec<u8>) -> bool {
        if frame.data.len() != usize::from(self.config.data_length) {
            self.stats.wrong_length += 1;
            return false;
        }
        if earlier_that_fit(self.config.data_length, self.config.max_datagram).is_none() {
            self.stats.too_long += 1;
            return false;
        }
        let sequence = match &self.newest {
            None => self.config.first_sequence,
            Some(last) if is_newer(last.cycle_counter, frame.cycle_counter) => {
                let ahead = frame.cycle_counter.wrapping_sub(last.cycle_counter);
                let silence = now.saturating_duration_since(last.at);
                let cycles = cycles(ahead, silence, self.config.counter_step);
                if silence >= WRAP {
                    self.history.clear();
                }
                self.stats.missed_cycles += u64::from(cycles) - 1;
                last.sequence.wrapping_add(cycles)
            }
            Some(_) => {
                self.stats.not_newer += 1;
                return false;
            }
        };
        let sent = Sent {
            at: now,
            sequence,
            tag: frame.tag,
            cycle_counter: frame.cycle_counter,
            data_status: frame.data_status,
        };
        let start = out.len();
        self.write(now, sent, frame, out);
        self.newest = Some(sent);
        self.keep(sent, frame.data);
        self.stats.datagrams += 1;
        self.stats.octets += (out.len() - start) as u64;
        true
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn write(&self, now: Instant, newest: Sent, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let spread = usize::from(self.config.spread);
        let earlier = self
            .history
            .iter()
            .skip(spread - 1)
            .step_by(spread)
            .take(usize::from(self.stats.redundancy))
            .map(|(sent, data)| (newest.sequence.wrapping_sub(sent.sequence), sent, data))
            .take_while(|(age, ..)| *age <= MAX_AGE);
        let header = Header {
            stream: self.config.stream,
            sequence: newest.sequence,
            // Wraps by design.
            sent: now.saturating_duration_since(self.epoch).as_micros() as u32,
            count: 1 + earlier.clone().count() as u8,
        };
        header.write(out);
        frame.write(0, out);
        for (age, sent, data) in earlier {
            let frame = Frame {
                tag: sent.tag,
                cycle_counter: sent.cycle_counter,
                data_status: sent.data_status,
                data,
            };
            // At most MAX_AGE.
            frame.write(age as u8, out);
        }
    }

    /// Remembers a frame for later datagrams, in the buffer of the one that is forgotten.
    fn keep(&mut self, sent: Sent, data: &[u8]) {
        let room = usize::from(self.config.redundancy) * usize::from(self.config.spread);
        if room == 0 {
            return;
        }
        let mut buffer = match self.history.len() < room {
            true => Vec::new(),
            false => self
                .history
                .pop_back()
                .map(|(_, data)| data)
                .unwrap_or_default(),
        };
        buffer.clear();
        buffer.extend_from_slice(data);
        self.history.push_front((sent, buffer));
    }
}

/// How many cycles a counter that advanced by `ahead`, and in a long silence wrapped, stands for:
/// at least one, to the nearest.
fn cycles(ahead: u16, silence: Duration, step: u16) -> u32 {
    let (ahead, step, wrap) = (u128::from(ahead), u128::from(step), WRAP.as_nanos());
    let since_wrap = wrap * ahead / 65_536;
    let wraps = (silence.as_nanos().saturating_sub(since_wrap) + wrap / 2) / wrap;
    let cycles = (wraps * 65_536 + ahead + step / 2) / step;
    u32::try_from(cycles).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wrapped_in_a_silence_stands_for_all_its_cycles() {
        for (ahead, silence, step, expected) in [
            (1_024, 32, 1_024, 1),
            (1_024, 500, 1_024, 1),
            (1_030, 32, 1_024, 1),
            (1, 32, 1_024, 1),
            (61_440, 1_920, 1_024, 60),
            (1_024, 2_080, 1_024, 65),
            (1_024, 3_000, 1_024, 65),
            (2_048, 20_544, 1_024, 642),
            (32, 1, 32, 1),
        ] {
            let silence = Duration::from_millis(silence);
            assert_eq!(
                cycles(ahead, silence, step),
                expected,
                "{ahead} {silence:?}"
            );
        }
    }
}
