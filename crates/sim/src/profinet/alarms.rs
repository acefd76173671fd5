//! The acknowledged transport of alarms (RTA class 1) of one AR and one priority, and the
//! ERR-RTA-PDU that ends an AR.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;

use super::lan::{PROFINET, begin_tagged, end, put16};
use super::outbox::Outbox;

const HIGH: u16 = 0xfc01;
const LOW: u16 = 0xfe01;
const VERSION: u8 = 0x10;
const WINDOW: u8 = 0x01;
const TACK: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data = 1,
    Ack = 3,
    Error = 4,
}

/// Where alarms of an AR go, and how they are tagged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) local: Mac,
    pub(super) remote: Mac,
    pub(super) local_reference: u16,
    pub(super) remote_reference: u16,
    /// 802.1Q tags of high and low priority; `None` sends without.
    pub(super) tags: Option<[u16; 2]>,
}

/// One direction pair of acknowledged PDUs. At most one is unacknowledged (window 1), at most
/// [`Channel::WAITING`] wait behind it.
#[derive(Debug)]
pub(super) struct Channel {
    high: bool,
    endpoint: Endpoint,
    timeout: Duration,
    retries: u16,
    send: u16,
    received: u16,
    unacknowledged: Option<Unacknowledged>,
    waiting: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Unacknowledged {
    data: Vec<u8>,
    deadline: Instant,
    retries_left: u16,
}

/// Nobody acknowledged in time, or too much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Channel {
    const WAITING: usize = 8;

    /// `timeout` is RTATimeoutFactor x 100 ms.
    pub(super) fn new(high: bool, endpoint: Endpoint, timeout: Duration, retries: u16) -> Self {
        Self {
            high,
            endpoint,
            timeout,
            retries,
            send: 0xffff,
            received: 0xfffe,
            unacknowledged: None,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        data: Vec<u8>,
        out: &mut Outbox,
    ) -> Result<(), Failed> {
        if self.unacknowledged.is_some() {
            if self.waiting.len() >= Self::WAITING {
                return Err(Failed);
            }
            self.waiting.push_back(data);
            return Ok(());
        }
        self.put(out, Kind::Data, &data);
        self.unacknowledged = Some(Unacknowledged {
            data,
            deadline: now + self.timeout,
            retries_left: self.retries,
        });
        Ok(())
    }

    /// An acknowledgement, alone or with data.
    pub(super) fn handle_ack(&mut self, now: Instant, acknowledged: u16, out: &mut Outbox) {
        if self.unacknowledged.is_some() && acknowledged == self.send {
            self.unacknowledged = None;
            self.send = following(self.send);
            if let Some(next) = self.waiting.pop_front() {
                // Nothing is unacknowledged, so there is room.
                let _ = self.send(now, next, out);
            }
        }
    }

    /// Data with this sequence number: true when it is new. It is acknowledged in any case.
    pub(super) fn handle_data(&mut self, sequence: u16, out: &mut Outbox) -> bool {
        let new = sequence == following(self.received);
        if new {
            self.received = sequence;
        }
        if sequence == self.received {
            self.put(out, Kind::Ack, &[]);
        }
        new
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unacknowledged.as_ref().map(|pdu| pdu.deadline)
    }

    /// True when something was sent again.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<bool, Failed> {
        let timeout = self.timeout;
        let Some(pdu) = self.unacknowledged.take_if(|pdu| pdu.deadline <= now) else {
            return Ok(false);
        };
        if pdu.retries_left == 0 {
            return Err(Failed);
        }
        self.put(out, Kind::Data, &pdu.data);
        self.unacknowledged = Some(Unacknowledged {
            deadline: now + timeout,
            retries_left: pdu.retries_left - 1,
            ..pdu
        });
        Ok(true)
    }

    fn put(&self, out: &mut Outbox, kind: Kind, data: &[u8]) {
        let counters = (self.send, self.received);
        put(out, self.high, &self.endpoint, kind, counters, data);
    }
}

/// The number after `sequence`: 0xFFFE, 0xFFFF begin a channel, then 0 to 0x7FFF.
fn following(sequence: u16) -> u16 {
    match sequence {
        0xfffe => 0xffff,
        sequence => sequence.wrapping_add(1) & 0x7fff,
    }
}

/// Ends an AR: ERR-RTA-PDU with a PNIOStatus, low priority.
pub(super) fn abort(out: &mut Outbox, endpoint: &Endpoint, status: u32) {
    let status = status.to_be_bytes();
    put(out, false, endpoint, Kind::Error, (0xffff, 0xfffe), &status);
}

fn put(
    out: &mut Outbox,
    high: bool,
    endpoint: &Endpoint,
    kind: Kind,
    (send, received): (u16, u16),
    data: &[u8],
) {
    out.push(|out| {
        let tag = endpoint
            .tags
            .map(|[of_high, of_low]| if high { of_high } else { of_low });
        begin_tagged(out, endpoint.remote, endpoint.local, tag, PROFINET);
        put16(out, if high { HIGH } else { LOW });
        put16(out, endpoint.remote_reference);
        put16(out, endpoint.local_reference);
        out.push(VERSION | kind as u8);
        out.push(WINDOW | if kind == Kind::Data { TACK } else { 0 });
        put16(out, send);
        put16(out, received);
        put16(out, data.len() as u16);
        out.extend_from_slice(data);
        end(out);
    });
}

/// PNIOStatus of the class "RTA protocol".
pub(super) const fn rta_error(code: u8) -> u32 {
    0xcf81_fd00 | code as u32
}
