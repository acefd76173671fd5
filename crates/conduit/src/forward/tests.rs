use fieldlock_policy::{Client, Now, Origin, Policy, Side};

use super::*;
use crate::admit::{Count, admit};
use crate::meter::{Meter, Who};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Lets `ask` have a permit for this PDU of unit 1.
fn permitted<T>(pdu: &[u8], ask: impl FnOnce(&Permit<'_>) -> T) -> T {
    let text = "syntax = 1\n[[allow]]\nname = \"all\"\nclient = [\"any\"]\ndevice = [\"plc\"]\n\
                unit = [0, 1]\nfunction = [\"any\"]\naddress = [\"any\"]\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    let origin = Origin {
        side: Side::Headend,
        via: None,
        client: Client {
            address: Some([192, 0, 2, 1].into()),
            identity: None,
            role: None,
        },
    };
    let view = policy.view(&origin, "plc", &policy.phase(Now::Unknown));
    let count = Count {
        meter: &mut Meter::default(),
        who: &Who::Address([192, 0, 2, 1].into()),
        registers: None,
        now: Instant::now(),
    };
    ask(&admit(&view, 1, pdu, Quirks::NONE, count).unwrap())
}

fn channel(credit: u32) -> Forwarding<&'static str> {
    Forwarding::new(credit, SECOND, Quirks::NONE)
}

const WRITE: &[u8] = &[6, 0, 7, 0, 1];

fn begin(channel: &mut Forwarding<&'static str>, now: Instant, round_trip: Duration) -> (u64, u32) {
    permitted(WRITE, |permit| {
        let id = channel.reserve().unwrap();
        let within = channel.begin(now, id, permit, "hmi", || Some(round_trip));
        (id, within)
    })
}

#[test]
fn the_edge_gets_what_the_way_leaves_of_the_time_and_at_least_half() {
    for (round_trip, within) in [(0, 980), (100, 880), (480, 500), (481, 500), (5000, 500)] {
        let (_, got) = begin(&mut channel(1), Instant::now(), round_trip * MS);
        assert_eq!(got, within, "{round_trip}");
    }
}

#[test]
fn the_round_trip_is_looked_at_once_a_second() {
    let mut channel = channel(9);
    let start = Instant::now();
    let at = |millis: u32| start + millis * MS;
    assert_eq!(begin(&mut channel, at(0), 100 * MS).1, 880);
    assert_eq!(begin(&mut channel, at(1000), 200 * MS).1, 880);
    assert_eq!(begin(&mut channel, at(1001), 200 * MS).1, 780);
}

#[test]
fn each_word_of_the_edge_is_a_fate_of_its_own() {
    use Outcome::{Answered, NotSent, Refused, Unknown};
    for (outcome, pdu, fate, is_ours) in [
        (Answered, WRITE, Fate::Answered, false),
        (Answered, &[0x86, 4], Fate::Exception, false),
        (Refused, &[0x86, 1], Fate::Refused, false),
        (Refused, &[0x86, 11], Fate::RepeatRefused, false),
        (NotSent, &[0x86, 6], Fate::NotSent, false),
        (Unknown, &[0x86, 11], Fate::Unknown, false),
        // What does not fit the request is believed in nothing.
        (Answered, &[6, 0, 7, 0, 2], Fate::Unknown, true),
        (Answered, &[], Fate::Unknown, true),
        (Answered, &[0x83, 4], Fate::Unknown, true),
        (NotSent, WRITE, Fate::Unknown, true),
        (Unknown, WRITE, Fate::Unknown, true),
    ] {
        let mut channel = channel(1);
        let (id, _) = begin(&mut channel, Instant::now(), MS);
        let ended = channel.handle_answer(id, outcome, pdu).unwrap();
        assert_eq!((ended.asker, ended.fate), ("hmi", fate), "{pdu:02x?}");
        let expected = if is_ours { &[0x86, 11] } else { pdu };
        assert_eq!(ended.pdu(pdu), expected);
        assert!(channel.handle_answer(id, outcome, pdu).is_none(), "once");
        assert!(channel.is_empty());
    }
}

#[test]
fn credit_is_what_the_edge_gave() {
    let mut channel = channel(2);
    let now = Instant::now();
    let (first, _) = begin(&mut channel, now, MS);
    begin(&mut channel, now, MS);
    assert_eq!(channel.reserve(), None);
    channel.handle_answer(first, Outcome::Answered, WRITE);
    let id = channel.reserve().unwrap();
    channel.release(id);
    assert!(channel.reserve().is_some());
}

#[test]
fn what_is_overdue_or_lost_with_its_tunnel_may_have_happened() {
    let mut channel = channel(3);
    let now = Instant::now();
    begin(&mut channel, now, MS);
    begin(&mut channel, now + MS, MS);
    assert_eq!(channel.poll_timeout(), Some(now + SECOND));
    assert!(channel.handle_timeout(now + SECOND - MS).is_none());
    let overdue = channel.handle_timeout(now + SECOND).unwrap();
    let lost = channel.close();
    assert_eq!(lost.len(), 1);
    for ended in [&overdue, &lost[0]] {
        assert_eq!(ended.fate, Fate::Unknown);
        assert_eq!(ended.pdu(&[]), [0x86, 11]);
        assert!(!ended.reason.is_empty());
    }
    assert_eq!(channel.poll_timeout(), None);
}
