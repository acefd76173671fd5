//! Both sides of a remote procedure call: asking until an answer comes, answering once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lan::{Peer, udp};
use super::outbox::Outbox;
use super::rpc::{Broken, Head, Kind, Packet, Reassembly, Uuid, packets, response_body};

/// How often and how long a caller asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) retry: Duration,
    pub(super) tries: u32,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Call {
    head: Head,
    packets: Vec<Vec<u8>>,
    from: Peer,
    to: Peer,
    patience: Patience,
    tries_left: u32,
    deadline: Instant,
    answer: Reassembly,
}

/// Nobody answered any of the tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

impl Call {
    /// Sends the request; `body` begins with the NDR head.
    pub(super) fn start(
        now: Instant,
        head: Head,
        (from, to): (Peer, Peer),
        body: &[u8],
        patience: Patience,
        out: &mut Outbox,
    ) -> Self {
        let packets = packets(&head, body);
        let call = Self {
            head,
            packets,
            from,
            to,
            patience,
            tries_left: patience.tries.saturating_sub(1),
            deadline: now + patience.retry,
            answer: Reassembly::default(),
        };
        call.transmit(out);
        call
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The complete body when `packet` is the last piece of the answer.
    pub(super) fn handle_response(&mut self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let head = &packet.head;
        if (head.activity, head.sequence) != (self.head.activity, self.head.sequence) {
            return None;
        }
        self.answer.push(packet).unwrap_or_else(|Broken| {
            self.answer = Reassembly::default();
            None
        })
    }

    /// True when the request was sent again.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<bool, NoAnswer> {
        if self.deadline > now {
            return Ok(false);
        }
        self.tries_left = self.tries_left.checked_sub(1).ok_or(NoAnswer)?;
        self.deadline = now + self.patience.retry;
        self.transmit(out);
        Ok(true)
    }

    fn transmit(&self, out: &mut Outbox) {
        for packet in &self.packets {
            out.push(|out| udp(out, self.from, self.to, packet));
        }
    }
}

/// Remembers what was answered, so that a repeated request gets the same answer and changes
/// nothing a second time.
#[derive(Debug, Default)]
pub(super) struct Server {
    answers: VecDeque<Answer>,
    partial: VecDeque<((Uuid, u32), Reassembly)>,
}

#[derive(Debug)]
struct Answer {
    call: (Uuid, u32),
    packets: Vec<Vec<u8>>,
}

impl Server {
    const ANSWERS: usize = 16;
    const PARTIAL: usize = 8;

    /// The body of a request that is complete and has not been answered. A repeated one is
    /// answered here; a fragment whose sender asks for it is acknowledged here.
    pub(super) fn handle_request(
        &mut self,
        packet: &Packet<'_>,
        (from, to): (Peer, Peer),
        out: &mut Outbox,
    ) -> Option<Vec<u8>> {
        let call = (packet.head.activity, packet.head.sequence);
        if let Some(answer) = self.answers.iter().find(|answer| answer.call == call) {
            if !packet.is_fragment() || packet.is_last() {
                for packet in &answer.packets {
                    out.push(|out| udp(out, from, to, packet));
                }
            }
            return None;
        }
        if packet.is_fragment() && packet.wants_fack() {
            let fack = Head {
                kind: Kind::Fack,
                ..packet.head
            };
            for packet in packets(&fack, &[]) {
                out.push(|out| udp(out, from, to, &packet));
            }
        }
        let at = match self.partial.iter().position(|(of, _)| *of == call) {
            Some(at) => at,
            None => {
                if self.partial.len() >= Self::PARTIAL {
                    self.partial.pop_front();
                }
                self.partial.push_back((call, Reassembly::default()));
                self.partial.len() - 1
            }
        };
        let (_, reassembly) = self.partial.get_mut(at)?;
        let body = reassembly.push(packet);
        if !matches!(body, Ok(None)) {
            self.partial.remove(at);
        }
        body.ok().flatten()
    }

    /// Answers `packet` with a PNIOStatus and blocks, and remembers it.
    pub(super) fn answer(
        &mut self,
        packet: &Packet<'_>,
        (from, to): (Peer, Peer),
        boot: u32,
        (status, blocks): (u32, &[u8]),
        out: &mut Outbox,
    ) {
        let head = Head {
            kind: Kind::Response,
            boot,
            ..packet.head
        };
        let packets = packets(&head, &response_body(head.order, status, blocks));
        for packet in &packets {
            out.push(|out| udp(out, from, to, packet));
        }
        if self.answers.len() >= Self::ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(Answer {
            call: (packet.head.activity, packet.head.sequence),
            packets,
        });
    }
}
