//! Every frame of the captures, and frames of kinds that they lack, as tshark reads them: field by
//! field, and no field of tshark's without one of ours unless `fields.rs` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fields;
mod made;
mod refusals;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use fieldlock_capture::{Frames, LinkType};
use fieldlock_profinet::Frame;
use fieldlock_testkit::capture::data_folder;
use fieldlock_testkit::peers::Peer;
use serde_json::Value;

type Counts = BTreeMap<&'static str, usize>;

/// Frames of each kind in the ten captures.
const KNOWN: [(&str, usize); 9] = [
    ("alarm", 2),
    ("arp", 21),
    ("cyclic", 102),
    ("dcp", 26),
    ("lldp", 201),
    ("other-ethertype", 164),
    ("other-ip", 44),
    ("ptcp", 41),
    ("udp", 2004),
];

/// Captures that also hold frames of other networks, and frames that are wrong on purpose.
const OTHERS: [&str; 2] = ["plc4x_connect_simocode.pcapng", "pnet_vectors_generic.pcap"];

#[test]
fn every_frame_of_the_captures_is_read_as_tshark_reads_it() {
    let Some(tshark) = tshark() else { return };
    let Some(folder) = data_folder().map(|folder| folder.join("profinet")) else {
        eprintln!("skipped: no captures (set FIELDLOCK_DATA)");
        return;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| matches!(path.extension(), Some(e) if e == "pcap" || e == "pcapng"))
        .filter(|path| {
            !path
                .file_name()
                .is_some_and(|name| OTHERS.iter().any(|o| name == *o))
        })
        .collect();
    files.sort();
    let mut counts = Counts::new();
    for file in &files {
        compare(&tshark, file, &mut counts);
    }
    eprintln!("compared in {} captures: {counts:?}", files.len());
    assert_eq!(counts, Counts::from(KNOWN));
}

#[test]
fn frames_that_the_captures_lack_are_read_as_tshark_reads_them() {
    let Some(tshark) = tshark() else { return };
    let frames = made::frames();
    let file = tempfile::Builder::new().suffix(".pcap").tempfile().unwrap();
    fs::write(file.path(), pcap(&frames)).unwrap();
    let mut counts = Counts::new();
    compare(&tshark, file.path(), &mut counts);
    eprintln!("compared of those that are made: {counts:?}");
    assert_eq!(counts.values().sum::<usize>(), frames.len());
    assert_eq!(counts.len(), 4, "{counts:?}");
}

fn tshark() -> Option<PathBuf> {
    if let Some(missing) = Peer::skip_reason(&["tshark"]) {
        eprintln!("skipped: {missing}");
        return None;
    }
    Some(Peer::find("tshark").expect("tshark is required"))
}

fn compare(tshark: &Path, file: &Path, counts: &mut Counts) {
    let expected = decoded(tshark, file);
    let mut frames = Frames::new(BufReader::new(File::open(file).unwrap())).unwrap();
    let mut number = 0;
    while let Some(frame) = frames.next().unwrap() {
        let place = format!("{}, frame {}", file.display(), frame.number);
        assert_eq!(frame.link_type, LinkType::Ethernet, "{place}");
        let layers = &expected[number]["_source"]["layers"];
        let parsed = Frame::parse(frame.bytes).unwrap_or_else(|error| panic!("{place}: {error}"));
        let kind = fields::compare(&parsed, layers, &place);
        *counts.entry(kind).or_default() += 1;
        number += 1;
    }
    assert_eq!(number, expected.len(), "{}", file.display());
}

fn decoded(tshark: &Path, file: &Path) -> Vec<Value> {
    let output = Command::new(tshark)
        .args(["-n", "-T", "json", "--no-duplicate-keys"])
        .args(["-o", "ip.check_checksum:TRUE"])
        .args(["-o", "udp.check_checksum:TRUE"])
        .arg("-r")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&String::from_utf8_lossy(&output.stdout)).unwrap()
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for frame in frames {
        let length = frame.len() as u32;
        file.extend(words(&[0, 0, length, length]));
        file.extend(frame);
    }
    file
}
