//! What clients were told against what the PLC did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::load::{Note, Said};
use super::plc::Made;

/// The account of one run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    pub requests: usize,
    pub good: usize,
    pub exceptions: BTreeMap<u8, usize>,
    /// Requests whose connection ended, or to which nothing came.
    pub nothing: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
    /// Between one good answer and the next, of all clients together.
    pub outage: Duration,
    /// From the end of the fault to the next good answer.
    pub back: Option<Duration>,
    pub wrongs: Wrongs,
    /// Writes of which the client does not know what came of them, and how many of these were made.
    pub unknown: usize,
    pub unknown_made: usize,
}

/// What must not happen, ever.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Wrongs {
    /// Writes that were made more than once.
    pub twice: usize,
    /// Writes that were reported done and were not.
    pub not_made: usize,
    /// Writes that were reported refused or not sent, and were made.
    pub made_anyway: usize,
    /// Answers to something else.
    pub answers: usize,
    /// Writes that nobody asked for.
    pub invented: usize,
}

impl Account {
    /// `ended` is when the fault was over.
    pub fn of(notes: &[Note], made: &Made, ended: Instant) -> Self {
        let mut account = Self {
            requests: notes.len(),
            ..Self::default()
        };
        let mut times = Vec::new();
        let mut arrived = Vec::new();
        for note in notes {
            match note.said {
                Said::Good => {
                    account.good += 1;
                    times.push(note.took);
                    arrived.push(note.asked + note.took);
                }
                Said::Exception(code) => *account.exceptions.entry(code).or_default() += 1,
                Said::Nothing => account.nothing += 1,
                Said::Wrong => account.wrongs.answers += 1,
            }
        }
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len().saturating_sub(1) as f64 * share).round();
            times.get(place as usize).copied().unwrap_or_default()
        };
        (account.p50, account.p99, account.longest) = (at(0.5), at(0.99), at(1.0));
        arrived.sort_unstable();
        let gaps = arrived.windows(2).map(|pair| pair[1] - pair[0]);
        account.outage = gaps.max().unwrap_or_default();
        let next = arrived.iter().find(|at| **at >= ended);
        account.back = next.map(|at| *at - ended);
        account.compare(notes, made);
        account
    }

    fn compare(&mut self, notes: &[Note], made: &Made) {
        let mut asked = 0;
        for note in notes {
            let Some(write) = note.write else { continue };
            let times = made.get(&write).copied().unwrap_or(0);
            asked += usize::from(times > 0);
            self.wrongs.twice += usize::from(times > 1);
            match note.said {
                Said::Good => self.wrongs.not_made += usize::from(times == 0),
                // 0x0B says that nobody knows.
                Said::Exception(code) if code != 0x0B => {
                    self.wrongs.made_anyway += usize::from(times > 0);
                }
                Said::Exception(_) | Said::Nothing | Said::Wrong => {
                    self.unknown += 1;
                    self.unknown_made += usize::from(times > 0);
                }
            }
        }
        self.wrongs.invented = made.len() - asked;
    }

    pub fn is_honest(&self) -> bool {
        self.wrongs == Wrongs::default()
    }

    #[track_caller]
    pub fn assert_honest(&self) {
        assert_eq!(self.wrongs, Wrongs::default(), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_is_found() {
        let asked = Instant::now();
        let note = |write, said| Note {
            asked,
            took: Duration::from_millis(1),
            write: Some(write),
            said,
        };
        let notes = [
            note(1, Said::Good),
            note(2, Said::Good),
            note(3, Said::Good),
            note(4, Said::Exception(6)),
            note(5, Said::Exception(0x0B)),
            note(6, Said::Nothing),
            note(7, Said::Exception(0x0A)),
            note(8, Said::Wrong),
        ];
        let made = Made::from([(1, 1), (2, 2), (4, 1), (5, 1), (9, 1)]);
        let account = Account::of(&notes, &made, asked);
        let expected = Wrongs {
            twice: 1,
            not_made: 1,
            made_anyway: 1,
            answers: 1,
            invented: 1,
        };
        assert_eq!(account.wrongs, expected);
        assert_eq!((account.unknown, account.unknown_made), (3, 1));
        assert_eq!(account.back, Some(Duration::from_millis(1)));
    }
}
