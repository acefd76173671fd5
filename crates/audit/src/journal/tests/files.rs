//! The log as its files: chained, signed, closed, dropped, cut.

use std::io::BufReader;

use super::*;
use crate::class::Budget;
use crate::denial::DenialFilter;
use crate::segment::{WhenFull, log_files, segments};
use crate::verify::{Fault, Summary, Verifier};

#[test]
fn what_a_journal_writes_verifies_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let (journal, found) = open(dir.path()).unwrap();
        assert_eq!(found.broken, None);
        for _ in 0..5 {
            journal.append(intent()).unwrap();
        }
        journal.close(SOON).unwrap();
        assert_eq!(verify(dir.path()).unwrap().last, run * 5);
    }
}

#[test]
fn a_crash_at_any_byte_leaves_a_log_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    for _ in 0..4 {
        journal.append(intent()).unwrap();
    }
    journal.close(SOON).unwrap();
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let (journal, _) = open(dir.path()).unwrap();
        journal.append(intent()).unwrap();
        journal.close(SOON).unwrap();
        verify(dir.path()).unwrap_or_else(|fault| panic!("cut at {cut}: {fault}"));
    }
}

#[test]
fn a_changed_log_is_told_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    for _ in 0..3 {
        journal.append(intent()).unwrap();
    }
    journal.close(SOON).unwrap();
    let path = dir.path().join("audit.jsonl");
    let changed = fs::read_to_string(&path)
        .unwrap()
        .replacen("press", "PRESS", 3);
    fs::write(&path, changed).unwrap();

    let (journal, found) = open(dir.path()).unwrap();
    assert_eq!(found.broken, Some(1));
    journal.close(SOON).unwrap();
    let last = records(dir.path()).pop().unwrap();
    assert_eq!(last["kind"], "chain-broken");
    let fault = verify(dir.path()).unwrap_err();
    assert!(matches!(fault, Fault::Changed { seq: 1, .. }), "{fault}");
}

#[test]
fn files_are_closed_at_their_size_and_the_oldest_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 2_000,
        max_bytes: 10_000,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    let mut files = 0;
    for _ in 0..200 {
        append_durably(&journal, &progress);
        let bytes: u64 = log_files(dir.path())
            .unwrap()
            .iter()
            .map(|file| fs::metadata(file).map_or(0, |about| about.len()))
            .sum();
        // The file that is being dropped while its successor is begun.
        assert!(bytes <= limits.max_bytes + limits.segment_bytes, "{bytes}");
        files = files.max(segments(dir.path()).unwrap().len());
    }
    journal.close(SOON).unwrap();
    assert!(files >= 3, "{files}");
    let summary = verify(dir.path()).unwrap();
    assert!(summary.first > 1);
    assert!(summary.last > 200);

    let (journal, found) = open(dir.path()).unwrap();
    assert_eq!((found.next_seq, found.broken), (summary.last + 1, None));
    journal.close(SOON).unwrap();
}

#[test]
fn a_full_log_that_may_not_drop_anything_stops_until_files_are_moved() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 2_000,
        max_bytes: 6_000,
        when_full: WhenFull::Stop,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    while journal.append(intent()).is_ok() {
        progress.recv_timeout(SOON).unwrap();
    }
    let State::Failed { error, .. } = journal.state() else {
        panic!("not full");
    };
    assert!(error.contains("max_size"), "{error}");
    assert_eq!(verify(dir.path()).unwrap().first, 1);

    let elsewhere = tempfile::tempdir().unwrap();
    for closed in segments(dir.path()).unwrap() {
        let name = closed.path.file_name().unwrap();
        fs::rename(&closed.path, elsewhere.path().join(name)).unwrap();
    }
    wait_for(&progress, Progress::Recovered);
    append_durably(&journal, &progress);
    journal.close(SOON).unwrap();

    for closed in segments(elsewhere.path()).unwrap() {
        let name = closed.path.file_name().unwrap();
        fs::rename(&closed.path, dir.path().join(name)).unwrap();
    }
    assert_eq!(verify(dir.path()).unwrap().first, 1);
}

#[test]
fn a_file_is_closed_at_its_age() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_age: Duration::ZERO,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    for _ in 0..3 {
        append_durably(&journal, &progress);
    }
    journal.close(SOON).unwrap();
    assert_eq!(segments(dir.path()).unwrap().len(), 3);
    assert_eq!(verify(dir.path()).unwrap().last, 3);
}

