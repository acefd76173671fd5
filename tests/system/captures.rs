//! Every request of the captures through the whole pair, compared with a direct connection.
//!
//! With an open policy each answer is byte for byte that of the device, except for requests
//! that break the specification: `tests/captures/refused.txt` lists them with their answers.
//! With a read-only policy whatever may change the device is refused and never reaches it.

mod device;
mod refused;
mod replay;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fieldlock_testkit::capture::{Capture, data_folder, modbus_captures};
use fieldlock_tests::answers::ILLEGAL_FUNCTION;
use fieldlock_tests::{OPEN_POLICY, Pair, Setup, Transport, trial};
use libtest_mimic::Trial;

use device::{Device, is_read};
use replay::{Answer, Exchange, replay};

/// The captures that the tests know, so that a missing one is skipped by its name, and how
/// many requests they hold.
const KNOWN: [(&str, usize); 15] = [
    ("icsnpp_modbus_example", 24),
    ("iti_ModbusTCP", 7990),
    ("iti_modbus_test", 1142),
    ("iti_modicon_umas_fc90_A", 45),
    ("iti_quickdraw_part1", 22),
    ("lemay_characterization_partA", 1984),
    ("lemay_cnc_upload", 145),
    ("lemay_covert_channel_4d_12s", 7821),
    ("lemay_moving_two_files", 360),
    ("lemay_operate_baseline_280s", 508),
    ("suricata_verify_modbus", 22),
    ("zeek_4SICS-GeekLounge-151022-min", 1),
    ("zeek_fuzz-1011", 2),
    ("zeek_modbus-eit", 2),
    ("zeek_modbusSmall", 16),
];

pub(crate) fn trials() -> Vec<Trial> {
    let open = [Transport::Quic, Transport::Tls].map(|transport| {
        let rig = Rig::new(transport, OPEN_POLICY.to_owned());
        (format!("open::{transport}"), rig, open as Test)
    });
    let policy = OPEN_POLICY.replace("syntax = 1", "syntax = 1\nread_only = true");
    let rig = Rig::new(Transport::Quic, policy);
    let read_only = ("read_only".to_owned(), rig, read_only as Test);
    let mut trials = Vec::new();
    for (kind, rig, test) in open.into_iter().chain([read_only]) {
        for capture in names() {
            let name = format!("captures::{kind}::{capture}");
            trials.push(match path_of(&capture) {
                Some(path) => {
                    let rig = rig.clone();
                    trial::test(&name, move || {
                        test(&rig, &capture, &Capture::read(&path).unwrap());
                    })
                }
                None => trial::ignored(&name, "no such capture; FIELDLOCK_DATA names the folder"),
            });
        }
    }
    trials
}

type Test = fn(&Rig, &str, &Capture);

/// The known captures and what else is in the folder.
fn names() -> BTreeSet<String> {
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let found = modbus_captures().into_iter().filter_map(stem);
    let known = KNOWN.iter().map(|(name, _)| (*name).to_owned());
    known.chain(found).collect()
}

fn path_of(capture: &str) -> Option<PathBuf> {
    let path = data_folder()?
        .join("modbus")
        .join(format!("{capture}.pcap"));
    path.exists().then_some(path)
}

/// A pair in front of a device, started by the first test that needs it and ended by the last.
struct Rig {
    transport: Transport,
    policy: String,
    // Dropped in this order: the edge's connections first.
    pair: OnceLock<Pair>,
    device: OnceLock<Device>,
}

impl Rig {
    fn new(transport: Transport, policy: String) -> Arc<Self> {
        Arc::new(Self {
            transport,
            policy,
            pair: OnceLock::new(),
            device: OnceLock::new(),
        })
    }

    fn device(&self) -> &Device {
        self.device.get_or_init(Device::start)
    }

    fn pair(&self) -> &Pair {
        self.pair.get_or_init(|| {
            Setup::new(self.transport)
                .plc(self.device().address())
                .modbus_tcp("max_connections = 2, in_flight = 16")
                .device("queue = 512")
                .answer_within("10s")
                .policy(&self.policy)
                .up()
        })
    }
}

fn open(rig: &Rig, name: &str, capture: &Capture) {
    let (direct, through) = both_ways(rig, capture);
    if let Some((_, count)) = KNOWN.iter().find(|(known, _)| *known == name) {
        assert_eq!(through.len(), *count, "requests in the capture");
    }
    let mut differing = BTreeSet::new();
    for (direct, through) in direct.iter().zip(&through) {
        assert_eq!(direct.request, through.request);
        if through.answer == Answer::Closed || through.answer != direct.answer {
            differing.insert(refused::line(name, through));
        }
    }
    refused::check(name, differing);
}

fn read_only(rig: &Rig, name: &str, capture: &Capture) {
    let (direct, through) = both_ways(rig, capture);
    let malformed = refused::expected(name);
    for (direct, through) in direct.into_iter().zip(through) {
        if malformed.contains(&refused::line(name, &through)) {
            continue;
        }
        let pdu = &through.request[7..];
        let expected = match is_read(pdu) {
            true => direct.answer,
            false => refusal(&through.request),
        };
        assert_eq!(through.answer, expected, "frame {}", through.frame);
    }
    assert_eq!(
        rig.device().writes(),
        0,
        "requests that are no reads passed"
    );
}

fn both_ways(rig: &Rig, capture: &Capture) -> (Vec<Exchange>, Vec<Exchange>) {
    let device = Device::start();
    let direct = replay(capture, device.address());
    let through = replay(capture, rig.pair().clients);
    assert_eq!(direct.len(), through.len());
    (direct, through)
}

fn refusal(request: &[u8]) -> Answer {
    let mut adu = request[..7].to_vec();
    adu[5] = 3;
    adu.extend([request[7] | 0x80, ILLEGAL_FUNCTION]);
    Answer::Adu(adu)
}
