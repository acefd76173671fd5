//! Whether a log is what its agent wrote: complete, unchanged, in order.
//!
//! The chain shows any change inside a log. It can't show that the end was cut off, or that all
//! of it was made anew: checkpoints do, which are signed, and which the other end of the tunnel
//! has on record as well.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

use crate::chain::{Hash, Link};
use crate::record::{Head, Kind, Record, Ticket};
use crate::recover::read_line;

/// Reads the files of one log in their order ([`log_files`](crate::log_files)) and stops at
/// the first thing that is not as it was written.
#[derive(Debug, Default)]
pub struct Verifier {
    agent: Option<Arc<str>>,
    /// The last record read.
    last: Option<(Ticket, Hash)>,
    /// The first line, until it is known what came before it.
    first: Option<(Place, Vec<u8>)>,
    /// What other logs know of this one.
    told: BTreeMap<Ticket, (Hash, String)>,
    summary: Summary,
}

/// What was found in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `seq` of the first and last record.
    pub first: Ticket,
    pub last: Ticket,
    /// Checkpoints in this log.
    pub checkpoints: u64,
    /// Checkpoints of this log in others that agree with it.
    pub confirmed: u64,
    /// The last record that such a checkpoint covers.
    pub confirmed_to: Ticket,
    /// Bytes after the last complete line.
    pub torn: u64,
}

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As the caller named it.
    pub file: String,
    /// From 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The first thing that is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    #[error("{0}: not an audit record")]
    NoRecord(Place),
    #[error("{place}: record {seq} has no hash: it was not written by this version, or altered")]
    NoHash { place: Place, seq: Ticket },
    #[error("{place}: record {seq} was changed, or what came before it")]
    Changed { place: Place, seq: Ticket },
    #[error("{place}: record {got} where {expected} belongs: records were removed, added or moved")]
    Sequence {
        place: Place,
        expected: Ticket,
        got: Ticket,
    },
    #[error("{place}: a record of {got:?} in the log of {expected:?}")]
    Agent {
        place: Place,
        expected: String,
        got: String,
    },
    #[error("{place}: the checkpoint is not about the record before it")]
    Checkpoint { place: Place },
    #[error(
        "{place}: the log begins with record {seq}, and no record says that those before were \
         dropped: give all files of the log (its directory)"
    )]
    Beginning { place: Place, seq: Ticket },
    #[error("{place}: record {seq} is not the one that {by} has on record")]
    Disowned {
        place: Place,
        seq: Ticket,
        by: String,
    },
    #[error(
        "the log ends with record {last}, but {by} has record {seq} of it on record: \
         the end was cut off, or an older log put in its place"
    )]
    Shorter {
        last: Ticket,
        seq: Ticket,
        by: String,
    },
    #[error("no audit records")]
    Empty,
}

impl Verifier {
    pub fn new() -> Self {
        Self::default()
    }

    /// Another log, called `by`, has this place of a log on record: that of `agent`, or of any
    /// where the verifier does not know its agent yet.
    pub fn told(&mut self, head: &Head, by: &str) {
        self.told.insert(head.seq, (head.hash, by.to_owned()));
    }

    /// Reads a file to its end. `seen` gets each record that is in order.
    pub fn file(
        &mut self,
        name: &str,
        mut log: impl BufRead,
        is_current: bool,
        mut seen: impl FnMut(&Place, &Record),
    ) -> Result<(), Fault> {
        let mut line = Vec::new();
        for number in 1.. {
            let length = read_line(&mut log, &mut line).map_err(|source| Fault::Io {
                file: name.to_owned(),
                source,
            })?;
            if length == 0 {
                break;
            }
            let place = Place {
                file: name.to_owned(),
                line: number,
            };
            if line.pop_if(|octet| *octet == b'\n').is_none() {
                // The agent may be writing just now, or was killed; it cuts this off itself.
                if !is_current {
                    return Err(Fault::NoRecord(place));
                }
                self.summary.torn = length;
                break;
            }
            let record = self.line(&place, &line)?;
            seen(&place, &record);
        }
        Ok(())
    }

