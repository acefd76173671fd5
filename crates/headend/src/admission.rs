//! Which handshakes may begin, by the word of [`session::admission`](fieldlock_session::admission), and that
//! each gives its turn back.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::settings::Tunnel;
use fieldlock_session::admission::{Admission as Core, Limits, Turn, Verdict as Judged};

/// What becomes of a handshake that wants to begin.
#[derive(Debug)]
pub(super) enum Verdict {
    /// At its turn; the handshake counts until the pass is dropped.
    Begin(Pass),
    /// The address has to prove itself first (RFC 9000, section 8.1.2).
    Prove,
    /// Not now.
    Later,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Admission(Rc<RefCell<Core>>);

impl Admission {
    /// Judges a handshake that wants to begin, while there are so many `tunnels`. `proven`: its sender has
    /// answered from this address.
    pub(super) fn knock(
        &self,
        settings: &Tunnel,
        tunnels: usize,
        from: IpAddr,
        proven: bool,
        now: Instant,
    ) -> Verdict {
        let limits = limits(settings);
        let judged = self
            .0
            .borrow_mut()
            .handle_handshake(&limits, tunnels, from, proven, now);
        match judged {
            Judged::Begin(turn) => Verdict::Begin(Pass::new(self.clone(), turn)),
            Judged::Prove => Verdict::Prove,
            Judged::Later => Verdict::Later,
        }
    }

    /// Whether an edge that has proven its name may have one more tunnel by now.
    pub(super) fn is_welcome(&self, edge: &str, now: Instant) -> bool {
        self.0.borrow_mut().handle_edge(edge, now)
    }

    pub(super) fn under_way(&self) -> usize {
        self.0.borrow().under_way()
    }
}

/// A handshake under way: one that fails, or whose task is given up, gives its turn back too.
#[derive(Debug)]
pub(super) struct Pass {
    admission: Admission,
    begins: Instant,
    proven: bool,
    /// Until it is dropped.
    turn: Option<Turn>,
}

impl Pass {
    fn new(admission: Admission, turn: Turn) -> Self {
        Self {
            admission,
            begins: turn.at(),
            proven: turn.is_proven(),
            turn: Some(turn),
        }
    }

    /// When the handshake is to begin.
    pub(super) fn turn(&self) -> Instant {
        self.begins
    }

    /// Its sender has answered from this address.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.admission.0.borrow_mut().handle_ended(turn);
        }
    }
}

fn limits(settings: &Tunnel) -> Limits {
    Limits {
        max_tunnels: settings.max_tunnels,
        max_handshakes: settings.max_handshakes,
        max_handshakes_per_address: settings.max_handshakes_per_address,
        handshake_rate: settings.handshake_rate,
        handshake_rate_per_address: settings.handshake_rate_per_address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_is_dropped_gives_its_turn_back() {
        let admission = Admission::default();
        let settings = Tunnel {
            max_handshakes: 1,
            ..Tunnel::default()
        };
        let from = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..3 {
            let now = Instant::now();
            let first = admission.knock(&settings, 0, from, true, now);
            assert!(matches!(first, Verdict::Begin(_)));
            assert_eq!(admission.under_way(), 1);
            let second = admission.knock(&settings, 0, from, true, now);
            assert!(matches!(second, Verdict::Later));
            drop(first);
            assert_eq!(admission.under_way(), 0);
        }
    }
}
