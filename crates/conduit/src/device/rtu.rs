//! A serial line: when it may be used, and where an answer ends.

use std::time::{Duration, Instant};

use fieldlock_modbus::Quirks;
use fieldlock_modbus::rtu::{self, BROADCAST, MAX_ADU};

use super::fault::{Fault, What};
use super::prelude::{Heard, Repetition, hear};
use super::settings::Framing;

/// What was received since the request in flight was sent, and the times that count.
#[derive(Debug)]
pub(super) struct Line {
    baud: u32,
    char_time: Duration,
    silent_interval: Duration,
    frame_gap: Duration,
    turnaround: Duration,
    bear: Quirks,
    /// The request in flight, whole, and when its first byte left at the earliest.
    sent: Vec<u8>,
    sent_at: Option<Instant>,
    received: Vec<u8>,
    /// Its bytes came back before a device could have answered.
    came_back_early: bool,
    /// The last that came back was an echo: until a device answers without one.
    echoes: bool,
    /// When silence ends the answer that is being received.
    gap_at: Option<Instant>,
    /// When the broadcast in flight has been digested.
    broadcast_until: Option<Instant>,
}

impl Line {
    /// `None` unless the framing is that of a serial line.
    pub(super) fn new(framing: Framing, bear: Quirks) -> Option<Self> {
        match framing {
            Framing::Tcp => None,
            Framing::Rtu {
                baud,
                frame_gap,
                turnaround,
            } => Some(Self {
                baud,
                char_time: rtu::char_time(baud),
                silent_interval: rtu::silent_interval(baud),
                frame_gap,
                turnaround,
                bear,
                sent: Vec::new(),
                sent_at: None,
                received: Vec::new(),
                came_back_early: false,
                echoes: false,
                gap_at: None,
                broadcast_until: None,
            }),
        }
    }

    pub(super) fn clear(&mut self) {
        self.received.clear();
        self.came_back_early = false;
        self.gap_at = None;
        self.broadcast_until = None;
    }

    /// Appends the frame. `now` is when its first byte leaves.
    pub(super) fn send(&mut self, now: Instant, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        rtu::encode(out, unit, pdu);
        self.clear();
        self.sent.clear();
        self.sent.extend_from_slice(&out[before..]);
        self.sent_at = Some(now);
        if unit == BROADCAST {
            let sent = now + self.char_time * (out.len() - before) as u32;
            self.broadcast_until = Some(sent + self.turnaround);
        }
    }

    /// Adds bytes to the answer in progress. More than an echo and the longest frame behind a 0x00
    /// is not kept. `repeatable`: a device may answer the request in flight by repeating it.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        repeatable: bool,
    ) -> Result<Heard<'_>, Fault> {
        let longest = self.sent.len() + 1 + MAX_ADU;
        let room = (longest + 1).saturating_sub(self.received.len());
        self.received
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.sent_at.is_some_and(|at| now < at + self.least_time()) {
            self.came_back_early |= self.received.starts_with(&self.sent);
        }
        self.judge(Some(now), repeatable)
    }

    /// The line was quiet until [`Line::gap_at`].
    pub(super) fn silent(&mut self, repeatable: bool) -> Result<Heard<'_>, Fault> {
        self.judge(None, repeatable)
    }

    /// In this time the request has left at the earliest, and an answer of its length come.
    fn least_time(&self) -> Duration {
        rtu::least_time(self.baud, 2 * self.sent.len())
    }

    /// `heard_at`: when the last byte came; `None` once the line has been quiet since.
    fn judge(&mut self, heard_at: Option<Instant>, repeatable: bool) -> Result<Heard<'_>, Fault> {
        let repetition = match repeatable && !self.came_back_early && !self.echoes {
            true => Repetition::Answer,
            false => Repetition::Echo,
        };
        let silent = heard_at.is_none();
        let heard = hear(&self.sent, &self.received, silent, repetition, self.bear);
        self.gap_at = heard_at
            .filter(|_| heard == Ok(Heard::UntilSilence))
            .map(|at| at + self.frame_gap);
        match heard {
            Err(fault) if fault.what == What::Echo => self.echoes = true,
            Ok(Heard::Frame { .. }) if !self.received.starts_with(&self.sent) => {
                self.echoes = false;
            }
            _ => {}
        }
        heard
    }

    pub(super) fn gap_at(&self) -> Option<Instant> {
        self.gap_at
    }

    pub(super) fn broadcast_until(&self) -> Option<Instant> {
        self.broadcast_until
    }

    /// How long the line must be quiet before the next request: after an answer.
    pub(super) fn quiet_after_answer(&self) -> Duration {
        self.silent_interval
    }

    /// The same after bytes that nobody asked for.
    pub(super) fn quiet_after_noise(&self) -> Duration {
        self.silent_interval.max(self.frame_gap)
    }

    /// The same after a request that had no or a wrong answer: there are no transaction ids,
    /// and an answer that comes late would be taken for that of the next request.
    pub(super) fn quiet_after_loss(&self) -> Duration {
        self.quiet_after_noise().max(self.turnaround)
    }
}
