//! RPC calls between two stations, followed by their activity.
//!
//! The UDP ports alone say little: an answer may come from a port that nobody has heard of, and a
//! device asks the controller from yet another one. What holds a call together is its activity
//! UUID. So a datagram passes if it begins a call to the port of connection management (or one
//! from which the other side has answered before), or belongs to a call that is under way.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::ar::{End, Pair};
use crate::fragments::{FragmentError, Reassembly};
use crate::rpc::{PacketType, Rpc, Uuid};

/// UDP port of PROFINET connection management.
pub const PNIO_CM_PORT: u16 = 34964;

/// How long a call is remembered after its last datagram. Controllers repeat an unanswered request
/// for some seconds; a repeated one begins anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls of one pair of stations at a time, either way: of each of its ARs a few. Each keeps up to 128 KiB while it is in
/// pieces, some 200 octets otherwise.
const MAX_OF_PAIR: usize = 128;
/// Calls of one pair in pieces at a time.
const MAX_IN_PIECES: usize = 4;
/// Likewise of all pairs together: 8 MiB.
const MAX_IN_PIECES_OF_ALL: usize = 64;
/// Calls of all pairs together.
const MAX: usize = 1024;
/// Ports from which one station of a pair has answered and that are remembered.
const MAX_PORTS: usize = 8;

/// Why a datagram belongs to no call that may be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("UDP port {0} is not one of PROFINET connection management between the two stations")]
    Port(u16),
    #[error("answer to a call that was not made")]
    NoCall,
    #[error("piece of a request that can't be judged as a whole any more")]
    Torn,
    #[error("too many calls are under way")]
    TooMany,
    #[error("body of {0} octets in a packet that cancels a call")]
    Cancel(usize),
    #[error(transparent)]
    Fragment(#[from] FragmentError),
}

