//! Files that somebody else may have written or changed: audit logs and captures.

use std::path::Path;

use fieldlock_audit::export::{cef, syslog};
use fieldlock_audit::{Record, Verifier, steers};
use fieldlock_capture::{MODBUS, PieceKind, Reader};

/// The largest ADU that a capture's reader takes for one: MBAP's length up to 512 behind 6 octets.
const LONGEST_ADU: usize = 518;

/// The file of an audit log: what is found in order forms one chain, and every form of a record,
/// in order or not, is one line that steers nothing.
pub fn audit_log(data: &[u8]) {
    let mut verifier = Verifier::new();
    let mut last = None;
    let read = verifier.file("audit.jsonl", data, true, |place, record| {
        assert!(last.is_none_or(|last: u64| last.checked_add(1) == Some(record.seq)));
        last = Some(record.seq);
        assert!(place.line <= data.len() as u64);
    });
    for line in data.split(|octet| *octet == b'\n') {
        if let Ok(record) = serde_json::from_slice::<Record>(line) {
            let line = cef::format(&record);
            assert!(!line.contains(steers), "{line:?}");
            let message = syslog::format(&record, &line);
            assert!(!String::from_utf8(message).unwrap().contains(steers));
        }
    }
    match read.and_then(|()| verifier.finish()) {
        Ok(summary) => assert_eq!(Some(summary.last), last),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// A capture file: no more comes out than is in it, and the reader goes on after an end in the
/// middle.
pub fn capture_file(data: &[u8]) {
    let Ok(mut reader) = Reader::new(data, Path::new("capture"), &[MODBUS]) else {
        return;
    };
    let (mut octets, mut failed) = (0, false);
    loop {
        let piece = match reader.next() {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                assert!(!std::mem::replace(&mut failed, true), "{error}");
                continue;
            }
        };
        octets += piece.bytes.len();
        assert!(octets <= data.len());
        assert!(piece.frame <= reader.frames() && piece.server.port() == MODBUS);
        if piece.kind == PieceKind::Adu {
            assert!((8..=LONGEST_ADU).contains(&piece.bytes.len()));
        }
    }
}