#[test]
fn an_intent_in_a_closed_file_is_still_open_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_age: Duration::ZERO,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    append_durably(&journal, &progress);
    journal.close(SOON).unwrap();
    let (journal, found) = open(dir.path()).unwrap();
    assert_eq!(found.unfinished.len(), 1);
    journal.close(SOON).unwrap();
}

#[test]
fn checkpoints_sign_what_is_before_them_and_show_the_certificate_once_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, progress) = open_with(dir.path(), Limits::default());
    journal.set_signer(Arc::new(FakeSigner));
    append_durably(&journal, &progress);
    let deadline = Instant::now() + SOON;
    while journal.checkpoint_after(0).is_none() {
        assert!(Instant::now() < deadline, "none at the start");
        let _ = progress.recv_timeout(SYNC_WITHIN);
    }
    append_durably(&journal, &progress);
    journal.close(SOON).unwrap();

    let log = records(dir.path());
    let kinds: Vec<_> = log
        .iter()
        .map(|record| record["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["write-intent", "checkpoint", "write-intent", "checkpoint"]
    );
    let head = &log[1]["head"];
    let hash = Hash::parse(head["hash"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(head["signature"], *signed_text("press-07", 1, &hash));
    assert_eq!(head["certificate"], "certificate");
    assert_eq!(log[3]["head"]["certificate"], serde_json::Value::Null);
    assert_eq!(journal.checkpoint_after(2).unwrap().seq, 3);
    assert_eq!(verify(dir.path()).unwrap().checkpoints, 2);
}

#[test]
fn checkpoints_of_two_idle_ends_do_not_call_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    journal.set_signer(Arc::new(FakeSigner));
    journal.append(Record::new(Kind::PeerCheckpoint)).unwrap();
    journal.close(SOON).unwrap();
    assert_eq!(records(dir.path()).len(), 1);
}

/// Whoever connects and goes away thousands of times a second, for as long as he likes.
#[test]
fn a_flood_of_strangers_leaves_the_records_of_writes_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 64 * 1024,
        max_bytes: 256 * 1024,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    append_durably(&journal, &progress);
    let start = Instant::now();
    let (mut filter, mut budget) = (DenialFilter::new(), Budget::new(limits.max_bytes, start));
    let mut write = |now, record: Record| {
        if budget.handle_record(now, &record) {
            let _ = journal.append(record);
        }
    };
    // A day, from a new address each second.
    for second in 0..86_400_u32 {
        let now = start + second * Duration::from_secs(1);
        while let Some(record) = filter.poll_record(now) {
            write(now, record);
        }
        for _ in 0..3 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + second);
            let client = Party {
                address: Some(address.into()),
                ..Party::default()
            };
            let opened = Record {
                client: Some(Arc::new(client)),
                ..Record::new(Kind::ClientOpen)
            };
            if let Some(record) = filter.handle_denial(now, opened) {
                write(now, record);
            }
        }
    }
    append_durably(&journal, &progress);
    journal.close(SOON).unwrap();
    assert_eq!(verify(dir.path()).unwrap().first, 1);
    let bytes: u64 = log_files(dir.path())
        .unwrap()
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(bytes < limits.max_bytes / 8, "{bytes}");
}

#[test]
fn strangers_have_no_part_of_the_second_half_of_a_log_that_may_not_drop_anything() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 2_000,
        max_bytes: 20_000,
        when_full: WhenFull::Stop,
        ..Limits::default()
    };
    let (journal, progress) = open_with(dir.path(), limits);
    let mut strangers = 0;
    while !journal.is_filling() {
        let ticket = journal.append(stranger()).unwrap();
        append_durably(&journal, &progress);
        assert!(journal.durable() > ticket);
        strangers += 1;
    }
    let bytes = |dir: &Path| -> u64 {
        let files = log_files(dir).unwrap().into_iter();
        files.map(|file| fs::metadata(file).unwrap().len()).sum()
    };
    assert!(strangers > 5, "{strangers}");
    assert!((10_000..12_000).contains(&bytes(dir.path())));
    for _ in 0..20 {
        append_durably(&journal, &progress);
    }
    journal.close(SOON).unwrap();
}

/// A clock that says what the test wants.
#[derive(Debug)]
struct Told(Mutex<Stamp>);

impl Told {
    /// So many days after the epoch; `known_to_be` is what a wrong system clock says.
    fn set(&self, day: u64, known_to_be: Option<u64>) {
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        *self.0.lock().unwrap() = Stamp {
            time: at(day),
            system: known_to_be.map(at),
        };
    }
}

