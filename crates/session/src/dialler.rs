//! A tunnel from an edge to one headend, kept up: the race of transports, the return to QUIC, renewal.
//!
//! # The state machine
//!
//! [`Dialler`] opens no socket, resolves no name and reads no clock. The shell tells it what happened,
//! then does what it says:
//!
//! 1. any inputs: [`handle_addresses`], [`handle_connected`], [`handle_failed`], [`handle_ended`],
//!    [`handle_renew`], [`handle_expiring`], [`handle_close`], [`handle_timeout`];
//! 2. [`poll_output`] until `None`, each [`Output`] carried out before the next input;
//! 3. the timer is set to [`poll_timeout`]. It may be early: a call of [`handle_timeout`] for which nothing
//!    is due does nothing.
//!
//! Each [`Output::Resolve`] is answered by one [`handle_addresses`], with no address where there is none.
//! Each [`Output::Attempt`] is bounded by [`ATTEMPT`] and ends in one [`handle_connected`] or
//! [`handle_failed`], unless [`Output::GiveUp`] took it back. Each connection that was wanted ends in one
//! [`handle_ended`]. Time is an argument and never decreases (an earlier one is taken for the latest seen);
//! outputs refer to the time of the last input. When [`is_done`] nothing more comes of it.
//!
//! # What holds
//!
//! - While no tunnel lives, rounds of attempts follow each other as [`Race`] says, each on addresses that
//!   were asked for when it began.
//! - Once a connection stands, all attempts under way are given up: one tunnel is enough.
//! - While a tunnel lives there are attempts beside it for two reasons only: a return from TLS to QUIC, where
//!   both may be used, and a renewal. Whichever comes through is the newer tunnel; the headend lets the
//!   older one finish.
//! - While the newest tunnel that lives is on TLS, and both transports may be used, a return is due: the first
//!   after [`RETURN_FIRST`], the others each after twice that of before, [`RETURN_LAST`] at most, until a
//!   tunnel over QUIC has been up.
//! - A renewal that is wanted is not lost: it is an attempt on each address that is known, beside the tunnel
//!   and by its transport, or, without one, the next round at once.
//! - A headend is expected back at any moment only if it ended the last tunnel, which had been up, with
//!   the word that it stops.
//! - Once it was told to close it makes no attempt, and those under way are given up.
//! - Nothing grows but with the number of addresses and of live tunnels.
//!
//! [`handle_addresses`]: Dialler::handle_addresses
//! [`handle_connected`]: Dialler::handle_connected
//! [`handle_failed`]: Dialler::handle_failed
//! [`handle_ended`]: Dialler::handle_ended
//! [`handle_renew`]: Dialler::handle_renew
//! [`handle_expiring`]: Dialler::handle_expiring
//! [`handle_close`]: Dialler::handle_close
//! [`handle_timeout`]: Dialler::handle_timeout
//! [`poll_output`]: Dialler::poll_output
//! [`poll_timeout`]: Dialler::poll_timeout
//! [`is_done`]: Dialler::is_done

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::{Failure, Race, Transport};

/// One attempt, from the first packet to the end of the handshake.
pub const ATTEMPT: Duration = Duration::from_secs(4);
/// While on TLS: when QUIC is tried again, doubling from the first to the last.
pub const RETURN_FIRST: Duration = Duration::from_secs(5);
pub const RETURN_LAST: Duration = Duration::from_secs(300);
/// While a headend's certificate is about to expire, and it has not got another.
pub const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// What tells the tunnels of a dialler apart; the shell gives each its own.
pub type Number = u32;

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Find out where the headend is now; the answer is [`Dialler::handle_addresses`].
    Resolve,
    /// Connect, within [`ATTEMPT`].
    Attempt {
        transport: Transport,
        address: SocketAddr,
        /// Of the last tunnel, to a headend that said that it stops: how soon it may answer when it is back.
        round_trip: Option<Duration>,
    },
    /// Give up all attempts under way, those that came through included.
    GiveUp,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Both sides had been ready.
    pub was_up: bool,
    pub why: Ending,
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The headend said that it stops: it may be back in a moment.
    Stopped,
    /// One side refused the other as such.
    Refused,
    /// Anything else.
    Lost,
}

/// The tunnels of an edge to one headend. See the [module](self) for the order of calls.
#[derive(Debug)]
pub struct Dialler {
    race: Race,
    /// Both transports may be used, and QUIC is preferred.
    returns: bool,
    now: Instant,
    /// As they were last resolved.
    addresses: Vec<SocketAddr>,
    resolving: bool,
    /// By which transports every address is to be tried once, beside the live tunnel.
    beside: Vec<Transport>,
    outputs: VecDeque<Output>,
    /// Those that live, the newest last.
    tunnels: Vec<(Number, Transport)>,
    return_at: Option<Instant>,
    return_after: Duration,
    renewed: Option<Instant>,
    round_trip: Option<Duration>,
    closed: bool,
}

impl Dialler {
    /// By both transports, or only one. `seed` is any number that differs between agents.
    pub fn new(only: Option<Transport>, now: Instant, seed: u64) -> Self {
        Self {
            race: Race::new(only, now, seed),
            returns: only.is_none(),
            now,
            addresses: Vec::new(),
            resolving: false,
            beside: Vec::new(),
            outputs: VecDeque::new(),
            tunnels: Vec::new(),
            return_at: None,
            return_after: RETURN_FIRST,
            renewed: None,
            round_trip: None,
            closed: false,
        }
    }