/// What a datagram is to its call.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The whole of a request or its last piece; with all its octets behind the RPC header.
    Request(&'a [u8]),
    /// Likewise of a response.
    Response(&'a [u8]),
    /// A piece that others will follow; it says nothing yet.
    Piece,
    /// Acknowledgement, ping, "working": carries no content.
    Signal,
    /// The call failed: fault or reject.
    Failure,
}

#[derive(Debug)]
struct Call {
    pair: Pair,
    activity: Uuid,
    sequence: u32,
    requester: End,
    /// From which the request came: answers go there.
    port: u16,
    opnum: u16,
    last: Instant,
    request: Option<Reassembly>,
    response: Option<Reassembly>,
    about: Option<Uuid>,
    /// The request was refused here, and has not been allowed since.
    refused: bool,
    /// Only a ping was heard: nobody here has judged the request, so no response to it passes.
    unseen: bool,
    /// The newest request of this activity of which pieces have passed and the whole has not. The
    /// other station may still have them, so others can't take their place.
    torn: Option<u32>,
}

impl Call {
    /// The request of which pieces have passed, but not the last one.
    fn in_part(&self) -> Option<u32> {
        let part = |request: &Reassembly| self.refused || !request.is_complete();
        let own = self.request.as_ref().is_some_and(part);
        if own { Some(self.sequence) } else { self.torn }
    }
}

/// Ports from which stations have answered.
#[derive(Debug)]
struct Ports {
    pair: Pair,
    end: End,
    known: Vec<u16>,
}

/// All calls that an agent follows. `now` never decreases.
#[derive(Debug, Default)]
pub struct Calls {
    calls: Vec<Call>,
    ports: Vec<Ports>,
}

impl Calls {
    /// Places one datagram from `from`, sent from UDP port `src` to `dst`. `body` is the room for
    /// what came in pieces.
    pub fn handle<'a>(
        &'a mut self,
        now: Instant,
        pair: Pair,
        from: End,
        (src, dst): (u16, u16),
        rpc: &Rpc<'a>,
    ) -> Result<Part<'a>, CallError> {
        match rpc.ptype {
            PacketType::Request => self.request(now, pair, from, (src, dst), rpc),
            PacketType::Response => self.response(now, pair, from, (src, dst), rpc),
            PacketType::Fault | PacketType::Reject => {
                self.answering(now, pair, from, (src, dst), rpc)?;
                Ok(Part::Failure)
            }
            PacketType::Working | PacketType::NoCall => {
                self.answering(now, pair, from, (src, dst), rpc)?;
                Ok(Part::Signal)
            }
            PacketType::CancelAck => {
                check_cancel(rpc)?;
                self.answering(now, pair, from, (src, dst), rpc)?;
                Ok(Part::Signal)
            }
            PacketType::Ping | PacketType::ClientCancel => {
                self.asking(now, pair, from, (src, dst), rpc)?;
                Ok(Part::Signal)
            }
            // Of the requester as of the other one: a long answer is acknowledged too.
            PacketType::Ack | PacketType::Fack => {
                let index = self.find(pair, &rpc.activity).ok_or(CallError::NoCall)?;
                let call = &self.calls[index];
                let right = match call.requester == from {
                    true => self.is_port_of(pair, from.other(), dst),
                    false => dst == call.port,
                };
                if !right {
                    return Err(CallError::Port(dst));
                }
                self.calls[index].last = now;
                Ok(Part::Signal)
            }
        }
    }

    /// What became of a call, or that it is to end. A ping may be the first that is heard of a call
    /// whose request was lost before it came here: who made it waits for the answer, "no call",
    /// before it asks again.
    fn asking(
        &mut self,
        now: Instant,
        pair: Pair,
        from: End,
        (src, dst): (u16, u16),
        rpc: &Rpc<'_>,
    ) -> Result<(), CallError> {
        if !self.is_port_of(pair, from.other(), dst) {
            return Err(CallError::Port(dst));
        }
        if rpc.ptype == PacketType::ClientCancel {
            check_cancel(rpc)?;
        }
        let known = self.find(pair, &rpc.activity);
        if let Some(index) = known {
            let call = &mut self.calls[index];
            if call.requester != from {
                return Err(CallError::NoCall);
            }
            if call.sequence == rpc.sequence {
                call.last = now;
                return Ok(());
            }
            if !is_after(call.sequence, rpc.sequence) {
                return Err(CallError::NoCall);
            }
        }
        if rpc.ptype == PacketType::ClientCancel {
            return Err(CallError::NoCall);
        }
        let index = self.enter(now, pair, from, src, rpc)?;
        self.calls[index].unseen = true;
        Ok(())
    }

    /// The AR that a call is about.
    pub fn about(&self, pair: Pair, activity: &Uuid) -> Option<Uuid> {
        self.calls[self.find(pair, activity)?].about
    }

    /// The request was allowed, also one that was refused before: `about` is the AR of its call.
    pub fn allow(&mut self, pair: Pair, activity: &Uuid, about: Option<Uuid>) {
        if let Some(index) = self.find(pair, activity) {
            self.calls[index].about = about;
            self.calls[index].refused = false;
        }
    }

    /// The request was refused: no piece of it passes any more, and no answer, until it is allowed.
    pub fn refuse(&mut self, pair: Pair, activity: &Uuid) {
        if let Some(index) = self.find(pair, activity) {
            self.calls[index].refused = true;
        }
    }

    /// Forgets what has been silent for long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over = |call: &Call| now.saturating_duration_since(call.last) >= PATIENCE;
        self.calls.retain(|call| !over(call));
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.calls.iter().map(|call| call.last + PATIENCE).min()
    }

    /// The two stations have nothing to do with each other any more.
    pub fn forget(&mut self, gone: impl Fn(Pair) -> bool) {
        self.calls.retain(|call| !gone(call.pair));
        self.ports.retain(|ports| !gone(ports.pair));
    }

    fn request<'a>(
        &'a mut self,
        now: Instant,
        pair: Pair,
        from: End,
        (src, dst): (u16, u16),
        rpc: &Rpc<'a>,
    ) -> Result<Part<'a>, CallError> {
        if !self.is_port_of(pair, from.other(), dst) {
            return Err(CallError::Port(dst));
        }
        let index = self.enter(now, pair, from, src, rpc)?;
        if rpc.is_fragment() {
            self.make_room(pair, index);
        }
        let call = &mut self.calls[index];
        call.unseen = false;
        if call.refused && rpc.is_fragment() && !rpc.is_last() {
            return Err(CallError::NoCall);
        }
        if rpc.is_fragment() && call.torn.is_some_and(|torn| !is_after(torn, rpc.sequence)) {
            return Err(CallError::Torn);
        }
        Ok(match pieces(&mut call.request, rpc)? {
            Some(body) => Part::Request(body),
            None => Part::Piece,
        })
    }

    /// The call of a request: known by its activity and sequence, or a new one.
    fn enter(
        &mut self,
        now: Instant,
        pair: Pair,
        from: End,
        src: u16,
        rpc: &Rpc<'_>,
    ) -> Result<usize, CallError> {
        let new = || Call {
            pair,
            activity: rpc.activity,
            sequence: rpc.sequence,
            requester: from,
            port: src,
            opnum: rpc.opnum,
            last: now,
            request: None,
            response: None,
            about: None,
            refused: false,
            unseen: false,
            torn: None,
        };
        if let Some(index) = self.find(pair, &rpc.activity) {
            let call = &mut self.calls[index];
            let same = call.sequence == rpc.sequence && call.requester == from;
            if !same || call.opnum != rpc.opnum {
                *call = Call {
                    torn: call.in_part(),
                    ..new()
                };
            }
            call.port = src;
            call.last = now;
            return Ok(index);
        }
        // The oldest that are over make room for others before anything is refused.
        let of_pair = self.calls.iter().filter(|call| call.pair == pair).count() >= MAX_OF_PAIR;
        if of_pair || self.calls.len() >= MAX {
            let calls = self.calls.iter().enumerate();
            let over = calls.filter(|(_, call)| {
                (!of_pair || call.pair == pair) && now > call.last && call.in_part().is_none()
            });
            let oldest = over.min_by_key(|(_, call)| call.last);
            let (index, _) = oldest.ok_or(CallError::TooMany)?;
            self.calls.swap_remove(index);
        }
        self.calls.push(new());
        Ok(self.calls.len() - 1)
    }

    /// A call in pieces displaces the oldest other one that is, of its pair or of all, when there
    /// are many.
    fn make_room(&mut self, pair: Pair, index: usize) {
        let in_pieces = |call: &Call| call.request.is_some() || call.response.is_some();
        let others = self.calls.iter().enumerate();
        let others = others.filter(|(other, call)| *other != index && in_pieces(call));
        let of_pair = others.clone().filter(|(_, call)| call.pair == pair);
        let oldest = if of_pair.clone().count() >= MAX_IN_PIECES {
            of_pair.min_by_key(|(_, call)| call.last)
        } else if others.clone().count() >= MAX_IN_PIECES_OF_ALL {
            others.min_by_key(|(_, call)| call.last)
        } else {
            None
        };
        if let Some((oldest, _)) = oldest {
            let call = &mut self.calls[oldest];
            call.torn = call.in_part();
            call.request = None;
            call.response = None;
        }
    }

    fn response<'a>(
        &'a mut self,
        now: Instant,
        pair: Pair,
        from: End,
        ports: (u16, u16),
        rpc: &Rpc<'a>,
    ) -> Result<Part<'a>, CallError> {
        let index = self.answering(now, pair, from, ports, rpc)?;
        if rpc.is_fragment() {
            self.make_room(pair, index);
        }
        Ok(match pieces(&mut self.calls[index].response, rpc)? {
            Some(body) => Part::Response(body),
            None => Part::Piece,
        })
    }

    /// The call that `from` answers; the port from which it does is one of its own from now on.
    fn answering(
        &mut self,
        now: Instant,
        pair: Pair,
        from: End,
        (src, dst): (u16, u16),
        rpc: &Rpc<'_>,
    ) -> Result<usize, CallError> {
        let index = self.find(pair, &rpc.activity).ok_or(CallError::NoCall)?;
        let call = &mut self.calls[index];
        let right = call.requester == from.other()
            && call.sequence == rpc.sequence
            // A reject or fault need not repeat what it could not make sense of.
            && (call.opnum == rpc.opnum || rpc.ptype != PacketType::Response);
        let unseen = call.unseen && rpc.ptype == PacketType::Response;
        if !right || call.refused || unseen {
            return Err(CallError::NoCall);
        }
        if dst != call.port {
            return Err(CallError::Port(dst));
        }
        call.last = now;
        self.learn_port(pair, from, src);
        Ok(index)
    }

    fn is_port_of(&self, pair: Pair, end: End, port: u16) -> bool {
        let of = |ports: &&Ports| ports.pair == pair && ports.end == end;
        let known = self.ports.iter().find(of);
        port == PNIO_CM_PORT || known.is_some_and(|ports| ports.known.contains(&port))
    }

    /// `port` is one of connection management at `end`: it has answered from there, or said so.
    pub fn learn_port(&mut self, pair: Pair, end: End, port: u16) {
        if self.is_port_of(pair, end, port) {
            return;
        }
        let of = |ports: &&mut Ports| ports.pair == pair && ports.end == end;
        let Some(ports) = self.ports.iter_mut().find(of) else {
            let known = vec![port];
            self.ports.push(Ports { pair, end, known });
            return;
        };
        if ports.known.len() == MAX_PORTS {
            ports.known.remove(0);
        }
        ports.known.push(port);
    }

    fn find(&self, pair: Pair, activity: &Uuid) -> Option<usize> {
        self.calls
            .iter()
            .position(|call| call.pair == pair && call.activity == *activity)
    }
}

/// Whether a sequence number, which wraps, is newer than another.
fn is_after(known: u32, sequence: u32) -> bool {
    (1..1 << 31).contains(&sequence.wrapping_sub(known))
}

/// `version(4) id(4)`, in the acknowledgement also whether the server takes it (1 or 4); or nothing.
fn check_cancel(rpc: &Rpc<'_>) -> Result<(), CallError> {
    match (rpc.ptype, rpc.body.len()) {
        (_, 0 | 8) | (PacketType::CancelAck, 9..=12) if !rpc.is_fragment() => Ok(()),
        (_, length) => Err(CallError::Cancel(length)),
    }
}

/// All octets of a message, once its last piece is there.
fn pieces<'a>(
    kept: &'a mut Option<Reassembly>,
    rpc: &Rpc<'a>,
) -> Result<Option<&'a [u8]>, FragmentError> {
    if !rpc.is_fragment() {
        return Ok(Some(rpc.body));
    }
    kept.get_or_insert_default().push(rpc)
}

#[cfg(test)]
mod tests;
