//! What goes wrong.

use super::head::{HEADS, Mood};
use super::world::{Happening, World};
use crate::{Close, Side, Transport};

const TRANSPORTS: [Transport; 2] = [Transport::Quic, Transport::Tls];

impl World {
    pub(super) fn fault(&mut self) {
        let after = self.dice.millis(100..4000);
        self.later(after, Happening::Fault);
        let head = self.dice.roll(HEADS as u64) as usize;
        let site = usize::from(self.dice.percent(20));
        let kind = self.dice.roll(17);
        self.trace(&("fault", kind, "site", site, "headend", head));
        match kind {
            0 | 1 => TRANSPORTS
                .into_iter()
                .for_each(|t| self.close_way(site, head, t)),
            2 | 3 => (0..HEADS).for_each(|head| self.close_way(site, head, Transport::Quic)),
            4 => self.close_way(site, head, Transport::Tls),
            5 | 6 => self.move_away(site),
            7 | 8 => {
                if let Some(process) = self.living(site) {
                    self.edge_dies(process);
                    let after = self.dice.millis(20..3000);
                    self.later(after, Happening::EdgeStarts { site });
                }
            }
            9 => {
                if self.heads[head].alive && self.dice.percent(50) {
                    self.head_stops(head);
                } else if self.heads[head].alive {
                    self.head_dies(head);
                    let after = self.dice.millis(20..3000);
                    self.later(after, Happening::HeadStarts { head });
                }
            }
            10 => self.mood(head),
            11 => {
                if let Some(process) = self.living(site) {
                    self.renew((process, head));
                }
            }
            12 => {
                if let Some(live) = self.heads[head].live {
                    let side = if self.dice.percent(50) {
                        Side::Edge
                    } else {
                        Side::Headend
                    };
                    self.heads[head].closed += 1;
                    self.closes(live, side, Close::Reconfigured);
                }
            }
            13 => self.crowd_comes(head),
            14 => {
                let left = 100 + self.dice.roll(500) as u32;
                self.forged(head, left);
            }
            15 => self.churns(head),
            // A copy of the edge, with its key.
            _ => {
                if self.living(1).is_none() {
                    let process = self.processes.len();
                    self.edge_starts(1);
                    let after = self.dice.millis(500..10_000);
                    self.later(after, Happening::EdgeDies { process });
                }
            }
        }
    }

    fn close_way(&mut self, site: usize, head: usize, transport: Transport) {
        self.sites[site].closed[head][transport as usize] += 1;
        let long = self.dice.percent(30);
        let after = self.dice.millis(if long { 2000..15_000 } else { 50..2500 });
        let opens = Happening::WayOpens {
            site,
            head,
            transport,
        };
        self.later(after, opens);
    }

    /// Another address: QUIC comes with it, TCP does not.
    fn move_away(&mut self, site: usize) {
        self.sites[site].moved += 1;
        for number in self.open.clone() {
            let conn = &mut self.conns[number];
            if self.processes[conn.process].site != site {
                continue;
            }
            conn.trouble = conn.trouble.max(Some(self.now));
            if conn.transport == Transport::Tls {
                // The edge's system may notice.
                if self.dice.percent(50) {
                    self.hang_up(number, Side::Headend, false);
                }
                self.conns[number].lost = true;
            }
        }
    }

    fn mood(&mut self, head: usize) {
        if self.heads[head].mood != Mood::Well || !self.heads[head].alive {
            return;
        }
        let mood = [Mood::Busy, Mood::Refuses, Mood::Closes][self.dice.roll(3) as usize];
        self.heads[head].mood = mood;
        if let (Mood::Refuses, Some(live)) = (mood, self.heads[head].live) {
            self.closes(live, Side::Headend, Close::NotTrusted);
        }
        let after = self.dice.millis(500..15_000);
        self.later(after, Happening::MoodPasses { head });
    }
}
