use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::*;
use crate::clock::Stamp;
use crate::record::{Outcome, Party};

mod files;

const SOON: Duration = Duration::from_secs(10);

// --- On a real file ---------------------------------------------------------------------

#[test]
fn records_outlast_a_restart_and_open_intents_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (journal, found) = open(&state).unwrap();
    assert_eq!((found.records, found.next_seq), (0, 1));
    let answered = journal.append(intent()).unwrap();
    let open_intent = journal.append(intent()).unwrap();
    journal
        .append(Record::write_outcome(answered, Outcome::Answered))
        .unwrap();
    journal.close(SOON).unwrap();
    assert_eq!(journal.durable(), 3);
    assert_eq!(journal.append(intent()), Err(Unavailable::Failed));

    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("audit.jsonl")), 0o600);

    let (journal, found) = open(&state).unwrap();
    assert_eq!((found.records, found.next_seq, found.torn), (3, 4, None));
    let [unfinished] = &found.unfinished[..] else {
        panic!("{found:?}");
    };
    assert_eq!(unfinished.seq, open_intent);
    assert_eq!(unfinished.agent.as_deref(), Some("press-07"));
    journal.append(unfinished.unknown_outcome()).unwrap();
    journal.close(SOON).unwrap();

    let (journal, found) = open(&state).unwrap();
    assert_eq!(found.unfinished, []);
    journal.close(SOON).unwrap();
    let last = &records(&state)[3];
    assert_eq!(last["outcome"], "unknown");
    assert_eq!(last["intent"], open_intent);
}

#[test]
fn a_torn_end_is_cut_noted_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    for _ in 0..3 {
        journal.append(intent()).unwrap();
    }
    journal.close(SOON).unwrap();
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read(&path).unwrap();
    let last_start = whole.len() - whole.len() / 3;

    for cut in last_start + 1..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (journal, found) = open(dir.path()).unwrap();
        assert_eq!((found.records, found.next_seq), (2, 3), "cut at {cut}");
        let torn = found.torn.unwrap();
        assert_eq!(torn.bytes, (cut - last_start) as u64);
        assert_eq!(journal.append(intent()), Ok(4));
        journal.close(SOON).unwrap();
        let kinds: Vec<_> = records(dir.path())
            .iter()
            .map(|record| record["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            kinds,
            ["write-intent", "write-intent", "torn-tail", "write-intent"]
        );
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(
        matches!(refused, JournalError::Locked { .. }),
        "{refused:?}"
    );
    first.close(SOON).unwrap();
    open(dir.path()).unwrap().0.close(SOON).unwrap();
}

#[test]
fn a_log_that_is_taken_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, progress) = mpsc::channel();
    let (journal, _) = Journal::open(options(dir.path()), forward(sender)).unwrap();
    let first = journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Durable(first));
    fs::remove_file(dir.path().join("audit.jsonl")).unwrap();
    let second = journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Durable(second));
    assert_eq!(journal.state(), State::Ok);
    assert_eq!(records(dir.path())[0]["seq"], second);
    journal.close(SOON).unwrap();
}

#[test]
fn a_log_that_cannot_be_written_fails_and_recovers_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (sender, progress) = mpsc::channel();
    let (journal, _) = Journal::open(options(&state), forward(sender)).unwrap();
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();

    journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Failed);
    assert!(matches!(journal.state(), State::Failed { .. }));
    for _ in 0..3 {
        assert_eq!(journal.append(intent()), Err(Unavailable::Failed));
    }
    assert_eq!(journal.durable(), 0);

    fs::remove_file(&state).unwrap();
    wait_for(&progress, Progress::Recovered);
    assert!(journal.durable() >= 1);
    let next = journal.append(intent()).unwrap();
    journal.close(SOON).unwrap();

    let log = records(&state);
    let gap = log.iter().find(|record| record["kind"] == "audit-gap");
    assert_eq!(gap.unwrap()["count"], 3);
    assert_eq!(log[0]["seq"], 1);
    assert!(log.iter().any(|record| record["seq"] == next));
}

// --- On a disk that does as it is told --------------------------------------------------

#[test]
fn what_arrives_during_a_sync_shares_the_next_one() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    disk.hold_syncs(true);
    journal.append(intent()).unwrap();
    disk.wait_until_syncing();
    for _ in 0..999 {
        journal.append(intent()).unwrap();
    }
    assert_eq!(journal.durable(), 0);
    disk.hold_syncs(false);
    wait_for(&progress, Progress::Durable(1000));
    assert_eq!(disk.syncs(), 2);
    assert_eq!(disk.lines(), 1000);
}

