//! Where the log ended, and which writes it left open.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;

use crate::chain::{Hash, Link};
use crate::record::{Kind, Record, Ticket};
use crate::segment::MAX_LINE;

/// Intents kept while reading, at about 400 bytes each. More than this many writes can't be in
/// flight; further ones stem from a damaged log and are counted only.
const MAX_OPEN: usize = 16_384;

/// An unknown outcome this much older than the end of the log is of a write that the device has done or forgotten.
const STILL_UNKNOWN: Duration = Duration::from_secs(60);

/// Devices with an unknown outcome that are remembered; an edge has no more.
const MAX_DEVICES: usize = 256;

/// What the log of an earlier run holds for this one.
#[derive(Debug, Default, PartialEq)]
pub struct Recovered {
    /// Complete records found in the last closed file and the current one.
    pub records: u64,
    /// The next record's `seq`.
    pub next_seq: Ticket,
    /// Intents without an outcome, oldest first. Their writes may have happened: write
    /// [`Record::unknown_outcome`] for each.
    pub unfinished: Vec<Record>,
    /// Intents without an outcome beyond those in `unfinished`.
    pub unfinished_more: u64,
    /// Devices that may still have a write before them whose outcome is on record as unknown.
    pub unknown: BTreeSet<Box<str>>,
    /// Lines in the middle that are not records. They are left alone.
    pub damaged: u64,
    /// The first record that is not as its chain says.
    pub broken: Option<Ticket>,
    /// Hash of the last record.
    pub head: Hash,
    /// The incomplete end that was cut off, if there was one. The log says so itself.
    pub torn: Option<Torn>,
}

/// An end of the log that is no complete record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Length of the log without it.
    pub at: u64,
    pub bytes: u64,
}

/// The fields that matter for recovery, borrowed from the line.
#[derive(Deserialize)]
struct Line<'a> {
    seq: Ticket,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    time: Option<Cow<'a, str>>,
    #[serde(default)]
    intent: Option<Ticket>,
    #[serde(borrow, default)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    outcome: Option<Cow<'a, str>>,
}

impl Line<'_> {
    fn written_at(&self) -> Option<SystemTime> {
        let time: Timestamp = self.time.as_deref()?.parse().ok()?;
        SystemTime::try_from(time).ok()
    }
}

/// Reads the end of a log, holding one line and the open intents in memory.
#[derive(Debug)]
pub(crate) struct Scan {
    found: Recovered,
    open: BTreeMap<Ticket, Record>,
    /// By device the last unknown outcome of a write, and when the last record was written.
    unknown: BTreeMap<Box<str>, SystemTime>,
    last: Option<SystemTime>,
    /// Of the last record; none yet where the file before is not read.
    before: Option<Hash>,
}

impl Scan {
    pub(crate) fn new() -> Self {
        Self {
            found: Recovered {
                next_seq: 1,
                ..Recovered::default()
            },
            open: BTreeMap::new(),
            unknown: BTreeMap::new(),
            last: None,
            before: None,
        }
    }

    /// Reads one file after the other; only the last may have a torn end. Returns when the
    /// file's first record was written.
    pub(crate) fn file(&mut self, mut log: impl BufRead) -> io::Result<Option<SystemTime>> {
        let mut line = Vec::new();
        let (mut position, mut end_of_good) = (0, 0);
        let mut bad_since_good = 0;
        let mut begun = None;
        self.found.damaged += u64::from(self.found.torn.take().is_some());
        loop {
            let length = read_line(&mut log, &mut line)?;
            if length == 0 {
                break;
            }
            position += length;
            let Some(head) = complete(&line) else {
                bad_since_good += 1;
                continue;
            };
            self.found.damaged += std::mem::take(&mut bad_since_good);
            end_of_good = position;
            begun = begun.or_else(|| head.written_at());
            self.record(&head, &line);
        }
        self.found.torn = (position > end_of_good).then_some(Torn {
            at: end_of_good,
            bytes: position - end_of_good,
        });
        Ok(begun)
    }

