//! A serial line: when it may be used, and where an answer ends.

use std::time::{Duration, Instant};

use fieldlock_modbus::rtu::{self, BROADCAST, MAX_ADU, Progress, RtuError};

use super::settings::Framing;

/// What was received since the request in flight was sent, and the times that count.
#[derive(Debug)]
pub(super) struct Line {
    char_time: Duration,
    silent_interval: Duration,
    frame_gap: Duration,
    turnaround: Duration,
    received: Vec<u8>,
    /// When silence ends the answer that is being received.
    gap_at: Option<Instant>,
    /// When the broadcast in flight has been digested.
    broadcast_until: Option<Instant>,
}

impl Line {
    /// `None` unless the framing is that of a serial line.
    pub(super) fn new(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Tcp => None,
            Framing::Rtu {
                baud,
                frame_gap,
                turnaround,
            } => Some(Self {
                char_time: rtu::char_time(baud),
                silent_interval: rtu::silent_interval(baud),
                frame_gap,
                turnaround,
                received: Vec::new(),
                gap_at: None,
                broadcast_until: None,
            }),
        }
    }

    pub(super) fn clear(&mut self) {
        self.received.clear();
        self.gap_at = None;
        self.broadcast_until = None;
    }

    /// Appends the frame. `now` is when its first byte leaves.
    pub(super) fn send(&mut self, now: Instant, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        rtu::encode(out, unit, pdu);
        self.clear();
        if unit == BROADCAST {
            let sent = now + self.char_time * (out.len() - before) as u32;
            self.broadcast_until = Some(sent + self.turnaround);
        }
    }

    /// Adds bytes to the answer in progress: the unit and PDU once it is complete. More than
    /// the longest frame is not kept.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<(u8, &[u8])>, RtuError> {
        let room = (MAX_ADU + 1).saturating_sub(self.received.len());
        self.received
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        let progress = rtu::decode_answer(&self.received, false)?;
        self.gap_at = match progress {
            Progress::UntilSilence => Some(now + self.frame_gap),
            _ => None,
        };
        Ok(complete(progress))
    }

    /// The line was quiet until [`Line::gap_at`].
    pub(super) fn silent(&mut self) -> Result<Option<(u8, &[u8])>, RtuError> {
        self.gap_at = None;
        rtu::decode_answer(&self.received, true).map(complete)
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

fn complete(progress: Progress<'_>) -> Option<(u8, &[u8])> {
    match progress {
        Progress::Frame { unit, pdu } => Some((unit, pdu)),
        Progress::NeedMore { .. } | Progress::UntilSilence => None,
    }
}
