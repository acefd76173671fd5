//! One direction of an AR: a provider, whoever carries, a consumer with its watchdog.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::cadence::{
    ConfigError, Frame, Hold, Receiver, ReceiverConfig, Sender, SenderConfig, Stream,
};
use fieldlock_profinet::FrameId;
use fieldlock_profinet::cyclic::{DataStatus, is_newer};
use fieldlock_testkit::link::{Decision, Link};
use hdrhistogram::Histogram;

use crate::plan::{Contender, Network, Timing};

/// C_SDU: a small device.
const DATA_LENGTH: u16 = 40;
/// Of Ethernet, IPv4, UDP, QUIC's short header with an 8-octet id, its datagram frame, and its
/// tag, around each datagram.
const OVERHEAD: usize = 14 + 20 + 8 + 11 + 3 + 16;
/// A frame of the bare wire: header, tag, FrameID, data, trailer.
const BARE: usize = 14 + 4 + 2 + DATA_LENGTH as usize + 4;
/// Without a first frame for so long an AR does not come to be.
const FIRST: Duration = Duration::from_secs(2);

/// What an hour or less of one direction came to.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Of data when the consumer accepts it, repeated or not, in microseconds.
    pub(crate) ages: Histogram<u64>,
    pub(crate) frames: u64,
    pub(crate) octets: u64,
    pub(crate) accepted: u64,
    pub(crate) held: u64,
    pub(crate) longest_hold: Duration,
    pub(crate) repaired: u64,
}

/// What carries the frames of one AR.
enum Carrier {
    Bare,
    Fieldlock(Box<(Sender, Receiver)>),
}

pub(crate) struct Half {
    contender: Contender,
    timing: Timing,
    network: Network,
    link: Link,
    carrier: Carrier,
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    /// When the provider sends next.
    next: Option<Instant>,
    counter: u16,
    start: Instant,
    /// Of the frame that was accepted last, and when it was sent.
    accepted: Option<(u16, Instant)>,
    deadline: Instant,
    pub(crate) tally: Tally,
}

/// What woke a direction.
pub(crate) enum Woken {
    Fine,
    /// The consumer's watchdog expired.
    Expired,
}

impl Half {
    pub(crate) fn new(
        contender: Contender,
        timing: Timing,
        network: Network,
        link: Link,
        start: Instant,
    ) -> Result<Self, String> {
        let minute = 60_000_000;
        let ages = Histogram::new_with_bounds(1, minute, 3).map_err(|error| error.to_string())?;
        let mut half = Self {
            carrier: Carrier::Bare,
            contender,
            timing,
            network,
            link,
            on_the_way: VecDeque::new(),
            spare: Vec::new(),
            next: None,
            counter: 0,
            start,
            accepted: None,
            deadline: start,
            tally: Tally {
                ages,
                frames: 0,
                octets: 0,
                accepted: 0,
                held: 0,
                longest_hold: Duration::ZERO,
                repaired: 0,
            },
        };
        half.connect(start, 0).map_err(|error| error.to_string())?;
        Ok(half)
    }

    /// An AR begins, its provider a part of a cycle later.
    pub(crate) fn connect(&mut self, now: Instant, phase: u32) -> Result<(), ConfigError> {
        self.disconnect();
        self.carrier = match self.contender {
            Contender::Bare => Carrier::Bare,
            Contender::Fieldlock { redundancy, .. } => Carrier::Fieldlock(Box::new((
                self.sender(redundancy, now),
                self.receiver(now)?,
            ))),
        };
        self.next = Some(now + self.timing.cycle * (phase % 16) / 16);
        self.deadline = now + FIRST;
        Ok(())
    }

    /// The AR has ended: nothing of it counts any more.
    pub(crate) fn disconnect(&mut self) {
        if let Carrier::Fieldlock(ends) = &self.carrier {
            let stats = ends.1.stats();
            self.tally.longest_hold = self.tally.longest_hold.max(stats.longest_hold);
            self.tally.repaired += stats.repaired;
        }
        self.carrier = Carrier::Bare;
        self.on_the_way.clear();
        self.next = None;
        self.accepted = None;
    }

    /// The provider is gone, what is on the way still arrives.
    pub(crate) fn kill_provider(&mut self) {
        self.next = None;
    }

    /// When the last data that the consumer accepted was sent.
    pub(crate) fn last_fresh(&self) -> Option<Instant> {
        self.accepted.map(|(_, sent)| sent)
    }

    pub(crate) fn wakes(&self) -> Instant {
        let arrival = self.on_the_way.front().map(|(at, _)| *at);
        let timeout = match &self.carrier {
            Carrier::Bare => None,
            Carrier::Fieldlock(ends) => ends.1.poll_timeout(),
        };
        // A frame at the very end of the watchdog's time is in time.
        let late = self.deadline + Duration::from_nanos(1);
        let events = [self.next, arrival, timeout].into_iter().flatten();
        events.fold(late, Instant::min)
    }

