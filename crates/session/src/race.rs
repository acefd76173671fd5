//! Which transport and address an edge tries next.
//!
//! Dialling goes in rounds. In each, the preferred transport gets a head start on every
//! address, the other follows; attempts overlap (RFC 8305, "happy eyeballs"), and the
//! first session that comes up wins. Rounds follow each other at most a second apart, so
//! that a link that returns is used within a second; a headend that says it is busy, and a peer
//! that refuses this edge's certificate, are asked less often.

use std::time::{Duration, Instant};

use crate::Backoff;

/// What carries the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Quic,
    Tls,
}

impl Transport {
    /// As `status` and the audit log write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tls,
            Self::Tls => Self::Quic,
        }
    }
}

/// One connection attempt to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub transport: Transport,
    /// Index into the addresses that the round was started with.
    pub address: usize,
}

/// Lead of the preferred transport over the other, and of an address over the next.
pub const HEAD_START: Duration = Duration::from_millis(300);
/// How long a round with attempts under way goes on before the next begins beside it: most
/// handshakes are through by then, and a lost first packet has been sent again.
const PATIENCE: Duration = Duration::from_millis(700);
const ROUND_FIRST: Duration = Duration::from_millis(50);
const ROUND_MAX: Duration = Duration::from_secs(1);
/// A tunnel that ends sooner after the round that brought it is as good as a failure: a headend that lets
/// everybody go at once is not to be dialled at once.
const LASTING: Duration = Duration::from_secs(1);
/// After a headend said that it is busy: thousands that come back within a second would keep it so.
const BUSY_MAX: Duration = Duration::from_secs(8);
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// How long a headend that said that it stops is expected back at any moment, as one that is restarted is.
const RETURN: Duration = Duration::from_secs(1);
/// Between two rounds meanwhile, at most.
const ROUND_RETURN: Duration = Duration::from_millis(100);

/// Why an attempt did not come to a session, from the least to the most reason to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody answered, or the network failed: it may work at once.
    Network,
    /// The headend answered that it takes no more handshakes now.
    Busy,
    /// One side refused the other: trying again changes nothing.
    Refused,
}

/// The rounds of one edge toward one headend.
#[derive(Debug)]
pub struct Race {
    transports: Vec<Transport>,
    /// Attempts of this round that are still to be made, soonest last.
    waiting: Vec<(Instant, Attempt)>,
    pending: usize,
    started: Instant,
    next_round: Instant,
    backoff: Backoff,
    busy: Backoff,
    refused: Backoff,
    /// Until when the headend is expected back, and how often it is looked for.
    expected: Option<Instant>,
    returning: Backoff,
    /// The worst of this round.
    failure: Failure,
}

impl Race {
    /// Both transports, or only one; the first is preferred.
    pub fn new(only: Option<Transport>, now: Instant, seed: u64) -> Self {
        Self {
            transports: match only {
                Some(transport) => vec![transport],
                None => vec![Transport::Quic, Transport::Tls],
            },
            waiting: Vec::new(),
            pending: 0,
            started: now,
            next_round: now,
            backoff: Backoff::new(ROUND_FIRST, ROUND_MAX, seed),
            busy: Backoff::new(ROUND_MAX, BUSY_MAX, seed.rotate_left(16)),
            refused: Backoff::new(ROUND_MAX, REFUSED_MAX, seed.rotate_left(32)),
            expected: None,
            returning: Backoff::new(ROUND_RETURN, ROUND_RETURN, seed.rotate_left(48)),
            failure: Failure::Network,
        }
    }

    /// Whether a round is due: the caller resolves the addresses afresh and calls
    /// [`Race::start_round`].
    pub fn round_due(&self, now: Instant) -> bool {
        self.waiting.is_empty() && now >= self.round_at()
    }

    fn round_at(&self) -> Instant {
        if self.pending == 0 {
            self.next_round
        } else {
            self.next_round.max(self.started + PATIENCE)
        }
    }

    /// Plans attempts on `addresses` addresses.
    pub fn start_round(&mut self, now: Instant, addresses: usize) {
        self.started = now;
        self.expected.take_if(|until| now >= *until);
        let transports = match self.expected {
            // The way was good a moment ago. The other transport would wait for its own time-out.
            Some(_) => &self.transports[..1],
            None => &self.transports[..],
        };
        let mut at = now;
        for address in 0..addresses {
            for (rank, &transport) in (0u32..).zip(transports) {
                let attempt = Attempt { transport, address };
                self.waiting.push((at + HEAD_START * rank, attempt));
            }
            at += HEAD_START;
        }
        self.waiting.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        self.failure = Failure::Network;
        let rest = match self.expected {
            Some(_) => self.returning.delay(),
            None => self.backoff.delay(),
        };
        self.next_round = now + rest;
    }

