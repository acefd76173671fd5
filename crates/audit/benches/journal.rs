//! What a record costs its writer, and how long a write waits for the disk.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use fieldlock_audit::{
    Address, Decision, DenialFilter, Journal, Kind, Options, Outcome, Party, Progress, Record,
    Table, Values,
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
            identity: None,
            role: None,
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