    /// Where the headend is by now, the likeliest first.
    pub fn handle_addresses(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        self.pass(now);
        self.resolving = false;
        self.addresses = addresses;
        let beside = std::mem::take(&mut self.beside);
        if !self.is_dialling() {
            beside.into_iter().for_each(|by| self.try_all(by));
        // The headend may have said in the meantime that it is busy.
        } else if self.race.round_due(self.now) {
            self.race.start_round(self.now, self.addresses.len());
        }
    }

    /// An attempt came through its handshake. Whether the connection is wanted: then it is the tunnel
    /// `number`, else it is to be dropped.
    #[must_use]
    pub fn handle_connected(&mut self, now: Instant, number: Number, transport: Transport) -> bool {
        self.pass(now);
        if self.closed {
            return false;
        }
        self.race.connected();
        self.outputs.push_back(Output::GiveUp);
        self.round_trip = None;
        self.tunnels.push((number, transport));
        self.arm_return();
        true
    }

    /// An attempt did not come through.
    pub fn handle_failed(&mut self, now: Instant, why: Failure) {
        self.pass(now);
        self.race.failed(self.now, why);
    }

    /// A tunnel has ended.
    pub fn handle_ended(&mut self, now: Instant, number: Number, ended: Ended) {
        self.pass(now);
        let Some(at) = self.tunnels.iter().position(|(n, _)| *n == number) else {
            return;
        };
        let (_, transport) = self.tunnels.remove(at);
        let last = self.tunnels.is_empty();
        match (ended.was_up, ended.why) {
            (false, Ending::Refused) => self.race.failed(self.now, Failure::Refused),
            (false, _) => self.race.failed(self.now, Failure::Network),
            (true, _) if last => self.lost(transport, ended),
            (true, _) => {}
        }
        if ended.was_up && transport == Transport::Quic {
            self.return_after = RETURN_FIRST;
        }
        if at == self.tunnels.len() {
            self.arm_return();
        }
    }

    /// This edge has another certificate, or another policy to show: it dials anew.
    pub fn handle_renew(&mut self, now: Instant) {
        self.pass(now);
        match self.newest() {
            _ if self.closed => {}
            Some(transport) => self.want_beside(transport),
            None => self.race.begin_again(self.now),
        }
    }

    /// The headend's certificate is about to expire: [`Dialler::handle_renew`], in case that it has another, at
    /// most every ten minutes. Whether that was due.
    pub fn handle_expiring(&mut self, now: Instant) -> bool {
        self.pass(now);
        let due = |last: Instant| self.now >= last + RENEW_AGAIN;
        let due = self.renewed.is_none_or(due);
        if due {
            self.renewed = Some(self.now);
            self.handle_renew(self.now);
        }
        due
    }

    /// Dials no more; the shell closes the tunnels that live.
    pub fn handle_close(&mut self, now: Instant) {
        self.pass(now);
        self.closed = true;
        self.beside.clear();
        self.return_at = None;
        self.outputs.clear();
        self.outputs.push_back(Output::GiveUp);
    }

    /// The time of [`Dialler::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pass(now);
        let due = self.return_at.is_some_and(|at| self.now >= at);
        if due && !self.is_dialling() {
            self.try_quic();
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let wanted = match self.is_dialling() {
            true => self.race.round_due(self.now),
            false => !self.beside.is_empty(),
        };
        if wanted && !self.resolving {
            self.resolving = true;
            return Some(Output::Resolve);
        }
        self.poll_attempt()
    }

    /// When to call [`Dialler::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_dialling() {
            return self.return_at;
        }
        let at = self.race.poll_timeout();
        // A round waits for its addresses.
        (!self.resolving || !self.race.round_due(at)).then_some(at)
    }

    /// Closed, and the last tunnel has ended.
    pub fn is_done(&self) -> bool {
        self.closed && self.tunnels.is_empty()
    }

    fn pass(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn is_dialling(&self) -> bool {
        self.tunnels.is_empty() && !self.closed
    }

    /// Of the round, while no tunnel lives.
    fn poll_attempt(&mut self) -> Option<Output> {
        if !self.is_dialling() {
            return None;
        }
        loop {
            let attempt = self.race.poll_attempt(self.now)?;
            match self.addresses.get(attempt.address) {
                Some(&address) => return Some(self.attempt(attempt.transport, address)),
                // Left of a round of before, when there were more addresses.
                None => self.race.failed(self.now, Failure::Network),
            }
        }
    }

    fn attempt(&self, transport: Transport, address: SocketAddr) -> Output {
        Output::Attempt {
            transport,
            address,
            round_trip: self.round_trip,
        }
    }

    /// The last tunnel, which had been up, has ended.
    fn lost(&mut self, transport: Transport, ended: Ended) {
        self.race.won(self.now, transport);
        if ended.why == Ending::Stopped {
            self.race.expect_back(self.now);
            self.round_trip = ended.round_trip;
        }
    }

    /// The transport of the newest live tunnel.
    fn newest(&self) -> Option<Transport> {
        self.tunnels.last().map(|(_, transport)| *transport)
    }

    /// The newest live tunnel is another.
    fn arm_return(&mut self) {
        let fallback = self.returns && !self.closed && self.newest() == Some(Transport::Tls);
        self.return_at = fallback.then(|| self.now + self.return_after);
    }

    /// On the fallback: is there a way for QUIC again?
    fn try_quic(&mut self) {
        self.return_after = (self.return_after * 2).min(RETURN_LAST);
        self.return_at = Some(self.now + self.return_after);
        self.want_beside(Transport::Quic);
    }

    fn want_beside(&mut self, transport: Transport) {
        if !self.beside.contains(&transport) {
            self.beside.push(transport);
        }
    }

    fn try_all(&mut self, transport: Transport) {
        let attempts = self.addresses.iter();
        let attempts = attempts.map(|&address| self.attempt(transport, address));
        self.outputs.extend(attempts.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests;
