//! A provider, a sender, a bad way and a receiver in virtual time.

mod hold;
mod invariants;
mod play_out;
mod sending;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fieldlock_profinet::cyclic::{DataStatus, is_newer};
use fieldlock_profinet::{FrameId, Tag};

use super::*;

const STREAM: Stream = Stream {
    channel: 2,
    ar: 7,
    frame_id: FrameId(0x8001),
};
const LENGTH: u16 = 12;
const STEP: u16 = 1_024;
const CYCLE: Duration = Duration::from_millis(32);
const RUN: DataStatus = DataStatus::GOOD;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sender_config() -> SenderConfig {
    SenderConfig {
        stream: STREAM,
        data_length: LENGTH,
        counter_step: STEP,
        redundancy: 2,
        spread: 1,
        max_datagram: 1_150,
        first_sequence: 1_000,
    }
}

fn receiver_config() -> ReceiverConfig {
    ReceiverConfig {
        stream: STREAM,
        data_length: LENGTH,
        cycle: CYCLE,
        watchdog: 3 * CYCLE,
        play_out: None,
        hold: None,
    }
}

fn hold(age_limit: u64) -> Option<Hold> {
    Some(Hold {
        age_limit: millis(age_limit),
        fail_safe_limit: millis(4_000),
    })
}

/// What a frame of this number says; its octets are all derived from the number.
fn data(number: u32) -> [u8; LENGTH as usize] {
    let mut data = [0x80; LENGTH as usize];
    data[..4].copy_from_slice(&number.to_be_bytes());
    data[4] = (number * 7) as u8;
    data
}

/// A frame that the receiver gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    /// Since the start.
    at: Duration,
    number: u32,
    cycle_counter: u16,
    data_status: DataStatus,
    tag: Option<Tag>,
    held: bool,
}

/// What happens to a datagram: the delays of its copies; none, and it is lost.
type Fate = Vec<Duration>;

struct World {
    start: Instant,
    now: Duration,
    /// By how much the sender's clock is faster, in millionths.
    drift: i64,
    sender: Sender,
    receiver: Receiver,
    /// By time of arrival, in order of sending.
    on_the_way: BTreeMap<(Duration, u64), Vec<u8>>,
    sent: u64,
    given: Vec<Given>,
}

impl World {
    fn new(sender: SenderConfig, receiver: ReceiverConfig) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: Duration::ZERO,
            drift: 0,
            sender: Sender::new(sender, start),
            receiver: Receiver::new(receiver, start).unwrap(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            given: Vec::new(),
        }
    }

    /// The provider sends its frame of this number, now.
    fn provide(&mut self, number: u32, data_status: DataStatus, fate: &[Duration]) {
        let data = data(number);
        let frame = Frame {
            tag: Some(Tag::priority_only(6)),
            cycle_counter: (number as u16).wrapping_mul(STEP),
            data_status,
            data: &data,
        };
        let shown = self.start + drifted(self.now, self.drift);
        let mut datagram = Vec::new();
        if !self.sender.handle_frame(shown, &frame, &mut datagram) {
            return;
        }
        for delay in fate {
            self.on_the_way
                .insert((self.now + *delay, self.sent), datagram.clone());
            self.sent += 1;
        }
    }

    /// Lets time pass, with whatever arrives and leaves.
    fn until(&mut self, end: Duration) {
        loop {
            self.poll();
            let arrival = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
            let timeout = self
                .receiver
                .poll_timeout()
                .map(|at| at.saturating_duration_since(self.start));
            let next = arrival.into_iter().chain(timeout).min();
            let Some(next) = next.filter(|next| *next < end) else {
                break;
            };
            assert!(
                next > self.now || arrival == Some(next),
                "time stands still at {next:?}"
            );
            self.now = next.max(self.now);
            if arrival == Some(next)
                && let Some((_, datagram)) = self.on_the_way.pop_first()
            {
                self.receiver
                    .handle_datagram(self.start + self.now, &datagram)
                    .unwrap();
            }
        }
        self.now = end;
    }

    fn poll(&mut self) {
        let at = self.now;
        while let Some(Emit { frame, held }) = self.receiver.poll_frame(self.start + at) {
            let number = u32::from_be_bytes(*frame.data.first_chunk().unwrap());
            assert_eq!(frame.data, data(number), "data is as it was sent");
            self.given.push(Given {
                at,
                number,
                cycle_counter: frame.cycle_counter,
                data_status: frame.data_status,
                tag: frame.tag,
                held,
            });
        }
    }

    /// Frames of these numbers, a cycle apart, and a cycle after the last.
    fn run(&mut self, numbers: std::ops::Range<u32>, mut fate: impl FnMut(u32) -> Fate) {
        let start = self.now;
        for number in numbers.clone() {
            self.until(start + CYCLE * (number - numbers.start));
            self.provide(number, RUN, &fate(number));
        }
        self.until(start + CYCLE * (numbers.end - numbers.start));
    }

    fn numbers(&self) -> Vec<u32> {
        self.given.iter().map(|given| given.number).collect()
    }

    fn gaps(&self) -> Vec<Duration> {
        let times = self.given.windows(2);
        times.map(|pair| pair[1].at - pair[0].at).collect()
    }
}

/// What a clock shows that is faster by some millionths.
fn drifted(at: Duration, millionths: i64) -> Duration {
    let nanos = at.as_nanos() as i64;
    Duration::from_nanos((nanos + nanos / 1_000_000 * millionths) as u64)
}

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
