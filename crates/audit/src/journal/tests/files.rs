//! The log as its files: chained, signed, closed, dropped, cut.

use std::io::BufReader;

use super::*;
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
