use super::*;
use std::collections::BTreeMap;
use std::process::Command;

use crate::modbus::adu;
use crate::peers::Peer;

/// A file of Ethernet frames, written by a machine of either kind.
struct File(Vec<u8>, bool);

impl File {
    fn new(big_endian: bool) -> Self {
        let mut file = Self(Vec::new(), big_endian);
        for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 1] {
            file.word(word);
        }
        file
    }

    fn word(&mut self, word: u32) {
        let bytes = if self.1 {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        };
        self.0.extend(bytes);
    }

    /// A segment from 10.0.0.1:40000 to 10.0.0.2:502, padded as Ethernet demands.
    fn request(mut self, sequence: u32, flags: u8, payload: &[u8]) -> Self {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45, 0]);
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(MODBUS.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        frame.resize(frame.len().max(60), 0);
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            self.word(word);
        }
        self.0.extend(frame);
        self
    }

    fn requests(&self) -> Vec<(u32, PieceKind, usize)> {
        let capture = Capture::parse(&self.0).unwrap();
        assert_eq!(capture.connections.len(), 1);
        let pieces = capture.connections[0].requests.iter();
        pieces
            .map(|piece| (piece.frame, piece.kind, piece.bytes.len()))
            .collect()
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[test]
fn segments_are_put_in_order_and_repeats_dropped() {
    let first = adu(1, 1, &[3, 0, 0, 0, 1]);
    let both = [first.clone(), adu(2, 1, &[3, 0, 1, 0, 1])].concat();
    for big_endian in [false, true] {
        let file = File::new(big_endian)
            .request(u32::MAX, SYN, &[])
            .request(15, ACK, &both[15..])
            .request(0, ACK, &first)
            .request(0, ACK, &first)
            .request(8, ACK, &both[8..20]);
        let expected = [(3, PieceKind::Adu, 12), (2, PieceKind::Adu, 12)];
        assert_eq!(file.requests(), expected);
    }
}

#[test]
fn a_gap_ends_a_piece_and_a_later_segment_goes_on() {
    let one = adu(1, 1, &[3, 0, 0, 0, 1]);
    let file = File::new(false)
        .request(100, ACK, &one[..8])
        .request(500, ACK, &one);
    let expected = [(1, PieceKind::Partial, 8), (2, PieceKind::Adu, 12)];
    assert_eq!(file.requests(), expected);
}

#[test]
fn what_is_not_framed_is_kept_with_its_frame() {
    let one = adu(1, 1, &[3, 0, 0, 0, 1]);
    let file = File::new(false)
        .request(0, ACK, b"GET / HTTP/1.1\r\n")
        .request(16, ACK, &one);
    let expected = [(1, PieceKind::Unframed, 16), (2, PieceKind::Adu, 12)];
    assert_eq!(file.requests(), expected);
}

#[test]
fn a_port_used_again_is_another_connection() {
    let one = adu(1, 1, &[3, 0, 0, 0, 1]);
    let file = File::new(false)
        .request(0, SYN, &[])
        .request(1, ACK, &one)
        .request(9_000, SYN, &[])
        .request(9_001, ACK, &one);
    let capture = Capture::parse(&file.0).unwrap();
    assert_eq!(capture.connections.len(), 2);
    assert!(
        capture
            .connections
            .iter()
            .all(|one| one.request_adus().count() == 1)
    );
}

#[test]
fn broken_files_are_refused() {
    let file = File::new(false).request(0, ACK, b"x");
    let problem = |bytes: &[u8]| Capture::parse(bytes).unwrap_err().to_string();
    let short = problem(&file.0[..file.0.len() - 1]);
    assert_eq!(short, "bytes: the file ends within frame 1");
    assert!(problem(&[0; 40]).contains("neither pcap nor pcapng"));
}

/// Function codes (with the exception bit) and how often, in both directions.
type Functions = BTreeMap<u8, usize>;

/// We see in real traffic what tshark sees, capture by capture.
#[test]
fn real_captures_hold_what_tshark_sees() {
    let captures = modbus_captures();
    if captures.is_empty() {
        eprintln!("skipped: no captures (set FIELDLOCK_DATA)");
        return;
    }
    if let Some(missing) = Peer::skip_reason(&["tshark"]) {
        eprintln!("skipped: {missing}");
        return;
    }
    let tshark = &Peer::find_all(&["tshark"]).unwrap()[0];
    for path in captures {
        let ours = functions(&Capture::read(&path).unwrap());
        let theirs = functions_by(tshark, &path);
        assert_eq!(ours, theirs, "{}", path.display());
    }
}

fn functions(capture: &Capture) -> Functions {
    let mut functions = Functions::new();
    let pieces = capture.connections.iter();
    for (_, adu) in pieces.flat_map(|one| one.request_adus().chain(one.answer_adus())) {
        *functions.entry(adu[7] & 0x7f).or_default() += 1;
    }
    functions
}

fn functions_by(tshark: &Path, path: &Path) -> Functions {
    let output = Command::new(tshark)
        .args(["-r", &path.to_string_lossy()])
        .args(["-Y", "modbus", "-T", "fields", "-e", "modbus.func_code"])
        .output()
        .unwrap();
    let mut functions = Functions::new();
    let text = String::from_utf8(output.stdout).unwrap();
    for code in text.split([',', '\n']).filter(|code| !code.is_empty()) {
        *functions.entry(code.parse().unwrap()).or_default() += 1;
    }
    functions
}
