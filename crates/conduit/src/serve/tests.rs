use std::time::Duration;

use fieldlock_policy::{Client, Now, Origin, Policy, Side};

use super::*;

const MS: Duration = Duration::from_millis(1);
const WRITE: &[u8] = &[6, 0, 7, 0, 1];
const READ: &[u8] = &[3, 0, 7, 0, 1];

const POLICY: &str = r#"
syntax = 1
[[allow]]
name = "all"
client = ["any"]
device = ["plc"]
unit = [0, 1]
function = [3, 6]
address = ["holding 0-99"]
rate = { count = 3, per = "1m" }
"#;

/// An edge with one device.
struct Edge {
    serving: Serving<u64>,
    policy: Policy,
    meter: Meter,
    now: Instant,
    next: u64,
    has_written: Cell<bool>,
}

impl Edge {
    fn new(settings: DeviceSettings) -> Self {
        let now = Instant::now();
        let repeats = Repeats::at_edge(Duration::from_secs(10));
        Self {
            serving: Serving::new(settings, 1, repeats, now),
            policy: Policy::parse(POLICY, "policy.toml").unwrap(),
            meter: Meter::default(),
            now,
            next: 0,
            has_written: Cell::new(false),
        }
    }

    /// Asks through a headend process; the key, or why not.
    fn ask(&mut self, process: u64, unit: u8, pdu: &[u8]) -> Result<Key, (Fate, [u8; 2])> {
        let whose = Who::Address([192, 0, 2, 1].into());
        let origin = Origin {
            side: Side::Edge,
            via: Some("hd-1"),
            client: Client {
                address: Some([192, 0, 2, 1].into()),
                identity: None,
                role: None,
            },
        };
        let phase = self.policy.phase(Now::Unknown);
        let view = self.policy.view(&origin, "plc", &phase);
        let asked = Asked {
            client: ClientKey(process << 32 | 1),
            whose: &whose,
            has_written: &self.has_written,
            id: self.next,
            deadline: self.now + 1000 * MS,
        };
        self.next += 1;
        let headend = Who::Headend("hd-1".into());
        let meter = (&mut self.meter, &headend);
        let taken = self
            .serving
            .request(self.now, self.next, asked, &view, (unit, pdu), meter);
        match taken {
            Ok(Taken::Read { key, .. } | Taken::Write { key, .. }) => Ok(key),
            Err((asker, shed)) => {
                assert_eq!(asker, self.next);
                Err((shed.fate(), shed.pdu()))
            }
        }
    }

    /// What ended, by asker, and how.
    fn ended(&mut self) -> Vec<(u64, Fate, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(event) = self.serving.poll_event(self.now) {
            if let Event::Ended(ended) = event {
                all.push((ended.asker, ended.fate, ended.pdu.to_vec()));
            }
        }
        all
    }

    /// The connection that the device is asked on, once it is open.
    fn connect(&mut self) -> ConnId {
        let conn = loop {
            match self.serving.poll_event(self.now) {
                Some(Event::Connect(conn)) => break conn,
                other => assert!(other.is_some(), "no connection wanted"),
            }
        };
        self.serving.device_mut().handle_connected(self.now, conn);
        conn
    }

    fn sent(&mut self, conn: ConnId) -> Vec<u8> {
        let mut out = Vec::new();
        self.serving.device_mut().poll_transmit(conn, &mut out);
        out
    }
}

#[test]
fn a_write_is_sent_once_its_intent_is_on_the_disk() {
    let mut edge = Edge::new(DeviceSettings::default());
    let key = edge.ask(1, 1, WRITE).unwrap();
    edge.serving.hold(key, 7);
    let conn = edge.connect();
    edge.serving.handle_durable(edge.now, 6, true);
    assert_eq!(edge.sent(conn), []);
    edge.serving.handle_durable(edge.now, 7, true);
    assert_eq!(edge.sent(conn)[7..], *WRITE);
}

#[test]
fn what_can_not_be_recorded_is_refused_and_forgotten() {
    let mut edge = Edge::new(DeviceSettings::default());
    // Held while the disk fails.
    let key = edge.ask(1, 1, WRITE).unwrap();
    edge.serving.hold(key, 7);
    edge.serving.handle_durable(edge.now, 6, false);
    assert_eq!(edge.ended(), [(1, Fate::Refused, vec![0x86, 6])]);
    // Not even held: it says no word of it, and keeps no place.
    let key = edge.ask(2, 1, WRITE).unwrap();
    assert_eq!(edge.serving.take_back(edge.now, key), Some(2));
    assert_eq!(edge.ended(), []);
    assert_eq!(edge.serving.device().stats().queued, 0);
    assert!(edge.serving.is_empty());
    // Neither reached the device, so another may.
    edge.ask(3, 1, WRITE).unwrap();
}

#[test]
fn a_repeat_through_another_process_uses_no_rate() {
    let mut edge = Edge::new(DeviceSettings::default());
    edge.ask(1, 1, WRITE).unwrap();
    for _ in 0..9 {
        let refused = edge.ask(2, 1, WRITE).unwrap_err();
        assert_eq!(refused, (Fate::RepeatRefused, [0x86, 11]));
    }
    edge.ask(2, 1, READ).unwrap();
    edge.ask(2, 1, READ).unwrap();
    assert_eq!(
        edge.ask(2, 1, READ).unwrap_err(),
        (Fate::Refused, [0x83, 6])
    );
}

#[test]
fn what_the_queue_has_no_room_for_uses_no_rate_and_is_no_first() {
    let settings = DeviceSettings {
        queue: 1,
        max_connections: 1,
        in_flight: 1,
        ..DeviceSettings::default()
    };
    let mut edge = Edge::new(settings);
    let key = edge.ask(1, 1, READ).unwrap();
    for _ in 0..9 {
        let full = edge.ask(1, 1, WRITE).unwrap_err();
        assert_eq!(full, (Fate::Refused, [0x86, 6]));
    }
    assert!(edge.serving.repeats.is_empty());
    assert!(edge.serving.asker_mut(key).is_some());
}

#[test]
fn nobody_answers_a_broadcast_that_reads() {
    let settings = DeviceSettings {
        framing: crate::device::Framing::Rtu {
            baud: 19_200,
            frame_gap: 20 * MS,
            turnaround: 100 * MS,
        },
        ..DeviceSettings::default()
    };
    let mut edge = Edge::new(settings);
    assert_eq!(
        edge.ask(1, 0, READ).unwrap_err(),
        (Fate::Refused, [0x83, 1])
    );
    edge.ask(1, 0, WRITE).unwrap();
}

#[test]
fn what_was_not_sent_may_come_through_another_process() {
    let mut edge = Edge::new(DeviceSettings::default());
    edge.ask(1, 1, WRITE).unwrap();
    let client = ClientKey(1 << 32 | 1);
    edge.serving.device_mut().drop_client(edge.now, client);
    assert_eq!(edge.ended(), [(1, Fate::NotSent, vec![0x86, 10])]);
    edge.ask(2, 1, WRITE).unwrap();
}