    fn record(&mut self, head: &Line<'_>, line: &[u8]) {
        let found = &mut self.found;
        found.records += 1;
        found.next_seq = found.next_seq.max(head.seq.saturating_add(1));
        track(&mut self.open, &mut found.unfinished_more, head, line);
        self.track_unknown(head);
        let found = &mut self.found;
        let expected = match self.before {
            None if head.seq == 1 => Some(Hash::NONE),
            before => before,
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (stated, fits) = match Link::of(line, &expected.unwrap_or(Hash::NONE)) {
            Link::Stated { hash, fits } => (hash, fits || expected.is_none()),
            Link::Absent => (Hash::NONE, false),
        };
        if !fits {
            found.broken.get_or_insert(head.seq);
        }
        self.before = Some(stated);
    }

    fn track_unknown(&mut self, head: &Line<'_>) {
        let written_at = head.written_at();
        self.last = self.last.max(written_at);
        if head.kind == Kind::WriteOutcome.name()
            && head.outcome.as_deref() == Some("unknown")
            && let (Some(device), Some(at)) = (&head.device, written_at)
            && (self.unknown.len() < MAX_DEVICES || self.unknown.contains_key(&**device))
        {
            self.unknown.insert((&**device).into(), at);
        }
    }

    pub(crate) fn finish(mut self) -> Recovered {
        let last = self.last;
        let is_recent = |at: &SystemTime| {
            last.is_some_and(|last| {
                last.duration_since(*at)
                    .is_ok_and(|age| age <= STILL_UNKNOWN)
            })
        };
        self.unknown.retain(|_, at| is_recent(at));
        self.found.unknown = self.unknown.into_keys().collect();
        self.found.unfinished = self.open.into_values().collect();
        self.found.head = self.before.unwrap_or(Hash::NONE);
        self.found
    }
}

/// Reads to the next newline and returns how many bytes that was; of an overlong line `line`
/// keeps only the start, which then can't be a complete record.
pub(crate) fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = 0;
    loop {
        let buffer = log.fill_buf()?;
        if buffer.is_empty() {
            return Ok(length);
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(buffer.len(), |at| at + 1);
        let room = MAX_LINE.saturating_sub(line.len());
        line.extend_from_slice(&buffer[..taken.min(room)]);
        log.consume(taken);
        length += taken as u64;
        if newline.is_some() {
            return Ok(length);
        }
    }
}

fn complete(line: &[u8]) -> Option<Line<'_>> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

fn track(open: &mut BTreeMap<Ticket, Record>, more: &mut u64, head: &Line<'_>, line: &[u8]) {
    if head.kind == Kind::WriteOutcome.name() {
        if let Some(intent) = head.intent {
            open.remove(&intent);
        }
    } else if head.kind == Kind::WriteIntent.name() {
        let Ok(record) = serde_json::from_slice(line) else {
            return;
        };
        open.insert(head.seq, record);
        if open.len() > MAX_OPEN {
            open.pop_first();
            *more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;

    #[test]
    fn an_empty_log_starts_at_one() {
        let found = scan(b"");
        assert_eq!((found.next_seq, found.torn), (1, None));
    }

    #[test]
    fn only_intents_without_outcome_stay_open() {
        let log = lines(&[
            intent(1),
            intent(2),
            Record::write_outcome(1, Outcome::Answered),
            intent(4),
        ]);
        let found = scan(&log);
        let open: Vec<_> = found.unfinished.iter().map(|record| record.seq).collect();
        assert_eq!(open, [2, 4]);
        assert_eq!((found.records, found.next_seq), (4, 5));
    }

    #[test]
    fn devices_with_a_recent_unknown_outcome_are_named() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let outcome = |device: &str, outcome, seconds| Record {
            device: Some(device.into()),
            time: at(seconds),
            ..Record::write_outcome(1, outcome)
        };
        let log = lines(&[
            outcome("long-ago", Outcome::Unknown, 100),
            outcome("press-07", Outcome::Unknown, 140),
            outcome("press-07", Outcome::Answered, 150),
            outcome("press-08", Outcome::Answered, 150),
            Record {
                time: at(200),
                ..Record::new(Kind::Stop)
            },
        ]);
        let unknown: Vec<_> = scan(&log).unknown.into_iter().collect();
        assert_eq!(unknown, ["press-07".into()]);
    }

    #[test]
    fn a_log_cut_at_any_byte_keeps_its_complete_records() {
        let records = [
            intent(1),
            Record::write_outcome(1, Outcome::Answered),
            intent(3),
            intent(4),
        ];
        let log = lines(&records);
        let ends: Vec<usize> = (0..log.len())
            .filter(|&at| log[at] == b'\n')
            .map(|at| at + 1)
            .collect();
        for cut in 0..=log.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let good = whole.checked_sub(1).map_or(0, |last| ends[last]);
            let found = scan(&log[..cut]);
            assert_eq!(found.records, whole as u64, "cut at {cut}");
            assert_eq!(found.next_seq, whole as u64 + 1, "cut at {cut}");
            let torn = (cut > good).then(|| Torn {
                at: good as u64,
                bytes: (cut - good) as u64,
            });
            assert_eq!(found.torn, torn, "cut at {cut}");
            let open = [0, 1, 0, 1, 2][whole];
            assert_eq!(found.unfinished.len(), open, "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_counted_and_zeros_at_the_end_are_torn() {
        let mut log = lines(&[intent(1)]);
        log.extend_from_slice(b"{\"v\":1,\"se\n\0\0\0\n");
        let middle = log.len();
        log.extend_from_slice(&lines(&[intent(2)])[..]);
        assert!(log.len() > middle);
        let good = log.len() as u64;
        log.extend_from_slice(&vec![0; 3 * MAX_LINE]);
        let found = scan(&log);
        assert_eq!((found.damaged, found.records), (2, 2));
        assert_eq!(
            found.torn,
            Some(Torn {
                at: good,
                bytes: 3 * MAX_LINE as u64
            })
        );
    }

    #[test]
    fn open_intents_are_bounded() {
        let total = MAX_OPEN as u64 + 10;
        let log: Vec<u8> = (1..=total).flat_map(|seq| lines(&[intent(seq)])).collect();
        let found = scan(&log);
        assert_eq!(found.unfinished.len(), MAX_OPEN);
        assert_eq!(found.unfinished_more, 10);
        assert_eq!(found.unfinished[0].seq, 11);
    }

    #[test]
    fn the_file_before_is_read_for_open_intents_and_the_chain() {
        let log = lines(&[
            intent(1),
            intent(2),
            Record::write_outcome(1, Outcome::Answered),
        ]);
        let cut = log.iter().position(|&octet| octet == b'\n').unwrap() + 1;
        let mut scan = Scan::new();
        scan.file(&log[..cut]).unwrap();
        scan.file(&log[cut..]).unwrap();
        let found = scan.finish();
        assert_eq!(found.unfinished.len(), 1);
        assert_eq!((found.broken, found.next_seq), (None, 4));

        let mut alone = Scan::new();
        alone.file(&log[cut..]).unwrap();
        assert_eq!(alone.finish().broken, None);
    }

    #[test]
    fn a_changed_record_is_named() {
        let mut log = lines(&[intent(1), intent(2), intent(3)]);
        let at = log.windows(8).rposition(|w| w == b"press-07").unwrap();
        log[at] = b'P';
        assert_eq!(scan(&log).broken, Some(3));
        let at = log.windows(8).position(|w| w == b"press-07").unwrap();
        log[at] = b'P';
        assert_eq!(scan(&log).broken, Some(1));
    }

    fn scan(log: &[u8]) -> Recovered {
        let mut scan = Scan::new();
        scan.file(log).unwrap();
        scan.finish()
    }

    fn intent(seq: u64) -> Record {
        Record {
            seq,
            time: Some(std::time::SystemTime::UNIX_EPOCH),
            device: Some("press-07".into()),
            ..Record::new(Kind::WriteIntent)
        }
    }

    /// `seq` counts on where the record has none.
    fn lines(records: &[Record]) -> Vec<u8> {
        let mut log = Vec::new();
        let (mut last, mut head) = (0, Hash::NONE);
        for record in records {
            last = record.seq.max(last + 1);
            let record = Record {
                seq: last,
                ..record.clone()
            };
            let start = log.len();
            serde_json::to_writer(&mut log, &record).unwrap();
            head = crate::chain::seal(&mut log, start, &head);
        }
        log
    }
}
