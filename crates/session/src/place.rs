//! Which of the tunnels of one edge a headend keeps.
//!
//! An edge dials a second tunnel to change its transport or its certificate: the newer takes over. It may
//! also have started anew while the headend still believes in the tunnel of its last life, or
//! another process may hold a copy of its key: then the tunnel that is there is asked whether it
//! lives, and the newer one waits for the answer. What tells the two cases apart is the instance in
//! the hello, random per process start.
//!
//! One process has the place from its first hello on, until all its tunnels have ended, or did not
//! answer. Of its tunnels the one whose hello came last and whose edge is ready serves. Which is the
//! newer is decided by the order of their hellos: an edge's ready that comes late takes nothing back.

use std::collections::VecDeque;

/// What tells the tunnels of a headend apart.
pub type Number = u32;

/// What the headend has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Answer the hello of this tunnel.
    Accept(Number),
    /// Ask this tunnel for a sign of life: [`crate::Session::probe`].
    Probe(Number),
    /// Close this tunnel: a process that lives has `holder` ([`crate::Close::DuplicateIdentity`]).
    Refuse { refused: Number, holder: Number },
    /// Let this tunnel finish what it has under way, then close it: a newer one of the same process
    /// serves.
    Drain(Number),
    /// Close this tunnel at once: its place is another's ([`crate::Close::Replaced`]).
    Close(Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tunnel {
    number: Number,
    instance: [u8; 16],
}

/// A tunnel of another process, which waits for a sign of life.
#[derive(Debug)]
struct Contender {
    tunnel: Tunnel,
    /// Who was asked for one.
    asked: Number,
}

/// The tunnels of one edge at one headend.
///
/// Input: [`Place::handle_hello`], [`Place::handle_up`], [`Place::handle_probed`] and
/// [`Place::handle_ended`], each with the number of the tunnel. Output, after each of them: steps from
/// [`Place::poll_step`], in order, until there is none. When [`Place::is_empty`] it can be forgotten.
#[derive(Debug, Default)]
pub struct Place {
    /// Serves.
    live: Option<Tunnel>,
    /// Accepted, of the same process, and not ready yet: in the order of their hellos.
    accepted: Vec<Tunnel>,
    contender: Option<Contender>,
    steps: VecDeque<Step>,
}

impl Place {
    /// A tunnel has said its hello, which is good as such.
    pub fn handle_hello(&mut self, number: Number, instance: [u8; 16]) {
        let tunnel = Tunnel { number, instance };
        let Some(holder) = self.holder().filter(|holder| holder.instance != instance) else {
            return self.accept(tunnel);
        };
        match &mut self.contender {
            // Its process lost it, or has started anew since: the last one is the likeliest to live.
            Some(contender) => {
                self.steps.push_back(Step::Close(contender.tunnel.number));
                contender.tunnel = tunnel;
            }
            None => {
                let asked = holder.number;
                self.steps.push_back(Step::Probe(asked));
                self.contender = Some(Contender { tunnel, asked });
            }
        }
    }

    /// The edge is ready: this tunnel is up.
    pub fn handle_up(&mut self, number: Number) {
        let Some(at) = self.accepted.iter().position(|t| t.number == number) else {
            return;
        };
        // With all that are older.
        let mut gone: Vec<Tunnel> = self.accepted.drain(..=at).collect();
        let older = self.live.replace(gone.remove(at));
        let older = older.map(|older| Step::Drain(older.number));
        let never_up = gone.into_iter().map(|tunnel| Step::Close(tunnel.number));
        self.steps.extend(older.into_iter().chain(never_up));
        self.settle();
    }

    /// The tunnel `newer` comes from the socket address that `older` has, over QUIC, where a handshake
    /// needs the answers: so no living process has `older` any more. One that lives keeps its socket,
    /// and gets what is sent there. Whether that made the place free.
    pub fn handle_same_address(&mut self, newer: Number, older: Number) -> bool {
        let waits = |c: &Contender| (c.tunnel.number, c.asked) == (newer, older);
        let gone = self.contender.as_ref().is_some_and(waits);
        if gone {
            self.handle_probed(older, false);
        }
        gone
    }

    /// A tunnel gave a sign of life, or not.
    pub fn handle_probed(&mut self, number: Number, alive: bool) {
        let asked = |contender: &mut Contender| contender.asked == number;
        if !alive && self.contender.as_mut().is_some_and(asked) {
            self.steps.push_back(Step::Close(number));
            self.handle_ended(number);
        } else if let Some(contender) = self.contender.take_if(asked) {
            self.steps.push_back(Step::Refuse {
                refused: contender.tunnel.number,
                holder: number,
            });
        }
    }

    /// A tunnel has ended, whatever it was.
    pub fn handle_ended(&mut self, number: Number) {
        self.live.take_if(|live| live.number == number);
        self.accepted.retain(|tunnel| tunnel.number != number);
        self.contender
            .take_if(|contender| contender.tunnel.number == number);
        self.settle();
    }

    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// No tunnel is left.
    pub fn is_empty(&self) -> bool {
        self.holder().is_none()
    }

    /// Who can be asked whether the process with this place lives.
    fn holder(&self) -> Option<Tunnel> {
        self.live.or(self.accepted.last().copied())
    }

    fn accept(&mut self, tunnel: Tunnel) {
        self.accepted.push(tunnel);
        self.steps.push_back(Step::Accept(tunnel.number));
    }

    /// Who is asked may have gone: then another is, or nobody is left.
    fn settle(&mut self) {
        let holder = self.holder();
        let Some(contender) = &mut self.contender else {
            return;
        };
        match holder {
            Some(holder) if holder.number == contender.asked => {}
            Some(holder) => {
                contender.asked = holder.number;
                self.steps.push_back(Step::Probe(holder.number));
            }
            None => {
                let tunnel = contender.tunnel;
                self.contender = None;
                self.accept(tunnel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: [u8; 16] = [1; 16];
    const OTHER: [u8; 16] = [2; 16];

    impl Place {
        fn steps(&mut self) -> Vec<Step> {
            std::iter::from_fn(|| self.poll_step()).collect()
        }

        /// With tunnel 1 of [`EDGE`] up.
        fn taken() -> Self {
            let mut place = Self::default();
            place.handle_hello(1, EDGE);
            place.handle_up(1);
            assert_eq!(place.steps(), [Step::Accept(1)]);
            place
        }
    }

    #[test]
    fn a_newer_tunnel_of_a_process_takes_over_when_it_is_up() {
        let mut place = Place::taken();
        place.handle_hello(2, EDGE);
        assert_eq!(place.steps(), [Step::Accept(2)]);
        place.handle_up(2);
        assert_eq!(place.steps(), [Step::Drain(1)]);
        place.handle_ended(1);
        assert!(!place.is_empty());
        place.handle_ended(2);
        assert!(place.is_empty());
    }

    #[test]
    fn a_late_ready_takes_nothing_back() {
        let mut place = Place::default();
        place.handle_hello(1, EDGE);
        place.handle_hello(2, EDGE);
        place.handle_up(2);
        place.handle_up(1);
        assert_eq!(
            place.steps(),
            [Step::Accept(1), Step::Accept(2), Step::Close(1)]
        );
    }

    #[test]
    fn another_process_waits_for_the_answer_of_the_first() {
        let refused = Step::Refuse {
            refused: 2,
            holder: 1,
        };
        for (alive, then) in [
            (true, vec![refused]),
            (false, vec![Step::Close(1), Step::Accept(2)]),
        ] {
            let mut place = Place::taken();
            place.handle_hello(2, OTHER);
            assert_eq!(place.steps(), [Step::Probe(1)]);
            place.handle_probed(1, alive);
            assert_eq!(place.steps(), then);
        }
    }

    #[test]
    fn another_process_waits_while_the_first_is_not_up_yet() {
        let mut place = Place::default();
        place.handle_hello(1, EDGE);
        place.handle_hello(2, OTHER);
        assert_eq!(place.steps(), [Step::Accept(1), Step::Probe(1)]);
        place.handle_up(1);
        assert_eq!(place.steps(), []);
        place.handle_ended(1);
        assert_eq!(place.steps(), [Step::Accept(2)]);
    }

    /// The tunnel that was asked may end because a newer one of its process took over.
    #[test]
    fn a_change_of_transport_does_not_let_another_process_in() {
        let mut place = Place::taken();
        place.handle_hello(2, EDGE);
        place.handle_hello(3, OTHER);
        assert_eq!(place.steps(), [Step::Accept(2), Step::Probe(1)]);
        place.handle_up(2);
        assert_eq!(place.steps(), [Step::Drain(1), Step::Probe(2)]);
        place.handle_ended(1);
        place.handle_probed(1, false);
        assert_eq!(place.steps(), []);
        place.handle_probed(2, true);
        let refused = Step::Refuse {
            refused: 3,
            holder: 2,
        };
        assert_eq!(place.steps(), [refused]);
    }

    #[test]
    fn another_process_at_the_same_address_waits_for_no_answer() {
        let mut place = Place::taken();
        place.handle_hello(2, OTHER);
        assert!(place.handle_same_address(2, 1));
        assert_eq!(
            place.steps(),
            [Step::Probe(1), Step::Close(1), Step::Accept(2)]
        );
    }

    /// All tunnels of one process come from one socket.
    #[test]
    fn the_same_address_of_one_process_says_nothing() {
        let mut place = Place::taken();
        place.handle_hello(2, OTHER);
        place.handle_hello(3, EDGE);
        assert!(!place.handle_same_address(3, 1));
        assert_eq!(place.steps(), [Step::Probe(1), Step::Accept(3)]);
    }

    /// It would be refused as a second process beside itself.
    #[test]
    fn an_edge_that_starts_anew_while_it_waits_comes_with_another_tunnel() {
        let mut place = Place::taken();
        place.handle_hello(2, OTHER);
        place.handle_hello(3, OTHER);
        place.handle_hello(4, [3; 16]);
        assert_eq!(
            place.steps(),
            [Step::Probe(1), Step::Close(2), Step::Close(3)]
        );
        place.handle_ended(2);
        place.handle_probed(1, false);
        assert_eq!(place.steps(), [Step::Close(1), Step::Accept(4)]);
    }
}
