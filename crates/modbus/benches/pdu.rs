//! The parser's share of a request: `cargo bench -p fieldlock-modbus`.

use std::hint::black_box;

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use fieldlock_modbus::{Expected, Request, mbap, rtu};

/// Prints a line for allocations under a benchmark that makes any; none here may.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const NAMES: [&str; 5] = [
    "read 10 registers",
    "read 125 registers",
    "write 1 register",
    "write 123 registers",
    "write file record",
];

/// Request and answer.
fn exchange(name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |count: u8| {
        let data = vec![7; 2 * usize::from(count)];
        let answer = [&[3, 2 * count][..], &data].concat();
        (vec![3, 0, 0, 0, count], answer)
    };
    match name {
        "read 10 registers" => read(10),
        "read 125 registers" => read(125),
        "write 1 register" => (vec![6, 0, 1, 0, 2], vec![6, 0, 1, 0, 2]),
        "write 123 registers" => {
            let request = [&[16, 0, 0, 0, 123, 246][..], &[7; 246]].concat();
            (request, vec![16, 0, 0, 0, 123])
        }
        _ => {
            let request = [&[21, 251, 6, 0, 1, 0, 0, 0, 122][..], &[7; 244]].concat();
            (request.clone(), request)
        }
    }
}

#[divan::bench(args = NAMES)]
fn parse(bencher: Bencher<'_, '_>, name: &str) {
    let (request, _) = exchange(name);
    bencher.bench(|| Request::parse(black_box(&request)).is_ok());
}

/// From the bytes of a client to a parsed request and what may answer it.
#[divan::bench(args = NAMES)]
fn frame_to_expected(bencher: Bencher<'_, '_>, name: &str) {
    let (request, _) = exchange(name);
    let mut stream = Vec::new();
    mbap::encode(&mut stream, 1, 1, &request);
    bencher.bench(|| {
        let (adu, _) = mbap::decode(black_box(&stream)).ok()??;
        let request = Request::parse(adu.pdu).ok()?;
        Some(Expected::of(&request))
    });
}

#[divan::bench(args = NAMES)]
fn check(bencher: Bencher<'_, '_>, name: &str) {
    let (request, answer) = exchange(name);
    if let Ok(request) = Request::parse(&request) {
        let expected = Expected::of(&request);
        bencher.bench(|| black_box(&expected).check(black_box(&answer)).is_ok());
    }
}

/// Every value of a request to write 123 registers, as value bounds look at them.
#[divan::bench]
fn written_values(bencher: Bencher<'_, '_>) {
    let (request, _) = exchange("write 123 registers");
    if let Some(write) = Request::parse(&request).ok().and_then(|r| r.write()) {
        bencher.bench(|| black_box(write).values.iter().max());
    }
}

#[divan::bench]
fn crc_of_256_bytes(bencher: Bencher<'_, '_>) {
    let bytes = [0x5A; rtu::MAX_ADU];
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| rtu::crc(black_box(&bytes)));
}