    fn line(&mut self, place: &Place, line: &[u8]) -> Result<Record, Fault> {
        let record: Record =
            serde_json::from_slice(line).map_err(|_| Fault::NoRecord(place.clone()))?;
        let seq = record.seq;
        self.check_agent(place, &record)?;
        let before = match self.last {
            Some((last, hash)) if last.checked_add(1) == Some(seq) => Some(hash),
            Some((last, _)) => {
                return Err(Fault::Sequence {
                    place: place.clone(),
                    expected: last.saturating_add(1),
                    got: seq,
                });
            }
            None => (seq == 1).then_some(Hash::NONE),
        };
        let hash = check_link(place, seq, line, before.as_ref())?;
        if self.last.is_none() {
            self.summary.first = seq;
            if before.is_none() {
                self.first = Some((place.clone(), line.to_vec()));
            }
        }
        self.check_head(place, &record)?;
        if let Some((told, by)) = self.told.get(&seq) {
            if *told != hash {
                return Err(Fault::Disowned {
                    place: place.clone(),
                    seq,
                    by: by.clone(),
                });
            }
            self.summary.confirmed += 1;
            self.summary.confirmed_to = seq;
        }
        self.last = Some((seq, hash));
        Ok(record)
    }

    fn check_agent(&mut self, place: &Place, record: &Record) -> Result<(), Fault> {
        let got = record.agent.clone().unwrap_or_else(|| "".into());
        let expected = self.agent.get_or_insert_with(|| Arc::clone(&got));
        if *expected == got {
            return Ok(());
        }
        Err(Fault::Agent {
            place: place.clone(),
            expected: expected.to_string(),
            got: got.to_string(),
        })
    }

    /// Checks what a record of this log says about the chain.
    fn check_head(&mut self, place: &Place, record: &Record) -> Result<(), Fault> {
        let Some(head) = &record.head else {
            return Ok(());
        };
        if record.kind == Kind::Checkpoint {
            self.summary.checkpoints += 1;
            let is_before = match self.last {
                Some((seq, hash)) => (head.seq, head.hash) == (seq, hash),
                // The file before may have been dropped; its end is checked by that record.
                None => head.seq.checked_add(1) == Some(record.seq),
            };
            if !is_before {
                return Err(Fault::Checkpoint {
                    place: place.clone(),
                });
            }
        }
        if record.kind == Kind::SegmentDropped
            && head.seq.checked_add(1) == Some(self.summary.first)
            && let Some((first, line)) = self.first.take()
        {
            check_link(&first, self.summary.first, &line, Some(&head.hash))?;
        }
        Ok(())
    }

    /// After the last file.
    pub fn finish(mut self) -> Result<Summary, Fault> {
        let Some((last, _)) = self.last else {
            return Err(Fault::Empty);
        };
        if let Some((place, _)) = self.first.take() {
            return Err(Fault::Beginning {
                place,
                seq: self.summary.first,
            });
        }
        if let Some((seq, (_, by))) = self.told.last_key_value()
            && *seq > last
        {
            return Err(Fault::Shorter {
                last,
                seq: *seq,
                by: by.clone(),
            });
        }
        self.summary.last = last;
        Ok(self.summary)
    }
}

