//! A device whose answer is a pure function of unit and request, so that two ways to it can
//! be compared answer by answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const HEADER: usize = 7;

/// Codes that neither agent ever gives by itself: what they say is told from what they refuse.
const EXCEPTIONS: [u8; 3] = [0x04, 0x05, 0x08];

/// A server, more lenient than ours. It ends when dropped; its connections
/// when their other side closes.
#[derive(Debug)]
pub(crate) struct Device {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    writes: AtomicU64,
    stopped: AtomicBool,
}

impl Device {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let device = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let state = device.state.clone();
        thread::spawn(move || accept(&listener, &state));
        device
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests heard that are more than a read.
    pub(crate) fn writes(&self) -> u64 {
        self.state.writes.load(Ordering::SeqCst)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming().flatten() {
        if state.stopped.load(Ordering::SeqCst) {
            return;
        }
        let state = state.clone();
        thread::spawn(move || serve(stream, &state));
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let _ = stream.set_nodelay(true);
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..count]);
        let mut answers = Vec::new();
        if !is_framed(&received) {
            return;
        }
        while let Some(adu) = take_adu(&mut received) {
            if !is_read(&adu[HEADER..]) {
                state.writes.fetch_add(1, Ordering::SeqCst);
            }
            answer_adu(&adu, &mut answers);
        }
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}

/// Longer than the specification allows is taken, as some vendors' programming tools need it.
fn is_framed(received: &[u8]) -> bool {
    let protocol = word(received, 2).unwrap_or(0);
    let length = word(received, 4).unwrap_or(2);
    protocol == 0 && (2..=512).contains(&length)
}

fn take_adu(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let whole = 6 + usize::from(word(received, 4)?);
    (received.len() >= whole).then(|| received.drain(..whole).collect())
}

fn answer_adu(adu: &[u8], out: &mut Vec<u8>) {
    let unit = adu[6];
    let pdu = answer(unit, &adu[HEADER..]);
    out.extend_from_slice(&adu[..4]);
    out.extend((pdu.len() as u16 + 1).to_be_bytes());
    out.push(unit);
    out.extend(pdu);
}

/// Certainly a read, by the specification's function codes.
pub(crate) fn is_read(pdu: &[u8]) -> bool {
    matches!(
        pdu,
        [1..=4 | 7 | 11 | 12 | 17 | 20 | 24, ..] | [8, 0, 0 | 2 | 11..=18, ..] | [43, 14, ..]
    )
}

/// A well-formed answer, in one of seven cases an exception. What the specification leaves
/// no answer for gets an exception too.
fn answer(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut noise = Noise::seeded(unit, pdu);
    let code = EXCEPTIONS[usize::from(noise.byte()) % EXCEPTIONS.len()];
    let exception = vec![pdu[0] | 0x80, code];
    if noise.byte().is_multiple_of(7) {
        return exception;
    }
    normal(pdu, &mut noise).unwrap_or(exception)
}

fn normal(pdu: &[u8], noise: &mut Noise) -> Option<Vec<u8>> {
    let function = pdu[0];
    let echo = |length: usize| pdu.get(..length).map(<[u8]>::to_vec);
    match function {
        1 | 2 => counted(function, usize::from(word(pdu, 3)?).div_ceil(8), noise),
        3 | 4 | 23 => counted(function, 2 * usize::from(word(pdu, 3)?), noise),
        5 | 6 | 15 | 16 => echo(5),
        7 => Some(vec![7, noise.byte()]),
        8 => match word(pdu, 1)? {
            0 | 1 | 3 | 4 | 10 | 20 => echo(pdu.len()),
            _ => Some(vec![8, pdu[1], pdu[2], noise.byte(), noise.byte()]),
        },
        11 => Some([vec![11], noise.bytes(4)].concat()),
        12 => counted(12, 6 + usize::from(noise.byte() % 65), noise),
        17 => counted(17, 2 + usize::from(noise.byte() % 30), noise),
        20 => file_records(pdu, noise),
        21 => echo(pdu.len()),
        22 => echo(7),
        24 => fifo(noise),
        43 if pdu.get(1) == Some(&14) => Some(identification(*pdu.get(2)?, noise)),
        43 => Some([vec![43, *pdu.get(1)?], noise.bytes(9)].concat()),
        _ => {
            let length = usize::from(noise.byte() % 40);
            Some([vec![function], noise.bytes(length)].concat())
        }
    }
}

fn counted(function: u8, length: usize, noise: &mut Noise) -> Option<Vec<u8>> {
    let fits = (1..=250).contains(&length);
    fits.then(|| [vec![function, length as u8], noise.bytes(length)].concat())
}

fn file_records(pdu: &[u8], noise: &mut Noise) -> Option<Vec<u8>> {
    let mut groups = Vec::new();
    for request in pdu.get(2..)?.chunks(7) {
        let length = 1 + 2 * usize::from(word(request, 5)?);
        groups.push(u8::try_from(length).ok()?);
        groups.push(6);
        groups.extend(noise.bytes(length - 1));
    }
    let fits = (1..=245).contains(&groups.len());
    fits.then(|| [vec![20, groups.len() as u8], groups].concat())
}

fn fifo(noise: &mut Noise) -> Option<Vec<u8>> {
    let count = noise.byte() % 32;
    let words = noise.bytes(2 * usize::from(count));
    Some([vec![24, 0, 2 + 2 * count, 0, count], words].concat())
}

fn identification(code: u8, noise: &mut Noise) -> Vec<u8> {
    let mut answer = vec![43, 14, code, 0x83, 0, 0, 3];
    for object in 0..3 {
        let length = noise.byte() % 20;
        answer.extend([object, length]);
        answer.extend(noise.bytes(length.into()));
    }
    answer
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// FNV-1a over what was asked, then a linear congruential sequence.
struct Noise(u64);

impl Noise {
    fn seeded(unit: u8, pdu: &[u8]) -> Self {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        Self([unit].iter().chain(pdu).fold(0xCBF2_9CE4_8422_2325, fold))
    }

    fn byte(&mut self) -> u8 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}
