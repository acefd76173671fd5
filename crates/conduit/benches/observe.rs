//! What it costs the data path to tell of an exchange to somebody who looks on, and where nobody does.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use divan::Bencher;
use fieldlock_conduit::fate::Fate;
use fieldlock_conduit::observe::{Exchange, Observer, Parties};
use fieldlock_modbus::Request;

/// Reports allocations where there are any: none of these shows any.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

/// Short enough that the ring is never full at the pace of this bench; an agent's reader rests longer.
const REST: Duration = Duration::from_micros(100);

/// As an agent has it.
const ROOM: usize = 16_384;

const WHO: Parties = Parties {
    client: 1,
    device: 0,
    unit: 1,
};

fn main() {
    divan::main();
}

/// As a device's shell does it; the clock, which it reads once for each, is left out.
fn tell(observer: &Observer, now: Instant, request: &Request<'_>, answer: &[u8]) {
    if observer.is_on() {
        let exchange = Exchange::asked(now, WHO, request);
        let ended = exchange.ended(now, Fate::Answered, answer);
        observer.exchange(black_box(&ended), answer);
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench says when time begins")]
fn reading(bencher: Bencher<'_, '_>, observer: &Observer, registers: u8) {
    let pdu = [3, 0, 0, 0, registers];
    let request = Request::parse(&pdu).unwrap_or_else(|_| unreachable!("a read"));
    let mut answer = vec![3, 2 * registers];
    answer.resize(2 + 2 * usize::from(registers), 7);
    let now = Instant::now();
    // All of the ring is in memory before the clock starts.
    for _ in 0..4 * ROOM {
        tell(observer, now, &request, &answer);
    }
    bencher.bench_local(|| tell(observer, now, black_box(&request), black_box(&answer)));
}

#[divan::bench(args = [10, 125])]
fn nobody_looks_on(bencher: Bencher<'_, '_>, registers: u8) {
    reading(bencher, &Observer::default(), registers);
}

#[divan::bench(args = [10, 125])]
fn somebody_looks_on(bencher: Bencher<'_, '_>, registers: u8) {
    let observer = Observer::default();
    let mut ring = observer.turn_on(ROOM);
    let reader = thread::spawn(move || {
        while !ring.is_abandoned() {
            if let Ok(chunk) = ring.read_chunk(ring.slots()) {
                chunk.commit_all();
            }
            thread::sleep(REST);
        }
    });
    reading(bencher, &observer, registers);
    observer.turn_off();
    let _ = reader.join();
}
