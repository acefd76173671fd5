//! What a record costs its writer, and how long a write waits for the disk.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use fieldlock_audit::{
    Address, Decision, DenialFilter, Journal, Kind, Options, Outcome, Party, Progress, ReadFilter,
    Reads, Record, Table, Values,
};

fn main() {
    divan::main();
}

/// In bursts of 512 with pauses, as the thread can't keep up with a loop that does nothing else.
#[divan::bench(sample_count = 40, sample_size = 512)]
fn append_outcome(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        capacity: 1 << 16,
        ..Options::new(dir.path(), "press-07")
    };
    let (journal, _) = Journal::open(options, |_| {}).unwrap();
    let intent = intent();
    bencher
        .with_inputs(|| Record {
            device: intent.device.clone(),
            client: intent.client.clone(),
            ..Record::write_outcome(7, Outcome::Answered)
        })
        .bench_local_values(|record| journal.append(record));
    journal.close(Duration::from_secs(10)).unwrap();
}

#[divan::bench(sample_count = 40, sample_size = 512)]
fn build_and_append_intent(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        capacity: 1 << 16,
        ..Options::new(dir.path(), "press-07")
    };
    let (journal, _) = Journal::open(options, |_| {}).unwrap();
    let template = intent();
    bencher.bench_local(|| journal.append(template.clone()));
    journal.close(Duration::from_secs(10)).unwrap();
}

/// Append to durable, one at a time: the least that a write through the edge waits.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn lone_intent_until_durable(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let (sender, progress) = mpsc::channel();
    let options = Options::new(dir.path(), "press-07");
    let (journal, _) = Journal::open(options, move |event| {
        let _ = sender.send(event);
    })
    .unwrap();
    bencher.with_inputs(intent).bench_local_values(|record| {
        let ticket = journal.append(record).unwrap();
        while progress.recv().unwrap() != Progress::Durable(ticket) {}
    });
    journal.close(Duration::from_secs(10)).unwrap();
}

/// What a record costs the thread: formatting, the chain, writing, and its part of the syncs.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn thread_for_16384_intents(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let template = intent();
    let count = 16_384_u64;
    bencher
        .counter(divan::counter::ItemsCount::new(count))
        .with_inputs(|| {
            let options = Options {
                capacity: 1 << 16,
                ..Options::new(dir.path(), "press-07")
            };
            Journal::open(options, |_| {}).unwrap().0
        })
        .bench_local_values(|journal| {
            for _ in 0..count {
                journal.append(template.clone()).unwrap();
            }
            journal.close(Duration::from_secs(10)).unwrap();
        });
}

/// A read that is like one before, as most are.
#[divan::bench(args = ["sampled", "changed"])]
fn known_read(bencher: Bencher<'_, '_>, reads: &str) {
    let mut filter = ReadFilter::new(match reads {
        "sampled" => Reads::Sampled(Duration::from_secs(60)),
        _ => Reads::Changed,
    });
    let now = Instant::now();
    let identity: Option<Arc<str>> = Some("spiffe://plant1.example/client/hmi-1".into());
    let key = (&identity, "press-07", 1_u8, 3_u8, (0_u16, 10_u16));
    let answer = [7; 22];
    filter.handle_read(now, key, &answer);
    bencher.bench_local(|| filter.handle_read(now, black_box(key), black_box(&answer)));
}

#[divan::bench]
fn repeated_denial(bencher: Bencher<'_, '_>) {
    let mut filter = DenialFilter::new();
    let now = Instant::now();
    let denied = Record {
        values: None,
        ..intent()
    };
    filter.handle_denial(now, denied.clone());
    bencher
        .with_inputs(|| denied.clone())
        .bench_local_values(|record| filter.handle_denial(now, black_box(record)));
}

#[divan::bench]
fn format_intent(bencher: Bencher<'_, '_>) {
    let record = intent();
    let mut line = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        line.clear();
        serde_json::to_writer(&mut line, black_box(&record)).unwrap();
    });
}

fn intent() -> Record {
    Record {
        time: Some(std::time::SystemTime::now()),
        tunnel: Some("spiffe://plant1.example/headend/hd-1".into()),
        client: Some(Arc::new(Party {
            name: Some("hmi-1".into()),
            address: Some([10, 1, 1, 20].into()),
            port: Some(50412),
            ..Party::default()
        })),
        device: Some("press-07".into()),
        unit: Some(1),
        function: Some(16),
        address: Some(Address {
            table: Table::Holding,
            first: 40,
            last: 41,
        }),
        quantity: Some(2),
        values: Some(Values::Registers([4, 176, 0, 5].into())),
        decision: Some(Decision::Allow),
        rule: Some("setpoint".into()),
        request: Some(99),
        policy: Some("3f2a".into()),
        ..Record::new(Kind::WriteIntent)
    }
}