    /// The next attempt that is due.
    pub fn poll_attempt(&mut self, now: Instant) -> Option<Attempt> {
        let (at, attempt) = self.waiting.last().copied()?;
        if at > now {
            return None;
        }
        self.waiting.pop();
        self.pending += 1;
        Some(attempt)
    }

    /// An attempt came through its handshake and those beside it are given up. What it
    /// comes to is told by [`Race::won`] or [`Race::failed`].
    pub fn connected(&mut self) {
        self.pending = 1;
    }

    /// An attempt ended without a session. When no other is under way, the next one is
    /// made at once: a head start over nobody is a loss of time. After a headend's own word, the
    /// next round waits longer; one that is busy is not asked by another way in this one.
    pub fn failed(&mut self, now: Instant, failure: Failure) {
        self.pending = self.pending.saturating_sub(1);
        if failure > self.failure {
            self.failure = failure;
            let delay = match failure {
                Failure::Network => Duration::ZERO,
                Failure::Busy => self.busy.delay(),
                Failure::Refused => self.refused.delay(),
            };
            self.next_round = self.next_round.max(now + delay);
        }
        if failure == Failure::Busy {
            self.waiting.clear();
        }
        if self.pending == 0
            && let Some((at, _)) = self.waiting.last_mut()
        {
            *at = now.min(*at);
        }
    }

    /// A session that had come up by `transport` has ended: this transport is preferred from here on. The
    /// next round is due at once, unless the session was a short one.
    pub fn won(&mut self, now: Instant, transport: Transport) {
        if self.transports.len() > 1 {
            self.transports = vec![transport, transport.other()];
        }
        self.waiting.clear();
        self.pending = 0;
        self.failure = Failure::Network;
        if now < self.started + LASTING {
            self.next_round = self.next_round.max(now + self.backoff.delay());
            return;
        }
        self.backoff.reset();
        self.busy.reset();
        self.refused.reset();
        self.next_round = now;
    }

    /// After [`Race::won`]: the headend ended the session because it stops. For a second it is dialled
    /// often, and only by the transport that served, so that a restart costs no more than it takes.
    pub fn expect_back(&mut self, now: Instant) {
        if now >= self.started + LASTING {
            self.expected = Some(now + RETURN);
        }
    }