#[test]
fn nothing_is_durable_before_its_sync() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    for _ in 0..50 {
        disk.hold_syncs(true);
        let before = journal.durable();
        let ticket = journal.append(intent()).unwrap();
        disk.wait_until_syncing();
        assert_eq!(journal.durable(), before);
        disk.hold_syncs(false);
        wait_for(&progress, Progress::Durable(ticket));
        assert!(disk.synced_lines() as u64 >= ticket);
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_the_log_says_so() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 8);
    disk.hold_syncs(true);
    journal.append(intent()).unwrap();
    disk.wait_until_syncing();
    for _ in 0..8 {
        journal.append(intent()).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(journal.append(intent()), Err(Unavailable::Full));
    }
    disk.hold_syncs(false);
    wait_for(&progress, Progress::Durable(10));
    let gap = disk.record(9);
    assert_eq!(gap["kind"], "audit-gap");
    assert_eq!(gap["count"], 5);
}

#[test]
fn strangers_leave_half_of_the_queue_to_the_plant() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 8);
    disk.hold_syncs(true);
    journal.append(intent()).unwrap();
    disk.wait_until_syncing();
    let taken = (0..100).filter(|_| journal.append(stranger()).is_ok());
    assert_eq!(taken.count(), 4);
    for _ in 0..4 {
        journal.append(intent()).unwrap();
    }
    disk.hold_syncs(false);
    wait_for(&progress, Progress::Durable(9));
    journal.close(SOON).unwrap();
    assert!(!disk.log().contains("audit-gap"), "{}", disk.log());
}

#[test]
fn after_a_failed_sync_everything_since_the_last_good_one_is_written_again() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    let first = journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Durable(first));
    // The kernel reports the failure once and forgets the pages.
    disk.fail_syncs(1);
    let second = journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Durable(second));
    assert_eq!(disk.synced_lines(), 2);
    assert_eq!(disk.seqs(), [first, second]);
    assert_eq!(journal.state(), State::Ok);
}

#[test]
fn what_became_of_a_write_is_kept_until_the_log_can_be_written_again() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 1);
    disk.fill_up_after(0);
    let intent = journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Failed);
    let outcome = Record {
        intent: Some(intent),
        ..Record::new(Kind::WriteOutcome)
    };
    let outcome = [outcome.clone(), outcome].map(|it| journal.append(it).unwrap());
    assert_eq!(
        journal.append(Record::new(Kind::WriteIntent)),
        Err(Unavailable::Failed)
    );
    disk.fill_up_after(usize::MAX);
    wait_for(&progress, Progress::Recovered);
    journal.close(SOON).unwrap();
    let seqs = disk.seqs();
    assert!(
        seqs.starts_with(&[intent, outcome[0], outcome[1]]),
        "{seqs:?}"
    );
}

#[test]
fn a_write_that_stops_in_the_middle_leaves_no_half_line() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    disk.fill_up_after(700);
    while journal.append(intent()).is_ok() {}
    wait_for(&progress, Progress::Failed);
    disk.fill_up_after(usize::MAX);
    wait_for(&progress, Progress::Recovered);
    journal.close(SOON).unwrap();
    let seqs = disk.seqs();
    assert!(seqs.iter().copied().eq(1..=journal.durable()), "{seqs:?}");
}

#[test]
fn an_intent_does_not_wait_for_company() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    let fastest = (0..20)
        .map(|_| {
            let started = Instant::now();
            let ticket = journal.append(intent()).unwrap();
            wait_for(&progress, Progress::Durable(ticket));
            started.elapsed()
        })
        .min();
    // The best of many, as a busy machine may delay any one of them.
    assert!(fastest.unwrap() < LINGER, "{fastest:?}");
}

#[test]
fn records_nobody_waits_for_are_synced_soon() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    let started = Instant::now();
    let mut last = 0;
    for _ in 0..20 {
        last = journal.append(Record::new(Kind::Denied)).unwrap();
    }
    wait_for(&progress, Progress::Durable(last));
    assert!(started.elapsed() >= SYNC_WITHIN);
    assert_eq!(disk.syncs(), 1);
}

#[test]
fn closing_on_a_dead_disk_says_what_was_lost() {
    let disk = FakeDisk::default();
    let (journal, progress) = start(&disk, 4096);
    disk.fill_up_after(0);
    journal.append(intent()).unwrap();
    wait_for(&progress, Progress::Failed);
    let lost = journal.close(SOON).unwrap_err();
    assert!(
        matches!(lost, JournalError::Unwritten { records: 1 }),
        "{lost:?}"
    );
}

