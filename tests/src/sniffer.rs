//! tshark on a wire: what was really there, in the eyes of somebody else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fieldlock_profinet::{Frame, Mac};
use fieldlock_rawsock::Namespace;
use fieldlock_testkit::process::{Directory, Process};

use crate::rig::{Rig, STATION};
use crate::{SOON, within};

/// EtherType for experiments (IEEE 802): what nobody but a sniffer looks at.
const MARK: u16 = 0x88b5;

/// A capture at a station's end of a wire, in both directions.
#[derive(Debug)]
pub struct Sniffer {
    process: Process,
    file: PathBuf,
}

/// A frame as tshark has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub src: Mac,
    pub dst: Mac,
    pub ethertype: u16,
    /// Of an 802.1Q tag.
    pub priority: Option<u8>,
    /// Of a PROFINET frame.
    pub frame_id: Option<u16>,
    pub malformed: bool,
}

impl Sniffer {
    /// Starts it, and waits until it sees what is on the wire.
    #[track_caller]
    pub fn start(rig: &Rig, wire: &Namespace, name: &str, directory: &Directory) -> Self {
        let file = directory.path().join(format!("{name}.pcapng"));
        let mut command = Command::new("tshark");
        command
            .args(["-i", STATION, "-n", "-q", "-Q", "-w"])
            .arg(&file);
        let mut sniffer = Self {
            process: rig.spawn_in(wire, name, &mut command, directory.path()),
            file,
        };
        sniffer.await_mark(rig, wire, "the capture to begin");
        sniffer
    }

    /// The frames so far, without the marks: all that were on the wire before this call.
    #[track_caller]
    pub fn stop(mut self, rig: &Rig, wire: &Namespace) -> Vec<Seen> {
        let before = marks(&self.file);
        self.mark_until(rig, wire, "the capture to go on", |file| {
            marks(file) > before
        });
        self.process.terminate();
        self.process.wait_exit(SOON).unwrap();
        read(&self.file)
    }

    fn await_mark(&mut self, rig: &Rig, wire: &Namespace, what: &str) {
        self.mark_until(rig, wire, what, |file| marks(file) > 0);
    }

    /// Sends marks from the station's end until one of them is in the file.
    #[track_caller]
    fn mark_until(
        &mut self,
        rig: &Rig,
        wire: &Namespace,
        what: &str,
        done: impl Fn(&Path) -> bool,
    ) {
        let mut socket = rig.station(wire);
        let mut mark = Vec::new();
        Frame {
            dst: Mac::BROADCAST,
            src: socket.mac(),
            tag: None,
            ethertype: MARK,
            payload: &[],
        }
        .encode(&mut mark);
        within(SOON, what, || {
            socket.try_send(&[&mark]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            done(&self.file)
        });
    }
}

/// Marks in a capture file: nothing else in it has their EtherType behind a broadcast.
fn marks(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap_or_default();
    let [high, low] = MARK.to_be_bytes();
    let is_mark = |window: &&[u8]| window[..6] == Mac::BROADCAST.0 && window[12..] == [high, low];
    bytes.windows(14).filter(is_mark).count()
}

fn read(file: &Path) -> Vec<Seen> {
    let fields = [
        "eth.src",
        "eth.dst",
        "eth.type",
        "vlan.etype",
        "vlan.priority",
        "pn_rt.frame_id",
        "_ws.malformed",
    ];
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "occurrence=f", "-r"]);
    command.arg(file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let seen = text.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [src, dst, ethertype, behind, priority, frame_id, malformed] = fields[..] else {
            panic!("tshark: {line}");
        };
        let ethertype = if behind.is_empty() { ethertype } else { behind };
        Seen {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ethertype: hexadecimal(ethertype).unwrap(),
            priority: priority.parse().ok(),
            frame_id: hexadecimal(frame_id),
            malformed: !malformed.is_empty(),
        }
    });
    seen.filter(|seen| seen.ethertype != MARK).collect()
}

fn hexadecimal(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