    /// What was refused before may be let in now, with another certificate: the next round is due.
    pub fn begin_again(&mut self, now: Instant) {
        self.failure = Failure::Network;
        self.refused.reset();
        self.next_round = now;
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Instant {
        self.waiting.last().map_or(self.round_at(), |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(transport: Transport, address: usize) -> Option<Attempt> {
        Some(Attempt { transport, address })
    }

    #[test]
    fn quic_leads_and_tls_follows() {
        let now = Instant::now();
        let mut race = Race::new(None, now, 1);
        assert!(race.round_due(now));
        race.start_round(now, 2);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Quic, 0));
        assert_eq!(race.poll_attempt(now), None);
        assert_eq!(race.poll_timeout(), now + HEAD_START);
        let later = now + HEAD_START;
        let both = [race.poll_attempt(later), race.poll_attempt(later)];
        assert!(both.contains(&attempt(Transport::Tls, 0)), "{both:?}");
        assert!(both.contains(&attempt(Transport::Quic, 1)), "{both:?}");
        assert_eq!(race.poll_attempt(later), None);
        assert_eq!(
            race.poll_attempt(later + HEAD_START),
            attempt(Transport::Tls, 1)
        );
    }

    #[test]
    fn another_certificate_is_tried_at_once() {
        let now = Instant::now();
        let mut race = Race::new(Some(Transport::Quic), now, 1);
        for _ in 0..10 {
            race.start_round(now, 1);
            assert!(race.poll_attempt(now).is_some());
            race.failed(now, Failure::Refused);
        }
        assert!(!race.round_due(now + ROUND_MAX));
        race.begin_again(now);
        assert!(race.round_due(now));
    }

    #[test]
    fn a_failure_gives_way_at_once() {
        let now = Instant::now();
        let mut race = Race::new(None, now, 1);
        race.start_round(now, 1);
        assert!(race.poll_attempt(now).is_some());
        race.failed(now, Failure::Network);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Tls, 0));
    }

    #[test]
    fn attempts_that_were_given_up_are_not_waited_for() {
        let now = Instant::now();
        let mut race = Race::new(None, now, 1);
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        race.poll_attempt(now + HEAD_START).unwrap();
        race.connected();
        race.failed(now + HEAD_START, Failure::Network);
        assert!(race.round_due(now + HEAD_START));
    }

    #[test]
    fn a_slow_handshake_is_not_overtaken_by_the_next_round() {
        let now = Instant::now();
        let mut race = Race::new(Some(Transport::Quic), now, 1);
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        let later = now + Duration::from_millis(600);
        assert!(!race.round_due(later));
        assert!(race.round_due(now + PATIENCE));
        race.failed(later, Failure::Network);
        assert!(race.round_due(later));
    }

    #[test]
    fn what_worked_is_preferred() {
        let now = Instant::now();
        let mut race = Race::new(None, now, 1);
        race.won(now, Transport::Tls);
        race.start_round(now, 1);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Tls, 0));
    }

    #[test]
    fn a_busy_headend_is_asked_less_often_and_not_by_another_way() {
        let mut now = Instant::now();
        let mut race = Race::new(None, now, 1);
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            race.start_round(now, 2);
            assert_eq!(race.poll_attempt(now), attempt(Transport::Quic, 0));
            race.failed(now, Failure::Busy);
            assert_eq!(race.poll_attempt(now + HEAD_START * 3), None);
            last = race.poll_timeout() - now;
            assert!(last >= ROUND_MAX / 2 && last <= BUSY_MAX, "{last:?}");
            now += last;
        }
        assert!(last >= BUSY_MAX / 2, "{last:?}");
        now += LASTING;
        race.won(now, Transport::Quic);
        assert!(race.round_due(now));
    }

    #[test]
    fn a_headend_that_lets_go_at_once_is_not_dialled_at_once() {
        let mut now = Instant::now();
        let mut race = Race::new(None, now, 1);
        let mut rounds = 0;
        let end = now + 10 * ROUND_MAX;
        while now < end {
            assert!(race.round_due(now));
            race.start_round(now, 1);
            race.poll_attempt(now).unwrap();
            race.connected();
            now += Duration::from_millis(40);
            race.won(now, Transport::Quic);
            now = race.poll_timeout();
            rounds += 1;
        }
        assert!(rounds <= 30, "{rounds}");
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        race.won(now + LASTING, Transport::Quic);
        assert!(race.round_due(now + LASTING));
    }

    #[test]
    fn a_headend_that_stops_is_looked_for_often_for_a_second() {
        let mut now = Instant::now();
        let mut race = Race::new(None, now, 1);
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        race.connected();
        now += LASTING;
        let stopped = now;
        race.won(now, Transport::Tls);
        race.expect_back(now);
        let mut last = now;
        while now < stopped + RETURN {
            assert!(race.round_due(now));
            assert!(now - last <= ROUND_RETURN, "{:?}", now - last);
            last = now;
            race.start_round(now, 1);
            assert_eq!(race.poll_attempt(now), attempt(Transport::Tls, 0));
            race.failed(now, Failure::Network);
            assert_eq!(race.poll_attempt(now), None);
            now = race.poll_timeout();
        }
        // It stays away: the other transport gets its turn.
        race.start_round(now, 1);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Tls, 0));
        race.failed(now, Failure::Network);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Quic, 0));
    }

    #[test]
    fn a_headend_that_stops_all_the_time_is_not_expected_back() {
        let now = Instant::now();
        let mut race = Race::new(None, now, 1);
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        race.connected();
        race.won(now, Transport::Tls);
        race.expect_back(now);
        race.start_round(now, 1);
        race.poll_attempt(now).unwrap();
        race.failed(now, Failure::Network);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Quic, 0));
    }

    #[test]
    fn a_fixed_transport_stays() {
        let now = Instant::now();
        let mut race = Race::new(Some(Transport::Tls), now, 1);
        race.start_round(now, 1);
        assert_eq!(race.poll_attempt(now), attempt(Transport::Tls, 0));
        race.failed(now, Failure::Network);
        assert_eq!(race.poll_attempt(now + HEAD_START), None);
    }

    #[test]
    fn rounds_are_at_most_a_second_apart_unless_refused() {
        let mut now = Instant::now();
        let mut race = Race::new(Some(Transport::Tls), now, 7);
        for failure in [Failure::Network, Failure::Refused] {
            for _ in 0..20 {
                assert!(race.round_due(now));
                race.start_round(now, 1);
                race.poll_attempt(now).unwrap();
                race.failed(now, failure);
                let gap = race.poll_timeout() - now;
                let most = match failure {
                    Failure::Network => ROUND_MAX,
                    _ => REFUSED_MAX,
                };
                assert!(gap <= most);
                now += gap;
            }
        }
        let delay = race.poll_timeout() - now;
        assert!(delay.is_zero() || race.round_due(now), "{delay:?}");
    }
}