#[test]
fn a_panic_on_the_thread_fails_the_journal_instead_of_filling_it() {
    let disk = FakeDisk::default();
    let options = options(Path::new("unused"));
    let journal = Journal::start(disk, End::default(), &options, |_| panic!("on purpose")).unwrap();
    journal.append(intent()).unwrap();
    let deadline = Instant::now() + SOON;
    while journal.append(intent()) != Err(Unavailable::Failed) {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

impl Default for End {
    fn default() -> Self {
        Self {
            length: 0,
            next: 1,
            head: Hash::NONE,
        }
    }
}

// --- Fixtures ---------------------------------------------------------------------------

fn intent() -> Record {
    Record {
        device: Some("press-07".into()),
        function: Some(6),
        ..Record::new(Kind::WriteIntent)
    }
}

fn stranger() -> Record {
    Record {
        client: Some(Arc::new(Party {
            address: Some([10, 9, 8, 7].into()),
            ..Party::default()
        })),
        ..Record::new(Kind::ClientOpen)
    }
}

fn options(dir: &Path) -> Options {
    Options::new(dir, "press-07")
}

fn open(dir: &Path) -> Result<(Journal, Recovered), JournalError> {
    Journal::open(options(dir), |_| {})
}

fn start(disk: &FakeDisk, capacity: usize) -> (Journal, Receiver<Progress>) {
    let (sender, progress) = mpsc::channel();
    let options = Options {
        capacity,
        ..options(Path::new("unused"))
    };
    let journal = Journal::start(disk.clone(), End::default(), &options, forward(sender)).unwrap();
    (journal, progress)
}

fn forward(sender: mpsc::Sender<Progress>) -> impl Fn(Progress) + Send + 'static {
    move |progress| {
        let _ = sender.send(progress);
    }
}

fn wait_for(progress: &Receiver<Progress>, wanted: Progress) {
    while progress.recv_timeout(SOON).unwrap() != wanted {}
}

fn records(dir: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A file in memory whose syncs can be held up, and which can fail.
#[derive(Clone)]
struct FakeDisk(Arc<(Mutex<FakeFile>, Condvar)>);

struct FakeFile {
    content: Vec<u8>,
    synced: usize,
    room: usize,
    syncs: usize,
    failing_syncs: usize,
    held: bool,
    syncing: bool,
}

impl Default for FakeDisk {
    fn default() -> Self {
        let file = FakeFile {
            content: Vec::new(),
            synced: 0,
            room: usize::MAX,
            syncs: 0,
            failing_syncs: 0,
            held: false,
            syncing: false,
        };
        Self(Arc::new((Mutex::new(file), Condvar::new())))
    }
}

impl FakeDisk {
    fn file(&self) -> MutexGuard<'_, FakeFile> {
        self.0.0.lock().unwrap()
    }

    fn hold_syncs(&self, held: bool) {
        self.file().held = held;
        self.0.1.notify_all();
    }

    fn wait_until_syncing(&self) {
        let (_file, waited) = self
            .0
            .1
            .wait_timeout_while(self.file(), SOON, |file| !file.syncing)
            .unwrap();
        assert!(!waited.timed_out());
    }

    fn fail_syncs(&self, times: usize) {
        self.file().failing_syncs = times;
    }

    fn fill_up_after(&self, bytes: usize) {
        self.file().room = bytes;
    }

    fn syncs(&self) -> usize {
        self.file().syncs
    }

    fn log(&self) -> String {
        String::from_utf8(self.file().content.clone()).unwrap()
    }

    fn lines(&self) -> usize {
        self.log().lines().count()
    }

    fn synced_lines(&self) -> usize {
        let file = self.file();
        file.content[..file.synced]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
    }

    /// Of all lines, each of which must be a record.
    fn seqs(&self) -> Vec<u64> {
        let log = self.log();
        let lines = log.split_terminator('\n');
        lines
            .map(|line| serde_json::from_str::<Record>(line).unwrap().seq)
            .collect()
    }

    fn record(&self, index: usize) -> serde_json::Value {
        serde_json::from_str(self.log().lines().nth(index).unwrap()).unwrap()
    }
}

impl Disk for FakeDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file();
        let fits = bytes
            .len()
            .min(file.room.saturating_sub(file.content.len()));
        file.content.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut file = self.file();
        file.syncing = true;
        self.0.1.notify_all();
        while file.held {
            file = self.0.1.wait(file).unwrap();
        }
        file.syncing = false;
        file.syncs += 1;
        if file.failing_syncs > 0 {
            file.failing_syncs -= 1;
            let synced = file.synced;
            file.content[synced..].fill(0);
            return Err(io::Error::other("lost pages"));
        }
        file.synced = file.content.len();
        Ok(())
    }

    fn rewind(&mut self, length: u64) -> io::Result<u64> {
        self.file().content.truncate(length as usize);
        Ok(length)
    }

    fn rotate(&mut self, _now: SystemTime) -> io::Result<bool> {
        Ok(false)
    }

    fn is_filling(&self) -> bool {
        false
    }

    fn surplus(&self, _now: Stamp) -> Vec<Head> {
        Vec::new()
    }

    fn remove(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }
}