    pub(crate) fn wake(&mut self, now: Instant) -> Woken {
        while let Some((_, bytes)) = self.on_the_way.pop_front_if(|(at, _)| *at <= now) {
            self.arrive(now, &bytes);
            self.spare.push(bytes);
        }
        if self.next.is_some_and(|at| at <= now) {
            self.provide(now);
        }
        self.give(now);
        match now > self.deadline {
            true => Woken::Expired,
            false => Woken::Fine,
        }
    }

    fn provide(&mut self, now: Instant) {
        self.next = self.next.map(|at| at + self.timing.cycle);
        self.counter = self.counter.wrapping_add(self.timing.counter_step());
        let mut data = [0x80; DATA_LENGTH as usize];
        let sent = now.duration_since(self.start).as_nanos() as u64;
        if let Some(stamp) = data.first_chunk_mut() {
            *stamp = sent.to_be_bytes();
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        let length = match &mut self.carrier {
            Carrier::Bare => {
                bytes.extend_from_slice(&self.counter.to_be_bytes());
                bytes.extend_from_slice(&data);
                BARE
            }
            Carrier::Fieldlock(ends) => {
                let frame = Frame {
                    tag: None,
                    cycle_counter: self.counter,
                    data_status: DataStatus::GOOD,
                    data: &data,
                };
                if !ends.0.handle_frame(now, &frame, &mut bytes) {
                    return;
                }
                bytes.len() + OVERHEAD
            }
        };
        self.tally.frames += 1;
        self.tally.octets += length as u64;
        match self.link.handle(now, length) {
            Decision::Drop(_) => self.spare.push(bytes),
            Decision::Deliver(delivery) => self.on_the_way.push_back((delivery.at, bytes)),
        }
    }

    fn arrive(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.carrier {
            Carrier::Bare => {
                if let Some((counter, data)) = bytes.split_first_chunk() {
                    self.accept(now, u16::from_be_bytes(*counter), stamp(data), false);
                }
            }
            // What is refused is missing, which is what counts here.
            Carrier::Fieldlock(ends) => drop(ends.1.handle_datagram(now, bytes)),
        }
    }

    fn give(&mut self, now: Instant) {
        loop {
            let Carrier::Fieldlock(ends) = &mut self.carrier else {
                return;
            };
            let Some(emit) = ends.1.poll_frame(now) else {
                return;
            };
            let (counter, sent) = (emit.frame.cycle_counter, stamp(emit.frame.data));
            let held = emit.held;
            self.accept(now, counter, sent, held);
        }
    }

    fn accept(&mut self, now: Instant, counter: u16, sent: Duration, held: bool) {
        let sent = self.start + sent;
        let newer = self
            .accepted
            .is_none_or(|(last, _)| is_newer(last, counter));
        if !newer || now > self.deadline {
            return;
        }
        self.accepted = Some((counter, sent));
        self.deadline = now + self.timing.watchdog();
        self.tally.accepted += 1;
        self.tally.held += u64::from(held);
        let age = now.saturating_duration_since(sent).as_micros() as u64;
        self.tally.ages.saturating_record(age);
    }

    fn sender(&self, redundancy: u8, now: Instant) -> Sender {
        let config = SenderConfig {
            stream: STREAM,
            data_length: DATA_LENGTH,
            counter_step: self.timing.counter_step(),
            redundancy,
            spread: 1,
            max_datagram: 1_150,
            first_sequence: 0,
        };
        Sender::new(config, now)
    }

    fn receiver(&self, now: Instant) -> Result<Receiver, ConfigError> {
        let age_limit = self.contender.age_limit(self.timing, &self.network);
        let config = ReceiverConfig {
            stream: STREAM,
            data_length: DATA_LENGTH,
            cycle: self.timing.cycle,
            watchdog: self.timing.watchdog(),
            play_out: self.contender.play_out(self.timing, &self.network),
            hold: age_limit.map(|age_limit| Hold {
                age_limit,
                fail_safe_limit: age_limit + self.timing.watchdog(),
            }),
        };
        let mut receiver = Receiver::new(config, now)?;
        receiver.set_round_trip(2 * self.network.longest_way());
        Ok(receiver)
    }
}

const STREAM: Stream = Stream {
    channel: 1,
    ar: 1,
    frame_id: FrameId(0x8001),
};

/// When data was sent, since the start.
fn stamp(data: &[u8]) -> Duration {
    let nanos = data
        .first_chunk()
        .map_or(0, |stamp| u64::from_be_bytes(*stamp));
    Duration::from_nanos(nanos)
}