/// The hash that `line` states, after a check that it comes after the one with the hash
/// `before`, where that is known.
fn check_link(
    place: &Place,
    seq: Ticket,
    line: &[u8],
    before: Option<&Hash>,
) -> Result<Hash, Fault> {
    match Link::of(line, before.unwrap_or(&Hash::NONE)) {
        Link::Stated { hash, fits } if fits || before.is_none() => Ok(hash),
        Link::Stated { .. } => Err(Fault::Changed {
            place: place.clone(),
            seq,
        }),
        Link::Absent => Err(Fault::NoHash {
            place: place.clone(),
            seq,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    /// A log of `count` records, a checkpoint every tenth.
    fn log(count: u64) -> Vec<String> {
        let mut head = Hash::NONE;
        let lines = (1..=count).map(|seq| {
            let mut record = Record::new(Kind::Denied);
            if seq % 10 == 0 {
                record.kind = Kind::Checkpoint;
                record.head = Some(Box::new(Head::new(seq - 1, head)));
            }
            write(record, seq, &mut head)
        });
        lines.collect()
    }

    fn write(record: Record, seq: u64, head: &mut Hash) -> String {
        let record = Record {
            seq,
            agent: Some("press-07".into()),
            ..record
        };
        let mut line = serde_json::to_vec(&record).unwrap();
        *head = chain::seal(&mut line, 0, head);
        String::from_utf8(line).unwrap()
    }

    fn hash_of(line: &str) -> Hash {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        Hash::parse(record["hash"].as_str().unwrap().as_bytes()).unwrap()
    }

    fn verify(lines: &[String]) -> Result<Summary, Fault> {
        verify_told(lines, &[])
    }

    fn verify_told(lines: &[String], told: &[Head]) -> Result<Summary, Fault> {
        let mut verifier = Verifier::new();
        for head in told {
            verifier.told(head, "hd-1");
        }
        let text = lines.concat();
        verifier.file("audit.jsonl", text.as_bytes(), true, |_, _| {})?;
        verifier.finish()
    }

    #[test]
    fn a_whole_log_passes() {
        let summary = verify(&log(25)).unwrap();
        assert_eq!((summary.first, summary.last), (1, 25));
        assert_eq!((summary.checkpoints, summary.torn), (2, 0));
    }

    #[test]
    fn every_flipped_bit_shows() {
        let whole = log(12).concat().into_bytes();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let mut verifier = Verifier::new();
                let read = verifier.file("log", &changed[..], true, |_, _| {});
                // Only the last newline can go without a trace of its own: as a torn end.
                let torn = verifier.summary.torn > 0 && at == whole.len() - 1;
                assert!(read.is_err() || torn, "octet {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn dropped_doubled_and_swapped_records_show() {
        let whole = log(25);
        for at in 0..whole.len() - 1 {
            let mut dropped = whole.clone();
            dropped.remove(at);
            assert!(verify(&dropped).is_err(), "without {at}");
            let mut doubled = whole.clone();
            doubled.insert(at, whole[at].clone());
            assert!(verify(&doubled).is_err(), "twice {at}");
            let mut swapped = whole.clone();
            swapped.swap(at, at + 1);
            assert!(verify(&swapped).is_err(), "{at} swapped");
        }
    }

    #[test]
    fn a_cut_end_shows_in_what_the_other_end_knows() {
        let whole = log(25);
        let told = Head::new(20, hash_of(&whole[19]));
        let summary = verify_told(&whole, std::slice::from_ref(&told)).unwrap();
        assert_eq!((summary.confirmed, summary.confirmed_to), (1, 20));
        assert!(verify(&whole[..19]).is_ok());
        let fault = verify_told(&whole[..19], std::slice::from_ref(&told)).unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::Shorter {
                    last: 19,
                    seq: 20,
                    ..
                }
            ),
            "{fault}"
        );
    }

    #[test]
    fn a_log_made_anew_shows_in_what_the_other_end_knows() {
        let whole = log(25);
        let told = Head::new(20, hash_of(&whole[19]));
        let mut head = Hash::NONE;
        let anew: Vec<_> = (1..=25)
            .map(|seq| write(Record::new(Kind::Start), seq, &mut head))
            .collect();
        assert!(verify(&anew).is_ok());
        let fault = verify_told(&anew, &[told]).unwrap_err();
        assert!(matches!(fault, Fault::Disowned { seq: 20, .. }), "{fault}");
    }

    #[test]
    fn a_log_may_begin_where_a_record_says_that_the_rest_was_dropped() {
        let mut whole = log(25);
        let mut head = hash_of(&whole[24]);
        let dropped = Record {
            head: Some(Box::new(Head::new(11, hash_of(&whole[10])))),
            ..Record::new(Kind::SegmentDropped)
        };
        whole.push(write(dropped, 26, &mut head));
        let summary = verify(&whole[11..]).unwrap();
        assert_eq!((summary.first, summary.last), (12, 26));

        let fault = verify(&whole[12..]).unwrap_err();
        assert!(matches!(fault, Fault::Beginning { seq: 13, .. }), "{fault}");
        let mut changed = whole[11..].to_vec();
        changed[0] = changed[0].replace("denied", "Denied");
        assert!(verify(&changed).is_err());
    }

    #[test]
    fn a_log_without_hashes_is_not_taken_for_a_good_one() {
        let bare = vec![r#"{"v":1,"seq":1,"agent":"a","kind":"start"}"#.to_owned() + "\n"];
        let fault = verify(&bare).unwrap_err();
        assert!(matches!(fault, Fault::NoHash { seq: 1, .. }), "{fault}");
        assert!(matches!(verify(&[]), Err(Fault::Empty)));
        let nonsense = vec!["GET / HTTP/1.1\r\n".to_owned()];
        assert!(matches!(verify(&nonsense), Err(Fault::NoRecord(_))));
    }
}