impl Clock for Told {
    fn stamp(&self) -> Stamp {
        *self.0.lock().unwrap()
    }
}

const DAY_0: u64 = 20_000;

/// A log with a file a record that is kept for 730 days, and its clock.
fn kept_for_two_years(dir: &Path, day: u64, wrong: Option<u64>) -> (Journal, Arc<Told>) {
    let clock = Arc::new(Told(Mutex::new(SystemClock.stamp())));
    clock.set(day, wrong);
    let options = Options {
        limits: Limits {
            segment_age: Duration::ZERO,
            keep: Some(Duration::from_secs(730 * 86_400)),
            ..Limits::default()
        },
        clock: clock.clone(),
        ..options(dir)
    };
    let (journal, _) = Journal::open(options, |_| {}).unwrap();
    (journal, clock)
}

fn append_one(journal: &Journal) {
    let ticket = journal.append(intent()).unwrap();
    let deadline = Instant::now() + SOON;
    while journal.durable() < ticket {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn a_clock_that_is_known_to_be_wrong_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = kept_for_two_years(dir.path(), DAY_0, None);
    (0..3).for_each(|_| append_one(&journal));
    journal.close(SOON).unwrap();

    // Started with a clock three years ahead, and one at 1970.
    for wrong in [DAY_0 + 1_100, 0] {
        let (journal, _) = kept_for_two_years(dir.path(), DAY_0 + 1, Some(wrong));
        append_one(&journal);
        journal.close(SOON).unwrap();
        assert_eq!(verify(dir.path()).unwrap().first, 1);
        let last = records_of(dir.path()).pop().unwrap();
        let time = last.time.unwrap();
        assert_eq!(time, SystemTime::UNIX_EPOCH + (DAY_0 as u32 + 1) * DAY);
        assert_eq!(
            last.clock.unwrap(),
            SystemTime::UNIX_EPOCH + wrong as u32 * DAY
        );
    }

    // Three years later they are too old, and go.
    let (journal, _) = kept_for_two_years(dir.path(), DAY_0 + 1_100, None);
    (0..2).for_each(|_| append_one(&journal));
    journal.close(SOON).unwrap();
    assert!(verify(dir.path()).unwrap().first > 1);
    assert_eq!(records_of(dir.path()).pop().unwrap().clock, None);
}

#[test]
fn a_file_that_an_early_clock_dated_is_as_old_as_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, clock) = kept_for_two_years(dir.path(), DAY_0, None);
    append_one(&journal);
    // As before 0.2, where nobody knew that it was wrong.
    clock.set(100, None);
    append_one(&journal);
    clock.set(DAY_0 + 1, None);
    (0..2).for_each(|_| append_one(&journal));
    journal.close(SOON).unwrap();
    assert_eq!(verify(dir.path()).unwrap().first, 1);
}

const DAY: Duration = Duration::from_secs(86_400);

fn records_of(dir: &Path) -> Vec<Record> {
    let files = log_files(dir).unwrap().into_iter();
    let text: String = files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

struct FakeSigner;

impl Sign for FakeSigner {
    fn certificate(&self) -> Box<str> {
        "certificate".into()
    }

    fn sign(&self, text: &str) -> Option<Box<str>> {
        Some(text.into())
    }
}

fn open_with(dir: &Path, limits: Limits) -> (Journal, Receiver<Progress>) {
    let (sender, progress) = mpsc::channel();
    let options = Options {
        limits,
        ..options(dir)
    };
    let (journal, _) = Journal::open(options, forward(sender)).unwrap();
    (journal, progress)
}

fn append_durably(journal: &Journal, progress: &Receiver<Progress>) {
    let ticket = journal.append(intent()).unwrap();
    while journal.durable() < ticket {
        progress.recv_timeout(SOON).unwrap();
    }
}

fn verify(dir: &Path) -> Result<Summary, Fault> {
    let files = log_files(dir).unwrap();
    let mut verifier = Verifier::new();
    for (index, file) in files.iter().enumerate() {
        let name = file.display().to_string();
        let source = fs::File::open(file).map_err(|source| Fault::Io {
            file: name.clone(),
            source,
        })?;
        let is_current = index + 1 == files.len();
        verifier.file(&name, BufReader::new(source), is_current, |_, _| {})?;
    }
    verifier.finish()
}
