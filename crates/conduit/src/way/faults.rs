//! What goes wrong.

use std::sync::Arc;

use fieldlock_session::Place;

use super::tunnel::End;
use super::world::{CLIENTS, HOLD, Happening, World};
use crate::repeat::Repeats;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let after = self.dice.millis(50..1500);
        self.later(after, Happening::Fault);
        let tunnel = self.tunnels.len().saturating_sub(1);
        let kind = self.dice.roll(12);
        self.trace(&("fault", kind));
        match kind {
            0 | 1 if !self.tunnels.is_empty() => self.tunnels[tunnel].cut = true,
            2 if !self.tunnels.is_empty() => {
                // What is on its way is lost too, and both ends hear of it.
                self.next.retain(
                    |_, h| !matches!(h, Happening::Arrives { tunnel: t, .. } if *t == tunnel),
                );
                self.hang_up(tunnel, End::Edge);
                self.hang_up(tunnel, End::Head);
            }
            3 if !self.tunnels.is_empty() => self.edge_hangs_up(tunnel),
            4 => self.edge_dials(),
            5 => self.edge_dies(),
            6 => self.head_dies(),
            7 => self.power_cycle(),
            8 | 9 => {
                let at = [End::Edge, End::Head][self.dice.roll(2) as usize];
                let open = match at {
                    End::Edge => &self.edge.policy,
                    End::Head => &self.head.policy,
                };
                if Arc::ptr_eq(open, &self.policies[0]) {
                    self.ledger.forbid();
                    self.set_policy(at, 1);
                    let after = self.dice.millis(20..600);
                    self.later(after, Happening::PolicyBack { at });
                }
            }
            10 => {
                self.edge.broken = true;
                let after = self.dice.millis(10..400);
                self.later(after, Happening::DiskRepaired);
            }
            _ => {
                let client = self.dice.roll(CLIENTS as u64) as usize;
                self.client_leaves(client);
            }
        }
    }

    /// kill -9, and a start: its clients and tunnels are cut off.
    pub(super) fn head_dies(&mut self) {
        for tunnel in 0..self.tunnels.len() {
            if self.tunnels[tunnel].head.take().is_some() && self.dice.percent(70) {
                self.hang_up(tunnel, End::Head);
            }
        }
        self.ledger.kills[0] += 1;
        self.head.repeats = Repeats::at_headend(HOLD);
        self.head.live = None;
        self.head.place = Place::default();
        self.head.instance[0] = self.head.instance[0].wrapping_add(1);
        self.head.conns.clear();
        for client in 0..CLIENTS {
            if let Some(conn) = self.clients[client].conn.take() {
                self.ledger.abandoned(conn);
            }
        }
    }

    pub(super) fn set_policy(&mut self, at: End, which: usize) {
        let policy = Arc::clone(&self.policies[which]);
        match at {
            End::Edge => self.edge_policy(&policy),
            End::Head => self.head_policy(&policy),
        }
    }
}
