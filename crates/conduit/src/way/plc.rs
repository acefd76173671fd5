//! The PLC: slow, silent, late, wrong, closed, without power.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use fieldlock_modbus::mbap;

use super::tunnel::Pipe;
use super::world::{Happening, World};

/// A connection to the PLC, never used twice.
pub(super) type Line = u64;

#[derive(Debug)]
pub(super) struct Plc {
    pub(super) lines: BTreeMap<Line, Served>,
    /// Without power until then.
    pub(super) off_until: Instant,
}

#[derive(Debug)]
pub(super) struct Served {
    input: Vec<u8>,
    work: VecDeque<(u16, u8, Vec<u8>)>,
    busy: bool,
    /// The edge has closed its side: what it sent is carried out all the same, then the PLC closes.
    left: bool,
    pipe: Pipe,
}

impl World {
    pub(super) fn new_line(&mut self) -> Line {
        self.lines += 1;
        self.to_plc.insert(self.lines, Pipe::new(self.now));
        self.lines
    }

    pub(super) fn write_line(&mut self, line: Line, bytes: Vec<u8>) {
        let after = self.dice.millis(0..3);
        let at = self
            .to_plc
            .get_mut(&line)
            .unwrap()
            .arrival(self.now + after);
        self.at(at, Happening::ToPlc { line, bytes });
    }

    /// What was written before still arrives, and is carried out.
    pub(super) fn edge_left_line(&mut self, line: Line) {
        let at = self.to_plc.get_mut(&line).unwrap().arrival(self.now);
        self.at(at, Happening::EdgeLeft { line });
    }

    pub(super) fn edge_has_left(&mut self, line: Line) {
        let Some(served) = self.plc.lines.get_mut(&line) else {
            // It does not know the connection, or has no power to say so.
            if self.now >= self.plc.off_until {
                let after = self.dice.millis(0..3);
                self.later(after, Happening::LineClosed { line });
            }
            return;
        };
        served.left = true;
        if !served.busy {
            self.plc_closes(line);
        }
    }

    pub(super) fn plc_connect(&mut self, line: Line) {
        let taken = self.now >= self.plc.off_until && !(self.faults && self.dice.percent(10));
        if taken {
            let served = Served {
                input: Vec::new(),
                work: VecDeque::new(),
                busy: false,
                left: false,
                pipe: Pipe::new(self.now),
            };
            self.plc.lines.insert(line, served);
        }
        let after = self.dice.millis(0..5);
        self.later(after, Happening::LineOpened { line, taken });
    }

    pub(super) fn plc_hears(&mut self, line: Line, bytes: &[u8]) {
        let Some(served) = self.plc.lines.get_mut(&line) else {
            // With power again, it does not know the connection.
            if self.now >= self.plc.off_until {
                let after = self.dice.millis(0..3);
                self.later(after, Happening::LineClosed { line });
            }
            return;
        };
        served.input.extend_from_slice(bytes);
        while let Some((adu, used)) = mbap::decode(&served.input).expect("the edge speaks Modbus") {
            if let &[6, _, _, high, low] = adu.pdu {
                self.ledger
                    .received(u16::from_be_bytes([high, low]), adu.unit);
            }
            let request = (adu.transaction, adu.unit, adu.pdu.to_vec());
            served.work.push_back(request);
            served.input.drain(..used);
        }
        if !served.busy {
            served.busy = true;
            let after = self.dice.millis(1..40);
            self.later(after, Happening::PlcWorks { line });
        }
    }

    pub(super) fn plc_works(&mut self, line: Line) {
        let Some(served) = self.plc.lines.get_mut(&line) else {
            return;
        };
        let Some((transaction, unit, pdu)) = served.work.pop_front() else {
            served.busy = false;
            if served.left {
                self.plc_closes(line);
            }
            return;
        };
        let mut next = self.dice.millis(1..40);
        let mood = if self.faults { self.dice.roll(100) } else { 99 };
        match mood {
            0..=2 => {
                self.ledger.refused();
                self.plc_says(line, transaction, unit, &[pdu[0] | 0x80, 4], Duration::ZERO);
            }
            3 => {}
            4 => {
                self.plc_does(unit, &pdu);
            }
            5 => self.plc_closes(line),
            6 => {
                self.plc_does(unit, &pdu);
                self.plc_closes(line);
            }
            // An id near enough to be another request's in flight is one that nobody can tell.
            7 => {
                let answer = self.plc_does(unit, &pdu);
                self.plc_says(
                    line,
                    transaction.wrapping_add(0x4000),
                    unit,
                    &answer,
                    Duration::ZERO,
                );
            }
            8 => {
                let mut answer = self.plc_does(unit, &pdu);
                answer.push(0);
                self.plc_says(line, transaction, unit, &answer, Duration::ZERO);
            }
            9..=14 => {
                let answer = self.plc_does(unit, &pdu);
                let late = self.dice.millis(50..900);
                next += late;
                self.plc_says(line, transaction, unit, &answer, late);
            }
            _ => {
                let answer = self.plc_does(unit, &pdu);
                self.plc_says(line, transaction, unit, &answer, Duration::ZERO);
            }
        }
        self.later(next, Happening::PlcWorks { line });
    }

    fn plc_does(&mut self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        match *pdu {
            [3, high, low, ..] => {
                let moment = self.ledger.read(unit).to_be_bytes();
                [&[3, 6, high, low][..], &moment].concat()
            }
            [6, .., high, low] => {
                self.ledger.wrote(u16::from_be_bytes([high, low]), self.now);
                pdu.to_vec()
            }
            _ => panic!("nobody asked {pdu:02x?}"),
        }
    }

    fn plc_says(&mut self, line: Line, transaction: u16, unit: u8, pdu: &[u8], late: Duration) {
        let mut bytes = Vec::new();
        mbap::encode(&mut bytes, transaction, unit, pdu);
        let after = late + self.dice.millis(0..3);
        let cut = self.dice.roll(bytes.len() as u64) as usize;
        let Some(served) = self.plc.lines.get_mut(&line) else {
            return;
        };
        let at = served.pipe.arrival(self.now + after);
        let tail = bytes.split_off(cut);
        for bytes in [bytes, tail] {
            self.at(at, Happening::FromPlc { line, bytes });
        }
    }

    /// After what it said already.
    pub(super) fn plc_closes(&mut self, line: Line) {
        if let Some(mut served) = self.plc.lines.remove(&line) {
            let after = self.dice.millis(0..3);
            let at = served.pipe.arrival(self.now + after);
            self.at(at, Happening::LineClosed { line });
        }
    }

    pub(super) fn power_cycle(&mut self) {
        self.plc.off_until = self.now + self.dice.millis(1..1500);
        let lines: Vec<Line> = self.plc.lines.keys().copied().collect();
        for line in lines {
            // Without a word, or with a reset.
            if self.dice.percent(50) {
                self.plc_closes(line);
            } else {
                self.plc.lines.remove(&line);
            }
        }
    }
}
